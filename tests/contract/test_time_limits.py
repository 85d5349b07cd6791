"""No wait passes the deadline: not for an export, nor for S3, and however slowly the other side trickles.

Time-outs are long here, and what is left is short: who waited for a time-out would take several times as long.
"""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import repeat
from pathlib import Path
from typing import Any

import pytest

from sitebackup.adapters.http_exports.exports import HttpExports
from sitebackup.adapters.s3 import put
from sitebackup.adapters.s3.storage import S3Storage
from sitebackup.domain.errors import Transient
from sitebackup.domain.plan import MIB, plan_parts
from sitebackup.domain.provider import Provider
from sitebackup.ports.runtime import TimeLeft
from tests.builders import LOOPBACK
from tests.contract import wire
from tests.contract.test_transfer import Zeros, at, client

TIMEOUT = 8.0
"""Seconds: of exports, and of S3 as `client` makes it at least."""
LEFT = 0.5


def time_left(seconds: float = LEFT) -> TimeLeft:
    until = time.monotonic() + seconds
    return lambda: until - time.monotonic()


@contextmanager
def ends_in_time() -> Iterator[None]:
    begun = time.monotonic()
    with pytest.raises(Transient):
        yield
    assert time.monotonic() - begun < TIMEOUT / 2, "it waited for the time-out"


@contextmanager
def trickling(*before: bytes, forever: bytes, read_first: int = 1) -> Iterator[int]:
    """The port of a server that answers so, the last bytes again and again, a few times a second."""

    def serve(connection: socket.socket) -> None:
        data = b""
        while len(data) < read_first and (more := connection.recv(65536)):
            data += more
        for piece in before:
            connection.sendall(piece)
        for piece in repeat(forever):
            if over.wait(0.1):
                return
            connection.sendall(piece)

    over = threading.Event()
    with wire.serving(serve) as server:
        try:
            yield server.port
        finally:
            over.set()


def read_all(port: int, left: TimeLeft) -> None:
    exports = HttpExports(MIB, TIMEOUT, lambda arn, since: "", lambda: datetime.now(UTC))
    provider = Provider(name="site", export_url=f"http://127.0.0.1:{port}/", allow_networks=LOOPBACK)
    with exports.probe(provider, "u", "s", None, left) as export:
        buffer = memoryview(bytearray(65536))
        while export.readinto(buffer):
            pass


HEAD = b"HTTP/1.1 200 OK\r\n"
SLOW_EXPORTS: dict[str, tuple[list[bytes], bytes]] = {
    "silent": ([], b""),
    "silent in the head": ([HEAD], b""),
    "silent in the body": ([HEAD + b"Content-Length: 100\r\n\r\nbegin"], b""),
    "silent in a chunk": ([HEAD + b"Transfer-Encoding: chunked\r\n\r\nff\r\nbegin"], b""),
    "a trickling head": ([HEAD + b"X-Long: "], b"x"),
    "a trickling body": ([HEAD + b"Content-Length: 1000000\r\n\r\n"], b"x"),
    "a trickling size of a chunk": ([HEAD + b"Transfer-Encoding: chunked\r\n\r\nff;"], b"x"),
}


@pytest.mark.parametrize(("before", "forever"), SLOW_EXPORTS.values(), ids=SLOW_EXPORTS)
def test_an_export_is_not_waited_for_beyond_the_deadline(before: list[bytes], forever: bytes) -> None:
    with trickling(*before, forever=forever) as port, ends_in_time():
        read_all(port, time_left())


def test_a_trickling_head_has_come_whole_within_the_time_out() -> None:
    """Without any deadline: the socket's own time-out would begin again with each byte."""
    exports = HttpExports(MIB, LEFT, lambda arn, since: "", lambda: datetime.now(UTC))
    with trickling(HEAD + b"X-Long: ", forever=b"x") as port, ends_in_time():
        exports.probe(
            Provider(name="site", export_url=f"http://127.0.0.1:{port}/", allow_networks=LOOPBACK),
            "u",
            "s",
            None,
        )


def test_nothing_is_asked_for_when_no_time_is_left() -> None:
    with wire.script(b"", 1) as server:
        with pytest.raises(Transient, match="too slow"):
            read_all(server.port, lambda: 0.0)
        with pytest.raises(Transient, match="can't be reached"):
            at(server.port).put_part("key", "upload", 1, Zeros(), MIB, lambda: 0.0)
        assert server.accepted == 0


CONFIRMS = b"HTTP/1.1 200 OK\r\nX-Long: "


@pytest.mark.parametrize("held", [False, True], ids=["a part", "an object"])
@pytest.mark.parametrize(
    ("length", "before", "forever"),
    [(64 * MIB, [], b""), (MIB, [], b""), (MIB, [CONFIRMS], b"x")],
    ids=["takes no more", "does not answer", "trickles its answer"],
)
def test_s3_is_not_waited_for_beyond_the_deadline(
    length: int, before: list[bytes], forever: bytes, held: bool
) -> None:
    assert min(put.SEND_SECONDS, client("http://s3").meta.config.read_timeout) >= TIMEOUT
    read_first = 1000 if length > MIB else MIB
    with trickling(*before, forever=forever, read_first=read_first) as port, ends_in_time():
        if held:
            at(port).put_object("key", memoryview(bytes(length)), time_left())
        else:
            at(port).put_part("key", "upload", 1, Zeros(), length, time_left())


def test_s3_over_tls_is_not_waited_for_beyond_the_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tls, trusted = wire.certificate(tmp_path)
    monkeypatch.setenv("AWS_CA_BUNDLE", str(trusted))
    done = threading.Event()
    try:
        with wire.serving(lambda connection: bool(done.wait(20)), tls) as server, ends_in_time():
            storage = S3Storage(client(f"https://127.0.0.1:{server.port}"), "backups")
            storage.put_part("key", "upload", 1, Zeros(), 64 * MIB, time_left())
    finally:
        done.set()


def test_a_completion_that_goes_on_and_on_is_left_behind_at_the_deadline() -> None:
    """AWS sends white space while it completes an upload, for minutes if need be."""
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    with trickling(head, forever=b"1\r\n \r\n") as port, ends_in_time():
        at(port).complete("key", "upload", plan_parts(1, 5 * MIB, None), [], "crc", time_left())


def answers(*pieces: bytes) -> Callable[[socket.socket], Any]:
    def serve(connection: socket.socket) -> None:
        connection.recv(65536)
        for piece in pieces:
            connection.sendall(piece)
            time.sleep(0.3)

    return serve


def test_what_came_before_a_break_is_not_lost() -> None:
    """Else a range could not go on where it broke."""
    exports = HttpExports(MIB, TIMEOUT, lambda arn, since: "", lambda: datetime.now(UTC))
    with wire.serving(answers(HEAD + b"Content-Length: 100\r\n\r\n", b"some bytes")) as server:
        provider = Provider(
            name="site", export_url=f"http://127.0.0.1:{server.port}/", allow_networks=LOOPBACK
        )
        with exports.probe(provider, "u", "s", None) as export:
            buffer = memoryview(bytearray(100))
            assert export.readinto(buffer) == 10
            with pytest.raises(Transient, match="broke off"):
                export.readinto(buffer)
