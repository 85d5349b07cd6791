"""Events, batches, partial batch responses and filters of the Kafka mapping, without a broker."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response
from aws_lambda_powertools.utilities.data_classes.kafka_event import KafkaEvent, KafkaEventRecord
from hypothesis import given
from hypothesis import strategies as st

from local.event_sources.kafka_batches import (
    MAX_BATCH_BYTES,
    Filters,
    MalformedResponse,
    Record,
    from_lowest_failure,
    reported_failures,
    to_event,
)
from local.event_sources.kafka_partitions import Partitions


def _record(partition: int, offset: int, value: bytes = b"{}") -> Record:
    return Record("parts", partition, offset, 1545084650987, 0, b"key", value)


def _partitions(batch_size: int = 10, window: float = 0.0, filters: Sequence[str] = ()) -> Partitions:
    return Partitions(batch_size, window, Filters(filters))


def _take(partitions: Partitions, number: int, records: Sequence[Record], now: float) -> None:
    partitions.take(number, records, records[-1].offset + 1, now)


def test_the_event_has_the_shape_of_aws() -> None:
    record = replace(_record(0, 15, b'{"key":"value"}'), headers=(("headerKey", b"headerValue"),))
    event = json.loads(to_event([record, _record(1, 7)], "b-1:9092,b-2:9092"))
    assert set(event) == {"eventSource", "eventSourceArn", "bootstrapServers", "records"}
    assert event["eventSource"] == "aws:kafka"
    assert event["bootstrapServers"] == "b-1:9092,b-2:9092"
    assert list(event["records"]) == ["parts-0", "parts-1"]
    assert event["records"]["parts-0"] == [
        {
            "topic": "parts",
            "partition": 0,
            "offset": 15,
            "timestamp": 1545084650987,
            "timestampType": "CREATE_TIME",
            "key": "a2V5",
            "value": "eyJrZXkiOiJ2YWx1ZSJ9",
            "headers": [{"headerKey": [104, 101, 97, 100, 101, 114, 86, 97, 108, 117, 101]}],
        }
    ]


def test_powertools_reads_the_event() -> None:
    record = replace(_record(3, 4, b'{"a":1}'), headers=(("h", b"v"),), key=None)
    read = next(KafkaEvent(json.loads(to_event([record], "b:9092"))).records)
    assert (read.partition, read.offset, read.json_value, read.decoded_key) == (3, 4, {"a": 1}, None)
    assert read.decoded_headers["h"] == b"v"


def test_the_partial_response_of_powertools_is_understood() -> None:
    batch = [_record(0, 1), _record(0, 2, b"bad"), _record(1, 9, b"bad"), _record(1, 10)]
    processor = BatchProcessor(event_type=EventType.Kafka)

    def handle(record: KafkaEventRecord) -> None:
        if record.decoded_value == b"bad":
            raise ValueError(record.offset)

    event = json.loads(to_event(batch, "b:9092"))
    answer = process_partial_response(event, handle, processor, context=None)
    failed = reported_failures(json.dumps(answer).encode(), batch)
    assert failed == {(0, 2), (1, 9)}
    assert from_lowest_failure(batch, failed) == [batch[1], batch[2], batch[3]]


@pytest.mark.parametrize(
    "answer", [b"", b"null", b'""', b"{}", b'{"batchItemFailures":[]}', b'{"batchItemFailures":null}']
)
def test_these_answers_are_full_success(answer: bytes) -> None:
    assert reported_failures(answer, [_record(0, 1)]) == set()


@pytest.mark.parametrize(
    "answer",
    [
        "not json",
        [],
        "text",
        {"batchItemFailures": {}},
        {"batchItemFailures": [{}]},
        {"batchItemFailures": ["parts-0"]},
        {"batchItemFailures": [{"itemIdentifier": ""}]},
        {"batchItemFailures": [{"itemIdentifier": None}]},
        {"batchItemFailures": [{"itemIdentifier": "parts-0-1"}]},
        {"batchItemFailures": [{"itemIdentifier": {"partition": "parts-0"}}]},
        {"batchItemFailures": [{"itemIdentifier": {"partition": 0, "offset": 1}}]},
        {"batchItemFailures": [{"itemIdentifier": {"partition": "parts-0", "offset": "1"}}]},
        {"batchItemFailures": [{"itemIdentifier": {"partition": "parts-0", "offset": True}}]},
        {"batchItemFailures": [{"itemIdentifier": {"partition": "parts-0", "offset": 99}}]},
        {"batchItemFailures": [{"badKey": {"partition": "parts-0", "offset": 1}}]},
    ],
)
def test_a_malformed_answer_fails_the_whole_batch(answer: Any) -> None:
    text = answer if answer == "not json" else json.dumps(answer)
    with pytest.raises(MalformedResponse):
        reported_failures(text.encode(), [_record(0, 1)])


def test_a_batch_is_cut_by_its_size_and_the_partition_stays_busy() -> None:
    partitions = _partitions(batch_size=3)
    _take(partitions, 0, [_record(0, offset) for offset in range(5)], now=0)
    assert [r.offset for r in partitions.next_batch(0)] == [0, 1, 2]
    assert partitions.next_batch(0) == []
    partitions.finish([_record(0, 0)], all_done=True)
    assert [r.offset for r in partitions.next_batch(0)] == [3, 4]


def test_a_batch_is_cut_by_the_payload_limit() -> None:
    partitions = _partitions(batch_size=10_000)
    records = [_record(0, offset, b"x" * 900_000) for offset in range(12)]
    _take(partitions, 0, records, now=0)
    batch = partitions.next_batch(0)
    assert 1 < len(batch) < 12
    assert len(to_event(batch, "b:9092")) <= 6 * 1024 * 1024
    assert len(to_event(records[: len(batch) + 1], "b:9092")) > MAX_BATCH_BYTES


def test_a_record_over_the_limit_is_sent_alone() -> None:
    partitions = _partitions()
    _take(partitions, 0, [_record(0, 0, b"x" * 5_000_000), _record(0, 1)], now=0)
    assert [r.offset for r in partitions.next_batch(0)] == [0]


def test_partitions_share_a_batch_only_as_a_whole() -> None:
    partitions = _partitions(batch_size=4)
    for number, count in enumerate([3, 2, 1, 4]):
        _take(partitions, number, [_record(number, offset) for offset in range(count)], now=0)
    batches = []
    while batch := partitions.next_batch(0):
        batches.append([(r.partition, r.offset) for r in batch])
    assert batches == [
        [(0, 0), (0, 1), (0, 2), (2, 0)],
        [(1, 0), (1, 1)],
        [(3, 0), (3, 1), (3, 2), (3, 3)],
    ]


def test_the_window_waits_for_more_but_not_for_a_full_batch() -> None:
    partitions = _partitions(batch_size=3, window=0.5)
    _take(partitions, 0, [_record(0, 0)], now=10.0)
    assert partitions.next_batch(10.4) == []
    assert partitions.next_due(10.4) == pytest.approx(0.1)
    _take(partitions, 0, [_record(0, 1)], now=10.4)
    assert [r.offset for r in partitions.next_batch(10.5)] == [0, 1]
    _take(partitions, 1, [_record(1, offset) for offset in range(3)], now=11.0)
    assert len(partitions.next_batch(11.0)) == 3


def test_records_read_again_after_a_rebalance_are_not_delivered_twice() -> None:
    partitions = _partitions(batch_size=2)
    records = [_record(0, offset) for offset in range(4)]
    _take(partitions, 0, records, now=0)
    in_flight = partitions.next_batch(0)
    _take(partitions, 0, records, now=0)
    assert partitions.next_batch(0) == []
    partitions.progress(0, 2)
    partitions.finish(in_flight, all_done=True)
    assert partitions.uncommitted() == {0: 2}
    _take(partitions, 0, records, now=0)
    assert [r.offset for r in partitions.next_batch(0)] == [2, 3]


def test_a_topic_made_anew_is_read_from_its_start() -> None:
    partitions = _partitions()
    _take(partitions, 0, [_record(0, offset) for offset in range(5)], now=0)
    partitions.finish(partitions.next_batch(0), all_done=True)
    _take(partitions, 0, [_record(0, 0), _record(0, 1)], now=0)
    assert [r.offset for r in partitions.next_batch(0)] == [0, 1]


def test_a_batch_given_up_is_read_again_from_the_committed_offset() -> None:
    partitions = _partitions()
    _take(partitions, 0, [_record(0, 5)], now=0)
    batch = partitions.next_batch(0)
    partitions.finish(batch, all_done=False)
    partitions.forget(batch)
    assert partitions.uncommitted() == {}
    _take(partitions, 0, [_record(0, 5)], now=0)
    assert partitions.next_batch(0) == batch


def test_filtered_records_are_done() -> None:
    partitions = _partitions(filters=['{"value": {"kind": ["a"]}}'])
    _take(partitions, 0, [_record(0, 0, b'{"kind":"b"}')], now=0)
    assert partitions.next_batch(0) == []
    assert partitions.uncommitted() == {0: 1}
    _take(partitions, 0, [_record(0, 1, b'{"kind":"a"}'), _record(0, 2, b'{"kind":"b"}')], now=0)
    batch = partitions.next_batch(0)
    assert [r.offset for r in batch] == [1]
    assert partitions.uncommitted() == {0: 1}
    partitions.progress(0, 2)
    partitions.finish(batch, all_done=True)
    assert partitions.uncommitted() == {0: 3}


@pytest.mark.parametrize(
    ("pattern", "value", "passes"),
    [
        ('{"value": {"kind": ["a", "b"]}}', b'{"kind":"b"}', True),
        ('{"value": {"kind": ["a"]}}', b'{"kind":"c"}', False),
        ('{"value": {"kind": ["a"]}}', b"{}", False),
        ('{"value": {"kind": ["a"]}}', b"no json", False),
        ('{"value": {"kind": ["a"]}}', b"[]", False),
        ('{"value": {"kind": [null]}}', b'{"kind":null}', True),
        ('{"value": {"n": [1]}}', b'{"n":true}', False),
        ('{"value": {"in": {"n": [1]}, "kind": ["a"]}}', b'{"in":{"n":1},"kind":"a"}', True),
        ('{"value": {"in": {"n": [1]}}}', b'{"in":1}', False),
        ('{"value": ["plain"]}', b"plain", True),
        ('{"key": ["key"]}', b"", True),
        ('{"key": ["other"], "value": {}}', b"{}", False),
    ],
)
def test_filters_match_equal_values(pattern: str, value: bytes, passes: bool) -> None:
    assert Filters([pattern]).passes(_record(0, 0, value)) is passes


@pytest.mark.parametrize(
    "pattern", ["[]", '{"topic": ["a"]}', '{"value": {"n": [{"numeric": [">", 1]}]}}', "nonsense"]
)
def test_other_filters_are_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"filter pattern|Expecting value"):
        Filters([pattern])


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 9)), max_size=30), st.integers(1, 7), st.data())
def test_every_record_is_delivered_once_and_in_order(
    reads: list[tuple[int, int]], batch_size: int, data: st.DataObject
) -> None:
    """Whatever is read and whichever batch ends first, no partition is in two batches or out of order."""
    partitions = _partitions(batch_size)
    ends = dict.fromkeys(range(4), 0)
    seen: dict[int, list[int]] = {number: [] for number in range(4)}
    in_flight: list[list[Record]] = []

    def deliver() -> None:
        while batch := partitions.next_batch(0):
            assert len(batch) <= batch_size
            busy = {r.partition for one in in_flight for r in one}
            assert not busy & {r.partition for r in batch}
            for record in batch:
                seen[record.partition].append(record.offset)
            in_flight.append(batch)

    def end_one() -> None:
        batch = in_flight.pop(data.draw(st.integers(0, len(in_flight) - 1)))
        for record in batch:
            partitions.progress(record.partition, record.offset + 1)
        partitions.finish(batch, all_done=True)

    for number, count in reads:
        _take(partitions, number, [_record(number, ends[number] + i) for i in range(count)], now=0)
        ends[number] += count
        deliver()
        if data.draw(st.booleans()) and in_flight:
            end_one()
            deliver()
    while in_flight:
        end_one()
        deliver()
    assert seen == {number: list(range(end)) for number, end in ends.items()}
    assert partitions.uncommitted() == {number: end for number, end in ends.items() if end}
