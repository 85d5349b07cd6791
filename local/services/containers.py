"""What a local run needs to know of a Docker engine, and servers that own containers."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
from contextlib import suppress

import psutil

from . import processes
from .service import Service, ServiceError

STOP_SECONDS = 15.0
"""How long a server may take to end its containers by itself."""


class ContainerService(Service):
    """A server that ends its containers at the first SIGTERM; a second one could make it leave them behind."""

    _ending = False

    def start(self) -> None:
        self._ending = False
        super().start()

    def terminate(self) -> None:
        if self.process and self.running and not self._ending:
            self._ending = True
            self.process.terminate()

    def stop(self) -> None:
        """SIGTERM, then SIGKILL after STOP_SECONDS."""
        if self.process is None:
            return
        self.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_SECONDS)
        processes.signal_group(self.process, signal.SIGKILL)
        self.process.wait()
        self.process = None


def docker_missing() -> str | None:
    """Why no container can be run here, or None."""
    docker = shutil.which("docker")
    if docker is None:
        return "there is no docker command here"
    answer = subprocess.run(
        [docker, "version", "--format", "{{.Server.Version}}"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return None if answer.returncode == 0 else f"no Docker engine answers: {answer.stderr.strip()}"


def bridge_address() -> str:
    """The address of this machine that it and its containers both reach (Linux). Raises ServiceError."""
    name = '{{index .Options "com.docker.network.bridge.name"}}'
    inspect = ["docker", "network", "inspect", "bridge", "--format", name]
    try:
        done = subprocess.run(inspect, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise ServiceError(f"Docker does not tell its bridge network: {error}") from error
    for address in psutil.net_if_addrs().get(done.stdout.strip(), []):
        if address.family == socket.AF_INET:
            return address.address
    raise ServiceError("Docker's bridge network has no address on this machine: is it Docker Desktop?")
