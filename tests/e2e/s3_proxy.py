"""A proxy in front of the S3 server: counts what is PUT, loses answers on demand, and bears no body that pauses."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections import Counter
from dataclasses import dataclass, field

_HEAD_LIMIT = 64 * 1024
_CHUNK = 256 * 1024
_GATE_SECONDS = 60
_PAUSED = b"<Error><Code>RequestTimeout</Code><Message>The body paused.</Message></Error>"
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


@dataclass
class S3Proxy:
    """Forwards every connection to `upstream` (host, port), on a loopback port of its own until `close`."""

    upstream: tuple[str, int]
    port: int = 0
    parts: Counter[str] = field(default_factory=Counter)
    """PUTs of parts by the path of their key."""
    part_bytes: Counter[str] = field(default_factory=Counter)
    """Bytes in the bodies of these PUTs, framing included."""
    completes: Counter[str] = field(default_factory=Counter)
    """CompleteMultipartUpload requests likewise."""
    creates: Counter[str] = field(default_factory=Counter)
    """CreateMultipartUpload requests likewise."""
    lost_answers: Counter[str] = field(default_factory=Counter)
    """How many answers to a Complete are still to be lost, by the path of the key."""
    lost_creates: Counter[str] = field(default_factory=Counter)
    """How many answers to a CreateMultipartUpload likewise."""
    longest_pause: float | None = None
    """Seconds that a body may pause; then its request is refused and its connection closed, as AWS does it."""
    paused: Counter[str] = field(default_factory=Counter)
    """Requests that were refused for that, by the path of the key."""
    gates: dict[str, threading.Event] = field(default_factory=dict)
    """A Complete of that path is passed on only when this is set."""

    def __post_init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self.port = self._listener.getsockname()[1]
        self._lock = threading.Lock()  # guards the counters
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        """Take no further connection; those that are open end with their peers."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return  # closed
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with socket.create_connection(self.upstream, timeout=5) as server:
                server.settimeout(None)
                server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                _Connection(self, client, server).run()

    def takes(self, head: bytes, length: int) -> bool:
        """Count the request, and wait at its gate; whether its answer is to be lost."""
        method, target, _ = head.split(b" ", 2)
        path, _, query = target.decode().partition("?")
        lose = self._count(method, path, query, length)
        if method == b"POST" and "uploadId=" in query and path in self.gates:
            self.gates[path].wait(_GATE_SECONDS)
        return lose

    def _count(self, method: bytes, path: str, query: str, length: int) -> bool:
        with self._lock:
            if method == b"PUT" and "partNumber=" in query:
                self.parts[path] += 1
                self.part_bytes[path] += length
            elif method == b"POST" and "uploadId=" in query:
                self.completes[path] += 1
                return _takes_one(self.lost_answers, path)
            elif method == b"POST" and query == "uploads":
                self.creates[path] += 1
                return _takes_one(self.lost_creates, path)
        return False


class _Connection:
    """Requests of one client, one after another; answers are passed on as they come."""

    def __init__(self, proxy: S3Proxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy, self._client, self._server = proxy, client, server
        self._lose = threading.Event()

    def run(self) -> None:
        answers = threading.Thread(target=self._answers, daemon=True)
        answers.start()
        try:
            self._requests()
        finally:
            with contextlib.suppress(OSError):
                self._server.shutdown(socket.SHUT_WR)
            answers.join()

    def _requests(self) -> None:
        waiting = b""
        while True:
            while b"\r\n\r\n" not in waiting:
                if len(waiting) > _HEAD_LIMIT or not (data := self._client.recv(_CHUNK)):
                    return
                waiting += data
            head, _, waiting = waiting.partition(b"\r\n\r\n")
            found = _LENGTH.search(head)
            left = int(found[1]) if found else 0
            if self._proxy.takes(head, left):
                self._lose.set()
            self._server.sendall(head + b"\r\n\r\n")
            while left:
                data = waiting or self._body(head)
                if not data:
                    return
                self._server.sendall(data[:left])
                waiting, left = data[left:], left - len(data[:left])

    def _body(self, head: bytes) -> bytes:
        """What comes next of a request's body; nothing once it paused for too long."""
        self._client.settimeout(self._proxy.longest_pause)
        try:
            return self._client.recv(_CHUNK)
        except TimeoutError:
            self._proxy.paused[head.split(b" ", 2)[1].decode().partition("?")[0]] += 1
            refusal = (
                f"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: {len(_PAUSED)}\r\n\r\n"
            )
            self._client.sendall(refusal.encode() + _PAUSED)
            return b""
        finally:
            self._client.settimeout(None)

    def _answers(self) -> None:
        with contextlib.suppress(OSError):
            while (data := self._server.recv(_CHUNK)) and not self._lose.is_set():
                self._client.sendall(data)
        with contextlib.suppress(OSError):
            self._client.shutdown(socket.SHUT_RDWR)


def _takes_one(left: Counter[str], path: str) -> bool:
    """Whether there was one more."""
    if not left[path]:
        return False
    left[path] -= 1
    return True
