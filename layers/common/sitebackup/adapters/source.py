"""Where bytes are read from."""

from typing import Protocol


class Source(Protocol):
    """An export, a share of one, or bytes in memory."""

    def readinto(self, buffer: memoryview) -> int:
        """Fills the front of `buffer`; 0 only at the end."""


def fill(source: Source, buffer: memoryview) -> int:
    """Reads until the buffer is full or the source ends; returns how much was read."""
    filled = 0
    while filled < len(buffer):
        count = source.readinto(buffer[filled:])
        if count == 0:
            break
        filled += count
    return filled
