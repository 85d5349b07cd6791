"""Answers of import APIs that come before all bytes of a slice are sent, late, or never."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from sitebackup.adapters.tus_imports.slices import LOOK_SECONDS
from sitebackup.domain.errors import Permanent, SiteBackupError, TaskEnded, Transient
from tests.contract import wire
from tests.contract.test_import_requests import SECRET, SILENCE_SECONDS, A, imports, invalid, provider
from tests.contract.test_time_limits import ends_in_time, time_left
from tests.lying_server import answer

LARGE = memoryview(bytearray(32 << 20))
"""More than the buffers of two sockets take."""


@pytest.fixture(params=["http", "https"])
def in_front_of(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[int], str]]:
    """Gives the URL of a server by its port: itself, or one in front of it that speaks TLS."""
    with ExitStack() as stack:

        def url(port: int) -> str:
            if request.param == "http":
                return f"http://127.0.0.1:{port}"
            tls, trusted = wire.certificate(tmp_path)
            monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(trusted))
            return f"https://127.0.0.1:{stack.enter_context(wire.proxy(port, tls=tls)).port}"

        yield url


@contextmanager
def hasty(told: bytes, *, stays: bool = True) -> Iterator[wire.Wire]:
    """A server that answers a slice once its head is there, and then reads no more, or closes the connection."""
    over = threading.Event()

    def serve(client: socket.socket) -> None:
        begin_slice(client)
        client.sendall(told)
        if stays:
            over.wait(wire.LIMIT_SECONDS)

    with wire.serving(serve) as server:
        try:
            yield server
        finally:
            over.set()


def begin_slice(client: socket.socket) -> None:
    """Reads on to the head of a slice; what is offered is nothing."""
    while wire.head_of(client).startswith(b"OPTIONS "):
        client.sendall(answer("204 No Content", then="keep").data)


def send_large(url: str, timeout: float = SILENCE_SECONDS, **more: Any) -> int:
    return imports(timeout=timeout).send(provider(url), f"{url}/{A}/{SECRET}", 0, LARGE, **more)


EARLY = [
    ("409 Conflict", Transient, r"^site answered 409\.$"),
    ("413 Content Too Large", Permanent, r"^site answered 413\.$"),
    ("503 Service Unavailable", Transient, r"^site answered 503\.$"),
]


@pytest.mark.parametrize("stays", [True, False], ids=["reads no more", "closes"])
@pytest.mark.parametrize(("status", "kind", "message"), EARLY, ids=[status for status, *_ in EARLY])
def test_an_answer_that_comes_before_all_bytes_are_taken_is_heard(
    in_front_of: Callable[[int], str], status: str, kind: type[SiteBackupError], message: str, stays: bool
) -> None:
    with hasty(wire.answer(status), stays=stays) as server, pytest.raises(kind, match=message):
        send_large(in_front_of(server.port))


def test_an_api_that_takes_all_bytes_before_they_are_sent_breaks_the_rules(
    in_front_of: Callable[[int], str],
) -> None:
    early = answer("204 No Content", f"Upload-Offset: {len(LARGE)}", then="keep").data
    with hasty(early) as server:
        invalid(lambda: send_large(in_front_of(server.port)), "its Upload-Offset")


def test_a_connection_on_which_a_slice_was_cut_short_is_not_used_again() -> None:
    with hasty(answer("409 Conflict", "Content-Length: 0", then="keep").data) as server:
        url = f"http://127.0.0.1:{server.port}"
        api = imports()
        for accepted in (1, 2):
            with pytest.raises(Transient, match="409"):
                api.send(provider(url), f"{url}/{A}/{SECRET}", 0, LARGE)
            assert server.accepted == accepted


def test_bytes_that_nobody_takes_are_not_waited_for_beyond_the_deadline(
    in_front_of: Callable[[int], str],
) -> None:
    with hasty(b"") as server:
        url = in_front_of(server.port)
        with ends_in_time():
            send_large(url, time_left=time_left())


def test_bytes_that_nobody_takes_count_as_silence() -> None:
    with hasty(b"") as server, pytest.raises(Transient, match="silent for too long"):
        send_large(f"http://127.0.0.1:{server.port}", timeout=0.5)


@pytest.mark.parametrize("reads", [True, False], ids=["read and not answered", "not read"])
def test_a_slice_that_nobody_wants_any_more_breaks_its_connection(
    in_front_of: Callable[[int], str], reads: bool
) -> None:
    over, ended = threading.Event(), threading.Event()

    def serve(client: socket.socket) -> None:
        begin_slice(client)
        if not reads:
            over.wait(wire.LIMIT_SECONDS)
        with suppress(ConnectionResetError):
            while client.recv(1 << 20):
                pass
        ended.set()

    with wire.serving(serve) as server:
        url = in_front_of(server.port)
        with pytest.raises(TaskEnded):
            send_large(url, goes_on=lambda: False)
        over.set()
        assert ended.wait(wire.LIMIT_SECONDS)


def test_between_many_writes_it_is_asked_once_a_second_whether_they_go_on() -> None:
    asked: list[float] = []

    def goes_on() -> bool:
        asked.append(time.monotonic())
        return len(asked) < 3

    def serve(client: socket.socket) -> None:
        begin_slice(client)
        with suppress(ConnectionResetError):
            while client.recv(256 << 10):
                time.sleep(0.05)

    with wire.serving(serve) as server, pytest.raises(TaskEnded):
        send_large(f"http://127.0.0.1:{server.port}", goes_on=goes_on)
    assert all(later - earlier >= LOOK_SECONDS for earlier, later in pairwise(asked))
