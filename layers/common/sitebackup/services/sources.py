"""Sources wrapped around an export while it is moved."""

import time
from collections.abc import Callable
from datetime import datetime, timedelta
from types import TracebackType
from typing import Self

from ..adapters.exports import Export
from ..adapters.source import Source, fill
from ..adapters.time_limits import TimeLeft
from ..domain.errors import Permanent, Transient
from ..domain.events import TaskEvent
from ..domain.job import Job
from ..domain.plan import MAX_OBJECT_SIZE
from ..domain.provider import Provider
from ..domain.reason import Code
from ..telemetry import about, count, logger

LOOK_EVERY = timedelta(seconds=3)
PAUSES = (0.0, 1.0)
"""Seconds before a range is opened again: so often without a new byte.

S3 is said to bear a body that pauses for about 20 s.
"""


class TaskEnded(Exception):
    """The task was cancelled, failed or taken over while its export was read."""


class Bounded:
    """Reads on only while there is time and the task wants it.

    So a slow export ends as an outcome and not as a killed function, and does not outlive its job.
    """

    def __init__(
        self, source: Source, until: datetime, now: Callable[[], datetime], alive: Callable[[], bool]
    ) -> None:
        self._source = source
        self._until = until
        self._now = now
        self._alive = alive
        self._look_at = now() + LOOK_EVERY

    def readinto(self, buffer: memoryview) -> int:
        """Raises Transient once the time is over, TaskEnded once a look every few seconds shows that."""
        now = self._now()
        if now >= self._until:
            raise Transient("The export was too slow.")
        if now >= self._look_at:
            if not self._alive():
                raise TaskEnded
            self._look_at = now + LOOK_EVERY
        return self._source.readinto(buffer)


class ResumingReader:
    """Reads a range on at the byte where its connection broke.

    So a break costs a request, and not the bytes of the range that S3 has already.
    """

    def __init__(
        self, event: TaskEvent, first: Export, reopen: Callable[[int], Export], time_left: TimeLeft
    ) -> None:
        """`reopen` opens what follows so many bytes of the range, under its plan's validator."""
        self._event = event
        self._export = first
        self._reopen = reopen
        self._time_left = time_left
        self._read = 0
        self._breaks = 0

    def readinto(self, buffer: memoryview) -> int:
        """Raises Transient after several breaks without a new byte, or what the opening raises."""
        while True:
            try:
                if self._breaks:
                    self._export.close()
                    self._export = self._reopen(self._read)
                count = self._export.readinto(buffer)
            except Transient as error:
                self._wait(error)
                continue
            self._read += count
            self._breaks = 0
            return count

    def _wait(self, error: Transient) -> None:
        """Until it is worth another try; raises the error if it is not, or if the provider names a time itself."""
        if self._breaks == len(PAUSES) or error.retry_after is not None:
            raise error
        pause = PAUSES[self._breaks]
        if pause >= self._time_left():
            raise error
        self._breaks += 1
        count("RangesResumed")
        logger.warning(
            "range goes on", extra={**about(self._event), "error": str(error), "bytes": self._read}
        )
        time.sleep(pause)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._export.close()


def hold(source: Source, length: int) -> memoryview:
    """Reads so many bytes into memory. Raises Transient if there are fewer, and what the source raises."""
    data = memoryview(bytearray(length))
    filled = fill(source, data)
    if filled < length:
        raise Transient(f"The export ended after {filled} of {length} bytes.")
    return data


def time_left(until: datetime, now: Callable[[], datetime]) -> TimeLeft:
    """What is left of an invocation whose work must be over by `until`."""
    return lambda: (until - now()).total_seconds()


def size_limit(job: Job, provider: Provider, of_service: int | None) -> int:
    """The lowest of the limits (bytes) that the request, the provider, the service and S3 set."""
    return min(limit for limit in (job.max_bytes, provider.max_bytes, of_service, MAX_OBJECT_SIZE) if limit)


def check_size(size: int, limit: int, *, at_least: bool = False) -> None:
    """Raises Permanent with both numbers if the export is over the limit."""
    if size > limit:
        known = f"at least {size}" if at_least else str(size)
        raise Permanent(
            Code.SIZE_LIMIT_EXCEEDED, f"The export has {known} bytes; the limit is {limit} bytes."
        )
