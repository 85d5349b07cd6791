"""A deterministic zip of an exact size that is never built: any byte range of it is computed when it is read.

Layout (PKWARE APPNOTE 6.3.10): stored entries of ENTRY_SIZE bytes (the last one shorter), the central
directory, and an archive comment for the few bytes that no entry can fill. Beyond 4 GiB the ZIP64 records
of APPNOTE 4.3.14, 4.3.15 and 4.5.3 are used. An entry's data is a row of blocks. A block is a stamp (digest
of the seed, block number) and a window of one shared random pool, whose place depends on the block number:
no two blocks are equal, so swapped, shifted or repeated chunks change every checksum, while the CRC-32 of
an entry is combined from known CRCs and not computed over its bytes.
"""

import functools
import hashlib
import struct
import zlib
from collections.abc import Iterator

from awscrt import checksums

BLOCK_SIZE = 1 << 20
BLOCKS_PER_ENTRY = 64
ENTRY_SIZE = BLOCK_SIZE * BLOCKS_PER_ENTRY
SMALLEST_ZIP = 22
LARGEST = 50 << 40

_STAMP_SIZE = 32
_WINDOWS = 256
_WINDOW_STEP = 4096
_WINDOW_SIZE = BLOCK_SIZE - _STAMP_SIZE
_POOL = memoryview(hashlib.shake_128(b"mock export").digest(BLOCK_SIZE + _WINDOWS * _WINDOW_STEP))

_UNSET_32 = 0xFFFF_FFFF
_UNSET_16 = 0xFFFF
_VERSION = 45  # of the zip format: the first one with ZIP64
_DOS_DATE = 0x21  # 1 January 1980: the content depends on the seed alone


@functools.cache
def _window_crcs() -> list[int]:
    """CRC-32 of each window.

    As crc(A+B) = combine(crc(A), crc(B), len(B)) and combining is an XOR, combining crc(A) with crc(A+B) gives
    crc(B): two running CRCs are enough for all windows.
    """
    before, upto = 0, zlib.crc32(_POOL[:_WINDOW_SIZE])
    crcs = []
    for start in range(0, _WINDOWS * _WINDOW_STEP, _WINDOW_STEP):
        crcs.append(checksums.combine_crc32(before, upto, _WINDOW_SIZE))
        end = start + _WINDOW_SIZE
        before = zlib.crc32(_POOL[start : start + _WINDOW_STEP], before)
        upto = zlib.crc32(_POOL[end : end + _WINDOW_STEP], upto)
    return crcs


