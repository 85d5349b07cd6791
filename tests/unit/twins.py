"""In-memory twins of the ports. The repository twin passes the contract suite of the real one.

Each call of a port goes through a `Gate`, where a test can let others run, crash the caller or spoil the answer.
"""

import base64
import hashlib
import struct
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import datetime
from threading import RLock
from types import TracebackType
from typing import Any, Protocol, Self

from awscrt import checksums

from sitebackup.adapters.exports import Export, Exports
from sitebackup.adapters.repository import DuplicateJob, Repository, differences, with_next_check
from sitebackup.adapters.source import Source
from sitebackup.adapters.storage import Storage, Versions
from sitebackup.adapters.time_limits import TimeLeft, no_deadline
from sitebackup.domain.errors import ExportChanged, InvalidPart, KeyTaken, NoSuchUpload, Permanent, Transient
from sitebackup.domain.events import TaskEvent
from sitebackup.domain.job import DeleteCause, Job, Part, PartWait, Status, StoredObject, Task
from sitebackup.domain.plan import Plan
from sitebackup.domain.provider import Provider
from sitebackup.domain.reason import Code


class Gate(Protocol):
    """Stands before and behind every call of a port."""

    def __call__[T](self, port: str, name: str, call: Callable[[], T], /) -> T: ...


def open_gate[T](port: str, name: str, call: Callable[[], T]) -> T:
    return call()


def crc_of(data: bytes) -> str:
    return base64.b64encode(struct.pack(">Q", checksums.crc64nvme(data))).decode()


