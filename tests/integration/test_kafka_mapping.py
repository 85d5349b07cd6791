"""The Kafka event source mapping against a real broker: what reaches a function, in which batches and order."""

import base64
import json
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaConsumer

from local.event_sources.kafka_mapping import EventSourceMapping
from local.services.kafka import Kafka
from local.services.service import Service
from local.template.model import KafkaMapping
from tests.integration.mapping_harness import (
    OK,
    Answer,
    Invocation,
    Lambda,
    Topic,
    a_topic,
    drained,
    running,
    until,
)


def test_a_record_reaches_the_function_in_the_shape_of_aws(topic: Topic, lambda_: Lambda) -> None:
    with running(topic, lambda_) as mapping:
        topic.put('{"a":1}', 2, key=b"k", headers=[("trace", b"\x01\xff")], timestamp_ms=1545084650987)
        until(lambda: drained(mapping) and bool(lambda_.invocations), "the record is done")
    (invocation,) = lambda_.invocations
    assert invocation.function == "CountFunction"
    assert invocation.event["bootstrapServers"] == topic.broker.address
    assert invocation.event["records"] == {
        f"{topic.name}-2": [
            {
                "topic": topic.name,
                "partition": 2,
                "offset": 0,
                "timestamp": 1545084650987,
                "timestampType": "CREATE_TIME",
                "key": "aw==",
                "value": base64.b64encode(b'{"a":1}').decode(),
                "headers": [{"trace": [1, 255]}],
            }
        ]
    }


def test_records_come_in_batches_and_in_order_and_lag_returns_to_zero(topic: Topic, lambda_: Lambda) -> None:
    for number in range(100):
        topic.producer.send(topic.name, str(number).encode(), partition=number % 4)
    topic.producer.flush(10)
    in_flight: set[int] = set()
    lock = threading.Lock()

    def answer(invocation: Invocation) -> Answer:
        partitions = {partition for partition, _, _ in invocation.records}
        with lock:
            assert not in_flight & partitions, "two invocations at once for one partition"
            in_flight.update(partitions)
        time.sleep(0.02)  # long enough for another one to come in between
        with lock:
            in_flight.difference_update(partitions)
        return OK

    lambda_.answer = answer
    with running(topic, lambda_, batch_size=10) as mapping:
        until(lambda: len(lambda_.values) == 100 and drained(mapping), "all are done")
        assert mapping.status().errors == 0
    assert max(len(one.values) for one in lambda_.invocations) == 10
    for partition in range(4):
        values = [v for one in lambda_.invocations for p, _, v in one.records if p == partition]
        assert values == [str(number) for number in range(partition, 100, 4)]
    assert topic.committed(f"group-{topic.name}") == dict.fromkeys(range(4), 25)


def test_partitions_are_delivered_at_the_same_time(topic: Topic, lambda_: Lambda) -> None:
    all_four = threading.Barrier(4)

    def answer(_: Invocation) -> Answer:
        all_four.wait(20)  # broken, and so an error of the test, if the four do not overlap
        return OK

    lambda_.answer = answer
    for partition in range(4):
        topic.put("x", partition)
    with running(topic, lambda_, batch_size=1) as mapping:
        until(lambda: drained(mapping) and len(lambda_.values) == 4, "all four are done")
    assert mapping.status().errors == 0


def test_the_window_gathers_records(topic: Topic, lambda_: Lambda) -> None:
    with running(topic, lambda_, window_seconds=1.0, batch_size=3) as mapping:
        until(lambda: bool(mapping.status().lag), "the group is joined")
        for value in "ab":
            topic.put(value)
        topic.put("c")  # fills the batch: it goes without waiting for the window
        until(lambda: len(lambda_.values) == 3, "the full batch")
        topic.put("d")
        until(lambda: len(lambda_.values) == 4, "the window's end")
    assert [one.values for one in lambda_.invocations] == [["a", "b", "c"], ["d"]]


def test_two_mappings_on_two_topics(topic: Topic, lambda_: Lambda, kafka: Service) -> None:
    with (
        a_topic(kafka, 2) as other,
        running(topic, lambda_, function="First") as one,
        running(other, lambda_, function="Second") as two,
    ):
        topic.put("1")
        other.put("2", 1)
        until(lambda: drained(one) and drained(two) and len(lambda_.values) == 2, "both are done")
    assert {(one.function, *one.values) for one in lambda_.invocations} == {("First", "1"), ("Second", "2")}


def test_filtered_records_are_not_delivered_but_done(topic: Topic, lambda_: Lambda) -> None:
    for kind in ("a", "b", "a", "b"):
        topic.put(json.dumps({"kind": kind}))
    with running(topic, lambda_, filters=('{"value": {"kind": ["a"]}}',)) as mapping:
        until(lambda: drained(mapping) and len(lambda_.values) == 2, "both are done")
        until(lambda: topic.committed(f"group-{topic.name}").get(0) == 4, "all four are committed")
    assert lambda_.values == ['{"kind": "a"}'] * 2


