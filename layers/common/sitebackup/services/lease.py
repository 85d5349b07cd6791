"""A run's claim on its export: while it holds, no other run opens it (I13)."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from ..adapters.repository import Repository
from ..domain import transitions
from ..domain.errors import Unavailable
from ..domain.events import UploadJobCreated
from ..domain.policy import Policy
from .sources import TaskEnded

RENEW_EVERY = timedelta(seconds=10)


@dataclass
class RunLease:
    """Of one invocation, `owner`; `start_task` took it."""

    repository: Repository
    event: UploadJobCreated
    owner: str
    policy: Policy
    now: Callable[[], datetime]

    def __post_init__(self) -> None:
        self._renew_at = self.now() + RENEW_EVERY

    def renew(self) -> None:
        """Raises TaskEnded if another run has the export or the task has ended, RepositoryUnavailable or Conflict."""
        event = self.event
        renewed = self.repository.change(
            event.job_id,
            lambda job: transitions.renew_lease(
                job, event.attempt, event.provider, self.owner, self.now(), self.policy
            ),
        )
        if renewed is None:
            raise TaskEnded
        self._renew_at = self.now() + RENEW_EVERY

    def keep(self) -> None:
        """Renews it when it is time to. Raises what `renew` does."""
        if self.now() >= self._renew_at:
            self.renew()

    def is_held(self) -> bool:
        """Whether to read on; while MongoDB does not answer, it is taken to."""
        try:
            self.keep()
            job = self.repository.get(self.event.job_id)
        except TaskEnded:
            return False
        except Unavailable:
            return True
        task = job.live_task(self.event.attempt, self.event.provider) if job else None
        return task is not None and task.lease is not None and task.lease.owner == self.owner
