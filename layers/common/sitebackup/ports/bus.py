"""Where events go: Kafka."""

from collections.abc import Sequence
from typing import Protocol

from ..domain.events import Event


class EventBus(Protocol):
    """Where events go."""

    def emit(self, events: Sequence[Event]) -> None:
        """Returns once every event is stored by the brokers.

        Raises BusUnavailable if one may not be; then each may arrive once, twice or never (I7). Who emits leaves it
        to the sweep (I8).
        """
