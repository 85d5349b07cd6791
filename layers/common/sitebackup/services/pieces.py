"""Cuts a stream into pieces, one for each part of its upload."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from threading import Event
from typing import Any

from ..adapters.source import Source, fill
from ..domain.plan import Plan
from .sources import Held

BUFFERS = 3
"""Pieces in memory at once, of a stream without a known length."""


def _nothing(*_: object) -> None:
    pass


@dataclass(frozen=True, kw_only=True)
class Piece:
    """One part's bytes: `length` of them can be read from `source`."""

    number: int
    source: Source
    length: int
    last: bool
    ended: Callable[[Future[Any]], None] = _nothing
    """To be called as soon as its upload has ended, whether it worked or not."""
    free: Callable[[], None] = _nothing
    """To be called when nobody reads it any more."""


def shares(stream: Source, plan: Plan) -> Iterator[Piece]:
    """The parts of a stream whose length is known: each is read straight from the stream, none is held.

    The next is yielded when the one before has been read, while S3 may still have to confirm that; and not at all
    if it was not read to its end.
    """
    for number in range(1, plan.parts + 1):
        share = _Share(stream, plan.part(number).length)
        yield Piece(
            number=number,
            source=share,
            length=share.left,
            last=number == plan.parts,
            ended=share.end,
        )
        share.over.wait()  # ends: both sides of an upload have time-outs
        if share.left:
            return


class _Share:
    def __init__(self, stream: Source, length: int) -> None:
        self.left = length
        self.over = Event()
        self._stream = stream

    def end(self, _: object) -> None:
        self.over.set()

    def readinto(self, buffer: memoryview) -> int:
        count = self._stream.readinto(buffer[: self.left])
        self.left -= count
        if self.left == 0:
            self.over.set()
        return count


def chunks(stream: Source, size: int) -> Iterator[Piece]:
    """Cuts a stream of unknown length into pieces of `size` bytes; only the last may be shorter.

    A part's length must be known before it is sent, so they are held; one byte more than a piece is read each
    time: that is how the end shows. At most BUFFERS may be in use: free one before another is asked for.
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
            source=Held(view[:length]),
            length=length,
            last=last,
            free=partial(free.append, buffer),
        )
        if last:
            return
        number, carry = number + 1, bytes(view[size:])
