"""Cutting a stream into pieces: which bytes are in which, and how many are in memory."""

import pytest

from sitebackup.services.pieces import BUFFERS, Piece, chunks
from tests.unit.twins import Held


@pytest.mark.parametrize("length", [0, 1, 9, 10, 11, 19, 20, 21, 70])
def test_chunks_tile_the_stream(length: int) -> None:
    data = bytes(range(length))
    pieces, got = [], b""
    for piece in chunks(Held(memoryview(data)), 10):
        got += piece.data
        piece.free()
        pieces.append(piece)
    assert got == data
    assert [piece.number for piece in pieces] == list(range(1, len(pieces) + 1))
    assert [piece.last for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    assert [len(piece.data) for piece in pieces[:-1]] == [10] * (len(pieces) - 1)


def test_chunks_use_their_buffers_again() -> None:
    held: list[Piece] = []
    data = bytes(range(100))
    for piece in chunks(Held(memoryview(data)), 10):
        held.append(piece)
        if len(held) == BUFFERS:
            oldest = held.pop(0)
            assert oldest.data == data[(oldest.number - 1) * 10 : oldest.number * 10]
            oldest.free()


def test_no_chunk_is_read_into_a_buffer_in_use() -> None:
    read_on = chunks(Held(memoryview(bytes(100))), 10)
    for _ in range(BUFFERS):
        next(read_on)
    with pytest.raises(IndexError):
        next(read_on)
