"""What must hold of every stored change (I1, I3, I6, I8, I10, I11, I13, I16, I17, I19, I20), whoever makes it."""

from datetime import datetime

from sitebackup.domain.job import FINISHED, RETRYABLE, UNFINISHED, Job, Status, Task
from sitebackup.domain.progress import Progress
from sitebackup.domain.reason import Code
from sitebackup.domain.restore import ACTIVE, Restore, RestoreStatus, RestoreTask
from sitebackup.domain.restore import RETRYABLE as RETRYABLE_RESTORES

FINAL = frozenset({Status.DONE, Status.FAILED, Status.CANCELLED})


def check_change(before: Job, after: Job, now: datetime) -> None:
    """Raises AssertionError if a change must not be stored."""
    check_job(after)
    assert after.id == before.id
    assert after.tasks.keys() == before.tasks.keys()
    _check_pins(before, after, now)
    _check_locks(before, after, now)
    if after.attempt != before.attempt:
        _check_retry(before, after)
        return
    assert after.deadline_at == before.deadline_at, "a deadline moved within an attempt"
    if before.sealed_at is not None:
        assert after.sealed_at == before.sealed_at
        assert after.status not in RETRYABLE, "a sealed job ended otherwise than done"
    if after.status is Status.DONE:
        assert after.finished_at == after.sealed_at
    if before.status not in UNFINISHED:
        assert after.status is before.status or (
            after.status is Status.DELETED and before.status in FINISHED
        ), f"{before.status} became {after.status}"
        assert _without_drills(after) == _without_drills(before), "a task of a final job changed"
        _check_drills(before, after, now)
        return
    assert not any(task.drill or task.drilling for task in after.tasks.values()), (
        "what is not done was opened"
    )
    assert not (before.status is Status.RUNNING and after.status is Status.PENDING)
    for name, task in after.tasks.items():
        # The write that makes the job done says of each task whether it shrank.
        told = task.replace(warning=None) if after.status is Status.DONE else task
        _check_task(before.tasks[name], told, now)
    _check_siblings(before, after, now)
    just_failed = [
        name
        for name, task in after.tasks.items()
        if task.status is Status.FAILED and before.tasks[name].status is not Status.FAILED
    ]
    assert not just_failed or after.status is Status.FAILED, "a task failed and its job did not"
    if after.status is Status.DONE:
        assert all(task.status is Status.DONE for task in after.tasks.values())


def _check_pins(before: Job, after: Job, now: datetime) -> None:
    """A pin keeps the removal of a done job's data from beginning, and is not taken away but by its owner (I19)."""
    if after.removing_at is not None and before.removing_at is None:
        assert all(until <= now for until in after.pins.values()), "a removal began while a pin was on"
    for owner, until in after.pins.items():
        if until != before.pins.get(owner):
            assert until > before.pins.get(owner, now), "a pin was shortened"
            assert (after.status, after.removing_at) == (Status.DONE, None), "what is going was pinned"
    taken = [owner for owner, until in before.pins.items() if until > now and owner not in after.pins]
    assert len(taken) <= 1, "an owner took out others' pins"


def _check_locks(before: Job, after: Job, now: datetime) -> None:
    """The lock is that of the seal, and no removal begins under it or under a legal hold."""
    if before.sealed_at is not None:
        assert after.lock == before.lock, "a lock was changed"
    if after.removing_at is not None and before.removing_at is None:
        assert after.lock is None or after.lock.until <= now, "a removal began of what is locked"
        assert not after.is_held, "a removal began of what is on legal hold"


def check_job(job: Job) -> None:
    """Raises AssertionError if there can't be such a job."""
    assert job.is_active == (job.status in UNFINISHED), "active is not unfinished"
    if job.status in UNFINISHED:
        assert job.earliest_check is not None, "nobody will look at an unfinished job"
        assert (job.sealed_at is not None) == all(task.status is Status.DONE for task in job.tasks.values())
        assert job.sealed_at or job.earliest_check <= job.deadline_at, "nobody will look at the deadline"
        assert job.finished_at is None
        assert job.reason is None
        assert job.clean_up_at is None
    else:
        assert job.finished_at is not None
        assert job.slot is None, "what is over has a slot of its user's active jobs"
        assert all(task.status in FINAL for task in job.tasks.values()), "an unfinished task in a final job"
    if job.status in RETRYABLE:
        assert job.clean_up_at is not None, "nobody will remove what it left"
        assert job.reason is not None
        assert job.reason.message
    for task in job.tasks.values():
        if task.status in RETRYABLE:
            assert task.reason is not None
            assert task.reason.message
        if task.status is Status.DONE:
            assert task.object is not None
            assert task.progress.bytes == task.object.size
        if task.status in FINAL:
            assert task.lease is None
            assert (task.next_try_at, task.next_check_at, task.stalls_at) == (None, None, None)
        else:
            assert task.next_check_at is not None, "nobody will look at an unfinished task"
            assert task.stalls_at is not None
            assert task.next_check_at <= task.stalls_at, "a stall would not be seen"
        if task.upload and task.upload.plan:
            plan = task.upload.plan
            assert task.upload.dispatched <= plan.parts
            assert task.progress.parts <= plan.parts
            assert task.progress.bytes <= plan.size


