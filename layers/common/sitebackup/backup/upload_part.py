"""Moves parts of ranged exports: several of a batch at once, each under its plan's validator."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from threading import Lock

from ..domain.errors import (
    Conflict,
    ExportChanged,
    NoSuchUpload,
    Permanent,
    TaskEnded,
    Transient,
    Unavailable,
)
from ..domain.events import PartUpdated, UploadPartCreated
from ..domain.job import Job, Part, PartWait
from ..domain.plan import PartRange
from ..domain.provider import Provider, provider_of
from ..domain.reason import Code
from ..domain.task_ref import TaskRef
from ..ports.providers import Export, ExportApi
from ..ports.repositories import JobRepository, PartRepository
from ..ports.runtime import Clock, Pool
from ..ports.storage import ObjectStorage
from ..telemetry import log_context, logger
from ..transfer.readers import LOOK_EVERY, DeadlineReader, ResumingReader
from ..transfer.retrying import RetryInProcess
from .task_recorder import TaskRecorder


@dataclass(frozen=True)
class UploadPart:
    """A batch of parts."""

    tasks: TaskRecorder
    exports: ExportApi
    parts: PartRepository
    storage: ObjectStorage
    retry: RetryInProcess
    providers: Mapping[str, Provider]
    at_once: int
    clock: Clock
    pool: Pool

    def __call__(self, events: Sequence[UploadPartCreated], deadline: datetime) -> set[int]:
        """The positions of the events whose outcome could not be stored.

        Raises RepositoryUnavailable if it can't even be read which parts are done.
        """
        done = self.parts.which_done({(event.upload_id, event.number) for event in events})
        recent = RecentJobs(self.tasks.recorder.jobs, self.clock.now)

        def is_outcome_stored(event: UploadPartCreated) -> bool:
            try:
                self._one(
                    event, recent.get(event.task.job_id), (event.upload_id, event.number) in done, deadline
                )
            except (Unavailable, Conflict) as error:
                context = {**log_context(event.task), "error": str(error)}
                logger.warning("outcome not stored", extra=context)
                return False
            except Exception:  # noqa: BLE001 - told in full, and the record ends in the dead letters
                logger.exception("unexpected error", extra=log_context(event.task))
                return False
            return True

        distinct = list(dict.fromkeys(events))
        with self.pool(self.at_once) as pool:
            stored = dict(zip(distinct, pool.map(is_outcome_stored, distinct), strict=True))
        return {position for position, event in enumerate(events) if not stored[event]}

    def _one(self, event: UploadPartCreated, job: Job | None, is_done: bool, deadline: datetime) -> None:
        """Stores an outcome for whatever happens to the part."""
        ref = event.task
        part = _planned(job, event)
        if job is None or part is None:
            return
        if is_done:
            self._emit_updated(event)
            return
        if event.redelivery:
            begun = PartWait(attempt=ref.attempt, tries=event.redelivery)
            self.parts.save_wait(event.upload_id, event.number, begun, self.clock.now())
        try:
            moved = self.retry(lambda: self._move(job, event, part, deadline), ref, deadline)
        except TaskEnded:
            logger.info("task ended while a part was read", extra=log_context(ref))
        except ExportChanged:
            self.tasks.replan_changed(ref, event.upload_id)
        except NoSuchUpload:
            self._upload_gone(event)
        except Permanent as error:
            self.tasks.fail(ref, error.reason)
        except Transient as error:
            self.tasks.retry_part_later(event, error)
        else:
            self.parts.save(event.upload_id, moved, self.clock.now())
            self._emit_updated(event)

    def _move(self, job: Job, event: UploadPartCreated, part: PartRange, deadline: datetime) -> Part:
        """From the export's range straight into the part."""
        ref, left = event.task, self.clock.left_until(deadline)
        provider = provider_of(ref, self.providers)
        validator, size = _ranged(job, ref)

        def open_at(read: int) -> Export:
            start, length = part.start + read, part.length - read
            return self.exports.open_range(
                provider, job.user_id, job.site_id, start, length, validator, size, left
            )

        with ResumingReader(ref, open_at(0), open_at, left, self.clock.sleep) as reader:
            source = DeadlineReader(reader, left, self.clock, lambda: self.tasks.is_live(ref))
            key = job.key(ref.provider)
            return self.storage.put_part(key, event.upload_id, event.number, source, part.length, left)

    def _upload_gone(self, event: UploadPartCreated) -> None:
        """An upload that all parts of are done may be gone because it was completed; otherwise S3 lost it."""
        if self.parts.which_done({(event.upload_id, event.number)}):
            self._emit_updated(event)
        else:
            self.tasks.replan_lost(event.task, event.upload_id)

    def _emit_updated(self, event: UploadPartCreated) -> None:
        self.tasks.recorder.emit([PartUpdated(task=event.task, upload_id=event.upload_id)])


class RecentJobs:
    """The jobs of a batch: its parts are mostly of one, which they need not read more often than one part does."""

    def __init__(self, jobs: JobRepository, now: Callable[[], datetime]) -> None:
        self._jobs = jobs
        self._now = now
        self._reading = Lock()
        self._read: dict[str, tuple[datetime, Job | None]] = {}

    def get(self, job_id: str) -> Job | None:
        """As it was a few seconds ago at most. Raises RepositoryUnavailable."""
        with self._reading:
            now = self._now()
            at, job = self._read.get(job_id, (None, None))
            if at is None or now - at >= LOOK_EVERY:
                job = self._jobs.get(job_id)
                self._read[job_id] = (now, job)
            return job


def _planned(job: Job | None, event: UploadPartCreated) -> PartRange | None:
    """The part's range, if the event still concerns the task's upload."""
    found = job.live_upload(event.task, event.upload_id) if job else None
    if found is None:
        return None
    plan = found[1].plan
    return plan.part(event.number) if plan and event.number <= plan.parts else None


def _ranged(job: Job, ref: TaskRef) -> tuple[str, int]:
    """The plan's validator and size (bytes)."""
    upload = job.tasks[ref.provider].upload
    if upload is None or upload.plan is None or upload.plan.validator is None:
        raise Permanent(Code.EXPORT_INVALID, "Only the parts of a ranged export can be moved one by one.")
    return upload.plan.validator, upload.plan.size
