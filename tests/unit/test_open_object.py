"""One pass over a stored zip: what it finds, however it is cut into slices and invocations, and what it holds."""

import io
import random
import struct
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import psutil
import pytest
from awscrt import checksums
from hypothesis import given, settings
from hypothesis import strategies as st

from sitebackup.domain.checksum import encode_crc
from sitebackup.domain.drill import Drill, DrillState, Place
from sitebackup.domain.job import StoredObject
from sitebackup.drills.open_object import Found, OpenObject, TimeIsUp
from sitebackup.ports.runtime import Clock
from tests.fakes.pool import InlinePool

NOW = datetime(2030, 1, 31, 12, tzinfo=UTC)
CLOCK = Clock(now=lambda: NOW, monotonic=lambda: 0.0, sleep=lambda seconds: None)
MIB, GIB = 1 << 20, 1 << 30
SLICE = MIB
EMPTY = b"PK\x05\x06" + bytes(18)


def a_zip(
    contents: dict[str, bytes],
    method: int = zipfile.ZIP_DEFLATED,
    *,
    streamed: bool = False,
    force64: bool = False,
) -> bytes:
    target = io.BytesIO()
    if streamed:
        target.seekable = lambda: False  # type: ignore[method-assign]
    with zipfile.ZipFile(target, "w", method) as archive:
        for name, content in contents.items():
            with archive.open(name, "w", force_zip64=force64) as member:
                member.write(content)
    return target.getvalue()


def stored_as(data: bytes, **changes: object) -> StoredObject:
    """As the backup has it."""
    crc = encode_crc(checksums.crc64nvme(data))
    stored = StoredObject(bucket="b", key="k", size=len(data), checksum_crc64nvme=crc, version_id="v")
    return stored.replace(**changes)


class Stops:
    """Ends the pass at each so many-th question whether to go on; 0: never."""

    def __init__(self, every: int = 0) -> None:
        self.every, self.asked = every, 0

    def __call__(self, place: Place) -> None:
        self.asked += 1
        if self.every and self.asked % self.every == 0:
            raise TimeIsUp


def one_pass(
    data: bytes,
    stored: StoredObject | None = None,
    place: Place | None = None,
    *,
    slice_bytes: int = 64,
    keep: Callable[[Place], None] | None = None,
) -> Found:
    stored = stored or stored_as(data)
    return OpenObject(
        stored=stored,
        place=place or Place(),
        read=lambda start, length: data[start : start + length],
        pool=InlinePool(1),
        keep=keep or Stops(),
        clock=CLOCK,
        slice_bytes=slice_bytes,
        directory_bytes=slice_bytes,
    )()


def drill_of(data: bytes, stored: StoredObject | None = None, slice_bytes: int = 64) -> Drill:
    found = one_pass(data, stored, slice_bytes=slice_bytes)
    assert found.drill is not None
    return found.drill


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


THREE = {"a.txt": b"a" * 500, "b.bin": random.Random(1).randbytes(700), "c/": b""}


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("force64", [False, True])
@pytest.mark.parametrize("slice_bytes", [1, 64, 1 << 20])
def test_every_member_of_a_whole_zip_is_opened(
    method: int, streamed: bool, force64: bool, slice_bytes: int
) -> None:
    data = a_zip(THREE, method, streamed=streamed, force64=force64)
    found = drill_of(data, slice_bytes=slice_bytes)
    assert (found.state, found.members, found.compared, found.message) == (DrillState.OK, 3, True, None)


