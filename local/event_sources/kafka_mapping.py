"""The Kafka event source mapping of a local run: reads a topic and invokes a function with its records.

Behaves as the Lambda developer guide describes for Kafka ("Lambda event source mappings", "Configuring error
handling controls for Kafka event sources", "Using a Kafka topic as an on-failure destination"): one consumer
group a mapping, each partition in order with at most one invocation in flight, offsets committed only after
success, retries with backoff, then the on-failure destination.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from typing import Any

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import CommitFailedError, KafkaError
from kafka.structs import OffsetAndMetadata

from ..template.model import KafkaMapping
from .kafka_batches import Filters, Record
from .kafka_delivery import MAX_IN_FLIGHT, Delivery
from .kafka_partitions import Partitions

log = logging.getLogger("kafka")

# How late a commit or a stop may be, with and without a batch in flight; records do not wait for it.
_POLL_SECONDS = 0.25
_IDLE_POLL_SECONDS = 1.0
_FETCH_WAIT_MS = 1000  # the broker answers a fetch as soon as there is one byte
_RECONNECT_SECONDS = (0.2, 5.0)
_START = {"TRIM_HORIZON": "earliest", "LATEST": "latest"}


@dataclass(frozen=True)
class Status:
    """What a mapping does now. `lag` is records not yet done by partition, None where not known yet.

    `held_back` are the partitions that are not read on until fewer of their records wait.
    """

    name: str
    function: str
    topic: str
    lag: dict[int, int | None]
    held_back: list[int]
    in_flight: int
    invocations: int
    retries: int
    errors: int
    last_error: str | None
    dead_letters: int


class EventSourceMapping:
    """One running event source mapping."""

    def __init__(
        self,
        mapping: KafkaMapping,
        bootstrap_servers: str,
        lambda_endpoint: str,
        *,
        function_timeout: float,
        backoff_seconds: tuple[float, float] = (0.2, 10.0),
    ) -> None:
        """`function_timeout` in seconds; `backoff_seconds` are the first and the longest wait of a retry.

        Raises ValueError for filter criteria or a starting position that are not supported.
        """
        if mapping.starting_position not in _START:
            raise ValueError(f"{mapping.name}: StartingPosition must be one of {', '.join(_START)}.")
        if mapping.on_failure_topic == mapping.topic:
            raise ValueError(
                f"{mapping.name}: the on-failure destination is the topic {mapping.topic} itself."
            )
        self.mapping = mapping
        self._bootstrap_servers = bootstrap_servers
        self._stop = threading.Event()
        self._broken = threading.Event()
        self._delivery = Delivery(
            mapping, bootstrap_servers, lambda_endpoint, function_timeout, backoff_seconds, self._stop
        )
        self._lock = threading.Lock()  # guards _partitions, _in_flight, _lag, _held_back
        self._partitions = Partitions(mapping.batch_size, mapping.window_seconds, Filters(mapping.filters))
        self._in_flight = 0
        self._lag: dict[int, int | None] = {}
        self._held_back: set[int] = set()
        self._idle = threading.Condition(self._lock)
        self._thread = threading.Thread(target=self._run, name=f"mapping-{mapping.name}", daemon=True)

    def start(self) -> None:
        """Begin to consume, once the broker can be reached."""
        self._thread.start()

    def stop(self, limit: float = 5.0) -> None:
        """Stop consuming; invocations in flight have `limit` seconds to end, else they are redelivered."""
        self._stop.set()
        with self._idle:
            self._idle.wait_for(lambda: self._in_flight == 0, limit)
        self._thread.join(limit)
        self._delivery.close()

    def status(self) -> Status:
        """A snapshot for the status endpoint and for tests."""
        counts = self._delivery.counts
        with self._lock:
            return Status(
                name=self.mapping.name,
                function=self.mapping.function,
                topic=self.mapping.topic,
                lag=dict(self._lag),
                held_back=sorted(self._held_back),
                in_flight=self._in_flight,
                invocations=counts.invocations,
                retries=counts.retries,
                errors=counts.errors,
                last_error=counts.last_error,
                dead_letters=counts.dead_letters,
            )

    def _run(self) -> None:
        """Consume until stopped; a consumer that breaks is replaced."""
        wait, longest = _RECONNECT_SECONDS
        while not self._stop.is_set():
            consumer = None
            try:
                consumer = self._connect()
                self._broken.clear()
                while not self._stop.is_set() and not self._broken.is_set():
                    self._turn(consumer)
                    wait = _RECONNECT_SECONDS[0]
                self._commit(consumer)
                with self._idle:  # what is in flight may end and be committed too
                    self._idle.wait_for(lambda: self._in_flight == 0, 5.0)
                self._commit(consumer)
            except KafkaError as error:
                self._delivery.failed(f"Kafka at {self._bootstrap_servers}: {error!r}")
                self._stop.wait(wait)
                wait = min(wait * 2, longest)
            except Exception:
                # A bug must not end the mapping in silence; the log has the traceback.
                log.exception("%s: unexpected error, the mapping starts again", self.mapping.name)
                self._stop.wait(longest)
            finally:
                if consumer is not None:
                    _close(consumer)

    def _connect(self) -> KafkaConsumer:
        consumer = KafkaConsumer(
            bootstrap_servers=self._bootstrap_servers,
            group_id=self.mapping.consumer_group,
            client_id=self.mapping.name,
            # A static member takes its partitions back at once, also after kill -9.
            group_instance_id=self.mapping.name,
            auto_offset_reset=_START[self.mapping.starting_position],
            enable_auto_commit=False,
            bootstrap_timeout_ms=2000,
            fetch_max_wait_ms=_FETCH_WAIT_MS,
            reconnect_backoff_max_ms=1000,
            session_timeout_ms=10_000,
            metrics_enabled=False,
        )
        consumer.subscribe([self.mapping.topic])
        return consumer

    def _turn(self, consumer: KafkaConsumer) -> None:
        with self._lock:
            longest = _POLL_SECONDS if self._in_flight else _IDLE_POLL_SECONDS
            wait = min(longest, self._partitions.next_due(time.monotonic()) or longest)
        _unpark(consumer)
        polled = consumer.poll(timeout_ms=int(wait * 1000) + 1)
        with self._lock:
            for partition, records in polled.items():
                end = consumer.highwater(partition)
                self._partitions.take(partition.partition, map(_record, records), end, time.monotonic())
            self._dispatch()
            self._hold_back(consumer)
        self._commit(consumer)
        self._measure_lag(consumer)

    def _dispatch(self) -> None:
        """Start a thread for each batch that is due. Needs the lock."""
        while self._in_flight < MAX_IN_FLIGHT and not self._stop.is_set() and not self._broken.is_set():
            batch = self._partitions.next_batch(time.monotonic())
            if not batch:
                return
            self._in_flight += 1
            threading.Thread(target=self._deliver, args=(batch,), daemon=True).start()

    def _deliver(self, batch: list[Record]) -> None:
        """Runs in a thread of its own until the batch is done, or the mapping stops."""
        finished = False
        try:
            finished = self._delivery.deliver(batch, self._progress)
        except Exception:
            # Only a bug gets here. The log has the traceback, and all that is not committed is read again.
            log.exception("%s: a batch was given up", self.mapping.name)
            self._broken.set()
        finally:
            with self._idle:
                self._in_flight -= 1
                self._partitions.finish(batch, all_done=finished)
                if self._broken.is_set():
                    self._partitions.forget(batch)
                self._idle.notify_all()
                self._dispatch()

    def _progress(self, number: int, done: int) -> None:
        with self._lock:
            self._partitions.progress(number, done)

    def _hold_back(self, consumer: KafkaConsumer) -> None:
        """Stop reading what is full, go on with what has room."""
        paused = consumer.paused()
        for partition in consumer.assignment():
            known = self._partitions[partition.partition]
            if known.full and partition not in paused:
                consumer.pause(partition)
            elif known.has_room and partition in paused:
                consumer.resume(partition)
        self._held_back = {partition.partition for partition in consumer.paused()}

    def _commit(self, consumer: KafkaConsumer) -> None:
        with self._lock:
            done = self._partitions.uncommitted()
        if not done:
            return
        offsets = {
            TopicPartition(self.mapping.topic, n): OffsetAndMetadata(o, "", -1) for n, o in done.items()
        }
        try:
            consumer.commit(offsets, timeout_ms=5000)
        except CommitFailedError as error:  # another member owns them by now, and delivers them again
            self._delivery.failed(f"the group moved on before a commit: {error}")
        with self._lock:
            for number, offset in done.items():
                self._partitions[number].committed = offset

    def _measure_lag(self, consumer: KafkaConsumer) -> None:
        lag: dict[int, int | None] = {}
        for partition in consumer.assignment():
            end = consumer.highwater(partition)
            with self._lock:
                low = self._partitions[partition.partition].first_undone()
            if end is not None and low is None:  # nothing was read yet, so Kafka's own position tells
                low = consumer.position(partition, timeout_ms=1000)
            lag[partition.partition] = None if end is None or low is None else max(0, end - low)
        with self._lock:
            self._lag = lag


def _unpark(consumer: KafkaConsumer) -> None:
    """Let the consumer find again what it had read of a partition before that was paused.

    kafka-python 3.0.12 looks for it only while its current records are None, but leaves them drained, which
    is false and not None: without this a resumed partition stands still until another one has data.
    """
    fetcher = consumer._fetcher
    if not fetcher._next_partition_records:
        fetcher._next_partition_records = None


def _record(from_kafka: Any) -> Record:
    return Record(
        topic=from_kafka.topic,
        partition=from_kafka.partition,
        offset=from_kafka.offset,
        timestamp=from_kafka.timestamp,
        timestamp_type=from_kafka.timestamp_type,
        key=from_kafka.key,
        value=from_kafka.value,
        headers=tuple(from_kafka.headers or ()),
    )


def _close(consumer: KafkaConsumer) -> None:
    try:
        consumer.close(autocommit=False, timeout_ms=2000)
    except KafkaError as error:
        log.warning("the consumer did not close well: %s", error)
