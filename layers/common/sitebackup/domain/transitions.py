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

TROUBLES_TOLD_EVERY_SECONDS = 5
"""Of the errors of many parts at once, one in so many seconds is written to the job."""


def new_task(now: datetime, policy: Policy) -> Task:
    """A task that nobody has begun."""
    start = now + seconds(policy.start_seconds)
    return Task(stalls_at=start, next_check_at=start)


def _with_task(job: Job, provider: str, task: Task, now: datetime, **changes: object) -> Job:
    return job.replace(tasks={**job.tasks, provider: task}, updated_at=now, **changes)


def _check_by(task: Task, moment: datetime) -> datetime:
    """The sweep looks at `moment`, or earlier if that was already planned: a part may wait until then."""
    return min(moment, task.next_check_at or moment)


def _progressed(task: Task, now: datetime, policy: Policy) -> Task:
    stalls_at = now + seconds(policy.stall_seconds)
    return task.replace(stalls_at=stalls_at, stall_delay=0, next_check_at=_check_by(task, stalls_at))


def _leased(task: Task, owner: str, now: datetime, policy: Policy) -> Task:
    """A run has the export open: if it dies, the sweep finds that when the lease is over."""
    lease = Lease(owner=owner, until=now + seconds(policy.lease_seconds))
    stalls_at = max(now + seconds(policy.stall_seconds), lease.until)
    return task.replace(lease=lease, stalls_at=stalls_at, next_check_at=lease.until)


def _run_over(task: Task, now: datetime, policy: Policy) -> Task:
    """The run is over and left work to others."""
    stalls_at = now + seconds(policy.stall_seconds)
    return task.replace(lease=None, stalls_at=stalls_at, stall_delay=0, next_check_at=stalls_at)


def start_task(
    job: Job, attempt: int, provider: str, tried: int, owner: str, now: datetime, policy: Policy
) -> Job | None:
    """The run `owner` is about to open the export: running, one more run, its try claimed, and a lease (I13).

    What this attempt has planned already is not planned again; if its parts got lost the sweep emits them.
    """
    task = job.live_task(attempt, provider)
    if task is None or task.tried > tried or (task.lease and task.lease.until > now):
        return None
    if task.next_try_at and task.next_try_at > now:
        return None
    if task.upload and task.upload.attempt == attempt and (task.upload.plan or not task.stream_only):
        return None
    started = task.replace(status=Status.RUNNING, runs=task.runs + 1, tried=tried, next_try_at=None)
    return _with_task(
        job,
        provider,
        _leased(started, owner, now, policy),
        now,
        status=Status.RUNNING,
        started_at=job.started_at or now,
    )


def run_again(job: Job, attempt: int, provider: str, owner: str, now: datetime, policy: Policy) -> Job | None:
    """The run begins anew after a transient error; what failed may have left something in S3 all the same."""
    task = _task_of(job, attempt, provider, owner)
    if task is None:
        return None
    again = task.replace(runs=task.runs + 1)
    return _with_task(job, provider, _leased(again, owner, now, policy), now)


def renew_lease(
    job: Job, attempt: int, provider: str, owner: str, now: datetime, policy: Policy
) -> Job | None:
    """The run goes on. None: it lost the export, or the task has ended, and must stop."""
    task = _task_of(job, attempt, provider, owner)
    return _with_task(job, provider, _leased(task, owner, now, policy), now) if task else None


def end_run(job: Job, attempt: int, provider: str, owner: str, now: datetime, policy: Policy) -> Job | None:
    """The run has sent what was missing of an upload that an earlier attempt had planned."""
    task = _task_of(job, attempt, provider, owner)
    return _with_task(job, provider, _run_over(task, now, policy), now) if task else None


def _task_of(job: Job, attempt: int, provider: str, owner: str) -> Task | None:
    """The task, if this run has its export open."""
    task = job.live_task(attempt, provider)
    return task if task and task.lease and task.lease.owner == owner else None


def claim_try(job: Job, attempt: int, provider: str, tried: int, now: datetime) -> Job | None:
    """A completion is about to be tried again: written before it starts, so that a crash counts too."""
    task = job.live_task(attempt, provider)
    if task is None or task.tried >= tried:
        return None
    return _with_task(job, provider, task.replace(tried=tried), now)


def adopt_upload(
    job: Job, attempt: int, provider: str, upload: Upload, owner: str, now: datetime, policy: Policy
) -> Job | None:
    """The upload of the run `owner` becomes the task's, unless another one already is.

    A planned upload is moved by others from here on; a stream stays with its reader.
    """
    task = _task_of(job, attempt, provider, owner)
    if task is None or task.upload is not None:
        return None
    adopted = task.replace(upload=upload, progress=Progress())
    adopted = _run_over(adopted, now, policy) if upload.plan else _leased(adopted, owner, now, policy)
    return _with_task(job, provider, adopted, now)


