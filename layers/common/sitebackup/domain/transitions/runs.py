"""What a run, one opening of an export by process_provider, does to its task."""

from typing import NamedTuple

from ..change import Change, Moment
from ..events import PartUpdated, TaskEvent, UploadJobCreated, UploadPartCreated
from ..job import Job, Lease, Status, Task, Upload
from ..plan import Plan
from ..progress import Progress
from ..reason import Code, Reason
from ..task_ref import TaskRef
from .endings import fail_task
from .postponing import Postponed, note_error
from .timing import with_task


class StreamRead(NamedTuple):
    """How far a stream was read."""

    bytes: int
    seconds: float


def start_task(job: Job, moment: Moment, ref: TaskRef, redelivery: int, owner: str) -> Change | None:
    """The run `owner` is about to open the export: running, one more run, its try claimed, and a lease (I13).

    What this attempt has planned already is not planned again; if its parts got lost the sweep emits them.
    """
    task, now = job.live_task(ref), moment.now
    if task is None or task.tries > redelivery or (task.lease and task.lease.until > now):
        return None
    if task.next_try_at and task.next_try_at > now:
        return None
    if task.upload and task.upload.plan and task.upload.attempt == ref.attempt:
        return None
    started = task.replace(status=Status.RUNNING, runs=task.runs + 1, tries=redelivery, next_try_at=None)
    job = job.replace(status=Status.RUNNING, started_at=job.started_at or now)
    return Change(with_task(job, moment, ref, _leased(started, moment, owner)))


def run_again(job: Job, moment: Moment, ref: TaskRef, owner: str) -> Change | None:
    """The run begins anew after a transient error; what failed may have left something in S3 all the same."""
    task = _task_of(job, ref, owner)
    if task is None:
        return None
    return Change(with_task(job, moment, ref, _leased(task.replace(runs=task.runs + 1), moment, owner)))


def renew_lease(job: Job, moment: Moment, ref: TaskRef, owner: str) -> Change | None:
    """The run goes on. None: it lost the export, or the task has ended, and must stop."""
    task = _task_of(job, ref, owner)
    return Change(with_task(job, moment, ref, _leased(task, moment, owner))) if task else None


def reserve(job: Job, moment: Moment, ref: TaskRef, owner: str, size: int) -> Change | None:
    """So many bytes count against the user's quota before they are stored. The very job: they do already."""
    task = _task_of(job, ref, owner)
    if task is None:
        return None
    if task.held_bytes == size:
        return Change(job)
    return Change(with_task(job, moment, ref, task.replace(reserved=size)))


def end_run(job: Job, moment: Moment, ref: TaskRef, owner: str, missing: list[int]) -> Change | None:
    """The run leaves an upload that an earlier attempt had planned to others, who move the parts it still lacks."""
    task = _task_of(job, ref, owner)
    if task is None or task.upload is None:
        return None
    upload_id = task.upload.upload_id
    events: list[TaskEvent] = [
        UploadPartCreated(task=ref, upload_id=upload_id, number=number) for number in missing
    ]
    events = events or [PartUpdated(task=ref, upload_id=upload_id)]
    return Change(with_task(job, moment, ref, _run_over(task, moment)), events)


def adopt_upload(job: Job, moment: Moment, ref: TaskRef, owner: str, upload: Upload) -> Change | None:
    """The upload of the run `owner` becomes the task's, unless another one already is (I3).

    A planned upload is moved by others from here on, all but part 1, which the probe has opened. A stream stays with
    its reader.
    """
    task = _task_of(job, ref, owner)
    if task is None or task.upload is not None:
        return None
    adopted = task.replace(upload=upload, progress=Progress())
    if upload.plan is None:
        return Change(with_task(job, moment, ref, _leased(adopted, moment, owner)))
    events = [
        UploadPartCreated(task=ref, upload_id=upload.upload_id, number=number)
        for number in range(2, upload.dispatched + 1)
    ]
    return Change(with_task(job, moment, ref, _run_over(adopted, moment)), events)


def begin_stream(job: Job, moment: Moment, ref: TaskRef, owner: str) -> Change | None:
    """The run `owner` reads the export as a stream; what an earlier reader uploaded is given up (I13).

    Unless that is planned: then its stream was read to its end, or the export turned out to be ranged.
    """
    task = _task_of(job, ref, owner)
    if task is None or (task.upload and task.upload.plan):
        return None
    stream = task.replace(upload=None, progress=Progress(), stream_only=True)
    return Change(with_task(job, moment, ref, _leased(stream, moment, owner)))


def end_stream(job: Job, moment: Moment, ref: TaskRef, owner: str, plan: Plan) -> Change | None:
    """The stream was read to its end: its size is known and its upload can be completed."""
    task = _task_of(job, ref, owner)
    if task is None or task.upload is None:
        return None
    ended = task.replace(upload=task.upload.replace(plan=plan, dispatched=plan.parts))
    event = PartUpdated(task=ref, upload_id=task.upload.upload_id)
    return Change(with_task(job, moment, ref, _run_over(ended, moment)), [event])


def stop_stream(job: Job, moment: Moment, ref: TaskRef, owner: str, read: StreamRead) -> Change | None:
    """The reader ran out of time. Another run begins at once; the second stop is one too many."""
    task = _task_of(job, ref, owner)
    if task is None:
        return None
    stops = task.stream_stops + 1
    rate = read.bytes / max(read.seconds, 0.001) / 1e6
    message = f"The stream was not over after {read.seconds:.0f} s: {read.bytes} bytes at {rate:.1f} MB/s."
    if stops >= moment.policy.max_stream_stops:
        return fail_task(job, moment, ref, Reason(code=Code.STREAM_TOO_LONG, message=message))
    stopped = with_task(job, moment, ref, task.replace(stream_stops=stops))
    noted = note_error(stopped, moment, ref, owner, Postponed(message, moment.now))
    return Change(noted.job, [UploadJobCreated(task=ref, redelivery=task.tries)]) if noted else None


def _task_of(job: Job, ref: TaskRef, owner: str) -> Task | None:
    """The task, if this run has its export open."""
    task = job.live_task(ref)
    return task if task and task.lease and task.lease.owner == owner else None


def _leased(task: Task, moment: Moment, owner: str) -> Task:
    """The run has the export open: if it dies, the sweep finds that when the lease is over."""
    policy = moment.policy
    lease = Lease(owner=owner, until=moment.in_seconds(policy.lease_seconds))
    stalls_at = max(moment.in_seconds(policy.stall_seconds), lease.until)
    return task.replace(lease=lease, stalls_at=stalls_at, next_check_at=lease.until)


def _run_over(task: Task, moment: Moment) -> Task:
    """The run is over and left work to others."""
    stalls_at = moment.in_seconds(moment.policy.stall_seconds)
    return task.replace(lease=None, stalls_at=stalls_at, stall_delay=0, next_check_at=stalls_at)
