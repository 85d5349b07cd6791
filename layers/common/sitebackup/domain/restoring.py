"""Every change that a restore may go through: pure functions, each from a restore to a RestoreChange."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from .change import Moment
from .events import RestoreTaskCreated
from .job import UNFINISHED, LastError, Lease, Status
from .reason import Code, Reason
from .restore import RETRYABLE, Import, Restore, RestoreStatus, RestoreTask
from .task_ref import RestoreTaskRef
from .transitions.postponing import Postponed

PIN_SPARE = timedelta(hours=1)
"""A pin outlives by so much what it was set for: clocks differ, and an invocation ends later than it should."""
GOES_ON = frozenset(
    {
        Code.CANCELLED,
        Code.IMPORT_FORBIDDEN,
        Code.PROVIDER_UNKNOWN,
        Code.RETRIES_EXHAUSTED,
        Code.STORAGE_REFUSED,
        Code.TIMED_OUT,
    }
)
"""After these a retry goes on with the upload; after the others it begins a new one."""


class RestoreChange(NamedTuple):
    """The changed restore, and the events that follow once it is stored (I8)."""

    restore: Restore
    events: Sequence[RestoreTaskCreated] = ()


type RestoreTransition = Callable[[Restore, Moment], RestoreChange | None]
"""None: there is nothing to change. The event came late, came twice, or belongs to another attempt."""


class Arrived(NamedTuple):
    """So many bytes are at the provider, and what their CRC64NVME is."""

    offset: int
    crc64nvme: str


# --- the restore


def pin_until(restore: Restore, moment: Moment) -> datetime:
    """How long the backup is needed, counted from now: until then nothing of it may be removed (I19)."""
    policy, seconds = moment.policy, moment.policy.restore_seconds
    if restore.safety_backup and restore.status is not RestoreStatus.RUNNING:
        seconds += policy.attempt_seconds
    return moment.in_seconds(seconds) + PIN_SPARE


def back_up(restore: Restore, moment: Moment, safety_job_id: str) -> RestoreChange | None:
    """The backup is pinned, and the site is to be backed up before anything is sent to it (I20)."""
    if restore.status is not RestoreStatus.PENDING or not restore.safety_backup:
        return None
    status = RestoreStatus.BACKING_UP
    return RestoreChange(_step_later(restore, moment).replace(status=status, safety_job_id=safety_job_id))


def look_again(restore: Restore, moment: Moment) -> RestoreChange | None:
    """The safety backup still goes on. Its end sends an event; should that get lost, the sweep looks."""
    if restore.status is not RestoreStatus.BACKING_UP:
        return None
    return RestoreChange(_step_later(restore, moment))


def start_sending(restore: Restore, moment: Moment) -> RestoreChange | None:
    """What had to come first is there: the backup is pinned and, if it was wanted, the site backed up (I20)."""
    before = RestoreStatus.BACKING_UP if restore.safety_backup else RestoreStatus.PENDING
    if restore.status is not before:
        return None
    check_at = moment.in_seconds(moment.policy.start_seconds)
    running = restore.replace(
        status=RestoreStatus.RUNNING,
        started_at=moment.now,
        deadline_at=moment.in_seconds(moment.policy.restore_seconds),
        step_at=None,
        tasks={
            name: task.replace(next_check_at=check_at) if task.status in UNFINISHED else task
            for name, task in restore.tasks.items()
        },
        updated_at=moment.now,
    )
    return RestoreChange(running, [_event(running, name) for name in _unfinished(running)])


def give_up(restore: Restore, moment: Moment, reason: Reason) -> RestoreChange | None:
    """It fails before anything was sent."""
    if restore.status not in (RestoreStatus.PENDING, RestoreStatus.BACKING_UP):
        return None
    return RestoreChange(_stop(restore, moment, Status.FAILED, reason))


def cancel(restore: Restore, moment: Moment) -> RestoreChange | None:
    """Ends every task whose provider has not got all bytes. None: there is none.

    A task whose last byte may be on its way can't be stopped; the restore ends with it.
    """
    reason = Reason(code=Code.CANCELLED, message="Cancelled on request.")
    stopped = _stop(restore, moment, Status.CANCELLED, reason)
    return RestoreChange(stopped) if restore.is_active and stopped.tasks != restore.tasks else None


def time_out(restore: Restore, moment: Moment) -> RestoreChange | None:
    """It is past its deadline."""
    deadline = restore.deadline_at
    if restore.status is not RestoreStatus.RUNNING or deadline is None or moment.now < deadline:
        return None
    late = f"Not finished {moment.policy.restore_seconds} seconds after it began to send."
    timed_out = Reason(code=Code.TIMED_OUT, message=late)
    unknown = Reason(code=Code.IMPORT_UNKNOWN, message=f"The last byte may have been sent. {late}")
    tasks = {
        name: _over(task, moment, Status.FAILED, unknown if task.is_committed else timed_out)
        if task.status in UNFINISHED
        else task
        for name, task in restore.tasks.items()
    }
    return RestoreChange(_settled(restore.replace(tasks=tasks, updated_at=moment.now), moment))


def retry(restore: Restore, moment: Moment) -> RestoreChange | None:
    """Opens the next attempt. Done tasks stay done; an upload that can be gone on with is.

    None as well until it was released: then the safety backup of the attempt before has ended, and its pin is out.
    """
    if restore.status not in RETRYABLE or restore.is_pinning:
        return None

    def reopened(task: RestoreTask) -> RestoreTask:
        if task.status is Status.DONE:
            return task
        goes_on = task.reason is None or task.reason.code in GOES_ON
        return RestoreTask(object=task.object, upload=task.upload if goes_on else None)

    again = restore.replace(
        status=RestoreStatus.PENDING,
        attempt=restore.attempt + 1,
        reason=None,
        tasks={name: reopened(task) for name, task in restore.tasks.items()},
        safety_job_id=None,
        started_at=None,
        deadline_at=None,
        finished_at=None,
        forget_at=None,
        is_pinning=True,
    )
    return RestoreChange(_step_later(again, moment))


def release(restore: Restore, moment: Moment) -> RestoreChange | None:
    """It is over, and nothing is pinned for it any longer."""
    if restore.is_active or not restore.is_pinning:
        return None
    return RestoreChange(restore.replace(is_pinning=False, step_at=None, updated_at=moment.now))


def check(restore: Restore, moment: Moment) -> RestoreChange | None:
    """What the sweep does with the tasks of a running restore that are due."""
    if restore.status is not RestoreStatus.RUNNING:
        return None
    now, events, changed = moment.now, list[RestoreTaskCreated](), restore
    for name in _unfinished(restore):
        task = changed.tasks[name]
        if task.next_check_at is None or task.next_check_at > now:
            continue
        if task.lease and task.lease.until > now:
            changed = _with_task(changed, moment, name, task.replace(next_check_at=task.lease.until))
            continue
        begun = task.status is Status.RUNNING
        tries = task.tries + 1 if begun else 0
        if tries >= moment.policy.max_tries:
            changed = _with_task(changed, moment, name, _over(task, moment, Status.FAILED, _exhausted(task)))
            continue
        shortest = moment.policy.start_seconds
        delay = min(max(task.stall_delay * 2, shortest), moment.policy.max_stall_seconds)
        again = task.replace(
            lease=None, next_try_at=None, stall_delay=delay, next_check_at=moment.in_seconds(delay)
        )
        changed = _with_task(changed, moment, name, again)
        events.append(_event(restore, name, tries))
    return RestoreChange(_settled(changed, moment), events) if changed is not restore else None


# --- its tasks


def start_task(
    restore: Restore, moment: Moment, ref: RestoreTaskRef, redelivery: int, owner: str
) -> RestoreChange | None:
    """The invocation `owner` takes the task: its try is claimed, and nobody else sends meanwhile."""
    task, now = restore.live_task(ref), moment.now
    if task is None or task.tries > redelivery or (task.lease and task.lease.until > now):
        return None
    if task.next_try_at and task.next_try_at > now:
        return None
    started = task.replace(status=Status.RUNNING, tries=redelivery, next_try_at=None)
    return RestoreChange(_with_task(restore, moment, ref.provider, _leased(started, moment, owner)))


def renew_lease(restore: Restore, moment: Moment, ref: RestoreTaskRef, owner: str) -> RestoreChange | None:
    """The invocation goes on. None: another has the task, or it has ended; it must stop."""
    task = _owned(restore, ref, owner)
    if task is None:
        return None
    return RestoreChange(_with_task(restore, moment, ref.provider, _leased(task, moment, owner)))


def begin_import(
    restore: Restore, moment: Moment, ref: RestoreTaskRef, owner: str, url: str
) -> RestoreChange | None:
    """The provider has made an upload."""
    task = _owned(restore, ref, owner)
    if task is None:
        return None
    begun = _leased(task.replace(upload=Import(url=url)), moment, owner)
    return RestoreChange(_with_task(restore, moment, ref.provider, begun))


def begin_slice(
    restore: Restore, moment: Moment, ref: RestoreTaskRef, owner: str, arrived: Arrived, sent_to: int
) -> RestoreChange | None:
    """These bytes have arrived, and those up to `sent_to` are about to be sent."""
    task = _owned(restore, ref, owner)
    if task is None or task.upload is None:
        return None
    upload = task.upload.replace(
        offset=arrived.offset,
        crc64nvme=arrived.crc64nvme,
        sent_to=max(sent_to, task.upload.sent_to),
    )
    sending = _leased(task.replace(upload=upload), moment, owner)
    if arrived.offset > task.upload.offset:
        sending = sending.replace(tries=0, stall_delay=0)
    return RestoreChange(_with_task(restore, moment, ref.provider, sending))


def lose_import(restore: Restore, moment: Moment, ref: RestoreTaskRef, owner: str) -> RestoreChange | None:
    """The provider has lost the upload or bytes of it: a new one is begun, a few times at most."""
    task = _owned(restore, ref, owner)
    if task is None or task.upload is None:
        return None
    lost = task.replace(upload=None, losses=task.losses + 1)
    if lost.losses >= moment.policy.max_tries:
        message = f"The provider lost {lost.losses} uploads."
        lost = _over(lost, moment, Status.FAILED, Reason(code=Code.RETRIES_EXHAUSTED, message=message))
    return RestoreChange(_settled(_with_task(restore, moment, ref.provider, lost), moment))


def postpone(
    restore: Restore, moment: Moment, ref: RestoreTaskRef, owner: str, error: Postponed
) -> RestoreChange | None:
    """The task failed for now: the sweep tries again."""
    task = _owned(restore, ref, owner)
    if task is None:
        return None
    count = task.last_error.count + 1 if task.last_error else 1
    last_error = LastError(message=error.message, at=moment.now, count=count)
    return RestoreChange(
        _with_task(
            restore, moment, ref.provider, _waiting(task, error.next_try_at).replace(last_error=last_error)
        )
    )


def await_import(
    restore: Restore, moment: Moment, ref: RestoreTaskRef, owner: str, ask_at: datetime
) -> RestoreChange | None:
    """The provider has all bytes and is at its import: it is asked again then."""
    task = _owned(restore, ref, owner)
    if task is None:
        return None
    waiting = _waiting(task, ask_at).replace(tries=0, stall_delay=0)
    return RestoreChange(_with_task(restore, moment, ref.provider, waiting))


def hand_over(restore: Restore, moment: Moment, ref: RestoreTaskRef, owner: str) -> RestoreChange | None:
    """The invocation is over before the task is: another one goes on."""
    task = _owned(restore, ref, owner)
    if task is None:
        return None
    check_at = moment.in_seconds(moment.policy.start_seconds)
    handed = task.replace(lease=None, next_check_at=check_at)
    changed = _with_task(restore, moment, ref.provider, handed)
    return RestoreChange(changed, [_event(changed, ref.provider, task.tries)])


def finish_task(restore: Restore, moment: Moment, ref: RestoreTaskRef, owner: str) -> RestoreChange | None:
    """The provider has taken all bytes, whose checksum is the manifest's (I20)."""
    task = _owned(restore, ref, owner)
    if task is None or task.upload is None:
        return None
    crc = task.object.checksum_crc64nvme
    upload = task.upload.replace(offset=task.object.size, crc64nvme=crc, sent_to=task.object.size)
    done = _over(task.replace(upload=upload), moment, Status.DONE)
    return RestoreChange(_settled(_with_task(restore, moment, ref.provider, done), moment))


