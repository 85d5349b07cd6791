"""What is read of a member's entry in a zip's directory, byte for byte, and what is said of one that is wrong."""

import re
import struct
import zlib
from typing import Any

import pytest

from sitebackup.domain.zip_directory import (
    INFLATED_AT_ONCE,
    Damage,
    Member,
    MemberCheck,
    header_length,
    read_entry,
)

IN_ZIP64 = 0xFFFFFFFF
ENDS_WITHIN = "The directory ends within a member's entry."
SAYS_NO_SIZE = "The directory does not say how large a member is."
ENDS_BEFORE_ITS_PLACE = "Its compressed bytes end before their place does."
CONTENT = b"a page of a site" * 40
DEFLATED, ENCRYPTED, PATCHED, UTF8 = 8, 1, 1 << 5, 1 << 11


def an_entry(
    name: bytes = b"page.html",
    extra: bytes = b"",
    comment: bytes = b"",
    *,
    signature: bytes = b"PK\x01\x02",
    flags: int = 0,
    method: int = DEFLATED,
    crc32: int = 7,
    stored_size: int = 11,
    size: int = 13,
    start: int = 17,
) -> bytes:
    """One member in a directory (APPNOTE 4.3.12)."""
    numbers = (20, 20, flags, method, 0, 0, crc32, stored_size, size)
    lengths = (len(name), len(extra), len(comment))
    fixed = struct.pack("<4s6H3I5H2I", signature, *numbers, *lengths, 0, 0, 0, start)
    return fixed + name + extra + comment


def read(entry: bytes) -> Member:
    """The member, after which something else may follow."""
    member, length = read_entry(memoryview(entry + b"what follows"))
    assert length == len(entry)
    return member


def a_record(kind: int, *values: int) -> bytes:
    """Of an extra field (APPNOTE 4.5)."""
    return struct.pack(f"<2H{len(values)}Q", kind, 8 * len(values), *values)


def says(message: str) -> Any:
    """Damage that says exactly this."""
    return pytest.raises(Damage, match=f"^{re.escape(message)}$")


# --- the entry


def test_an_entry_tells_all_of_its_member_and_ends_behind_extra_field_and_comment() -> None:
    entry = an_entry(extra=a_record(9, 1), comment=b"a remark")
    assert read(entry) == Member("page.html", 17, 11, 13, 7, True, None)


@pytest.mark.parametrize("entry", [an_entry(), an_entry(extra=a_record(9, 1)), an_entry(comment=b"a remark")])
def test_an_entry_may_be_the_last_thing_of_a_directory_but_no_byte_of_it_may_be_missing(entry: bytes) -> None:
    assert read_entry(memoryview(entry))[1] == len(entry)
    for length in (len(entry) - 1, 46, 45):
        with says(ENDS_WITHIN):
            read_entry(memoryview(entry[:length]))


def test_an_entry_without_a_name_is_whole_with_its_fixed_part() -> None:
    entry = an_entry(name=b"")
    assert read_entry(memoryview(entry)) == (Member("", 17, 11, 13, 7, True, None), 46)


def test_what_has_no_signature_of_an_entry_is_none() -> None:
    with says("The directory has something else where a member's entry must be."):
        read(an_entry(signature=b"PK\x01\x03"))


@pytest.mark.parametrize(
    ("name", "flags", "shown"),
    [
        ("Größe".encode(), UTF8, "Größe"),
        ("Größe".encode("cp437"), 0, "Größe"),
        (b"a\xffb", UTF8, "a\N{REPLACEMENT CHARACTER}b"),
        (b"n" * 201, 0, "n" * 200),
    ],
)
def test_a_name_is_shown_by_the_encoding_that_its_flag_names_and_cut(
    name: bytes, flags: int, shown: str
) -> None:
    assert read(an_entry(name=name, flags=flags)).name == shown


@pytest.mark.parametrize(
    ("flags", "method", "unreadable"),
    [
        (0, 0, None),
        (ENCRYPTED, DEFLATED, "it is encrypted"),
        (1 << 6, DEFLATED, "it is encrypted"),
        (1 << 13, 0, "it is encrypted"),
        (PATCHED, DEFLATED, "it is compressed by method 8"),
        (0, 93, "it is compressed by method 93"),
    ],
)
def test_what_is_encrypted_or_of_another_method_says_so(
    flags: int, method: int, unreadable: str | None
) -> None:
    assert read(an_entry(flags=flags, method=method)).unreadable == unreadable


# --- its ZIP64 forms


LARGE = (5 << 32, 6 << 32, 7 << 32)
"""The order of the ZIP64 record: size, stored size, start."""


