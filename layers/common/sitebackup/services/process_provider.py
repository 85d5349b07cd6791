"""Opens a provider's export, plans it, and hands its parts out or moves its stream."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import count

from ..adapters.exports import Export, Exports
from ..adapters.repository import Repository
from ..adapters.storage import Storage
from ..adapters.time_limits import TimeLeft
from ..domain import transitions
from ..domain.errors import ExportChanged, NoSuchUpload, Permanent, Transient
from ..domain.events import PartUpdated, UploadJobCreated, UploadPartCreated
from ..domain.job import Job, Task, Upload
from ..domain.plan import plan_parts
from ..domain.provider import Provider
from ..domain.reason import Code, Reason
from ..telemetry import about, logger
from .lease import RunLease
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
                job, event.attempt, event.provider, event.tried, owner, self.now(), self.outcomes.policy
            ),
        )
        if started is None:
            return
        provider = self.providers.get(event.provider)
        if provider is None:
            message = f"No provider {event.provider} is configured."
            self.outcomes.fail(event, Reason(code=Code.PROVIDER_UNKNOWN, message=message))
            return
        lease = RunLease(self.repository, event, owner, self.outcomes.policy, self.now)
        tries = count()

        def move() -> None:
            if next(tries):
                self._again(event, owner)
            self._move(event, provider, lease, deadline)

        try:
            in_place(move, event, deadline, self.now)
        except TaskEnded:
            logger.info("the run lost its export: another has it, or the task has ended", extra=about(event))
        except Permanent as error:
            self.outcomes.fail(event, error.reason)
        except Transient as error:
            self.outcomes.trouble(event, error, event.tried, owner)

    def _again(self, event: UploadJobCreated, owner: str) -> None:
        again = self.repository.change(
            event.job_id,
            lambda job: transitions.run_again(
                job, event.attempt, event.provider, owner, self.now(), self.outcomes.policy
            ),
        )
        if again is None:
            raise TaskEnded

    def _move(self, event: UploadJobCreated, provider: Provider, lease: RunLease, deadline: datetime) -> None:
        job = self.repository.get(event.job_id)
        task = job.live_task(event.attempt, event.provider) if job else None
        if job is None or task is None:
            return
        if task.upload and task.upload.plan and not task.stream_only:
            self._go_on(event, job, task, task.upload, lease)
            return
        limit = size_limit(job, provider, self.max_bytes)
        length = None if task.stream_only else self.part_size
        left = time_left(deadline, self.now)
        with self.exports.probe(provider, job.user_id, job.site_id, length, left) as export:
            if export.size is not None:
                check_size(export.size, limit)
            if export.size is not None and export.size <= self.part_size:
                try:
                    with self._resuming(event, job, provider, export, left) as reader:
                        data = hold(Bounded(reader, deadline, self.now, lease.is_held), export.size)
                except ExportChanged as error:
                    raise Transient("The export changed while it was read.") from error
                stored = self.storage.put_object(job.key(event.provider), data, left)
                self.outcomes.done(event, stored, parts=1)
            elif export.ranged:
                self._fan_out(event, job, provider, export, lease, deadline)
            else:
                self.stream(event, job, export, limit, lease, deadline)

    def _go_on(self, event: UploadJobCreated, job: Job, task: Task, upload: Upload, lease: RunLease) -> None:
        """An earlier attempt has planned this upload: what it lacks is sent, if S3 still has it."""
        events = self.outcomes.missing_parts(event, upload, task.progress.through)
        needs_upload = any(isinstance(sent, UploadPartCreated) for sent in events)
        if needs_upload and not self.storage.has_upload(job.key(event.provider), upload.upload_id):
            self.outcomes.replan_lost(event, upload.upload_id)
            return
        ended = self.repository.change(
            event.job_id,
            lambda job: transitions.end_run(
                job, event.attempt, event.provider, lease.owner, self.now(), self.outcomes.policy
            ),
        )
        if ended:
            self.outcomes.emit(events)

    def _fan_out(
        self,
        event: UploadJobCreated,
        job: Job,
        provider: Provider,
        export: Export,
        lease: RunLease,
        deadline: datetime,
    ) -> None:
        """Plans the parts, hands out a window of them, and moves part 1, which the probe holds already."""
        assert export.size is not None
        plan = plan_parts(export.size, self.part_size, export.validator)
        key = job.key(event.provider)
        upload_id = self.storage.create_upload(key)
        window = provider.parts_in_flight or self.outcomes.policy.parts_in_flight
        dispatched = min(plan.parts, window)
        upload = Upload(
            upload_id=upload_id, plan=plan, attempt=event.attempt, dispatched=dispatched, window=window
        )
        adopted = self.repository.change(
            event.job_id,
            lambda job: transitions.adopt_upload(
                job, event.attempt, event.provider, upload, lease.owner, self.now(), self.outcomes.policy
            ),
        )
        if adopted is None:
            self.outcomes.abort(event, key, upload_id)
            return
        self.outcomes.emit([self._part(event, upload_id, number) for number in range(2, dispatched + 1)])
        until = min(deadline, self.now() + LONGEST_PART_1)
        left = time_left(until, self.now)

        try:
            with self._resuming(event, job, provider, export, left) as reader:
                source = Bounded(reader, until, self.now, lambda: self.outcomes.is_live(event))
                part = self.storage.put_part(key, upload_id, 1, source, plan.part(1).length, left)
        except NoSuchUpload:
            self.outcomes.replan_lost(event, upload_id)
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
        size, length, validator = export.size, export.length, export.validator
        if size is None or length is None or validator is None:
            return export

        def open_at(read: int) -> Export:
            return self.exports.open_range(
                provider, job.user_id, job.site_id, read, length - read, validator, size, left
            )

        return ResumingReader(event, export, open_at, left)

    @staticmethod
    def _part(event: UploadJobCreated, upload_id: str, number: int) -> UploadPartCreated:
        return event.follow(UploadPartCreated, upload_id=upload_id, number=number)
