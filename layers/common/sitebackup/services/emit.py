"""State first, event second."""

from collections.abc import Sequence

from aws_lambda_powertools.metrics import MetricUnit

from ..adapters.bus import Bus
from ..domain.errors import BusUnavailable
from ..domain.events import TaskEvent
from ..telemetry import logger, metrics


def emit(bus: Bus, events: Sequence[TaskEvent]) -> None:
    """Emits; if Kafka does not take them, the sweep will (I8)."""
    try:
        bus.emit(events)
    except BusUnavailable as error:
        metrics.add_metric("EventsLost", MetricUnit.Count, len(events))
        logger.warning("events left to the sweep", extra={"events": len(events), "error": str(error)})
