"""Reads the body of an answer up to its proven end, in buffers of the caller.

Where a body ends follows RFC 9112 (section 6.3): only an end that shows proves that a body is whole.
"""

import http.client
import re
from io import BufferedReader
from time import monotonic

import urllib3

from .timed_http import TimedAnswer

MOMENT_SECONDS = 0.1
MAX_LINE_BYTES = 64 * 1024
"""Of a chunk's size with its extensions, or of a trailer's line."""
MAX_TRAILERS = 100
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n]*)?\r\n")


class Body:
    """Reads a body without copying it: urllib3 makes new bytes for each read, http.client's file need not.

    A read takes what comes within a moment, so that a trickle can't hold the caller beyond its deadline. It loops
    here because TLS brings no more than 16 KiB at once, and each level above would cost its share for each of them.
    """

    def __init__(self, raw: urllib3.HTTPResponse) -> None:
        self._raw = raw
        self._http = http_answer(raw)
        self._buffered = True
        """Whether the response's file may hold bytes that it took from the socket with the lines before them."""
        self._chunk: int | None = None
        """Bytes that are left of the chunk; None before the first."""

    def ended(self, wait: float) -> bool:
        """Whether nothing follows; waits for it where only the next bytes tell."""
        return self.readinto(memoryview(bytearray(1)), wait) == 0

    def readinto(self, buffer: memoryview, wait: float) -> int:
        """0 only at the end. Raises OSError or HTTPException if it comes too early, or nothing within `wait` (s)."""
        body = self._http
        if body.fp is None:  # read to its end
            return 0
        body.reads.allow(wait)
        if body.chunked:
            count = self._from_chunk(body.fp, buffer)
        elif body.length is None:  # until the connection closes
            count = self._several(body.fp, buffer)
            if count == 0:
                body.close()
        else:
            count = self._several(body.fp, buffer[: body.length])
            if count == 0 and body.length > 0:
                raise http.client.IncompleteRead(b"", body.length)
            body.length -= count
            if body.length == 0:
                body.read()  # lets http.client see that the body has ended
        if body.fp is None:
            self._raw.release_conn()
        return count

    def _from_chunk(self, file: BufferedReader, buffer: memoryview) -> int:
        """RFC 9112, section 7.1, to the letter.

        http.client is lenient: it skips what stands where a chunk must end, and takes for the last chunk a size
        that begins with a zero and was cut behind it.
        """
        if not self._chunk:
            self._chunk = self._next_chunk(file)
            if not self._chunk:
                self._http.close()
                return 0
        count = self._several(file, buffer[: self._chunk])
        if count == 0:
            raise http.client.IncompleteRead(b"", self._chunk)
        self._chunk -= count
        return count

    def _next_chunk(self, file: BufferedReader) -> int:
        """The size of the next chunk; 0 behind the last, whose trailers are skipped."""
        if self._chunk is not None and file.read(2) != b"\r\n":
            raise http.client.HTTPException("a chunk does not end after its size")
        self._buffered = True
        size = _CHUNK_SIZE.fullmatch(file.readline(MAX_LINE_BYTES))
        if not size:
            raise http.client.HTTPException("a chunk has no size")
        if int(size[1], 16):
            return int(size[1], 16)
        for _ in range(MAX_TRAILERS):
            if file.readline(MAX_LINE_BYTES) in (b"\r\n", b"\n", b""):
                return 0
        raise http.client.HTTPException("too many trailers")

    def _several(self, file: BufferedReader, buffer: memoryview) -> int:
        """What came before an error is kept: the next read raises that again."""
        filled, until = 0, monotonic() + MOMENT_SECONDS
        while filled < len(buffer):
            rest = buffer[filled:]
            try:
                if self._buffered:
                    count = file.readinto1(rest)
                    self._buffered = count == len(rest)  # less: all that came with the head has been read
                else:
                    count = self._http.reads.untimed.readinto(rest) or 0
            except OSError:
                if filled:
                    break
                raise
            filled += count
            if count == 0 or monotonic() > until:
                break
        return filled


def http_answer(raw: urllib3.HTTPResponse) -> TimedAnswer:
    """What urllib3 reads from; it has no public name."""
    return raw._fp  # type: ignore[return-value]
