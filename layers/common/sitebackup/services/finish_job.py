"""Settles a job whose tasks are all done; a failed task has settled its job already."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from aws_lambda_powertools.metrics import MetricUnit

from ..adapters.repository import Repository
from ..domain import transitions
from ..domain.events import TaskUpdated
from ..domain.policy import Policy
from ..telemetry import about, count, logger


@dataclass(frozen=True)
class FinishJob:
    """One record: a task of the job has ended."""

    repository: Repository
    policy: Policy
    now: Callable[[], datetime]

    def __call__(self, event: TaskUpdated) -> None:
        """Raises RepositoryUnavailable (or Conflict) if the outcome can't be stored."""
        changed = self.repository.change(
            event.job_id, lambda job: transitions.finish_job(job, event.attempt, self.now(), self.policy)
        )
        if changed is None:
            return
        job = changed.after
        took = (job.updated_at - job.created_at).total_seconds()
        count("JobsDone")
        count("JobDuration", took, MetricUnit.Seconds)
        logger.info("job done", extra={**about(event), "seconds": took})
