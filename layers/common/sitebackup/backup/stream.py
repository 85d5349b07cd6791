"""Moves an export that can't be read by ranges: one reader, chunk by chunk, each held until S3 has it."""

from collections.abc import Iterator
from concurrent.futures import Future, wait
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import chain

from ..domain.errors import NoSuchUpload, Permanent, TaskEnded, Transient
from ..domain.events import PartUpdated
from ..domain.job import Job, Part, Upload
from ..domain.plan import MAX_PARTS, Plan
from ..domain.reason import Code
from ..domain.transitions import runs
from ..ports.providers import Export
from ..ports.repositories import PartRepository
from ..ports.runtime import Clock, Pool
from ..ports.storage import ObjectStorage
from ..transfer.chunking import BUFFERS, Chunk, split_stream
from ..transfer.limits import check_room, check_size
from ..transfer.retrying import RetryInProcess
from .accept_object import AcceptObject
from .reserve_bytes import ReserveBytes
from .run_lease import RENEW_EVERY, RunLease
from .task_recorder import TaskRecorder

STOPS_BEFORE_DEADLINE = timedelta(seconds=60)
UPLOADS_AT_ONCE = BUFFERS - 1


class OutOfTime(Exception):
    """The invocation ends before the stream does."""


@dataclass
class StreamRun:
    """One run: what is read, and how far it has come."""

    job: Job
    export: Export
    limit: int
    """Bytes that the export may have."""
    lease: RunLease
    deadline: datetime
    room: int | None = None
    """Bytes that the user's quota leaves for an export of unknown size; None: any number."""
    moved: int = 0
    """Bytes that S3 has confirmed."""

    @property
    def key(self) -> str:
        """Where the object will be."""
        return self.job.key(self.lease.ref.provider)


