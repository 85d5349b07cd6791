"""Settles a job whose tasks are all done; a failed task has settled its job already."""

from dataclasses import dataclass

from ..domain.events import TaskUpdated
from ..domain.transitions.endings import finish_job
from .recorder import JobStore


@dataclass(frozen=True)
class FinishJob:
    """One record: a task of the job has ended."""

    store: JobStore

    def __call__(self, event: TaskUpdated) -> None:
        """Raises RepositoryUnavailable (or Conflict) if the outcome can't be stored."""
        attempt = event.task.attempt
        self.store.store(event.task.job_id, lambda job, moment: finish_job(job, moment, attempt))