class MemoryRepository(Repository):
    """Documents in dicts, under the real compare-and-set loop."""

    def __init__(self, gate: Gate = open_gate) -> None:
        self.jobs: dict[str, dict[str, Any]] = {}
        self.parts: dict[tuple[str, int], Part | PartWait] = {}
        self.gate = gate
        self._one_write = RLock()
        self.stored: Callable[[Job, Job], None] = lambda before, after: None
        """Told of every change that is stored."""

    def create_indexes(self) -> None:
        return

    def add(self, job: Job) -> None:
        def add() -> None:
            if job.id in self.jobs or self._clashes(job.to_document()):
                raise DuplicateJob
            self.jobs[job.id] = deepcopy(with_next_check(job).to_document())

        self.gate("repository", "add", add)

    def _clashes(self, new: Mapping[str, Any]) -> bool:
        def same(old: Mapping[str, Any], *names: str) -> bool:
            return all(new.get(name) is not None and new.get(name) == old.get(name) for name in names)

        return any(
            same(old, "userId", "siteId", "active") or same(old, "idempotencyKey")
            for old in self.jobs.values()
            if old["_id"] != new["_id"]
        )

    def _first(self, query: Mapping[str, Any]) -> Job | None:
        def first() -> Job | None:
            with self._one_write:  # nobody reads half of it
                for document in self.jobs.values():
                    if all(document.get(name) == value for name, value in query.items()):
                        return Job.from_document(deepcopy(document))
                return None

        return self.gate("repository", "get", first)

    def by_idempotency_key(self, key: str) -> Job | None:
        return self._first({"idempotencyKey": key})

    def version(self, job_id: str) -> int | None:
        job = self.get(job_id)
        return job.version if job else None

    def page(self, filters: Mapping[str, str], limit: int, before: str | None) -> list[Job]:
        found = [
            Job.from_document(deepcopy(document))
            for document in self.jobs.values()
            if all(document.get(name) == value for name, value in filters.items())
            and (before is None or document["_id"] < before)
        ]
        return sorted(found, key=lambda job: job.id, reverse=True)[:limit]

    def _has_newer_good(self, job: Job, provider: str) -> bool:
        def has_newer() -> bool:
            mine = _rank(job.tasks[provider])
            others = [Job.from_document(document) for document in self.jobs.values()]
            return any(
                _rank(other.tasks[provider]) > mine
                for other in others
                if (other.user_id, other.site_id, other.status) == (job.user_id, job.site_id, Status.DONE)
                and other.delete_cause is not DeleteCause.REQUESTED
                and other.removing_at is None
                and provider in other.tasks
            )

        return self.gate("repository", "has_newer_good", has_newer)

    def forget(self, job: Job) -> bool:
        def forget() -> bool:
            if self._version(job.id) != job.version:
                return False
            del self.jobs[job.id]
            return True

        return self.gate("repository", "forget", forget)

    def _due(self, field: str, now: datetime, limit: int) -> list[Job]:
        def due() -> list[Job]:
            due = [job for job in self.jobs.values() if field in job and job[field] <= now]
            due.sort(key=lambda job: job[field])
            return [Job.from_document(deepcopy(document)) for document in due[:limit]]

        return self.gate("repository", "due", due)

    def _claim(self, field: str, seen: Job, claimed: Job) -> Job | None:
        def claim() -> Job | None:
            if self._version(seen.id) != seen.version or (
                self.jobs[seen.id].get(field) != seen.to_document()[field]
            ):
                return None
            self.jobs[seen.id][field] = claimed.to_document()[field]
            return claimed

        return self.gate("repository", "claim", claim)

    def _version(self, job_id: str) -> int | None:
        return self.jobs[job_id].get("version", 1) if job_id in self.jobs else None

    def _replace(self, before: Job, after: Job) -> bool:
        def replace() -> bool:
            if self._version(before.id) != before.version:
                return False
            if self._clashes(after.to_document()):
                raise DuplicateJob
            changes, gone = differences(before.to_document(), after.to_document())
            document = self.jobs[before.id]
            for path, value in changes.items():
                _parent(document, path)[path.rpartition(".")[2]] = deepcopy(value)
            for path in gone:
                _parent(document, path).pop(path.rpartition(".")[2], None)
            self.stored(before, after)
            return True

        def at_once() -> bool:
            with self._one_write:
                return replace()

        return self.gate("repository", "replace", at_once)

    def save_part(self, upload_id: str, part: Part, now: datetime) -> None:
        self.gate("repository", "save_part", lambda: self.parts.update({(upload_id, part.number): part}))

    def save_wait(self, upload_id: str, number: int, wait: PartWait, now: datetime) -> None:
        def save() -> None:
            if not isinstance(self.parts.get((upload_id, number)), Part):
                self.parts[upload_id, number] = wait

        self.gate("repository", "save_wait", save)

    def end_waits(self, upload_id: str, numbers: Collection[int]) -> None:
        def end() -> None:
            for number in numbers:
                record = self.parts.get((upload_id, number))
                if isinstance(record, PartWait):
                    self.parts[upload_id, number] = record.replace(next_try_at=None)

        self.gate("repository", "end_waits", end)

    def lose_part(self, upload_id: str, number: int, wait: PartWait, now: datetime) -> None:
        self.gate("repository", "lose_part", lambda: self.parts.update({(upload_id, number): wait}))

    def done_parts(self, upload_id: str, numbers: range | None = None) -> list[Part]:
        def done() -> list[Part]:
            of_upload = sorted(key for key in self.parts if key[0] == upload_id)
            parts = [self.parts[key] for key in of_upload if numbers is None or key[1] in numbers]
            return [part for part in parts if isinstance(part, Part)]

        return self.gate("repository", "done_parts", done)

    def missing_parts(self, upload_id: str, numbers: range) -> dict[int, PartWait]:
        def missing() -> dict[int, PartWait]:
            records = {number: self.parts.get((upload_id, number), PartWait()) for number in numbers}
            return {number: record for number, record in records.items() if isinstance(record, PartWait)}

        return self.gate("repository", "missing_parts", missing)

    def which_done(self, parts: Collection[tuple[str, int]]) -> set[tuple[str, int]]:
        def done() -> set[tuple[str, int]]:
            return {part for part in parts if isinstance(self.parts.get(part), Part)}

        return self.gate("repository", "which_done", done)


def _rank(task: Task) -> tuple[bool, datetime]:
    """The higher, the rather it is the newest good: with members before without, then by time."""
    assert task.finished_at is not None
    empty = task.object is not None and task.object.members == 0
    return not empty, task.finished_at


def _parent(document: dict[str, Any], path: str) -> dict[str, Any]:
    for name in path.split(".")[:-1]:
        document = document.setdefault(name, {})
    return document


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


