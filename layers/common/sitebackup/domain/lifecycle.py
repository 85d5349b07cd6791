"""The changes of a job between its attempts and after them: retry, release, deletion. Pure, like `transitions`."""

from datetime import datetime

from .job import FINISHED, RETRYABLE, DeleteCause, Job, Status, Task
from .policy import Policy, seconds
from .reason import USELESS
from .transitions import new_task

CLAIM_SECONDS = 600
"""After so long another pass takes over a job that one was at: no pass lasts longer."""


def retry(job: Job, now: datetime, policy: Policy) -> Job | None:
    """Opens the next attempt: done tasks stay done, the others keep a planned upload and its done parts.

    The upload of a stream that was not read to its end is of no use: the next run clears the task's key of it.
    Nor is an export that was no whole zip: it is read anew.
    Once what the attempt left in S3 was removed nothing can be kept: then every task starts anew. While a sweep is
    at it there is no retry: it could find an object there, and take it for its own, that is about to go.
    """
    if job.status not in RETRYABLE or job.delete_at is not None or being_released(job, now):
        return None

    def reopened(task: Task) -> Task:
        fresh = new_task(now, policy).replace(runs=task.runs)
        if job.upload_released_at is not None:
            return fresh
        if task.status is Status.DONE:
            return task
        if task.upload is None or task.upload.plan is None or (task.reason and task.reason.code in USELESS):
            return fresh
        return fresh.replace(upload=task.upload, progress=task.progress)

    return job.replace(
        status=Status.PENDING,
        reason=None,
        attempt=job.attempt + 1,
        active=True,
        tasks={name: reopened(task) for name, task in job.tasks.items()},
        updated_at=now,
        deadline_at=now + seconds(policy.attempt_seconds),
        started_at=None,
        finished_at=None,
        upload_released_at=None,
        cleared_at=None,
        clean_up_at=None,
    )


def look_again(job: Job, at: datetime | None, now: datetime) -> Job | None:
    """Nothing is to be done until then."""
    if job.status not in FINISHED | {Status.DELETED} or job.clean_up_at == at:
        return None
    return job.replace(clean_up_at=at, updated_at=now)


def being_released(job: Job, now: datetime) -> bool:
    """Whether a sweep may be at work on what a failed attempt has left."""
    claimed = job.upload_released_at
    return claimed is not None and job.cleared_at is None and now < claimed + seconds(CLAIM_SECONDS)


def release(job: Job, now: datetime) -> Job | None:
    """Claims the removal of what an attempt that did not get done has left in S3 (I9)."""
    if job.status not in RETRYABLE or job.cleared_at is not None:
        return None
    return job.replace(
        upload_released_at=now,
        updated_at=now,
        clean_up_at=now + seconds(CLAIM_SECONDS),
    )


def cleared(job: Job, now: datetime) -> Job | None:
    """Nothing of the attempt is left in S3; the sweep decides what comes next."""
    if job.status not in RETRYABLE or job.upload_released_at is None:
        return None
    return job.replace(cleared_at=now, updated_at=now, clean_up_at=now)


def tidied(job: Job, now: datetime) -> Job | None:
    """Nothing but the objects of the done job is left at its keys."""
    if job.status is not Status.DONE or job.cleared_at is not None:
        return None
    return job.replace(cleared_at=now, updated_at=now, clean_up_at=now)


def mark_deleted(job: Job, at: datetime, cause: DeleteCause, now: datetime, policy: Policy) -> Job | None:
    """Marks a final job: its data goes when the grace period after `at` is over."""
    if job.status not in FINISHED or job.removing_at is not None:
        return None
    remove_at = at + seconds(policy.delete_grace_seconds)
    due = min(remove_at, job.clean_up_at) if job.clean_up_at else remove_at
    return job.replace(delete_at=at, delete_cause=cause, updated_at=now, clean_up_at=due)


def undelete(job: Job, now: datetime) -> Job | None:
    """Takes the mark back, as long as nothing is removed yet. What had expired then never expires again."""
    if job.status not in FINISHED or job.delete_at is None or job.removing_at is not None:
        return None
    expiry = None if job.delete_cause is DeleteCause.EXPIRED else job.expires_after_days
    return job.replace(
        delete_at=None, delete_cause=None, expires_after_days=expiry, updated_at=now, clean_up_at=now
    )


def begin_removal(job: Job, now: datetime) -> Job | None:
    """Claims the removal of the data: from here on there is no way back."""
    if job.status not in FINISHED or job.delete_at is None:
        return None
    return job.replace(
        removing_at=job.removing_at or now, updated_at=now, clean_up_at=now + seconds(CLAIM_SECONDS)
    )


def removed(job: Job, now: datetime, policy: Policy) -> Job | None:
    """The data is gone."""
    if job.status not in FINISHED or job.removing_at is None:
        return None
    days = policy.failed_record_days if job.reason else policy.completed_record_days
    return job.replace(
        status=Status.DELETED,
        deleted_at=now,
        updated_at=now,
        clean_up_at=now + seconds(days * policy.day_seconds),
    )
