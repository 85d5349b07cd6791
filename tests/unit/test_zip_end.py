"""A zip counts only if it is whole: against Python's zipfile, the zip command and zips beyond 4 GiB."""

import io
import shutil
import struct
import subprocess
import zipfile
from collections.abc import Buffer, Callable, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mock_providers.archive import ENTRY_SIZE, SMALLEST_ZIP, Archive
from sitebackup.domain.errors import Permanent
from sitebackup.domain.reason import Code
from sitebackup.domain.zip_end import HEAD_BYTES, TAIL_BYTES, count_members

GIB = 1 << 30
EMPTY = b"PK\x05\x06" + bytes(18)


def members(data: bytes) -> int | None:
    """As the service asks for it."""
    return count_members(len(data), data[:HEAD_BYTES], data[-TAIL_BYTES:])


def refused(data: bytes) -> tuple[Code, str]:
    with pytest.raises(Permanent) as caught:
        members(data)
    reason = caught.value.reason
    assert f"it has {len(data)} bytes" in reason.message
    return reason.code, reason.message


class Unseekable(io.RawIOBase):
    """A pipe: zipfile then writes sizes and checksums behind the data."""

    def __init__(self) -> None:
        self.written = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        assert isinstance(data, Buffer)
        view = memoryview(data)
        self.written += view
        return view.nbytes


def a_zip(
    contents: list[bytes], comment: bytes = b"", *, zip64: bool = False, streamed: bool = False
) -> bytes:
    """With a member for each of the contents; `zip64` writes its end records even though it is small."""
    target = Unseekable() if streamed else io.BytesIO()
    with (
        patch.object(zipfile, "ZIP_FILECOUNT_LIMIT", -1 if zip64 else zipfile.ZIP_FILECOUNT_LIMIT),
        zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as written,
    ):
        written.comment = comment
        for number, content in enumerate(contents):
            written.writestr(zipfile.ZipInfo(f"{number}/data.bin"), content)
    return bytes(target.written) if isinstance(target, Unseekable) else target.getvalue()


@st.composite
def zips(draw: st.DrawFn, depth: int = 1) -> tuple[bytes, int]:
    """A zip and the number of its members; some of these are zips, and comments may look like an end record."""
    content = st.binary(max_size=200)
    if depth:
        content = st.one_of(content, zips(depth - 1).map(lambda made: made[0]))
    contents = draw(st.lists(content, max_size=4))
    comment = draw(st.one_of(st.binary(max_size=100), st.just(EMPTY), st.just(b"x" * 0xFFFF)))
    data = a_zip(contents, comment, zip64=draw(st.booleans()), streamed=draw(st.booleans()))
    return data, len(contents)


@settings(max_examples=150, deadline=None)
@given(made=zips(), data=st.data())
def test_every_whole_zip_passes_and_no_other_length_of_it(
    made: tuple[bytes, int], data: st.DataObject
) -> None:
    whole, count = made
    assert members(whole) == count
    cuts: Sequence[int] = range(len(whole))
    if len(whole) > 5000:
        cuts = data.draw(st.lists(st.integers(0, len(whole) - 1), min_size=20, max_size=20), "cuts")
    for cut in cuts:
        code, _ = refused(whole[:cut])
        assert code is (Code.EXPORT_INCOMPLETE if cut >= 4 else Code.EXPORT_NOT_A_ZIP)
    junk = data.draw(st.binary(min_size=1, max_size=50), "junk")
    refused(whole + junk)
    refused(junk + whole)


@settings(max_examples=100, deadline=None)
@given(made=zips(), prefix=st.binary(min_size=1, max_size=50))
def test_a_zip_whose_positions_count_bytes_in_front_of_it_is_refused(
    made: tuple[bytes, int], prefix: bytes
) -> None:
    """Self-extracting archives are made so: it opens, but does not begin with its first member."""
    target = io.BytesIO()
    target.write(prefix)
    with zipfile.ZipFile(target, "a") as appended:
        appended.writestr("member", made[0])
    if not prefix.startswith(b"PK"):
        assert refused(target.getvalue())[0] is Code.EXPORT_NOT_A_ZIP


