"""Kafka records in, partial batch responses out.

Event: https://docs.aws.amazon.com/lambda/latest/dg/with-msk.html
Response: https://docs.aws.amazon.com/lambda/latest/dg/kafka-retry-configurations.html
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import msgspec
from aws_lambda_powertools.utilities.data_classes import KafkaEvent
from aws_lambda_powertools.utilities.data_classes.kafka_event import KafkaEventRecord

from ..domain.errors import Conflict, Unavailable
from ..domain.events import Event
from ..domain.task_ref import CORRELATION
from ..telemetry import log_context, logger


@dataclass(frozen=True)
class Batch[E: Event]:
    """The records of one invocation; those that can't be read are failed from the start."""

    good: list[tuple[KafkaEventRecord, E]]
    poison: list[KafkaEventRecord]

    @property
    def events(self) -> list[E]:
        """What can be read."""
        return [event for _, event in self.good]

    def response(self, failed: Iterable[int]) -> dict[str, Any]:
        """Reports poison and the events at the `failed` positions: they end in the dead letters if that lasts."""
        records = self.poison + [self.good[position][0] for position in sorted(failed)]
        return {
            "batchItemFailures": [
                {
                    "itemIdentifier": {
                        "partition": f"{record.topic}-{record.partition}",
                        "offset": record.offset,
                    }
                }
                for record in records
            ]
        }

    def run(self, call: Callable[[E], None]) -> dict[str, Any]:
        """Calls once for each distinct event, and answers which records to deliver again.

        An error that nobody foresaw fails its own record and no other one.
        """
        failed: set[E] = set()
        for event in dict.fromkeys(self.events):
            try:
                call(event)
            except (Unavailable, Conflict) as error:
                logger.warning("outcome not stored", extra={**log_context(event.task), "error": str(error)})
                failed.add(event)
            except Exception:  # noqa: BLE001 - told in full, and the record ends in the dead letters
                logger.exception("unexpected error", extra=log_context(event.task))
                failed.add(event)
        return self.response(position for position, event in enumerate(self.events) if event in failed)


def read[E: Event](event: dict[str, Any], kind: type[E]) -> Batch[E]:
    """Decodes and validates every record of an `aws:kafka` event."""
    batch: Batch[E] = Batch([], [])
    for record in KafkaEvent(event).records:
        try:
            batch.good.append((record, msgspec.json.decode(record.decoded_value, type=kind)))
        except (msgspec.DecodeError, ValueError, TypeError, KeyError) as error:
            logger.error("poison record", extra={**_where(record), "error": str(error)})
            batch.poison.append(record)
    return batch


def _where(record: KafkaEventRecord) -> dict[str, Any]:
    """The record's place and, from its headers, what it is about: its value can't be read."""
    try:
        headers = {name: value.decode(errors="replace") for name, value in record.decoded_headers.items()}
    except (ValueError, TypeError, KeyError, AttributeError):
        headers = {}
    correlation = {name: headers[name] for name in CORRELATION if name in headers}
    return {"topic": record.topic, "partition": record.partition, "offset": record.offset, **correlation}
