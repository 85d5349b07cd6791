"""How large an export may be."""

from ..domain.errors import Permanent
from ..domain.job import Job
from ..domain.plan import MAX_OBJECT_SIZE
from ..domain.provider import Provider
from ..domain.reason import Code


def size_limit(job: Job, provider: Provider, of_service: int | None) -> int:
    """The lowest of the limits (bytes) that the request, the provider, the service and S3 set."""
    return min(limit for limit in (job.max_bytes, provider.max_bytes, of_service, MAX_OBJECT_SIZE) if limit)


def check_size(size: int, limit: int, *, at_least: bool = False) -> None:
    """Raises Permanent with both numbers if the export is over the limit."""
    if size > limit:
        known = f"at least {size}" if at_least else str(size)
        message = f"The export has {known} bytes; the limit is {limit} bytes."
        raise Permanent(Code.SIZE_LIMIT_EXCEEDED, message)


def check_room(read: int, room: int | None) -> None:
    """Raises Permanent if more bytes were read than the user's quota leaves; None: it leaves any number."""
    if room is not None and read > room:
        message = (
            f"The export has at least {read} bytes, but only {room} of what the user may have were left."
        )
        raise Permanent(Code.QUOTA_EXCEEDED, message)
