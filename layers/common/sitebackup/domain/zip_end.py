"""Whether an object is one whole zip, judged by its first and its last bytes (I15).

Source: PKWARE APPNOTE 6.3.10, sections 4.3.14 (ZIP64 end of central directory record), 4.3.15 (its locator) and
4.3.16 (end of central directory record). A zip ends with its end record, which says where the directory of its
members is, in front of it. A zip that was cut has no end record, or one of a
zip that is stored inside it. The positions in that one do not fit the whole.

A writer that knows no ZIP64 counts members modulo 65,536. A directory may be encrypted, and compressed before that:
section 7.3.
"""

import struct
from typing import NamedTuple

from .errors import Permanent
from .reason import Code

_MEMBER, _END, _END64, _LOCATOR = b"PK\x03\x04", b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07"
_END_FIELDS = struct.Struct("<4s4H2IH")
_END64_FIELDS = struct.Struct("<4sQ2H2I4Q")
_LOCATOR_FIELDS = struct.Struct("<4sIQI")
_MAX_COMMENT = 0xFFFF
_MAX_END64 = 4096  # bytes; the record has 56, and more only where the directory is encrypted
_MIN_ENTRY = 46  # bytes of a member in the directory
_FLAGS_AT, _MASKED = (
    6,
    1 << 13,
)  # of a local file header, whose values are masked where the directory is encrypted
_NEEDS_DECRYPTION = 62  # the version of those who can read such a directory
WRAPS_AT = 0x10000
"""Members that the end record can't tell from none."""
MIN_WRAPPED_BYTES = WRAPS_AT * _MIN_ENTRY
"""Of a directory: so many members more have at least so many bytes."""

HEAD_BYTES = 64
# The 65,557 bytes in which an end record must begin, and in front of them room for those of ZIP64.
TAIL_BYTES = _MAX_END64 + _LOCATOR_FIELDS.size + _END_FIELDS.size + _MAX_COMMENT


class Directory(NamedTuple):
    """Where a zip's directory is, as its end record says."""

    members: int
    length: int
    """Bytes."""
    start: int
    wraps: bool = False
    """There may be 65,536 members more, or a multiple of that."""
    is_encrypted: bool = False
    """Or compressed: nobody here can read it."""

    @property
    def may_have_more(self) -> bool:
        """Whether there is room for 65,536 members more, which its end record could not tell."""
        return self.wraps and self.length >= (self.members + WRAPS_AT) * _MIN_ENTRY


def count_members(size: int, head: bytes, tail: bytes) -> int | None:
    """The number of members of the zip; None if only its directory can tell. Otherwise as `find_directory`."""
    found = find_directory(size, head, tail)
    return None if found.may_have_more else found.members


def find_directory(size: int, head: bytes, tail: bytes) -> Directory:
    """The directory of the zip that has `size` bytes and begins and ends with these.

    `head` are the first HEAD_BYTES, `tail` the last TAIL_BYTES; of a shorter object all that there is.
    Raises Permanent: export_not_a_zip if it does not begin like a zip, export_incomplete if it does not end like one.
    """
    if not head.startswith((_MEMBER, _END, _END64)):
        raise Permanent(
            Code.EXPORT_NOT_A_ZIP, f"The export is no zip: it has {size} bytes{_beginning(head)}."
        )
    wrong = ""
    at = len(tail)
    while (at := tail.rfind(_END, 0, at + len(_END) - 1)) >= 0:
        try:
            return _directory_by(tail, at, size - len(tail), head)
        except _Unfit as error:  # the comment of a zip may look like an end record: then look before it
            wrong = wrong or str(error)
    raise Permanent(
        Code.EXPORT_INCOMPLETE,
        f"The export is no whole zip: it has {size} bytes and begins like a zip, but "
        f"{wrong or f'no end record is in its last {len(tail)} bytes'}.",
    )


class _Unfit(Exception):
    """Why an end record is not the object's own."""


class _EndRecord(NamedTuple):
    """What an end record says of the directory."""

    disk: int
    starts_on_disk: int
    members_on_disk: int
    members: int
    length: int
    start: int
    needs: int | None = None
    """The version of its readers, if it is a record of ZIP64."""

    def ends_at(self, position: int) -> bool:
        return self.start + self.length == position


def _directory_by(tail: bytes, at: int, before: int, head: bytes) -> Directory:
    """The directory by the end record at `tail[at:]`; the tail begins at byte `before`. Raises _Unfit."""
    position = before + at
    behind = len(tail) - at - _END_FIELDS.size
    if behind < 0:
        raise _Unfit(f"its end record at byte {position} lacks {-behind} bytes")
    _, *fields, comment = _END_FIELDS.unpack_from(tail, at)
    if comment != behind:
        raise _Unfit(f"{behind} bytes and not {comment} follow its end record at byte {position}")
    directory = _EndRecord(*fields)
    if not directory.ends_at(position):  # what is too large for this record stands in that of ZIP64
        directory, position = _zip64(tail, at, before) or (directory, position)
    where = f"its end record at byte {position}"
    if not directory.ends_at(position):
        raise _Unfit(f"{where} is for a directory of {directory.length} bytes at byte {directory.start}")
    if directory.disk or directory.starts_on_disk or directory.members_on_disk != directory.members:
        raise _Unfit(f"{where} is that of one of several disks")
    members, wraps, has_members = directory.members, directory.needs is None, head.startswith(_MEMBER)
    if wraps and not members and directory.length >= MIN_WRAPPED_BYTES:
        members = WRAPS_AT
    is_encrypted = (directory.needs or 0) >= _NEEDS_DECRYPTION or _is_masked(head)
    if (
        (directory.length < members * _MIN_ENTRY and not is_encrypted)
        or has_members != (members > 0)
        or has_members != (directory.start > 0)
    ):
        raise _Unfit(f"{where} tells {members} members in {directory.length} bytes at byte {directory.start}")
    return Directory(members, directory.length, directory.start, wraps, is_encrypted)


def _is_masked(head: bytes) -> bool:
    flags = int.from_bytes(head[_FLAGS_AT : _FLAGS_AT + 2], "little")
    return head.startswith(_MEMBER) and bool(flags & _MASKED)


def _zip64(tail: bytes, at: int, before: int) -> tuple[_EndRecord, int] | None:
    """What the ZIP64 record says and where it is, if the locator just before the end record leads to one."""
    locator = at - _LOCATOR_FIELDS.size
    if locator < 0:
        return None
    signature, disk, position, disks = _LOCATOR_FIELDS.unpack_from(tail, locator)
    record = position - before
    if signature != _LOCATOR or disk or disks > 1 or not 0 <= record <= locator - _END64_FIELDS.size:
        return None
    signature, _, _, needs, *fields = _END64_FIELDS.unpack_from(tail, record)
    return (_EndRecord(*fields)._replace(needs=needs), position) if signature == _END64 else None


def _beginning(head: bytes) -> str:
    """What the first bytes look like, without showing what the export holds."""
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.startswith(b"<"):
        return " and begins like an HTML or XML page"
    if text.startswith((b"{", b"[")):
        return " and begins like JSON"
    return f" and begins with {head[:4].hex(' ')}" if head else ""
