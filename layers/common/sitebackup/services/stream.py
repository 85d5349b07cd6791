"""Moves an export that can't be read by ranges: one reader, piece by piece, each held until S3 has it."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import chain

from ..adapters.exports import Export
from ..adapters.repository import Repository
from ..adapters.storage import Storage
from ..domain import transitions
from ..domain.errors import NoSuchUpload, Permanent, Transient
from ..domain.events import PartUpdated, UploadJobCreated
from ..domain.job import Job, Part, Status, Upload
from ..domain.plan import MAX_PARTS, Plan
from ..domain.reason import Code
from .lease import RENEW_EVERY, RunLease
from .outcomes import Outcomes
from .pieces import BUFFERS, Piece, chunks
from .retrying import in_place
from .sources import TaskEnded, check_size, time_left

STOPS_BEFORE_DEADLINE = timedelta(seconds=60)
UPLOADS_AT_ONCE = BUFFERS - 1


class OutOfTime(Exception):
    """The invocation ends before the stream does."""


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
        limit: int,
        lease: RunLease,
        deadline: datetime,
    ) -> None:
        """Moves the whole stream. Raises Transient, Permanent, or TaskEnded once the lease is lost."""
        owner = lease.owner
        begun = self.repository.change(
            event.job_id,
            lambda job: transitions.begin_stream(
                job, event.attempt, event.provider, owner, self.now(), self.outcomes.policy
            ),
        )
        if begun is None:
            return
        longest = MAX_PARTS * self.part_size
        if export.size is not None and export.size > longest:
            raise Permanent(
                Code.SIZE_LIMIT_EXCEEDED,
                f"The export has {export.size} bytes; as a stream the limit is {longest} bytes.",
            )
        key = job.key(event.provider)
        before = begun.before.tasks[event.provider].upload
        if before:
            self.outcomes.abort(event, key, before.upload_id)
        source = _Watched(export, limit, deadline - STOPS_BEFORE_DEADLINE, self.now, lease.keep)
        started = self.now()
        read = chunks(source, self.part_size)
        try:
            first = next(read)
        except OutOfTime:
            self._stop(event, owner, 0, started)
            return
        if first.last:
            stored = self.storage.put_object(key, first.data, time_left(deadline, self.now))
            self.outcomes.done(event, stored, parts=1)
            return
        upload_id = self.storage.create_upload(key)
        moved = _Moved()
        try:
            self._adopt(event, owner, upload_id)
            self._move(event, lease, key, upload_id, chain([first], read), moved, deadline)
            self._end(event, owner, self._plan(export, moved.bytes))
        except NoSuchUpload as error:
            raise Transient("S3 lost the upload of the stream.") from error
        except (TaskEnded, Permanent):
            self.outcomes.abort(event, key, upload_id)  # no retry can go on with half a stream
            raise
        except OutOfTime:
            self._stop(event, owner, moved.bytes, started)
            return
        self.outcomes.emit([self._updated(event, upload_id)])

    def _move(
        self,
        event: UploadJobCreated,
        lease: RunLease,
        key: str,
        upload_id: str,
        pieces: Iterator[Piece],
        moved: "_Moved",
        deadline: datetime,
    ) -> None:
        """Reads the next piece while S3 still takes the one before."""
        under_way: list[tuple[Future[Part], Piece]] = []

        def settle(limit: int) -> None:
            while len(under_way) > limit:
                future, piece = under_way.pop(0)
                while wait([future], RENEW_EVERY.total_seconds()).not_done:  # ends: a PUT has time-outs
                    lease.renew()
                self.repository.save_part(upload_id, future.result(), self.now())
                piece.free()
                moved.bytes += len(piece.data)
                lease.renew()
                self.outcomes.emit([self._updated(event, upload_id)])

        with ThreadPoolExecutor(UPLOADS_AT_ONCE) as pool:
            try:
                for piece in pieces:
                    if piece.number > MAX_PARTS:
                        raise Permanent(
                            Code.SIZE_LIMIT_EXCEEDED,
                            f"The export has at least {moved.bytes} bytes; "
                            f"as a stream the limit is {MAX_PARTS * self.part_size} bytes.",
                        )
                    settle(UPLOADS_AT_ONCE - 1)
                    future = pool.submit(self._put, event, key, upload_id, piece, deadline)
                    under_way.append((future, piece))
                settle(0)
            finally:
                wait([future for future, _ in under_way])

    def _put(
        self, event: UploadJobCreated, key: str, upload_id: str, piece: Piece, deadline: datetime
    ) -> Part:
        """Sent again from memory if S3 stumbles: the stream itself could only be read from its start."""
        return in_place(
            lambda: self.storage.put_held_part(
                key, upload_id, piece.number, piece.data, time_left(deadline, self.now)
            ),
            event,
            deadline,
            self.now,
        )

    def _adopt(self, event: UploadJobCreated, owner: str, upload_id: str) -> None:
        upload = Upload(upload_id=upload_id, attempt=event.attempt)
        adopted = self.repository.change(
            event.job_id,
            lambda job: transitions.adopt_upload(
                job, event.attempt, event.provider, upload, owner, self.now(), self.outcomes.policy
            ),
        )
        if adopted is None:
            raise TaskEnded

    def _end(self, event: UploadJobCreated, owner: str, plan: Plan) -> None:
        ended = self.repository.change(
            event.job_id,
            lambda job: transitions.end_stream(
                job, event.attempt, event.provider, owner, plan, self.now(), self.outcomes.policy
            ),
        )
        if ended is None:
            raise TaskEnded

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

    def _plan(self, export: Export, moved: int) -> Plan:
        if export.size is not None and moved != export.size:
            raise Transient(f"The export ended after {moved} of {export.size} bytes.")
        return Plan(size=moved, part_size=self.part_size, first_size=self.part_size)

    @staticmethod
    def _updated(event: UploadJobCreated, upload_id: str) -> PartUpdated:
        return event.follow(PartUpdated, upload_id=upload_id)


@dataclass
class _Moved:
    bytes: int = 0


class _Watched:
    """Counts what is read against the size limit, keeps the lease of a slow stream, and stops in time."""

    def __init__(
        self,
        export: Export,
        limit: int,
        stop_at: datetime,
        now: Callable[[], datetime],
        keep_lease: Callable[[], None],
    ) -> None:
        self._export = export
        self._limit = limit
        self._stop_at = stop_at
        self._now = now
        self._keep_lease = keep_lease
        self._read = 0

    def readinto(self, buffer: memoryview) -> int:
        if self._now() >= self._stop_at:
            raise OutOfTime
        self._keep_lease()
        count = self._export.readinto(buffer)
        self._read += count
        check_size(self._read, self._limit, at_least=True)
        return count
