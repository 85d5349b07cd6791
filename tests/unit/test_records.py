"""Kafka records in, partial batch responses out: each record is answered for, and alone."""

import base64
import json
from typing import Any

import msgspec
import pytest

from sitebackup import records
from sitebackup.domain.errors import Conflict, RepositoryUnavailable
from sitebackup.domain.events import PartUpdated, TaskEvent, TaskUpdated, UploadJobCreated, UploadPartCreated

ABOUT: dict[str, Any] = {"job_id": "c" * 24, "attempt": 1, "provider": "site"}
TOPIC = TaskUpdated.topic


def record(value: str | None, offset: int, partition: int = 3, topic: str = TOPIC) -> dict[str, Any]:
    fields = {"topic": topic, "partition": partition, "offset": offset, "timestamp": 0, "headers": []}
    return fields | ({} if value is None else {"value": value})


def encoded(event: TaskEvent | dict[str, Any] | bytes) -> str:
    data = event if isinstance(event, bytes) else msgspec.json.encode(event)
    return base64.b64encode(data).decode()


def an_event(*found: dict[str, Any]) -> dict[str, Any]:
    by_partition: dict[str, list[dict[str, Any]]] = {}
    for one in found:
        by_partition.setdefault(f"{one['topic']}-{one['partition']}", []).append(one)
    return {"eventSource": "aws:kafka", "records": by_partition}


def failures(response: dict[str, Any]) -> list[tuple[str, int]]:
    return [tuple(item["itemIdentifier"].values()) for item in response["batchItemFailures"]]


DONE = [TaskUpdated(**{**ABOUT, "attempt": attempt}) for attempt in (1, 2, 3)]


def test_a_batch_without_failures() -> None:
    batch = records.read(
        an_event(*[record(encoded(one), offset) for offset, one in enumerate(DONE)]), TaskUpdated
    )
    assert batch.events == DONE
    assert batch.response(set()) == {"batchItemFailures": []}
    assert json.loads(json.dumps(batch.response({1}))) == {
        "batchItemFailures": [{"itemIdentifier": {"partition": f"{TOPIC}-3", "offset": 1}}]
    }


def test_an_empty_batch() -> None:
    assert records.read({"records": {}}, TaskUpdated).response([]) == {"batchItemFailures": []}


GOOD = json.loads(msgspec.json.encode(DONE[0]))


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        "!!!",
        "a",
        encoded(b"\xff\xfe"),
        encoded(b"{"),
        encoded(b"null"),
        encoded(b"[]"),
        encoded(GOOD | {"jobId": "c" * 23}),
        encoded(GOOD | {"jobId": "c" * 24 + "\n"}),
        encoded(GOOD | {"attempt": 0}),
        encoded(GOOD | {"attempt": "1"}),
        encoded(GOOD | {"provider": "../site"}),
        encoded({name: value for name, value in GOOD.items() if name != "provider"}),
    ],
)
def test_a_record_that_cannot_be_read_fails_alone(value: str | None) -> None:
    found = [record(encoded(DONE[0]), 5), record(value, 6), record(encoded(DONE[1]), 7, partition=4)]
    batch = records.read(an_event(*found), TaskUpdated)
    assert batch.events == DONE[:2]
    assert failures(batch.run(lambda event: None)) == [(f"{TOPIC}-3", 6)]


def test_a_tombstone_fails_alone() -> None:
    found = record(None, 6) | {"value": None}
    assert failures(records.read(an_event(found), TaskUpdated).run(lambda event: None)) == [(f"{TOPIC}-3", 6)]


def test_a_field_of_a_newer_release_is_no_poison() -> None:
    batch = records.read(an_event(record(encoded(GOOD | {"priority": 1}), 0)), TaskUpdated)
    assert batch.events == [DONE[0]]


@pytest.mark.parametrize("error", [RepositoryUnavailable("down"), Conflict("busy"), ValueError("a bug")])
def test_only_records_without_an_outcome_are_delivered_again(error: Exception) -> None:
    called: list[TaskUpdated] = []

    def call(event: TaskUpdated) -> None:
        called.append(event)
        if event.attempt == 2:
            raise error

    twice = [*DONE, DONE[1], DONE[2]]
    batch = records.read(
        an_event(*[record(encoded(one), offset) for offset, one in enumerate(twice)]), TaskUpdated
    )
    assert failures(batch.run(call)) == [(f"{TOPIC}-3", 1), (f"{TOPIC}-3", 3)]
    assert called == DONE, "records that say the same are one call"


@pytest.mark.parametrize(
    ("event", "key"),
    [
        (UploadJobCreated(**ABOUT, tried=3), f"{'c' * 24}/site"),
        (UploadPartCreated(**ABOUT, upload_id="u", number=10_000), f"{'c' * 24}/site/10000"),
        (PartUpdated(**ABOUT, upload_id="u:;/\u00e9", tried=1), f"{'c' * 24}/site"),
        (TaskUpdated(**ABOUT), "c" * 24),
    ],
)
def test_events_travel_unchanged_and_in_the_order_of_their_key(event: TaskEvent, key: str) -> None:
    assert msgspec.json.decode(msgspec.json.encode(event), type=type(event)) == event
    assert event.key == key
    assert event.correlation == {"jobId": "c" * 24, "taskId": f"{'c' * 24}/site", "attempt": "1"}


@pytest.mark.parametrize(
    "fields",
    [
        {"number": 0},
        {"number": 10_001},
        {"tried": -1},
        {"tried": 1001},
        {"uploadId": ""},
        {"uploadId": "u" * 1025},
    ],
)
def test_an_event_out_of_bounds_is_refused(fields: dict[str, Any]) -> None:
    good = {"jobId": "c" * 24, "attempt": 1, "provider": "site", "uploadId": "u", "number": 1}
    assert msgspec.convert(good, UploadPartCreated).number == 1
    with pytest.raises(msgspec.ValidationError, match=next(iter(fields))):
        msgspec.convert(good | fields, UploadPartCreated)
