"""What is tried again: after a transient error it waits, and its try is claimed before it begins."""

from datetime import datetime, timedelta
from typing import NamedTuple

from ..change import Change, Moment
from ..job import Job, LastError, Task
from ..task_ref import TaskRef
from .timing import check_by, with_task

WRITTEN_EVERY = timedelta(seconds=5)
"""Of the errors of many parts at once, one in so long is written to the job."""


class Postponed(NamedTuple):
    """What failed for now, and when it is tried again."""

    message: str
    next_try_at: datetime


def note_error(job: Job, moment: Moment, ref: TaskRef, owner: str | None, error: Postponed) -> Change | None:
    """A run or a completion failed for now: the sweep tries again.

    A task that waits already keeps its next try. While a run has the export open only that run, the lease's `owner`,
    can fail.
    """
    task, now = job.live_task(ref), moment.now
    if task is None or (task.lease and task.lease.owner != owner and task.lease.until > now):
        return None
    if task.next_try_at is not None and task.next_try_at > now:
        return None
    return Change(with_task(job, moment, ref, _waiting(task, now, error).replace(lease=None)))


def note_part_error(
    job: Job, moment: Moment, ref: TaskRef, upload_id: str, error: Postponed
) -> Change | None:
    """A part failed for now. Its own record says when it is tried again; the sweep looks at the task by then (I8)."""
    found, now = job.live_upload(ref, upload_id), moment.now
    if found is None:
        return None
    task, _ = found
    written = task.last_error and now < task.last_error.at + WRITTEN_EVERY
    if written and check_by(task, error.next_try_at) == task.next_check_at:
        return None
    if task.next_try_at and task.next_try_at > now:
        error = error._replace(next_try_at=min(error.next_try_at, task.next_try_at))
    return Change(with_task(job, moment, ref, _waiting(task, now, error)))


def claim_try(job: Job, moment: Moment, ref: TaskRef, redelivery: int) -> Change | None:
    """A completion is about to be tried again: written before it starts, so that a crash counts as well."""
    task = job.live_task(ref)
    if task is None or task.tries >= redelivery:
        return None
    return Change(with_task(job, moment, ref, task.replace(tries=redelivery)))


def _waiting(task: Task, now: datetime, error: Postponed) -> Task:
    count = task.last_error.count + 1 if task.last_error else 1
    return task.replace(
        last_error=LastError(message=error.message, at=now, count=count),
        next_try_at=error.next_try_at,
        next_check_at=check_by(task, error.next_try_at),
    )
