"""Bits that flip behind S3's back: in the files of SeaweedFS."""

import struct
from pathlib import Path

from awscrt import checksums


def flip_on_disk(folder: Path, chunk: bytes, at: int) -> None:
    """Flips a bit in the server's own file of a chunk that it stores, and mends the server's checksum of the chunk.

    SeaweedFS keeps a CRC-32C some bytes behind the chunk, rotated and with a constant added (as LevelDB masks it).
    With the wrong one it gives no byte of the chunk.
    """
    flipped = chunk[:at] + bytes([chunk[at] ^ 1]) + chunk[at + 1 :]
    for path in folder.rglob("*.dat"):
        data = path.read_bytes()
        start = data.find(chunk)
        if start < 0:
            continue
        end = start + len(chunk)
        for spelled in (lambda crc: crc, _masked):
            known = data.find(struct.pack(">I", spelled(checksums.crc32c(chunk))), end, end + 64)
            if known >= 0:
                with path.open("r+b") as file:
                    file.seek(start + at)
                    file.write(flipped[at : at + 1])
                    file.seek(known)
                    file.write(struct.pack(">I", spelled(checksums.crc32c(flipped))))
                return
    raise AssertionError("the server keeps the chunk in another way")


def _masked(crc: int) -> int:
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
