"""Restores as the API shows them."""

from collections.abc import Collection
from datetime import datetime
from typing import Literal

import msgspec

from ..domain.job import Status
from ..domain.model import Id, Model, ProviderName
from ..domain.reason import Reason
from ..domain.restore import Restore, RestoreStatus, RestoreTask
from ..ports.repositories import SiteClaim
from ..restore.rehearse_restore import ProviderRehearsal, Rehearsal
from .quota_views import OverQuotaView, over_quota_view
from .views import Bytes, Crc64Nvme, LastErrorView, Percent, Time, error_view, percent_of, time_text


class RestoreProgressView(Model, frozen=True, kw_only=True):
    """How much the providers have confirmed."""

    bytes_done: Bytes
    bytes_total: Bytes
    percent: Percent | None = None


class RestoreTaskView(Model, frozen=True, kw_only=True):
    """One provider's part of a restore."""

    status: Status
    reason: Reason | None = None
    progress: RestoreProgressView
    retries: int | None = None
    last_error: LastErrorView | None = None
    next_try_at: Time | None = None
    finished_at: Time | None = None


class RestoreView(Model, frozen=True, kw_only=True):
    """One restore of one site."""

    restore_id: Id
    job_id: Id
    user_id: Id
    site_id: Id
    source_site_id: Id
    status: RestoreStatus
    reason: Reason | None = None
    attempt: int
    version: int
    safety_backup: bool
    safety_job_id: Id | None = None
    progress: RestoreProgressView
    tasks: dict[ProviderName, RestoreTaskView]
    created_at: Time
    started_at: Time | None = None
    updated_at: Time
    finished_at: Time | None = None
    deadline_at: Time | None = None


class RestoresView(Model, frozen=True, kw_only=True):
    """A page of restores, newest first; `cursor` leads to the next one."""

    restores: list[RestoreView]
    cursor: Id | None = None


class ActiveView(Model, frozen=True, kw_only=True):
    """What runs on a site, so that a restore would be refused."""

    job_id: Id | None = None
    restore_id: Id | None = None
    status: str


class ProviderRehearsalView(Model, frozen=True, kw_only=True):
    """What was found about one provider; without `obstacles` it would be restored."""

    size: Bytes
    checksum_crc64nvme: Crc64Nvme = msgspec.field(name="checksumCRC64NVME")
    version_id: str | None = None
    max_size: Bytes | None = None
    obstacles: list[str]


class RehearsalView(Model, frozen=True, kw_only=True):
    """What a restore would do, and what stands in its way."""

    dry_run: Literal[True]
    would_start: bool
    job_id: Id
    site_id: Id
    safety_backup: bool
    active: ActiveView | None = None
    over_quota: OverQuotaView | None = None
    providers: dict[ProviderName, ProviderRehearsalView]


def restore_view(restore: Restore, now: datetime) -> RestoreView:
    """As it stands `now`; what is not known is left out, and URLs of uploads are never shown."""
    return RestoreView(
        restore_id=restore.id,
        job_id=restore.job_id,
        user_id=restore.user_id,
        site_id=restore.site_id,
        source_site_id=restore.source_site_id,
        status=restore.status,
        reason=restore.reason,
        attempt=restore.attempt,
        version=restore.version,
        safety_backup=restore.safety_backup,
        safety_job_id=restore.safety_job_id,
        progress=_progress(restore.tasks.values()),
        tasks={name: _task_view(task, now) for name, task in restore.tasks.items()},
        created_at=time_text(restore.created_at),
        started_at=time_text(restore.started_at),
        updated_at=time_text(restore.updated_at),
        finished_at=time_text(restore.finished_at),
        deadline_at=time_text(restore.deadline_at) if restore.is_active else None,
    )


def rehearsal_view(rehearsal: Rehearsal) -> RehearsalView:
    """What a restore would do, and what stands in its way."""
    return RehearsalView(
        dry_run=True,
        would_start=rehearsal.would_start,
        job_id=rehearsal.job_id,
        site_id=rehearsal.site_id,
        safety_backup=rehearsal.safety_backup,
        active=_active(rehearsal.claim) if rehearsal.claim else None,
        over_quota=over_quota_view(rehearsal.over_quota) if rehearsal.over_quota else None,
        providers={name: _rehearsal_view(found) for name, found in rehearsal.providers.items()},
    )


def _active(claim: SiteClaim) -> ActiveView:
    return ActiveView(
        job_id=claim.id if claim.kind == "backup" else None,
        restore_id=claim.id if claim.kind == "restore" else None,
        status=claim.status,
    )


def _rehearsal_view(found: ProviderRehearsal) -> ProviderRehearsalView:
    return ProviderRehearsalView(
        size=found.stored.size,
        checksum_crc64nvme=found.stored.checksum_crc64nvme,
        version_id=found.stored.version_id,
        max_size=found.max_size,
        obstacles=found.obstacles,
    )


def _task_view(task: RestoreTask, now: datetime) -> RestoreTaskView:
    waits = task.next_try_at is not None and task.next_try_at > now
    return RestoreTaskView(
        status=task.status,
        reason=task.reason,
        progress=_progress([task]),
        retries=task.last_error.count if task.last_error else None,
        last_error=error_view(task.last_error),
        next_try_at=time_text(task.next_try_at) if waits else None,
        finished_at=time_text(task.finished_at),
    )


def _progress(tasks: Collection[RestoreTask]) -> RestoreProgressView:
    done, size = sum(task.bytes_done for task in tasks), sum(task.object.size for task in tasks)
    finished = all(task.status is Status.DONE for task in tasks)
    return RestoreProgressView(bytes_done=done, bytes_total=size, percent=percent_of(done, size, finished))
