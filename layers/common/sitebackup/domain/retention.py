"""What is kept and what is removed, and why: one pure decision for every job, final or not."""

from datetime import datetime
from enum import StrEnum

from .job import FINISHED, RETRYABLE, DeleteCause, Job, Status
from .model import Model
from .policy import Policy, seconds


class Action(StrEnum):
    """What is to be done with a job now."""

    KEEP = "keep"
    CLEAN_FAILED = "clean_failed"
    """Remove what a failed attempt has left in S3; the record stays."""
    CLEAN_DONE = "clean_done"
    """Remove what earlier runs have left in S3 beside the objects of a done job."""
    SET_LEGAL_HOLD = "set_legal_hold"
    """Tell S3 of a legal hold that was asked for or released."""
    EXPIRE = "expire"
    """It has expired: mark it for deletion, and let the grace period run."""
    DELETE_DATA = "delete_data"
    """Remove its data."""
    DELETE_RECORD = "delete_record"
    """Remove its record."""


class Why(StrEnum):
    """The reason of a decision."""

    ACTIVE = "active"
    RETRY_POSSIBLE = "retry_possible"
    RETRY_OVER = "retry_over"
    RUNS_OVER = "runs_over"
    NO_EXPIRY = "no_expiry"
    NOT_EXPIRED = "not_expired"
    NEWEST_GOOD = "newest_good"
    EXPIRED = "expired"
    MARKED = "marked"
    IN_GRACE = "in_grace"
    GRACE_OVER = "grace_over"
    PINNED = "pinned"
    LOCKED = "locked"
    LEGAL_HOLD = "legal_hold"
    LEGAL_HOLD_CHANGED = "legal_hold_changed"
    RECORD_KEPT = "record_kept"
    RECORD_OVER = "record_over"


class Decision(Model, frozen=True, kw_only=True):
    """What, why, and when to look again (None: never, unless something changes)."""

    action: Action
    reason: Why
    until: datetime | None = None


def expires_at(job: Job, policy: Policy) -> datetime | None:
    """When a done job is old enough to expire; None: never."""
    if job.status is not Status.DONE or job.finished_at is None or job.expires_after_days is None:
        return None
    return job.finished_at + seconds(job.expires_after_days * policy.day_seconds)


def clean_at(job: Job, policy: Policy) -> datetime | None:
    """When what a job has left in S3 beside a good backup is removed (I9); None: there is nothing.

    By then no retry needs it, and nothing of an earlier run of a done job's tasks can still be under way.
    """
    if job.status not in FINISHED or job.finished_at is None or job.cleaned_at is not None:
        return None
    if job.status is Status.DONE and all(task.runs <= 1 for task in job.tasks.values()):
        return None
    return job.finished_at + seconds(policy.upload_grace_seconds)


def first_look(job: Job, policy: Policy) -> datetime | None:
    """When a job that has just got done is to be looked at; None: never."""
    return _sooner(expires_at(job, policy), clean_at(job, policy))


def pinned_until(job: Job, now: datetime) -> datetime | None:
    """Until when somebody needs the data (I19); None: nobody does."""
    return max((until for until in job.pins.values() if until > now), default=None)


def locked_until(job: Job, now: datetime) -> datetime | None:
    """Until when S3 refuses to remove the data; None: it is not locked, or no longer."""
    return job.lock.until if job.lock and job.lock.until > now else None


def depends_on_newest(job: Job, now: datetime, policy: Policy) -> bool:
    """Whether what is done hangs on `holds_newest_good`; else nobody needs to read it."""
    return decide(job, False, now, policy).action is not decide(job, True, now, policy).action


def decide(job: Job, holds_newest_good: bool, now: datetime, policy: Policy) -> Decision:
    """`holds_newest_good`: an object of the job is the newest good one of its provider for this site (I19).

    A job that is kept, for whatever reason and however long, is cleaned of what it left.
    """
    decision = _decide(job, holds_newest_good, now, policy)
    clean = clean_at(job, policy)
    if decision.action is not Action.KEEP or clean is None:
        return decision
    if now < clean:
        return decision.replace(until=_sooner(clean, decision.until))
    if job.status is Status.DONE:
        return Decision(action=Action.CLEAN_DONE, reason=Why.RUNS_OVER)
    return Decision(action=Action.CLEAN_FAILED, reason=Why.RETRY_OVER)


def _decide(job: Job, holds_newest_good: bool, now: datetime, policy: Policy) -> Decision:
    """About the job itself, whatever it left."""
    if job.is_active:
        return _keep(Why.ACTIVE, job.next_check_at)
    if job.status is Status.DELETED:
        return _record(record_until(job, job.deleted_at or now, policy), now)
    if job.removing_at is not None:
        return Decision(action=Action.DELETE_DATA, reason=Why.GRACE_OVER)
    if job.legal_hold is not None and not job.legal_hold.settled:
        return Decision(action=Action.SET_LEGAL_HOLD, reason=Why.LEGAL_HOLD_CHANGED)
    protected = bool(policy.keep_newest) and holds_newest_good and job.safety_for is None
    if job.delete_at is not None and not (protected and job.delete_cause is DeleteCause.EXPIRED):
        return _marked(job, job.delete_at, now, policy)
    if job.status in RETRYABLE:
        return _after_failure(job, now, policy)
    expires = expires_at(job, policy)
    if expires is None:
        return _keep(Why.NO_EXPIRY, None)
    if now < expires:
        return _keep(Why.NOT_EXPIRED, expires)
    if protected:
        return _keep(Why.NEWEST_GOOD, now + seconds(policy.day_seconds))
    return Decision(action=Action.EXPIRE, reason=Why.EXPIRED)


def _marked(job: Job, delete_at: datetime, now: datetime, policy: Policy) -> Decision:
    remove_at = delete_at + seconds(policy.delete_grace_seconds)
    if now < delete_at:
        return _keep(Why.MARKED, remove_at)
    if now < remove_at:
        return _keep(Why.IN_GRACE, remove_at)
    if job.is_held:
        return _keep(Why.LEGAL_HOLD, None)
    if locked := locked_until(job, now):
        return _keep(Why.LOCKED, locked)
    if pinned := pinned_until(job, now):
        return _keep(Why.PINNED, pinned)
    return Decision(action=Action.DELETE_DATA, reason=Why.GRACE_OVER)


def _after_failure(job: Job, now: datetime, policy: Policy) -> Decision:
    if job.cleaned_at is None:
        return _keep(Why.RETRY_POSSIBLE, None)
    return _record(record_until(job, job.finished_at or now, policy), now)


def record_until(job: Job, since: datetime, policy: Policy) -> datetime:
    """How long the record of a job is kept that has had no data since then."""
    days = policy.failed_record_days if job.reason else policy.completed_record_days
    return since + seconds(days * policy.day_seconds)


def _record(until: datetime, now: datetime) -> Decision:
    if now < until:
        return _keep(Why.RECORD_KEPT, until)
    return Decision(action=Action.DELETE_RECORD, reason=Why.RECORD_OVER)


def _sooner(one: datetime | None, other: datetime | None) -> datetime | None:
    return min((moment for moment in (one, other) if moment), default=None)


def _keep(reason: Why, until: datetime | None) -> Decision:
    return Decision(action=Action.KEEP, reason=reason, until=until)
