"""Readers wrapped around an export while it is moved."""

from collections.abc import Callable
from datetime import timedelta
from types import TracebackType
from typing import Self

from ..domain.errors import TaskEnded, Transient
from ..domain.task_ref import TaskRef
from ..ports.providers import Export
from ..ports.runtime import Clock, Reader, TimeLeft
from ..telemetry import count, log_context, logger

LOOK_EVERY = timedelta(seconds=3)
PAUSES = (0.0, 1.0)
"""Seconds before a range is opened again: so often without a new byte.

S3 is said, though not by AWS, to close a body that pauses for about 20 s.
"""


def fill(source: Reader, buffer: memoryview) -> int:
    """Reads until the buffer is full or the source ends; returns how much was read."""
    filled = 0
    while filled < len(buffer):
        count = source.readinto(buffer[filled:])
        if count == 0:
            break
        filled += count
    return filled


def hold(source: Reader, length: int) -> memoryview:
    """Reads so many bytes into memory. Raises Transient if there are fewer, and what the source raises."""
    data = memoryview(bytearray(length))
    filled = fill(source, data)
    if filled < length:
        raise Transient(f"The export ended after {filled} of {length} bytes.")
    return data


class DeadlineReader:
    """Reads on only while there is time and the task wants it.

    So a slow export ends as an outcome and not as a killed function, and does not outlive its job.
    """

    def __init__(
        self, source: Reader, time_left: TimeLeft, clock: Clock, is_wanted: Callable[[], bool]
    ) -> None:
        self._source = source
        self._time_left = time_left
        self._now = clock.now
        self._is_wanted = is_wanted
        self._look_at = clock.now() + LOOK_EVERY

    def readinto(self, buffer: memoryview) -> int:
        """Raises Transient once the time is over, TaskEnded once a look every few seconds shows that."""
        if self._time_left() <= 0:
            raise Transient("The export was too slow.")
        now = self._now()
        if now >= self._look_at:
            if not self._is_wanted():
                raise TaskEnded
            self._look_at = now + LOOK_EVERY
        return self._source.readinto(buffer)


class ResumingReader:
    """Goes on reading a range at the byte where its connection broke.

    So a break costs a request, and not the bytes of the range that S3 has already.
    """

    def __init__(
        self,
        ref: TaskRef,
        first: Export,
        reopen: Callable[[int], Export],
        time_left: TimeLeft,
        sleep: Callable[[float], None],
    ) -> None:
        """`reopen` opens what follows so many bytes of the range, under its plan's validator."""
        self._ref = ref
        self._export = first
        self._reopen = reopen
        self._time_left = time_left
        self._sleep = sleep
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
            "range goes on", extra={**log_context(self._ref), "error": str(error), "bytes": self._read}
        )
        self._sleep(pause)

    def close(self) -> None:
        """Gives up what was not read."""
        self._export.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