def some_bytes(seed: str, size: int) -> bytes:
    """Bytes that depend on the seed; no two of its blocks are alike."""
    blocks = (hashlib.sha256(f"{seed} {number}".encode()).digest() for number in range(size // 32 + 1))
    return b"".join(blocks)[:size]


class _OpenExport(Export):
    def __init__(
        self,
        gate: Gate,
        data: bytes,
        *,
        size: int | None,
        length: int | None,
        validator: str | None,
        trickle: int | None = None,
    ) -> None:
        self.size, self.length, self.validator, self.end_proven = size, length, validator, True
        self._gate = gate
        self._data = data
        self._trickle = trickle

    def readinto(self, buffer: memoryview) -> int:
        def read() -> int:
            count = min(len(buffer), len(self._data), self._trickle or len(self._data))
            buffer[:count] = self._data[:count]
            self._data = self._data[count:]
            return count

        return self._gate("exports", "read", read)

    def close(self) -> None:
        return

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return


class MemoryExports(Exports):
    """Exports by provider name; they may change between two calls."""

    def __init__(self, gate: Gate = open_gate) -> None:
        self.gate = gate
        self.sites: dict[str, MemoryExport] = {}

    def probe(
        self,
        provider: Provider,
        user_id: str,
        site_id: str,
        length: int | None,
        time_left: TimeLeft = no_deadline,
    ) -> Export:
        def probe() -> Export:
            site = self._site(provider)
            size = len(site.content)
            if length and site.ranged:
                data = site.content[:length]
                return _OpenExport(
                    self.gate, data, size=size, length=len(data), validator=site.etag, trickle=site.trickle
                )
            said = size if site.says_size else None
            return _OpenExport(self.gate, site.content, size=said, length=said, validator=None)

        return self.gate("exports", "probe", probe)

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
    ) -> Export:
        def open_range() -> Export:
            site = self._site(provider)
            if not site.ranged or (site.etag, len(site.content)) != (validator, size):
                raise ExportChanged
            data = site.content[start : start + length]
            assert len(data) == length
            return _OpenExport(self.gate, data, size=size, length=length, validator=validator)

        return self.gate("exports", "open_range", open_range)

    def _site(self, provider: Provider) -> MemoryExport:
        if provider.name not in self.sites:
            raise Permanent(Code.EXPORT_NOT_FOUND, f"{provider.name} answered 404.")
        return self.sites[provider.name]


class Held:
    """Bytes in memory as a source."""

    def __init__(self, data: memoryview) -> None:
        self._data = data

    def readinto(self, buffer: memoryview) -> int:
        """Copies what fits."""
        count = min(len(buffer), len(self._data))
        buffer[:count] = self._data[:count]
        self._data = self._data[count:]
        return count


@dataclass
class _OpenUpload:
    key: str
    parts: dict[int, tuple[bytes, str]] = field(default_factory=dict)


class MemoryStorage(Storage):
    """A versioned bucket. Every PUT of a part gets an ETag of its own, as under SSE-KMS."""

    def __init__(self, gate: Gate = open_gate, *, condition_first: bool = False) -> None:
        self.bucket = "backups"
        self.gate = gate
        self.uploads: dict[str, _OpenUpload] = {}
        self.versions: dict[str, list[tuple[str, bytes]]] = {}
        self.condition_first = condition_first
        """Whether Complete looks at If-None-Match before it looks for the upload; servers differ."""
        self.lies = 0
        """So many Completes answer 200 and make no object."""
        self._ids = 0

    def _new_id(self, prefix: str) -> str:
        self._ids += 1
        return f"{prefix}{self._ids}"

    def create_upload(self, key: str) -> str:
        def create() -> str:
            upload_id = self._new_id("u")
            self.uploads[upload_id] = _OpenUpload(key)
            return upload_id

        return self.gate("storage", "create_upload", create)

    def put_part(
        self,
        key: str,
        upload_id: str,
        number: int,
        source: Source,
        length: int,
        time_left: TimeLeft = no_deadline,
    ) -> Part:
        data = _read(source, length)

        def put() -> Part:
            etag = self._new_id("e")
            self._upload(key, upload_id).parts[number] = (data, etag)
            return Part(number=number, length=length, etag=etag, crc64nvme=crc_of(data))

        return self.gate("storage", "put_part", put)

    def put_held_part(
        self, key: str, upload_id: str, number: int, data: memoryview, time_left: TimeLeft = no_deadline
    ) -> Part:
        return self.put_part(key, upload_id, number, Held(data), len(data))

    def put_object(self, key: str, data: memoryview, time_left: TimeLeft = no_deadline) -> StoredObject:
        def put() -> StoredObject:
            return self._stored(key, *self._add_version(key, bytes(data)))

        return self.gate("storage", "put_object", put)

    def complete(
        self,
        key: str,
        upload_id: str,
        plan: Plan,
        parts: Sequence[Part],
        crc: str,
        time_left: TimeLeft = no_deadline,
    ) -> None:
        def complete() -> None:
            if self.condition_first and self.versions.get(key):
                raise KeyTaken
            upload = self._upload(key, upload_id)
            if self.versions.get(key):
                raise KeyTaken
            held = {number: etag for number, (_, etag) in upload.parts.items()}
            if any(held.get(part.number) != part.etag for part in parts):
                raise InvalidPart
            data = b"".join(upload.parts[part.number][0] for part in parts)
            assert crc_of(data) == crc, "the combined checksum is not that of the object"
            assert len(data) == plan.size
            if self.lies:
                self.lies -= 1
                return
            del self.uploads[upload_id]
            self._add_version(key, data)

        self.gate("storage", "complete", complete)

    def head(self, key: str, version_id: str | None = None) -> StoredObject | None:
        def head() -> StoredObject | None:
            found = self.versions.get(key, [])
            if version_id:
                found = [version for version in found if version[0] == version_id]
            return self._stored(key, *found[-1]) if found else None

        return self.gate("storage", "head", head)

    def read(self, stored: StoredObject, start: int, length: int) -> bytes:
        def read() -> bytes:
            data = dict(self.versions.get(stored.key, [])).get(stored.version_id or "")
            if data is None:
                raise Transient("The object is not there.")
            assert 0 <= start < start + length <= len(data)
            return data[start : start + length]

        return self.gate("storage", "read", read)

    def part_etags(self, key: str, upload_id: str) -> dict[int, tuple[int, str]]:
        def etags() -> dict[int, tuple[int, str]]:
            parts = self._upload(key, upload_id).parts
            return {number: (len(data), etag) for number, (data, etag) in parts.items()}

        return self.gate("storage", "part_etags", etags)

    def has_upload(self, key: str, upload_id: str) -> bool:
        return self.gate("storage", "has_upload", lambda: upload_id in self.uploads)

    def abort(self, key: str, upload_id: str) -> None:
        self.gate("storage", "abort", lambda: self.uploads.pop(upload_id, None))

    def at_key(self, key: str) -> Versions:
        def at_key() -> Versions:
            uploads = [upload_id for upload_id, upload in self.uploads.items() if upload.key == key]
            return Versions(uploads, [version_id for version_id, _ in self.versions.get(key, [])])

        return self.gate("storage", "at_key", at_key)

    def delete_version(self, key: str, version_id: str) -> None:
        def delete() -> None:
            self.versions[key] = [
                version for version in self.versions.get(key, []) if version[0] != version_id
            ]

        self.gate("storage", "delete_version", delete)

    def _upload(self, key: str, upload_id: str) -> _OpenUpload:
        if upload_id not in self.uploads:
            raise NoSuchUpload
        assert self.uploads[upload_id].key == key
        return self.uploads[upload_id]

    def _add_version(self, key: str, data: bytes) -> tuple[str, bytes]:
        version = (self._new_id("v"), data)
        self.versions.setdefault(key, []).append(version)
        return version

    def _stored(self, key: str, version_id: str, data: bytes) -> StoredObject:
        return StoredObject(
            bucket=self.bucket,
            key=key,
            size=len(data),
            checksum_crc64nvme=crc_of(data),
            version_id=version_id,
        )


def _read(source: Source, length: int) -> bytes:
    data = bytearray(length)
    filled = 0
    while filled < length:
        count = source.readinto(memoryview(data)[filled:])
        if count == 0:
            raise Transient(f"The export ended after {filled} of {length} bytes.")
        filled += count
    return bytes(data)


class MemoryBus:
    """A bag of events that were emitted."""

    def __init__(self, gate: Gate = open_gate) -> None:
        self.gate = gate
        self.bag: list[TaskEvent] = []

    def emit(self, events: Sequence[TaskEvent]) -> None:
        if events:
            self.gate("bus", "emit", lambda: self.bag.extend(events))

    def drain(self) -> Iterator[TaskEvent]:
        """Every event, oldest first, and those that are emitted meanwhile."""
        while self.bag:
            yield self.bag.pop(0)
