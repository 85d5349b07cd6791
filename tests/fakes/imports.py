"""Import APIs in memory, as the contract suite of the ImportApi asks for them."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from sitebackup.domain.errors import NoSuchImport, Permanent, TaskEnded, Transient
from sitebackup.domain.provider import Provider
from sitebackup.domain.reason import Code
from sitebackup.ports.providers import ImportOffer, ImportOutcome, ImportTarget
from sitebackup.ports.runtime import TimeLeft, no_deadline
from tests.fakes.faults import Fake, FaultInjector, no_faults, port_call
from tests.fakes.storage import crc_of


@dataclass
class MemoryImportApi:
    """How the import API of one provider behaves."""

    max_size: int | None = None
    refuses: Transient | Permanent | None = None
    """What every call raises."""
    fails: str | None = None
    """What is told of imports, which then fail."""
    processing: int = 0
    """So many outcomes are told as `processing` before the true one."""
    takes: int | None = None
    """Bytes at most of the next slice; behind them its connection breaks."""
    off_by: int = 0
    """Offsets are told wrong by so many bytes."""
    seconds: int = 0
    """So long a slice is on its way: of one that is broken off, the bytes of the seconds before have arrived."""


@dataclass
class MemoryUpload:
    """Bytes on their way."""

    provider: str
    target: ImportTarget
    size: int
    data: bytearray = field(default_factory=bytearray)
    state: Literal["receiving", "done", "failed"] = "receiving"
    message: str | None = None


class MemoryImports(Fake):
    """An import API for each provider, and what was imported."""

    port = "imports"

    def __init__(self, faults: FaultInjector = no_faults) -> None:
        super().__init__(faults)
        self.by_provider: dict[str, MemoryImportApi] = {}
        self.uploads: dict[str, MemoryUpload] = {}
        """Those that can be asked for, by URL, oldest first."""
        self.imported: dict[tuple[str, str, str], bytes] = {}
        """The content of (provider, userId, siteId)."""
        self.carried_out = Counter[tuple[str, str]]()
        """Imports by (restoreId, provider)."""
        self.whole = Counter[tuple[str, str]]()
        """Uploads that have got all their bytes, by (restoreId, provider)."""
        self.received = Counter[str]()
        """Bytes that have come, by URL of the upload, also those that were lost again."""
        self.mistakes: list[str] = []
        """What was refused because the caller was wrong, and not because of a race or a fault."""
        self.on_created: Callable[[ImportTarget, str], None] = lambda target, url: None
        """Told of every upload that is created, with its URL."""
        self.on_received: Callable[[str, MemoryUpload], None] = lambda url, upload: None
        """Told of every upload that has just got bytes, with its URL."""
        self.wait: Callable[[int], None] = lambda seconds: None
        """Lets so many seconds pass."""
        self._told: dict[str, MemoryUpload] = {}
        """By URL, those that can only be asked for their outcome."""
        self._urls = 0

    def forget(self, url: str, *, tells_outcome: bool = False) -> None:
        """The API knows the upload no longer; an import that has begun goes on. No call of the port."""
        upload = self.uploads.pop(url, None)
        if upload is not None and tells_outcome:
            self._told[url] = upload

    def lose_bytes(self, url: str, count: int) -> None:
        """The upload falls back by so many bytes; no call of the port."""
        upload = self.uploads[url]
        assert upload.state == "receiving"
        del upload.data[max(0, len(upload.data) - count) :]

    @port_call
    def offer(
        self, provider: Provider, user_id: str, site_id: str, time_left: TimeLeft = no_deadline
    ) -> ImportOffer:
        return ImportOffer(self._api(provider, time_left).max_size)

    @port_call
    def create(
        self, provider: Provider, target: ImportTarget, size: int, time_left: TimeLeft = no_deadline
    ) -> str:
        api = self._api(provider, time_left)
        if api.max_size is not None and size > api.max_size:
            raise Permanent(Code.IMPORT_TOO_LARGE, f"{provider.name} takes no import of {size} bytes.")
        self._urls += 1
        url = f"memory://{provider.name}/{self._urls}"
        upload = self.uploads[url] = MemoryUpload(provider.name, target, size)
        self.on_created(target, url)
        self._import_if_whole(api, upload)
        return url

    @port_call
    def offset(self, provider: Provider, url: str, time_left: TimeLeft = no_deadline) -> int:
        return len(self._upload(provider, url, time_left).data) + self._api(provider).off_by

    def send(
        self,
        provider: Provider,
        url: str,
        offset: int,
        data: memoryview,
        time_left: TimeLeft = no_deadline,
        goes_on: Callable[[], bool] = lambda: True,
    ) -> int:
        """What is on its way arrives, though the sender's time be over by then."""
        seconds = self._api(provider, time_left).seconds
        for second in range(seconds):  # outside of the call: whether it goes on may be one of another port
            if time_left() <= 0 or not goes_on():
                self._break_off(url, offset, data[: len(data) * second // seconds])
                self._api(provider, time_left)
                raise TaskEnded
            self.wait(1)
        if not goes_on():
            raise TaskEnded
        return self.call("send", lambda: self._send(provider, url, offset, data))

    def _break_off(self, url: str, offset: int, sent: memoryview) -> None:
        upload = self.uploads.get(url)
        if upload is not None and len(upload.data) == offset and sent:
            self._take(url, upload, bytes(sent))

    def _take(self, url: str, upload: MemoryUpload, data: bytes) -> None:
        upload.data += data
        self.received[url] += len(data)
        self.on_received(url, upload)

    def _send(self, provider: Provider, url: str, offset: int, data: memoryview) -> int:
        api, upload = self._api(provider), self._upload(provider, url)
        if offset != len(upload.data):
            raise Transient(f"{provider.name} answered 409.")
        if offset + len(data) > upload.size:
            self.mistakes.append("more than was named")
            raise Permanent(Code.IMPORT_REFUSED, f"{provider.name} answered 413.")
        taken, api.takes = bytes(data[: api.takes]), None
        self._take(url, upload, taken)
        if len(taken) < len(data):
            raise Transient(f"{provider.name} can't be reached.")
        self._import_if_whole(api, upload)
        return len(upload.data) + api.off_by

    @port_call
    def outcome(self, provider: Provider, url: str, time_left: TimeLeft = no_deadline) -> ImportOutcome:
        api = self._api(provider, time_left)
        upload = self._told.get(url) or self._upload(provider, url)
        if upload.state == "receiving":
            return ImportOutcome("processing")
        if api.processing:
            api.processing -= 1
            return ImportOutcome("processing")
        return ImportOutcome(upload.state, upload.message)

    @port_call
    def delete(self, provider: Provider, url: str, time_left: TimeLeft = no_deadline) -> None:
        self._api(provider, time_left)
        self.forget(url)

    def _api(self, provider: Provider, time_left: TimeLeft = no_deadline) -> MemoryImportApi:
        if time_left() <= 0:
            raise Transient(f"{provider.name} was too slow.")
        api = self.by_provider.get(provider.name)
        if api is None:
            raise Permanent(Code.IMPORT_NOT_FOUND, f"{provider.name} answered 404.")
        if api.refuses is not None:
            raise api.refuses
        return api

    def _upload(self, provider: Provider, url: str, time_left: TimeLeft = no_deadline) -> MemoryUpload:
        self._api(provider, time_left)
        upload = self.uploads.get(url)
        if upload is None:
            raise NoSuchImport
        assert upload.provider == provider.name, "an upload is used at another provider"
        return upload

    def _import_if_whole(self, api: MemoryImportApi, upload: MemoryUpload) -> None:
        """Once for each (restoreId, provider): a second upload of one that is done changes nothing."""
        target = upload.target
        if len(upload.data) < upload.size or upload.state != "receiving":
            return
        self.whole[target.restore_id, upload.provider] += 1
        if crc_of(bytes(upload.data)) != target.crc64nvme:
            upload.state, upload.message = "failed", "the bytes have another CRC64NVME"
        elif self.carried_out[target.restore_id, upload.provider]:
            upload.state = "done"
        elif api.fails is not None:
            upload.state, upload.message = "failed", api.fails
        else:
            upload.state = "done"
            self.carried_out[target.restore_id, upload.provider] += 1
            self.imported[upload.provider, target.user_id, target.site_id] = bytes(upload.data)
