"""What the sweep does with an unfinished job: each task by its own time, and of a task only what is due (I8, I17)."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from .change import Change, Moment
from .events import PartUpdated, TaskEvent, TaskUpdated, UploadJobCreated, UploadPartCreated
from .job import UNFINISHED, Job, PartWait, Status, Task, Upload
from .reason import Code, Reason
from .task_ref import TaskRef
from .transitions.endings import fail_task

type Missing = Mapping[str, Mapping[int, PartWait]]
"""By provider, the parts that are handed out and not done."""


class _Exhausted(Exception):
    """Too many tries without progress; the message says of what."""


def uploads_to_check(job: Job, now: datetime) -> dict[str, Upload]:
    """By provider, the uploads whose handed-out parts decide what is due."""
    return {
        name: task.upload
        for name, task in job.tasks.items()
        if task.upload and _is_due(task, now) and _moves_parts(task, now)
    }


def check(job: Job, moment: Moment, missing: Missing) -> Change | None:
    """`missing` has the parts of each provider that `uploads_to_check` named.

    None: nothing of the job is due.
    """
    if job.earliest_check is None or job.earliest_check > moment.now:
        return None
    if job.sealed_at is not None:
        return _check_sealed(job, moment, job.sealed_at)
    tasks, events = dict(job.tasks), list[TaskEvent]()
    for name, task in job.tasks.items():
        if not _is_due(task, moment.now):
            continue
        try:
            tasks[name], sent = _check_task(job.ref(name), task, missing.get(name, {}), moment)
        except _Exhausted as exhausted:
            return _give_up(job, moment, job.ref(name), str(exhausted))
        events += sent
    return Change(job.replace(tasks=tasks, updated_at=moment.now), events)


def _check_sealed(job: Job, moment: Moment, sealed_at: datetime) -> Change:
    """Its finish is asked for again. Each pause is as long as the job has been waiting."""
    policy = moment.policy
    waited = (moment.now - sealed_at).total_seconds()
    pause = min(max(waited, policy.start_seconds), policy.max_stall_seconds)
    finish = TaskUpdated(task=job.ref(next(iter(job.tasks))))
    later = job.replace(finish_check_at=moment.in_seconds(pause), updated_at=moment.now)
    return Change(later, [finish])


def _is_due(task: Task, now: datetime) -> bool:
    return task.status in UNFINISHED and task.next_check_at is not None and task.next_check_at <= now


def _moves_parts(task: Task, now: datetime) -> bool:
    """Whether the task waits for parts that others move."""
    return (
        task.status is Status.RUNNING
        and (task.lease is None or task.lease.until <= now)
        and task.upload is not None
        and task.upload.plan is not None
        and not task.stream_only
    )


def _check_task(
    ref: TaskRef, task: Task, missing: Mapping[int, PartWait], moment: Moment
) -> tuple[Task, Sequence[TaskEvent]]:
    now = moment.now
    if task.lease and task.lease.until > now:
        return task.replace(next_check_at=task.lease.until), []
    if _moves_parts(task, now) and missing:
        return _check_parts(ref, task, missing, moment)
    if task.next_try_at and task.next_try_at > now:
        stalls_at = max(task.next_try_at, task.stalls_at or now)
        return task.replace(next_check_at=task.next_try_at, stalls_at=stalls_at), []
    if task.next_try_at is None and task.lease is None and not _is_stalled(task, now):
        return task.replace(next_check_at=task.stalls_at), []
    tries = task.tries + 1 if task.runs else 0
    if tries >= moment.policy.max_tries:
        raise _Exhausted(f"Given up after {tries} tries without progress.")
    upload = task.upload
    event: TaskEvent
    if upload and upload.plan and task.status is Status.RUNNING:
        event = PartUpdated(task=ref, upload_id=upload.upload_id, redelivery=tries)
    else:
        event = UploadJobCreated(task=ref, redelivery=tries)
    return _stalls_later(task.replace(next_try_at=None, lease=None), moment), [event]


def _check_parts(
    ref: TaskRef, task: Task, missing: Mapping[int, PartWait], moment: Moment
) -> tuple[Task, Sequence[TaskEvent]]:
    """Parts whose wait is over; after a stall, or a run that died, all that are missing and do not wait."""
    assert task.upload is not None
    upload_id, now = task.upload.upload_id, moment.now
    stalled = _is_stalled(task, now) or task.lease is not None
    events, waits = list[TaskEvent](), list[datetime]()
    for number, wait in missing.items():
        own = wait if wait.attempt == ref.attempt else PartWait()
        if own.next_try_at and own.next_try_at > now:
            waits.append(own.next_try_at)
        elif own.next_try_at or stalled:
            tries = own.tries + 1
            if tries >= moment.policy.max_tries:
                raise _Exhausted(f"Part {number} was given up after {tries} tries.")
            events.append(UploadPartCreated(task=ref, upload_id=upload_id, number=number, redelivery=tries))
    task = _stalls_later(task, moment) if stalled else task.replace(next_check_at=task.stalls_at)
    next_try_at = min(waits, default=None)
    if next_try_at and task.next_check_at:
        task = task.replace(next_check_at=min(task.next_check_at, next_try_at))
    return task.replace(next_try_at=next_try_at, lease=None), events


def _is_stalled(task: Task, now: datetime) -> bool:
    return task.stalls_at is not None and task.stalls_at <= now


def _stalls_later(task: Task, moment: Moment) -> Task:
    """Each stall is given twice as long as the one before."""
    policy = moment.policy
    shortest = policy.start_seconds if task.status is Status.PENDING else policy.stall_seconds
    delay = min(max(task.stall_delay * 2, shortest), policy.max_stall_seconds)
    stalls_at = moment.in_seconds(delay)
    return task.replace(stall_delay=delay, stalls_at=stalls_at, next_check_at=stalls_at)


def _give_up(job: Job, moment: Moment, ref: TaskRef, what: str) -> Change | None:
    error = job.tasks[ref.provider].last_error
    last = f" The last error: {error.message}" if error else ""
    return fail_task(job, moment, ref, Reason(code=Code.RETRIES_EXHAUSTED, message=what + last))