def test_an_empty_zip_and_what_is_no_zip_by_its_format_are_compared_as_a_whole() -> None:
    assert drill_of(EMPTY).state is DrillState.OK
    other = b"<html>no zip</html>"
    assert drill_of(other, stored_as(other, format="any")).state is DrillState.OK
    assert drill_of(b"", stored_as(b"", format="any")).state is DrillState.OK
    changed = drill_of(flipped(other, 3), stored_as(other, format="any"))
    assert (changed.state, changed.member) == (DrillState.DAMAGED, None)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_any_bit_that_is_flipped_is_found(method: int) -> None:
    data = a_zip(THREE, method)
    stored = stored_as(data)
    for at in range(len(data)):
        found = drill_of(flipped(data, at), stored, slice_bytes=300)
        assert found.state is DrillState.DAMAGED or (
            found.state is DrillState.UNREAD and not found.compared
        ), at
        assert found.message


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_the_damaged_member_is_named(method: int) -> None:
    data = a_zip(THREE, method)
    at = data.index(THREE["b.bin"][300:310]) if method == zipfile.ZIP_STORED else data.index(b"b.bin") + 300
    found = drill_of(flipped(data, at), stored_as(data))
    assert (found.state, found.member, found.members) == (DrillState.DAMAGED, "b.bin", 1)


def test_a_member_that_was_wrong_before_it_was_stored_is_damage_as_well() -> None:
    data = a_zip(THREE, zipfile.ZIP_STORED)
    wrong = flipped(data, data.index(THREE["b.bin"][300:310]))
    found = drill_of(wrong, stored_as(wrong))
    assert (found.state, found.member) == (DrillState.DAMAGED, "b.bin")
    assert "CRC-32" in (found.message or "")


def test_another_object_in_its_place_is_damage() -> None:
    assert drill_of(a_zip({"x": b"other"}), stored_as(a_zip({"x": b"thing"}))).state is DrillState.DAMAGED


def test_a_member_that_inflates_to_more_than_it_says_is_not_inflated_further() -> None:
    data = bytearray(a_zip({"bomb": bytes(50 << 20)}))
    entry = data.index(b"PK\x01\x02")
    struct.pack_into("<I", data, entry + 24, 1000)
    tracemalloc.start()
    found = drill_of(bytes(data), slice_bytes=1 << 16)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (found.state, found.member) == (DrillState.DAMAGED, "bomb")
    assert "more than its 1000 bytes" in (found.message or "")
    assert peak < 4 << 20


@pytest.mark.parametrize(
    ("flag", "method", "why"), [(1, 8, "encrypted"), (0, 12, "method 12"), (0, 99, "method 99")]
)
def test_what_nobody_here_can_open_is_unread_and_the_rest_is_opened(flag: int, method: int, why: str) -> None:
    data = bytearray(a_zip(THREE))
    entry = data.index(b"PK\x01\x02", data.index(b"PK\x01\x02") + 1)
    assert data[entry + 46 : entry + 51] == b"b.bin"
    struct.pack_into("<2H", data, entry + 8, flag, method)
    found = drill_of(bytes(data))
    assert (found.state, found.member, found.members, found.compared) == (DrillState.UNREAD, "b.bin", 2, True)
    assert why in (found.message or "")
    damaged = drill_of(flipped(bytes(data), entry - 40), stored_as(bytes(data)))
    assert damaged.state is DrillState.DAMAGED, "its bytes are compared all the same"


def test_members_out_of_the_directorys_order_are_unread_and_compared() -> None:
    data = a_zip(THREE)
    start = data.index(b"PK\x01\x02")
    second = data.index(b"PK\x01\x02", start + 1)
    third = data.index(b"PK\x01\x02", second + 1)
    end = data.index(b"PK\x05\x06")
    swapped = data[:start] + data[second:third] + data[start:second] + data[third:end] + data[end:]
    found = drill_of(swapped)
    assert (found.state, found.members, found.compared) == (DrillState.UNREAD, 1, True)
    assert "order" in (found.message or "")


