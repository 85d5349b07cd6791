"""What may be downloaded of a backup, and under which name it is saved."""

from dataclasses import dataclass, field
from datetime import UTC, datetime

from .errors import NotFound, StateForbids
from .job import DeleteCause, Job, Status, StoredObject
from .policy import Policy, seconds

OWNER = "download"
"""Of the pin that all links to a backup share."""


@dataclass(frozen=True)
class DownloadLink:
    """A URL that gives an object to whoever has it: it stands in no log, metric, event or document (I22)."""

    url: str = field(repr=False)
    expires_at: datetime
    """From then on S3 refuses it; a whole second."""


@dataclass(frozen=True)
class Download:
    """A link, and what the bytes are to be compared with."""

    link: DownloadLink
    file_name: str
    stored: StoredObject


def downloadable(
    job: Job, provider: str, now: datetime, policy: Policy, *, allow_damaged: bool = False
) -> StoredObject:
    """The object of this provider. Raises NotFound, or StateForbids with what forbids it."""
    task = job.tasks.get(provider)
    if task is None:
        raise NotFound(f"Backup {job.id} has nothing of a provider {provider}.")
    if job.status is Status.DELETED:
        raise refusal(job, "its data is gone")
    if job.removing_at is not None or _must_go(job, now, policy):
        raise refusal(job, "its data is being removed")
    if job.status is not Status.DONE or task.object is None:
        raise refusal(job, f"it is {job.status}")
    if task.is_damaged and not allow_damaged:
        raise refusal(job, "a drill found it damaged; damaged=allow gives it all the same")
    return task.object


def refusal(job: Job, why: str) -> StateForbids:
    """A job of which nothing can be downloaded."""
    return StateForbids(f"Backup {job.id} can't be downloaded: {why}.", jobId=job.id)


def _must_go(job: Job, now: datetime, policy: Policy) -> bool:
    """Whether only readers keep data that somebody asked to delete: new links must not keep it for ever."""
    if job.delete_at is None or job.delete_cause is not DeleteCause.REQUESTED:
        return False
    return now >= job.delete_at + seconds(policy.delete_grace_seconds)


def file_name(job: Job, provider: str, stored: StoredObject) -> str:
    """Says whose data it is, and when it was read: ASCII letters, digits and hyphens, and a suffix.

    Raises KeyError if the job has no such task.
    """
    read_at = (job.tasks[provider].finished_at or job.created_at).astimezone(UTC)
    suffix = "zip" if stored.format == "zip" else "bin"
    return f"{job.site_id}-{provider}-{read_at:%Y%m%dT%H%M%SZ}.{suffix}"
