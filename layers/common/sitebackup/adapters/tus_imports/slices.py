"""Sends the bytes of a slice, and hears an answer that comes before they are all taken.

By itself urllib3 reads an answer only behind the last byte: a server that refuses a slice and reads no more of it
would be waited for until it counts as silent, and nobody could break a slow slice off.
"""

import select
import ssl
from collections.abc import Callable, Iterator
from functools import partial
from time import monotonic
from typing import Any, override

import urllib3
from urllib3.connection import HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from ...domain.errors import TaskEnded, Transient
from ...ports.runtime import TimeLeft
from ..timed_http import GuardedConnection, TimedAdapter, TimedAnswer

LOOK_SECONDS = 1.0
WRITE_BYTES = 64 * 1024


class Slice:
    """The body of a PATCH: bytes in memory, which are not copied.

    `wait` is how long the other side may stay silent now, in seconds; it raises once no time is left.
    """

    def __init__(self, data: memoryview, wait: TimeLeft, goes_on: Callable[[], bool]) -> None:
        self.wait = wait
        self.whole = False
        """Whether all bytes have been sent."""
        self._data = data
        self._goes_on = goes_on
        self._look_at = monotonic() + LOOK_SECONDS

    def __len__(self) -> int:
        return len(self._data)

    def __iter__(self) -> Iterator[memoryview]:
        self.whole = False
        yield self._data
        self.whole = True

    def check(self) -> None:
        """Asks every second whether it goes on. Raises TaskEnded if not."""
        if monotonic() >= self._look_at:
            if not self._goes_on():
                raise TaskEnded
            self._look_at = monotonic() + LOOK_SECONDS


class _Listening(GuardedConnection):
    """Stops sending a slice once an answer is there: it can only be a refusal."""

    _slice: Slice | None = None
    _heard = b""

    @override
    def request(self, method: str, url: str, body: Any = None, *arguments: Any, **more: Any) -> None:
        self._slice = body if isinstance(body, Slice) else None
        self._heard = b""
        super().request(method, url, body, *arguments, **more)

    @override
    def send(self, data: Any) -> None:
        """Raises BrokenPipeError once an answer is there, after which urllib3 reads it; TaskEnded or Transient."""
        if self._slice is None:
            super().send(data)
            return
        if self.sock is None:
            self.connect()
        self.sock.settimeout(0)
        rest = memoryview(data)
        until = monotonic() + self._slice.wait()
        while rest:
            if self._is_answered(self._slice, select.POLLIN | select.POLLOUT, until):
                raise BrokenPipeError
            try:
                rest = rest[self.sock.send(rest[:WRITE_BYTES]) :]
            except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
                continue
            until = monotonic() + self._slice.wait()

    @override
    def getresponse(self) -> urllib3.HTTPResponse:  # type: ignore[override]
        if self._slice is not None:
            until = monotonic() + self._slice.wait()
            while not self._heard and not self._is_answered(self._slice, select.POLLIN, until):
                pass
            self.timeout = self._slice.wait()
        self._slice = None  # a connection that is kept does not keep the bytes
        self.response_class = partial(TimedAnswer, early=self._heard)  # type: ignore[assignment]
        return super().getresponse()

    def _is_answered(self, body: Slice, events: int, until: float) -> bool:
        """Waits for one of the events; whether an answer, or the connection's end, has come.

        Raises Transient if neither has until then (of time.monotonic, seconds).
        """
        poll = select.poll()
        poll.register(self.sock, events)
        while (left := until - monotonic()) > 0:
            body.check()
            for _, ready in poll.poll(min(left, LOOK_SECONDS) * 1000):
                if ready & ~select.POLLOUT and self._hears():
                    return True
                if ready & select.POLLOUT:
                    return False
        body.wait()
        raise Transient("The import API was silent for too long.")

    def _hears(self) -> bool:
        """Whether there is a byte of an answer, or an end; what came over TLS may be the protocol's own."""
        try:
            self._heard = self.sock.recv(1)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return False
        return True


class _SecureListening(_Listening, HTTPSConnection):
    pass


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Listening


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _SecureListening


class ListeningAdapter(TimedAdapter):
    """For requests: sends a `Slice` as told above, and everything else as usual."""

    pools = {"http": _Pool, "https": _SecurePool}  # noqa: RUF012
