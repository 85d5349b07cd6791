"""CRC64NVME, S3's full-object checksum.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity.html
"""

from collections.abc import Sequence
from typing import cast

from awscrt import checksums

from ..domain.checksum import decode_crc, encode_crc
from ..domain.job import Part


def extend_crc(crc64nvme: str, data: bytes | memoryview) -> str:
    """The checksum of what has this one, followed by `data`."""
    return encode_crc(checksums.crc64nvme(cast(bytes, data), decode_crc(crc64nvme)))


def combine_crcs(parts: Sequence[Part]) -> str:
    """The checksum of the whole object from those of its parts, in order; no byte is read again."""
    crc = 0
    for part in parts:
        crc = checksums.combine_crc64nvme(crc, decode_crc(part.crc64nvme), part.length)
    return encode_crc(crc)
