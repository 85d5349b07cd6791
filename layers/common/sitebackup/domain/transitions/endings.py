"""How tasks and jobs end."""

from collections.abc import Sequence

from ..change import Change, Moment
from ..events import RestoreTaskCreated, TaskUpdated
from ..job import UNFINISHED, Job, Status, StoredObject, Task
from ..lock import Lock, LockMode
from ..progress import Progress
from ..reason import Code, Reason
from ..retention import first_look
from ..shrink import with_warnings
from ..task_ref import TaskRef
from .timing import with_task


def finish_task(job: Job, moment: Moment, ref: TaskRef, stored: StoredObject, parts: int) -> Change | None:
    """The object is in S3, made of so many parts, and verified. The last task to be done seals the job (I16)."""
    task = job.live_task(ref)
    if task is None:
        return None
    plan = task.upload.plan if task.upload else None
    stored = stored.replace(parts=parts, validator=plan.validator if plan else None)
    done = _over(task, moment, Status.DONE).replace(
        object=stored,
        progress=Progress(parts=parts, bytes=stored.size, watermark=parts, watermark_bytes=stored.size),
        upload=None,
        tries=0,
    )
    job = with_task(job, moment, ref, done)
    if all(other.status is Status.DONE for other in job.tasks.values()):
        check_at = moment.in_seconds(moment.policy.start_seconds)
        job = job.replace(sealed_at=moment.now, finish_check_at=check_at, lock=_lock(job, moment))
    return Change(job, [TaskUpdated(task=ref)])


def fail_task(job: Job, moment: Moment, ref: TaskRef, reason: Reason) -> Change | None:
    """The task fails for good, its job with it, and its unfinished siblings are cancelled (I11)."""
    task = job.live_task(ref)
    if task is None:
        return None
    sibling = Reason(code=Code.SIBLING_FAILED, message=f"Cancelled because {ref.provider} failed.")
    job = with_task(job, moment, ref, _over(task, moment, Status.FAILED, reason))
    ended = _end(job, moment, Status.FAILED, reason, sibling)
    return Change(ended, [TaskUpdated(task=ref), *_restore_goes_on(ended)])


def finish_job(job: Job, moment: Moment, attempt: int, earlier: Sequence[Job] = ()) -> Change | None:
    """A sealed job is done, and its life as a backup begins.

    `earlier` has the site's last done jobs, newest first: a task that shrank against them says so.
    """
    if not job.awaits_finish(attempt):
        return None
    done = job.replace(
        status=Status.DONE, finished_at=job.sealed_at, finish_check_at=None, slot=None, updated_at=moment.now
    )
    done = with_warnings(done, earlier, moment.policy)
    return Change(done.replace(clean_up_at=first_look(done, moment.policy)), _restore_goes_on(done))


def time_out(job: Job, moment: Moment) -> Change | None:
    """The attempt is past its deadline. A sealed job has none (I16)."""
    if not job.is_active or job.sealed_at is not None or moment.now < job.deadline_at:
        return None
    message = f"Not finished after {moment.policy.attempt_seconds} seconds."
    reason = Reason(code=Code.TIMED_OUT, message=message)
    ended = _end(job, moment, Status.FAILED, reason, reason)
    return Change(ended, _restore_goes_on(ended))


def cancel(job: Job, moment: Moment) -> Change | None:
    """Somebody asked to stop. None as well once the job is sealed: then it is too late."""
    if not job.is_active or job.sealed_at is not None:
        return None
    reason = Reason(code=Code.CANCELLED, message="Cancelled on request.")
    ended = _end(job, moment, Status.CANCELLED, reason, reason)
    return Change(ended, _restore_goes_on(ended))


def _lock(job: Job, moment: Moment) -> Lock | None:
    """How what is sealed now is locked. S3 knows whole seconds only, so it ends with one.

    A safety backup is locked no longer than it lives. Any other is whatever its expiry: who may ask for backups must
    not be able to shorten locks.
    """
    policy = moment.policy
    if policy.lock_mode is LockMode.OFF:
        return None
    days = policy.lock_days
    if job.safety_for is not None and job.expires_after_days is not None:
        days = min(days, job.expires_after_days)
    until = moment.in_seconds(days * policy.day_seconds).replace(microsecond=0)
    return Lock(mode=policy.lock_mode, until=until)


def _restore_goes_on(job: Job) -> list[RestoreTaskCreated]:
    """The restore that has waited for this safety backup goes on; one event is enough for it."""
    return [RestoreTaskCreated(task=job.safety_for.task(next(iter(job.tasks))))] if job.safety_for else []


def _over(task: Task, moment: Moment, status: Status, reason: Reason | None = None) -> Task:
    """Nobody reads it, it waits for nothing, and the sweep no longer looks at it."""
    return task.replace(
        status=status,
        reason=reason,
        lease=None,
        next_try_at=None,
        stalls_at=None,
        stall_delay=0,
        next_check_at=None,
        finished_at=moment.now,
    )


def _end(job: Job, moment: Moment, status: Status, reason: Reason, for_tasks: Reason) -> Job:
    """Ends an attempt that did not get done: no task stays unfinished, and the uploads' grace begins."""
    tasks = {
        name: _over(task, moment, Status.CANCELLED, for_tasks) if task.status in UNFINISHED else task
        for name, task in job.tasks.items()
    }
    return job.replace(
        status=status,
        reason=reason,
        slot=None,
        tasks=tasks,
        finished_at=moment.now,
        updated_at=moment.now,
        clean_up_at=moment.in_seconds(moment.policy.upload_grace_seconds),
    )
