"""The write-once description of a done job that lies beside its objects (I18).

With it the bucket alone is enough to know what was backed up, and to rebuild the records of done jobs.
"""

from datetime import datetime
from typing import Literal, Self

import msgspec

from .job import Job, StoredObject
from .lock import Lock
from .model import Id, Model, ProviderName, decode
from .task_ref import RestoreRef


class ManifestTask(Model, frozen=True, kw_only=True, omit_defaults=False):
    """One provider's part of the job."""

    object: StoredObject
    finished_at: datetime
    runs: int
    started_anew: bool


class Manifest(Model, frozen=True, kw_only=True, omit_defaults=False):
    """What is written: every field, so that a reader needs no defaults."""

    schema: Literal[1] = 1
    job_id: Id
    user_id: Id
    site_id: Id
    attempt: int
    created_at: datetime
    started_at: datetime | None
    sealed_at: datetime
    expires_after_days: int | None
    lock: Lock | None
    max_bytes: int | None
    safety_for: RestoreRef | None
    """A backup that a restore made first is never the newest good one (I19), rebuilt or not."""
    idempotency_key: str | None
    """With it a request or a tick that is repeated finds its backup also in a rebuilt catalogue."""
    request_digest: str | None
    tasks: dict[ProviderName, ManifestTask]

    @classmethod
    def of(cls, job: Job) -> Self:
        """Of a sealed job. Raises ValueError if it is not."""
        tasks = {
            name: ManifestTask(
                object=task.object,
                finished_at=task.finished_at,
                runs=task.runs,
                started_anew=task.started_anew,
            )
            for name, task in job.tasks.items()
            if task.object and task.finished_at
        }
        if job.sealed_at is None or len(tasks) < len(job.tasks):
            raise ValueError(f"job {job.id} is not sealed")
        return cls(
            job_id=job.id,
            user_id=job.user_id,
            site_id=job.site_id,
            attempt=job.attempt,
            created_at=job.created_at,
            started_at=job.started_at,
            sealed_at=job.sealed_at,
            expires_after_days=job.expires_after_days,
            lock=job.lock,
            max_bytes=job.max_bytes,
            safety_for=job.safety_for,
            idempotency_key=job.idempotency_key,
            request_digest=job.request_digest,
            tasks=tasks,
        )


def manifest_of(job: Job) -> bytes:
    """The manifest of a sealed job, as JSON: the same bytes whenever and wherever it is made.

    Raises ValueError if the job is not sealed.
    """
    return msgspec.json.format(msgspec.json.encode(Manifest.of(job), order="deterministic"), indent=1)


def read_manifest(data: bytes) -> Manifest:
    """Raises msgspec.ValidationError, which names the offending field, or msgspec.DecodeError."""
    return decode(data, Manifest)
