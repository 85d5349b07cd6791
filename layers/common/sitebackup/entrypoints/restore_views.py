"""Restores as the API shows them."""

from datetime import datetime
from typing import Any

from ..domain.job import Status
from ..domain.restore import Restore, RestoreTask
from ..ports.repositories import ID_NAMES
from ..restore.rehearse_restore import ProviderRehearsal, Rehearsal
from .quota_views import over_quota_view
from .views import known, percent_of, reason_view, time_text


def restore_view(restore: Restore, now: datetime) -> dict[str, Any]:
    """JSON-ready, as it stands `now`; what is not known is left out, and URLs of uploads are never shown."""
    return known(
        {
            "restoreId": restore.id,
            "jobId": restore.job_id,
            "userId": restore.user_id,
            "siteId": restore.site_id,
            "sourceSiteId": restore.source_site_id,
            "status": restore.status,
            "reason": reason_view(restore.reason),
            "attempt": restore.attempt,
            "version": restore.version,
            "safetyBackup": restore.safety_backup,
            "safetyJobId": restore.safety_job_id,
            "progress": _progress(list(restore.tasks.values())),
            "tasks": {name: _task_view(task, now) for name, task in restore.tasks.items()},
            "createdAt": time_text(restore.created_at),
            "startedAt": time_text(restore.started_at),
            "updatedAt": time_text(restore.updated_at),
            "finishedAt": time_text(restore.finished_at),
            "deadlineAt": time_text(restore.deadline_at) if restore.is_active else None,
        }
    )


def rehearsal_view(rehearsal: Rehearsal) -> dict[str, Any]:
    """What a restore would do, and what stands in its way."""
    claim = rehearsal.claim
    return known(
        {
            "dryRun": True,
            "wouldStart": rehearsal.would_start,
            "jobId": rehearsal.job_id,
            "siteId": rehearsal.site_id,
            "safetyBackup": rehearsal.safety_backup,
            "active": {ID_NAMES[claim.kind]: claim.id, "status": claim.status} if claim else None,
            "overQuota": over_quota_view(rehearsal.over_quota) if rehearsal.over_quota else None,
            "providers": {name: _rehearsal_view(found) for name, found in rehearsal.providers.items()},
        }
    )


def _rehearsal_view(found: ProviderRehearsal) -> dict[str, Any]:
    return known(
        {
            "size": found.stored.size,
            "checksumCRC64NVME": found.stored.checksum_crc64nvme,
            "versionId": found.stored.version_id,
            "maxSize": found.max_size,
            "obstacles": found.obstacles,
        }
    )


def _task_view(task: RestoreTask, now: datetime) -> dict[str, Any]:
    error = task.last_error
    waits = task.next_try_at is not None and task.next_try_at > now
    return known(
        {
            "status": task.status,
            "reason": reason_view(task.reason),
            "progress": _progress([task]),
            "retries": error.count if error else None,
            "lastError": {"message": error.message, "at": time_text(error.at)} if error else None,
            "nextTryAt": time_text(task.next_try_at) if waits else None,
            "finishedAt": time_text(task.finished_at),
        }
    )


def _progress(tasks: list[RestoreTask]) -> dict[str, Any]:
    done, size = sum(task.bytes_done for task in tasks), sum(task.object.size for task in tasks)
    finished = all(task.status is Status.DONE for task in tasks)
    return known({"bytesDone": done, "bytesTotal": size, "percent": percent_of(done, size, finished)})
