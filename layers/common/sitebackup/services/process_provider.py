"""Opens a provider's export, plans it, and hands its parts out or moves its stream."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import count

from ..adapters.exports import Export, Exports
from ..adapters.repository import Repository
from ..adapters.source import Source
from ..adapters.storage import Storage
from ..adapters.time_limits import TimeLeft
from ..domain import transitions
from ..domain.errors import ExportChanged, NoSuchUpload, Permanent, Transient
from ..domain.events import PartUpdated, UploadJobCreated, UploadPartCreated
from ..domain.job import Job, Upload
from ..domain.plan import plan_parts
from ..domain.provider import Provider
from ..domain.reason import Code, Reason
from ..telemetry import about, logger
from .outcomes import Outcomes
from .retrying import in_place
from .sources import Bounded, ResumingReader, TaskEnded, check_size, hold, size_limit, time_left
from .stream import MoveStream

LONGEST_PART_1 = timedelta(minutes=1)
"""If it is not read by then it is left to upload_part: other jobs wait behind this record."""


@dataclass(frozen=True)
class ProcessProvider:
    """One record: one run of one task."""

    repository: Repository
    exports: Exports
    storage: Storage
    outcomes: Outcomes
    stream: MoveStream
    providers: Mapping[str, Provider]
    part_size: int
    max_bytes: int | None
    now: Callable[[], datetime]

    def __call__(self, event: UploadJobCreated, owner: str, deadline: datetime) -> None:
        """Stores an outcome for whatever happens; `owner` names this invocation.

        Raises RepositoryUnavailable (or Conflict) if no outcome can be stored.
        """
        started = self.repository.change(
            event.job_id,
            lambda job: transitions.start_task(
                job, event.attempt, event.provider, event.tried, self.now(), self.outcomes.policy
            ),
        )
        if started is None:
            return
        provider = self.providers.get(event.provider)
        if provider is None:
            message = f"No provider {event.provider} is configured."
            self.outcomes.fail(event, Reason(code=Code.PROVIDER_UNKNOWN, message=message))
            return
        tries = count()

        def move() -> None:
            if next(tries):
                self.repository.change(
                    event.job_id,
                    lambda job: transitions.run_again(job, event.attempt, event.provider, self.now()),
                )
            self._move(event, provider, owner, deadline)

        try:
            in_place(move, event, deadline, self.now)
        except TaskEnded:
            logger.info("task ended while its export was read", extra=about(event))
        except Permanent as error:
            self.outcomes.fail(event, error.reason)
        except Transient as error:
            self.outcomes.trouble(event, error, event.tried, owner)

    def _move(self, event: UploadJobCreated, provider: Provider, owner: str, deadline: datetime) -> None:
        job = self.repository.get(event.job_id)
        task = job.live_task(event.attempt, event.provider) if job else None
        if job is None or task is None:
            return
        if task.upload and task.upload.plan and not task.stream_only:
            self.outcomes.emit(self.outcomes.missing_parts(job, event.provider, event.tried))
            return
        limit = size_limit(job, provider, self.max_bytes)
        length = None if task.stream_only else self.part_size
        left = time_left(deadline, self.now)
        with self.exports.probe(provider, job.user_id, job.site_id, length, left) as export:
            if export.size is not None:
                check_size(export.size, limit)
            if export.size is not None and export.size <= self.part_size:
                with self._resuming(event, job, provider, export, left) as reader:
                    data = hold(self._watched(event, reader, deadline), export.size)
                stored = self.storage.put_object(job.key(event.provider), data, left)
                self.outcomes.done(event, stored, parts=1)
            elif export.ranged:
                self._fan_out(event, job, provider, export, deadline)
            else:
                self.stream(event, job, export, limit, owner, deadline)

    def _fan_out(
        self, event: UploadJobCreated, job: Job, provider: Provider, export: Export, deadline: datetime
    ) -> None:
        """Plans the parts, hands out a window of them, and moves part 1, which the probe holds already."""
        assert export.size is not None
        plan = plan_parts(export.size, self.part_size, export.validator)
        key = job.key(event.provider)
        upload_id = self.storage.create_upload(key)
        window = provider.parts_in_flight or self.outcomes.policy.parts_in_flight
        released = min(plan.parts, window)
        upload = Upload(
            upload_id=upload_id, plan=plan, attempt=event.attempt, released=released, window=window
        )
        adopted = self.repository.change(
            event.job_id,
            lambda job: transitions.adopt_upload(
                job, event.attempt, event.provider, upload, None, self.now()
            ),
        )
        if adopted is None:
            self.outcomes.abort(event, key, upload_id)
            return
        self.outcomes.emit([self._part(event, upload_id, number) for number in range(2, released + 1)])
        until = min(deadline, self.now() + LONGEST_PART_1)
        left = time_left(until, self.now)

        try:
            with self._resuming(event, job, provider, export, left) as reader:
                part = self.storage.put_part(
                    key, upload_id, 1, self._watched(event, reader, until), plan.part(1).length, left
                )
        except NoSuchUpload:
            return
        except (Transient, ExportChanged) as error:
            logger.warning("part 1 is left to upload_part", extra={**about(event), "error": str(error)})
            self.outcomes.emit([self._part(event, upload_id, 1)])
            return
        self.repository.save_part(upload_id, part, self.now())
        self.outcomes.emit([event.follow(PartUpdated, upload_id=upload_id)])

    def _resuming(
        self, event: UploadJobCreated, job: Job, provider: Provider, export: Export, left: TimeLeft
    ) -> Export | ResumingReader:
        """What the probe has opened; a range goes on where it breaks."""
        length, validator = export.length, export.validator
        if length is None or validator is None:
            return export

        def open_at(read: int) -> Export:
            return self.exports.open_range(
                provider, job.user_id, job.site_id, read, length - read, validator, left
            )

        return ResumingReader(event, export, open_at, left)

    def _watched(self, event: UploadJobCreated, source: Source, until: datetime) -> Bounded:
        return Bounded(source, until, self.now, lambda: self.outcomes.is_live(event))

    @staticmethod
    def _part(event: UploadJobCreated, upload_id: str, number: int) -> UploadPartCreated:
        return event.follow(UploadPartCreated, upload_id=upload_id, number=number)
