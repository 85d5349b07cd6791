"""The Kafka event source mapping against a real broker: what is delivered again, and what is given up."""

import threading
from typing import Any

import pytest
from kafka import KafkaConsumer, TopicPartition

from local.event_sources.kafka_mapping import EventSourceMapping
from local.services.service import Service
from tests.integration.mapping_harness import (
    CUT,
    ERROR,
    OK,
    THROTTLED,
    Answer,
    Invocation,
    Lambda,
    Topic,
    drained,
    mapping_of,
    running,
    until,
)


def test_only_from_the_lowest_failure_is_delivered_again(topic: Topic, lambda_: Lambda) -> None:
    for value in "abcd":
        topic.put(value, 1)

    def answer(invocation: Invocation) -> Answer:
        if len(lambda_.invocations) > 1:
            return OK
        failed = [
            {"itemIdentifier": {"partition": f"{topic.name}-{partition}", "offset": offset}}
            for partition, offset, value in invocation.records
            if value in "bd"
        ]
        return 200, {}, {"batchItemFailures": failed}

    lambda_.answer = answer
    with running(topic, lambda_) as mapping:
        until(lambda: drained(mapping) and len(lambda_.invocations) == 2, "the second delivery")
        assert mapping.status().retries == 1
    assert [one.values for one in lambda_.invocations] == [list("abcd"), list("bcd")]


def test_without_reported_failures_the_answer_is_not_read(topic: Topic, lambda_: Lambda) -> None:
    topic.put("a")
    item = {"itemIdentifier": {"partition": f"{topic.name}-0", "offset": 0}}
    lambda_.answer = lambda _: (200, {}, {"batchItemFailures": [item]})
    with running(topic, lambda_, report_item_failures=False) as mapping:
        until(lambda: drained(mapping) and bool(lambda_.invocations), "the record is done")
    assert lambda_.values == ["a"]


@pytest.mark.parametrize("failure", [ERROR, (200, {}, {"batchItemFailures": [{"itemIdentifier": "x"}]})])
def test_an_error_delivers_the_whole_batch_again(topic: Topic, lambda_: Lambda, failure: Answer) -> None:
    for value in "abc":
        topic.put(value)
    lambda_.answer = lambda _: failure if len(lambda_.invocations) < 4 else OK
    with running(topic, lambda_) as mapping:
        until(lambda: drained(mapping) and len(lambda_.invocations) == 4, "the fourth delivery")
        status = mapping.status()
    assert [one.values for one in lambda_.invocations] == [list("abc")] * 4
    assert (status.retries, status.errors) == (3, 3)
    assert status.last_error is not None


def test_an_error_blocks_its_partition_only(topic: Topic, lambda_: Lambda) -> None:
    lambda_.answer = lambda one: ERROR if "bad" in one.values else OK
    with running(topic, lambda_, batch_size=1) as mapping:
        topic.put("bad", 0)
        topic.put("behind", 0)
        until(lambda: mapping.status().retries > 2, "the record is retried")
        topic.put("good", 1)
        until(
            lambda: mapping.status().lag.get(1) == 0 and "good" in lambda_.values,
            "the other partition goes on",
        )
        assert mapping.status().lag[0] == 2
        lambda_.answer = lambda _: OK
        until(lambda: drained(mapping), "lag returns to zero")
    assert lambda_.values[-1] == "behind"


def _dead_letters(kafka: Service, source: str) -> list[Any]:
    consumer = KafkaConsumer(bootstrap_servers=kafka.address, auto_offset_reset="earliest")
    try:
        partition = TopicPartition("dead-letters", 0)
        consumer.assign([partition])
        end = consumer.end_offsets([partition])[partition]
        found: list[Any] = []
        while consumer.position(partition) < end:
            for records in consumer.poll(timeout_ms=5000).values():
                found += [record for record in records if dict(record.headers)["topic"] == source.encode()]
        return found
    finally:
        consumer.close()


