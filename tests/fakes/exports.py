"""Export APIs in memory: ranged or not, of known size or not, and changing as a live site does."""

from dataclasses import dataclass
from types import TracebackType
from typing import Self

from sitebackup.domain.errors import ExportChanged, Permanent
from sitebackup.domain.provider import Provider
from sitebackup.domain.reason import Code
from sitebackup.ports.runtime import TimeLeft, no_deadline
from tests.fakes.faults import Fake, FaultInjector, no_faults, port_call
from tests.fakes.readers import BytesReader, some_bytes


@dataclass
class MemoryExport:
    """What a provider serves for a site, and how."""

    content: bytes
    revision: int = 1
    ranged: bool = True
    says_size: bool = True
    trickle: int | None = None
    """Bytes at most that one read gives."""

    @property
    def etag(self) -> str:
        return f'"{self.revision}"'

    def change(self) -> None:
        """The site goes on living: same size, other bytes."""
        self.revision += 1
        self.content = some_bytes(f"revision {self.revision}", len(self.content))


class MemoryExports(Fake):
    """Exports by provider name; they may change between two calls."""

    port = "exports"

    def __init__(self, faults: FaultInjector = no_faults) -> None:
        super().__init__(faults)
        self.by_provider: dict[str, MemoryExport] = {}

    @port_call
    def probe(
        self,
        provider: Provider,
        user_id: str,
        site_id: str,
        length: int | None,
        time_left: TimeLeft = no_deadline,
    ) -> "OpenExport":
        export = self._export(provider)
        size = len(export.content)
        if length and export.ranged and not size:
            return OpenExport(self, b"", size=0, length=0)  # no range of it can be satisfied: 416
        if length and export.ranged:
            data = export.content[:length]
            return OpenExport(
                self, data, size=size, length=len(data), validator=export.etag, trickle=export.trickle
            )
        told = size if export.says_size else None
        return OpenExport(self, export.content, size=told, length=told, trickle=export.trickle)

    @port_call
    def open_range(
        self,
        provider: Provider,
        user_id: str,
        site_id: str,
        start: int,
        length: int,
        validator: str,
        size: int,
        time_left: TimeLeft = no_deadline,
    ) -> "OpenExport":
        export = self._export(provider)
        if not export.ranged or (export.etag, len(export.content)) != (validator, size):
            raise ExportChanged
        data = export.content[start : start + length]
        assert len(data) == length, "a range beyond the export was asked for"
        return OpenExport(self, data, size=size, length=length, validator=validator)

    def _export(self, provider: Provider) -> MemoryExport:
        if provider.name not in self.by_provider:
            raise Permanent(Code.EXPORT_NOT_FOUND, f"{provider.name} answered 404.")
        return self.by_provider[provider.name]


class OpenExport:
    """The bytes as they were when it was opened."""

    end_proven = True

    def __init__(
        self,
        exports: MemoryExports,
        data: bytes,
        *,
        size: int | None,
        length: int | None,
        validator: str | None = None,
        trickle: int | None = None,
    ) -> None:
        self.size, self.length, self.validator = size, length, validator
        self._exports = exports
        self._reader = BytesReader(data)
        self._at_once = trickle or max(len(data), 1)

    @property
    def ranged(self) -> bool:
        return self.validator is not None

    def readinto(self, buffer: memoryview) -> int:
        return self._exports.call("read", lambda: self._reader.readinto(buffer[: self._at_once]))

    def close(self) -> None:
        return

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return
