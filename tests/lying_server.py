"""A provider's server on a raw socket: what it answers to requests is in the test's hands, byte by byte."""

import contextlib
import socket
import struct
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

_LIMIT_SECONDS = 20.0
_HEAD_LIMIT = 64 * 1024


@dataclass(frozen=True)
class Asked:
    """A request as it came."""

    target: str
    headers: Mapping[str, str]
    """By their names in lower case."""
    method: str = "GET"
    body: bytes = b""

    @property
    def span(self) -> tuple[int, int] | None:
        """The range that is asked for: its first byte, and the one past its last."""
        if "range" not in self.headers:
            return None
        first, _, last = self.headers["range"].removeprefix("bytes=").partition("-")
        return int(first), int(last) + 1


@dataclass(frozen=True)
class Answer:
    """The bytes that are sent, and what becomes of the connection then."""

    data: bytes
    then: Literal["close", "keep", "reset"] = "close"


type Lie = Callable[[Asked], Answer]


def answer(
    status: str, *headers: str, body: bytes = b"", then: Literal["close", "keep", "reset"] = "close"
) -> Answer:
    """An HTTP/1.1 answer with just these headers, and Connection: close if the connection ends behind it.

    A client that was not told may send its next request into the closing connection (RFC 9112, 9.6).
    """
    told = ["Connection: close"] if then == "close" else []
    return Answer("\r\n".join([f"HTTP/1.1 {status}", *headers, *told, "", ""]).encode() + body, then)


def chunked(data: bytes, size: int = 65_536) -> bytes:
    """The data in chunked coding (RFC 9112, 7.1)."""
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def honest(data: bytes, etag: str = '"1"') -> Lie:
    """Answers whole, or by ranges under a validator, as an export API should."""

    def tell(asked: Asked) -> Answer:
        if asked.headers.get("if-match", etag) != etag:
            return answer("412 Precondition Failed", "Content-Length: 0")
        if asked.span is None:
            return answer("200 OK", f"Content-Length: {len(data)}", body=data)
        return part(asked, data, f"Content-Length: {len(data[slice(*asked.span)])}", etag=etag)

    return tell


def part(
    asked: Asked,
    data: bytes,
    *headers: str,
    etag: str = '"1"',
    total: int | None = None,
    body: bytes | None = None,
) -> Answer:
    """A 206 that says it is the range asked for; how its body is framed is up to `headers` and `body`."""
    assert asked.span is not None
    start, end = asked.span[0], min(asked.span[1], len(data))
    said = f"Content-Range: bytes {start}-{end - 1}/{len(data) if total is None else total}"
    return answer(
        "206 Partial Content", said, f"ETag: {etag}", *headers, body=data[start:end] if body is None else body
    )


class LyingServer:
    """Listens on loopback until `close`. A site's id is the first part of the path."""

    def __init__(self) -> None:
        self.sites: dict[str, Lie] = {}
        self.asked: dict[str, list[Asked]] = defaultdict(list)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: set[socket.socket] = set()
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        """Cuts every connection."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._accepting.join(_LIMIT_SECONDS)
        for client in list(self._open):
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return  # closed
            self._open.add(client)
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        client.settimeout(_LIMIT_SECONDS)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with client, contextlib.suppress(OSError):
            while asked := _read(client):
                site = asked.target.split("/")[1]
                self.asked[site].append(asked)
                told = self.sites.get(site, _not_found)(asked)
                client.sendall(told.data)
                if told.then == "reset":
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                if told.then != "keep":
                    break
        self._open.discard(client)


def _not_found(asked: Asked) -> Answer:
    return answer("404 Not Found", "Content-Length: 0")


def _read(client: socket.socket) -> Asked | None:
    """The next request; None if there is none."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = client.recv(_HEAD_LIMIT)
        if not more or len(data) > _HEAD_LIMIT:
            return None
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    fields = (line.partition(":") for line in lines)
    headers = {name.lower(): value.strip() for name, _, value in fields}
    length = int(headers.get("content-length", 0))
    while len(body) < length and (more := client.recv(_HEAD_LIMIT)):
        body += more
    method, target, _ = first.split(" ")
    return Asked(target, headers, method, body)