def _without_drills(job: Job) -> dict[str, Task]:
    return {name: task.replace(drill=None, drilling=None) for name, task in job.tasks.items()}


def _check_drills(before: Job, after: Job, now: datetime) -> None:
    """What is opened is pinned, somebody looks at it again, and damage takes two reads (I19)."""
    assert after.damaged == any(task.is_damaged for task in after.tasks.values())
    for name, task in after.tasks.items():
        was = before.tasks[name]
        if task.drilling != was.drilling or task.drill != was.drill:
            assert (after.status, after.removing_at) == (Status.DONE, None), "what is going was opened"
        if task.drilling and after.status is Status.DONE and after.removing_at is None:
            assert after.earliest_check is not None, "nobody will look at the drill"
            assert after.earliest_check <= task.drilling.next_check_at
        if task.drilling and task.drilling != was.drilling:
            assert after.pins["drill"] > task.drilling.next_check_at, "what is opened is not pinned"
        if task.drill != was.drill:
            assert task.drilling is None, "a drill ended and goes on"
            assert was.drilling is not None, "a drill ended that nobody had begun"
            assert not task.is_damaged or was.drilling.suspicion, "one read was enough for damage"
        old, new = was.drilling, task.drilling
        if old and new and old.leased_until and new.leased_until and old.leased_until > now:
            assert new.owner == old.owner, "a drill was taken from who is at it"
    if "drill" in before.pins and "drill" not in after.pins and before.pins["drill"] > now:
        assert not any(task.drilling for task in after.tasks.values()), "a drill lost its pin"


def _check_siblings(before: Job, after: Job, now: datetime) -> None:
    """What happens to one task changes no other, but where the job ends or the sweep checks several (I17)."""
    changed = [name for name, task in after.tasks.items() if task != before.tasks[name]]
    if after.status not in UNFINISHED or len(changed) < 2:
        return
    for name in changed:
        check = before.tasks[name].next_check_at
        assert check is not None
        assert check <= now, f"{name} was not due, and changed with another task"


def _check_retry(before: Job, after: Job) -> None:
    assert before.status in RETRYABLE, f"an attempt was opened from {before.status}"
    assert after.attempt == before.attempt + 1
    assert after.status is Status.PENDING
    assert after.cleaning_at is None
    for name, task in after.tasks.items():
        kept = before.tasks[name]
        if before.cleaning_at is not None:
            assert task.upload is None
            assert task.object is None
        assert task.status is Status.PENDING or task == kept
        assert task.upload is None or task.upload == kept.upload
        assert (task.reason, task.lease, task.last_error) == (
            None,
            None,
            kept.last_error if task == kept else None,
        )


def _check_task(before: Task, after: Task, now: datetime) -> None:
    if before.status in FINAL:
        assert after == before, f"a task that was {before.status} changed"
        return
    assert not (before.status is Status.RUNNING and after.status is Status.PENDING)
    assert after.runs >= before.runs
    if before.lease and before.lease.until > now and after.lease and after.status in UNFINISHED:
        assert after.lease.owner == before.lease.owner, "a live lease was taken away"
    was, upload = before.upload, after.upload
    if was is None or upload is None:
        return
    assert upload.upload_id == was.upload_id, "an upload was replaced without being given up"
    assert was.plan is None or upload.plan == was.plan, "a plan changed"
    assert upload.dispatched >= was.dispatched
    redone = after.progress == Progress() and after.losses == before.losses + 1
    assert after.progress.parts >= before.progress.parts or redone, "progress fell"


# --- restores

IN_ORDER = [RestoreStatus.PENDING, RestoreStatus.BACKING_UP, RestoreStatus.RUNNING]


def check_restore_change(before: Restore, after: Restore, now: datetime) -> None:
    """Raises AssertionError if a change of a restore must not be stored."""
    check_restore(after)
    for name in ("id", "user_id", "site_id", "job_id", "source_site_id", "safety_backup", "created_at"):
        assert getattr(after, name) == getattr(before, name), f"{name} changed"
    assert after.tasks.keys() == before.tasks.keys()
    for name, task in after.tasks.items():
        assert task.object == before.tasks[name].object
        assert before.tasks[name].status is not Status.DONE or task == before.tasks[name], (
            "what is done changed"
        )
    if after.attempt != before.attempt:
        _check_restore_retry(before, after)
        return
    if not before.is_active:
        released = before.replace(is_pinning=False, step_at=None)
        unlike = {
            "version": after.version,
            "updated_at": after.updated_at,
            "next_check_at": after.next_check_at,
        }
        assert after == released.replace(**unlike), "a restore that is over changed"
        return
    if after.is_active:
        assert IN_ORDER.index(after.status) >= IN_ORDER.index(before.status)
    for name in ("safety_job_id", "started_at", "deadline_at"):
        assert getattr(before, name) in (None, getattr(after, name)), f"{name} changed within an attempt"
    for name, task in after.tasks.items():
        _check_restore_task(before.tasks[name], task, now)
        if before.status is RestoreStatus.RUNNING and before.tasks[name].is_committed:
            stopped = before.tasks[name].status in UNFINISHED and task.status is Status.CANCELLED
            assert not stopped, "what may be imported was cancelled"
        if before.status is not RestoreStatus.RUNNING:
            assert task.upload == before.tasks[name].upload, "something was sent before the time for it (I20)"
    _check_restore_siblings(before, after, now)


