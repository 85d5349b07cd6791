"""Keeps a task's progress, hands out its next parts, and completes and verifies its upload."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from ..adapters.repository import Repository
from ..adapters.storage import Storage, combine_crcs
from ..domain import transitions
from ..domain.errors import InvalidPart, KeyTaken, NoSuchUpload, Permanent, Transient
from ..domain.events import PartUpdated, TaskEvent, UploadPartCreated
from ..domain.job import Job, Part, StoredObject, Upload
from ..domain.plan import Plan
from ..domain.progress import advance
from ..telemetry import about, logger
from .outcomes import Outcomes
from .retrying import in_place
from .sources import time_left

STREAM_PARTS_READ = 64
"""Of a stream, whose parts are not handed out: so many at most are counted by one event, the rest by later ones."""


@dataclass(frozen=True)
class FinishTask:
    """A task's part-updated records of one batch: they all say the same."""

    repository: Repository
    storage: Storage
    outcomes: Outcomes
    now: Callable[[], datetime]

    def __call__(self, event: PartUpdated, deadline: datetime) -> None:
        """Raises RepositoryUnavailable (or Conflict) if no outcome can be stored."""
        job = self.repository.get(event.job_id)
        found = job.live_upload(event.attempt, event.provider, event.upload_id) if job else None
        if job is None or found is None:
            return
        task, upload = found
        if event.tried:
            claimed = self.repository.change(
                event.job_id,
                lambda job: transitions.claim_try(
                    job, event.attempt, event.provider, event.tried, self.now()
                ),
                known=job,
            )
            job = claimed.after if claimed else job
        through = task.progress.through
        last = upload.dispatched or through + STREAM_PARTS_READ
        read = self.repository.done_parts(event.upload_id, range(through + 1, last + 1))
        progress = advance(task.progress, [(part.number, part.length) for part in read])
        changed = self.repository.change(
            event.job_id,
            lambda job: transitions.dispatch_parts(
                job,
                event.attempt,
                event.provider,
                event.upload_id,
                progress,
                self.now(),
                self.outcomes.policy,
            ),
            known=job,
        )
        if changed:
            job = changed.after
            self._hand_out(event, changed.before, changed.after)
        uploaded = job.tasks[event.provider].upload
        if uploaded and uploaded.plan and progress.parts == uploaded.plan.parts:
            self._complete(event, job, uploaded, uploaded.plan, deadline)

    def _hand_out(self, event: PartUpdated, before: Job, after: Job) -> None:
        """The parts between the two marks: no other change of the job hands out the same."""
        was, now = before.tasks[event.provider].upload, after.tasks[event.provider].upload
        if was is None or now is None:
            return
        parts: list[TaskEvent] = [
            event.follow(UploadPartCreated, upload_id=event.upload_id, number=number)
            for number in range(was.dispatched + 1, now.dispatched + 1)
        ]
        self.outcomes.emit(parts)

    def _complete(self, event: PartUpdated, job: Job, upload: Upload, plan: Plan, deadline: datetime) -> None:
        key = job.key(event.provider)
        parts = self.repository.done_parts(upload.upload_id)
        if [(part.number, part.length) for part in parts] != [
            (number, plan.part(number).length) for number in range(1, plan.parts + 1)
        ]:
            logger.error("parts do not tile the plan", extra=about(event))
            self.outcomes.replan_lost(event, upload.upload_id)
            return
        tried = job.tasks[event.provider].tried
        try:
            try:
                done = in_place(
                    lambda: self._done(event, key, plan, parts, deadline), event, deadline, self.now
                )
            except InvalidPart:
                if plan.validator is None:  # a part of a stream can't be read alone
                    self.outcomes.replan_lost(event, upload.upload_id)
                else:
                    self._redo_parts(event, key, upload, parts)
                return
        except NoSuchUpload:
            done = False
        except Permanent as error:
            self.outcomes.fail(event, error.reason)
            return
        except Transient as error:
            self.outcomes.trouble(event, error, tried)
            return
        if not done:
            self.outcomes.replan_lost(event, upload.upload_id)

    def _done(
        self, event: PartUpdated, key: str, plan: Plan, parts: Sequence[Part], deadline: datetime
    ) -> bool:
        """Whether the task is done; if not, the upload is gone and has left no such object."""
        stored = self._object(event, key, plan, parts, deadline)
        if stored:
            self.outcomes.done(event, stored, len(parts))
        return stored is not None

    def _object(
        self, event: PartUpdated, key: str, plan: Plan, parts: Sequence[Part], deadline: datetime
    ) -> StoredObject | None:
        """The verified object; None if the upload is gone and has left no such object (I5).

        An answer of S3 to Complete proves nothing: only a HEAD that shows size and checksum does.
        """
        crc = combine_crcs(parts)

        def is_it(found: StoredObject | None) -> bool:
            return found is not None and (found.size, found.checksum_crc64nvme) == (plan.size, crc)

        found = self.storage.head(key)
        if is_it(found):
            return found
        try:
            self.storage.complete(key, event.upload_id, plan, parts, crc, time_left(deadline, self.now))
        except NoSuchUpload:
            found = self.storage.head(key)
            return found if is_it(found) else None
        except KeyTaken:
            found = self.storage.head(key)
            if is_it(found):
                return found
            # Seen before this look at the task: a task that is still on this upload has none that came later.
            if not self._is_current(event):
                return None
            if found and found.version_id:
                self.storage.delete_version(key, found.version_id)
            raise Transient("Another object was in the way; the upload is completed again.") from None
        found = self.storage.head(key)
        if not is_it(found):
            raise Transient("S3 said that the upload was completed, but shows no such object.")
        return found

    def _is_current(self, event: PartUpdated) -> bool:
        """Whether the event's upload is still the task's."""
        job = self.repository.get(event.job_id)
        return job is not None and job.live_upload(event.attempt, event.provider, event.upload_id) is not None

    def _redo_parts(self, event: PartUpdated, key: str, upload: Upload, parts: Sequence[Part]) -> None:
        """S3 misses a part or holds it under another ETag: such a part is moved again."""
        held = self.storage.part_etags(key, upload.upload_id)
        wrong = [part.number for part in parts if held.get(part.number) != (part.length, part.etag)]
        if not wrong:
            raise Transient("S3 refuses a part that it shows.")
        self.outcomes.redo_parts(event, wrong)