def dispatch_parts(
    job: Job, attempt: int, provider: str, upload_id: str, progress: Progress, now: datetime, policy: Policy
) -> Job | None:
    """Records what is done of the upload, and hands out as many parts more as the window then allows."""
    found = job.live_upload(attempt, provider, upload_id)
    if found is None:
        return None
    task, upload = found
    plan = upload.plan
    dispatched = upload.dispatched
    if plan:
        dispatched = max(dispatched, min(plan.parts, progress.parts + upload.window))
    if progress.parts <= task.progress.parts and dispatched == upload.dispatched:
        return None
    advanced = task.replace(
        progress=progress if progress.parts > task.progress.parts else task.progress,
        upload=upload.replace(dispatched=dispatched),
        tried=0 if plan and not task.stream_only else task.tried,
    )
    return _with_task(job, provider, _progressed(advanced, now, policy), now)


def begin_stream(
    job: Job, attempt: int, provider: str, owner: str, now: datetime, policy: Policy
) -> Job | None:
    """The run `owner` reads the export as a stream; what an earlier reader uploaded is given up (I13).

    Unless that is planned: then its stream was read to its end, or the export turned out to be ranged.
    """
    task = _task_of(job, attempt, provider, owner)
    if task is None or (task.upload and task.upload.plan):
        return None
    stream = task.replace(upload=None, progress=Progress(), stream_only=True)
    return _with_task(job, provider, _leased(stream, owner, now, policy), now)


def end_stream(
    job: Job, attempt: int, provider: str, owner: str, plan: Plan, now: datetime, policy: Policy
) -> Job | None:
    """The stream was read to its end: its size is known and its upload can be completed."""
    task = _task_of(job, attempt, provider, owner)
    if task is None or task.upload is None:
        return None
    ended = task.replace(upload=task.upload.replace(plan=plan, dispatched=plan.parts))
    return _with_task(job, provider, _run_over(ended, now, policy), now)


def stop_stream(
    job: Job, attempt: int, provider: str, owner: str, moved: int, took: float, now: datetime, policy: Policy
) -> Job | None:
    """The reader ran out of time after `moved` bytes in `took` seconds; the second time is one too many."""
    task = _task_of(job, attempt, provider, owner)
    if task is None:
        return None
    stops = task.stream_stops + 1
    rate = moved / max(took, 0.001) / 1e6
    message = f"The stream was not over after {took:.0f} s: {moved} bytes at {rate:.1f} MB/s."
    if stops >= policy.max_stream_stops:
        return fail_task(
            job, attempt, provider, Reason(code=Code.STREAM_TOO_LONG, message=message), now, policy
        )
    job = _with_task(job, provider, task.replace(stream_stops=stops), now)
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
        next_try_at=None,
        progress=Progress(),
        stream_only=task.stream_only or not kept_from_before,
        started_anew=task.started_anew or kept_from_before,
    )
    return _with_task(job, provider, _progressed(anew, now, policy), now)


def replan_lost(
    job: Job,
    attempt: int,
    provider: str,
    upload_id: str,
    next_try_at: datetime,
    now: datetime,
    policy: Policy,
) -> Job | None:
    """S3 has lost the upload: after a pause the task starts anew, and that counts as a loss."""
    lost = "S3 lost the upload again and again."
    return _after_loss(
        job, attempt, provider, upload_id, lost, next_try_at, now, policy, upload=None, lease=None
    )


def redo_parts(
    job: Job,
    attempt: int,
    provider: str,
    upload_id: str,
    next_try_at: datetime,
    now: datetime,
    policy: Policy,
) -> Job | None:
    """Parts that counted as done must be moved again: the progress is read anew, and that counts as a loss."""
    lost = "S3 lost parts of the upload again and again."
    return _after_loss(job, attempt, provider, upload_id, lost, next_try_at, now, policy)


def _after_loss(
    job: Job,
    attempt: int,
    provider: str,
    upload_id: str,
    lost: str,
    next_try_at: datetime,
    now: datetime,
    policy: Policy,
    **changes: None,
) -> Job | None:
    """The progress starts anew, after a pause; if there were too many losses, `lost` says why the task fails."""
    found = job.live_upload(attempt, provider, upload_id)
    if found is None:
        return None
    task, _ = found
    losses = task.losses + 1
    if losses >= policy.max_tries:
        reason = Reason(code=Code.RETRIES_EXHAUSTED, message=lost)
        return fail_task(job, attempt, provider, reason, now, policy)
    again = _progressed(task.replace(progress=Progress(), losses=losses, **changes), now, policy)
    waiting = again.replace(next_try_at=next_try_at, next_check_at=_check_by(again, next_try_at))
    return _with_task(job, provider, waiting, now)


def note_trouble(
    job: Job,
    attempt: int,
    provider: str,
    message: str,
    next_try_at: datetime,
    owner: str | None,
    now: datetime,
) -> Job | None:
    """A run or a completion failed for now: the sweep tries again at `next_try_at`.

    A task that waits already keeps its next try. While a run has the export open only its `owner` can be in trouble.
    """
    task = job.live_task(attempt, provider)
    if task is None or (task.lease and task.lease.owner != owner and task.lease.until > now):
        return None
    if task.next_try_at is not None and task.next_try_at > now:
        return None
    waiting = _troubled(task, message, next_try_at, now).replace(lease=None)
    return _with_task(job, provider, waiting, now)