def test_latest_starts_with_what_comes_after(topic: Topic, lambda_: Lambda) -> None:
    topic.put("before")
    with running(topic, lambda_, starting_position="LATEST") as mapping:
        until(lambda: set(mapping.status().lag.values()) == {0}, "the position is known")
        topic.put("after")
        until(lambda: bool(lambda_.values), "the record arrives")
    assert lambda_.values == ["after"]


def test_more_records_than_are_held_back_all_arrive(topic: Topic, lambda_: Lambda) -> None:
    for number in range(5000):
        topic.producer.send(topic.name, str(number).encode(), partition=0)
    topic.producer.flush(20)
    release = threading.Event()

    def answer(invocation: Invocation) -> Answer:
        if invocation.records[0][0] == 0:
            release.wait(20)
        return OK

    lambda_.answer = answer
    with running(topic, lambda_, batch_size=500) as mapping:
        until(lambda: mapping.status().held_back == [0], "the partition is held back")
        topic.put("other", 1)  # and what the consumer has read of the first one must not be lost sight of
        until(lambda: "other" in lambda_.values, "another partition goes on")
        release.set()
        until(lambda: drained(mapping), "all are done")
    assert lambda_.invocations[1].values == ["other"]
    assert [value for value in lambda_.values if value != "other"] == [str(number) for number in range(5000)]


def test_records_go_on_after_a_rebalance(topic: Topic, lambda_: Lambda) -> None:
    release = threading.Event()

    def answer(_: Invocation) -> Answer:
        release.wait(20)
        return OK

    lambda_.answer = answer
    with running(topic, lambda_, batch_size=2) as mapping:
        for number in range(5):
            topic.put(str(number))
        until(
            lambda: mapping.status().lag.get(0) == 5 and bool(lambda_.values), "the first batch is in flight"
        )
        other = KafkaConsumer(
            topic.name, bootstrap_servers=topic.broker.address, group_id=f"group-{topic.name}"
        )
        try:
            until(lambda: bool(other.poll(100) or other.assignment()), "another member joins")
        finally:
            other.close()
        until(lambda: len(mapping.status().lag) == 4, "the mapping has all partitions again")
        release.set()
        topic.put("5")
        until(lambda: drained(mapping) and "5" in lambda_.values, "all are done")
    assert lambda_.values == list("012345")


def test_a_lost_broker_is_waited_for(lambda_: Lambda, tmp_path: Path) -> None:
    broker = Kafka(tmp_path)
    try:
        broker.start()
        broker.wait_ready()
        with a_topic(broker, 2) as topic, running(topic, lambda_) as mapping:
            topic.put("before")
            until(lambda: drained(mapping) and lambda_.values == ["before"], "the first record is done")
            broker.kill()
            broker.start()
            broker.wait_ready()
            topic.put("after", 1)
            until(lambda: drained(mapping) and "after" in lambda_.values, "it goes on", limit=60)
        assert lambda_.values == ["before", "after"]
    finally:
        broker.stop()


def test_a_broker_that_comes_late_is_waited_for(lambda_: Lambda, tmp_path: Path) -> None:
    broker = Kafka(tmp_path)
    try:
        broker.start()
        broker.wait_ready()
        with a_topic(broker, 1) as topic:
            topic.put("early")
            broker.stop()
            with running(topic, lambda_) as mapping:
                until(lambda: mapping.status().errors > 0, "the broker's absence is shown")
                assert "Kafka at" in (mapping.status().last_error or "")
                broker.start()
                broker.wait_ready()
                until(lambda: drained(mapping) and lambda_.values == ["early"], "it begins", limit=60)
    finally:
        broker.stop()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"starting_position": "AT_TIMESTAMP"}, "StartingPosition"),
        ({"filters": ('{"topic": ["a"]}',)}, "filter pattern"),
        ({"on_failure_topic": "t"}, "the topic t itself"),
    ],
)
def test_what_is_not_supported_is_refused(changes: dict[str, Any], message: str, lambda_: Lambda) -> None:
    mapping = KafkaMapping(
        name="M", function="F", topic="t", batch_size=1, window_seconds=0, report_item_failures=True, max_retries=-1,
        on_failure_topic=None, consumer_group="g", starting_position="LATEST", filters=(), bisect=False,
    )  # fmt: skip
    with pytest.raises(ValueError, match=message):
        EventSourceMapping(replace(mapping, **changes), "127.0.0.1:1", lambda_.address, function_timeout=1)
