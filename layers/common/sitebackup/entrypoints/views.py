"""A job as the API shows it."""

from datetime import UTC, datetime
from typing import Any

from ..domain.download import Download
from ..domain.drill import Drill
from ..domain.job import RETRYABLE, Job, Status, StoredObject, Task, TaskWarning
from ..domain.lock import LegalHold
from ..domain.reason import Reason
from ..domain.retention import Decision
from ..domain.schedule import Schedule


def job_view(job: Job, now: datetime) -> dict[str, Any]:
    """JSON-ready, in camelCase, as it stands `now`; what is not known is left out."""
    gone = job.deleted_at is not None or (job.status in RETRYABLE and job.cleaning_at is not None)
    tasks = {name: _task_view(task, gone, now) for name, task in job.tasks.items()}
    return known(
        {
            "jobId": job.id,
            "userId": job.user_id,
            "siteId": job.site_id,
            "status": job.status,
            "reason": reason_view(job.reason),
            "attempt": job.attempt,
            "version": job.version,
            "progress": _total([task["progress"] for task in tasks.values()]),
            "tasks": tasks,
            "createdAt": time_text(job.created_at),
            "startedAt": time_text(job.started_at),
            "updatedAt": time_text(job.updated_at),
            "finishedAt": time_text(job.finished_at),
            "deadlineAt": time_text(job.deadline_at) if job.is_active else None,
            "maxBytes": job.max_bytes,
            "expiresAfterDays": job.expires_after_days,
            "deleteAt": time_text(job.delete_at),
            "deleteCause": job.delete_cause,
            "deletedAt": time_text(job.deleted_at),
            "lockedUntil": time_text(job.lock.until) if job.lock else None,
            "legalHold": _legal_hold(job.legal_hold),
            "safetyFor": job.safety_for.restore_id if job.safety_for else None,
        }
    )


def schedule_view(schedule: Schedule, next_runs: list[datetime]) -> dict[str, Any]:
    """JSON-ready, with a preview of the next runs."""
    return known(
        {
            "siteId": schedule.site_id,
            "userId": schedule.user_id,
            "cron": schedule.cron,
            "timeZone": schedule.time_zone,
            "expiresAfterDays": schedule.expires_after_days,
            "providers": schedule.providers,
            "paused": schedule.paused,
            "nextRuns": [time_text(run) for run in next_runs],
            "lastTick": time_text(schedule.last_tick),
            "lastJobId": schedule.last_job_id,
            "lastError": schedule.last_error,
            "createdAt": time_text(schedule.created_at),
            "updatedAt": time_text(schedule.updated_at),
        }
    )


def download_view(download: Download) -> dict[str, Any]:
    """JSON-ready, with the link."""
    return known(
        {
            "url": download.link.url,
            "expiresAt": time_text(download.link.expires_at),
            "fileName": download.file_name,
            "size": download.stored.size,
            "checksumCRC64NVME": download.stored.checksum_crc64nvme,
            "versionId": download.stored.version_id,
        }
    )


def decision_view(job: Job, decision: Decision) -> dict[str, Any]:
    """What retention would do with a job now, and why."""
    return known(
        {
            "jobId": job.id,
            "status": job.status,
            "finishedAt": time_text(job.finished_at),
            "action": decision.action,
            "reason": decision.reason,
            "until": time_text(decision.until),
        }
    )


def _legal_hold(hold: LegalHold | None) -> str | None:
    if hold is None:
        return None
    if hold.on:
        return "on" if hold.settled else "setting"
    return "releasing"


def _task_view(task: Task, gone: bool, now: datetime) -> dict[str, Any]:
    error = task.last_error
    waits = task.next_try_at is not None and task.next_try_at > now
    return known(
        {
            "status": task.status,
            "reason": reason_view(task.reason),
            "warning": reason_view(task.warning),
            "progress": _progress(task),
            "retries": error.count if error else None,
            "lastError": {"message": error.message, "at": time_text(error.at)} if error else None,
            "nextTryAt": time_text(task.next_try_at) if waits else None,
            "startedAnew": task.started_anew or None,
            "finishedAt": time_text(task.finished_at),
            "object": _object(task.object) if task.object and not gone else None,
            "drill": _drill(task.drill) if task.drill else None,
            "drilling": {"bytesDone": task.drilling.place.offset} if task.drilling and not gone else None,
        }
    )


def _drill(drill: Drill) -> dict[str, Any]:
    return known(
        {
            "state": drill.state,
            "at": time_text(drill.at),
            "members": drill.members,
            "member": drill.member,
            "message": drill.message,
        }
    )


def _object(stored: StoredObject) -> dict[str, Any]:
    return known(
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
    return known(
        {
            "bytesDone": task.progress.bytes,
            "bytesTotal": task.size,
            "partsDone": task.progress.parts,
            "partsTotal": parts_total,
            "percent": percent_of(task.progress.bytes, task.size, task.status is Status.DONE),
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
    return known(
        {
            "bytesDone": done,
            "bytesTotal": size,
            "partsDone": total("partsDone"),
            "partsTotal": total("partsTotal"),
            "percent": percent_of(done, size, finished),
        }
    )


def percent_of(done: int, total: int | None, finished: bool) -> float | None:
    """100 only once it is finished: the last byte moved is not yet verified."""
    if finished:
        return 100
    return min(round(done * 100 / total, 1), 99.9) if total else None


def reason_view(reason: Reason | TaskWarning | None) -> dict[str, Any] | None:
    """Of a final failure, or of a warning."""
    return {"code": reason.code, "message": reason.message} if reason else None


def time_text(moment: datetime | None) -> str | None:
    """RFC 3339, UTC, milliseconds."""
    if moment is None:
        return None
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def known(fields: dict[str, Any]) -> dict[str, Any]:
    """Without what is not known."""
    return {name: value for name, value in fields.items() if value is not None}
