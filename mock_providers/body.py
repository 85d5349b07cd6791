"""Writes an export's body to the connection, with the faults that happen in the middle of it."""

import asyncio
import socket
import struct
import time
import zlib
from collections.abc import Iterable, Iterator
from typing import NoReturn

from starlette.types import Receive, Send

from mock_providers.behaviour import Faults
from mock_providers.sites import Statistics

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER of 0 s: close() sends RST
DRIPS_PER_SECOND = 10
_LOOK_SECONDS = 0.05


class ConnectionEndedError(Exception):
    """There is no longer anybody to write to: the client left, or a fault closed the connection."""


class Connection:
    """A client's connection during one request. Its methods raise ConnectionEndedError once it is closed."""

    def __init__(
        self, transport: asyncio.Transport, receive: Receive, send: Send, statistics: Statistics
    ) -> None:
        self._transport, self._receive, self._send = transport, receive, send
        self._statistics = statistics

    async def pause(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._disconnected(), seconds)
        except TimeoutError:
            return
        raise ConnectionEndedError

    async def close(self) -> NoReturn:
        """Ends the connection; what is written still leaves."""
        self._transport.close()
        await self._end()

    async def stall(self, seconds: float) -> None:
        """Waits while the request's body is still to come, and reads nothing of it.

        That the client has left is noticed only where it had not sent more than the server's buffers take.
        """
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if self._transport.is_closing():
                raise ConnectionEndedError
            await asyncio.sleep(min(left, _LOOK_SECONDS))

    async def write_head(self, status: int, headers: dict[str, str]) -> None:
        """Writes the head. Without content-length the server uses chunked coding (RFC 9112, 7.1)."""
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": raw})

    async def write_body(self, chunks: Iterable[bytes], faults: Faults) -> None:
        """Writes the body and its end. A fault at byte n happens only if the body goes on behind n."""
        drip = faults.drip if faults.drip and faults.drip.take() else None
        if drip:
            chunks = split(chunks, max(1, drip.bytes_per_second // DRIPS_PER_SECOND))
        positions = _positions(faults)
        sent = 0
        for chunk in chunks:
            if drip:
                await self.pause(len(chunk) / drip.bytes_per_second)
            rest = chunk
            while rest:
                if positions and positions[0] == sent:
                    await self._reach(positions.pop(0), faults)
                piece = rest[: positions[0] - sent] if positions else rest
                await self._write(piece)
                sent += len(piece)
                rest = rest[len(piece) :]
        await self._send({"type": "http.response.body", "body": b""})

    async def _write(self, piece: bytes) -> None:
        await self._send({"type": "http.response.body", "body": piece, "more_body": True})
        await asyncio.sleep(0)  # a fast client must not keep the others waiting
        if self._transport.is_closing():
            raise ConnectionEndedError
        self._statistics.bytes_sent += len(piece)

    async def _reach(self, position: int, faults: Faults) -> None:
        """The faults at this byte of the body."""
        if faults.hang and faults.hang.after_bytes == position and faults.hang.take():
            await self.pause(faults.hang.seconds)
        for fault in (faults.truncate_at, faults.truncate_chunked):
            if fault and fault.bytes == position and fault.take():
                await self.close()
        if faults.reset and faults.reset.bytes == position and faults.reset.take():
            self._transport.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE
            )
            self._transport.abort()
            await self._end()

    async def _end(self) -> NoReturn:
        await self._disconnected()
        raise ConnectionEndedError

    async def _disconnected(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass


def gzipped(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The gzip coding of the body (RFC 1952), as it streams."""
    compressor = zlib.compressobj(level=1, wbits=31)
    for chunk in chunks:
        yield compressor.compress(chunk)
    yield compressor.flush()


def flipped(chunks: Iterable[bytes], position: int) -> Iterator[bytes]:
    """The same body but for one bit of the byte at position."""
    at = 0
    for chunk in chunks:
        if at <= position < at + len(chunk):
            wrong = bytearray(chunk)
            wrong[position - at] ^= 1
            yield bytes(wrong)
        else:
            yield chunk
        at += len(chunk)


def zeros(length: int, chunk_size: int) -> Iterator[bytes]:
    """So many bytes of zero, in chunks of at most `chunk_size` bytes."""
    for at in range(0, length, chunk_size):
        yield bytes(min(chunk_size, length - at))


def _positions(faults: Faults) -> list[int]:
    """The bytes of the body, in order, at which something happens."""
    at_byte = (faults.truncate_at, faults.truncate_chunked, faults.reset)
    positions = {fault.bytes for fault in at_byte if fault}
    return sorted(positions | ({faults.hang.after_bytes} if faults.hang else set()))


def split(chunks: Iterable[bytes], size: int) -> Iterator[bytes]:
    """The same body in chunks of at most `size` bytes."""
    for chunk in chunks:
        for at in range(0, len(chunk), size):
            yield chunk[at : at + size]
