"""tusd, the reference server of tus, as a real process."""

import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from local.services.processes import free_port
from tests.integration.mock_server import ROOT, wait_until

TUSD = "github.com/tus/tusd/v2/cmd/tusd@v2.9.1"
TUSD_FOLDER = ROOT / ".local/tusd-2.9.1"
BUILD_SECONDS = 240
MAX_SIZE = 64 << 20


def build_tusd() -> Path:
    """The server's program, built on first use and kept under .local/. Skips the test if it can't be built."""
    program = TUSD_FOLDER / "tusd"
    TUSD_FOLDER.mkdir(parents=True, exist_ok=True)
    with (TUSD_FOLDER / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another process of the same test run may be building it
        if program.is_file():
            return program
        if shutil.which("go") is None:
            pytest.skip("tusd can't be built: there is no go command")
        command = ["go", "install", TUSD]
        environment = {**os.environ, "GOBIN": str(TUSD_FOLDER)}
        try:
            subprocess.run(
                command,
                env=environment,
                cwd=TUSD_FOLDER,
                capture_output=True,
                text=True,
                timeout=BUILD_SECONDS,
                check=True,
            )
        except subprocess.TimeoutExpired:
            pytest.skip(
                f"tusd was not built within {BUILD_SECONDS} s; the next run goes on with what is built"
            )
        except subprocess.CalledProcessError as error:
            pytest.skip(f"tusd can't be built: {error.stderr[-500:]}")
    return program


@contextmanager
def serve_tusd(program: Path, folder: Path) -> Iterator[str]:
    """Yields the URL at which uploads are created."""
    port = free_port()
    command = [str(program), "-host", "127.0.0.1", "-port", str(port), "-upload-dir", str(folder)]
    with (folder.parent / "tusd.log").open("wb") as log:
        process = subprocess.Popen([*command, "-max-size", str(MAX_SIZE)], stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}/files/"

    def listens() -> bool:
        try:
            return requests.options(url, timeout=5).ok
        except requests.ConnectionError:
            return False

    try:
        wait_until(lambda: process.poll() is not None or listens())
        assert process.poll() is None
        yield url
    finally:
        process.terminate()
        process.wait(10)
