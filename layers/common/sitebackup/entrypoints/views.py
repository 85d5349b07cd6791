"""Backups as the API shows them. `docs/openapi.json` is made of these types."""

from collections.abc import Collection
from datetime import UTC, datetime
from typing import Annotated, Literal, overload

import msgspec

from ..domain.drill import Drill, DrillState
from ..domain.job import RETRYABLE, DeleteCause, Job, LastError, Status, StoredObject, Task, TaskWarning
from ..domain.lock import LegalHold
from ..domain.model import Id, Model, ProviderName
from ..domain.reason import Reason

Time = Annotated[
    str,
    msgspec.Meta(description="RFC 3339, in UTC", extra_json_schema={"format": "date-time"}),
]
Bytes = Annotated[int, msgspec.Meta(ge=0, description="bytes")]
Crc64Nvme = Annotated[str, msgspec.Meta(description="base64 of the CRC64NVME of the whole object")]
Percent = Annotated[float, msgspec.Meta(ge=0, le=100, description="100 only once all is done and verified")]


class LastErrorView(Model, frozen=True, kw_only=True):
    """The last transient error of a task."""

    message: str
    at: Time


class ProgressView(Model, frozen=True, kw_only=True):
    """Totals appear once they are known."""

    bytes_done: Bytes
    bytes_total: Bytes | None = None
    parts_done: int | None = None
    parts_total: int | None = None
    percent: Percent | None = None


class ObjectView(Model, frozen=True, kw_only=True):
    """Where a backup is, and what to compare its bytes with."""

    bucket: str
    key: str
    size: Bytes
    checksum_crc64nvme: Crc64Nvme = msgspec.field(name="checksumCRC64NVME")
    version_id: str | None = None
    members: int | None = None


class DrillView(Model, frozen=True, kw_only=True):
    """What the last drill of an object found."""

    state: DrillState
    at: Time
    members: int
    member: str | None = None
    message: str | None = None


class DrillingView(Model, frozen=True, kw_only=True):
    """A drill that is under way."""

    bytes_done: Bytes


class TaskView(Model, frozen=True, kw_only=True):
    """One provider's part of a job."""

    status: Status
    reason: Reason | None = None
    warning: TaskWarning | None = None
    progress: ProgressView
    retries: int | None = None
    last_error: LastErrorView | None = None
    next_try_at: Time | None = None
    started_anew: bool | None = None
    finished_at: Time | None = None
    object: ObjectView | None = None
    drill: DrillView | None = None
    drilling: DrillingView | None = None


class JobView(Model, frozen=True, kw_only=True):
    """A backup of one site."""

    job_id: Id
    user_id: Id
    site_id: Id
    status: Status
    reason: Reason | None = None
    attempt: int
    version: int
    progress: ProgressView
    tasks: dict[ProviderName, TaskView]
    created_at: Time
    started_at: Time | None = None
    updated_at: Time
    finished_at: Time | None = None
    deadline_at: Time | None = None
    max_bytes: int | None = None
    expires_after_days: int | None = None
    delete_at: Time | None = None
    delete_cause: DeleteCause | None = None
    deleted_at: Time | None = None
    locked_until: Time | None = None
    legal_hold: Literal["setting", "on", "releasing"] | None = None
    safety_for: Id | None = None


class JobsView(Model, frozen=True, kw_only=True):
    """A page of jobs, newest first; `cursor` leads to the next one."""

    jobs: list[JobView]
    cursor: Id | None = None