@settings(max_examples=100, deadline=None)
@given(inner=zips(depth=0), before=st.binary(max_size=100), behind=st.binary(max_size=100))
def test_a_zip_cut_behind_a_zip_stored_in_it_is_refused(
    inner: tuple[bytes, int], before: bytes, behind: bytes
) -> None:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as outer:
        for name, content in (("before", before), ("inner.zip", inner[0]), ("behind", behind)):
            outer.writestr(name, content)
    whole = target.getvalue()
    assert members(whole) == 3
    end = whole.index(b"inner.zip") + len(b"inner.zip") + len(inner[0])
    assert whole[:end].endswith(inner[0])
    assume(zipfile.is_zipfile(io.BytesIO(whole[:end])))  # not if a comment looks like an end record
    assert refused(whole[:end])[0] is Code.EXPORT_INCOMPLETE


@pytest.mark.parametrize("count", [65_535, 65_536])
def test_as_many_members_as_the_end_record_can_count_and_one_more(count: int) -> None:
    data = a_zip([b""] * count)
    assert (b"PK\x06\x07" in data[-100:]) == (count > 65_535), "ZIP64 only beyond that"
    assert members(data) == count
    for cut in (1, 22, 42, 98, 99, len(data) // 2):
        refused(data[:-cut])


@pytest.mark.parametrize("comment", [0, 1, 65_000, 0xFFFF])
@pytest.mark.parametrize("extension", [0, 1, 4040])
def test_a_zip64_record_may_be_extended_and_a_comment_as_long_as_it_can_be(
    extension: int, comment: int
) -> None:
    data = a_zip([b"x" * 100_000], zip64=True)
    record, rest = data.index(b"PK\x06\x06"), data.index(b"PK\x06\x07")
    end = data[rest:-2] + struct.pack("<H", comment) + bytes(comment)
    size = struct.pack("<Q", 44 + extension)
    longer = data[: record + 4] + size + data[record + 12 : rest] + bytes(extension) + end
    assert members(longer) == 1
    refused(longer[:-1])


@pytest.mark.parametrize(
    "size",
    [SMALLEST_ZIP, 1000, 3 * ENTRY_SIZE, 4 * GIB - 1, 4 * GIB, 4 * GIB + 1, 10 * GIB + 7],
)
def test_zips_of_any_size_pass_and_cut_ones_do_not(size: int) -> None:
    export = Archive("site", "0" * 24, "1" * 24, size)

    def judged(end: int) -> int | None:
        return count_members(
            end, export.read(0, min(HEAD_BYTES, end)), export.read(max(0, end - TAIL_BYTES), end)
        )

    assert judged(size) == -(-max(0, size - 200) // (ENTRY_SIZE + 30))
    for cut in (1, 17, 21, size // 2, size - 5):
        if 0 < cut < size:
            with pytest.raises(Permanent):
                judged(size - cut)


def test_zips_of_several_disks_are_refused() -> None:
    data = bytearray(a_zip([b"x"]))
    for at, value in ((-18, 1), (-16, 1), (-14, 0)):
        changed = bytearray(data)
        struct.pack_into("<H", changed, len(data) + at, value)
        code, message = refused(bytes(changed))
        assert (code, "disks" in message) == (Code.EXPORT_INCOMPLETE, True)


END = struct.Struct("<4s4H2IH")
ENTRY = 46  # bytes; the least that a member takes in the directory


def ends(head: bytes, directory: int, members: int, behind: bytes = b"") -> bytes:
    """A head, a directory of so many bytes and the end record of so many members that fits both."""
    record = END.pack(b"PK\x05\x06", 0, 0, members, members, directory, len(head), len(behind))
    return head + bytes(directory) + record + behind


HEAD = b"PK\x03\x04\x14\0\0\0me"


@pytest.mark.parametrize("count", [1, 2])
def test_a_directory_has_at_least_46_bytes_a_member(count: int) -> None:
    assert members(ends(HEAD, count * ENTRY, count)) == count
    code, message = refused(ends(HEAD, count * ENTRY - 1, count))
    assert code is Code.EXPORT_INCOMPLETE
    assert (
        f"its end record at byte {len(HEAD) + count * ENTRY - 1} tells {count} members "
        f"in {count * ENTRY - 1} bytes at byte {len(HEAD)}" in message
    )


def test_an_end_record_that_counts_none_counts_65536_if_its_directory_has_room_for_them() -> None:
    assert members(ends(HEAD, 65_536 * ENTRY, 0)) == 65_536
    assert refused(ends(HEAD, 65_536 * ENTRY - 1, 0))[0] is Code.EXPORT_INCOMPLETE


@pytest.mark.parametrize("count", [1, 4464, 65_535])
def test_a_number_that_may_have_wrapped_is_not_told(count: int) -> None:
    """Its directory has room for 65,536 members more: only that can tell."""
    assert members(ends(HEAD, (count + 65_536) * ENTRY - 1, count)) == count
    assert members(ends(HEAD, (count + 65_536) * ENTRY, count)) is None


def test_members_and_the_bytes_they_begin_with_come_together() -> None:
    assert members(ends(b"", 0, 0)) == 0
    for data in (
        ends(HEAD, 0, 0),  # bytes of a member, and no member
        ends(EMPTY, ENTRY, 1),  # a member, and not its bytes
    ):
        assert refused(data)[0] is Code.EXPORT_INCOMPLETE


END64 = struct.Struct("<4sQ2H2I4Q")
LOCATOR = struct.Struct("<4sIQI")


def zip64_end(
    at: int,
    directory: tuple[int, int, int],
    *,
    record: bytes = b"PK\x06\x06",
    locator: bytes = b"PK\x06\x07",
    disk: int = 0,
    disks: int = 1,
    points: int = 0,
) -> bytes:
    """The ZIP64 record for byte `at` of the object, and its locator, which points so many bytes behind it.

    The directory is told by its members, its length and its start.
    """
    members, length, start = directory
    return END64.pack(record, 44, 45, 45, 0, 0, members, members, length, start) + LOCATOR.pack(
        locator, disk, at + points, disks
    )


@pytest.mark.parametrize(
    ("changes", "passes"),
    [
        ({}, True),
        ({"record": b"PK\x06\x05"}, False),
        ({"locator": b"PK\x06\x08"}, False),
        ({"disk": 1}, False),
        ({"disks": 0}, True),
        ({"disks": 2}, False),
        ({"points": -1}, False),
        ({"points": 1}, False),
        ({"points": END64.size + 10}, False),
    ],
)
def test_a_zip64_record_counts_only_where_a_locator_of_one_disk_points_at_it(
    changes: dict[str, Any], passes: bool
) -> None:
    at = len(HEAD) + ENTRY
    too_large = END.pack(b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    data = HEAD + bytes(ENTRY) + zip64_end(at, (1, ENTRY, len(HEAD)), **changes) + too_large
    if passes:
        assert members(data) == 1
    else:
        assert refused(data)[0] is Code.EXPORT_INCOMPLETE


def test_a_zip64_locator_that_points_before_the_last_bytes_is_followed_nowhere() -> None:
    at = len(HEAD) + TAIL_BYTES
    data = HEAD + bytes(TAIL_BYTES) + zip64_end(at, (1, TAIL_BYTES, len(HEAD)), points=-at)
    too_large = END.pack(b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    assert refused(data + too_large)[0] is Code.EXPORT_INCOMPLETE


def test_what_looks_like_a_zip64_record_is_not_read_where_the_end_record_itself_fits() -> None:
    """The comment of the last member may hold anything."""
    alike = zip64_end(len(HEAD) + ENTRY, (0, 0, 0))
    directory = bytes(ENTRY) + alike
    record = END.pack(b"PK\x05\x06", 0, 0, 1, 1, len(directory), len(HEAD), 0)
    assert members(HEAD + directory + record) == 1


def test_a_zip64_locator_needs_room_before_the_end_record() -> None:
    """The shortest object that could hold one is refused for what its own end record says."""
    for room in range(LOCATOR.size + 1):
        data = b"PK\x03\x04" + bytes(room) + END.pack(b"PK\x05\x06", 0, 0, 1, 1, 999, 9, 0)
        code, message = refused(data)
        assert (code, "a directory of 999 bytes at byte 9" in message) == (Code.EXPORT_INCOMPLETE, True)


@pytest.mark.parametrize(
    ("data", "code", "words"),
    [
        (b"", Code.EXPORT_NOT_A_ZIP, "has 0 bytes."),
        (
            b"\xef\xbb\xbf\n <!DOCTYPE html><p>secret",
            Code.EXPORT_NOT_A_ZIP,
            "s and begins like an HTML or XML page.",
        ),
        (b'{"error": "secret"}', Code.EXPORT_NOT_A_ZIP, "s and begins like JSON."),
        (b'["secret"]', Code.EXPORT_NOT_A_ZIP, "s and begins like JSON."),
        (b"\x1f\x8b\x08\x00secret", Code.EXPORT_NOT_A_ZIP, "begins with 1f 8b 08 00."),
        (b"PK\x03\x04secret", Code.EXPORT_INCOMPLETE, "no end record is in its last 10 bytes"),
        (
            a_zip([b"x"]) + b"secret",
            Code.EXPORT_INCOMPLETE,
            "6 bytes and not 0 follow its end record at byte",
        ),
        (a_zip([b"x"])[:-3], Code.EXPORT_INCOMPLETE, "lacks 3 bytes"),
        (a_zip([b"x"])[:-22] + EMPTY, Code.EXPORT_INCOMPLETE, "a directory of 0 bytes at byte 0"),
    ],
)
def test_the_reason_says_what_was_found_and_shows_no_content(data: bytes, code: Code, words: str) -> None:
    found, message = refused(data)
    assert found is code
    assert words in message
    assert "secret" not in message


# --- zips of Info-ZIP


def info_zip(*options: str) -> Callable[[Path], bytes]:
    def make(folder: Path) -> bytes:
        for number in range(5):
            (folder / f"{number}.txt").write_text("some text\n" * 100 * number)
        target = folder / "made.zip"
        subprocess.run(
            ["zip", "-q", *options, str(target), *[f"{number}.txt" for number in range(5)]],
            cwd=folder,
            check=True,
            timeout=30,
        )
        return target.read_bytes()

    return make


def piped(folder: Path) -> bytes:
    """To standard output, which can't be gone back on: with ZIP64 records where the size is not known."""
    (folder / "a.txt").write_text("some text\n" * 100)
    return subprocess.run(
        ["zip", "-q", "-", "a.txt", "-"],
        cwd=folder,
        input=b"more",
        capture_output=True,
        check=True,
        timeout=30,
    ).stdout


@pytest.mark.skipif(not shutil.which("zip"), reason="there is no zip command")
@pytest.mark.parametrize(
    ("make", "count"),
    [
        (info_zip(), 5),
        (info_zip("-0"), 5),
        (info_zip("-fz"), 5),
        (info_zip("-e", "-P", "password"), 5),
        (piped, 2),
    ],
    ids=["deflated", "stored", "zip64", "encrypted", "piped"],
)
def test_zips_of_the_zip_command_pass_and_no_cut_of_them(
    make: Callable[[Path], bytes], count: int, tmp_path: Path
) -> None:
    data = make(tmp_path)
    assert members(data) == count
    for cut in range(len(data)):
        refused(data[:cut])
