"""What people ask of a job: retry, cancel, delete, undelete."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from ..domain import lifecycle
from ..domain.change import Change, Moment, Transition
from ..domain.errors import BadRequest, Conflict, DuplicateJob, Locked, StateForbids, TooLate
from ..domain.job import RETRYABLE, DeleteCause, Job, Status
from ..domain.principal import Access
from ..domain.quota import UNBOUNDED
from ..domain.transitions import endings
from ..telemetry import logger
from .create_job import MAX_DAYS, site_claimed
from .get_job import visible
from .quotas import MAX_COLLISIONS, Quotas
from .recorder import Recorder

HOLD, RELEASE = "put on legal hold", "released from legal hold"


@dataclass(frozen=True)
class ChangeJob:
    """Each call raises NotFound, StateForbids, RepositoryUnavailable or Conflict."""

    recorder: Recorder
    quotas: Quotas

    def retry(self, access: Access, job_id: str) -> Job:
        """Opens the next attempt. Raises ActiveJob as well if the site has another active job, and OverQuota."""
        job = visible(self.recorder.jobs, access, "backup", job_id)
        can_be = lifecycle.retry(job, self.recorder.moment()) is not None
        for _ in range(MAX_COLLISIONS):
            allowance = self.quotas.for_backup(job.user_id, job.id) if can_be else UNBOUNDED
            try:
                return self._change(job, "retried", partial(lifecycle.retry, allowance=allowance))
            except DuplicateJob:
                claim = self.recorder.jobs.claim_of(job.user_id, job.site_id)
                if claim or allowance.slot is None:
                    raise site_claimed(claim, access, job.user_id) from None
        raise Conflict("others kept taking the slots that were free")

    def cancel(self, access: Access, job_id: str) -> Job:
        """Stops what has not started; what runs stops at its next step. Raises TooLate once all tasks are done."""
        return self._change(
            visible(self.recorder.jobs, access, "backup", job_id), "cancelled", endings.cancel
        )

    def delete(self, access: Access, job_id: str, at: datetime | None) -> Job:
        """Marks the job's data for deletion, now or at a later time.

        What was asked for before, for an earlier time, holds. Raises BadRequest for a time in the past, or later than
        anything could expire, Locked if the data would go while it is locked or on legal hold, and StateForbids for a
        time that is later than that of a mark: only an undelete takes a mark back.
        """
        now = self.recorder.now()
        if at is not None and not now <= at <= now + timedelta(days=MAX_DAYS):
            raise BadRequest(f"at: must be a time from now to {MAX_DAYS} days from now")

        def mark(job: Job, moment: Moment) -> Change | None:
            _check_unlocked(job, moment, at or now)
            _check_not_later(job, moment, at)
            return lifecycle.mark_deleted(job, moment, at or now, DeleteCause.REQUESTED)

        return self._change(visible(self.recorder.jobs, access, "backup", job_id), "deleted", mark)

    def set_legal_hold(self, access: Access, job_id: str, on: bool) -> Job:
        """Keeps the data of a done job until it is released, or releases it. S3 is told by the clean-up.

        Raises ServiceOnly.
        """
        access.check_service()
        return self._change(
            visible(self.recorder.jobs, access, "backup", job_id),
            HOLD if on else RELEASE,
            lambda job, moment: lifecycle.set_legal_hold(job, moment, on),
        )

    def undelete(self, access: Access, job_id: str) -> Job:
        """Takes the mark back."""
        return self._change(
            visible(self.recorder.jobs, access, "backup", job_id), "undeleted", lifecycle.undelete
        )

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


def _check_unlocked(job: Job, moment: Moment, at: datetime) -> None:
    """Raises Locked if what is marked for deletion at this time would go while S3 refuses that."""
    if job.is_held:
        raise Locked(f"Backup {job.id} is on legal hold: release it first.", jobId=job.id)
    removed_at = at + timedelta(seconds=moment.policy.delete_grace_seconds)
    if job.lock and job.lock.until > removed_at:
        until = f"{job.lock.until:%Y-%m-%dT%H:%M:%SZ}"
        raise Locked(
            f"Backup {job.id} is locked until {until}. Ask for its deletion at a later time.",
            jobId=job.id,
            lockedUntil=until,
        )


def _check_not_later(job: Job, moment: Moment, at: datetime | None) -> None:
    """Raises StateForbids if a mark would be moved to a later time, which is more than the right to delete."""
    marked = job.delete_at
    if job.delete_cause is DeleteCause.EXPIRED:  # asked for anew, it has a grace period of its own
        marked = moment.now
    if at is not None and marked is not None and at > marked and job.removing_at is None:
        raise StateForbids(
            f"Backup {job.id} can't be deleted later than it is marked for; undelete it first.", jobId=job.id
        )


def _why_not(job: Job, what: str, now: datetime) -> str:
    """What about this job forbids a change."""
    if job.status is Status.DELETED:
        return "its data is gone"
    if job.removing_at:
        return "its data is being removed"
    if what in (HOLD, RELEASE) and job.legal_hold:
        return "its legal hold is just being set or released; try again in a minute"
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
