"""Sources wrapped around an export while it is moved."""

from collections.abc import Callable
from datetime import datetime, timedelta

from ..adapters.source import Source
from ..domain.errors import Permanent, Transient
from ..domain.job import Job
from ..domain.plan import MAX_OBJECT_SIZE
from ..domain.provider import Provider
from ..domain.reason import Code

LOOK_EVERY = timedelta(seconds=3)


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


class Held:
    """Bytes in memory as a source."""

    def __init__(self, data: memoryview) -> None:
        self._data = data

    def readinto(self, buffer: memoryview) -> int:
        """Copies what fits."""
        count = min(len(buffer), len(self._data))
        buffer[:count] = self._data[:count]
        self._data = self._data[count:]
        return count


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
