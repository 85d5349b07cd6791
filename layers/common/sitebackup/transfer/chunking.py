"""Cuts a stream into chunks, one for each part of its upload."""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from ..ports.runtime import Reader
from .readers import fill

BUFFERS = 3
"""Chunks in memory at once."""


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """One part's bytes, held in memory: a stream gives them only once."""

    number: int
    data: memoryview
    last: bool
    free: Callable[[], None]
    """To be called once nobody reads it."""


def split_stream(stream: Reader, size: int) -> Iterator[Chunk]:
    """Cuts a stream into chunks of `size` bytes; only the last may be shorter.

    One byte more than a chunk is read each time: that is how the end shows. At most BUFFERS may be in use: free one
    before another is asked for.
    """
    free = deque(bytearray(0) for _ in range(BUFFERS))
    number, carry = 1, b""
    while True:
        buffer = free.popleft()
        if not buffer:
            buffer = bytearray(size + 1)
        view = memoryview(buffer)
        view[: len(carry)] = carry
        filled = len(carry) + fill(stream, view[len(carry) :])
        length, last = min(filled, size), filled <= size
        yield Chunk(number=number, data=view[:length], last=last, free=partial(free.append, buffer))
        if last:
            return
        number, carry = number + 1, bytes(view[size:])
