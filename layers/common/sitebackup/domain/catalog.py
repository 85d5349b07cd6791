"""What the bucket tells of backups: a job back from its manifest, and what differs between a job and its folder.

A job's folder is `{userId}/{siteId}/{jobId}/`: its objects, and its manifest beside them.
"""

import re
from collections.abc import Iterable, Sequence
from enum import StrEnum
from itertools import groupby
from typing import Annotated

import msgspec

from .job import RETRYABLE, FoundVersion, Job, Status, StoredObject, Task
from .manifest import Manifest, read_manifest
from .model import Model
from .policy import Policy
from .progress import Progress
from .retention import first_look

MOST_VERSIONS = 1000
"""A folder of more versions than this is not looked into."""
KeyPrefix = Annotated[
    str, msgspec.Meta(pattern=r"^[0-9a-f]{0,24}\Z", description="up to 24 hex digits in lower case")
]
"""Of user ids: several may go through the bucket at once, each through the users of its own prefix."""
_FOLDER = re.compile(r"[0-9a-f]{24}/[0-9a-f]{24}/([0-9a-f]{24})/")
_OF_USER = re.compile(r"[0-9a-f]{24}/")


class DifferenceCode(StrEnum):
    """What differs. Part of what the functions answer, so only ever added to."""

    RECORD_MISSING = "record_missing"
    RECORD_UNREADABLE = "record_unreadable"
    MANIFEST_MISSING = "manifest_missing"
    MANIFEST_UNREADABLE = "manifest_unreadable"
    MANIFEST_DIFFERS = "manifest_differs"
    MANIFEST_REPLACED = "manifest_replaced"
    OBJECT_UNRECORDED = "object_unrecorded"
    OBJECT_MISSING = "object_missing"
    SIZE_DIFFERS = "size_differs"
    CHECKSUM_DIFFERS = "checksum_differs"
    TOO_MANY_VERSIONS = "too_many_versions"


class Difference(Model, frozen=True, kw_only=True):
    """One thing on which the records and the bucket do not agree."""

    code: DifferenceCode
    job_id: str
    key: str
    """Where in the bucket."""
    detail: str


class Folder(Model, frozen=True, kw_only=True):
    """What a listing shows in the folder of a job."""

    prefix: str
    """`{userId}/{siteId}/{jobId}/`"""
    versions: list[FoundVersion]
    """Of one key the newest first."""
    is_whole: bool = True
    """False: there are more versions than are looked at."""

    @property
    def job_id(self) -> str:
        """Whose folder it is."""
        return self.prefix.split("/")[2]

    @property
    def manifest_key(self) -> str:
        """As `Job.manifest_key`."""
        return f"{self.prefix}manifest.json"

    @property
    def manifest(self) -> FoundVersion | None:
        """The version that counts: the oldest, as nobody can have put that in the place of another."""
        own = [one for one in self.versions if one.key == self.manifest_key and not one.is_marker]
        return own[-1] if own else None


class Area(Model, frozen=True, kw_only=True):
    """Neighbours in a listing: a job's folder, or keys that are no job's."""

    folder: Folder | None
    end: str
    """A key behind all of it and before whatever follows, at which nothing lies."""


def areas(found: Iterable[FoundVersion]) -> list[Area]:
    """What a listing shows, in its order."""
    return [
        _area(prefix, list(versions)) for prefix, versions in groupby(found, lambda one: _prefix(one.key))
    ]


def _area(prefix: str, versions: list[FoundVersion]) -> Area:
    end = f"{prefix[:-1]}0" if prefix.endswith("/") else f"{prefix}!"  # "0" follows "/"
    if not _FOLDER.fullmatch(prefix):
        return Area(folder=None, end=end)
    folder = Folder(prefix=prefix, versions=versions[:MOST_VERSIONS], is_whole=len(versions) <= MOST_VERSIONS)
    return Area(folder=folder, end=end)


def _prefix(key: str) -> str:
    """Of the area that the key is in: a job's folder, all of another top folder, or the key itself."""
    if folder := _FOLDER.match(key):
        return folder[0]
    first, slash, _ = key.partition("/")
    return first + slash if slash and not _OF_USER.match(key) else key


