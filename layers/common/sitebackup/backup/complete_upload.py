"""Makes an object of an upload whose parts are all done, and verifies it (I5)."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from ..domain.errors import NoSuchUpload, ObjectExists, Transient
from ..domain.job import Job, Part, StoredObject, Upload
from ..domain.task_ref import TaskRef
from ..ports.repositories import JobRepository
from ..ports.runtime import Clock
from ..ports.storage import ObjectStorage
from ..transfer.checksums import combine_crcs


@dataclass(frozen=True)
class CompleteUpload:
    """An answer of S3 to Complete proves nothing: only a HEAD that shows size and checksum does."""

    jobs: JobRepository
    storage: ObjectStorage
    clock: Clock

    def __call__(
        self, job: Job, ref: TaskRef, upload: Upload, parts: Sequence[Part], deadline: datetime
    ) -> StoredObject | None:
        """The verified object of these parts; None if the upload is gone and has left no such object.

        Raises InvalidPart, Transient, Permanent or RepositoryUnavailable.
        """
        assert upload.plan is not None
        key, plan, crc = job.key(ref.provider), upload.plan, combine_crcs(parts)

        def is_it(found: StoredObject | None) -> bool:
            return found is not None and (found.size, found.checksum_crc64nvme) == (plan.size, crc)

        found = self.storage.head(key)
        if is_it(found):
            return found
        try:
            left = self.clock.left_until(deadline)
            self.storage.complete(key, upload.upload_id, plan, parts, crc, left)
        except NoSuchUpload:
            found = self.storage.head(key)
            return found if is_it(found) else None
        except ObjectExists:
            found = self.storage.head(key)
            if not is_it(found):
                self._make_way(ref, upload, found)
                return None
            return found
        found = self.storage.head(key)
        if not is_it(found):
            raise Transient("S3 said that the upload was completed, but shows no such object.")
        return found

    def wrong_parts(self, key: str, upload_id: str, parts: Sequence[Part]) -> list[int]:
        """The parts that S3 misses or holds under another ETag; such a part is moved again.

        Raises NoSuchUpload, Permanent, or Transient if S3 shows every part that it has refused.
        """
        held = self.storage.part_etags(key, upload_id)
        wrong = [part.number for part in parts if held.get(part.number) != (part.length, part.etag)]
        if not wrong:
            raise Transient("S3 refuses a part that it shows.")
        return wrong

    def _make_way(self, ref: TaskRef, upload: Upload, found: StoredObject | None) -> None:
        """Removes an object that is not the upload's; returns only if the upload is no longer the task's.

        Raises Transient otherwise, so that the upload is completed again.
        `found` was seen before this look at the task: a task that is still on this upload has no later object.
        """
        job = self.jobs.get(ref.job_id)
        if job is None or job.live_upload(ref, upload.upload_id) is None:
            return
        if found and found.version_id:
            self.storage.delete_version(found.key, found.version_id)
        raise Transient("Another object was in the way; the upload is completed again.")
