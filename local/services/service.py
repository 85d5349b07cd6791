"""A server process of a local run: started on its port and data, seen to be ready, ended with all it started.

Each is one process group with its own port and data folder, and can be killed and started again on both. It
listens on loopback, or on another address of this machine for functions that run in containers.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from pathlib import Path

import botocore.exceptions
import pymongo.errors
from kafka.errors import KafkaError

from . import processes

HOST = "127.0.0.1"
NOT_READY = (
    OSError,
    KafkaError,
    pymongo.errors.PyMongoError,
    botocore.exceptions.BotoCoreError,
    botocore.exceptions.ClientError,
)


class ServiceError(Exception):
    """A service can't start; the message says why and what to do."""


class Service(ABC):
    """One server process. `start` returns at once, `wait_ready` when it serves."""

    name: str
    port_setting: str  # the environment variable that chooses the port of the local run

    def __init__(self, folder: Path, port: int | None = None, host: str = HOST) -> None:
        """`folder` holds the data and `<name>.log`; without a port a free one is taken."""
        self.host = host
        self.folder = folder.resolve()
        self.data = self.folder / self.name
        self.log = self.folder / f"{self.name}.log"
        self.port = port or processes.free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    @property
    @abstractmethod
    def address(self) -> str:
        """What a client is given."""

    @abstractmethod
    def command(self) -> list[str]:
        """Write the configuration and answer the command line."""

    @abstractmethod
    def prepare(self) -> None:
        """Create what the functions expect to be there; raises until the server is ready."""

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def pid(self) -> int | None:
        return self.process.pid if self.process and self.running else None

    def start(self) -> None:
        """Start the process, on the same port and data as before. Raises ServiceError.

        The process dies with the calling thread (see `processes.die_with_parent`).
        """
        if self.running:
            return
        if not processes.port_is_free(self.port, self.host):
            raise ServiceError(
                f"{self.name}: port {self.port} is in use. Stop what listens there "
                f"(`ss -ltnp 'sport = :{self.port}'` shows it) or set {self.port_setting} to another port."
            )
        self.data.mkdir(parents=True, exist_ok=True)
        self._log_start = processes.size(self.log)
        command, environment = self.command(), self.environment()
        with processes.interrupts_held():  # so that what was started is known
            self.process = processes.spawn(command, cwd=self.data, log=self.log, environment=environment)

    def environment(self) -> dict[str, str]:
        """Only what any program needs: credentials of the caller's shell must not reach the servers."""
        return {key: os.environ[key] for key in ("PATH", "HOME", "LANG", "TMPDIR") if key in os.environ}

    def wait_ready(self, limit: float = 60.0) -> None:
        """Wait up to `limit` seconds until the server serves. Raises ServiceError with its last output."""
        deadline = time.monotonic() + limit
        reason = "it did not listen"
        while True:
            if not self.running:
                code = self.process.returncode if self.process else None
                raise ServiceError(f"{self.name} ended with code {code} while starting:\n{self.last_lines()}")
            if _listens(self.host, self.port):
                try:
                    self.prepare()
                    return
                except NOT_READY as error:
                    reason = str(error)
            if time.monotonic() > deadline:
                raise ServiceError(
                    f"{self.name} was not ready within {limit:.0f} s ({reason}); "
                    f"its log is {self.log}:\n{self.last_lines()}"
                )
            time.sleep(0.05)

    def last_lines(self, count: int = 15) -> str:
        """The end of what it wrote since its start."""
        return processes.last_lines(self.log, count, self._log_start)

    def kill(self) -> None:
        """kill -9, as a crash would."""
        if self.process:
            processes.signal_group(self.process, signal.SIGKILL)
            self.process.wait()

    def terminate(self) -> None:
        """Ask it to end, so that several end at the same time; `stop` must follow."""
        if self.process:
            processes.signal_group(self.process, signal.SIGTERM)

    def stop(self) -> None:
        """SIGTERM, then SIGKILL after 10 s; nothing of it is left on return."""
        if self.process:
            processes.end(self.process)
            self.process = None


def _listens(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((host, port)) == 0


def installed_program(name: str) -> str:
    """The path of a program that came with the virtual environment. Raises ServiceError."""
    path = Path(sys.executable).with_name(name)
    if not path.exists():
        raise ServiceError(f"{name} is not installed beside {sys.executable}: run `make setup`.")
    return str(path)
