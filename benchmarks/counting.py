"""Counts what reaches MongoDB and Kafka, on the wire and in the logs of the topics: nothing is guessed."""

import contextlib
import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from kafka import KafkaConsumer, TopicPartition

from local.services.kafka import TOPICS

OP_MSG = 2013
CONNECTION_COMMANDS = frozenset({"hello", "ismaster", "isMaster", "ping", "endSessions"})


@contextmanager
def mongo(target: int) -> Iterator[tuple[int, Counter[str]]]:
    """A proxy to a MongoDB server; yields its port and how often each `command collection` was sent.

    Wire protocol: https://www.mongodb.com/docs/manual/reference/mongodb-wire-protocol/
    """
    counts: Counter[str] = Counter()

    def forward(client: socket.socket) -> None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", target)) as server:
            for side in (client, server):
                side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            back = threading.Thread(target=_pump, args=(server, client), daemon=True)
            back.start()
            reader = client.makefile("rb")
            while len(head := reader.read(16)) == 16:
                length, _, _, operation = struct.unpack("<4i", head)
                body = reader.read(length - 16)
                if operation == OP_MSG:
                    command = _command(body)
                    if command.partition(" ")[0] not in CONNECTION_COMMANDS:
                        counts[command] += 1
                server.sendall(head + body)
        client.close()

    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    threading.Thread(target=forward, args=(client,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1], counts
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)


def kafka(bootstrap: str) -> Mapping[str, int]:
    """How many records each topic has had."""
    consumer = KafkaConsumer(bootstrap_servers=bootstrap)
    try:
        partitions = [
            TopicPartition(topic, number) for topic, count in TOPICS.items() for number in range(count)
        ]
        ends: Counter[str] = Counter()
        for partition, end in consumer.end_offsets(partitions).items():
            ends[partition.topic] += end
        return ends
    finally:
        consumer.close()


def _command(body: bytes) -> str:
    """`find jobs` of an OP_MSG body: flags, section kind 0, and a document whose first element is the command."""
    name = body[10 : body.index(b"\0", 10)].decode()
    value = 10 + len(name) + 1
    if body[9] != 0x02:  # no string, so it is not about a collection
        return name
    length = struct.unpack_from("<i", body, value)[0]
    return f"{name} {body[value + 4 : value + 3 + length].decode()}"


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_RDWR)
