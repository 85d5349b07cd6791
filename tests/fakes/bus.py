"""Kafka as a bag: a test delivers its events in any order, twice, or never."""

from collections.abc import Iterator, Sequence

import msgspec

from sitebackup.domain.events import Event, TaskEvent
from tests.fakes.faults import Fake, FaultInjector, no_faults


class MemoryBus(Fake):
    """Events that were emitted and not delivered."""

    port = "bus"

    def __init__(self, faults: FaultInjector = no_faults) -> None:
        super().__init__(faults)
        self.bag: list[Event] = []

    def emit(self, events: Sequence[Event]) -> None:
        if events:
            self.call("emit", lambda: self.bag.extend(map(_as_it_arrives, events)))

    @property
    def of_jobs(self) -> list[TaskEvent]:
        """Those about tasks of backups."""
        return [event for event in self.bag if isinstance(event, TaskEvent)]

    def drain(self) -> Iterator[Event]:
        """Every event, oldest first, and those that are emitted meanwhile."""
        while self.bag:
            yield self.bag.pop(0)


def _as_it_arrives[E: Event](event: E) -> E:
    """What is not encoded is not received."""
    return msgspec.json.decode(msgspec.json.encode(event), type=type(event))