def fail_task(
    restore: Restore, moment: Moment, ref: RestoreTaskRef, owner: str, reason: Reason
) -> RestoreChange | None:
    """The task can't succeed in this attempt. The others go on (I20)."""
    task = _owned(restore, ref, owner)
    if task is None:
        return None
    failed = _over(task, moment, Status.FAILED, reason)
    return RestoreChange(_settled(_with_task(restore, moment, ref.provider, failed), moment))


# --- shared


def _owned(restore: Restore, ref: RestoreTaskRef, owner: str) -> RestoreTask | None:
    """The task, if this invocation has it: whoever's lease is over may have lost it to another."""
    task = restore.live_task(ref)
    return task if task and task.lease and task.lease.owner == owner else None


def _unfinished(restore: Restore) -> list[str]:
    return [name for name, task in restore.tasks.items() if task.status in UNFINISHED]


def _event(restore: Restore, provider: str, redelivery: int = 0) -> RestoreTaskCreated:
    return RestoreTaskCreated(task=restore.ref.task(provider), redelivery=redelivery)


def _step_later(restore: Restore, moment: Moment) -> Restore:
    return restore.replace(step_at=moment.in_seconds(moment.policy.start_seconds), updated_at=moment.now)


def _with_task(restore: Restore, moment: Moment, provider: str, task: RestoreTask) -> Restore:
    return restore.replace(tasks={**restore.tasks, provider: task}, updated_at=moment.now)


