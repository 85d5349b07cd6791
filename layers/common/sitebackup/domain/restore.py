"""A restore, its tasks, and how far each has come: giving a backup's objects back to the providers' import APIs."""

from datetime import datetime
from enum import StrEnum
from typing import ClassVar, Literal, Self

from .checksum import CRC_OF_NOTHING
from .job import UNFINISHED, LastError, Lease, Status, StoredObject
from .model import Id, Model, ProviderName
from .reason import Reason
from .task_ref import RestoreRef, RestoreTaskRef


class RestoreStatus(StrEnum):
    """Of a restore; its tasks have those of a job's."""

    PENDING = "pending"
    BACKING_UP = "backing_up"
    """The safety backup is under way; nothing was sent to any provider."""
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


ACTIVE = frozenset({RestoreStatus.PENDING, RestoreStatus.BACKING_UP, RestoreStatus.RUNNING})
RETRYABLE = frozenset({RestoreStatus.FAILED, RestoreStatus.CANCELLED})


class Import(Model, frozen=True, kw_only=True):
    """An upload to the provider's import API."""

    url: str
    """Secret like a token: it stands in no view and no log."""
    offset: int = 0
    """So many bytes have arrived: the provider said so."""
    crc64nvme: str = CRC_OF_NOTHING
    """Of these bytes."""
    sent_to: int = 0
    """No byte from here on was ever sent: stored before each slice is."""


class RestoreTask(Model, frozen=True, kw_only=True):
    """One provider's part of a restore."""

    status: Status = Status.PENDING
    reason: Reason | None = None
    object: StoredObject
    """What is given back."""
    upload: Import | None = None
    tries: int = 0
    """The highest try that was begun without progress since."""
    losses: int = 0
    """How often the provider lost the upload in this attempt; progress does not set it back."""
    last_error: LastError | None = None
    next_try_at: datetime | None = None
    """It waits until then, after a transient error or for the provider to import what it has."""
    next_check_at: datetime | None = None
    """When the sweep looks at it. Only an unfinished task of a running restore has one."""
    stall_delay: int = 0
    """Seconds until the check that follows the last event; doubles each time, 0 after progress."""
    lease: Lease | None = None
    finished_at: datetime | None = None

    @property
    def is_committed(self) -> bool:
        """Whether the last byte may have been sent: from then on the provider may import, and nobody can stop it."""
        return self.upload is not None and self.upload.sent_to >= self.object.size

    @property
    def bytes_done(self) -> int:
        """So many bytes have arrived."""
        return self.upload.offset if self.upload else 0


class Restore(Model, frozen=True, kw_only=True):
    """One restore of one site: one document, of the same collection and under the same claim as backups (I10)."""

    kind: ClassVar[Literal["restore"]] = "restore"
    id: Id
    user_id: Id
    site_id: Id
    """The site that is restored."""
    job_id: Id
    """The backup that is given back."""
    source_site_id: Id
    """The site of that backup."""
    status: RestoreStatus
    version: int
    attempt: int = 1
    reason: Reason | None = None
    tasks: dict[ProviderName, RestoreTask]
    safety_backup: bool
    """Whether the site is backed up first."""
    safety_job_id: Id | None = None
    """That backup; its id is chosen before it is made, so that it is made once."""
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None = None
    """When it began to send."""
    deadline_at: datetime | None = None
    """When it must be over, once it has begun to send."""
    finished_at: datetime | None = None
    is_pinning: bool = False
    """Whether the backup may be pinned for it (I19)."""
    step_at: datetime | None = None
    """When the sweep takes its next step: pin, back up, begin, or take the pin out."""
    next_check_at: datetime | None = None
    """When the sweep looks at it next. `with_next_check` derives it when the restore is stored."""
    forget_at: datetime | None = None
    """When its record goes."""
    slot: str | None = None
    """Of its user's restores of the day it was created, if their number is limited."""
    idempotency_key: str | None = None
    request_digest: str | None = None
    """Of what was asked under the idempotency key."""

    @property
    def is_active(self) -> bool:
        """Whether it goes on."""
        return self.status in ACTIVE

    @property
    def sites(self) -> tuple[str, ...]:
        """Those that it concerns: who may not reach all of them does not see it (I21)."""
        return (self.site_id, self.source_site_id)

    @property
    def claims_site(self) -> bool:
        """Whether no backup or other restore of the site may be active beside it (I10)."""
        return self.is_active

    @property
    def earliest_check(self) -> datetime | None:
        """Its own next step; while it runs, the earliest of its unfinished tasks' checks and its deadline (I8)."""
        checks = [self.step_at]
        if self.status is RestoreStatus.RUNNING:
            checks.append(self.deadline_at)
            checks += [task.next_check_at for task in self.tasks.values() if task.status in UNFINISHED]
        return min((check for check in checks if check), default=None)

    def with_next_check(self) -> Self:
        """As it is stored: what the sweep's index is on is derived from the rest (I8)."""
        return self.replace(next_check_at=self.earliest_check)

    @property
    def pin_owner(self) -> str:
        """Under this name the backup is pinned: each attempt has its own, so that none takes out another's."""
        return f"restore:{self.id}:{self.attempt}"

    @property
    def ref(self) -> RestoreRef:
        """The attempt that it is in."""
        return RestoreRef(restore_id=self.id, attempt=self.attempt)

    def live_task(self, ref: RestoreTaskRef) -> RestoreTask | None:
        """The task, if what concerns `ref` still concerns it."""
        task = self.tasks.get(ref.provider)
        if self.attempt == ref.attempt and self.status is RestoreStatus.RUNNING and task:
            return task if task.status in UNFINISHED else None
        return None
