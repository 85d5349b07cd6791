"""Where a Kafka event source mapping stands in each partition, and which batch is due next; no I/O, no clock."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from .kafka_batches import MAX_BATCH_BYTES, Filters, Record, count_that_fit

# Fetching goes on while a partition's batch is in flight: a partition that is paused and resumed would wait
# until the long poll of the others ends. Past this many records, or bytes, it is paused after all.
_MAX_PENDING = 1000
_MAX_PENDING_BYTES = 2 * MAX_BATCH_BYTES


@dataclass
class Partition:
    """One partition of the topic. Offsets are of the next record: all below `done` is done."""

    pending: deque[Record] = field(default_factory=deque)
    pending_bytes: int = 0
    due: float = 0.0  # when the batching window of the first pending record ends
    busy: bool = False  # a batch is in flight
    position: int | None = None  # the next offset that was not read yet
    done: int | None = None
    committed: int | None = None

    @property
    def full(self) -> bool:
        """Holds as much as it may: nothing is to be read for now."""
        return len(self.pending) >= _MAX_PENDING or self.pending_bytes >= _MAX_PENDING_BYTES

    @property
    def has_room(self) -> bool:
        """Holds less than half of it: reading may go on."""
        return len(self.pending) < _MAX_PENDING // 2 and self.pending_bytes < _MAX_PENDING_BYTES // 2

    def first_undone(self) -> int | None:
        """The offset from which lag counts; None before anything was read."""
        return self.done if self.busy or self.pending else self.position


class Partitions(dict[int, Partition]):
    """All partitions of one mapping, by number. Not thread-safe."""

    def __init__(self, batch_size: int, window_seconds: float, filters: Filters) -> None:
        super().__init__()
        self._batch_size = batch_size
        self._window_seconds = window_seconds
        self._filters = filters

    def __missing__(self, number: int) -> Partition:
        self[number] = Partition()
        return self[number]

    def take(self, number: int, records: Iterable[Record], end: int, now: float) -> None:
        """Add records just read, without those already known or filtered out; `end` is the partition's end.

        After a rebalance or a reconnection the consumer goes on where it was or begins at the committed
        offset: what it then reads again is pending, in flight or done here, and is dropped.
        """
        known = self[number]
        if known.position is not None and end < known.position and not known.busy:
            known = self[number] = Partition()  # the topic was deleted and made anew
        for record in records:
            if known.position is not None and record.offset < known.position:
                continue
            if known.done is None:
                known.done = known.committed = record.offset
            known.position = record.offset + 1
            if self._filters.passes(record):
                if not known.pending:
                    known.due = now + self._window_seconds
                known.pending.append(record)
                known.pending_bytes += len(record.encoded)
            elif not known.pending and not known.busy:
                known.done = known.position

    def next_batch(self, now: float) -> list[Record]:
        """The next batch that is due, its partitions marked busy; empty if there is none.

        A batch is cut by BatchSize and payload. Partitions share one as long as each fits as a whole, so that
        few records mean few invocations and many records mean many at once.
        """
        batch: list[Record] = []
        room_bytes = MAX_BATCH_BYTES
        for known in self.values():
            if known.busy or not known.pending:
                continue
            enough = len(known.pending) >= self._batch_size or known.pending_bytes >= MAX_BATCH_BYTES
            if not enough and known.due > now:
                continue
            count = count_that_fit(known.pending, self._batch_size - len(batch), room_bytes)
            if batch and count < len(known.pending):
                continue
            taken = [known.pending.popleft() for _ in range(max(1, count))]
            taken_bytes = sum(len(record.encoded) for record in taken)
            known.pending_bytes -= taken_bytes
            room_bytes -= taken_bytes + len(taken)
            known.busy = True
            batch += taken
        return batch

    def progress(self, number: int, done: int) -> None:
        """A batch in flight is done up to here."""
        self[number].done = max(done, self[number].done or 0)

    def finish(self, batch: Sequence[Record], *, all_done: bool) -> None:
        """The batch is no longer in flight."""
        for number in {record.partition for record in batch}:
            known = self[number]
            known.busy = False
            if all_done and not known.pending:
                known.done = known.position  # records that were filtered out since are done too

    def forget(self, batch: Sequence[Record]) -> None:
        """The batch was given up: a new consumer reads its partitions again from their committed offsets."""
        for number in {record.partition for record in batch}:
            self[number] = Partition()

    def next_due(self, now: float) -> float | None:
        """Seconds until a batching window ends that still runs."""
        waits = [one.due - now for one in self.values() if one.pending and not one.busy and one.due > now]
        return min(waits, default=None)

    def uncommitted(self) -> dict[int, int]:
        """The offsets to commit."""
        return {
            number: known.done
            for number, known in self.items()
            if known.done is not None and known.done != known.committed
        }
