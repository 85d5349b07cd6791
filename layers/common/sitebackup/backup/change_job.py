"""What people ask of a job: retry, cancel, delete, undelete."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from ..domain import lifecycle
from ..domain.change import Change, Moment, Transition
from ..domain.errors import BadRequest, DuplicateJob, NotFound, StateForbids, TooLate
from ..domain.job import RETRYABLE, DeleteCause, Job, Status
from ..domain.principal import Access
from ..domain.transitions import endings
from ..telemetry import logger
from .create_job import MAX_DAYS, site_claimed
from .recorder import Recorder


@dataclass(frozen=True)
class ChangeJob:
    """Each call raises NotFound, StateForbids, RepositoryUnavailable or Conflict."""

    recorder: Recorder

    def retry(self, access: Access, job_id: str) -> Job:
        """Opens the next attempt. Raises ActiveJob as well if the site has another active job."""
        job = self._seen(access, job_id)
        try:
            return self._change(job, "retried", lifecycle.retry)
        except DuplicateJob:
            claim = self.recorder.jobs.claim_of(job.user_id, job.site_id)
            raise site_claimed(claim) from None

    def cancel(self, access: Access, job_id: str) -> Job:
        """Stops what has not started; what runs stops at its next step. Raises TooLate once all tasks are done."""
        return self._change(self._seen(access, job_id), "cancelled", endings.cancel)

    def delete(self, access: Access, job_id: str, at: datetime | None) -> Job:
        """Marks the job's data for deletion, now or at a later time.

        Raises BadRequest for a time in the past, or later than anything could expire.
        """
        now = self.recorder.now()
        if at is not None and not now <= at <= now + timedelta(days=MAX_DAYS):
            raise BadRequest(f"at: must be a time from now to {MAX_DAYS} days from now")
        return self._change(
            self._seen(access, job_id),
            "deleted",
            lambda job, moment: lifecycle.mark_deleted(job, moment, at or now, DeleteCause.REQUESTED),
        )

    def undelete(self, access: Access, job_id: str) -> Job:
        """Takes the mark back."""
        return self._change(self._seen(access, job_id), "undeleted", lifecycle.undelete)

    def _seen(self, access: Access, job_id: str) -> Job:
        job = self.recorder.jobs.get_for(access, job_id)
        if job is None:
            raise NotFound(f"There is no backup {job_id}.")
        return job

    def _change(self, known: Job, what: str, transition: Transition) -> Job:
        job_id, seen = known.id, [known]

        def decide(job: Job, moment: Moment) -> Change | None:
            seen.append(job)
            return transition(job, moment)

        changed = self.recorder.apply(job_id, decide, known)
        if changed is None:
            job = seen[-1]
            if what == "cancelled" and job.sealed_at and job.is_active:
                raise TooLate("Everything is backed up; the backup is just being finished.", jobId=job_id)
            why = _why_not(job, what, self.recorder.now())
            raise StateForbids(f"Backup {job_id} can't be {what}: {why}.", jobId=job_id)
        logger.info(f"job {what}", extra={"jobId": job_id, "attempt": changed.after.attempt})
        return changed.after


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
        if job.safety_for:
            return f"restore {job.safety_for.restore_id} made it for itself; retry that"
        if lifecycle.is_being_cleaned(job, now):
            return "the remains of its last attempt are being removed right now; try again in some minutes"
    return f"it is {job.status}"
