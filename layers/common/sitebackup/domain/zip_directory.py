"""The members of a zip, read from its directory one by one, and whether what is stored of each is what it says.

Source: PKWARE APPNOTE 6.3.10, sections 4.3.7 (local file header), 4.3.12 (central directory), 4.4.4 (flags), 4.4.5
(methods) and 4.5.3 (ZIP64 extra field). No more of a member is inflated than it says it has.
"""

import struct
import zlib
from typing import NamedTuple

_ENTRY = struct.Struct("<4s6H3I5H2I")
_LOCAL = struct.Struct("<4s5H3I2H")
_ENTRY_SIGNATURE, _LOCAL_SIGNATURE = b"PK\x01\x02", b"PK\x03\x04"
_EXTRA_DATA_SIGNATURE = b"PK\x06\x08"
_SIGNED = struct.Struct("<4sH")
_SIGNED_SIGNATURE = b"PK\x05\x05"
_ENCRYPTED = 1 | 1 << 6 | 1 << 13
_PATCHED = 1 << 5
_UTF8 = 1 << 11
_ZIP64, _IN_ZIP64 = 1, 0xFFFFFFFF
_STORED, _DEFLATED = 0, 8
_SHOWN = 200
"""Characters of a name."""
MAX_ENTRY_BYTES = _ENTRY.size + 3 * 0xFFFF
"""Of one member in the directory."""
LOCAL_HEADER_BYTES = _LOCAL.size
"""Of the fixed part of what stands before a member's bytes."""
INFLATED_AT_ONCE = 1 << 20
"""Bytes at most that one step of `MemberCheck` makes."""


class Damage(Exception):
    """What is stored can't be opened; the message says why."""


class Unreadable(Exception):
    """Nobody here can read the directory."""

    def __init__(self) -> None:
        super().__init__("its directory is encrypted or compressed")


class Member(NamedTuple):
    """One member, as the directory tells it."""

    name: str
    """Cut to what can be shown."""
    start: int
    """Where its local header stands in the zip."""
    stored_size: int
    size: int
    crc32: int
    is_deflated: bool
    """Else its bytes are stored as they are."""
    unreadable: str | None
    """Why nobody here can judge it: it is encrypted, or of a method that is not known."""


def read_entry(data: memoryview) -> tuple[Member, int]:
    """The first member of these bytes of a directory, and the bytes that it has there.

    Raises Damage if they begin with no whole entry: whoever calls gives MAX_ENTRY_BYTES, or all that is left. Raises
    Unreadable if they begin with what stands before a directory that is encrypted (section 4.3.11).
    """
    if data[:4] == _EXTRA_DATA_SIGNATURE:
        raise Unreadable
    if len(data) < _ENTRY.size:
        raise Damage("The directory ends within a member's entry.")
    (signature, _, _, flags, method, _, _, crc32, stored_size, size, name_length, extra_length, comment_length,
     _, _, _, start) = _ENTRY.unpack_from(data)  # fmt: skip
    if signature != _ENTRY_SIGNATURE:
        raise Damage("The directory has something else where a member's entry must be.")
    extra_at = _ENTRY.size + name_length
    length = extra_at + extra_length + comment_length
    if len(data) < length:
        raise Damage("The directory ends within a member's entry.")
    name = bytes(data[_ENTRY.size : extra_at]).decode("utf-8" if flags & _UTF8 else "cp437", "replace")
    if _IN_ZIP64 in (size, stored_size, start):
        extra = data[extra_at : extra_at + extra_length]
        size, stored_size, start = _from_zip64(extra, size, stored_size, start)
    unreadable = _unreadable(flags, method)
    return Member(name[:_SHOWN], start, stored_size, size, crc32, method == _DEFLATED, unreadable), length


def is_signature(data: memoryview) -> bool:
    """Whether these bytes are the digital signature that may end a directory (section 4.3.13)."""
    if len(data) < _SIGNED.size:
        return False
    signature, length = _SIGNED.unpack_from(data)
    return bool(signature == _SIGNED_SIGNATURE and len(data) == _SIGNED.size + length)


def _from_zip64(extra: memoryview, *fields: int) -> list[int]:
    """The fields, with those that are too large for the entry taken from its extra field."""
    while len(extra) >= 4:
        kind, length = struct.unpack_from("<2H", extra)
        if kind == _ZIP64:
            values = iter(struct.unpack_from(f"<{min(length, len(extra) - 4) // 8}Q", extra, 4))
            try:
                return [next(values) if field == _IN_ZIP64 else field for field in fields]
            except StopIteration:
                break
        extra = extra[4 + length :]
    raise Damage("The directory does not say how large a member is.")


def _unreadable(flags: int, method: int) -> str | None:
    if flags & _ENCRYPTED:
        return "it is encrypted"
    if flags & _PATCHED or method not in (_STORED, _DEFLATED):
        return f"it is compressed by method {method}"
    return None


def header_length(data: bytes) -> int:
    """Bytes before those of a member, by the LOCAL_HEADER_BYTES at its start. Raises Damage."""
    signature, *_, name_length, extra_length = _LOCAL.unpack(data)
    if signature != _LOCAL_SIGNATURE:
        raise Damage("It does not begin where the directory says.")
    return LOCAL_HEADER_BYTES + int(name_length) + int(extra_length)


class MemberCheck:
    """Inflates a member piece by piece, keeps nothing of it, and compares its size and its CRC-32."""

    def __init__(self, member: Member) -> None:
        self._member = member
        self._inflater = (
            zlib.decompressobj(-zlib.MAX_WBITS) if member.is_deflated and member.stored_size else None
        )
        self._crc, self._size = 0, 0

    def step(self, data: bytes | memoryview) -> bytes | memoryview:
        """Takes the next bytes that are stored, and answers those of them that are left for the next step.

        A step makes INFLATED_AT_ONCE bytes at most, so that whoever calls can look at the clock. Raises Damage.
        """
        if self._inflater is None:
            self._take(data)
            return b""
        if self._inflater.eof:
            raise Damage("Its compressed bytes end before their place does.")
        try:
            made = self._inflater.decompress(data, INFLATED_AT_ONCE)
        except zlib.error as error:
            raise Damage(f"It can't be inflated: {error}.") from None
        self._take(made)
        if self._inflater.eof and self._inflater.unused_data:
            raise Damage("Its compressed bytes end before their place does.")
        return self._inflater.unconsumed_tail

    def finish(self) -> None:
        """All stored bytes were taken. Raises Damage."""
        while self._inflater is not None and not self._inflater.eof:
            before = self._size
            self.step(b"")
            if self._size == before and not self._inflater.eof:
                raise Damage("It can't be inflated: its bytes end too early.")
        if self._size != self._member.size:
            raise Damage(f"It has {self._size} bytes and not {self._member.size}.")
        if self._crc != self._member.crc32:
            raise Damage("Its CRC-32 is another one.")

    def _take(self, data: bytes | memoryview) -> None:
        self._crc = zlib.crc32(data, self._crc)
        self._size += len(data)
        if self._size > self._member.size:
            raise Damage(f"It has more than its {self._member.size} bytes.")
