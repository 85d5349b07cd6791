"""A CRC64NVME as S3 writes it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sitebackup.domain.checksum import decode_crc, encode_crc


@given(st.integers(0, 2**64 - 1))
def test_a_checksum_that_is_written_is_read_back(crc: int) -> None:
    assert len(encode_crc(crc)) == 12
    assert decode_crc(encode_crc(crc)) == crc


@pytest.mark.parametrize("text", ["", "AAAA", "AAAAAAAAAAAAAAAA"])
def test_what_is_longer_or_shorter_than_eight_bytes_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a CRC64NVME"):
        decode_crc(text)