class Archive:
    """The export of one site at one revision. The same arguments give the same bytes on every machine.

    size is in bytes, 0 to LARGEST. Below the 22 bytes of the smallest zip there is no valid zip: the
    content is then just that many bytes. Raises ValueError for a size out of these bounds.
    """

    def __init__(self, provider: str, user_id: str, site_id: str, size: int, revision: int = 1) -> None:
        if not 0 <= size <= LARGEST:
            raise ValueError(f"size: {size} is not between 0 and {LARGEST} bytes")
        self.size = size
        self._provider = provider
        self._digest = hashlib.sha256(f"{provider}/{user_id}/{site_id}/{revision}/{size}".encode())
        self._seed = self._digest.digest()[: _STAMP_SIZE - 8]
        self._header_size = 30 + len(self._name(0))
        self._stride = self._header_size + ENTRY_SIZE
        self._zip64 = size > _UNSET_32
        self._entries = 0
        if size >= SMALLEST_ZIP:
            self._entries = size // self._stride + 1
            while self._entries and self._overhead(self._entries) + (self._entries - 1) * ENTRY_SIZE > size:
                self._entries -= 1
            self._data = min(size - self._overhead(self._entries), self._entries * ENTRY_SIZE)
            self._tail_at = self._entries * self._header_size + self._data
        else:
            self._data = self._tail_at = 0

    @property
    def etag(self) -> str:
        """A strong entity tag (RFC 9110, 8.8.3), quotes included."""
        return f'"{self._digest.hexdigest()[:32]}"'

    def read(self, start: int, end: int) -> bytes:
        """The bytes [start, end); the time it takes depends on their number only."""
        return b"".join(self._pieces(start, min(end, self.size)))

    def chunks(self, start: int = 0, end: int | None = None, size: int = 256 * 1024) -> Iterator[bytes]:
        """The bytes [start, end) in chunks of size bytes, the last one shorter."""
        end = self.size if end is None else min(end, self.size)
        for at in range(start, end, size):
            yield self.read(at, min(at + size, end))

    def sha256(self) -> str:
        """Hex SHA-256 of the whole content; reads all of it."""
        digest = hashlib.sha256()
        for chunk in self.chunks(size=BLOCK_SIZE):
            digest.update(chunk)
        return digest.hexdigest()

    def _pieces(self, start: int, end: int) -> Iterator[bytes | memoryview]:
        at = start
        while at < end:
            if at >= self._tail_at:
                piece: bytes | memoryview = self._tail[at - self._tail_at : end - self._tail_at]
            else:
                entry, offset = divmod(at, self._stride)
                if offset < self._header_size:
                    piece = self._local_header(entry)[offset:]
                else:
                    piece = self._block_piece(entry, *divmod(offset - self._header_size, BLOCK_SIZE))
                piece = piece[: end - at]
            yield piece
            at += len(piece)

    def _block_piece(self, entry: int, block: int, offset: int) -> bytes | memoryview:
        length = min(BLOCK_SIZE, self._entry_size(entry) - block * BLOCK_SIZE)
        number = entry * BLOCKS_PER_ENTRY + block
        if offset < _STAMP_SIZE:
            return self._stamp(number)[offset:length]
        at = self._window(number) * _WINDOW_STEP - _STAMP_SIZE
        return _POOL[at + offset : at + length]

    def _stamp(self, number: int) -> bytes:
        return self._seed + number.to_bytes(8)

    def _window(self, number: int) -> int:
        return (number * 101 + self._seed[0]) % _WINDOWS

    def _entry_size(self, entry: int) -> int:
        return min(ENTRY_SIZE, self._data - entry * ENTRY_SIZE)

    def _entry_crc(self, entry: int) -> int:
        whole, rest = divmod(self._entry_size(entry), BLOCK_SIZE)
        windows = _window_crcs()
        first = entry * BLOCKS_PER_ENTRY
        crc = 0
        for number in range(first, first + whole):
            crc = zlib.crc32(self._stamp(number), crc)
            crc = checksums.combine_crc32(crc, windows[self._window(number)], _WINDOW_SIZE)
        offset = 0
        while offset < rest:
            piece = self._block_piece(entry, whole, offset)
            crc = zlib.crc32(piece, crc)
            offset += len(piece)
        return crc

    def _name(self, entry: int) -> bytes:
        return f"{self._provider}/{entry:08d}.bin".encode()

    def _overhead(self, entries: int) -> int:
        """Bytes that are not entry data and not comment."""
        first_beyond = -(-_UNSET_32 // self._stride)
        fixed = entries * (self._header_size + 46 + len(self._name(0))) + 12 * max(0, entries - first_beyond)
        return fixed + SMALLEST_ZIP + (76 if self._zip64 else 0)

    def _fields(self, entry: int) -> bytes:
        """What a local header and a central one have in common: version needed … length of the name."""
        size = self._entry_size(entry)
        name = len(self._name(entry))
        return struct.pack(
            "<HHHHHIIIH", _VERSION, 0, 0, 0, _DOS_DATE, self._entry_crc(entry), size, size, name
        )

    def _local_header(self, entry: int) -> bytes:
        return b"PK\x03\x04" + self._fields(entry) + struct.pack("<H", 0) + self._name(entry)

    @functools.cached_property
    def _tail(self) -> bytes:
        """Central directory, end records and comment; all there is below the size of the smallest zip."""
        padding = self._digest.hexdigest().encode() * 8
        if self.size < SMALLEST_ZIP:
            return padding[: self.size]
        directory = b"".join(self._central_header(entry) for entry in range(self._entries))
        length, at, entries = len(directory), self._tail_at, self._entries
        end = b""
        if self._zip64:
            end = struct.pack(
                "<4sQHHIIQQQQ", b"PK\x06\x06", 44, _VERSION, _VERSION, 0, 0, entries, entries, length, at
            ) + struct.pack("<4sIQI", b"PK\x06\x07", 0, at + length, 1)
        comment = padding[: self.size - at - length - len(end) - SMALLEST_ZIP]
        count = min(entries, _UNSET_16)
        end += struct.pack(
            "<4sHHHHIIH", b"PK\x05\x06", 0, 0, count, count, length, min(at, _UNSET_32), len(comment)
        )
        return directory + end + comment

    def _central_header(self, entry: int) -> bytes:
        offset = entry * self._stride
        extra = struct.pack("<HHQ", 1, 8, offset) if offset >= _UNSET_32 else b""
        return (
            struct.pack("<4sH", b"PK\x01\x02", _VERSION)
            + self._fields(entry)
            + struct.pack("<HHHHII", len(extra), 0, 0, 0, 0, min(offset, _UNSET_32))
            + self._name(entry)
            + extra
        )