@pytest.mark.parametrize("large", range(1, 8))
def test_each_number_that_is_too_large_for_the_entry_stands_in_its_zip64_record(large: int) -> None:
    names = ("size", "stored_size", "start")
    those: dict[str, Any] = {
        name: value for bit, (name, value) in enumerate(zip(names, LARGE, strict=True)) if large >> bit & 1
    }
    elsewhere: dict[str, Any] = dict.fromkeys(those, IN_ZIP64)
    entry = an_entry(extra=a_record(1, *those.values()), **elsewhere)
    assert read(entry) == read(an_entry())._replace(**those)


def test_the_zip64_record_is_found_behind_others() -> None:
    """One is long enough to be taken for one of a negative length, and full of what looks like records."""
    odd = struct.pack("<2H", 0x5455, 5) + b"\x03abcd"
    long = struct.pack("<2H", 0x7777, 0x8000) + b"\x01\x00\x08\x00" * 0x2000
    entry = an_entry(extra=odd + long + a_record(1, *LARGE[:1]), size=IN_ZIP64)
    assert read(entry).size == LARGE[0]


def test_the_zip64_record_may_hold_more_than_was_asked_for_and_claim_more_than_it_holds() -> None:
    assert read(an_entry(extra=a_record(1, *LARGE), size=IN_ZIP64)).size == LARGE[0]
    cut = struct.pack("<2H2Q", 1, 24, *LARGE[:2])
    member = read(an_entry(extra=cut, size=IN_ZIP64, stored_size=IN_ZIP64))
    assert (member.size, member.stored_size) == LARGE[:2]


@pytest.mark.parametrize(
    "extra",
    [b"", b"\x01", a_record(1), a_record(1, *LARGE[:1]), a_record(9, *LARGE), a_record(9, 1) + b"\x01\x00"],
)
def test_numbers_that_stand_nowhere_are_damage(extra: bytes) -> None:
    with says(SAYS_NO_SIZE):
        read(an_entry(extra=extra, size=IN_ZIP64, start=IN_ZIP64))


# --- the member


def a_header(signature: bytes = b"PK\x03\x04") -> bytes:
    """The fixed part of one whose name has 9 bytes, and whose extra field has 300."""
    return struct.pack("<4s5H3I2H", signature, 20, 0, DEFLATED, 0, 0, 7, 11, 13, 9, 300)


def test_a_members_bytes_begin_behind_the_name_and_the_extra_field_of_its_header() -> None:
    assert header_length(a_header()) == 30 + 9 + 300
    with says("It does not begin where the directory says."):
        header_length(a_header(b"PK\x01\x02"))


def deflated(content: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return compressor.compress(content) + compressor.flush()


def opened(data: bytes, content: bytes = CONTENT, *, piece: int = 1 << 20, **changes: Any) -> MemberCheck:
    """After all of these bytes, of which pieces come one by one."""
    member = Member("page.html", 0, len(data), len(content), zlib.crc32(content), True, None)
    check = MemberCheck(member._replace(**changes))
    for at in range(0, len(data), piece):
        left: bytes | memoryview = data[at : at + piece]
        while left:
            left = check.step(left)
    return check


@pytest.mark.parametrize("piece", [1, 7, 1 << 20])
def test_a_whole_member_is_good_whatever_the_pieces(piece: int) -> None:
    opened(deflated(CONTENT), piece=piece).finish()
    opened(CONTENT, is_deflated=False, piece=piece).finish()


@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("more", [-1, 0, 1, 100, 300])
def test_a_member_is_good_wherever_its_last_step_ends(steps: int, more: int) -> None:
    """Bytes that all steps have taken may leave some of the member, or nothing but its end, to be made at last."""
    content = bytes(steps * INFLATED_AT_ONCE + more)
    opened(deflated(content), content).finish()


def test_a_member_that_is_cut_says_that_its_bytes_end_too_early() -> None:
    for length in (1, len(deflated(CONTENT)) - 1):
        check = opened(deflated(CONTENT)[:length])
        with says("It can't be inflated: its bytes end too early."):
            check.finish()


@pytest.mark.parametrize("piece", [1, 1 << 20])
def test_a_member_that_ends_before_its_place_does_says_so(piece: int) -> None:
    with says(ENDS_BEFORE_ITS_PLACE):
        opened(deflated(CONTENT) + b"?", piece=piece)


def test_bytes_that_nothing_was_deflated_to_are_told_with_the_reason() -> None:
    with pytest.raises(Damage, match=r"^It can't be inflated: Error -3 .+\.$"):
        opened(b"\xff" * 9)


def test_a_member_of_another_size_or_crc_is_told_with_both() -> None:
    size = len(CONTENT)
    with says(f"It has more than its {size - 1} bytes."):
        opened(deflated(CONTENT), size=size - 1)
    with says(f"It has {size} bytes and not {size + 1}."):
        opened(deflated(CONTENT), size=size + 1).finish()
    with says("Its CRC-32 is another one."):
        opened(deflated(CONTENT), crc32=1).finish()
