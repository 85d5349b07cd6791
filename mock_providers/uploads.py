"""One upload of an import: its bytes, how far they are, and what became of them."""

import hashlib
from dataclasses import dataclass, field
from typing import Literal

from awscrt import checksums

from mock_providers.held import HeldBytes

State = Literal["receiving", "processing", "done", "failed"]
_READ_SIZE = 1 << 20


@dataclass(eq=False)
class Upload:
    """Bytes 0 to `offset` of `length` are there.

    `metadata` is the header as it was sent, `crc64nvme` the checksum of all bytes that it named. `locked` says that
    a request is writing, `gone` is the status that answers for the upload once it is forgotten.
    """

    id: str
    user_id: str
    restore_id: str | None
    crc64nvme: int | None
    metadata: str
    held: HeldBytes | None
    length: int
    offset: int = 0
    locked: bool = False
    gone: int | None = None
    state: State = "receiving"
    message: str | None = None
    _sha256: "hashlib._Hash" = field(default_factory=hashlib.sha256)
    _crc: int = 0

    @property
    def sha256(self) -> str:
        """Hex SHA-256 of the bytes that are there."""
        return self._sha256.hexdigest()

    @property
    def open(self) -> bool:
        """Whether something may still become of it."""
        return self.gone is None and self.state in ("receiving", "processing")

    def append(self, data: bytes) -> None:
        assert self.held is not None
        self.held.write(self.offset, data)
        self._digest(data)
        self.offset += len(data)

    def rewind(self, offset: int) -> None:
        """Drops the bytes behind offset. It reads those before it again, which takes its time."""
        assert self.held is not None
        self.offset = offset
        self.held.clear(offset)
        self._sha256, self._crc = hashlib.sha256(), 0
        for chunk in self.held.chunks(0, offset, _READ_SIZE):
            self._digest(chunk)

    def forget(self, code: int = 404) -> None:
        """From now on this status answers for it. An import that has begun goes on."""
        self.gone = code
        if self.state == "receiving":
            self.held = None

    def mismatch(self) -> str | None:
        """What is wrong with the bytes, if they are not those that the metadata named."""
        if self.crc64nvme in (None, self._crc):
            return None
        return f"the bytes have the CRC64NVME {self._crc:016x}, not {self.crc64nvme:016x}"

    def end(self, state: Literal["done", "failed"], message: str | None = None) -> HeldBytes:
        """Settles what became of the import, and gives the bytes away."""
        assert self.held is not None
        held, self.held = self.held, None
        self.state, self.message = state, message
        return held

    def to_json(self) -> dict[str, object]:
        return {
            "id": self.id,
            "restoreId": self.restore_id,
            "offset": self.offset,
            "length": self.length,
            "state": self.state,
        }

    def _digest(self, data: bytes) -> None:
        self._sha256.update(data)
        self._crc = checksums.crc64nvme(data, self._crc)
