"""Which task of which attempt: what every event, transition and log line about a task names."""

from typing import Annotated

import msgspec

from .model import Id, Model, ProviderName

Attempt = Annotated[int, msgspec.Meta(ge=1)]
CORRELATION = ("jobId", "restoreId", "taskId", "attempt")
"""Under these names the records and log lines of a backup or a restore are found."""


class TaskRef(Model, frozen=True, kw_only=True):
    """One task of one attempt of a job."""

    job_id: Id
    attempt: Attempt
    provider: ProviderName

    @property
    def task_id(self) -> str:
        """Names the task across jobs."""
        return f"{self.job_id}/{self.provider}"

    @property
    def correlation(self) -> dict[str, str]:
        """What the headers of Kafka records carry."""
        return {"jobId": self.job_id, "taskId": self.task_id, "attempt": str(self.attempt)}


class RestoreTaskRef(Model, frozen=True, kw_only=True):
    """One task of one attempt of a restore."""

    restore_id: Id
    attempt: Attempt
    provider: ProviderName

    @property
    def task_id(self) -> str:
        """Names the task across restores."""
        return f"{self.restore_id}/{self.provider}"

    @property
    def correlation(self) -> dict[str, str]:
        """What the headers of Kafka records carry."""
        return {"restoreId": self.restore_id, "taskId": self.task_id, "attempt": str(self.attempt)}


class RestoreRef(Model, frozen=True, kw_only=True):
    """One attempt of a restore."""

    restore_id: Id
    attempt: Attempt

    def task(self, provider: str) -> RestoreTaskRef:
        """One task of it."""
        return RestoreTaskRef(restore_id=self.restore_id, attempt=self.attempt, provider=provider)


type AnyTaskRef = TaskRef | RestoreTaskRef