def note_part_trouble(
    job: Job, attempt: int, provider: str, upload_id: str, message: str, next_try_at: datetime, now: datetime
) -> Job | None:
    """A part failed for now. Its own record says when it is tried again; the sweep looks at the task by then (I8)."""
    found = job.live_upload(attempt, provider, upload_id)
    if found is None:
        return None
    task, _ = found
    told = task.trouble and now < task.trouble.at + seconds(TROUBLES_TOLD_EVERY_SECONDS)
    if told and _check_by(task, next_try_at) == task.next_check_at:
        return None
    earliest = (
        min(next_try_at, task.next_try_at) if task.next_try_at and task.next_try_at > now else next_try_at
    )
    return _with_task(job, provider, _troubled(task, message, earliest, now), now)


def _troubled(task: Task, message: str, next_try_at: datetime, now: datetime) -> Task:
    count = task.trouble.count + 1 if task.trouble else 1
    return task.replace(
        trouble=Trouble(message=message, at=now, count=count),
        next_try_at=next_try_at,
        next_check_at=_check_by(task, next_try_at),
    )


def finish_task(
    job: Job, attempt: int, provider: str, stored: StoredObject, parts: int, now: datetime, policy: Policy
) -> Job | None:
    """The object is in S3, made of so many parts, and verified. The last task to be done seals the job (I16)."""
    task = job.live_task(attempt, provider)
    if task is None:
        return None
    done = _over(task, Status.DONE, now).replace(
        object=stored,
        progress=Progress(parts=parts, bytes=stored.size, through=parts, through_bytes=stored.size),
        upload=None,
        tried=0,
    )
    job = _with_task(job, provider, done, now)
    if any(other.status is not Status.DONE for other in job.tasks.values()):
        return job
    return job.replace(sealed_at=now, finish_check_at=now + seconds(policy.start_seconds))


def _over(task: Task, status: Status, now: datetime, reason: Reason | None = None) -> Task:
    """Nobody reads it, it waits for nothing, and the sweep looks at it no more."""
    return task.replace(
        status=status,
        reason=reason,
        lease=None,
        next_try_at=None,
        stalls_at=None,
        stall_delay=0,
        next_check_at=None,
        finished_at=now,
    )


def fail_task(
    job: Job, attempt: int, provider: str, reason: Reason, now: datetime, policy: Policy
) -> Job | None:
    """The task fails for good, its job with it, and its unfinished siblings are cancelled (I11)."""
    task = job.live_task(attempt, provider)
    if task is None:
        return None
    sibling = Reason(code=Code.SIBLING_FAILED, message=f"Cancelled because {provider} failed.")
    job = job.replace(tasks={**job.tasks, provider: _over(task, Status.FAILED, now, reason)})
    return _end(job, Status.FAILED, reason, sibling, now, policy)


def finish_job(job: Job, attempt: int, now: datetime, policy: Policy) -> Job | None:
    """A sealed job is done, and its life as a backup begins."""
    if job.attempt != attempt or job.status not in UNFINISHED or job.sealed_at is None:
        return None
    done = job.replace(
        status=Status.DONE, active=None, finished_at=job.sealed_at, finish_check_at=None, updated_at=now
    )
    return done.replace(clean_up_at=first_look(done, policy))


def time_out(job: Job, now: datetime, policy: Policy) -> Job | None:
    """The attempt is past its deadline. A sealed job has none (I16)."""
    if job.status not in UNFINISHED or job.sealed_at is not None or now < job.deadline_at:
        return None
    message = f"Not finished after {policy.attempt_seconds} seconds."
    reason = Reason(code=Code.TIMED_OUT, message=message)
    return _end(job, Status.FAILED, reason, reason, now, policy)


def cancel(job: Job, now: datetime, policy: Policy) -> Job | None:
    """Somebody asked to stop. None, too, once the job is sealed: then it is too late."""
    if job.status not in UNFINISHED or job.sealed_at is not None:
        return None
    reason = Reason(code=Code.CANCELLED, message="Cancelled on request.")
    return _end(job, Status.CANCELLED, reason, reason, now, policy)


def _end(job: Job, status: Status, reason: Reason, for_tasks: Reason, now: datetime, policy: Policy) -> Job:
    """Ends an attempt that did not get done: no task stays unfinished, and the uploads' grace begins."""
    tasks = {
        name: _over(task, Status.CANCELLED, now, for_tasks) if task.status in UNFINISHED else task
        for name, task in job.tasks.items()
    }
    return job.replace(
        status=status,
        reason=reason,
        tasks=tasks,
        active=None,
        finished_at=now,
        updated_at=now,
        clean_up_at=now + seconds(policy.upload_grace_seconds),
    )
