"""A job as the API shows it."""

from datetime import UTC, datetime
from typing import Any

from ..domain.download import Download
from ..domain.job import RETRYABLE, Job, Status, StoredObject, Task
from ..domain.reason import Reason
from ..domain.retention import Decision
from ..domain.schedule import Schedule


def job_view(job: Job, now: datetime) -> dict[str, Any]:
    """JSON-ready, in camelCase, as it stands `now`; what is not known is left out."""
    gone = job.deleted_at is not None or (job.status in RETRYABLE and job.cleaning_at is not None)
    tasks = {name: _task_view(task, gone, now) for name, task in job.tasks.items()}
    return _known(
        {
            "jobId": job.id,
            "userId": job.user_id,
            "siteId": job.site_id,
            "status": job.status,
            "reason": _reason(job.reason),
            "attempt": job.attempt,
            "version": job.version,
            "progress": _total([task["progress"] for task in tasks.values()]),
            "tasks": tasks,
            "createdAt": _time(job.created_at),
            "startedAt": _time(job.started_at),
            "updatedAt": _time(job.updated_at),
            "finishedAt": _time(job.finished_at),
            "deadlineAt": _time(job.deadline_at) if job.is_active else None,
            "maxBytes": job.max_bytes,
            "expiresAfterDays": job.expires_after_days,
            "deleteAt": _time(job.delete_at),
            "deleteCause": job.delete_cause,
            "deletedAt": _time(job.deleted_at),
        }
    )


def schedule_view(schedule: Schedule, next_runs: list[datetime]) -> dict[str, Any]:
    """JSON-ready, with a preview of the next runs."""
    return _known(
        {
            "siteId": schedule.site_id,
            "userId": schedule.user_id,
            "cron": schedule.cron,
            "timeZone": schedule.time_zone,
            "expiresAfterDays": schedule.expires_after_days,
            "providers": schedule.providers,
            "paused": schedule.paused,
            "nextRuns": [_time(run) for run in next_runs],
            "lastTick": _time(schedule.last_tick),
            "lastJobId": schedule.last_job_id,
            "lastError": schedule.last_error,
            "createdAt": _time(schedule.created_at),
            "updatedAt": _time(schedule.updated_at),
        }
    )


def download_view(download: Download) -> dict[str, Any]:
    """JSON-ready, with the link."""
    return _known(
        {
            "url": download.link.url,
            "expiresAt": _time(download.link.expires_at),
            "fileName": download.file_name,
            "size": download.stored.size,
            "checksumCRC64NVME": download.stored.checksum_crc64nvme,
            "versionId": download.stored.version_id,
        }
    )


def decision_view(job: Job, decision: Decision) -> dict[str, Any]:
    """What retention would do with a job now, and why."""
    return _known(
        {
            "jobId": job.id,
            "status": job.status,
            "finishedAt": _time(job.finished_at),
            "action": decision.action,
            "reason": decision.reason,
            "until": _time(decision.until),
        }
    )


def _task_view(task: Task, gone: bool, now: datetime) -> dict[str, Any]:
    error = task.last_error
    waits = task.next_try_at is not None and task.next_try_at > now
    return _known(
        {
            "status": task.status,
            "reason": _reason(task.reason),
            "progress": _progress(task),
            "retries": error.count if error else None,
            "lastError": {"message": error.message, "at": _time(error.at)} if error else None,
            "nextTryAt": _time(task.next_try_at) if waits else None,
            "startedAnew": task.started_anew or None,
            "finishedAt": _time(task.finished_at),
            "object": _object(task.object) if task.object and not gone else None,
        }
    )


def _object(stored: StoredObject) -> dict[str, Any]:
    return _known(
        {
            "bucket": stored.bucket,
            "key": stored.key,
            "size": stored.size,
            "checksumCRC64NVME": stored.checksum_crc64nvme,
            "versionId": stored.version_id,
            "members": stored.members,
        }
    )


def _progress(task: Task) -> dict[str, Any]:
    plan = task.upload.plan if task.upload else None
    parts_total = task.progress.parts if task.status is Status.DONE else plan.parts if plan else None
    return _known(
        {
            "bytesDone": task.progress.bytes,
            "bytesTotal": task.size,
            "partsDone": task.progress.parts,
            "partsTotal": parts_total,
            "percent": _percent(task.progress.bytes, task.size, task.status is Status.DONE),
        }
    )


def _total(tasks: list[dict[str, Any]]) -> dict[str, Any]:
    """Totals appear once every task knows its own."""

    def total(field: str) -> int | None:
        known = [task[field] for task in tasks if field in task]
        return sum(known) if len(known) == len(tasks) else None

    size = total("bytesTotal")
    done = total("bytesDone") or 0
    finished = all(task.get("percent") == 100 for task in tasks)
    return _known(
        {
            "bytesDone": done,
            "bytesTotal": size,
            "partsDone": total("partsDone"),
            "partsTotal": total("partsTotal"),
            "percent": _percent(done, size, finished),
        }
    )


def _percent(done: int, total: int | None, finished: bool) -> float | None:
    """100 only once it is finished: the last byte moved is not yet verified."""
    if finished:
        return 100
    return min(round(done * 100 / total, 1), 99.9) if total else None


def _reason(reason: Reason | None) -> dict[str, Any] | None:
    return {"code": reason.code, "message": reason.message} if reason else None


def _time(moment: datetime | None) -> str | None:
    """RFC 3339, UTC, milliseconds."""
    if moment is None:
        return None
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _known(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
