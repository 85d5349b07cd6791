"""Every change a job may go through, each a pure function from a job to the changed job.

None means that there is nothing to change: the event came late, twice, or for another attempt. The repository
stores a change only if the job's version is still the one that the function saw, so whatever a function checks
still holds when its result is written.
"""

from datetime import datetime

from .job import UNFINISHED, Job, Lease, Status, StoredObject, Task, Trouble, Upload
from .plan import Plan
from .policy import Policy, seconds
from .progress import Progress
from .reason import Code, Reason
from .retention import first_look


def _with_task(job: Job, provider: str, task: Task, now: datetime, **changes: object) -> Job:
    return job.replace(tasks={**job.tasks, provider: task}, updated_at=now, **changes)


def _drive_by(job: Job, moment: datetime) -> datetime:
    """The sweep must look at `moment`, at the attempt's deadline, or earlier if that was already planned."""
    return min(moment, job.deadline_at, job.next_drive_at or moment)


def _after_progress(job: Job, now: datetime, policy: Policy) -> datetime:
    return min(now + seconds(policy.stall_seconds), job.deadline_at)


def start_task(
    job: Job, attempt: int, provider: str, tried: int, now: datetime, policy: Policy
) -> Job | None:
    """The task is about to be planned: running, one more run, and its re-drive claimed.

    What this attempt has planned already is not planned again; if its parts got lost the sweep emits them.
    """
    task = job.live_task(attempt, provider)
    if task is None or task.tried > tried or (task.lease and task.lease.until > now):
        return None
    if task.upload and task.upload.attempt == attempt and (task.upload.plan or not task.stream_only):
        return None
    started = task.replace(status=Status.RUNNING, runs=task.runs + 1, tried=tried, next_try_at=None)
    return _with_task(
        job,
        provider,
        started,
        now,
        status=Status.RUNNING,
        started_at=job.started_at or now,
        next_drive_at=_after_progress(job, now, policy),
    )


def run_again(job: Job, attempt: int, provider: str, now: datetime) -> Job | None:
    """The run begins anew after a transient error; what failed may have left something in S3 all the same."""
    task = job.live_task(attempt, provider)
    return _with_task(job, provider, task.replace(runs=task.runs + 1), now) if task else None


def claim_try(job: Job, attempt: int, provider: str, tried: int, now: datetime) -> Job | None:
    """A re-driven part is about to be moved: written before it starts, so that a crash counts too."""
    task = job.live_task(attempt, provider)
    if task is None or task.tried >= tried:
        return None
    return _with_task(job, provider, task.replace(tried=tried), now)


def adopt_upload(
    job: Job, attempt: int, provider: str, upload: Upload, owner: str | None, now: datetime
) -> Job | None:
    """The upload becomes the task's, unless another one already is: then that one is to be used.

    `owner` is the reader of a stream, None for a ranged export.
    """
    task = job.live_task(attempt, provider)
    if task is None or task.upload is not None or (task.lease and task.lease.owner != owner):
        return None
    return _with_task(job, provider, task.replace(upload=upload, progress=Progress()), now)


def release_parts(
    job: Job, attempt: int, provider: str, upload_id: str, progress: Progress, now: datetime, policy: Policy
) -> Job | None:
    """Records what is done of the upload, and hands out as many parts more as the window then allows."""
    found = job.live_upload(attempt, provider, upload_id)
    if found is None:
        return None
    task, upload = found
    plan = upload.plan
    released = upload.released
    if plan:
        released = max(released, min(plan.parts, progress.parts + upload.window))
    if progress.parts <= task.progress.parts and released == upload.released:
        return None
    advanced = task.replace(
        progress=progress if progress.parts > task.progress.parts else task.progress,
        upload=upload.replace(released=released),
        tried=0 if plan and not task.stream_only else task.tried,
    )
    return _with_task(
        job, provider, advanced, now, drive_delay=0, next_drive_at=_after_progress(job, now, policy)
    )


def begin_stream(
    job: Job, attempt: int, provider: str, owner: str, now: datetime, policy: Policy
) -> Job | None:
    """`owner` becomes the only reader of the stream; what an earlier reader uploaded is given up (I13).

    Unless that is planned: then its stream was read to its end, or the export turned out to be ranged.
    """
    task = job.live_task(attempt, provider)
    if task is None or (task.upload and task.upload.plan):
        return None
    if task.lease and task.lease.owner != owner and task.lease.until > now:
        return None
    lease = Lease(owner=owner, until=now + seconds(policy.lease_seconds))
    leased = task.replace(lease=lease, upload=None, progress=Progress(), stream_only=True)
    return _with_task(job, provider, leased, now, next_drive_at=_after_progress(job, now, policy))


