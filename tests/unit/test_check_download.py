"""scripts/check_download.py, the check that does not depend on what a client does."""

import base64
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts/check_download.py"
CHECK = base64.b64encode(0xAE8B14860A799888.to_bytes(8, "big")).decode()
"""Of the bytes `123456789`: the algorithm's published check value (CRC-64/NVME)."""


def check(path: Path, checksum: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), str(path), checksum], capture_output=True, text=True, timeout=60
    )


def test_the_very_bytes_pass(tmp_path: Path) -> None:
    path = tmp_path / "site.zip"
    path.write_bytes(b"123456789")
    done = check(path, CHECK)
    assert (done.returncode, done.stdout) == (0, f"{path} (9 bytes) has the CRC64NVME {CHECK}.\n")


@pytest.mark.parametrize("content", [b"123456788", b"12345678", b""])
def test_other_bytes_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "site.zip"
    path.write_bytes(content)
    done = check(path, CHECK)
    assert done.returncode == 1
    assert f"not {CHECK}: download it again" in done.stderr


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    done = check(tmp_path / "site.zip", CHECK)
    assert done.returncode == 1
    assert "site.zip can't be read: No such file" in done.stderr