def test_after_the_last_retry_the_failed_records_go_to_the_destination(
    topic: Topic, lambda_: Lambda, kafka: Service
) -> None:
    topic.put("good")
    topic.put("bad", key=b"k", headers=[("own", b"header")])
    topic.put("fine")

    def answer(invocation: Invocation) -> Answer:
        failed = [
            {"itemIdentifier": {"partition": f"{topic.name}-{partition}", "offset": offset}}
            for partition, offset, value in invocation.records
            if value == "bad"
        ]
        return 200, {}, {"batchItemFailures": failed}

    lambda_.answer = answer
    with running(topic, lambda_, max_retries=2, on_failure_topic="dead-letters") as mapping:
        until(lambda: drained(mapping) and mapping.status().dead_letters == 1, "the record is given up")
        topic.put("next")
        until(lambda: drained(mapping) and "next" in lambda_.values, "the partition goes on")
    assert [one.values for one in lambda_.invocations[:3]] == [
        ["good", "bad", "fine"],
        *[["bad", "fine"]] * 2,
    ]
    (dead,) = _dead_letters(kafka, topic.name)
    assert (dead.key, dead.value) == (b"k", b"bad")
    headers = dict(dead.headers)
    assert headers["own"] == b"header"
    assert headers["condition"] == b"RetryAttemptsExhausted"
    assert headers["approximateInvokeCount"] == b"3"
    assert (headers["partition"], headers["offset"]) == (b"0", b"1")
    assert b"reported as failed" in headers["errorMessage"]


def test_after_the_last_retry_of_an_error_all_go_to_the_destination(
    topic: Topic, lambda_: Lambda, kafka: Service
) -> None:
    for value in "ab":
        topic.put(value)
    lambda_.answer = lambda _: ERROR
    with running(topic, lambda_, max_retries=0, on_failure_topic="dead-letters") as mapping:
        until(lambda: drained(mapping) and mapping.status().dead_letters == 2, "both are given up")
    assert [one.values for one in lambda_.invocations] == [["a", "b"]]
    dead = _dead_letters(kafka, topic.name)
    assert [record.value for record in dead] == [b"a", b"b"]
    assert b"Boom: broken" in dict(dead[0].headers)["errorMessage"]


def test_bisecting_isolates_the_bad_record(topic: Topic, lambda_: Lambda, kafka: Service) -> None:
    for value in "abcd":
        topic.put(value)
    lambda_.answer = lambda one: ERROR if "c" in one.values else OK
    changes = {"max_retries": 1, "on_failure_topic": "dead-letters", "bisect": True}
    with running(topic, lambda_, **changes) as mapping:
        until(lambda: drained(mapping) and mapping.status().dead_letters == 1, "the record is given up")
    batches = ["".join(one.values) for one in lambda_.invocations]
    assert batches == ["abcd", "ab", "cd", "c", "c", "d"]
    assert [record.value for record in _dead_letters(kafka, topic.name)] == [b"c"]


def test_throttles_and_a_lost_lambda_service_cost_no_attempt(
    topic: Topic, lambda_: Lambda, kafka: Service
) -> None:
    topic.put("a")
    lambda_.answer = lambda _: THROTTLED if len(lambda_.invocations) < 5 else OK
    with running(topic, lambda_, max_retries=0, on_failure_topic="dead-letters") as mapping:
        until(lambda: drained(mapping) and len(lambda_.invocations) == 5, "the record is done")
        lambda_.answer = lambda _: CUT
        topic.put("b")
        until(lambda: "running?" in (mapping.status().last_error or ""), "the error is shown")
        assert sum(lag or 0 for lag in mapping.status().lag.values()) == 1
        lambda_.answer = lambda _: OK
        until(lambda: drained(mapping), "the second record is done")
        assert (mapping.status().retries, mapping.status().dead_letters) == (0, 0)
    assert lambda_.values[-1] == "b"
    assert _dead_letters(kafka, topic.name) == []


def test_what_was_not_committed_is_delivered_again_by_the_next_process(topic: Topic, lambda_: Lambda) -> None:
    for value in "ab":
        topic.put(value)
    release = threading.Event()

    def answer(invocation: Invocation) -> Answer:
        if "b" in invocation.values:
            release.wait(20)
        return OK

    lambda_.answer = answer
    first = EventSourceMapping(
        mapping_of(topic, batch_size=1), topic.broker.address, lambda_.address, function_timeout=30
    )
    first.start()
    until(lambda: "b" in lambda_.values, "the second record is in flight")
    until(lambda: topic.committed(f"group-{topic.name}").get(0) == 1, "the first record is committed")
    first.stop(limit=0.0)  # as a crash: the invocation goes on, nobody waits for its answer
    with running(topic, lambda_, batch_size=1) as second:
        until(lambda: lambda_.values == ["a", "b", "b"], "the record in flight comes again")
        release.set()
        until(lambda: drained(second), "lag returns to zero")
    assert lambda_.values == ["a", "b", "b"]
    assert topic.committed(f"group-{topic.name}")[0] == 2