def _leased(task: RestoreTask, moment: Moment, owner: str) -> RestoreTask:
    until = moment.in_seconds(moment.policy.lease_seconds)
    return task.replace(lease=Lease(owner=owner, until=until), next_check_at=until)


def _waiting(task: RestoreTask, until: datetime) -> RestoreTask:
    return task.replace(lease=None, next_try_at=until, next_check_at=until)


def _over(task: RestoreTask, moment: Moment, status: Status, reason: Reason | None = None) -> RestoreTask:
    return task.replace(
        status=status,
        reason=reason,
        lease=None,
        next_try_at=None,
        next_check_at=None,
        stall_delay=0,
        finished_at=moment.now,
    )


def _exhausted(task: RestoreTask) -> Reason:
    last = f" The last error: {task.last_error.message}" if task.last_error else ""
    if task.is_committed:
        message = f"The last byte may have been sent, and what became of it is not known.{last}"
        return Reason(code=Code.IMPORT_UNKNOWN, message=message)
    message = f"Given up after {task.tries + 1} tries without progress.{last}"
    return Reason(code=Code.RETRIES_EXHAUSTED, message=message)


def _stop(restore: Restore, moment: Moment, status: Status, reason: Reason) -> Restore:
    """Ends each unfinished task that can be stopped, and the restore with the last one.

    An attempt that does not send yet can be stopped whole, whatever an earlier one has sent.
    """
    is_sending = restore.status is RestoreStatus.RUNNING
    tasks = {
        name: _over(task, moment, status, reason)
        if task.status in UNFINISHED and not (is_sending and task.is_committed)
        else task
        for name, task in restore.tasks.items()
    }
    return _settled(restore.replace(tasks=tasks, updated_at=moment.now), moment)


def _settled(restore: Restore, moment: Moment) -> Restore:
    """Over, if all its tasks are: failed if one failed, else cancelled if one was, else done.

    The sweep takes the pin out if nobody did before.
    """
    if not restore.is_active or _unfinished(restore):
        return restore
    ended = {task.status: task.reason for task in reversed(restore.tasks.values())}
    status = next(status for status in (Status.FAILED, Status.CANCELLED, Status.DONE) if status in ended)
    days = moment.policy.completed_record_days
    return restore.replace(
        status=RestoreStatus(status.value),
        reason=ended[status],
        finished_at=moment.now,
        step_at=moment.in_seconds(moment.policy.start_seconds),
        forget_at=moment.in_seconds(days * moment.policy.day_seconds),
    )
