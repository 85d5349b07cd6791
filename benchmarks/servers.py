"""The servers of the benchmarks: processes on loopback, started afresh for each measurement where that matters."""

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests

from local.services.processes import die_with_parent, free_port
from local.services.s3 import BUCKET, S3, create_bucket

ROOT = Path(__file__).parents[1]
VOLUMES = 12


class Tls:
    """A certificate for 127.0.0.1 that is its own authority."""

    def __init__(self, folder: Path) -> None:
        self.certificate, self.key = folder / "certificate.pem", folder / "key.pem"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
             "-keyout", self.key, "-out", self.certificate, "-days", "2", "-subj", "/CN=loopback",
             "-addext", "subjectAltName=IP:127.0.0.1"],
            check=True, capture_output=True, timeout=30,
        )  # fmt: skip


@contextmanager
def module(name: str, *arguments: object) -> Iterator[int]:
    """Runs `python -m benchmarks.<name>`; the port of a free one stands where an argument is `PORT`."""
    port = free_port()
    command = [sys.executable, "-m", f"benchmarks.{name}"]
    command += [str(port if argument == "PORT" else argument) for argument in arguments]
    process = subprocess.Popen(command, cwd=ROOT, preexec_fn=die_with_parent)
    try:
        _wait(port, process)
        yield port
    finally:
        process.terminate()
        process.wait(10)


class SecureS3(S3):
    """SeaweedFS with an https port beside the plain one."""

    def __init__(self, folder: Path, tls: Tls) -> None:
        super().__init__(folder)
        self.tls = tls
        self.https_port = free_port()

    def command(self) -> list[str]:
        return [
            *super().command(),
            f"-s3.port.https={self.https_port}",
            f"-s3.cert.file={self.tls.certificate}",
            f"-s3.key.file={self.tls.key}",
        ]


@contextmanager
def seaweed(folder: Path, tls: Tls | None = None) -> Iterator[str]:
    """A fresh SeaweedFS with the bucket; yields its endpoint. Its data is gone afterwards."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    server = SecureS3(folder, tls) if tls else S3(folder)
    try:
        server.start()
        server.wait_ready()
        _grow(server)
        if isinstance(server, SecureS3):
            create_bucket(server.address)
            yield f"https://127.0.0.1:{server.https_port}"
        else:
            yield server.address
    finally:
        server.kill()  # it would wait for idle connections, and what it holds is not looked at
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _grow(server: S3) -> None:
    """Makes the volumes that an export needs: made while it is written, they hold its writers up for a second."""
    master = f"http://{server.host}:{server.internal_ports['master.port']}"
    grown = requests.get(
        f"{master}/vol/grow", params={"collection": BUCKET, "count": str(VOLUMES)}, timeout=30
    )
    grown.raise_for_status()


def _wait(port: int, process: subprocess.Popen[bytes]) -> None:
    limit = time.monotonic() + 20
    while process.poll() is None and time.monotonic() < limit:
        with socket.socket() as probe:
            probe.settimeout(1)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise RuntimeError(f"no server on port {port}")
