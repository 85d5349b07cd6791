"""Which task of which attempt: what every event, transition and log line about a task names."""

from typing import Annotated

import msgspec

from .model import Id, Model, ProviderName

Attempt = Annotated[int, msgspec.Meta(ge=1)]
CORRELATION = ("jobId", "taskId", "attempt")
"""Under these names the records and log lines of a backup are found."""


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
        return dict(zip(CORRELATION, (self.job_id, self.task_id, str(self.attempt)), strict=True))