@given(st.integers(1, 400), st.integers(2, 9), st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))
@settings(deadline=None, max_examples=60)
def test_a_pass_that_is_ended_anywhere_goes_on_where_it_was(
    slice_bytes: int, every: int, method: int
) -> None:
    contents = {f"{number}.txt": random.Random(number).randbytes(number * 40) for number in range(8)}
    data = a_zip(contents, method)
    place, passes = Place(), 0
    while True:
        found = one_pass(data, place=place, slice_bytes=slice_bytes, keep=Stops(every))
        if found.drill is not None:
            break
        assert found.place != place, "an invocation came no further"
        before = data[: found.place.offset]
        assert found.place.crc64nvme == encode_crc(checksums.crc64nvme(before))
        place, passes = Place.from_document(found.place.to_document()), passes + 1
        assert passes < 2 * len(data)
    assert found.drill.compared
    assert found.drill.members + found.place.unread == 8
    if found.place.unread:
        assert "longer than an invocation" in (found.drill.message or "")
    else:
        assert found.drill.state is DrillState.OK


def test_damage_before_the_place_where_it_goes_on_was_seen_by_the_pass_before() -> None:
    data = a_zip(THREE, zipfile.ZIP_STORED)
    stops = Stops(20)
    half = one_pass(data, keep=stops)
    assert half.drill is None
    assert half.place.entry >= 1
    found = one_pass(flipped(data, half.place.offset + 40), stored_as(data), half.place)
    assert found.drill is not None
    assert found.drill.state is DrillState.DAMAGED


class Generated:
    """A zip whose bytes are made when they are read: pieces of (start, length, how to make a range of them)."""

    def __init__(self) -> None:
        self.size = 0
        self._pieces: list[tuple[int, int, Callable[[int, int], bytes]]] = []
        self.longest_read = 0

    def add(self, length: int, make: Callable[[int, int], bytes]) -> None:
        self._pieces.append((self.size, length, make))
        self.size += length

    def add_bytes(self, data: bytes) -> None:
        self.add(len(data), lambda start, length: data[start : start + length])

    def read(self, start: int, length: int) -> bytes:
        self.longest_read = max(self.longest_read, length)
        found = []
        for at, size, make in self._pieces:
            first, last = max(start, at), min(start + length, at + size)
            if first < last:
                found.append(make(first - at, last - first))
        return b"".join(found)

    def checksum(self) -> str:
        crc, at = 0, 0
        while at < self.size:
            data = self.read(at, min(8 << 20, self.size - at))
            crc, at = checksums.crc64nvme(data, crc), at + len(data)
        self.longest_read = 0
        return encode_crc(crc)


def many_members(count: int, *, zip64: bool = True) -> Generated:
    """Empty members of one length, and ZIP64 end records; without them the number wraps at 65,536."""
    zip_ = Generated()
    local = 30 + 8

    def locals_of(start: int, length: int) -> bytes:
        first, last = start // local, (start + length - 1) // local
        made = b"".join(
            struct.pack("<4s5H3I2H", b"PK\x03\x04", 20, 0, 0, 0, 33, 0, 0, 0, 8, 0) + b"%08d" % number
            for number in range(first, last + 1)
        )
        return made[start - first * local :][:length]

    entry = 46 + 8

    def entries_of(start: int, length: int) -> bytes:
        first, last = start // entry, (start + length - 1) // entry
        made = b"".join(
            struct.pack(
                "<4s6H3I5H2I", b"PK\x01\x02", 45, 20, 0, 0, 0, 33, 0, 0, 0, 8, 0, 0, 0, 0, 0, number * local
            )
            + b"%08d" % number
            for number in range(first, last + 1)
        )
        return made[start - first * entry :][:length]

    zip_.add(count * local, locals_of)
    start = zip_.size
    zip_.add(count * entry, entries_of)
    position = zip_.size
    if not zip64:
        number = count % 65_536
        zip_.add_bytes(struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, number, number, count * entry, start, 0))
        return zip_
    zip_.add_bytes(
        struct.pack("<4sQ2H2I4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, count * entry, start)
        + struct.pack("<4sIQI", b"PK\x06\x07", 0, position, 1)
        + struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    )
    return zip_


def one_big_member(size: int) -> Generated:
    """One member of so many zero bytes, stored, with ZIP64 fields where they are needed."""
    zip_ = Generated()
    crc, left, zeros = 0, size, bytes(1 << 20)
    while left:
        crc = zlib.crc32(zeros[: min(left, len(zeros))], crc)
        left -= min(left, len(zeros))
    extra = struct.pack("<2H2Q", 1, 16, size, size)
    top = 0xFFFFFFFF
    zip_.add_bytes(
        struct.pack("<4s5H3I2H", b"PK\x03\x04", 45, 0, 0, 0, 33, crc, top, top, 3, 20) + b"big" + extra
    )
    zip_.add(size, lambda start, length: bytes(length))
    start = zip_.size
    fields = (45, 45, 0, 0, 0, 33, crc, top, top, 3, 20, 0, 0, 0, 0, 0)
    zip_.add_bytes(struct.pack("<4s6H3I5H2I", b"PK\x01\x02", *fields) + b"big" + extra)
    length = zip_.size - start
    zip_.add_bytes(struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 1, 1, length, min(start, top), 0))
    return zip_


