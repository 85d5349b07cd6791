"""Serves an ASGI application on a loopback port for as long as a block runs, and reads the body of a request."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import uvicorn
from starlette.requests import ClientDisconnect, Request

_STOP_SECONDS = 5
_IDLE_SECONDS = 75  # a request that meets the end of an idle connection is lost; after 5 s that happens


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        """Signals belong to the program that holds the server, not to each server."""
        yield


@contextlib.asynccontextmanager
async def serve(app: Any, port: int = 0) -> AsyncIterator[int]:
    """Serve `app` on 127.0.0.1 and yield the port; 0 takes a free one. Raises OSError if it is taken."""

    async def quiet(scope: Any, receive: Any, send: Any) -> None:
        """A client that goes away is no error of the application: there is nobody to answer, and nothing to log."""
        with contextlib.suppress(ClientDisconnect):
            await app(scope, receive, send)

    # asyncio turns Nagle's algorithm off only for sockets that name TCP: without it, answers take 40 ms more.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
        listener.listen()  # connections wait from here on, so nobody has to wait for the server
        config = uvicorn.Config(
            quiet,
            lifespan="off",
            log_config=None,
            log_level="warning",
            access_log=False,
            ws="none",
            timeout_keep_alive=_IDLE_SECONDS,
            timeout_graceful_shutdown=_STOP_SECONDS,
        )
        server = _Server(config)
        task = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            await task
    finally:
        listener.close()


async def read_body(request: Request, limit: int) -> bytes | None:
    """The body, or None when it is over `limit` bytes; no more than that is ever held."""
    if int(request.headers.get("content-length", "0")) > limit:
        return None
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            return None
    return bytes(body)
