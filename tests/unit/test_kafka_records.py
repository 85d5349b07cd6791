"""Kafka records in, partial batch responses out: each record is answered for, and alone."""

import base64
import json
from typing import Any

import msgspec
import pytest

from sitebackup.adapters.topics import TOPICS, key_of, topic_of
from sitebackup.domain.errors import Conflict, RepositoryUnavailable
from sitebackup.domain.events import PartUpdated, TaskEvent, TaskUpdated, UploadJobCreated, UploadPartCreated
from sitebackup.domain.plan import MAX_PARTS
from sitebackup.domain.task_ref import TaskRef
from sitebackup.entrypoints import kafka

JOB_ID = "c" * 24
SITE = TaskRef(job_id=JOB_ID, attempt=1, provider="site")
TOPIC = TOPICS[TaskUpdated]
MAX_REDELIVERY = 1000
MAX_UPLOAD_ID = 1024
"""Characters."""


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


DONE = [TaskUpdated(task=SITE.replace(attempt=attempt)) for attempt in (1, 2, 3)]


def test_a_batch_reports_the_records_that_failed_and_no_others() -> None:
    batch = kafka.read(
        an_event(*[record(encoded(one), offset) for offset, one in enumerate(DONE)]), TaskUpdated
    )
    assert batch.events == DONE
    assert batch.response(set()) == {"batchItemFailures": []}
    assert json.loads(json.dumps(batch.response({1}))) == {
        "batchItemFailures": [{"itemIdentifier": {"partition": f"{TOPIC}-3", "offset": 1}}]
    }


def test_an_empty_batch_reports_nothing() -> None:
    assert kafka.read({"records": {}}, TaskUpdated).response([]) == {"batchItemFailures": []}


GOOD: dict[str, Any] = json.loads(msgspec.json.encode(DONE[0]))


def good_but(**changes: Any) -> dict[str, Any]:
    """The good record with these fields of its task changed; None takes a field away."""
    task = {name: value for name, value in (GOOD["task"] | changes).items() if value is not None}
    return GOOD | {"task": task}


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
        encoded(good_but(jobId="c" * 23)),
        encoded(good_but(jobId="c" * 24 + "\n")),
        encoded(good_but(attempt=0)),
        encoded(good_but(attempt="1")),
        encoded(good_but(provider="../site")),
        encoded(good_but(provider=None)),
        encoded(GOOD | {"task": None}),
        encoded({}),
    ],
)
def test_a_record_that_cannot_be_read_fails_alone(value: str | None) -> None:
    found = [record(encoded(DONE[0]), 5), record(value, 6), record(encoded(DONE[1]), 7, partition=4)]
    batch = kafka.read(an_event(*found), TaskUpdated)
    assert batch.events == DONE[:2]
    assert failures(batch.run(lambda event: None)) == [(f"{TOPIC}-3", 6)]


def test_a_tombstone_fails_alone() -> None:
    found = record(None, 6) | {"value": None}
    assert failures(kafka.read(an_event(found), TaskUpdated).run(lambda event: None)) == [(f"{TOPIC}-3", 6)]


def test_a_field_of_a_newer_release_is_ignored() -> None:
    newer = good_but(region="eu") | {"priority": 1}
    batch = kafka.read(an_event(record(encoded(newer), 0)), TaskUpdated)
    assert batch.events == [DONE[0]]


@pytest.mark.parametrize("error", [RepositoryUnavailable("down"), Conflict("busy"), ValueError("a bug")])
def test_only_records_without_an_outcome_are_delivered_again(error: Exception) -> None:
    called: list[TaskUpdated] = []

    def call(event: TaskUpdated) -> None:
        called.append(event)
        if event.task.attempt == 2:
            raise error

    twice = [*DONE, DONE[1], DONE[2]]
    batch = kafka.read(
        an_event(*[record(encoded(one), offset) for offset, one in enumerate(twice)]), TaskUpdated
    )
    assert failures(batch.run(call)) == [(f"{TOPIC}-3", 1), (f"{TOPIC}-3", 3)]
    assert called == DONE, "records that say the same are one call"


@pytest.mark.parametrize(
    ("event", "topic", "key"),
    [
        (UploadJobCreated(task=SITE, redelivery=3), "upload-job-created", f"{JOB_ID}/site"),
        (
            UploadPartCreated(task=SITE, upload_id="u", number=MAX_PARTS),
            "upload-part-created",
            f"{JOB_ID}/site/10000",
        ),
        (PartUpdated(task=SITE, upload_id="u:;/\u00e9", redelivery=1), "part-updated", f"{JOB_ID}/site"),
        (TaskUpdated(task=SITE), "task-updated", JOB_ID),
    ],
)
def test_each_event_travels_unchanged_over_its_topic_and_under_its_key(
    event: TaskEvent, topic: str, key: str
) -> None:
    assert msgspec.json.decode(msgspec.json.encode(event), type=type(event)) == event
    assert (topic_of(event), key_of(event)) == (topic, key)
    assert event.task.correlation == {"jobId": JOB_ID, "taskId": f"{JOB_ID}/site", "attempt": "1"}


@pytest.mark.parametrize(
    "fields",
    [
        {"number": 0},
        {"number": MAX_PARTS + 1},
        {"redelivery": -1},
        {"redelivery": MAX_REDELIVERY + 1},
        {"uploadId": ""},
        {"uploadId": "u" * (MAX_UPLOAD_ID + 1)},
    ],
)
def test_an_event_with_a_field_out_of_its_bounds_is_refused(fields: dict[str, Any]) -> None:
    good = {"task": GOOD["task"], "uploadId": "u", "number": 1}
    assert msgspec.convert(good, UploadPartCreated).number == 1
    with pytest.raises(msgspec.ValidationError, match=next(iter(fields))):
        msgspec.convert(good | fields, UploadPartCreated)


def test_an_event_at_its_bounds_is_read() -> None:
    longest = {"task": GOOD["task"], "uploadId": "u" * MAX_UPLOAD_ID, "number": MAX_PARTS}
    event = msgspec.convert(longest | {"redelivery": MAX_REDELIVERY}, UploadPartCreated)
    assert (event.number, event.redelivery) == (MAX_PARTS, MAX_REDELIVERY)
    assert key_of(event) == f"{JOB_ID}/site/{MAX_PARTS}"
