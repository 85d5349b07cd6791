"""The Kafka event source mapping against a real broker, with an Invoke endpoint made of a few lines."""

import base64
import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import NewTopic

from local.kafka_mapping import Mapping
from local.services import Kafka, Service
from local.template import KafkaMapping

Answer = tuple[int, dict[str, str], Any]
OK: Answer = (200, {}, None)
ERROR: Answer = (200, {"x-amz-function-error": "Unhandled"}, {"errorType": "Boom", "errorMessage": "broken"})
CUT: Answer = (0, {}, None)  # the connection is closed instead of an answer
THROTTLED: Answer = (429, {"x-amzn-errortype": "TooManyRequestsException"}, {"message": "Rate Exceeded."})


@dataclass
class Invocation:
    """One call of the function: partition → values, in order."""

    function: str
    event: dict[str, Any]

    @property
    def records(self) -> list[tuple[int, int, str]]:
        return [
            (record["partition"], record["offset"], base64.b64decode(record["value"]).decode())
            for records in self.event["records"].values()
            for record in records
        ]

    @property
    def values(self) -> list[str]:
        return [value for _, _, value in self.records]


@dataclass
class Lambda:
    """An Invoke endpoint that keeps what it gets and answers what `answer` says."""

    server: ThreadingHTTPServer
    answer: Callable[[Invocation], Answer] = lambda _: OK
    invocations: list[Invocation] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    @property
    def values(self) -> list[str]:
        return [value for one in list(self.invocations) for value in one.values]


