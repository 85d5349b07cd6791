"""One producer for all threads of an execution environment, and when another one takes its place."""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from kafka.errors import KafkaError, KafkaTimeoutError

from sitebackup.adapters import kafka as kafka_adapter
from sitebackup.adapters.kafka import IDLE_SECONDS, KafkaBus
from sitebackup.domain.errors import BusUnavailable
from sitebackup.domain.events import TaskUpdated
from sitebackup.domain.task_ref import TaskRef

EVENT = TaskUpdated(task=TaskRef(job_id="a" * 24, attempt=1, provider="site"))
THREADS = 4
BUILD_SECONDS = 0.05
"""As a real producer takes its time: long enough for other threads to come."""
LIMIT_SECONDS = 10


class Sent:
    def get(self, timeout: float) -> None:
        return


class Producer:
    built: list["Producer"]
    refuse: bool
    """Whether no broker answers a new one."""

    def __init__(self, **_: Any) -> None:
        time.sleep(BUILD_SECONDS)
        self.broken = False
        self.closed = False
        Producer.built.append(self)
        if Producer.refuse:
            raise KafkaTimeoutError

    def send(self, *_: Any, **__: Any) -> Sent:
        if self.broken:
            raise KafkaError
        return Sent()

    def close(self, timeout: float) -> None:
        self.closed = True


@pytest.fixture
def kafka(monkeypatch: pytest.MonkeyPatch) -> KafkaBus:
    monkeypatch.setattr(kafka_adapter, "KafkaProducer", Producer)
    Producer.built, Producer.refuse = [], False
    return KafkaBus("127.0.0.1:1", {})


def test_threads_that_emit_first_at_the_same_time_build_one_producer(kafka: KafkaBus) -> None:
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(lambda _: kafka.emit([EVENT]), range(THREADS)))
    assert len(Producer.built) == 1


def test_threads_that_wait_for_a_producer_that_cannot_be_built_do_not_build_one_in_turn(
    kafka: KafkaBus,
) -> None:
    Producer.refuse = True
    with ThreadPoolExecutor(THREADS) as pool:
        futures = [pool.submit(kafka.emit, [EVENT]) for _ in range(THREADS)]
        for future in futures:
            with pytest.raises(BusUnavailable):
                future.result(timeout=LIMIT_SECONDS)
    assert len(Producer.built) < THREADS
    Producer.refuse = False
    kafka.emit([EVENT])


def test_a_failed_producer_is_replaced_and_closed_later(
    kafka: KafkaBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_adapter, "_CLOSE_AFTER_SECONDS", 0.01)
    kafka.emit([EVENT])
    Producer.built[0].broken = True
    with pytest.raises(BusUnavailable, match=r"^Kafka does not take events: KafkaError\.$"):
        kafka.emit([EVENT])
    kafka.emit([EVENT])
    kafka.emit([EVENT])
    assert len(Producer.built) == 2
    limit = time.monotonic() + LIMIT_SECONDS
    while not Producer.built[0].closed:
        assert time.monotonic() < limit
        time.sleep(0.01)
    assert not Producer.built[1].closed


def test_a_producer_that_was_idle_for_minutes_is_replaced(
    kafka: KafkaBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    monkeypatch.setattr(kafka_adapter, "time", lambda: now)
    kafka.emit([EVENT])
    now += IDLE_SECONDS - 1
    kafka.emit([EVENT])
    now += IDLE_SECONDS - 1
    kafka.emit([EVENT])
    assert len(Producer.built) == 1
    now += IDLE_SECONDS + 1
    kafka.emit([EVENT])
    assert len(Producer.built) == 2
