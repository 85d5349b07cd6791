"""The mock providers as a service of the local run."""

from __future__ import annotations

import sys
from pathlib import Path

from ..paths import ROOT
from .service import HOST, Service


class MockProviders(Service):
    """The export APIs of the providers `site` and `db`."""

    name = "providers"
    port_setting = "PROVIDERS_PORT"

    def __init__(self, folder: Path, port: int, sizes: str, host: str = HOST) -> None:
        super().__init__(folder, port, host)
        self._sizes = sizes

    @property
    def address(self) -> str:
        return f"http://{self.host}:{self.port}"

    def environment(self) -> dict[str, str]:
        return {**super().environment(), "PYTHONPATH": str(ROOT)}

    def command(self) -> list[str]:
        sizes = ["--default-size", self._sizes] if self._sizes else []
        return [
            *(sys.executable, "-m", "mock_providers", "--host", self.host, "--port", str(self.port)),
            *sizes,
        ]

    def prepare(self) -> None:
        """Nothing: it serves as soon as it listens."""
