"""The services of a local run in containers, as compose.yaml describes them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pymongo

from ..paths import ROOT
from .containers import ContainerService
from .kafka import create_topics
from .s3 import create_bucket
from .service import ServiceError

_COMMAND = ("docker", "compose", "--project-name", "site-backup", "--file", str(ROOT / "compose.yaml"))
_READY_SECONDS = 900.0  # the first start fetches and builds images


class Compose(ContainerService):
    """`docker compose up`: Kafka, MongoDB, SeaweedFS and the mock providers; their data stays in its volumes."""

    name = "compose"
    port_setting = "KAFKA_PORT"

    def __init__(self, folder: Path, ports: Mapping[str, int], sizes: str, host: str) -> None:
        super().__init__(folder, ports["KAFKA"], host)
        self._ports = ports
        self._sizes = sizes

    @property
    def address(self) -> str:
        return self.host

    @property
    def addresses(self) -> tuple[str, str, str]:
        """Of Kafka, MongoDB and S3."""
        return (
            f"{self.host}:{self._ports['KAFKA']}",
            f"mongodb://{self.host}:{self._ports['MONGO']}/?directConnection=true",
            f"http://{self.host}:{self._ports['S3']}",
        )

    def command(self) -> list[str]:
        if shutil.which("docker") is None:
            raise ServiceError(
                "SERVICES=compose needs Docker with its compose plugin; there is no docker command."
            )
        return [*_COMMAND, "up", "--no-color"]

    def stop(self) -> None:
        """As of any service; what a killed compose has left running is stopped too. Volumes stay."""
        if self.process is None:
            return
        super().stop()
        rest = [*_COMMAND, "stop"]
        subprocess.run(rest, env=self.environment(), capture_output=True, timeout=60, check=False)

    def environment(self) -> dict[str, str]:
        kept = ("DOCKER_HOST", "DOCKER_CONFIG")
        return {
            **super().environment(),
            **{name: os.environ[name] for name in kept if name in os.environ},
            **{f"{name}_PORT": str(port) for name, port in self._ports.items()},
            "BIND_ADDRESS": self.host,
            "MOCK_PROVIDERS_DEFAULT_SIZE": self._sizes,
        }

    def prepare(self) -> None:
        kafka, mongo, s3 = self.addresses
        create_topics(kafka)
        with pymongo.MongoClient[dict[str, Any]](mongo, serverSelectionTimeoutMS=1000) as client:
            client.admin.command("ping")
        create_bucket(s3)

    def wait_ready(self, limit: float = _READY_SECONDS) -> None:
        super().wait_ready(limit)