@pytest.mark.parametrize("count", [65_535, 65_536, 70_000, 131_073])
def test_a_zip_of_more_members_than_its_end_record_can_count_is_whole(count: int) -> None:
    """As writers without ZIP64 make them."""
    zip_ = many_members(count, zip64=False)
    data = zip_.read(0, zip_.size)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert len(archive.infolist()) == count, "other readers take it"
    found = drill_of(data, slice_bytes=SLICE)
    assert (found.state, found.members, found.compared) == (DrillState.OK, count, True), found.message


@pytest.mark.parametrize("count", [65_536, 70_000])
def test_a_directory_that_lost_members_is_damage_however_many_its_end_record_can_count(count: int) -> None:
    zip_ = many_members(count, zip64=False)
    data = bytearray(zip_.read(0, zip_.size))
    struct.pack_into("<2H", data, len(data) - 14, (count - 3) % 65_536, (count - 3) % 65_536)
    found = drill_of(bytes(data), slice_bytes=SLICE)
    assert (found.state, found.member) == (DrillState.DAMAGED, None)
    assert "directory" in (found.message or "")


def test_members_out_of_order_are_unread_also_where_the_end_record_can_not_count_them() -> None:
    zip_ = many_members(70_000, zip64=False)
    data = bytearray(zip_.read(0, zip_.size))
    directory = struct.unpack_from("<I", data, len(data) - 6)[0]
    struct.pack_into(
        "<I", data, directory + 60_000 * 54 + 42, 0
    )  # the 60,001st member is where the first one is
    found = drill_of(bytes(data), slice_bytes=SLICE)
    assert (found.state, found.members, found.compared) == (DrillState.UNREAD, 60_000, True)
    assert " 10000 of the members" in (found.message or "")


def with_an_encrypted_directory(
    count: int = 3, *, masked: bool = True, needs: int = 62, extra_record: bool = True
) -> bytes:
    """As SecureZIP makes them: APPNOTE 6.3.10, sections 4.3.6, 4.3.11, 4.3.14 (version 2) and 7.3."""
    noise = random.Random(count)
    flags = 1 | 1 << 6 | (1 << 13 if masked else 0)
    members = b"".join(
        struct.pack("<4s5H3I2H", b"PK\x03\x04", 62, flags, 8, 0, 0, 0, 60, 0, 1, 0) + b"%d" % (number % 10)
        + noise.randbytes(60)
        for number in range(count)
    )  # fmt: skip
    record = struct.pack("<4sI", b"PK\x06\x08", 8) + noise.randbytes(8) if extra_record else b""
    decryption = struct.pack("<H16sIH", 16, noise.randbytes(16), 40, 3) + noise.randbytes(38)
    directory = (record + decryption if extra_record else decryption) + noise.randbytes(46)
    position = len(members) + len(directory)
    sector = struct.pack("<H2Q4H", 8, len(directory), 46 * count, 0x660E, 256, 1, 0) + struct.pack("<H", 0)
    end64 = struct.pack("<4sQ2H2I4Q", b"PK\x06\x06", 44 + len(sector), 62, needs, 0, 0, count, count,
                        len(directory), len(members)) + sector  # fmt: skip
    locator = struct.pack("<4sIQI", b"PK\x06\x07", 0, position, 1)
    top = 0xFFFFFFFF
    return (
        members
        + directory
        + end64
        + locator
        + struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, top, top, 0)
    )