def check_restore(restore: Restore) -> None:
    """Raises AssertionError if there can't be such a restore."""
    unfinished = [task for task in restore.tasks.values() if task.status in UNFINISHED]
    assert restore.is_active == bool(unfinished), "it is over before its tasks are, or they before it"
    if restore.is_active or restore.is_pinning:
        assert restore.earliest_check is not None, "nobody will look at it again"
    if restore.status in (RestoreStatus.BACKING_UP, RestoreStatus.RUNNING):
        assert restore.safety_backup == (restore.safety_job_id is not None)
    if restore.status is RestoreStatus.RUNNING:
        assert restore.deadline_at is not None
        assert restore.earliest_check is not None
        assert restore.earliest_check <= restore.deadline_at, "nobody will look at the deadline"
    if restore.status in ACTIVE:
        assert (restore.finished_at, restore.reason, restore.forget_at) == (None, None, None)
    else:
        assert restore.finished_at is not None
        assert restore.forget_at is not None
    if restore.status in RETRYABLE_RESTORES:
        assert restore.reason is not None
        assert restore.reason.message
    if restore.status is RestoreStatus.DONE:
        assert all(task.status is Status.DONE for task in restore.tasks.values())
    for task in restore.tasks.values():
        _check_a_restore_task(task)
        assert restore.status is RestoreStatus.RUNNING or task.lease is None
        if restore.status is RestoreStatus.RUNNING and task.status in UNFINISHED:
            assert task.next_check_at is not None, "nobody will look at an unfinished task"


def _check_a_restore_task(task: RestoreTask) -> None:
    if task.upload:
        assert 0 <= task.upload.offset <= task.upload.sent_to <= task.object.size
    if task.status is Status.DONE:
        assert task.bytes_done == task.object.size
    if task.status in RETRYABLE:
        assert task.reason is not None
        assert task.reason.message
    if task.status in FINAL:
        assert task.finished_at is not None
        assert (task.lease, task.next_try_at, task.next_check_at) == (None, None, None)
    if task.lease:
        assert task.next_check_at == task.lease.until, "nobody will look when its lease is over"


def _check_restore_retry(before: Restore, after: Restore) -> None:
    assert before.status in RETRYABLE_RESTORES, f"an attempt was opened from {before.status}"
    assert not before.is_pinning, "an attempt was opened before the one before was released"
    assert (after.attempt, after.status) == (before.attempt + 1, RestoreStatus.PENDING)
    assert (after.safety_job_id, after.started_at, after.deadline_at) == (None, None, None)
    assert after.is_pinning
    for name, task in after.tasks.items():
        was = before.tasks[name]
        if was.status is Status.DONE:
            continue
        assert task.status is Status.PENDING
        assert task.upload in (None, was.upload)
        if was.reason and was.reason.code is Code.IMPORT_UNKNOWN:
            assert task.upload is None, "an upload that may have been imported is gone on with"


def _check_restore_task(before: RestoreTask, after: RestoreTask, now: datetime) -> None:
    if before.status in FINAL:
        assert after == before, f"a task that was {before.status} changed"
        return
    assert not (before.status is Status.RUNNING and after.status is Status.PENDING)
    assert after.losses >= before.losses
    if before.lease and before.lease.until > now and after.lease and after.status in UNFINISHED:
        assert after.lease.owner == before.lease.owner, "a live lease was taken away"
    was, upload = before.upload, after.upload
    if was is None:
        assert upload is None or (upload.offset, upload.sent_to) == (0, 0)
    elif upload is None:
        assert after.losses == before.losses + 1, "an upload was forgotten"
    else:
        assert upload.url == was.url, "an upload was replaced without being given up"
        assert upload.offset >= was.offset
        assert upload.sent_to >= was.sent_to


def _check_restore_siblings(before: Restore, after: Restore, now: datetime) -> None:
    """What happens to one task changes no other, but where all are begun, stopped or checked (I20)."""
    changed = [name for name, task in after.tasks.items() if task != before.tasks[name]]
    if not (before.status is after.status is RestoreStatus.RUNNING) or len(changed) < 2:
        return
    for name in changed:
        check = before.tasks[name].next_check_at
        assert check is not None
        assert check <= now or after.tasks[name].status is Status.CANCELLED, (
            f"{name} was not due, and changed with another task"
        )