def job_view(job: Job, now: datetime) -> JobView:
    """As it stands `now`; what is not known is left out."""
    gone = job.deleted_at is not None or (job.status in RETRYABLE and job.cleaning_at is not None)
    tasks = {name: _task_view(task, gone, now) for name, task in job.tasks.items()}
    return JobView(
        job_id=job.id,
        user_id=job.user_id,
        site_id=job.site_id,
        status=job.status,
        reason=job.reason,
        attempt=job.attempt,
        version=job.version,
        progress=_total([task.progress for task in tasks.values()]),
        tasks=tasks,
        created_at=time_text(job.created_at),
        started_at=time_text(job.started_at),
        updated_at=time_text(job.updated_at),
        finished_at=time_text(job.finished_at),
        deadline_at=time_text(job.deadline_at) if job.is_active else None,
        max_bytes=job.max_bytes,
        expires_after_days=job.expires_after_days,
        delete_at=time_text(job.delete_at),
        delete_cause=job.delete_cause,
        deleted_at=time_text(job.deleted_at),
        locked_until=time_text(job.lock.until) if job.lock else None,
        legal_hold=_legal_hold(job.legal_hold),
        safety_for=job.safety_for.restore_id if job.safety_for else None,
    )


def _legal_hold(hold: LegalHold | None) -> Literal["setting", "on", "releasing"] | None:
    if hold is None:
        return None
    if hold.on:
        return "on" if hold.settled else "setting"
    return "releasing"


def _task_view(task: Task, gone: bool, now: datetime) -> TaskView:
    waits = task.next_try_at is not None and task.next_try_at > now
    return TaskView(
        status=task.status,
        reason=task.reason,
        warning=task.warning,
        progress=_progress(task),
        retries=task.last_error.count if task.last_error else None,
        last_error=error_view(task.last_error),
        next_try_at=time_text(task.next_try_at) if waits else None,
        started_anew=task.started_anew or None,
        finished_at=time_text(task.finished_at),
        object=_object(task.object) if task.object and not gone else None,
        drill=_drill(task.drill) if task.drill else None,
        drilling=DrillingView(bytes_done=task.drilling.place.offset) if task.drilling and not gone else None,
    )


def _drill(drill: Drill) -> DrillView:
    return DrillView(
        state=drill.state,
        at=time_text(drill.at),
        members=drill.members,
        member=drill.member,
        message=drill.message,
    )


def _object(stored: StoredObject) -> ObjectView:
    return ObjectView(
        bucket=stored.bucket,
        key=stored.key,
        size=stored.size,
        checksum_crc64nvme=stored.checksum_crc64nvme,
        version_id=stored.version_id,
        members=stored.members,
    )


def _progress(task: Task) -> ProgressView:
    plan = task.upload.plan if task.upload else None
    return ProgressView(
        bytes_done=task.progress.bytes,
        bytes_total=task.size,
        parts_done=task.progress.parts,
        parts_total=task.progress.parts if task.status is Status.DONE else plan.parts if plan else None,
        percent=percent_of(task.progress.bytes, task.size, task.status is Status.DONE),
    )


def _total(tasks: Collection[ProgressView]) -> ProgressView:
    """Totals appear once every task knows its own."""
    size = _sum([task.bytes_total for task in tasks])
    done = sum(task.bytes_done for task in tasks)
    return ProgressView(
        bytes_done=done,
        bytes_total=size,
        parts_done=_sum([task.parts_done for task in tasks]),
        parts_total=_sum([task.parts_total for task in tasks]),
        percent=percent_of(done, size, all(task.percent == 100 for task in tasks)),
    )


def _sum(numbers: Collection[int | None]) -> int | None:
    """None if one is not known."""
    known = [number for number in numbers if number is not None]
    return sum(known) if len(known) == len(numbers) else None


def percent_of(done: int, total: int | None, finished: bool) -> float | None:
    """100 only once it is finished: the last byte moved is not yet verified."""
    if finished:
        return 100
    return min(round(done * 100 / total, 1), 99.9) if total else None


def error_view(error: LastError | None) -> LastErrorView | None:
    """Of a transient error."""
    return LastErrorView(message=error.message, at=time_text(error.at)) if error else None


@overload
def time_text(moment: datetime) -> str: ...
@overload
def time_text(moment: datetime | None) -> str | None: ...
def time_text(moment: datetime | None) -> str | None:
    """RFC 3339, UTC, milliseconds."""
    if moment is None:
        return None
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