# --- a job from its manifest


def job_of(manifest: Manifest, policy: Policy) -> Job:
    """The done job, with each field that a manifest keeps; the same whenever it is made."""
    done = Job(
        id=manifest.job_id,
        user_id=manifest.user_id,
        site_id=manifest.site_id,
        status=Status.DONE,
        version=1,
        attempt=manifest.attempt,
        tasks={
            name: Task(
                status=Status.DONE,
                object=task.object,
                progress=Progress(
                    parts=task.object.parts,
                    bytes=task.object.size,
                    watermark=task.object.parts,
                    watermark_bytes=task.object.size,
                ),
                runs=task.runs,
                started_anew=task.started_anew,
                finished_at=task.finished_at,
            )
            for name, task in manifest.tasks.items()
        },
        created_at=manifest.created_at,
        updated_at=manifest.sealed_at,
        deadline_at=manifest.sealed_at,
        started_at=manifest.started_at,
        finished_at=manifest.sealed_at,
        sealed_at=manifest.sealed_at,
        safety_for=manifest.safety_for,
        lock=manifest.lock,
        max_bytes=manifest.max_bytes,
        expires_after_days=manifest.expires_after_days,
        idempotency_key=manifest.idempotency_key,
        request_digest=manifest.request_digest,
    )
    return done.replace(clean_up_at=first_look(done, policy))


