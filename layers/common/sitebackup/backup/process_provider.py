"""Opens a provider's export, plans it, and hands its parts out or moves its stream."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import count

from ..domain.errors import ExportChanged, NoSuchUpload, Permanent, TaskEnded, Transient
from ..domain.events import PartUpdated, UploadJobCreated, UploadPartCreated
from ..domain.job import Job, Task, Upload
from ..domain.plan import plan_parts
from ..domain.provider import Provider, require_listed
from ..domain.transitions import runs
from ..ports.providers import Export, ExportApi
from ..ports.repositories import PartRepository
from ..ports.runtime import Clock, TimeLeft
from ..ports.storage import ObjectStorage
from ..telemetry import log_context, logger
from ..transfer.limits import check_size, size_limit
from ..transfer.readers import DeadlineReader, ResumingReader, hold
from ..transfer.retrying import RetryInProcess
from .accept_object import AcceptObject
from .reserve_bytes import ReserveBytes
from .run_lease import RunLease
from .stream import MoveStream, StreamRun
from .task_recorder import TaskRecorder

LONGEST_PART_1 = timedelta(minutes=1)
"""If it is not read by then it is left to upload_part: other jobs wait behind this record."""


@dataclass(frozen=True)
class ProcessProvider:
    """One record: one run of one task."""

    tasks: TaskRecorder
    accept: AcceptObject
    reserve: ReserveBytes
    move_stream: MoveStream
    exports: ExportApi
    parts: PartRepository
    storage: ObjectStorage
    retry: RetryInProcess
    providers: Mapping[str, Provider]
    part_size: int
    max_bytes: int | None
    clock: Clock

    def __call__(self, event: UploadJobCreated, owner: str, deadline: datetime) -> None:
        """Stores an outcome for whatever happens; `owner` names this invocation.

        Raises RepositoryUnavailable (or Conflict) if no outcome can be stored, and SettingsUnavailable before it
        counts a try.
        """
        ref, recorder = event.task, self.tasks.recorder
        provider = self.providers.get(ref.provider)
        if recorder.apply_to_task(ref, runs.start_task, event.redelivery, owner) is None:
            return
        lease = RunLease(recorder, ref, owner)
        openings = count()

        def move() -> None:
            if next(openings) and recorder.apply_to_task(ref, runs.run_again, owner) is None:
                raise TaskEnded
            self._move(lease, require_listed(ref, provider), deadline)

        try:
            self.retry(move, ref, deadline)
        except TaskEnded:
            logger.info(
                "the run lost its export: another has it, or the task has ended", extra=log_context(ref)
            )
        except Permanent as error:
            self.tasks.fail(ref, error.reason)
        except Transient as error:
            self.tasks.retry_later(ref, error, event.redelivery, owner)

    def _move(self, lease: RunLease, provider: Provider, deadline: datetime) -> None:
        """Moves the export in the way that its size and its validator allow."""
        ref = lease.ref
        job = self.tasks.recorder.jobs.get(ref.job_id)
        task = job.live_task(ref) if job else None
        if job is None or task is None:
            return
        if task.upload and task.upload.plan and not task.stream_only:
            self.reserve(job, ref, lease.owner, task.upload.plan.size)
            self._go_on(job, task, task.upload, lease)
            return
        limit = size_limit(job, provider, self.max_bytes)
        length = None if task.stream_only else self.part_size
        left = self.clock.left_until(deadline)
        with self.exports.probe(provider, job.user_id, job.site_id, length, left) as export:
            if export.size is not None:
                check_size(export.size, limit)
                self.reserve(job, ref, lease.owner, export.size)
            if export.size is not None and export.size <= self.part_size:
                self._store_small(job, provider, export, export.size, lease, left)
            elif export.size is not None and export.ranged:
                self._fan_out(job, provider, export, export.size, lease, deadline)
            else:
                self.move_stream(StreamRun(job, export, limit, lease, deadline))

    def _store_small(
        self, job: Job, provider: Provider, export: Export, size: int, lease: RunLease, left: TimeLeft
    ) -> None:
        """An export of one part is one PutObject."""
        try:
            with self._resuming(job, provider, export, lease, left) as reader:
                data = hold(DeadlineReader(reader, left, self.clock, lease.is_held), size)
        except ExportChanged as error:
            raise Transient("The export changed while it was read.") from error
        stored = self.storage.put_object(job.key(lease.ref.provider), data, left)
        self.accept(lease.ref, stored, parts=1)

    def _go_on(self, job: Job, task: Task, upload: Upload, lease: RunLease) -> None:
        """An earlier attempt has planned this upload: what it lacks is sent, if S3 still has it."""
        ref = lease.ref
        missing = list(self.parts.missing(upload.upload_id, task.handed_out))
        if missing and not self.storage.has_upload(job.key(ref.provider), upload.upload_id):
            self.tasks.replan_lost(ref, upload.upload_id)
        else:
            self.tasks.recorder.apply_to_task(ref, runs.end_run, lease.owner, missing)

    def _fan_out(
        self, job: Job, provider: Provider, export: Export, size: int, lease: RunLease, deadline: datetime
    ) -> None:
        """Plans the parts, hands out a window of them, and moves part 1, which the probe holds already."""
        ref, recorder = lease.ref, self.tasks.recorder
        plan = plan_parts(size, self.part_size, export.validator)
        key = job.key(ref.provider)
        upload_id = self.storage.create_upload(key)
        window = provider.parts_in_flight or recorder.policy.parts_in_flight
        upload = Upload(
            upload_id=upload_id,
            plan=plan,
            attempt=ref.attempt,
            dispatched=min(plan.parts, window),
            window=window,
        )
        if recorder.apply_to_task(ref, runs.adopt_upload, lease.owner, upload) is None:
            self.tasks.abort(ref, key, upload_id)
            return
        left = self.clock.left_until(min(deadline, self.clock.now() + LONGEST_PART_1))
        try:
            with self._resuming(job, provider, export, lease, left) as reader:
                source = DeadlineReader(reader, left, self.clock, lambda: self.tasks.is_live(ref))
                part = self.storage.put_part(key, upload_id, 1, source, plan.part(1).length, left)
        except NoSuchUpload:
            self.tasks.replan_lost(ref, upload_id)
            return
        except (Transient, ExportChanged) as error:
            logger.warning("part 1 is left to upload_part", extra={**log_context(ref), "error": str(error)})
            recorder.emit([UploadPartCreated(task=ref, upload_id=upload_id, number=1)])
            return
        self.parts.save(upload_id, part, self.clock.now())
        recorder.emit([PartUpdated(task=ref, upload_id=upload_id)])

    def _resuming(
        self, job: Job, provider: Provider, export: Export, lease: RunLease, left: TimeLeft
    ) -> Export | ResumingReader:
        """What the probe has opened; a range goes on where it breaks."""
        size, length, validator = export.size, export.length, export.validator
        if size is None or length is None or validator is None:
            return export

        def open_at(read: int) -> Export:
            return self.exports.open_range(
                provider, job.user_id, job.site_id, read, length - read, validator, size, left
            )

        return ResumingReader(lease.ref, export, open_at, left, self.clock.sleep)
