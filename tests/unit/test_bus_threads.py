"""One producer for all threads of an execution environment."""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from sitebackup.adapters import bus
from sitebackup.domain.events import TaskUpdated


class Sent:
    def get(self, timeout: float) -> None:
        return


def test_threads_that_emit_first_together_build_one_producer(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[object] = []

    class Producer:
        def __init__(self, **_: Any) -> None:
            time.sleep(0.05)  # as a real one takes its time: long enough for the others to come
            built.append(self)

        def send(self, *_: Any, **__: Any) -> Sent:
            return Sent()

    monkeypatch.setattr(bus, "KafkaProducer", Producer)
    kafka = bus.KafkaBus("127.0.0.1:1", {})
    event = TaskUpdated(job_id="a" * 24, attempt=1, provider="site")
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: kafka.emit([event]), range(4)))
    assert len(built) == 1
