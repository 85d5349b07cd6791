"""Moves an export that can't be read by ranges: one reader, chunk by chunk, straight into parts."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from ..adapters.exports import Export
from ..adapters.repository import Repository
from ..adapters.storage import Source, Storage, fill
from ..domain import transitions
from ..domain.errors import NoSuchUpload, Permanent, Transient
from ..domain.events import PartUpdated, UploadJobCreated
from ..domain.job import Job, Part, Status, Upload
from ..domain.plan import MAX_PARTS, Plan
from ..domain.reason import Code
from .outcomes import Outcomes
from .sources import Held, check_size

STOPS_BEFORE_DEADLINE = timedelta(seconds=60)
UPLOADS_AT_ONCE = 2


class Chunk(NamedTuple):
    """One part's bytes."""

    number: int
    data: memoryview
    last: bool


class LostStream(Exception):
    """Another reader has the stream, or the task has ended."""


class OutOfTime(Exception):
    """The invocation ends before the stream does."""


def chunks(source: Source, size: int) -> Iterator[Chunk]:
    """Cuts a source into chunks of `size` bytes; only the last may be shorter, and it is told as the last.

    One byte more than a chunk is read each time: that is how the end shows.
    """
    number, carry = 1, b""
    while True:
        buffer = memoryview(bytearray(size + 1))
        buffer[: len(carry)] = carry
        filled = len(carry) + fill(source, buffer[len(carry) :])
        last = filled <= size
        yield Chunk(number, buffer[: min(filled, size)], last)
        if last:
            return
        number, carry = number + 1, bytes(buffer[size:])


@dataclass(frozen=True)
class MoveStream:
    """Reads under a lease; every run starts a new upload (I13)."""

    repository: Repository
    storage: Storage
    outcomes: Outcomes
    part_size: int
    now: Callable[[], datetime]

    def __call__(
        self,
        event: UploadJobCreated,
        job: Job,
        export: Export,
        limit: int | None,
        owner: str,
        deadline: datetime,
    ) -> None:
        """Moves the whole stream. Raises Transient or Permanent."""
        begun = self.repository.change(
            event.job_id,
            lambda job: transitions.begin_stream(
                job, event.attempt, event.provider, owner, self.now(), self.outcomes.policy
            ),
        )
        if begun is None:
            return
        key = job.key(event.provider)
        before = begun.before.tasks[event.provider].upload
        if before:
            self.outcomes.abort(event, key, before.upload_id)
        read = chunks(_Watched(export, limit, deadline - STOPS_BEFORE_DEADLINE, self.now), self.part_size)
        started = self.now()
        try:
            first = next(read)
        except OutOfTime:
            self._stop(event, owner, 0, started)
            return
        if first.last:
            self._check_whole(export, len(first.data))
            stored = self.storage.put_object(key, Held(first.data), len(first.data))
            self.outcomes.done(event, stored, parts=1)
            return
        upload_id = self.storage.create_upload(key)
        moved = _Moved()
        try:
            self._adopt(event, owner, upload_id)
            self._move(event, owner, key, upload_id, first, read, moved)
            self._check_whole(export, moved.bytes)
            self._seal(event, owner, moved.bytes)
        except (LostStream, NoSuchUpload):
            self.outcomes.abort(event, key, upload_id)
            return
        except OutOfTime:
            self._stop(event, owner, moved.bytes, started)
            return
        self.outcomes.emit([self._updated(event, upload_id)])

    def _move(
        self,
        event: UploadJobCreated,
        owner: str,
        key: str,
        upload_id: str,
        first: Chunk,
        rest: Iterator[Chunk],
        moved: "_Moved",
    ) -> None:
        """Reads the next chunk while the ones before are being uploaded; memory is three chunks."""
        under_way: list[tuple[Future[Part], int]] = []

        def settle(limit: int) -> None:
            while len(under_way) > limit:
                future, length = under_way.pop(0)
                self.repository.save_part(upload_id, future.result(), self.now())
                moved.bytes += length
                self._renew(event, owner)
                self.outcomes.emit([self._updated(event, upload_id)])

        with ThreadPoolExecutor(UPLOADS_AT_ONCE) as pool:
            try:
                for chunk in _and_then(first, rest):
                    if chunk.number > MAX_PARTS:
                        raise Permanent(
                            Code.SIZE_LIMIT_EXCEEDED, f"The stream is longer than {MAX_PARTS} parts."
                        )
                    settle(UPLOADS_AT_ONCE - 1)
                    length = len(chunk.data)
                    future = pool.submit(
                        self.storage.put_part, key, upload_id, chunk.number, Held(chunk.data), length
                    )
                    under_way.append((future, length))
                settle(0)
            finally:
                wait([future for future, _ in under_way])

    def _adopt(self, event: UploadJobCreated, owner: str, upload_id: str) -> None:
        upload = Upload(upload_id=upload_id, attempt=event.attempt)
        adopted = self.repository.change(
            event.job_id,
            lambda job: transitions.adopt_upload(
                job, event.attempt, event.provider, upload, owner, self.now()
            ),
        )
        if adopted is None:
            raise LostStream

    def _renew(self, event: UploadJobCreated, owner: str) -> None:
        renewed = self.repository.change(
            event.job_id,
            lambda job: transitions.renew_lease(
                job, event.attempt, event.provider, owner, self.now(), self.outcomes.policy
            ),
        )
        if renewed is None:
            raise LostStream

    def _seal(self, event: UploadJobCreated, owner: str, size: int) -> None:
        plan = Plan(size=size, part_size=self.part_size, first_size=self.part_size)
        sealed = self.repository.change(
            event.job_id,
            lambda job: transitions.seal_stream(
                job, event.attempt, event.provider, owner, plan, self.now(), self.outcomes.policy
            ),
        )
        if sealed is None:
            raise LostStream

    def _stop(self, event: UploadJobCreated, owner: str, moved: int, started: datetime) -> None:
        """Out of time: the next invocation gets another chance, the second time is one too many."""
        now = self.now()
        took = (now - started).total_seconds()
        stopped = self.repository.change(
            event.job_id,
            lambda job: transitions.stop_stream(
                job, event.attempt, event.provider, owner, moved, took, now, self.outcomes.policy
            ),
        )
        if stopped is None:
            return
        if stopped.after.tasks[event.provider].status is Status.FAILED:
            self.outcomes.failed(event, stopped.after)
        else:
            self.outcomes.emit([event])

    @staticmethod
    def _check_whole(export: Export, moved: int) -> None:
        if export.size is not None and moved != export.size:
            raise Transient(f"The export ended after {moved} of {export.size} bytes.")

    @staticmethod
    def _updated(event: UploadJobCreated, upload_id: str) -> PartUpdated:
        return PartUpdated(
            job_id=event.job_id, attempt=event.attempt, provider=event.provider, upload_id=upload_id
        )


@dataclass
class _Moved:
    bytes: int = 0


class _Watched:
    """Counts what is read against the size limit, and stops in time."""

    def __init__(
        self, export: Export, limit: int | None, stop_at: datetime, now: Callable[[], datetime]
    ) -> None:
        self._export = export
        self._limit = limit
        self._stop_at = stop_at
        self._now = now
        self._read = 0

    def readinto(self, buffer: memoryview) -> int:
        if self._now() >= self._stop_at:
            raise OutOfTime
        count = self._export.readinto(buffer)
        self._read += count
        check_size(self._read, self._limit, at_least=True)
        return count


def _and_then(first: Chunk, rest: Iterator[Chunk]) -> Iterator[Chunk]:
    yield first
    yield from rest