@dataclass(frozen=True)
class MoveStream:
    """Reads under a lease; every run starts a new upload (I13)."""

    tasks: TaskRecorder
    accept: AcceptObject
    reserve: ReserveBytes
    parts: PartRepository
    storage: ObjectStorage
    retry: RetryInProcess
    part_size: int
    clock: Clock
    pool: Pool

    def __call__(self, run: StreamRun) -> None:
        """Moves the whole stream. Raises Transient, Permanent, or TaskEnded once the lease is lost."""
        if not self._begin(run):
            return
        if run.export.size is None:
            run.room = self.reserve.room(run.job, run.lease.ref.provider)
        started = self.clock.now()
        chunks = split_stream(_WatchedReader(run, self.clock), self.part_size)
        try:
            first = next(chunks)
            if first.last:
                self._reserve(run, len(first.data))
                left = self.clock.left_until(run.deadline)
                self.accept(run.lease.ref, self.storage.put_object(run.key, first.data, left), parts=1)
            else:
                self._upload(run, chain([first], chunks))
        except OutOfTime:
            seconds = (self.clock.now() - started).total_seconds()
            read = runs.StreamRead(run.moved, seconds)
            self.tasks.recorder.apply_to_task(run.lease.ref, runs.stop_stream, run.lease.owner, read)

    def _begin(self, run: StreamRun) -> bool:
        """Whether the stream is this run's to read; what an earlier reader uploaded is given up."""
        ref = run.lease.ref
        begun = self.tasks.recorder.apply_to_task(ref, runs.begin_stream, run.lease.owner)
        if begun is None:
            return False
        if run.export.size is not None and run.export.size > self._longest:
            raise self._too_long(f"{run.export.size} bytes")
        before = begun.before.tasks[ref.provider].upload
        if before:
            self.tasks.abort(ref, run.key, before.upload_id)
        return True

    def _upload(self, run: StreamRun, chunks: Iterator[Chunk]) -> None:
        """From the first chunk to the upload whose parts are all there."""
        ref, owner = run.lease.ref, run.lease.owner
        upload_id = self.storage.create_upload(run.key)
        try:
            upload = Upload(upload_id=upload_id, attempt=ref.attempt)
            if self.tasks.recorder.apply_to_task(ref, runs.adopt_upload, owner, upload) is None:
                raise TaskEnded
            self._move(run, upload_id, chunks)
            plan = self._plan(run)
            self._reserve(run, plan.size)
            if self.tasks.recorder.apply_to_task(ref, runs.end_stream, owner, plan) is None:
                raise TaskEnded
        except NoSuchUpload as error:
            raise Transient("S3 lost the upload of the stream.") from error
        except (TaskEnded, Permanent):
            self.tasks.abort(ref, run.key, upload_id)  # no retry can go on with half a stream
            raise

    def _reserve(self, run: StreamRun, size: int) -> None:
        """Now that the size is known, if it was not before."""
        if run.export.size is None:
            self.reserve(run.job, run.lease.ref, run.lease.owner, size)

    def _move(self, run: StreamRun, upload_id: str, chunks: Iterator[Chunk]) -> None:
        """Reads the next chunk while S3 still takes the one before."""
        under_way: list[tuple[Future[Part], Chunk]] = []

        def settle(limit: int) -> None:
            while len(under_way) > limit:
                self._settle(run, upload_id, *under_way.pop(0))

        with self.pool(UPLOADS_AT_ONCE) as pool:
            try:
                for chunk in chunks:
                    if chunk.number > MAX_PARTS:
                        raise self._too_long(f"at least {run.moved} bytes")
                    settle(UPLOADS_AT_ONCE - 1)
                    under_way.append((pool.submit(self._put, run, upload_id, chunk), chunk))
                settle(0)
            finally:
                wait([future for future, _ in under_way])

    def _settle(self, run: StreamRun, upload_id: str, future: Future[Part], chunk: Chunk) -> None:
        """Waits until S3 has the chunk, and records its part."""
        while wait([future], RENEW_EVERY.total_seconds()).not_done:  # ends: a PUT has time-outs
            run.lease.renew()
        self.parts.save(upload_id, future.result(), self.clock.now())
        chunk.free()
        run.moved += len(chunk.data)
        run.lease.renew()
        self.tasks.recorder.emit([PartUpdated(task=run.lease.ref, upload_id=upload_id)])

    def _put(self, run: StreamRun, upload_id: str, chunk: Chunk) -> Part:
        """Sent again from memory if S3 stumbles: the stream itself could only be read from its start."""
        left = self.clock.left_until(run.deadline)
        return self.retry(
            lambda: self.storage.put_held_part(run.key, upload_id, chunk.number, chunk.data, left),
            run.lease.ref,
            run.deadline,
        )

    def _plan(self, run: StreamRun) -> Plan:
        """Of the stream, now that its size is known."""
        if run.export.size is not None and run.moved != run.export.size:
            raise Transient(f"The export ended after {run.moved} of {run.export.size} bytes.")
        return Plan(size=run.moved, part_size=self.part_size, first_size=self.part_size)

    @property
    def _longest(self) -> int:
        return MAX_PARTS * self.part_size

    def _too_long(self, has: str) -> Permanent:
        message = f"The export has {has}; as a stream the limit is {self._longest} bytes."
        return Permanent(Code.SIZE_LIMIT_EXCEEDED, message)


class _WatchedReader:
    """Counts what is read against the size limit, keeps the lease of a slow stream, and stops in time."""

    def __init__(self, run: StreamRun, clock: Clock) -> None:
        self._run = run
        self._now = clock.now
        self._stop_at = run.deadline - STOPS_BEFORE_DEADLINE
        self._read = 0

    def readinto(self, buffer: memoryview) -> int:
        if self._now() >= self._stop_at:
            raise OutOfTime
        self._run.lease.keep()
        count = self._run.export.readinto(buffer)
        self._read += count
        check_size(self._read, self._run.limit, at_least=True)
        check_room(self._read, self._run.room)
        return count