def renew_lease(
    job: Job, attempt: int, provider: str, owner: str, now: datetime, policy: Policy
) -> Job | None:
    """The reader goes on. None: it lost the stream, or the task has ended, and must stop."""
    task = job.live_task(attempt, provider)
    if task is None or task.lease is None or task.lease.owner != owner:
        return None
    lease = Lease(owner=owner, until=now + seconds(policy.lease_seconds))
    return _with_task(
        job, provider, task.replace(lease=lease), now, next_drive_at=_after_progress(job, now, policy)
    )


def seal_stream(
    job: Job, attempt: int, provider: str, owner: str, plan: Plan, now: datetime, policy: Policy
) -> Job | None:
    """The stream has ended: its size is known and its upload can be completed."""
    task = job.live_task(attempt, provider)
    if task is None or task.lease is None or task.lease.owner != owner or task.upload is None:
        return None
    sealed = task.replace(upload=task.upload.replace(plan=plan, released=plan.parts), lease=None)
    return _with_task(job, provider, sealed, now, next_drive_at=_after_progress(job, now, policy))


def stop_stream(
    job: Job, attempt: int, provider: str, owner: str, moved: int, took: float, now: datetime, policy: Policy
) -> Job | None:
    """The reader ran out of time after `moved` bytes in `took` seconds; the second time is one too many."""
    task = job.live_task(attempt, provider)
    if task is None or task.lease is None or task.lease.owner != owner:
        return None
    stops = task.stream_stops + 1
    rate = moved / max(took, 0.001) / 1e6
    message = f"The stream was not over after {took:.0f} s: {moved} bytes at {rate:.1f} MB/s."
    if stops >= policy.max_stream_stops:
        return fail_task(
            job, attempt, provider, Reason(code=Code.STREAM_TOO_LONG, message=message), now, policy
        )
    job = _with_task(job, provider, task.replace(stream_stops=stops, lease=None), now)
    return note_trouble(job, attempt, provider, message, now, owner, now)


def replan_changed(
    job: Job, attempt: int, provider: str, upload_id: str, now: datetime, policy: Policy
) -> Job | None:
    """The export changed under the plan: the task starts anew.

    If the plan was made in this attempt, the export changes faster than it can be read by ranges: then as a stream.
    """
    found = job.live_upload(attempt, provider, upload_id)
    if found is None:
        return None
    task, upload = found
    kept_from_before = upload.attempt < attempt
    anew = task.replace(
        upload=None,
        lease=None,
        progress=Progress(),
        stream_only=task.stream_only or not kept_from_before,
        started_anew=task.started_anew or kept_from_before,
    )
    return _with_task(job, provider, anew, now, next_drive_at=_after_progress(job, now, policy))


def replan_lost(
    job: Job, attempt: int, provider: str, upload_id: str, now: datetime, policy: Policy
) -> Job | None:
    """S3 has lost the upload: the task starts anew, and that counts as a try."""
    lost = "S3 lost the upload again and again."
    return _once_more(job, attempt, provider, upload_id, lost, now, policy, upload=None, lease=None)


def redo_parts(
    job: Job, attempt: int, provider: str, upload_id: str, now: datetime, policy: Policy
) -> Job | None:
    """Parts that counted as done must be moved again: the progress is read anew, and that counts as a try."""
    lost = "S3 lost parts of the upload again and again."
    return _once_more(job, attempt, provider, upload_id, lost, now, policy)


def _once_more(
    job: Job,
    attempt: int,
    provider: str,
    upload_id: str,
    lost: str,
    now: datetime,
    policy: Policy,
    **changes: None,
) -> Job | None:
    """The progress starts anew, as one try more; if there were too many, `lost` says why the task fails."""
    found = job.live_upload(attempt, provider, upload_id)
    if found is None:
        return None
    task, _ = found
    if task.tried + 1 >= policy.max_tries:
        reason = Reason(code=Code.RETRIES_EXHAUSTED, message=lost)
        return fail_task(job, attempt, provider, reason, now, policy)
    again = task.replace(progress=Progress(), tried=task.tried + 1, **changes)
    return _with_task(job, provider, again, now, next_drive_at=_after_progress(job, now, policy))


