"""HTTP over connections that a guard makes, with waits that end in time, however slowly the other side trickles."""

import http.client
import io
import math
import socket
from functools import partial
from time import monotonic
from typing import Any, ClassVar, override

import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

from .outgoing import Guard


class TimedReads(io.RawIOBase):
    """What an answer is read from: all reads together wait no longer than was allowed last."""

    def __init__(self, raw: io.RawIOBase, connection: socket.socket, early: bytes = b"") -> None:
        """`early` was read before and comes first; it must not be more than the first buffer takes."""
        self._early = early
        self.untimed = raw
        """For who reads at once what was allowed just now, without the cost of a look at the clock for each read."""
        self._connection = connection
        self._until = 0.0

    def allow(self, seconds: float) -> None:
        """From now on."""
        self._until = monotonic() + seconds
        self._connection.settimeout(max(seconds, 0.001))  # 0 would mean not to wait at all, in another way

    def readinto(self, buffer: Any) -> int | None:
        """Raises TimeoutError."""
        if self._early:
            count = len(self._early)
            buffer[:count], self._early = self._early, b""
            return count
        left = self._until - monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        self._connection.settimeout(left)
        return self.untimed.readinto(buffer)

    @override
    def readable(self) -> bool:
        return True

    @override
    def close(self) -> None:
        self.untimed.close()
        super().close()


class TimedAnswer(http.client.HTTPResponse):
    """Its head, and whatever http.client reads by itself, has come whole when the socket's time-out is over.

    That time-out alone is for each read, and a head or the size of a chunk may come byte by byte.
    """

    def __init__(self, connection: socket.socket, *arguments: Any, early: bytes = b"", **more: Any) -> None:
        super().__init__(connection, *arguments, **more)
        self.reads = TimedReads(self.fp.detach(), connection, early)
        self.reads.allow(connection.gettimeout() or math.inf)
        self.fp = io.BufferedReader(self.reads)


class GuardedConnection(HTTPConnection):
    """Its guard connects it. `Host`, SNI and the check of the certificate are by name, as always."""

    response_class = TimedAnswer

    def __init__(self, *arguments: Any, guard: Guard, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._guard = guard

    @override
    def _new_conn(self) -> socket.socket:
        """Instead of urllib3's, which looks the host up by itself. Raises AddressRefused as well."""
        timeout = self.timeout
        assert isinstance(timeout, int | float)  # every request has one
        try:
            return self._guard.connect(self._dns_host, self.port, timeout, self.socket_options or ())
        except TimeoutError as error:
            raise ConnectTimeoutError(self, str(error)) from error
        except OSError as error:
            raise NewConnectionError(self, str(error)) from error


class _SecureConnection(GuardedConnection, HTTPSConnection):
    pass


class _Pool(HTTPConnectionPool):
    ConnectionCls = GuardedConnection


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


class TimedAdapter(HTTPAdapter):
    """For requests: connects by a guard; an answer's head has come whole when the time-out for reading is over."""

    pools: ClassVar[dict[str, type[HTTPConnectionPool]]] = {"http": _Pool, "https": _SecurePool}

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        super().__init__(pool_connections=32, pool_maxsize=32, max_retries=0)

    @override
    def init_poolmanager(self, *arguments: Any, **more: Any) -> None:
        super().init_poolmanager(*arguments, **more)
        manager: urllib3.PoolManager = self.poolmanager
        guarded = {scheme: partial(pool, guard=self._guard) for scheme, pool in self.pools.items()}
        manager.pool_classes_by_scheme = guarded  # type: ignore[assignment]
