"""Cutting a stream into pieces: which bytes are in which, and how many are in memory."""

from concurrent.futures import Future

import pytest

from sitebackup.domain.plan import MIN_PART_SIZE, plan_parts
from sitebackup.services.pieces import BUFFERS, Piece, chunks, shares
from sitebackup.services.sources import Held


def read(piece: Piece) -> bytes:
    buffer = memoryview(bytearray(piece.length + 1))
    filled = 0
    while count := piece.source.readinto(buffer[filled:]):
        filled += count
    return bytes(buffer[:filled])


@pytest.mark.parametrize("length", [0, 1, 9, 10, 11, 19, 20, 21, 70])
def test_chunks_tile_the_stream(length: int) -> None:
    data = bytes(range(length))
    pieces, got = [], b""
    for piece in chunks(Held(memoryview(data)), 10):
        got += read(piece)
        piece.free()
        pieces.append(piece)
    assert got == data
    assert [piece.number for piece in pieces] == list(range(1, len(pieces) + 1))
    assert [piece.last for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    assert [piece.length for piece in pieces[:-1]] == [10] * (len(pieces) - 1)


def test_chunks_use_their_buffers_again() -> None:
    held: list[Piece] = []
    data = bytes(range(100))
    for piece in chunks(Held(memoryview(data)), 10):
        held.append(piece)
        if len(held) == BUFFERS:
            oldest = held.pop(0)
            assert read(oldest) == data[(oldest.number - 1) * 10 : oldest.number * 10]
            oldest.free()


def test_no_chunk_is_read_into_a_buffer_in_use() -> None:
    read_on = chunks(Held(memoryview(bytes(100))), 10)
    for _ in range(BUFFERS):
        next(read_on)
    with pytest.raises(IndexError):
        next(read_on)


def test_shares_are_read_one_after_the_other() -> None:
    size = 2 * MIN_PART_SIZE + 5
    data = bytes(range(256)) * (size // 256 + 1)
    stream = Held(memoryview(data)[:size])
    got = b"".join(read(piece) for piece in shares(stream, plan_parts(size, MIN_PART_SIZE, None)))
    assert got == data[:size]


def test_nothing_is_shared_out_after_a_share_that_failed() -> None:
    size = 2 * MIN_PART_SIZE
    pieces = shares(Held(memoryview(bytes(size))), plan_parts(size, MIN_PART_SIZE, None))
    first = next(pieces)
    first.source.readinto(memoryview(bytearray(10)))
    first.ended(Future())
    assert list(pieces) == []
