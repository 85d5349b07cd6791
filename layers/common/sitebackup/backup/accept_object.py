"""Accepts a stored object as a task's result: looks into it, records it, and removes what else lies at its key."""

from collections.abc import Mapping
from dataclasses import dataclass

from ..domain import zip_end
from ..domain.errors import Permanent, Transient
from ..domain.job import StoredObject
from ..domain.provider import Provider, provider_of
from ..domain.task_ref import TaskRef
from ..domain.transitions import endings
from ..ports.storage import ObjectStorage
from ..telemetry import log_context, logger
from .recorder import Recorder


@dataclass(frozen=True)
class AcceptObject:
    """The end of every task that gets done, however its bytes were moved."""

    recorder: Recorder
    storage: ObjectStorage
    providers: Mapping[str, Provider]

    def __call__(self, ref: TaskRef, stored: StoredObject, parts: int) -> None:
        """`stored` is verified; it must also be a whole zip, unless its provider's format is `any` (I15).

        Raises Permanent if it is not, Transient if S3 does not show it, RepositoryUnavailable or Conflict.
        """
        stored = self._look_into(ref, stored)
        changed = self.recorder.apply_to_task(ref, endings.finish_task, stored, parts)
        if changed is None:
            self._give_up(ref, stored)
        elif changed.after.tasks[ref.provider].runs > 1:
            self._clean_key(ref, stored)

    def _look_into(self, ref: TaskRef, stored: StoredObject) -> StoredObject:
        """The object with its number of members."""
        if provider_of(ref, self.providers).format == "any":
            return stored.replace(format="any")
        length = min(stored.size, zip_end.TAIL_BYTES)
        tail = self.storage.read(stored, stored.size - length, length) if length else b""
        head = tail if length == stored.size else self.storage.read(stored, 0, zip_end.HEAD_BYTES)
        return stored.replace(members=zip_end.count_members(stored.size, head, tail))

    def _give_up(self, ref: TaskRef, stored: StoredObject) -> None:
        """The task was ended by somebody else.

        If it is done with another version, this one is nobody's. In any other state a retry may still adopt it,
        and what nobody adopts is removed when the failed attempt is cleaned up.
        """
        job = self.recorder.jobs.get(ref.job_id)
        recorded = job.tasks[ref.provider].object if job else None
        if recorded and stored.version_id and recorded.version_id != stored.version_id:
            try:
                self.storage.delete_version(stored.key, stored.version_id)
            except (Transient, Permanent) as error:
                logger.warning("object left behind", extra={**log_context(ref), "error": str(error)})

    def _clean_key(self, ref: TaskRef, stored: StoredObject) -> None:
        """A task that ran more than once may have left uploads or versions behind, all at its own key (I9)."""
        try:
            found = self.storage.at_key(stored.key)
            for upload_id in found.uploads:
                self.storage.abort(stored.key, upload_id)
            for version_id in found.versions:
                if stored.version_id and version_id != stored.version_id:
                    self.storage.delete_version(stored.key, version_id)
        except (Transient, Permanent) as error:
            logger.warning("key not cleaned", extra={**log_context(ref), "error": str(error)})
