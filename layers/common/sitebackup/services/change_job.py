"""What people ask of a job: retry, cancel, delete, undelete."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from ..adapters.bus import Bus
from ..adapters.repository import Change, DuplicateJob, Repository
from ..domain import lifecycle, transitions
from ..domain.errors import Conflict
from ..domain.events import UploadJobCreated
from ..domain.job import RETRYABLE, UNFINISHED, DeleteCause, Job, Status
from ..domain.policy import Policy
from ..errors import ActiveJob, BadRequest, NotFound, StateForbids, TooLate
from ..telemetry import count, logger
from .create_job import MAX_DAYS
from .emit import emit


@dataclass(frozen=True)
class ChangeJob:
    """Each call raises NotFound, StateForbids, RepositoryUnavailable or Conflict."""

    repository: Repository
    bus: Bus
    policy: Policy
    now: Callable[[], datetime]

    def retry(self, job_id: str) -> Job:
        """Opens the next attempt. Raises ActiveJob, too, if the site has another active job."""
        try:
            job = self._change(job_id, "retried", lambda job: lifecycle.retry(job, self.now(), self.policy))
        except DuplicateJob:
            raise self._other_active(job_id) from None
        count("JobsRetried")
        open_tasks = [name for name, task in job.tasks.items() if task.status in UNFINISHED]
        emit(
            self.bus,
            [UploadJobCreated(job_id=job.id, attempt=job.attempt, provider=name) for name in open_tasks],
        )
        return job

    def cancel(self, job_id: str) -> Job:
        """Stops what has not started; what runs stops at its next step. Raises TooLate once all tasks are done."""
        job = self._change(job_id, "cancelled", lambda job: transitions.cancel(job, self.now(), self.policy))
        count("JobsCancelled")
        return job

    def delete(self, job_id: str, at: datetime | None) -> Job:
        """Marks the job's data for deletion, now or at a later time.

        Raises BadRequest for a time in the past, or later than anything could expire.
        """
        now = self.now()
        if at is not None and not now <= at <= now + timedelta(days=MAX_DAYS):
            raise BadRequest(f"at: must be a time from now to {MAX_DAYS} days from now")
        return self._change(
            job_id,
            "deleted",
            lambda job: lifecycle.mark_deleted(job, at or now, DeleteCause.REQUESTED, now, self.policy),
        )

    def undelete(self, job_id: str) -> Job:
        """Takes the mark back."""
        return self._change(job_id, "undeleted", lambda job: lifecycle.undelete(job, self.now()))

    def _change(self, job_id: str, what: str, change: Change) -> Job:
        seen: list[Job] = []

        def decide(job: Job) -> Job | None:
            seen.append(job)
            return change(job)

        changed = self.repository.change(job_id, decide)
        if changed is None:
            if not seen:
                raise NotFound(f"There is no backup {job_id}.")
            job = seen[-1]
            if what == "cancelled" and job.sealed_at and job.status in UNFINISHED:
                raise TooLate("Everything is backed up; the backup is just being finished.", jobId=job_id)
            why = _why_not(job, what, self.now())
            raise StateForbids(f"Backup {job_id} can't be {what}: {why}.", jobId=job_id)
        logger.info(f"job {what}", extra={"jobId": job_id, "attempt": changed.after.attempt})
        return changed.after

    def _other_active(self, job_id: str) -> ActiveJob | Conflict:
        job = self.repository.get(job_id)
        active = self.repository.active(job.user_id, job.site_id) if job else None
        if active is None:
            return Conflict("the site's active backup has just ended")
        return ActiveJob(f"Backup {active.id} of this site is still {active.status}.", jobId=active.id)


def _why_not(job: Job, what: str, now: datetime) -> str:
    """What about this job forbids a change."""
    if job.status is Status.DELETED:
        return "its data is gone"
    if job.removing_at:
        return "its data is being removed"
    if what == "undeleted":
        return "it is not marked for deletion"
    if what == "deleted":
        return f"it is {job.status}; cancel it first"
    if what == "retried" and job.status in RETRYABLE:
        if job.delete_at:
            return "it is marked for deletion; undelete it first"
        if lifecycle.being_released(job, now):
            return "the remains of its last attempt are being removed right now; try again in some minutes"
    return f"it is {job.status}"
