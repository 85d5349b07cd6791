"""The Lambda Runtime API of one execution environment.

Lambda developer guide, "Using the Lambda runtime API for custom runtimes": next, response, error, init/error.
It is served on plain asyncio streams, one port an environment: the runtime client takes an address, no path,
and a server per environment has to cost nothing while its function is idle.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass

MAX_RESPONSE_BYTES = 6 * 1024 * 1024  # Lambda quotas: 6 MB each for request and response
_MAX_HEAD_BYTES = 2 * 1024 * 1024  # the client sends up to 1 MiB of stack trace in a header
_CHUNK = 64 * 1024
_PREFIX = "/2018-06-01/runtime/"


@dataclass(frozen=True)
class Invocation:
    """What the runtime is asked to do; deadline in milliseconds since the epoch."""

    request_id: str
    payload: bytes
    function_arn: str
    trace_id: str
    deadline_ms: int


@dataclass(frozen=True)
class Outcome:
    """What came of an invocation: the function's response, or the error document.

    `ends_runtime` says that the runtime process does not survive it.
    """

    payload: bytes
    failed: bool
    ends_runtime: bool = False


def error_outcome(error_type: str, message: str) -> Outcome:
    """The error document Lambda itself writes when the function could not."""
    return Outcome(_error(error_type, message), failed=True, ends_runtime=True)


class RuntimeApi:
    """Serves one runtime process: hands it one invocation at a time and takes its answers."""

    def __init__(self) -> None:
        self.port = 0
        # Set by the first call: None when the runtime asks for work, else the error it reports.
        self.initialised: asyncio.Future[Outcome | None] = asyncio.get_running_loop().create_future()
        self._next: asyncio.Queue[Invocation] = asyncio.Queue(maxsize=1)
        self._request_id = ""
        self._outcome: asyncio.Future[Outcome] | None = None
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen on a free loopback port. Raises OSError."""
        self._server = await asyncio.start_server(self._connection, "127.0.0.1", 0, limit=_MAX_HEAD_BYTES)
        self.port = self._server.sockets[0].getsockname()[1]

    def close(self) -> None:
        """Stop listening and end the connections."""
        if self._server is not None:
            self._server.close()
        for task in self._connections:
            task.cancel()

    async def invoke(self, invocation: Invocation) -> Outcome:
        """Hand the invocation to the runtime and wait for its answer, however long it takes."""
        self._outcome = asyncio.get_running_loop().create_future()
        self._request_id = invocation.request_id
        self._next.put_nowait(invocation)
        return await self._outcome

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        # The peer is a process that may be killed at any moment; its end is seen by whoever waits for it.
        with contextlib.suppress(asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            while True:
                await self._exchange(reader, writer)
        self._connections.discard(task)
        writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        request_line, *lines = head.rstrip("\r\n").split("\r\n")
        method, path = request_line.split(" ")[:2]
        pairs = (line.partition(":") for line in lines)
        headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
        if headers.get("expect", "").lower() == "100-continue":
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await _read_body(reader, int(headers.get("content-length", "0")))
        if method == "GET" and path == f"{_PREFIX}invocation/next":
            invocation = await self._take_next()
            _answer(writer, 200, invocation.payload, _event_headers(invocation))
        else:
            status, text = self._report(method, path, body)
            _answer(writer, status, text, {})
        await writer.drain()

    async def _take_next(self) -> Invocation:
        if not self.initialised.done():
            self.initialised.set_result(None)
        return await self._next.get()

    def _report(self, method: str, path: str, body: bytes | None) -> tuple[int, bytes]:
        if method != "POST":
            return 404, _error("NotFound", f"{method} {path} is not part of the runtime API")
        if path == f"{_PREFIX}init/error":
            if not self.initialised.done():
                self.initialised.set_result(Outcome(body or b"{}", failed=True, ends_runtime=True))
            return 202, b'{"status":"OK"}'
        request_id, _, kind = path.removeprefix(f"{_PREFIX}invocation/").partition("/")
        if kind not in ("response", "error"):
            return 404, _error("NotFound", f"{method} {path} is not part of the runtime API")
        if self._outcome is None or self._outcome.done() or request_id != self._request_id:
            return 403, _error("InvalidRequestID", "Invalid request ID")
        if body is None:
            message = (
                f"Response payload size exceeded maximum allowed payload size ({MAX_RESPONSE_BYTES} bytes)."
            )
            self._outcome.set_result(error_outcome("Function.ResponseSizeTooLarge", message))
            return 413, _error("RequestEntityTooLarge", message)
        self._outcome.set_result(Outcome(body, failed=kind == "error"))
        return 202, b'{"status":"OK"}'


async def _read_body(reader: asyncio.StreamReader, length: int) -> bytes | None:
    """The body, or None when it is over the limit; it is then read and dropped to keep the connection."""
    if length <= MAX_RESPONSE_BYTES:
        return await reader.readexactly(length)
    while length > 0:
        length -= len(await reader.readexactly(min(length, _CHUNK)))
    return None


def _event_headers(invocation: Invocation) -> dict[str, str]:
    return {
        "Lambda-Runtime-Aws-Request-Id": invocation.request_id,
        "Lambda-Runtime-Deadline-Ms": str(invocation.deadline_ms),
        "Lambda-Runtime-Invoked-Function-Arn": invocation.function_arn,
        "Lambda-Runtime-Trace-Id": invocation.trace_id,
        "Lambda-Runtime-Invocation-Id": str(uuid.uuid4()),
    }


def _error(error_type: str, message: str) -> bytes:
    return json.dumps({"errorType": error_type, "errorMessage": message}).encode()


def _answer(writer: asyncio.StreamWriter, status: int, body: bytes, headers: Mapping[str, str]) -> None:
    lines = [f"HTTP/1.1 {status} {'OK' if status < 300 else 'Error'}", "Content-Type: application/json"]
    lines += [f"Content-Length: {len(body)}", *(f"{name}: {value}" for name, value in headers.items())]
    writer.write("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
