"""The bytes that imports hold: in temporary files, bounded together."""

import os
import tempfile
import weakref
from collections.abc import Iterator
from typing import IO

DEFAULT_LIMIT = 16 << 30  # bytes
MAX_FILES = 500  # each takes a file descriptor


class NoRoomError(Exception):
    """The bytes don't fit beside those that are held already: 507."""


class HeldBytes:
    """`size` bytes in a temporary file, zeros at first, which take no room on the disk.

    The file has no name, so nothing of it outlives the process. It ends with the last reference to this object:
    an export that is being read keeps the content that it began with.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._file: IO[bytes] = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
        self._file.truncate(size)
        weakref.finalize(self, self._file.close)

    def write(self, at: int, data: bytes) -> None:
        if data != bytes(len(data)):  # zeros are there already
            os.pwrite(self._file.fileno(), data, at)

    def clear(self, at: int) -> None:
        """Makes zeros of everything from byte `at` on."""
        self._file.truncate(at)
        self._file.truncate(self.size)

    def chunks(self, start: int = 0, end: int | None = None, size: int = 256 * 1024) -> Iterator[bytes]:
        """The bytes [start, end) in chunks of size bytes, the last one shorter."""
        end = self.size if end is None else min(end, self.size)
        for at in range(start, end, size):
            yield os.pread(self._file.fileno(), min(size, end - at), at)


class Store:
    """Gives room for so many bytes in all, and for MAX_FILES files."""

    def __init__(self, limit: int = DEFAULT_LIMIT) -> None:
        self.limit = limit
        self._bytes = self._files = 0

    def hold(self, size: int) -> HeldBytes:
        """Room for so many bytes, until the last reference to it is gone. Raises NoRoomError."""
        if self._bytes + size > self.limit or self._files >= MAX_FILES:
            raise NoRoomError(
                f"{self._files} imports hold {self._bytes} bytes, and {size} more do not fit: all may hold "
                f"{self.limit} bytes in {MAX_FILES} files"
            )
        held = HeldBytes(size)
        self._bytes += size
        self._files += 1
        weakref.finalize(held, self._release, size)
        return held

    def _release(self, size: int) -> None:
        self._bytes -= size
        self._files -= 1


class Content:
    """Imported bytes as a user's site exports them. Like an Archive, but for where the bytes come from."""

    def __init__(self, user_id: str, held: HeldBytes, digest: str, number: int) -> None:
        """`number` counts the imports of the site; `digest` is the hex SHA-256."""
        self.user_id, self.digest, self.number = user_id, digest, number
        self.size = held.size
        self.chunks = held.chunks

    @property
    def etag(self) -> str:
        """A strong entity tag (RFC 9110, 8.8.3), quotes included."""
        return f'"{self.digest[:32]}"'
