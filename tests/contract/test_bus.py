"""Events on a real broker: where they go, and what becomes of them when Kafka is away."""

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

import msgspec
import pytest
from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from kafka.admin import NewTopic
from kafka.errors import TopicAlreadyExistsError

from local.services import processes
from local.services.kafka import TOPICS, Kafka
from local.services.service import Service
from sitebackup.adapters import topics
from sitebackup.adapters.kafka import KafkaBus, msk_iam
from sitebackup.domain.errors import BusUnavailable
from sitebackup.domain.events import (
    Event,
    PartUpdated,
    TaskEvent,
    TaskUpdated,
    UploadJobCreated,
    UploadPartCreated,
)
from sitebackup.domain.task_ref import TaskRef
from sitebackup.ports.bus import EventBus
from tests.fakes.bus import MemoryBus
from tests.tcp_proxy import TcpProxy


def of_a_new_job(parts: int = 20) -> list[TaskEvent]:
    """One event of each kind, and more parts."""
    task = TaskRef(job_id=uuid4().hex[:24], attempt=2, provider="site")
    return [
        UploadJobCreated(task=task, redelivery=1),
        PartUpdated(task=task, upload_id="u"),
        TaskUpdated(task=task),
        *[UploadPartCreated(task=task, upload_id="u", number=number) for number in range(1, parts + 1)],
    ]


EVENTS = of_a_new_job(200)


def stored(address: str, events: Sequence[TaskEvent], count: int) -> list[Any]:
    """The first records of all topics that are about the job of these events, as many as there must be."""
    job_id = events[0].task.job_id
    consumer = KafkaConsumer(
        bootstrap_servers=address, auto_offset_reset="earliest", enable_auto_commit=False
    )
    consumer.assign([TopicPartition(name, part) for name, parts in TOPICS.items() for part in range(parts)])
    records: list[Any] = []
    limit = time.monotonic() + 30
    while len(records) < count:
        assert time.monotonic() < limit, f"{len(records)} of {count} records came"
        for found in consumer.poll(timeout_ms=500).values():
            records += [record for record in found if ("jobId", job_id.encode()) in record.headers]
    consumer.close()
    return records


def decoded(records: Sequence[Any]) -> list[Event]:
    kinds = {topic: kind for kind, topic in topics.TOPICS.items()}
    return [msgspec.json.decode(record.value, type=kinds[record.topic]) for record in records]


@pytest.mark.parametrize("implementation", ["Kafka", "fake"])
def test_every_event_arrives_as_it_was_emitted(implementation: str, request: pytest.FixtureRequest) -> None:
    events, fake = of_a_new_job(), MemoryBus()
    address = "" if implementation == "fake" else request.getfixturevalue("kafka").address
    bus: EventBus = KafkaBus(address, {}) if address else fake
    bus.emit([])
    bus.emit(events)
    arrived = decoded(stored(address, events, len(events))) if address else list(fake.drain())
    assert len(arrived) == len(events)
    assert set(arrived) == set(events)


def test_every_event_arrives_with_its_key_and_headers(kafka: Service) -> None:
    bus = KafkaBus(kafka.address, {})
    bus.emit([])
    bus.emit(EVENTS)
    records = stored(kafka.address, EVENTS, len(EVENTS))
    found = decoded(records)
    assert set(found) == set(EVENTS)
    for record, event in zip(records, found, strict=True):
        assert record.topic == topics.topic_of(event)
        assert record.key == topics.key_of(event).encode()
        assert dict(record.headers) == {
            name: value.encode() for name, value in event.task.correlation.items()
        }
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
        _refused_until_one_is_taken(lambda: bus.emit([EVENTS[3]]))
        assert {EVENTS[1], EVENTS[3]} <= set(decoded(stored(broker.address, EVENTS, 2)))
    finally:
        broker.stop()


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Kafka, TcpProxy]]:
    """A broker of these tests' own, to be stopped, whose clients all come through a proxy."""
    broker = Behind(tmp_path_factory.mktemp("proxied"))
    try:
        broker.start()
        broker.wait_ready()
        yield broker, broker.proxy
    finally:
        if broker.pid:
            os.kill(broker.pid, signal.SIGCONT)
        broker.stop()
        broker.proxy.close()


class Behind(Kafka):
    """A broker that tells its clients to come to its proxy."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.proxy = TcpProxy((self.host, self.port))

    def command(self) -> list[str]:
        command = super().command()
        with (self.data / "server.properties").open("a") as properties:
            properties.write(f"advertised.listeners=PLAINTEXT://{self.proxy.address}\n")
        return command


def test_a_broker_that_stood_still_is_written_to_again_as_before(proxied: tuple[Kafka, TcpProxy]) -> None:
    broker, proxy = proxied
    bus, events = KafkaBus(proxy.address, {}), of_a_new_job()
    bus.emit(events)
    assert broker.pid
    os.kill(broker.pid, signal.SIGSTOP)
    try:
        with pytest.raises(BusUnavailable):  # 3 s later, so that the broker stands still for as long
            bus.emit([events[0]])
    finally:
        os.kill(broker.pid, signal.SIGCONT)
    assert _refused_until_one_is_taken(lambda: bus.emit([events[1]])) <= 3
    connections = proxy.connections
    for event in events:
        bus.emit([event])
    assert set(events) == set(decoded(stored(broker.address, events, 2 * len(events) + 1)))
    assert proxy.connections - connections <= 2, "the new producer stays"


@pytest.mark.parametrize("how", ["drop", "reset"])
def test_a_connection_that_the_network_forgot_costs_no_event(
    proxied: tuple[Kafka, TcpProxy], how: Literal["drop", "reset"]
) -> None:
    broker, proxy = proxied
    bus, events = KafkaBus(proxy.address, {}), of_a_new_job()
    bus.emit(events)
    for event in events[:3]:
        proxy.forget(how)
        bus.emit([event])
    assert set(events) == set(decoded(stored(broker.address, events, len(events) + 3)))


SMALL_RECORDS = "takes-only-small-records"


class Refused(TaskEvent, frozen=True, kw_only=True):
    """Of a kind whose topic does not take it."""


@pytest.mark.parametrize("topic", ["no-such-topic", SMALL_RECORDS])
def test_an_event_that_is_refused_is_told_in_seconds_and_costs_no_other(
    kafka: Service, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(topics.TOPICS, Refused, topic)
    admin = KafkaAdminClient(bootstrap_servers=kafka.address)
    with suppress(TopicAlreadyExistsError):
        admin.create_topics([NewTopic(SMALL_RECORDS, 1, 1, topic_configs={"max.message.bytes": "64"})])
    admin.close()
    bus, events = KafkaBus(kafka.address, {}), of_a_new_job()
    bus.emit(events)
    with pytest.raises(BusUnavailable):
        bus.emit([Refused(task=events[0].task)])
    for event in events:
        bus.emit([event])
    assert set(events) == set(decoded(stored(kafka.address, events, 2 * len(events))))


def _refused_until_one_is_taken(emit: Callable[[], None]) -> int:
    """How many emits were refused before one was taken."""
    limit = time.monotonic() + 60
    refused = 0
    while True:
        try:
            emit()
            return refused
        except BusUnavailable:
            refused += 1
            assert time.monotonic() < limit, f"{refused} emits were refused"


def test_msk_takes_iam_over_tls() -> None:
    assert msk_iam() == {"security_protocol": "SASL_SSL", "sasl_mechanism": "AWS_MSK_IAM"}
