"""Delivers one batch of a Kafka event source mapping: invocation, retries, on-failure destination."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from kafka import KafkaProducer
from kafka.errors import KafkaError

from ..lambda_runtime.client import lambda_client
from ..template.model import KafkaMapping
from .kafka_batches import MalformedResponse, Record, from_lowest_failure, reported_failures, to_event

log = logging.getLogger("kafka")

MAX_IN_FLIGHT = 8  # invocations of one mapping at once
_MARGIN_SECONDS = (
    35.0  # waiting for an environment, a cold start and the answer's way, besides the function's timeout
)

Progress = Callable[[int, int], None]  # (partition, offset): everything below the offset is done


class _NotInvoked(Exception):
    """The function didn't run: throttled, or the Lambda service can't be reached. Costs no retry attempt."""


class _Failed(Exception):
    """The function ran and failed, or refuses this batch."""


@dataclass(frozen=True)
class Counts:
    """What a mapping did since its start."""

    invocations: int = 0
    retries: int = 0
    errors: int = 0
    dead_letters: int = 0
    last_error: str | None = None


class Delivery:
    """Invokes one mapping's function; used by several threads at once."""

    def __init__(
        self,
        mapping: KafkaMapping,
        bootstrap_servers: str,
        lambda_endpoint: str,
        function_timeout: float,
        backoff_seconds: tuple[float, float],
        stop: threading.Event,
    ) -> None:
        self._mapping = mapping
        self._bootstrap_servers = bootstrap_servers
        self._first_wait, self._longest_wait = backoff_seconds
        self._stop = stop
        self._client = lambda_client(
            lambda_endpoint, read_timeout=function_timeout + _MARGIN_SECONDS, connections=MAX_IN_FLIGHT
        )
        self._lock = threading.Lock()  # guards counts and _producer
        self._producer: KafkaProducer | None = None
        self.counts = Counts()

    def close(self) -> None:
        """Close what `deliver` opened."""
        self._client.close()
        with self._lock:
            self._drop_producer()

    def failed(self, error: str) -> None:
        """Count an error and log it, once while it stays the same."""
        level = logging.DEBUG if error == self.counts.last_error else logging.WARNING
        log.log(level, "%s: %s", self._mapping.name, error)
        self._count(errors=1, error=error)

    def deliver(self, batch: Sequence[Record], progress: Progress, attempt: int = 0) -> bool:
        """Invoke until all of `batch` is done or given to the on-failure destination, telling `progress`.

        `batch` is in order of offset within each partition. False if the mapping stopped before the end.
        """
        wait = self._first_wait
        while True:
            failed: set[tuple[int, int]] | None = None  # None: all of the batch
            try:
                failed = self._invoke(batch)
                remaining = from_lowest_failure(batch, failed)
                error = f"{len(failed)} of {len(batch)} records were reported as failed"
            except _NotInvoked as not_invoked:
                self.failed(str(not_invoked))
                if self._stop.wait(wait):
                    return False
                wait = min(wait * 2, self._longest_wait)
                continue
            except _Failed as failure:
                remaining, error = list(batch), str(failure)
            wait = self._first_wait
            _report_progress(progress, batch, remaining)
            if not remaining:
                return True
            self.failed(f"{_span(remaining)}: {error}")
            if failed is None and self._mapping.bisect and len(batch) > 1:
                # Splitting doesn't count as a retry attempt, as for the other stream sources.
                middle = len(batch) // 2
                halves = (batch[:middle], batch[middle:])
                return all(self.deliver(half, progress, attempt) for half in halves)
            if attempt == self._mapping.max_retries:
                dead = [r for r in remaining if failed is None or (r.partition, r.offset) in failed]
                if not self._give_up(dead, error, attempt + 1):
                    return False
                _report_progress(progress, remaining, [])
                return True
            if self._stop.wait(min(self._first_wait * 2 ** min(attempt, 30), self._longest_wait)):
                return False
            attempt += 1
            self._count(retries=1)
            batch = remaining

    def _invoke(self, batch: Sequence[Record]) -> set[tuple[int, int]]:
        name = self._mapping.function
        self._count(invocations=1)
        try:
            response = self._client.invoke(
                FunctionName=name, Payload=to_event(batch, self._bootstrap_servers)
            )
            answer = response["Payload"].read()
        except ClientError as error:
            status = error.response["ResponseMetadata"]["HTTPStatusCode"]
            if status == 429 or status >= 500:
                raise _NotInvoked(f"{name} was not invoked: {error}") from error
            raise _Failed(f"{name} was refused the batch: {error}") from error
        except BotoCoreError as error:
            raise _NotInvoked(f"{name} was not invoked, is the Lambda service running? {error}") from error
        if "FunctionError" in response:
            raise _Failed(f"{name} failed: {_message(answer)}")
        if not self._mapping.report_item_failures:
            return set()
        try:
            return reported_failures(answer, batch)
        except MalformedResponse as error:
            raise _Failed(f"{name}: {error}") from error

    def _give_up(self, records: Sequence[Record], error: str, invocations: int) -> bool:
        """Write the records to the on-failure destination, however long that takes; False if stopped."""
        topic = self._mapping.on_failure_topic
        if topic is None:
            log.error("%s: discarded after %d invocations, there is no on-failure destination: %s: %s",
                      self._mapping.name, invocations, _span(records), error)  # fmt: skip
            self._count(dead_letters=len(records))
            return True
        wait = self._first_wait
        while True:
            try:
                with self._lock:
                    self._write(topic, records, error, invocations)
                break
            except KafkaError as kafka_error:
                self.failed(f"the on-failure destination {topic} took no record: {kafka_error!r}")
                if self._stop.wait(wait):
                    return False
                wait = min(wait * 2, self._longest_wait)
        log.error("%s: to %s after %d invocations: %s: %s",
                  self._mapping.name, topic, invocations, _span(records), error)  # fmt: skip
        self._count(dead_letters=len(records))
        return True

    def _write(self, topic: str, records: Sequence[Record], error: str, invocations: int) -> None:
        """As AWS does, the record itself with headers that say why.

        AWS doesn't document their names: these are those of its JSON document for the other destinations.
        """
        try:
            if self._producer is None:
                self._producer = KafkaProducer(
                    bootstrap_servers=self._bootstrap_servers,
                    acks="all",
                    bootstrap_timeout_ms=3000,
                    max_block_ms=3000,
                    request_timeout_ms=3000,
                    delivery_timeout_ms=5000,
                )
            futures = []
            for record in records:
                facts = {
                    "condition": "RetryAttemptsExhausted",
                    "functionArn": self._mapping.function,
                    "approximateInvokeCount": invocations,
                    "errorMessage": error,
                    "topic": record.topic,
                    "partition": record.partition,
                    "offset": record.offset,
                    "timestamp": record.timestamp,
                }
                headers = [*record.headers, *((name, str(value).encode()) for name, value in facts.items())]
                futures.append(
                    self._producer.send(topic, value=record.value, key=record.key, headers=headers)
                )
            for future in futures:
                future.get(10)
        except KafkaError:
            self._drop_producer()
            raise

    def _drop_producer(self) -> None:
        if self._producer is not None:
            self._producer.close(timeout=1)
            self._producer = None

    def _count(self, *, error: str | None = None, **more: int) -> None:
        with self._lock:
            added: dict[str, Any] = {name: getattr(self.counts, name) + value for name, value in more.items()}
            self.counts = replace(self.counts, **added, last_error=error or self.counts.last_error)


def _report_progress(progress: Progress, batch: Sequence[Record], remaining: Sequence[Record]) -> None:
    done = {record.partition: record.offset + 1 for record in batch}
    done |= {record.partition: record.offset for record in reversed(remaining)}
    for partition, offset in done.items():
        progress(partition, offset)


def _span(records: Sequence[Record]) -> str:
    """The records' partitions and offsets, for a log line."""
    offsets: dict[str, list[int]] = {}
    for record in records:
        offsets.setdefault(f"{record.topic}-{record.partition}", []).append(record.offset)
    return ", ".join(f"{name}@{min(some)}..{max(some)}" for name, some in offsets.items())


def _message(answer: bytes) -> str:
    try:
        failure = json.loads(answer)
        return f"{failure.get('errorType', 'error')}: {failure.get('errorMessage', '')}"
    except (ValueError, AttributeError):
        return answer[:500].decode(errors="replace")
