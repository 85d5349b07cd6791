"""Topics of a test's own, an Invoke endpoint made of a few lines, and Kafka mappings between them."""

import base64
import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from kafka import KafkaAdminClient, KafkaProducer
from kafka.admin import NewTopic

from local.event_sources.kafka_mapping import EventSourceMapping
from local.services.service import Service
from local.template.model import KafkaMapping

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


@contextmanager
def serve() -> Iterator[Lambda]:
    """The endpoint on a free port."""

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
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()


def until(condition: Callable[[], bool], what: str, limit: float = 30.0) -> None:
    """Fails with `what` unless the condition comes true within `limit` seconds."""
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
def a_topic(broker: Service, partitions: int) -> Iterator[Topic]:
    """A new topic of that many partitions."""
    name = f"t-{uuid.uuid4().hex[:12]}"
    admin = KafkaAdminClient(bootstrap_servers=broker.address)
    admin.create_topics([NewTopic(name, partitions, 1)])
    admin.close()
    producer = KafkaProducer(bootstrap_servers=broker.address, acks="all", reconnect_backoff_max_ms=500)
    try:
        yield Topic(name, broker, producer)
    finally:
        producer.close(timeout=5)


def mapping_of(topic: Topic, **changes: Any) -> KafkaMapping:
    """As the template would describe it, in a consumer group of the topic's own."""
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
def running(topic: Topic, lambda_: Lambda, **changes: Any) -> Iterator[EventSourceMapping]:
    """The mapping at work; it waits shorter before retries than AWS does."""
    mapping = EventSourceMapping(
        mapping_of(topic, **changes),
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


def drained(mapping: EventSourceMapping) -> bool:
    """Whether every record is done."""
    status = mapping.status()
    return bool(status.lag) and set(status.lag.values()) == {0} and status.in_flight == 0
