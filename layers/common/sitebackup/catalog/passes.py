"""One invocation of work that takes many: it goes on from a marker, and ends with the next one."""

from collections.abc import Callable
from datetime import datetime

from ..domain.errors import Transient, Unavailable
from ..telemetry import logger

type Step = Callable[[str], str | None]
"""Works from a marker on, and says where to go on; None: all is done. Safe to repeat."""


def work_through(
    step: Step, marker: str, deadline: datetime, now: Callable[[], datetime], enough: Callable[[], bool]
) -> str | None:
    """The marker to go on from, once the time is up or it is `enough`; None: all is done.

    What S3 or MongoDB does not answer ends it as well, unless nothing was done yet. Then it raises Transient or
    Unavailable.
    """
    place: str | None = marker
    while place is not None and (place == marker or (now() < deadline and not enough())):
        try:
            place = step(place)
        except (Transient, Unavailable) as error:
            if place == marker:
                raise
            logger.warning("to be gone on with", extra={"marker": place, "error": str(error)})
            break
    return place
