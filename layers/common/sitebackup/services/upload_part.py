"""Moves parts of ranged exports: several of a batch at once, each under its plan's validator."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from threading import Lock

from ..adapters.exports import Export, Exports
from ..adapters.repository import Repository
from ..adapters.storage import Storage
from ..domain.errors import Conflict, ExportChanged, NoSuchUpload, Permanent, Transient, Unavailable
from ..domain.events import PartUpdated, UploadPartCreated
from ..domain.job import Job, Part, PartWait
from ..domain.plan import PartRange
from ..domain.provider import Provider
from ..domain.reason import Code, Reason
from ..telemetry import about, logger
from .outcomes import Outcomes
from .retrying import in_place
from .sources import LOOK_EVERY, Bounded, ResumingReader, TaskEnded, time_left


@dataclass(frozen=True)
class UploadPart:
    """A batch of parts."""

    repository: Repository
    exports: Exports
    storage: Storage
    outcomes: Outcomes
    providers: Mapping[str, Provider]
    at_once: int
    now: Callable[[], datetime]

    def __call__(self, events: Sequence[UploadPartCreated], deadline: datetime) -> set[int]:
        """The positions of the events whose outcome could not be stored.

        Raises RepositoryUnavailable if it can't even be read which parts are done.
        """
        done = self.repository.which_done({(event.upload_id, event.number) for event in events})
        recent = RecentJobs(self.repository, self.now)

        def outcome_stored(event: UploadPartCreated) -> bool:
            try:
                self._one(event, recent.get(event.job_id), (event.upload_id, event.number) in done, deadline)
            except (Unavailable, Conflict) as error:
                logger.warning("outcome not stored", extra={**about(event), "error": str(error)})
                return False
            except Exception:  # noqa: BLE001 - told in full, and the record ends in the dead letters
                logger.exception("unexpected error", extra=about(event))
                return False
            return True

        distinct = list(dict.fromkeys(events))
        with ThreadPoolExecutor(self.at_once) as pool:
            stored = dict(zip(distinct, pool.map(outcome_stored, distinct), strict=True))
        return {position for position, event in enumerate(events) if not stored[event]}

    def _one(self, event: UploadPartCreated, job: Job | None, done: bool, deadline: datetime) -> None:
        part = _planned(job, event)
        if job is None or part is None:
            return
        if done:
            self._tell(event)
            return
        provider = self.providers.get(event.provider)
        if provider is None:
            message = f"No provider {event.provider} is configured."
            self.outcomes.fail(event, Reason(code=Code.PROVIDER_UNKNOWN, message=message))
            return
        if event.tried:
            begun = PartWait(attempt=event.attempt, tried=event.tried)
            self.repository.save_wait(event.upload_id, event.number, begun, self.now())
        try:
            moved = in_place(
                lambda: self._move(job, provider, event, part, deadline), event, deadline, self.now
            )
        except TaskEnded:
            logger.info("task ended while a part was read", extra=about(event))
        except ExportChanged:
            self.outcomes.replan_changed(event, event.upload_id)
        except NoSuchUpload:
            self._upload_gone(event)
        except Permanent as error:
            self.outcomes.fail(event, error.reason)
        except Transient as error:
            self.outcomes.part_trouble(event, error)
        else:
            self.repository.save_part(event.upload_id, moved, self.now())
            self._tell(event)

    def _move(
        self, job: Job, provider: Provider, event: UploadPartCreated, part: PartRange, deadline: datetime
    ) -> Part:
        """From the export's range straight into the part."""
        (validator, size), left = _ranged(job, event), time_left(deadline, self.now)

        def open_at(read: int) -> Export:
            return self.exports.open_range(
                provider,
                job.user_id,
                job.site_id,
                part.start + read,
                part.length - read,
                validator,
                size,
                left,
            )

        with ResumingReader(event, open_at(0), open_at, left) as reader:
            return self.storage.put_part(
                job.key(event.provider),
                event.upload_id,
                event.number,
                Bounded(reader, deadline, self.now, lambda: self.outcomes.is_live(event)),
                part.length,
                left,
            )

    def _upload_gone(self, event: UploadPartCreated) -> None:
        """An upload that all parts of are done may be gone because it was completed; otherwise S3 lost it."""
        if self.repository.which_done({(event.upload_id, event.number)}):
            self._tell(event)
        else:
            self.outcomes.replan_lost(event, event.upload_id)

    def _tell(self, event: UploadPartCreated) -> None:
        self.outcomes.emit([event.follow(PartUpdated, upload_id=event.upload_id)])


class RecentJobs:
    """The jobs of a batch: its parts are mostly of one, which they need not read more often than one part does."""

    def __init__(self, repository: Repository, now: Callable[[], datetime]) -> None:
        self._repository = repository
        self._now = now
        self._reading = Lock()
        self._read: dict[str, tuple[datetime, Job | None]] = {}

    def get(self, job_id: str) -> Job | None:
        """As it was a few seconds ago at most. Raises RepositoryUnavailable."""
        with self._reading:
            now = self._now()
            at, job = self._read.get(job_id, (None, None))
            if at is None or now - at >= LOOK_EVERY:
                job = self._repository.get(job_id)
                self._read[job_id] = (now, job)
            return job


def _planned(job: Job | None, event: UploadPartCreated) -> PartRange | None:
    """The part's range, if the event still concerns the task's upload."""
    found = job.live_upload(event.attempt, event.provider, event.upload_id) if job else None
    if found is None:
        return None
    plan = found[1].plan
    return plan.part(event.number) if plan and event.number <= plan.parts else None


def _ranged(job: Job, event: UploadPartCreated) -> tuple[str, int]:
    """The plan's validator and size (bytes)."""
    upload = job.tasks[event.provider].upload
    if upload is None or upload.plan is None or upload.plan.validator is None:
        raise Permanent(Code.EXPORT_INVALID, "Only the parts of a ranged export can be moved one by one.")
    return upload.plan.validator, upload.plan.size
