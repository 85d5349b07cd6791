"""Cuts a stream into pieces, one for each part of its upload."""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from ..adapters.source import Source, fill

BUFFERS = 3
"""Pieces in memory at once."""


@dataclass(frozen=True, kw_only=True)
class Piece:
    """One part's bytes, held in memory: a stream gives them only once."""

    number: int
    data: memoryview
    last: bool
    free: Callable[[], None]
    """To be called when nobody reads it any more."""


def chunks(stream: Source, size: int) -> Iterator[Piece]:
    """Cuts a stream into pieces of `size` bytes; only the last may be shorter.

    One byte more than a piece is read each time: that is how the end shows. At most BUFFERS may be in use: free one
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
        yield Piece(
            number=number,
            data=view[:length],
            last=last,
            free=partial(free.append, buffer),
        )
        if last:
            return
        number, carry = number + 1, bytes(view[size:])
