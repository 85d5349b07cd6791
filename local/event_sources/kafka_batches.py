"""What a Kafka event source mapping sends to a function and reads from its answer; no I/O.

Lambda developer guide: "Using Lambda with Amazon MSK" (the event), "Batching behavior", "Configuring error
handling controls for Kafka event sources" (partial batch responses), "Filtering events" (the patterns).
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ..aws_account import ACCOUNT_ID, REGION
from ..lambda_runtime.client import MAX_EVENT_BYTES

MAX_BATCH_BYTES = MAX_EVENT_BYTES - 16 * 1024  # the rest is for the event around the records

CLUSTER_ARN = f"arn:aws:kafka:{REGION}:{ACCOUNT_ID}:cluster/local/00000000-0000-0000-0000-000000000000-1"
_TIMESTAMP_TYPES = {0: "CREATE_TIME", 1: "LOG_APPEND_TIME"}


class MalformedResponse(ValueError):
    """The answer is no partial batch response: the whole batch counts as failed."""


@dataclass(frozen=True)
class Record:
    """One record of a topic; the timestamp is in milliseconds."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    timestamp_type: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()

    @cached_property
    def encoded(self) -> bytes:
        """The record as it stands in the event: base64 key and value, header values as lists of bytes."""
        event = {
            "topic": self.topic,
            "partition": self.partition,
            "offset": self.offset,
            "timestamp": self.timestamp,
            "timestampType": _TIMESTAMP_TYPES.get(self.timestamp_type, "NO_TIMESTAMP_TYPE"),
            "key": _base64(self.key),
            "value": _base64(self.value),
            "headers": [{name: list(value or b"")} for name, value in self.headers],
        }
        return json.dumps({name: value for name, value in event.items() if value is not None}).encode()


def _base64(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data).decode()


def to_event(records: Iterable[Record], bootstrap_servers: str) -> bytes:
    """The event for these records, keyed by topic and partition, each partition in the given order."""
    groups: dict[str, list[bytes]] = {}
    for record in records:
        groups.setdefault(f"{record.topic}-{record.partition}", []).append(record.encoded)
    head = {
        "eventSource": "aws:kafka",
        "eventSourceArn": CLUSTER_ARN,
        "bootstrapServers": bootstrap_servers,
        "records": {},
    }
    body = b",".join(
        json.dumps(name).encode() + b":[" + b",".join(encoded) + b"]" for name, encoded in groups.items()
    )
    return json.dumps(head).encode().removesuffix(b"{}}") + b"{" + body + b"}}"


def count_that_fit(pending: Sequence[Record], room: int, room_bytes: int) -> int:
    """How many records from the front fit in `room` records and `room_bytes` bytes of payload."""
    size = 0
    for count, record in enumerate(pending):
        size += len(record.encoded) + 1
        if count == room or size > room_bytes:
            return count
    return len(pending)


def reported_failures(answer: bytes, batch: Sequence[Record]) -> set[tuple[int, int]]:
    """The (partition, offset) pairs that a partial batch response names as failed; empty for full success.

    Raises MalformedResponse. An empty or null answer, or an empty or null list, is full success; an item that
    is not exactly `{"itemIdentifier": {"partition": "<topic>-<number>", "offset": <number>}}` for a record of
    this batch makes the whole answer malformed.
    """
    try:
        response = json.loads(answer or b"null")
    except ValueError as error:
        raise MalformedResponse(f"the response is not JSON: {error}") from error
    if response in (None, "", {}):
        return set()
    if not isinstance(response, dict):
        raise MalformedResponse("the response is not an object with batchItemFailures")
    items = response.get("batchItemFailures")
    if items is None:
        return set()
    if not isinstance(items, list):
        raise MalformedResponse("batchItemFailures is not a list")
    known = {(f"{record.topic}-{record.partition}", record.offset): record.partition for record in batch}
    failed = set()
    for item in items:
        identifier = item.get("itemIdentifier") if isinstance(item, dict) else None
        if not isinstance(identifier, dict):
            raise MalformedResponse(f"a batch item failure has no itemIdentifier object: {item!r}")
        name, offset = identifier.get("partition"), identifier.get("offset")
        if not isinstance(name, str) or type(offset) is not int or (name, offset) not in known:
            raise MalformedResponse(f"an itemIdentifier names no record of the batch: {identifier!r}")
        failed.add((known[name, offset], offset))
    return failed


def from_lowest_failure(batch: Sequence[Record], failed: set[tuple[int, int]]) -> list[Record]:
    """The records to deliver again: of each partition those from its lowest failure on."""
    lowest: dict[int, int] = {}
    for partition, offset in failed:
        lowest[partition] = min(offset, lowest.get(partition, offset))
    return [r for r in batch if r.partition in lowest and r.offset >= lowest[r.partition]]


class Filters:
    """Filter criteria of a mapping: a record passes if any pattern matches; without patterns all pass.

    Of the pattern language only equality is supported: nested objects whose leaves are lists of values.
    """

    def __init__(self, patterns: Sequence[str]) -> None:
        """Raises ValueError for a pattern that is not JSON of that shape."""
        self._patterns = []
        for text in patterns:
            pattern = json.loads(text)
            if not isinstance(pattern, dict) or not set(pattern) <= {"key", "value"}:
                raise ValueError(f"The filter pattern {text} must be an object with `value`, `key` or both.")
            for part in pattern.values():
                _check(part, text)
            self._patterns.append(pattern)

    def passes(self, record: Record) -> bool:
        """Whether the function gets the record; one that is not JSON where a pattern needs JSON does not."""
        return not self._patterns or any(
            all(_part_matches(part, getattr(record, name)) for name, part in pattern.items())
            for pattern in self._patterns
        )


def _check(pattern: Any, text: str) -> None:
    if isinstance(pattern, dict):
        for part in pattern.values():
            _check(part, text)
    elif not isinstance(pattern, list) or any(isinstance(value, dict | list) for value in pattern):
        raise ValueError(f"The filter pattern {text} uses more than lists of values to be equal to.")


def _part_matches(pattern: Mapping[str, Any] | list[Any], data: bytes | None) -> bool:
    if isinstance(pattern, list):  # the plain text
        return data is not None and data.decode(errors="replace") in pattern
    try:
        return _matches(pattern, json.loads(data or b"null"))
    except ValueError:
        return False


def _matches(pattern: Mapping[str, Any], value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    for name, expected in pattern.items():
        if name not in value:
            return False
        actual = value[name]
        if isinstance(expected, list):
            # JSON tells 1 from true, Python does not.
            if not any(type(actual) is type(one) and actual == one for one in expected):
                return False
        elif not _matches(expected, actual):
            return False
    return True
