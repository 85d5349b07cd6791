"""State first, event second."""

from collections.abc import Sequence

from ..adapters.bus import Bus
from ..domain.errors import BusUnavailable
from ..domain.events import TaskEvent
from ..telemetry import about, count, logger


def emit(bus: Bus, events: Sequence[TaskEvent]) -> None:
    """Emits; if Kafka does not take them, the sweep will (I8)."""
    try:
        bus.emit(events)
    except BusUnavailable as error:
        count("EventsLost", len(events))
        logger.warning(
            "events left to the sweep", extra={**about(events[0]), "events": len(events), "error": str(error)}
        )
