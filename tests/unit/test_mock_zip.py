"""The exports of the mock providers are real zips of exactly the size asked for."""

import hashlib
import io
import zipfile
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mock_providers.archive import BLOCK_SIZE, ENTRY_SIZE, LARGEST, SMALLEST_ZIP, Archive

USER, SITE = "0" * 24, "1" * 24
MIB, GIB = 1 << 20, 1 << 30


def archive(size: int, provider: str = "site", site: str = SITE, revision: int = 1) -> Archive:
    return Archive(provider, USER, site, size, revision)


def whole(export: Archive) -> bytes:
    return b"".join(export.chunks())


class ArchiveFile(io.RawIOBase):
    """An archive as a seekable file: zipfile reads what it needs and no more."""

    def __init__(self, export: Archive) -> None:
        self.export, self.at, self.bytes_read = export, 0, 0

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self.at, io.SEEK_END: self.export.size}[whence]
        self.at = base + offset
        return self.at

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self.export.read(self.at, self.at + len(buffer))
        buffer[: len(data)] = data
        self.at += len(data)
        self.bytes_read += len(data)
        return len(data)


@pytest.mark.parametrize("size", [*range(SMALLEST_ZIP, 300), 1000, BLOCK_SIZE, 3 * MIB + 7])
def test_a_small_export_is_a_valid_zip_of_the_exact_size(size: int) -> None:
    data = whole(archive(size))
    assert len(data) == size
    with zipfile.ZipFile(io.BytesIO(data)) as opened:
        assert opened.testzip() is None


@pytest.mark.parametrize("size", [*range(SMALLEST_ZIP)])
def test_below_the_smallest_zip_there_are_just_that_many_bytes(size: int) -> None:
    assert len(whole(archive(size))) == size


@pytest.mark.parametrize(
    "beyond", [-1, 0, 1, 60, 107, 108, 109, 110, 130, 131, 132, 133, 200, BLOCK_SIZE + 5]
)
def test_sizes_around_the_end_of_an_entry(beyond: int) -> None:
    size = ENTRY_SIZE + 132 + beyond
    with zipfile.ZipFile(io.BufferedReader(ArchiveFile(archive(size)))) as opened:
        assert opened.testzip() is None
        assert len(opened.infolist()) in (1, 2)
    assert len(whole(archive(size))) == size


@pytest.mark.parametrize(
    "size",
    [4 * GIB - 1, 4 * GIB, 4 * GIB + 1, 4 * GIB + 100 * MIB, 10 * GIB],
)
def test_the_layout_beyond_4_gib_is_read_through_its_central_directory(size: int) -> None:
    file = ArchiveFile(archive(size))
    with zipfile.ZipFile(file) as opened:
        entries = opened.infolist()
        assert opened.start_dir <= size
        last = entries[-1]
        assert last.header_offset > 3 * GIB
        if last.file_size:
            with opened.open(last) as stream:
                assert len(stream.read(100)) == min(100, last.file_size)
    assert sum(entry.file_size for entry in entries) <= size
    assert file.bytes_read < 300 * len(entries) + 3 * MIB


def test_more_entries_than_a_16_bit_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Archive, "_entry_crc", lambda *_: 0)  # the layout alone: those CRCs take seconds
    with zipfile.ZipFile(ArchiveFile(archive(65_600 * ENTRY_SIZE))) as opened:
        assert len(opened.infolist()) in (65_599, 65_600)
        assert opened.infolist()[-1].header_offset > 65_590 * ENTRY_SIZE


def test_an_entry_beyond_4_gib_has_the_crc_its_header_says() -> None:
    with zipfile.ZipFile(io.BufferedReader(ArchiveFile(archive(4 * GIB + 100 * MIB)), MIB)) as opened:
        last = opened.infolist()[-1]
        with opened.open(
            last
        ) as stream:  # zipfile raises BadZipFile at the end of the data if the CRC differs
            assert sum(len(chunk) for chunk in iter(lambda: stream.read(MIB), b"")) == last.file_size > MIB


@settings(max_examples=60, deadline=None)
@given(data=st.data(), size=st.integers(0, 3 * MIB) | st.integers(ENTRY_SIZE - 9, ENTRY_SIZE + 2 * MIB))
def test_a_range_is_the_same_bytes_as_the_whole(data: st.DataObject, size: int) -> None:
    export = archive(size)
    start = data.draw(st.integers(0, size))
    end = data.draw(st.integers(start, size))
    joined = b"".join(export.chunks(start, end, size=300_000))
    middle = (start + end) // 2
    assert joined == export.read(start, middle) + export.read(middle, end)
    assert len(joined) == end - start


def test_reading_past_the_end_gives_what_is_there() -> None:
    assert len(archive(1000).read(990, 2000)) == 10


def test_the_same_seed_gives_the_same_bytes_on_every_machine() -> None:
    assert archive(2 * MIB).sha256() == hashlib.sha256(whole(archive(2 * MIB))).hexdigest()
    assert archive(2 * MIB).sha256() == "ef1e91f114a165d90c19a1796bcc2d34aa7d2cb9ab8e3dfad7a237113d534825"


def test_every_part_of_the_seed_changes_bytes_and_etag() -> None:
    seeds = [
        archive(MIB),
        archive(MIB, provider="blob"),
        archive(MIB, site="2" * 24),
        archive(MIB, revision=2),
    ]
    seeds += [archive(MIB + 1), Archive("site", "3" * 24, SITE, MIB, 1)]
    assert len({export.sha256() for export in seeds}) == len(seeds)
    assert len({export.etag for export in seeds}) == len(seeds)
    assert all(export.etag.startswith('"') and export.etag.endswith('"') for export in seeds)


def test_no_two_blocks_are_equal() -> None:
    export = archive(4 * GIB)
    starts = range(MIB, 4 * GIB - MIB, BLOCK_SIZE)
    # 256 blocks on, the window is the same again: only the stamp tells such blocks apart.
    assert len({export.read(at, at + BLOCK_SIZE) for at in starts[:300]}) == 300
    far = [export.read(at, at + BLOCK_SIZE) for at in starts[::256]]
    assert len(set(far)) == len(far)


@pytest.mark.parametrize("size", [-1, LARGEST + 1])
def test_a_size_out_of_bounds_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="size"):
        archive(size)
