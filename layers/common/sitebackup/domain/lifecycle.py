"""The changes of a job between its attempts and after them: retry, clean-up, deletion."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from .change import Change, Moment
from .events import UploadJobCreated
from .job import FINISHED, RETRYABLE, UNFINISHED, DeleteCause, Job, Status, Task
from .lock import LegalHold
from .quota import UNBOUNDED, Allowance
from .reason import USELESS
from .retention import locked_until, pinned_until, record_until
from .transitions.timing import new_task

CLAIM = timedelta(minutes=10)
"""After so long another pass takes over a job that one was at: no pass lasts longer."""


def begin(job: Job, moment: Moment, providers: Sequence[str]) -> Change:
    """The first attempt of a new job: a task for each provider."""
    begun = job.replace(tasks={name: new_task(moment) for name in providers})
    return Change(begun, _created(begun))


def retry(job: Job, moment: Moment, allowance: Allowance = UNBOUNDED) -> Change | None:
    """Opens the next attempt: done tasks stay done, the others keep a planned upload and its done parts.

    The upload of a stream that was not read to its end is of no use: the next run cleans the task's key of it.
    Nor is an export that was no whole zip: it is read anew.
    Once what the attempt left in S3 was removed nothing can be kept: then every task starts anew. While that removal
    is under way there is no retry: it could adopt an object that is about to be removed. A restore does not wait for
    its safety backup any longer, and a retry of it makes a new one.
    """
    if job.status not in RETRYABLE or job.delete_at is not None or is_being_cleaned(job, moment.now):
        return None
    if job.safety_for is not None:
        return None

    def reopened(task: Task) -> Task:
        fresh = new_task(moment).replace(runs=task.runs)
        if job.cleaning_at is not None:
            return fresh
        if task.status is Status.DONE:
            return task
        if task.upload is None or task.upload.plan is None or (task.reason and task.reason.code in USELESS):
            return fresh
        return fresh.replace(upload=task.upload, progress=task.progress)

    reopened_job = job.replace(
        status=Status.PENDING,
        reason=None,
        attempt=job.attempt + 1,
        slot=allowance.slot,
        byte_limit=allowance.byte_limit,
        tasks={name: reopened(task) for name, task in job.tasks.items()},
        updated_at=moment.now,
        deadline_at=moment.in_seconds(moment.policy.attempt_seconds),
        started_at=None,
        finished_at=None,
        cleaning_at=None,
        cleaned_at=None,
        clean_up_at=None,
    )
    return Change(reopened_job, _created(reopened_job))


def _created(job: Job) -> list[UploadJobCreated]:
    return [
        UploadJobCreated(task=job.ref(name)) for name, task in job.tasks.items() if task.status in UNFINISHED
    ]


def look_again(job: Job, moment: Moment, at: datetime | None) -> Change | None:
    """Nothing is to be done until then."""
    if job.status not in FINISHED | {Status.DELETED} or job.clean_up_at == at:
        return None
    return Change(job.replace(clean_up_at=at, updated_at=moment.now))


def is_being_cleaned(job: Job, now: datetime) -> bool:
    """Whether a pass may be at work on what a failed attempt has left."""
    return job.cleaning_at is not None and job.cleaned_at is None and now < job.cleaning_at + CLAIM


def begin_cleaning(job: Job, moment: Moment) -> Change | None:
    """Claims the removal of what an attempt that did not get done has left in S3 (I9)."""
    if job.status not in RETRYABLE or job.cleaned_at is not None:
        return None
    return Change(job.replace(cleaning_at=moment.now, updated_at=moment.now, clean_up_at=moment.now + CLAIM))


def end_cleaning(job: Job, moment: Moment) -> Change | None:
    """Nothing of the attempt is left in S3; the next look decides what comes then."""
    if job.status not in RETRYABLE or job.cleaning_at is None:
        return None
    return Change(job.replace(cleaned_at=moment.now, updated_at=moment.now, clean_up_at=moment.now))


def mark_clean(job: Job, moment: Moment) -> Change | None:
    """Nothing but the objects of the done job is left at its keys."""
    if job.status is not Status.DONE or job.cleaned_at is not None:
        return None
    return Change(job.replace(cleaned_at=moment.now, updated_at=moment.now, clean_up_at=moment.now))


def mark_deleted(job: Job, moment: Moment, at: datetime, cause: DeleteCause) -> Change | None:
    """Marks a final job: its data goes when the grace period after `at` is over.

    A request never moves an earlier one to a later time, which would take it back: the very job, if it comes later.
    """
    if job.status not in FINISHED or job.removing_at is not None:
        return None
    if job.delete_at is not None and job.delete_cause is DeleteCause.REQUESTED and job.delete_at <= at:
        return Change(job)
    remove_at = at + timedelta(seconds=moment.policy.delete_grace_seconds)
    due = min(remove_at, job.clean_up_at) if job.clean_up_at else remove_at
    return Change(job.replace(delete_at=at, delete_cause=cause, updated_at=moment.now, clean_up_at=due))


def undelete(job: Job, moment: Moment) -> Change | None:
    """Takes the mark back, as long as nothing is removed yet. What had expired then never expires again."""
    if job.status not in FINISHED or job.delete_at is None or job.removing_at is not None:
        return None
    expiry = None if job.delete_cause is DeleteCause.EXPIRED else job.expires_after_days
    return Change(
        job.replace(
            delete_at=None,
            delete_cause=None,
            expires_after_days=expiry,
            updated_at=moment.now,
            clean_up_at=moment.now,
        )
    )


def pin(job: Job, moment: Moment, owner: str, until: datetime) -> Change | None:
    """Keeps the data of a done job until then, for this owner (I19). Pins that are over go.

    None: it is not done, or its removal has begun. The very job that was given: its pin lasts as long already.
    """
    if job.status is not Status.DONE or job.removing_at is not None:
        return None
    if job.pins.get(owner, moment.now) >= until:
        return Change(job)
    kept = {name: end for name, end in job.pins.items() if end > moment.now}
    return Change(job.replace(pins=kept | {owner: until}, updated_at=moment.now))


def unpin(job: Job, moment: Moment, owner: str) -> Change | None:
    """The owner no longer needs the data; what waited for that is looked at now."""
    if owner not in job.pins:
        return None
    kept = {name: end for name, end in job.pins.items() if name != owner}
    due = moment.now if job.delete_at is not None else job.clean_up_at
    return Change(job.replace(pins=kept, updated_at=moment.now, clean_up_at=due))


def set_legal_hold(job: Job, moment: Moment, on: bool) -> Change | None:
    """Asks for a legal hold on the data of a done job, or for its release; S3 is told at the next look.

    None: it is not done, its removal has begun, or S3 is just being told of the opposite. The very job that was
    given: it is so already.
    """
    if job.status is not Status.DONE or job.removing_at is not None:
        return None
    if job.is_held == on:
        return Change(job)
    if job.legal_hold is not None and not job.legal_hold.settled:
        return None
    hold = LegalHold(on=on)
    return Change(job.replace(legal_hold=hold, updated_at=moment.now, clean_up_at=moment.now))


def settle_legal_hold(job: Job, moment: Moment) -> Change | None:
    """S3 has been told of it for every version; a hold that is released is gone."""
    if job.legal_hold is None or job.legal_hold.settled:
        return None
    settled = job.legal_hold.replace(settled=True) if job.legal_hold.on else None
    return Change(job.replace(legal_hold=settled, updated_at=moment.now, clean_up_at=moment.now))


def begin_removal(job: Job, moment: Moment) -> Change | None:
    """Claims the removal of the data: from here on there is no way back.

    None as well while it is pinned (I19), locked or on legal hold.
    """
    now = moment.now
    if job.status not in FINISHED or job.delete_at is None:
        return None
    if job.legal_hold is not None or locked_until(job, now) or pinned_until(job, now):
        return None
    return Change(job.replace(removing_at=job.removing_at or now, updated_at=now, clean_up_at=now + CLAIM))


def end_removal(job: Job, moment: Moment) -> Change | None:
    """The data is gone."""
    if job.status not in FINISHED or job.removing_at is None:
        return None
    gone = job.replace(status=Status.DELETED, deleted_at=moment.now, updated_at=moment.now)
    return Change(gone.replace(clean_up_at=record_until(gone, moment.now, moment.policy)))
