"""Events to Kafka (or Amazon MSK)."""

from collections.abc import Sequence
from threading import Lock, Timer
from time import time
from typing import Any

import msgspec
from kafka import KafkaProducer
from kafka.errors import KafkaError

from ..domain.errors import BusUnavailable
from ..domain.events import Event
from ..telemetry import logger
from .topics import key_of, topic_of

CONNECT_SECONDS = 5.0
"""For a new producer to learn of the brokers: TLS and IAM on a processor that has just started."""
DELIVERY_SECONDS = 3.0
"""For an event to be stored, however often it is sent meanwhile."""
ANSWER_SECONDS = 1.25
"""For one answer of a broker, so that a connection that is dead leaves time for another one."""
IDLE_SECONDS = 240.0
"""A producer that was idle for longer is replaced: a frozen environment notices nothing of what became of its
connections, and NAT gateways and load balancers forget a flow after 350 s."""
_CLOSE_AFTER_SECONDS = 2 * DELIVERY_SECONDS + 1
"""So long after a producer was replaced nobody can still be waiting for it."""


class KafkaBus:
    """An EventBus. All in-sync replicas acknowledge, in a few seconds or not at all.

    A producer that failed in whatever way is replaced, since kafka-python's keeps states from which it does not
    recover. It is not an idempotent one: an event may arrive twice (I7), and decision 0045 tells what it costs.
    """

    def __init__(self, bootstrap_servers: str, security: dict[str, Any]) -> None:
        self._configuration = {
            "bootstrap_servers": bootstrap_servers.split(","),
            "acks": "all",
            "enable_idempotence": False,
            "linger_ms": 0,
            "reconnect_backoff_max_ms": 1000,
            "max_block_ms": int(DELIVERY_SECONDS * 1000),
            "bootstrap_timeout_ms": int(CONNECT_SECONDS * 1000),
            "request_timeout_ms": int(ANSWER_SECONDS * 1000),
            "delivery_timeout_ms": int(DELIVERY_SECONDS * 1000),
            **security,
        }
        self._producer: KafkaProducer | None = None
        self._used_at = self._refused_at = time()
        self._lock = Lock()

    def emit(self, events: Sequence[Event]) -> None:
        if not events:
            return
        producer = None
        try:
            producer = self._connected()
            sent = [
                producer.send(
                    topic_of(event),
                    key=key_of(event).encode(),
                    value=msgspec.json.encode(event),
                    headers=[(name, value.encode()) for name, value in event.task.correlation.items()],
                )
                for event in events
            ]
            for future in sent:
                future.get(timeout=DELIVERY_SECONDS + 0.5)
        except KafkaError as error:
            self._replace(producer)
            raise BusUnavailable(f"Kafka does not take events: {type(error).__name__}.") from error

    def _connected(self) -> KafkaProducer:
        """Built on first use: the constructor waits for a broker, and creating a job must not depend on one.

        Once for all threads, and those that waited for one that could not be built do not try in their turn.
        """
        asked = time()
        if asked - self._used_at > IDLE_SECONDS:
            self._replace(self._producer)
        with self._lock:
            if self._producer is None:
                if self._refused_at > asked:
                    raise KafkaError("no broker answered another thread")
                try:
                    self._producer = KafkaProducer(**self._configuration)
                except KafkaError:
                    self._refused_at = time()
                    raise
            self._used_at = time()
            return self._producer

    def _replace(self, producer: KafkaProducer | None) -> None:
        """The next emit builds another one. This one is closed later and elsewhere, as closing waits for brokers."""
        with self._lock:
            if producer is None or producer is not self._producer:
                return
            self._producer = None
        closing = Timer(_CLOSE_AFTER_SECONDS, _close, [producer])
        closing.daemon = True
        closing.start()


def _close(producer: KafkaProducer) -> None:
    try:
        producer.close(timeout=DELIVERY_SECONDS)
    except KafkaError as error:
        logger.warning("a Kafka producer could not be closed", extra={"error": type(error).__name__})


def msk_iam() -> dict[str, Any]:
    """The settings of a client that proves itself to Amazon MSK by its IAM role."""
    return {"security_protocol": "SASL_SSL", "sasl_mechanism": "AWS_MSK_IAM"}
