"""A TCP proxy that forgets flows, as NAT gateways, load balancers and firewalls do with idle ones."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from typing import Literal

_CHUNK = 64 * 1024

Forgetting = Literal["drop", "reset", "lose the answer"]


class TcpProxy:
    """Forwards every connection to `upstream` (host, port), from a loopback port of its own until `close`.

    `listeners` makes one for each connection: it hears what the client sends.
    """

    def __init__(
        self,
        upstream: tuple[str, int],
        listeners: Callable[[], Callable[[bytes], None]] = lambda: lambda data: None,
    ) -> None:
        self._upstream = upstream
        self._listeners = listeners
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()  # guards what follows
        self._flows: set[_Flow] = set()
        self.connections = 0
        """How many were taken since the start."""
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def port(self) -> int:
        port: int = self._listener.getsockname()[1]
        return port

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def forget(self, how: Forgetting, then: Callable[[], object] = lambda: None) -> None:
        """What comes over the flows of this moment is from now on dropped without a word, or answered by a reset.

        Or it goes on to the server, and only its answer is replaced by a reset, after `then` was called.
        """
        with self._lock:
            flows = set(self._flows)
        for flow in flows:
            flow.then, flow.forgotten = then, how

    def close(self) -> None:
        """Takes no further connection, and cuts those that are open."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            flows = set(self._flows)
        for flow in flows:
            flow.cut()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return  # closed
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with (
            contextlib.suppress(OSError),
            client,
            socket.create_connection(self._upstream, timeout=5) as server,
        ):
            server.settimeout(None)
            flow = _Flow(client, server, self._listeners())
            with self._lock:
                self._flows.add(flow)
                self.connections += 1
            try:
                flow.run()
            finally:
                with self._lock:
                    self._flows.discard(flow)


class _Flow:
    def __init__(
        self, client: socket.socket, server: socket.socket, listener: Callable[[bytes], None]
    ) -> None:
        self._client, self._server = client, server
        self._listener = listener
        self.forgotten: Forgetting | None = None
        self.then: Callable[[], object] = lambda: None

    def run(self) -> None:
        answers = threading.Thread(target=self._pump, args=(self._server, self._client), daemon=True)
        answers.start()
        self._pump(self._client, self._server)
        answers.join()

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        answers = source is self._server
        with contextlib.suppress(OSError):
            while data := source.recv(_CHUNK):
                if self.forgotten == "reset" or (self.forgotten == "lose the answer" and answers):
                    if answers:
                        self.then()
                    self._reset()
                    return
                if not answers:
                    self._listener(data)
                if self.forgotten != "drop":
                    target.sendall(data)
        if self.forgotten != "drop" or not answers:
            self.cut()

    def _reset(self) -> None:
        """The client gets RST instead of FIN when its socket is closed, as it then is with a linger of 0."""
        with contextlib.suppress(OSError):
            self._client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._client.shutdown(socket.SHUT_RD)
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)

    def cut(self) -> None:
        for end in (self._client, self._server):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
