"""What the sweep does with an unfinished job: each task by its own time, and of a task only what is due (I8, I17)."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from . import transitions
from .events import PartUpdated, TaskEvent, TaskUpdated, UploadJobCreated, UploadPartCreated
from .job import UNFINISHED, Job, PartWait, Status, Task, Upload
from .policy import Policy, seconds
from .reason import Code, Reason


class Checked(NamedTuple):
    """The job with its next checks, and what is to be sent once that is stored."""

    job: Job
    events: Sequence[TaskEvent]


class _Exhausted(Exception):
    """Too many tries without progress; the message says of what."""


def parts_to_look_at(job: Job, now: datetime) -> dict[str, Upload]:
    """By provider, the uploads whose handed-out parts decide what is due."""
    return {
        name: task.upload
        for name, task in job.tasks.items()
        if task.upload and _is_due(task, now) and _moves_parts(task, now)
    }


def check(
    job: Job, missing: Mapping[str, Mapping[int, PartWait]], now: datetime, policy: Policy
) -> Checked | None:
    """`missing` are the parts that are handed out and not done, of each provider that `parts_to_look_at` named.

    None: nothing of the job is due.
    """
    if job.status not in UNFINISHED or job.earliest_check is None or job.earliest_check > now:
        return None
    if job.sealed_at is not None:
        # Each pause is as long as the job has been waiting.
        waited = (now - job.sealed_at).total_seconds()
        pause = seconds(min(max(waited, policy.start_seconds), policy.max_stall_seconds))
        finish = TaskUpdated(job_id=job.id, attempt=job.attempt, provider=next(iter(job.tasks)))
        return Checked(job.replace(finish_check_at=now + pause, updated_at=now), [finish])
    tasks, events = dict(job.tasks), list[TaskEvent]()
    for name, task in job.tasks.items():
        if not _is_due(task, now):
            continue
        try:
            tasks[name], sent = _check_task(job, name, task, missing.get(name, {}), now, policy)
        except _Exhausted as exhausted:
            return _given_up(job, name, task, str(exhausted), now, policy)
        events += sent
    return Checked(job.replace(tasks=tasks, updated_at=now), events)


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
    job: Job, name: str, task: Task, missing: Mapping[int, PartWait], now: datetime, policy: Policy
) -> tuple[Task, Sequence[TaskEvent]]:
    if task.lease and task.lease.until > now:
        return task.replace(next_check_at=task.lease.until), []
    if _moves_parts(task, now) and missing:
        return _check_parts(job, name, task, missing, now, policy)
    if task.next_try_at and task.next_try_at > now:
        stalls_at = max(task.next_try_at, task.stalls_at or now)
        return task.replace(next_check_at=task.next_try_at, stalls_at=stalls_at), []
    if task.next_try_at is None and task.lease is None and not _is_stalled(task, now):
        return task.replace(next_check_at=task.stalls_at), []
    tried = task.tried + 1 if task.runs else 0
    if tried >= policy.max_tries:
        raise _Exhausted(f"Given up after {tried} tries without progress.")
    upload = task.upload
    event: TaskEvent
    if upload and upload.plan and task.status is Status.RUNNING:
        event = PartUpdated(
            job_id=job.id, attempt=job.attempt, provider=name, upload_id=upload.upload_id, tried=tried
        )
    else:
        event = UploadJobCreated(job_id=job.id, attempt=job.attempt, provider=name, tried=tried)
    return _stalls_later(task.replace(next_try_at=None, lease=None), now, policy), [event]


def _check_parts(
    job: Job, name: str, task: Task, missing: Mapping[int, PartWait], now: datetime, policy: Policy
) -> tuple[Task, Sequence[TaskEvent]]:
    """Parts whose wait is over; after a stall, or a run that died, all that are missing and do not wait."""
    assert task.upload is not None
    stalled = _is_stalled(task, now) or task.lease is not None
    events, waits = list[TaskEvent](), list[datetime]()
    for number, wait in missing.items():
        mine = wait if wait.attempt == job.attempt else PartWait()
        if mine.next_try_at and mine.next_try_at > now:
            waits.append(mine.next_try_at)
        elif mine.next_try_at or stalled:
            tried = mine.tried + 1
            if tried >= policy.max_tries:
                raise _Exhausted(f"Part {number} was given up after {tried} tries.")
            events.append(
                UploadPartCreated(
                    job_id=job.id,
                    attempt=job.attempt,
                    provider=name,
                    upload_id=task.upload.upload_id,
                    number=number,
                    tried=tried,
                )
            )
    task = _stalls_later(task, now, policy) if stalled else task.replace(next_check_at=task.stalls_at)
    next_try_at = min(waits, default=None)
    if next_try_at and task.next_check_at:
        task = task.replace(next_check_at=min(task.next_check_at, next_try_at))
    return task.replace(next_try_at=next_try_at, lease=None), events


def _is_stalled(task: Task, now: datetime) -> bool:
    return task.stalls_at is not None and task.stalls_at <= now


def _stalls_later(task: Task, now: datetime, policy: Policy) -> Task:
    """Each stall is given twice as long as the one before."""
    shortest = policy.start_seconds if task.status is Status.PENDING else policy.stall_seconds
    delay = min(max(task.stall_delay * 2, shortest), policy.max_stall_seconds)
    stalls_at = now + seconds(delay)
    return task.replace(stall_delay=delay, stalls_at=stalls_at, next_check_at=stalls_at)


def _given_up(job: Job, name: str, task: Task, what: str, now: datetime, policy: Policy) -> Checked:
    last = f" The last error: {task.trouble.message}" if task.trouble else ""
    reason = Reason(code=Code.RETRIES_EXHAUSTED, message=what + last)
    failed = transitions.fail_task(job, job.attempt, name, reason, now, policy)
    assert failed is not None
    return Checked(failed, [TaskUpdated(job_id=job.id, attempt=job.attempt, provider=name)])