def described(folder: Folder, data: bytes) -> Manifest | Difference:
    """The manifest of the folder whose bytes were read, or why it is not to be believed."""
    try:
        manifest = read_manifest(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return unreadable_manifest(folder, error)
    if f"{manifest.user_id}/{manifest.site_id}/{manifest.job_id}/" != folder.prefix:
        return _manifest(folder, DifferenceCode.MANIFEST_DIFFERS, "It describes another job.")
    for name, task in manifest.tasks.items():
        if task.object.key != f"{folder.prefix}{name}.zip":
            return _manifest(folder, DifferenceCode.MANIFEST_DIFFERS, f"Its {name} is not in this folder.")
    return manifest


def unreadable_manifest(folder: Folder, error: Exception) -> Difference:
    """It is no manifest, or S3 does not give it."""
    return _manifest(folder, DifferenceCode.MANIFEST_UNREADABLE, str(error) or type(error).__name__)


def gone(folder: Folder, manifest: Manifest) -> Difference | None:
    """An object that the manifest describes and the listing does not show."""
    there = {(one.key, one.version_id): one.size for one in folder.versions if not one.is_marker}
    for task in manifest.tasks.values():
        stored = task.object
        if there.get((stored.key, stored.version_id or "")) != stored.size:
            return Difference(
                code=DifferenceCode.OBJECT_MISSING,
                job_id=manifest.job_id,
                key=stored.key,
                detail=f"Version {stored.version_id} of {stored.size} bytes is not there.",
            )
    return None


# --- a job and the bucket


def folder_differences(folder: Folder, job: Job | None) -> list[Difference]:
    """What a listing alone tells of the job, as it was read after that; the manifest's bytes were not looked at."""
    if not folder.is_whole:
        return [_too_many(folder)]
    if job is None and folder.manifest:
        return [_manifest(folder, DifferenceCode.RECORD_MISSING, "There is a manifest, and no record.")]
    differences = _unrecorded(folder, job)
    if job is not None and _is_kept(job):
        own = [one for one in folder.versions if one.key == folder.manifest_key]
        if folder.manifest is None:
            differences.append(
                _manifest(
                    folder, DifferenceCode.MANIFEST_MISSING, "The job is done, and there is no manifest."
                )
            )
        elif len(own) > 1:
            detail = f"There are {len(own)} versions; the oldest, {folder.manifest.version_id}, counts."
            differences.append(_manifest(folder, DifferenceCode.MANIFEST_REPLACED, detail))
    return differences


def manifest_difference(folder: Folder, job: Job, data: bytes) -> Difference | None:
    """Whether the manifest's bytes say of the done job what its record says.

    That an undelete has taken its expiry away is in the record alone, and so is that its key was used anew.
    """
    passed_over = {"expires_after_days"}
    if job.idempotency_key is None:
        passed_over |= {"idempotency_key", "request_digest"}
    manifest = described(folder, data)
    if isinstance(manifest, Difference):
        return manifest
    try:
        own = Manifest.of(job)
    except ValueError as error:
        return _manifest(folder, DifferenceCode.MANIFEST_DIFFERS, f"By its record, {error}.")
    other = [
        field.encode_name
        for field in msgspec.structs.fields(Manifest)
        if field.name not in passed_over and getattr(own, field.name) != getattr(manifest, field.name)
    ]
    if not other:
        return None
    return _manifest(folder, DifferenceCode.MANIFEST_DIFFERS, f"The record has other {', '.join(other)}.")


def object_difference(job: Job, stored: StoredObject, found: StoredObject | None) -> Difference | None:
    """Whether S3 shows an object of the done job as it was recorded."""
    if found is None:
        code, detail = DifferenceCode.OBJECT_MISSING, f"Version {stored.version_id} is not there."
    elif found.size != stored.size:
        code = DifferenceCode.SIZE_DIFFERS
        detail = f"It has {found.size} bytes, and was recorded with {stored.size}."
    elif found.checksum_crc64nvme != stored.checksum_crc64nvme:
        code = DifferenceCode.CHECKSUM_DIFFERS
        recorded = f"was recorded with {stored.checksum_crc64nvme}"
        detail = f"Its CRC64NVME is {found.checksum_crc64nvme or 'not known'}, and {recorded}."
    else:
        return None
    return Difference(code=code, job_id=job.id, key=stored.key, detail=detail)


def kept_objects(job: Job) -> list[StoredObject]:
    """Those that must be in the bucket: none once the removal has begun."""
    return [task.object for task in job.tasks.values() if task.object] if _is_kept(job) else []


def unreadable_record(folder: Folder, error: msgspec.ValidationError) -> Difference:
    """The record is there, and says what it can't."""
    return _manifest(folder, DifferenceCode.RECORD_UNREADABLE, str(error))


def _is_kept(job: Job) -> bool:
    return job.status is Status.DONE and job.removing_at is None


def _unrecorded(folder: Folder, job: Job | None) -> list[Difference]:
    """A difference for each key with versions that nothing explains."""
    if job is not None and _may_leave(job):
        return []
    kept = job is not None and _is_kept(job)
    recorded = {(stored.key, stored.version_id) for stored in kept_objects(job)} if job else set()
    left = [
        one
        for one in folder.versions
        if (one.key, one.version_id) not in recorded and not (kept and one.key == folder.manifest_key)
    ]
    return [
        Difference(
            code=DifferenceCode.OBJECT_UNRECORDED,
            job_id=folder.job_id,
            key=key,
            detail=_named(list(versions)),
        )
        for key, versions in groupby(left, lambda one: one.key)
    ]


def _may_leave(job: Job) -> bool:
    """Whether what lies in its folder is still being written, or waits for the clean-up."""
    if job.status is Status.DELETED:
        return False
    if job.is_active or job.removing_at is not None:
        return True
    if job.cleaned_at is not None:
        return False
    return job.status in RETRYABLE or any(task.runs > 1 for task in job.tasks.values())


def _named(versions: Sequence[FoundVersion]) -> str:
    first = versions[0]
    what = f"a delete marker, {first.version_id}" if first.is_marker else f"version {first.version_id}"
    more = f" and {len(versions) - 1} more" if len(versions) > 1 else ""
    return f"No record names {what}{more}."


def _too_many(folder: Folder) -> Difference:
    return Difference(
        code=DifferenceCode.TOO_MANY_VERSIONS,
        job_id=folder.job_id,
        key=folder.prefix,
        detail=f"It has more than {MOST_VERSIONS} versions, and was not looked into.",
    )


def _manifest(folder: Folder, code: DifferenceCode, detail: str) -> Difference:
    return Difference(code=code, job_id=folder.job_id, key=folder.manifest_key, detail=detail)
