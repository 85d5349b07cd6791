"""Cutting a stream into chunks: which bytes are in which, and how many are in memory."""

import pytest

from sitebackup.transfer.chunking import BUFFERS, Chunk, split_stream
from tests.fakes.readers import BytesReader

SIZE = 10
"""Bytes of a chunk."""


@pytest.mark.parametrize(
    "length", [0, 1, SIZE - 1, SIZE, SIZE + 1, 2 * SIZE - 1, 2 * SIZE, 2 * SIZE + 1, 7 * SIZE]
)
def test_chunks_tile_the_stream_and_only_the_last_may_be_shorter(length: int) -> None:
    data = bytes(range(length))
    chunks, got = [], b""
    for chunk in split_stream(BytesReader(data), SIZE):
        got += chunk.data
        chunk.free()
        chunks.append(chunk)
    assert got == data
    assert [chunk.number for chunk in chunks] == list(range(1, len(chunks) + 1))
    assert [chunk.last for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert [len(chunk.data) for chunk in chunks[:-1]] == [SIZE] * (len(chunks) - 1)


def test_chunks_use_their_buffers_again() -> None:
    held: list[Chunk] = []
    data = bytes(range(10 * SIZE))
    for chunk in split_stream(BytesReader(data), SIZE):
        held.append(chunk)
        if len(held) == BUFFERS:
            oldest = held.pop(0)
            assert oldest.data == data[(oldest.number - 1) * SIZE : oldest.number * SIZE]
            oldest.free()


def test_a_chunk_is_not_read_while_all_buffers_are_in_use() -> None:
    read_on = split_stream(BytesReader(bytes(10 * SIZE)), SIZE)
    for _ in range(BUFFERS):
        next(read_on)
    with pytest.raises(IndexError):
        next(read_on)