@pytest.fixture
def lambda_() -> Iterator[Lambda]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            function = self.path.split("/")[3]
            event = json.loads(self.rfile.read(int(self.headers["content-length"])))
            invocation = Invocation(function, event)
            fake.invocations.append(invocation)
            status, headers, body = fake.answer(invocation)
            if status == 0:
                self.close_connection = True
                return
            content = json.dumps(body).encode()
            self.send_response(status)
            for name, value in {**headers, "content-length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    fake = Lambda(server)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield fake
    server.shutdown()
    server.server_close()


def until(condition: Callable[[], bool], what: str, limit: float = 30.0) -> None:
    deadline = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < deadline, f"not within {limit} s: {what}"
        time.sleep(0.01)


@dataclass
class Topic:
    """A topic of its own for a test, with a producer."""

    name: str
    broker: Service
    producer: KafkaProducer

    def put(self, value: str, partition: int = 0, **more: Any) -> None:
        self.producer.send(self.name, value.encode(), partition=partition, **more).get(60)

    def committed(self, group: str) -> dict[int, int]:
        admin = KafkaAdminClient(bootstrap_servers=self.broker.address)
        try:
            offsets = admin.list_group_offsets([group])[group]
        finally:
            admin.close()
        return {where.partition: what.offset for where, what in offsets.items()}


@contextmanager
def _topic(broker: Service, partitions: int) -> Iterator[Topic]:
    name = f"t-{uuid.uuid4().hex[:12]}"
    admin = KafkaAdminClient(bootstrap_servers=broker.address)
    admin.create_topics([NewTopic(name, partitions, 1)])
    admin.close()
    producer = KafkaProducer(bootstrap_servers=broker.address, acks="all", reconnect_backoff_max_ms=500)
    try:
        yield Topic(name, broker, producer)
    finally:
        producer.close(timeout=5)


@pytest.fixture
def topic(kafka: Service) -> Iterator[Topic]:
    with _topic(kafka, 4) as one:
        yield one


def _mapping(topic: Topic, **changes: Any) -> KafkaMapping:
    mapping = KafkaMapping(
        name=f"Map{topic.name}",
        function="CountFunction",
        topic=topic.name,
        batch_size=10,
        window_seconds=0.0,
        report_item_failures=True,
        max_retries=-1,
        on_failure_topic=None,
        consumer_group=f"group-{topic.name}",
        starting_position="TRIM_HORIZON",
        filters=(),
        bisect=False,
    )
    return replace(mapping, **changes)


@contextmanager
def running(topic: Topic, lambda_: Lambda, **changes: Any) -> Iterator[Mapping]:
    mapping = Mapping(
        _mapping(topic, **changes),
        topic.broker.address,
        lambda_.address,
        function_timeout=30,
        backoff_seconds=(0.02, 0.1),
    )
    mapping.start()
    try:
        yield mapping
    finally:
        mapping.stop()


def _drained(mapping: Mapping) -> bool:
    status = mapping.status()
    return bool(status.lag) and set(status.lag.values()) == {0} and status.in_flight == 0


def test_a_record_reaches_the_function_in_the_shape_of_aws(topic: Topic, lambda_: Lambda) -> None:
    with running(topic, lambda_) as mapping:
        topic.put('{"a":1}', 2, key=b"k", headers=[("trace", b"\x01\xff")], timestamp_ms=1545084650987)
        until(lambda: _drained(mapping) and bool(lambda_.invocations), "the record is done")
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
        until(lambda: len(lambda_.values) == 100 and _drained(mapping), "all are done")
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
        until(lambda: _drained(mapping) and len(lambda_.values) == 4, "all four are done")
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
        until(lambda: _drained(mapping) and len(lambda_.invocations) == 2, "the second delivery")
        assert mapping.status().retries == 1
    assert [one.values for one in lambda_.invocations] == [list("abcd"), list("bcd")]


def test_without_reported_failures_the_answer_is_not_read(topic: Topic, lambda_: Lambda) -> None:
    topic.put("a")
    item = {"itemIdentifier": {"partition": f"{topic.name}-0", "offset": 0}}
    lambda_.answer = lambda _: (200, {}, {"batchItemFailures": [item]})
    with running(topic, lambda_, report_item_failures=False) as mapping:
        until(lambda: _drained(mapping) and bool(lambda_.invocations), "the record is done")
    assert lambda_.values == ["a"]


@pytest.mark.parametrize("failure", [ERROR, (200, {}, {"batchItemFailures": [{"itemIdentifier": "x"}]})])
def test_an_error_delivers_the_whole_batch_again(topic: Topic, lambda_: Lambda, failure: Answer) -> None:
    for value in "abc":
        topic.put(value)
    lambda_.answer = lambda _: failure if len(lambda_.invocations) < 4 else OK
    with running(topic, lambda_) as mapping:
        until(lambda: _drained(mapping) and len(lambda_.invocations) == 4, "the fourth delivery")
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
        until(lambda: _drained(mapping), "lag returns to zero")
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
        until(lambda: _drained(mapping) and mapping.status().dead_letters == 1, "the record is given up")
        topic.put("next")
        until(lambda: _drained(mapping) and "next" in lambda_.values, "the partition goes on")
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
        until(lambda: _drained(mapping) and mapping.status().dead_letters == 2, "both are given up")
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
        until(lambda: _drained(mapping) and mapping.status().dead_letters == 1, "the record is given up")
    batches = ["".join(one.values) for one in lambda_.invocations]
    assert batches == ["abcd", "ab", "cd", "c", "c", "d"]
    assert [record.value for record in _dead_letters(kafka, topic.name)] == [b"c"]


def test_throttles_and_a_lost_lambda_service_cost_no_attempt(
    topic: Topic, lambda_: Lambda, kafka: Service
) -> None:
    topic.put("a")
    lambda_.answer = lambda _: THROTTLED if len(lambda_.invocations) < 5 else OK
    with running(topic, lambda_, max_retries=0, on_failure_topic="dead-letters") as mapping:
        until(lambda: _drained(mapping) and len(lambda_.invocations) == 5, "the record is done")
        lambda_.answer = lambda _: CUT
        topic.put("b")
        until(lambda: "running?" in (mapping.status().last_error or ""), "the error is shown")
        assert sum(lag or 0 for lag in mapping.status().lag.values()) == 1
        lambda_.answer = lambda _: OK
        until(lambda: _drained(mapping), "the second record is done")
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
    first = Mapping(_mapping(topic, batch_size=1), topic.broker.address, lambda_.address, function_timeout=30)
    first.start()
    until(lambda: "b" in lambda_.values, "the second record is in flight")
    until(lambda: topic.committed(f"group-{topic.name}").get(0) == 1, "the first record is committed")
    first.stop(limit=0.0)  # as a crash: the invocation goes on, nobody waits for its answer
    with running(topic, lambda_, batch_size=1) as second:
        until(lambda: lambda_.values == ["a", "b", "b"], "the record in flight comes again")
        release.set()
        until(lambda: _drained(second), "lag returns to zero")
    assert lambda_.values == ["a", "b", "b"]
    assert topic.committed(f"group-{topic.name}")[0] == 2


def test_two_mappings_on_two_topics(topic: Topic, lambda_: Lambda, kafka: Service) -> None:
    with (
        _topic(kafka, 2) as other,
        running(topic, lambda_, function="First") as one,
        running(other, lambda_, function="Second") as two,
    ):
        topic.put("1")
        other.put("2", 1)
        until(lambda: _drained(one) and _drained(two) and len(lambda_.values) == 2, "both are done")
    assert {(one.function, *one.values) for one in lambda_.invocations} == {("First", "1"), ("Second", "2")}


def test_filtered_records_are_not_delivered_but_done(topic: Topic, lambda_: Lambda) -> None:
    for kind in ("a", "b", "a", "b"):
        topic.put(json.dumps({"kind": kind}))
    with running(topic, lambda_, filters=('{"value": {"kind": ["a"]}}',)) as mapping:
        until(lambda: _drained(mapping) and len(lambda_.values) == 2, "both are done")
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
        until(lambda: _drained(mapping), "all are done")
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
        until(lambda: _drained(mapping) and "5" in lambda_.values, "all are done")
    assert lambda_.values == list("012345")


def test_a_lost_broker_is_waited_for(lambda_: Lambda, tmp_path: Path) -> None:
    broker = Kafka(tmp_path)
    try:
        broker.start()
        broker.wait_ready()
        with _topic(broker, 2) as topic, running(topic, lambda_) as mapping:
            topic.put("before")
            until(lambda: _drained(mapping) and lambda_.values == ["before"], "the first record is done")
            broker.kill()
            broker.start()
            broker.wait_ready()
            topic.put("after", 1)
            until(lambda: _drained(mapping) and "after" in lambda_.values, "it goes on", limit=60)
        assert lambda_.values == ["before", "after"]
    finally:
        broker.stop()


def test_a_broker_that_comes_late_is_waited_for(lambda_: Lambda, tmp_path: Path) -> None:
    broker = Kafka(tmp_path)
    try:
        broker.start()
        broker.wait_ready()
        with _topic(broker, 1) as topic:
            topic.put("early")
            broker.stop()
            with running(topic, lambda_) as mapping:
                until(lambda: mapping.status().errors > 0, "the broker's absence is shown")
                assert "Kafka at" in (mapping.status().last_error or "")
                broker.start()
                broker.wait_ready()
                until(lambda: _drained(mapping) and lambda_.values == ["early"], "it begins", limit=60)
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
        Mapping(replace(mapping, **changes), "127.0.0.1:1", lambda_.address, function_timeout=1)
