"""One producer for all threads of an execution environment, and when another one takes its place."""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from kafka.errors import KafkaError, KafkaTimeoutError

from sitebackup.adapters import bus
from sitebackup.domain.errors import BusUnavailable
from sitebackup.domain.events import TaskUpdated

EVENT = TaskUpdated(job_id="a" * 24, attempt=1, provider="site")


class Sent:
    def get(self, timeout: float) -> None:
        return


class Producer:
    built: list["Producer"]
    refuse: bool
    """Whether no broker answers a new one."""

    def __init__(self, **_: Any) -> None:
        time.sleep(0.05)  # as a real one takes its time: long enough for other threads to come
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
def kafka(monkeypatch: pytest.MonkeyPatch) -> bus.KafkaBus:
    monkeypatch.setattr(bus, "KafkaProducer", Producer)
    Producer.built, Producer.refuse = [], False
    return bus.KafkaBus("127.0.0.1:1", {})


def test_threads_that_emit_first_together_build_one_producer(kafka: bus.KafkaBus) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: kafka.emit([EVENT]), range(4)))
    assert len(Producer.built) == 1


def test_threads_that_wait_for_one_that_can_not_be_built_do_not_try_in_their_turn(
    kafka: bus.KafkaBus,
) -> None:
    Producer.refuse = True
    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(kafka.emit, [EVENT]) for _ in range(4)]
        for future in futures:
            with pytest.raises(BusUnavailable):
                future.result(timeout=10)
    assert len(Producer.built) < 4
    Producer.refuse = False
    kafka.emit([EVENT])


def test_a_producer_that_failed_is_replaced_and_closed_when_nobody_waits_for_it(
    kafka: bus.KafkaBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bus, "_CLOSE_AFTER_SECONDS", 0.01)
    kafka.emit([EVENT])
    Producer.built[0].broken = True
    with pytest.raises(BusUnavailable, match=r"^Kafka does not take events: KafkaError\.$"):
        kafka.emit([EVENT])
    kafka.emit([EVENT])
    kafka.emit([EVENT])
    assert len(Producer.built) == 2
    limit = time.monotonic() + 10
    while not Producer.built[0].closed:
        assert time.monotonic() < limit
        time.sleep(0.01)
    assert not Producer.built[1].closed


def test_a_producer_that_was_idle_for_minutes_is_replaced(
    kafka: bus.KafkaBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    monkeypatch.setattr(bus, "time", lambda: now)
    kafka.emit([EVENT])
    now += bus.IDLE_SECONDS - 1
    kafka.emit([EVENT])
    now += bus.IDLE_SECONDS - 1
    kafka.emit([EVENT])
    assert len(Producer.built) == 1
    now += bus.IDLE_SECONDS + 1
    kafka.emit([EVENT])
    assert len(Producer.built) == 2