def note_trouble(
    job: Job,
    attempt: int,
    provider: str,
    message: str,
    next_try_at: datetime,
    owner: str | None,
    now: datetime,
) -> Job | None:
    """A transient error outlived its retries in place: the sweep tries again at `next_try_at`.

    Of the errors of many parts at once only the first is written: a task that waits already has its next try.
    While somebody reads its stream only that `owner` can be in trouble.
    """
    task = job.live_task(attempt, provider)
    if task is None or (task.lease and task.lease.owner != owner and task.lease.until > now):
        return None
    if task.next_try_at is not None and task.next_try_at > now:
        return None
    count = task.trouble.count + 1 if task.trouble else 1
    waiting = task.replace(
        trouble=Trouble(message=message, at=now, count=count), next_try_at=next_try_at, lease=None
    )
    return _with_task(job, provider, waiting, now, next_drive_at=_drive_by(job, next_try_at))


def finish_task(
    job: Job, attempt: int, provider: str, stored: StoredObject, parts: int, now: datetime, policy: Policy
) -> Job | None:
    """The object is in S3, made of so many parts, and verified."""
    task = job.live_task(attempt, provider)
    if task is None:
        return None
    done = task.replace(
        status=Status.DONE,
        object=stored,
        progress=Progress(parts=parts, bytes=stored.size, through=parts, through_bytes=stored.size),
        upload=None,
        lease=None,
        next_try_at=None,
        tried=0,
        finished_at=now,
    )
    return _with_task(
        job, provider, done, now, drive_delay=0, next_drive_at=_after_progress(job, now, policy)
    )


def fail_task(
    job: Job, attempt: int, provider: str, reason: Reason, now: datetime, policy: Policy
) -> Job | None:
    """The task fails for good, its job with it, and its unfinished siblings are cancelled (I11)."""
    task = job.live_task(attempt, provider)
    if task is None:
        return None
    failed = task.replace(status=Status.FAILED, reason=reason, lease=None, next_try_at=None, finished_at=now)
    sibling = Reason(code=Code.SIBLING_FAILED, message=f"Cancelled because {provider} failed.")
    job = job.replace(tasks={**job.tasks, provider: failed})
    return _end(job, Status.FAILED, reason, sibling, now, policy)


def finish_job(job: Job, attempt: int, now: datetime, policy: Policy) -> Job | None:
    """All tasks are done: so is the job, and its life as a backup begins."""
    if job.attempt != attempt or job.status not in UNFINISHED:
        return None
    if any(task.status is not Status.DONE for task in job.tasks.values()):
        return None
    done = job.replace(status=Status.DONE, active=None, finished_at=now, updated_at=now, drive_delay=0)
    return done.replace(next_drive_at=first_look(done, policy))


def time_out(job: Job, now: datetime, policy: Policy) -> Job | None:
    """The attempt is past its deadline."""
    if job.status not in UNFINISHED or now < job.deadline_at:
        return None
    message = f"Not finished after {policy.attempt_seconds} seconds."
    reason = Reason(code=Code.TIMED_OUT, message=message)
    return _end(job, Status.FAILED, reason, reason, now, policy)


def cancel(job: Job, now: datetime, policy: Policy) -> Job | None:
    """Somebody asked to stop."""
    if job.status not in UNFINISHED:
        return None
    reason = Reason(code=Code.CANCELLED, message="Cancelled on request.")
    return _end(job, Status.CANCELLED, reason, reason, now, policy)


def _end(job: Job, status: Status, reason: Reason, for_tasks: Reason, now: datetime, policy: Policy) -> Job:
    """Ends an attempt that did not get done: no task stays unfinished, and the uploads' grace begins."""
    tasks = {
        name: task.replace(
            status=Status.CANCELLED, reason=for_tasks, lease=None, next_try_at=None, finished_at=now
        )
        if task.status in UNFINISHED
        else task
        for name, task in job.tasks.items()
    }
    return job.replace(
        status=status,
        reason=reason,
        tasks=tasks,
        active=None,
        finished_at=now,
        updated_at=now,
        drive_delay=0,
        next_drive_at=now + seconds(policy.upload_grace_seconds),
    )


def claim_drive(job: Job, now: datetime, policy: Policy) -> Job | None:
    """The sweep takes a job that is due; the next look is twice as far away, but not behind a task's next try."""
    if job.next_drive_at is None or job.next_drive_at > now or job.status not in UNFINISHED:
        return None
    shortest = policy.start_seconds if job.status is Status.PENDING else policy.stall_seconds
    delay = min(max(job.drive_delay * 2, shortest), policy.max_stall_seconds)
    tries = [
        task.next_try_at
        for task in job.tasks.values()
        if task.status in UNFINISHED and task.next_try_at and task.next_try_at > now
    ]
    return job.replace(
        updated_at=now, drive_delay=delay, next_drive_at=min(now + seconds(delay), job.deadline_at, *tries)
    )
