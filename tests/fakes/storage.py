"""A versioned bucket in memory, as the contract suite of the ObjectStorage asks for it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from awscrt import checksums

from sitebackup.domain.checksum import encode_crc
from sitebackup.domain.errors import InvalidPart, NoSuchUpload, ObjectExists, Permanent, Transient
from sitebackup.domain.job import FoundVersion, Part, StoredObject
from sitebackup.domain.lock import HeldVersion, Lock
from sitebackup.domain.plan import Plan
from sitebackup.domain.reason import Code
from sitebackup.ports.runtime import Reader, TimeLeft, no_deadline
from sitebackup.ports.storage import MAX_LISTED, KeyContents, ListingPlace, VersionPage
from tests.fakes.faults import Fake, FaultInjector, no_faults, port_call
from tests.fakes.readers import BytesReader

BUCKET = "backups"


def crc_of(data: bytes) -> str:
    """The CRC64NVME as S3 writes it."""
    return encode_crc(checksums.crc64nvme(data))


@dataclass
class OpenUpload:
    """A multipart upload: (bytes, ETag) by number of its parts."""

    key: str
    parts: dict[int, tuple[bytes, str]] = field(default_factory=dict)

    def lose_first_part(self) -> None:
        """As S3 is not supposed to."""
        self.parts.pop(min(self.parts, default=0), None)


class MemoryStorage(Fake):
    """Every PUT of a part gets an ETag of its own, as under SSE-KMS."""

    port = "storage"

    def __init__(self, faults: FaultInjector = no_faults, *, condition_first: bool = False) -> None:
        super().__init__(faults)
        self.uploads: dict[str, OpenUpload] = {}
        self.versions: dict[str, dict[str, bytes]] = {}
        """By key, the object's versions by id, oldest first."""
        self.condition_first = condition_first
        """Whether Complete looks at If-None-Match before it looks for the upload; servers differ."""
        self.lies = 0
        """So many Completes answer 200 and make no object."""
        self.mistakes: list[str] = []
        """What was refused because the caller was wrong, and not because of a race or a fault."""
        self.on_removal: Callable[[str, str], None] = lambda key, version_id: None
        """Told of every version that is about to be removed."""
        self.now: Callable[[], datetime] = lambda: datetime.now(UTC)
        """By its clock versions are dated."""
        self._stored_at: dict[str, datetime] = {}
        self.held_versions: dict[tuple[str, str], HeldVersion] = {}
        """By key and version: what is locked or on legal hold, or was."""
        self._ids = 0

    def _new_id(self, prefix: str) -> str:
        self._ids += 1
        return f"{prefix}{self._ids}"

    @port_call
    def create_upload(self, key: str) -> str:
        upload_id = self._new_id("u")
        self.uploads[upload_id] = OpenUpload(key)
        return upload_id

    def put_part(
        self,
        key: str,
        upload_id: str,
        number: int,
        source: Reader,
        length: int,
        time_left: TimeLeft = no_deadline,
    ) -> Part:
        data = _read(source, length)

        def put() -> Part:
            etag = self._new_id("e")
            self._upload(key, upload_id).parts[number] = (data, etag)
            return Part(number=number, length=length, etag=etag, crc64nvme=crc_of(data))

        return self.call("put_part", put)

    def put_held_part(
        self, key: str, upload_id: str, number: int, data: memoryview, time_left: TimeLeft = no_deadline
    ) -> Part:
        return self.put_part(key, upload_id, number, BytesReader(data), len(data))

    @port_call
    def put_object(self, key: str, data: memoryview, time_left: TimeLeft = no_deadline) -> StoredObject:
        content = bytes(data)
        return _stored(key, self.add_version(key, content), content)

    @port_call
    def lock(self, key: str, version_id: str | None, lock: Lock) -> None:
        if version_id not in self.versions.get(key, {}):
            raise Permanent(Code.STORAGE_REFUSED, "S3 does not show the version any more.")
        if lock.until <= self.now():
            raise self._mistake("InvalidArgument")
        found = self.held_versions.get((key, version_id or ""), HeldVersion(None, False))
        if found.until and found.until > lock.until:
            raise Permanent(Code.STORAGE_REFUSED, "S3 answered AccessDenied.")
        self.held_versions[key, version_id or ""] = found._replace(until=lock.until)

    @port_call
    def set_legal_hold(self, key: str, version_id: str | None, on: bool) -> None:
        if version_id not in self.versions.get(key, {}):
            return
        found = self.held_versions.get((key, version_id or ""), HeldVersion(None, False))
        self.held_versions[key, version_id or ""] = found._replace(legal_hold=on)

    @port_call
    def held(self, key: str, version_id: str) -> HeldVersion | None:
        if version_id not in self.versions.get(key, {}):
            return None
        return self.held_versions.get((key, version_id), HeldVersion(None, False))

    @port_call
    def put_once(self, key: str, data: bytes, time_left: TimeLeft = no_deadline) -> str | None:
        if self.versions.get(key):
            raise ObjectExists
        return self.add_version(key, data)

    @port_call
    def complete(
        self,
        key: str,
        upload_id: str,
        plan: Plan,
        parts: Sequence[Part],
        crc64nvme: str,
        time_left: TimeLeft = no_deadline,
    ) -> None:
        if self.condition_first and self.versions.get(key):
            raise ObjectExists
        upload = self._upload(key, upload_id)
        if self.versions.get(key):
            raise ObjectExists
        held = {number: etag for number, (_, etag) in upload.parts.items()}
        if any(held.get(part.number) != part.etag for part in parts):
            raise InvalidPart
        data = b"".join(upload.parts[part.number][0] for part in parts)
        if (crc_of(data), len(data)) != (crc64nvme, plan.size):
            raise self._mistake("BadDigest")
        if self.lies:
            self.lies -= 1
            return
        del self.uploads[upload_id]
        self.add_version(key, data)

    @port_call
    def head(self, key: str, version_id: str | None = None) -> StoredObject | None:
        versions = self.versions.get(key, {})
        found = version_id or next(reversed(versions), "")
        return _stored(key, found, versions[found]) if found in versions else None

    @port_call
    def read(self, stored: StoredObject, start: int, length: int) -> bytes:
        data = self.versions.get(stored.key, {}).get(stored.version_id or "")
        if data is None:
            raise Transient("S3 does not show the object that it took.")
        if not 0 <= start < start + length <= len(data):
            raise self._mistake("InvalidRange")
        return data[start : start + length]

    @port_call
    def part_etags(self, key: str, upload_id: str) -> dict[int, tuple[int, str]]:
        parts = self._upload(key, upload_id).parts
        return {number: (len(data), etag) for number, (data, etag) in parts.items()}

    @port_call
    def has_upload(self, key: str, upload_id: str) -> bool:
        return upload_id in self.uploads

    @port_call
    def abort(self, key: str, upload_id: str) -> None:
        self.uploads.pop(upload_id, None)

    @port_call
    def at_key(self, key: str) -> KeyContents:
        uploads = [upload_id for upload_id, upload in self.uploads.items() if upload.key == key]
        return KeyContents(uploads, list(self.versions.get(key, {})))

    @port_call
    def list_versions(
        self, prefix: str, after: ListingPlace | None = None, limit: int = MAX_LISTED
    ) -> VersionPage:
        found = [
            FoundVersion(
                key=key,
                version_id=version_id,
                size=len(data),
                is_marker=False,
                is_latest=age == 0,
                stored_at=self._stored_at[version_id],
            )
            for key in sorted(self.versions)
            if key.startswith(prefix) and (after is None or key >= after.key)
            for age, (version_id, data) in enumerate(reversed(self.versions[key].items()))
        ]
        if after:
            at_key = [one.version_id for one in found if one.key == after.key]
            found = found[at_key.index(after.version_id) + 1 if after.version_id in at_key else len(at_key) :]
        page = found[:limit]
        more = len(found) > limit
        return VersionPage(page, ListingPlace(page[-1].key, page[-1].version_id) if more else None)

    @port_call
    def delete_version(self, key: str, version_id: str) -> None:
        held = self.held_versions.get((key, version_id))
        if held and (held.legal_hold or (held.until and held.until > self.now())):
            raise Permanent(Code.STORAGE_REFUSED, "S3 answered AccessDenied.")
        self.on_removal(key, version_id)
        self.versions.get(key, {}).pop(version_id, None)

    def add_version(self, key: str, data: bytes) -> str:
        """An object that somebody has put there; no call of the port."""
        version_id = self._new_id("v")
        self._stored_at[version_id] = self.now()
        self.versions.setdefault(key, {})[version_id] = data
        return version_id

    def _mistake(self, code: str) -> Transient:
        self.mistakes.append(code)
        return Transient(f"S3 answered {code}.")

    def _upload(self, key: str, upload_id: str) -> OpenUpload:
        if upload_id not in self.uploads:
            raise NoSuchUpload
        assert self.uploads[upload_id].key == key, "an upload is used at another's key"
        return self.uploads[upload_id]


def _stored(key: str, version_id: str, data: bytes) -> StoredObject:
    return StoredObject(
        bucket=BUCKET, key=key, size=len(data), checksum_crc64nvme=crc_of(data), version_id=version_id
    )


def _read(source: Reader, length: int) -> bytes:
    data = bytearray(length)
    filled = 0
    while filled < length:
        count = source.readinto(memoryview(data)[filled:])
        if count == 0:
            raise Transient(f"The export ended after {filled} of {length} bytes.")
        filled += count
    return bytes(data)
