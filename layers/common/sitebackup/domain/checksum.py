"""How S3 writes a CRC64NVME: base64 of 8 bytes, big endian."""

import base64
import struct

CRC_OF_NOTHING = "AAAAAAAAAAA="
"""Of no bytes."""


def encode_crc(crc: int) -> str:
    """As S3 writes it."""
    return base64.b64encode(struct.pack(">Q", crc)).decode()


def decode_crc(text: str) -> int:
    """The number. Raises ValueError if it is no such checksum."""
    data = base64.b64decode(text)
    if len(data) != 8:
        raise ValueError(f"{text!r} is not a CRC64NVME")
    return int.from_bytes(data, "big")
