"""Compares the records with the bucket, in both directions, and names what differs."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated

import msgspec

from ..domain.catalog import (
    Difference,
    Folder,
    KeyPrefix,
    areas,
    folder_differences,
    kept_objects,
    manifest_difference,
    object_difference,
    unreadable_manifest,
    unreadable_record,
)
from ..domain.errors import Permanent
from ..domain.job import Job, Status
from ..domain.model import Model
from ..ports.repositories import JobRepository
from ..ports.runtime import Clock, Pool
from ..ports.storage import ObjectStorage
from ..telemetry import count, logger
from .folders import read_folders, read_whole
from .passes import work_through

AT_ONCE = 16
"""Folders, or records, in the hands of one pass: nearly all of their time goes by waiting for S3."""
PAGE = 100
"""Records that are read at once."""
MAX_DIFFERENCES = 100
"""An answer that names so many ends there."""
BUCKET, RECORDS = "bucket:", "records:"


class Check(Model, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the function is asked. An error about a field quotes its description."""

    marker: Annotated[
        str,
        msgspec.Meta(
            pattern=rf"^({BUCKET}|{RECORDS})[ -~]{{0,1000}}\Z",
            description="left out, or as the last answer had it",
        ),
    ] = BUCKET
    prefix: KeyPrefix = ""
    """With one, the folders of these users are compared, and no records are gone through."""


class Checked(Model, frozen=True, kw_only=True, omit_defaults=False):
    """What one pass found."""

    folders: int
    """Of the bucket, that were compared with their records."""
    objects: int
    """Of the records of done jobs, that were looked for in the bucket."""
    differences: list[Difference]
    marker: str | None
    """To go on with; None: all is compared."""


@dataclass(frozen=True)
class CheckCatalog:
    """One pass; it changes nothing, and may run beside backups.

    The bucket comes first: is there a record of each version, and does it say what the manifest says? Then the
    records: is each object there, with its size and checksum? What differs is looked at once more, as either side may
    have changed while the other was read.
    """

    jobs: JobRepository
    storage: ObjectStorage
    clock: Clock
    pool: Pool

    def __call__(self, request: Check, deadline: datetime) -> Checked:
        """Raises Transient or Unavailable if nothing could be compared, or Permanent."""
        done = _Done()

        def step(marker: str) -> str | None:
            if marker.startswith(BUCKET):
                after = self._folders(request.prefix, marker.removeprefix(BUCKET), done)
                last = None if request.prefix else RECORDS
                return last if after is None else BUCKET + after
            before = self._records(marker.removeprefix(RECORDS), done)
            return None if before is None else RECORDS + before

        marker = work_through(
            step, request.marker, deadline, self.clock.now, lambda: len(done.differences) >= MAX_DIFFERENCES
        )
        count("CatalogDifferences", len(done.differences))
        return Checked(
            folders=done.folders, objects=done.objects, differences=done.differences, marker=marker
        )

    def _folders(self, prefix: str, after: str, done: "_Done") -> str | None:
        """Compares the next folders with their records."""
        found = read_folders(self.storage, prefix, after)
        self._each(self._folder_differs, found.folders, done)
        done.folders += len(found.folders)
        return found.after

    def _records(self, before: str, done: "_Done") -> str | None:
        """Looks for the objects of the next records, the newest first."""
        jobs = self.jobs.page({"status": Status.DONE}, PAGE, before or None)
        self._each(self._objects_differ, jobs, done)
        done.objects += sum(len(kept_objects(job)) for job in jobs)
        return jobs[-1].id if len(jobs) == PAGE else None

    def _each[T](self, look: Callable[[T], list[Difference]], all_of: Iterable[T], done: "_Done") -> None:
        with self.pool(AT_ONCE) as pool:
            for differences in pool.map(look, all_of):
                for difference in differences:
                    logger.error("the catalogue differs", extra=difference.to_document())
                done.differences += differences

    def _folder_differs(self, folder: Folder) -> list[Difference]:
        found = self._compare(folder)
        if not found or not folder.is_whole:
            return found
        listed = areas(self.storage.list_versions(folder.prefix).versions)
        again = next((area.folder for area in listed if area.folder), None)
        return self._compare(again) if again else []

    def _compare(self, folder: Folder) -> list[Difference]:
        """Reads the record after the listing: whatever is in a folder was recorded before."""
        try:
            job = self.jobs.get(folder.job_id)
        except msgspec.ValidationError as error:
            return [unreadable_record(folder, error)]
        found = folder_differences(folder, job)
        if job is not None and kept_objects(job) and folder.is_whole and folder.manifest:
            try:
                differs = manifest_difference(folder, job, read_whole(self.storage, folder.manifest))
            except Permanent as error:
                differs = unreadable_manifest(folder, error)
            return [*found, differs] if differs else found
        return found

    def _objects_differ(self, job: Job) -> list[Difference]:
        found = self._look_for(job)
        if not found:
            return []
        again = self.jobs.get(job.id)
        return self._look_for(again) if again else []

    def _look_for(self, job: Job) -> list[Difference]:
        found = [
            object_difference(job, stored, self.storage.head(stored.key, stored.version_id))
            for stored in kept_objects(job)
        ]
        return [difference for difference in found if difference]


@dataclass
class _Done:
    """Of one pass."""

    folders: int = 0
    objects: int = 0
    differences: list[Difference] = field(default_factory=list)
