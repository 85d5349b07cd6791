"""A job, its tasks, and what each of them remembers."""

from datetime import datetime
from enum import StrEnum
from typing import ClassVar, Literal, NamedTuple, Self

import msgspec

from .drill import Drill, Drilling, DrillState
from .lock import LegalHold, Lock
from .model import Id, Model, ProviderName
from .plan import Plan
from .progress import Progress
from .reason import Reason
from .task_ref import RestoreRef, TaskRef


class Status(StrEnum):
    """Of a job or a task."""

    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    DELETED = "deleted"


UNFINISHED = frozenset({Status.PENDING, Status.RUNNING})
RETRYABLE = frozenset({Status.FAILED, Status.CANCELLED})
FINISHED = frozenset({Status.DONE, Status.FAILED, Status.CANCELLED})
"""Final, and its data not gone."""


class DeleteCause(StrEnum):
    """Why a job is marked for deletion."""

    REQUESTED = "requested"
    EXPIRED = "expired"


class Part(Model, frozen=True, kw_only=True):
    """A part that is done: moved, and its checksum confirmed by S3."""

    number: int
    length: int
    etag: str
    crc64nvme: str
    """base64 of the big-endian CRC, as S3 writes it."""


class PartWait(Model, frozen=True, kw_only=True):
    """What is remembered of a part that is not done."""

    attempt: int = 0
    """The tries below are of this attempt."""
    tries: int = 0
    """The highest try that was begun."""
    next_try_at: datetime | None = None
    """It waits until then after a transient error; None: it is under way, or lost."""


class Upload(Model, frozen=True, kw_only=True):
    """A task's multipart upload and what is put into it."""

    upload_id: str
    plan: Plan | None = None
    """None while a stream has not told its size."""
    attempt: int
    dispatched: int = 0
    """Parts up to this number have been handed out."""
    window: int = 64
    """At most so many parts are handed out and not done."""


class StoredObject(Model, frozen=True, kw_only=True):
    """A verified object in S3."""

    bucket: str
    key: str
    size: int
    checksum_crc64nvme: str = msgspec.field(name="checksumCRC64NVME")
    version_id: str | None = None
    members: int | None = None
    """Of the zip; None if the format is `any`, or the end record does not tell it for sure."""
    format: Literal["zip", "any"] = "zip"
    """What its provider was said to send."""
    parts: int = 1
    """Of the upload that made it."""
    validator: str | None = None
    """The ETag under which a ranged export was read."""


class FoundVersion(NamedTuple):
    """A version as a listing of the bucket shows it, which tells no checksum."""

    key: str
    version_id: str
    size: int
    is_marker: bool
    """A delete marker, which has no bytes."""
    is_latest: bool
    """Whoever names no version is answered with this one."""
    stored_at: datetime
    """By S3's clock, in seconds."""


class LastError(Model, frozen=True, kw_only=True):
    """The last transient error of a task."""

    message: str
    at: datetime
    count: int


class TaskWarning(Model, frozen=True, kw_only=True):
    """What somebody should look at although the task is done."""

    code: Literal["shrunk"]
    """Part of the API, so only ever added to."""
    message: str


class Lease(Model, frozen=True, kw_only=True):
    """Which run has the export open, and until when no other may open it."""

    owner: str
    until: datetime


class Task(Model, frozen=True, kw_only=True):
    """One provider's part of a job."""

    status: Status = Status.PENDING
    reason: Reason | None = None
    warning: TaskWarning | None = None
    """Stored in the write that makes the job done: who tells of it later finds it there."""
    upload: Upload | None = None
    progress: Progress = Progress()
    object: StoredObject | None = None
    reserved: int = 0
    """Bytes that count against its user's quota before its size stands in an upload's plan or an object."""
    runs: int = 0
    """How often its export was opened to be planned; more than one may have left something at its key."""
    tries: int = 0
    """The highest try of a run or of a completion that was begun without progress since."""
    losses: int = 0
    """How often S3 lost the upload or parts of it in this attempt; progress does not set it back."""
    last_error: LastError | None = None
    next_try_at: datetime | None = None
    """The task, or one of its parts, waits until then after a transient error."""
    stalls_at: datetime | None = None
    """Without progress until then, all that is missing is sent again. Only an unfinished task has one."""
    stall_delay: int = 0
    """Seconds the last stall was given; doubles with each stall, 0 after progress."""
    next_check_at: datetime | None = None
    """When the sweep looks at it next, at `stalls_at` at last. Once parts are out only the sweep puts it off."""
    stream_only: bool = False
    stream_stops: int = 0
    lease: Lease | None = None
    started_anew: bool = False
    """The export had changed since the attempt before, so nothing of that was kept."""
    finished_at: datetime | None = None
    drill: Drill | None = None
    """What the last drill of its object found."""
    drilling: Drilling | None = None
    """A drill that is under way."""

    @property
    def is_damaged(self) -> bool:
        """Whether a drill found that its object can't be opened."""
        return self.drill is not None and self.drill.state is DrillState.DAMAGED

    @property
    def is_suspected(self) -> bool:
        """Whether a drill that is under way has found damage once."""
        return self.drilling is not None and self.drilling.suspicion is not None

    @property
    def handed_out(self) -> range:
        """The parts of its upload that were handed out and are not done for sure."""
        return range(self.progress.watermark + 1, (self.upload.dispatched if self.upload else 0) + 1)

    @property
    def size(self) -> int | None:
        """Bytes of the export, once known."""
        if self.object:
            return self.object.size
        return self.upload.plan.size if self.upload and self.upload.plan else None

    @property
    def held_bytes(self) -> int:
        """What it counts for against its user's quota."""
        return self.reserved if self.size is None else self.size


