"""Compares a file with the CRC64NVME of a backup, as the job shows it: `checksumCRC64NVME` of its task's `object`.

It needs awscrt and no more. The exit code is 0 only if they are equal.
"""

from __future__ import annotations

import argparse
import base64
import sys
from pathlib import Path

from awscrt import checksums

_CHUNK = 1024 * 1024


def main() -> int:
    """The command line; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("checksum", help="base64 of 8 bytes, such as kXQSBY0sbqU=")
    arguments = parser.parse_args()
    try:
        size, found = crc64nvme(arguments.file)
    except OSError as error:
        print(f"{arguments.file} can't be read: {error.strerror}", file=sys.stderr)
        return 1
    if found != arguments.checksum:
        print(
            f"{arguments.file} ({size} bytes) has the CRC64NVME {found}, not {arguments.checksum}: "
            "download it again.",
            file=sys.stderr,
        )
        return 1
    print(f"{arguments.file} ({size} bytes) has the CRC64NVME {found}.")
    return 0


def crc64nvme(path: Path) -> tuple[int, str]:
    """Size in bytes, and the checksum as S3 writes it. Raises OSError."""
    size, crc = 0, 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            size += len(chunk)
            crc = checksums.crc64nvme(chunk, crc)
    return size, base64.b64encode(crc.to_bytes(8, "big")).decode()


if __name__ == "__main__":
    sys.exit(main())
