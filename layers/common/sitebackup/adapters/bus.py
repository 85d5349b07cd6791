"""Events to Kafka (or Amazon MSK)."""

from collections.abc import Sequence
from threading import Lock
from typing import Any, Protocol

import msgspec
from kafka import KafkaProducer
from kafka.errors import KafkaError

from ..domain.errors import BusUnavailable
from ..domain.events import TaskEvent

TIMEOUT_SECONDS = 2.5


class Bus(Protocol):
    """Where events go."""

    def emit(self, events: Sequence[TaskEvent]) -> None:
        """Returns once every event is stored by the broker. Raises BusUnavailable."""


class KafkaBus:
    """Acknowledged by all in-sync replicas, in a few seconds or not at all: the sweep emits what is lost."""

    def __init__(self, bootstrap_servers: str, security: dict[str, Any]) -> None:
        self._configuration = {
            "bootstrap_servers": bootstrap_servers.split(","),
            "acks": "all",
            "linger_ms": 0,
            "retries": 3,
            "reconnect_backoff_max_ms": 1000,
            "max_block_ms": int(TIMEOUT_SECONDS * 1000),
            "bootstrap_timeout_ms": int(TIMEOUT_SECONDS * 1000),
            "request_timeout_ms": int(TIMEOUT_SECONDS * 1000),
            "delivery_timeout_ms": int(TIMEOUT_SECONDS * 1000) + 500,
            **security,
        }
        self._producer: KafkaProducer | None = None
        self._building = Lock()

    def emit(self, events: Sequence[TaskEvent]) -> None:
        """Raises BusUnavailable if any event may not have been stored."""
        if not events:
            return
        try:
            producer = self._connected()
            sent = [
                producer.send(
                    event.topic,
                    key=event.key.encode(),
                    value=msgspec.json.encode(event),
                    headers=[(name, value.encode()) for name, value in event.correlation.items()],
                )
                for event in events
            ]
            for future in sent:
                future.get(timeout=TIMEOUT_SECONDS + 1)
        except KafkaError as error:
            raise BusUnavailable(f"Kafka does not take events: {type(error).__name__}.") from error

    def _connected(self) -> KafkaProducer:
        """Built on first use: the constructor waits for a broker, and creating a job must not depend on one.

        Once for all threads: a producer that is thrown away silences the log of those that stay.
        """
        with self._building:
            if self._producer is None:
                self._producer = KafkaProducer(**self._configuration)
            return self._producer


def msk_iam() -> dict[str, Any]:
    """The settings of a client that proves itself to Amazon MSK by its IAM role."""
    return {"security_protocol": "SASL_SSL", "sasl_mechanism": "AWS_MSK_IAM"}
