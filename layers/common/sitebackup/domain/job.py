"""A job, its tasks, and what each of them remembers."""

from datetime import datetime
from enum import StrEnum
from typing import Literal

import msgspec

from .model import Id, Model, ProviderName
from .plan import Plan
from .progress import Progress
from .reason import Reason


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


class Upload(Model, frozen=True, kw_only=True):
    """A task's multipart upload and what is put into it."""

    upload_id: str
    plan: Plan | None = None
    """None while a stream has not told its size."""
    attempt: int
    released: int = 0
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
    """Of the zip; None if the provider's format is `any`."""


class Trouble(Model, frozen=True, kw_only=True):
    """The last transient error of a task."""

    message: str
    at: datetime
    count: int


class Lease(Model, frozen=True, kw_only=True):
    """Who reads a stream, and until when nobody else may."""

    owner: str
    until: datetime


class Task(Model, frozen=True, kw_only=True):
    """One provider's part of a job."""

    status: Status = Status.PENDING
    reason: Reason | None = None
    upload: Upload | None = None
    progress: Progress = Progress()
    object: StoredObject | None = None
    runs: int = 0
    """How often its export was opened to be planned; more than one may have left something at its key."""
    tried: int = 0
    """The highest re-drive that was begun without progress since."""
    trouble: Trouble | None = None
    next_try_at: datetime | None = None
    stream_only: bool = False
    stream_stops: int = 0
    lease: Lease | None = None
    started_anew: bool = False
    """The export had changed since the attempt before, so nothing of that was kept."""
    finished_at: datetime | None = None

    @property
    def size(self) -> int | None:
        """Bytes of the export, once known."""
        if self.object:
            return self.object.size
        return self.upload.plan.size if self.upload and self.upload.plan else None


class Job(Model, frozen=True, kw_only=True):
    """One backup of one site: one document."""

    id: Id = msgspec.field(name="_id")
    user_id: Id
    site_id: Id
    status: Status
    version: int
    attempt: int = 1
    reason: Reason | None = None
    active: Literal[True] | None = None
    """Present while the job is the site's active one: the unique index is on it (I10)."""
    tasks: dict[ProviderName, Task]
    created_at: datetime
    updated_at: datetime
    deadline_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    next_drive_at: datetime | None = None
    """When the sweep looks at the job next; None: never again."""
    drive_delay: int = 0
    """Seconds the last stall was given; doubles with each drive, 0 after progress."""
    upload_released_at: datetime | None = None
    """What its failed attempt left in S3 is being removed, or was: a retry starts anew (I9)."""
    cleared_at: datetime | None = None
    """Nothing of the failed attempt is left in S3."""
    delete_at: datetime | None = None
    """Marked: from then on the grace period runs, after it the data goes."""
    delete_cause: DeleteCause | None = None
    removing_at: datetime | None = None
    """The data is being removed: too late to undelete."""
    deleted_at: datetime | None = None
    """The data is gone."""
    max_bytes: int | None = None
    expires_after_days: int | None = None
    idempotency_key: str | None = None

    def live_task(self, attempt: int, provider: str) -> Task | None:
        """The task, if events of that attempt still concern it."""
        task = self.tasks.get(provider)
        if self.attempt == attempt and self.status in UNFINISHED and task and task.status in UNFINISHED:
            return task
        return None

    def live_upload(self, attempt: int, provider: str, upload_id: str) -> tuple[Task, Upload] | None:
        """The task and its upload, if what concerns that upload still concerns the task."""
        task = self.live_task(attempt, provider)
        if task is None or task.upload is None or task.upload.upload_id != upload_id:
            return None
        return task, task.upload

    def key(self, provider: str) -> str:
        """Where the task's object is stored; no key is another's prefix."""
        return f"{self.user_id}/{self.site_id}/{self.id}/{provider}.zip"
