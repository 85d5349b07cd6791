"""Bytes that a test holds."""

import hashlib


class BytesReader:
    """Reads bytes in memory."""

    def __init__(self, data: bytes | memoryview) -> None:
        self._rest = memoryview(data)

    def readinto(self, buffer: memoryview) -> int:
        """Copies what fits."""
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


def some_bytes(seed: str, size: int) -> bytes:
    """Bytes that depend on the seed; no two of its blocks are alike."""
    blocks = (hashlib.sha256(f"{seed} {number}".encode()).digest() for number in range(size // 32 + 1))
    return b"".join(blocks)[:size]
