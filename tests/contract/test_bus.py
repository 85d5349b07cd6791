"""Events on a real broker: where they go, and what becomes of them when Kafka is away."""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import pytest
from kafka import KafkaConsumer, TopicPartition

from local import processes
from local.services import TOPICS, Kafka, Service
from sitebackup.adapters.bus import KafkaBus, msk_iam
from sitebackup.domain.errors import BusUnavailable
from sitebackup.domain.events import PartUpdated, TaskEvent, TaskUpdated, UploadJobCreated, UploadPartCreated

JOB_ID = uuid4().hex[:24]
ABOUT: dict[str, Any] = {"job_id": JOB_ID, "attempt": 2, "provider": "site"}
PARTS = [UploadPartCreated(**ABOUT, upload_id="u", number=number) for number in range(1, 201)]
EVENTS: list[TaskEvent] = [
    UploadJobCreated(**ABOUT, tried=1),
    PartUpdated(**ABOUT, upload_id="u"),
    TaskUpdated(**ABOUT),
    *PARTS,
]


def stored(address: str, count: int) -> list[Any]:
    """The first records of all topics that are about this job, as many as there must be."""
    consumer = KafkaConsumer(
        bootstrap_servers=address, auto_offset_reset="earliest", enable_auto_commit=False
    )
    consumer.assign([TopicPartition(name, part) for name, parts in TOPICS.items() for part in range(parts)])
    records: list[Any] = []
    limit = time.monotonic() + 30
    while len(records) < count:
        assert time.monotonic() < limit, f"{len(records)} of {count} records came"
        for found in consumer.poll(timeout_ms=500).values():
            records += [record for record in found if ("jobId", JOB_ID.encode()) in record.headers]
    consumer.close()
    return records


def decoded(records: Sequence[Any]) -> list[TaskEvent]:
    kinds = {kind.topic: kind for kind in (UploadJobCreated, UploadPartCreated, PartUpdated, TaskUpdated)}
    return [msgspec.json.decode(record.value, type=kinds[record.topic]) for record in records]


def test_every_event_arrives_with_its_key_and_headers(kafka: Service) -> None:
    bus = KafkaBus(kafka.address, {})
    bus.emit([])
    bus.emit(EVENTS)
    records = stored(kafka.address, len(EVENTS))
    found = decoded(records)
    assert set(found) == set(EVENTS)
    for record, event in zip(records, found, strict=True):
        assert record.topic == event.topic
        assert record.key == event.key.encode()
        assert dict(record.headers) == {name: value.encode() for name, value in event.correlation.items()}
    parts = [record for record in records if record.topic == "upload-part-created"]
    assert {record.partition for record in parts} == set(range(TOPICS["upload-part-created"])), "parts spread"


def test_kafka_that_is_down_is_told_in_seconds_by_every_thread() -> None:
    bus = KafkaBus(f"127.0.0.1:{processes.free_port()}", {})
    with ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(bus.emit, EVENTS) for _ in range(4)]:
            with pytest.raises(BusUnavailable, match=r"^Kafka does not take events: \w+\.$"):
                future.result(timeout=15)


def test_kafka_that_starts_late_goes_away_and_comes_back(tmp_path: Path) -> None:
    broker = Kafka(tmp_path)
    bus = KafkaBus(broker.address, {})
    with pytest.raises(BusUnavailable):
        bus.emit([EVENTS[0]])
    try:
        broker.start()
        broker.wait_ready()
        bus.emit([EVENTS[1]])
        broker.kill()
        with pytest.raises(BusUnavailable):
            bus.emit([EVENTS[2]])
        broker.start()
        broker.wait_ready()
        limit = time.monotonic() + 60
        while True:
            try:
                bus.emit([EVENTS[3]])
                break
            except BusUnavailable:
                assert time.monotonic() < limit
        assert {EVENTS[1], EVENTS[3]} <= set(decoded(stored(broker.address, 2)))
    finally:
        broker.stop()


def test_a_topic_that_is_not_there_is_told_in_seconds(kafka: Service) -> None:
    class Stray(TaskEvent, frozen=True, kw_only=True):
        topic = "no-such-topic"

    with pytest.raises(BusUnavailable):
        KafkaBus(kafka.address, {}).emit([Stray(**ABOUT)])


def test_msk_takes_iam_over_tls() -> None:
    assert msk_iam() == {"security_protocol": "SASL_SSL", "sasl_mechanism": "AWS_MSK_IAM"}