SIGNS: dict[str, dict[str, Any]] = {
    "all": {},
    "the version": {"masked": False, "extra_record": False},
    "masked headers": {"needs": 45, "extra_record": False},
}


@pytest.mark.parametrize(
    ("count", "signs"),
    [
        *(
            (count, signs) for count in (2, 40) for signs in SIGNS.values()
        ),  # the directory of 40 is compressed
        (2, {"masked": False, "needs": 45}),
    ],
    ids=[*(f"{name}, {count}" for count in (2, 40) for name in SIGNS), "the extra data record"],
)
def test_an_encrypted_directory_is_unread_and_its_bytes_are_compared(
    count: int, signs: dict[str, Any]
) -> None:
    data = with_an_encrypted_directory(count, **signs)
    found = drill_of(data)
    assert (found.state, found.members, found.compared) == (DrillState.UNREAD, 0, True), found.message
    assert "its directory is encrypted or compressed" in (found.message or "")
    assert drill_of(flipped(data, len(data) // 2), stored_as(data)).state is DrillState.DAMAGED


def test_a_signed_directory_is_read_to_its_signature() -> None:
    """APPNOTE 6.3.10, section 4.3.13: the signature counts as part of the directory."""
    data = a_zip(THREE)
    end = data.index(EMPTY[:4])
    signature = struct.pack("<4sH", b"PK\x05\x05", 20) + bytes(20)
    tail = bytearray(data[end:])
    struct.pack_into("<I", tail, 12, struct.unpack_from("<I", tail, 12)[0] + len(signature))
    found = drill_of(data[:end] + signature + tail)
    assert (found.state, found.members, found.compared) == (DrillState.OK, 3, True), found.message
    cut = drill_of(
        data[:end]
        + signature[:10]
        + tail[:12]
        + struct.pack("<I", end - data.index(b"PK\x01\x02") + 10)
        + tail[16:]
    )
    assert cut.state is DrillState.DAMAGED


@pytest.mark.parametrize(
    ("make", "members"),
    [(lambda: many_members(300_000), 300_000), (lambda: one_big_member(3 * GIB), 1)],
    ids=["300,000 members", "one member of 3 GiB"],
)
def test_neither_many_members_nor_a_big_one_need_more_memory(
    make: Callable[[], Generated], members: int
) -> None:
    zip_ = make()
    stored = StoredObject(
        bucket="b", key="k", size=zip_.size, checksum_crc64nvme=zip_.checksum(), version_id="v"
    )
    process, most, asked = psutil.Process(), 0, 0

    def look_at_memory(place: Place) -> None:
        nonlocal most, asked
        asked += 1
        if asked % 1000 == 0 or members == 1:
            most = max(most, process.memory_info().rss)

    before = process.memory_info().rss
    found = OpenObject(
        stored=stored,
        place=Place(),
        read=zip_.read,
        pool=InlinePool(1),
        keep=look_at_memory,
        clock=CLOCK,
        slice_bytes=SLICE,
    )()
    assert found.drill is not None
    assert (found.drill.state, found.drill.members) == (DrillState.OK, members), found.drill.message
    assert 0 < most < before + 40 * MIB, "nothing is held but slices of the object and of its directory"
    assert zip_.longest_read <= SLICE
