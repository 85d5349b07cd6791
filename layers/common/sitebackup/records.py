"""Kafka records in, partial batch responses out.

Event: https://docs.aws.amazon.com/lambda/latest/dg/with-msk.html
Response: https://docs.aws.amazon.com/lambda/latest/dg/kafka-retry-configurations.html
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec
from aws_lambda_powertools.utilities.data_classes import KafkaEvent
from aws_lambda_powertools.utilities.data_classes.kafka_event import KafkaEventRecord

from .domain.events import TaskEvent
from .telemetry import logger


@dataclass(frozen=True)
class Batch[E: TaskEvent]:
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


def read[E: TaskEvent](event: dict[str, Any], kind: type[E]) -> Batch[E]:
    """Decodes and validates every record of an `aws:kafka` event."""
    batch: Batch[E] = Batch([], [])
    for record in KafkaEvent(event).records:
        try:
            batch.good.append((record, msgspec.json.decode(record.decoded_value, type=kind)))
        except (msgspec.DecodeError, ValueError, KeyError) as error:
            where = {"topic": record.topic, "partition": record.partition, "offset": record.offset}
            logger.error("poison record", extra={**where, "error": str(error)})
            batch.poison.append(record)
    return batch
