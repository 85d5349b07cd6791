"""The write-once description of a done job that lies beside its objects (I18).

With it the bucket alone is enough to know what was backed up, and to rebuild the records of done jobs.
"""

from datetime import datetime
from typing import Literal

import msgspec

from .job import Job, StoredObject
from .lock import Lock
from .model import Id, Model, ProviderName


class Manifest(Model, frozen=True, kw_only=True, omit_defaults=False):
    """What is written: every field, so that a reader needs no defaults."""

    schema: Literal[1] = 1
    job_id: Id
    user_id: Id
    site_id: Id
    attempt: int
    created_at: datetime
    sealed_at: datetime
    expires_after_days: int | None
    lock: Lock | None
    objects: dict[ProviderName, StoredObject]
    """By provider."""


def manifest_of(job: Job) -> bytes:
    """The manifest of a sealed job, as JSON: the same bytes whenever and wherever it is made.

    Raises ValueError if the job is not sealed.
    """
    objects = {name: task.object for name, task in job.tasks.items() if task.object}
    if job.sealed_at is None or len(objects) < len(job.tasks):
        raise ValueError(f"job {job.id} is not sealed")
    manifest = Manifest(
        job_id=job.id,
        user_id=job.user_id,
        site_id=job.site_id,
        attempt=job.attempt,
        created_at=job.created_at,
        sealed_at=job.sealed_at,
        expires_after_days=job.expires_after_days,
        lock=job.lock,
        objects=objects,
    )
    return msgspec.json.format(msgspec.json.encode(manifest, order="deterministic"), indent=1)


def read_manifest(data: bytes) -> Manifest:
    """Raises msgspec.ValidationError, which names the offending field, or msgspec.DecodeError."""
    return msgspec.json.decode(data, type=Manifest)
