"""What an invocation has of the machine it runs on: time, threads, and bytes to read."""

import math
from collections.abc import Callable
from concurrent.futures import Executor
from datetime import datetime
from typing import NamedTuple, Protocol

type TimeLeft = Callable[[], float]
"""Seconds until the deadline of a call; not above 0 once it is over."""


def no_deadline() -> float:
    """For calls that nothing but their own time-outs limits."""
    return math.inf


class Clock(NamedTuple):
    """Time, as the use cases know it."""

    now: Callable[[], datetime]
    """UTC, in milliseconds."""
    monotonic: Callable[[], float]
    """Seconds, that no change of the clock disturbs."""
    sleep: Callable[[float], None]
    """Waits so many seconds."""

    def left_until(self, deadline: datetime) -> TimeLeft:
        """What is left of an invocation whose work must be over by then."""
        return lambda: (deadline - self.now()).total_seconds()


type Pool = Callable[[int], Executor]
"""Makes an executor of so many workers; it is used in a `with`, which waits for its work."""


class Reader(Protocol):
    """Where bytes are read from: an export, a range of one, or memory."""

    def readinto(self, buffer: memoryview) -> int:
        """Fills the front of `buffer` with what has come; 0 only at the end.

        Raises what the source of the bytes raises. After an error the next read may raise it again.
        """
