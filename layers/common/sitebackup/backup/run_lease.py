"""A run's claim on its export: while it holds, no other run opens it (I13)."""

from dataclasses import dataclass
from datetime import timedelta

from ..domain.errors import TaskEnded, Unavailable
from ..domain.task_ref import TaskRef
from ..domain.transitions import runs
from .recorder import Recorder

RENEW_EVERY = timedelta(seconds=10)


@dataclass
class RunLease:
    """Held by one invocation, `owner`, since `start_task`."""

    recorder: Recorder
    ref: TaskRef
    owner: str

    def __post_init__(self) -> None:
        self._renew_at = self.recorder.now() + RENEW_EVERY

    def renew(self) -> None:
        """Raises TaskEnded if another run has the export or the task has ended, RepositoryUnavailable or Conflict."""
        if self.recorder.apply_to_task(self.ref, runs.renew_lease, self.owner) is None:
            raise TaskEnded
        self._renew_at = self.recorder.now() + RENEW_EVERY

    def keep(self) -> None:
        """Renews it when it is time to. Raises what `renew` does."""
        if self.recorder.now() >= self._renew_at:
            self.renew()

    def is_held(self) -> bool:
        """Whether to read on; while MongoDB does not answer, it is taken to be held."""
        try:
            self.keep()
            job = self.recorder.jobs.get(self.ref.job_id)
        except TaskEnded:
            return False
        except Unavailable:
            return True
        task = job.live_task(self.ref) if job else None
        return task is not None and task.lease is not None and task.lease.owner == self.owner