class Job(Model, frozen=True, kw_only=True):
    """One backup of one site: one document."""

    kind: ClassVar[Literal["backup"]] = "backup"
    id: Id
    user_id: Id
    site_id: Id
    status: Status
    version: int
    attempt: int = 1
    reason: Reason | None = None
    tasks: dict[ProviderName, Task]
    created_at: datetime
    updated_at: datetime
    deadline_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    sealed_at: datetime | None = None
    """All tasks are done: from then on the job can't end otherwise (I16)."""
    lock: Lock | None = None
    """Until when S3 lets nobody remove its versions; None: they are not locked."""
    legal_hold: LegalHold | None = None
    finish_check_at: datetime | None = None
    """When the sweep looks whether a sealed job was finished."""
    next_check_at: datetime | None = None
    """When the sweep looks at the job next. `with_next_check` derives it when the job is stored."""
    clean_up_at: datetime | None = None
    """When a final job is looked at next, to expire it or to remove what it left; None: never again."""
    cleaning_at: datetime | None = None
    """What its failed attempt left in S3 is being removed, or was: a retry starts anew (I9)."""
    cleaned_at: datetime | None = None
    """Nothing of the failed attempt is left in S3."""
    delete_at: datetime | None = None
    """Marked: from then on the grace period runs, after it the data goes."""
    delete_cause: DeleteCause | None = None
    removing_at: datetime | None = None
    """The data is being removed: too late to undelete."""
    deleted_at: datetime | None = None
    """The data is gone."""
    pins: dict[str, datetime] = msgspec.field(default_factory=dict)
    """By owner, until when its data must not be removed (I19)."""
    damaged: bool = False
    """A drill found that an object of it can't be opened: for queries that name no provider."""
    safety_for: RestoreRef | None = None
    """The restore before which it was made, and under whose claim of the site it runs (I10)."""
    slot: str | None = None
    """Of its user's active jobs, if their number is limited: taken and freed by the writes that begin and end it."""
    byte_limit: int | None = None
    """Bytes that all backups of its user may have, as it was when the attempt began; None: any number."""
    max_bytes: int | None = None
    expires_after_days: int | None = None
    idempotency_key: str | None = None
    request_digest: str | None = None
    """Of what was asked under the idempotency key: the job itself and `Providers` change, a repeat of it does not."""

    @property
    def earliest_check(self) -> datetime | None:
        """The earliest of its unfinished tasks' checks and the deadline; once sealed, its finish's check (I8).

        Once it is done, the earliest check of the drills that are under way, until its removal begins.
        """
        if self.status is Status.DONE and self.removing_at is None:
            drills = [task.drilling.next_check_at for task in self.tasks.values() if task.drilling]
            return min(drills, default=None)
        if not self.is_active:
            return None
        if self.sealed_at is not None:
            return self.finish_check_at
        checks = [task.next_check_at for task in self.tasks.values() if task.status in UNFINISHED]
        return min([self.deadline_at, *(check for check in checks if check)])

    @property
    def is_active(self) -> bool:
        """Whether it goes on."""
        return self.status in UNFINISHED

    @property
    def sites(self) -> tuple[str, ...]:
        """Those that it concerns: who may not reach all of them does not see it (I21)."""
        return (self.site_id,)

    @property
    def held_bytes(self) -> int:
        """What it counts for against its user's quota: verified objects, and what its running tasks have reserved.

        What a failed or cancelled attempt left does not count, nor does a safety backup.
        """
        if self.safety_for is not None or self.status not in UNFINISHED | {Status.DONE}:
            return 0
        return sum(task.held_bytes for task in self.tasks.values())

    @property
    def claims_site(self) -> bool:
        """Whether no other backup or restore of the site may be active beside it (I10)."""
        return self.is_active and self.safety_for is None

    def with_next_check(self) -> Self:
        """As it is stored: what the sweep's index is on is derived from the rest (I8)."""
        return self.replace(next_check_at=self.earliest_check)

    def awaits_finish(self, attempt: int) -> bool:
        """Whether all tasks of this attempt are done, and the job is not yet."""
        return self.attempt == attempt and self.is_active and self.sealed_at is not None

    @property
    def manifest_key(self) -> str:
        """Where the job's manifest is stored; no name of a provider has a dot."""
        return f"{self.user_id}/{self.site_id}/{self.id}/manifest.json"

    @property
    def is_held(self) -> bool:
        """Whether a legal hold was asked for, and not released."""
        return self.legal_hold is not None and self.legal_hold.on

    def ref(self, provider: str) -> TaskRef:
        """The task of the attempt that the job is in."""
        return TaskRef(job_id=self.id, attempt=self.attempt, provider=provider)

    def live_task(self, ref: TaskRef) -> Task | None:
        """The task, if what concerns `ref` still concerns it."""
        task = self.tasks.get(ref.provider)
        if self.attempt == ref.attempt and self.is_active and task and task.status in UNFINISHED:
            return task
        return None

    def live_upload(self, ref: TaskRef, upload_id: str) -> tuple[Task, Upload] | None:
        """The task and its upload, if what concerns that upload still concerns the task."""
        task = self.live_task(ref)
        if task is None or task.upload is None or task.upload.upload_id != upload_id:
            return None
        return task, task.upload

    def live_drill(self, ref: TaskRef, owner: str | None = None) -> tuple[Task, Drilling] | None:
        """The task and its drill, if that is under way and, given an owner, in its hands."""
        task = self.tasks.get(ref.provider)
        if self.status is not Status.DONE or self.removing_at is not None or task is None:
            return None
        if task.drilling is None or owner not in (None, task.drilling.owner):
            return None
        return task, task.drilling

    def key(self, provider: str) -> str:
        """Where the task's object is stored; no key is another's prefix."""
        return f"{self.user_id}/{self.site_id}/{self.id}/{provider}.zip"
