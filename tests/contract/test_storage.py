"""One suite for every ObjectStorage and its DownloadLinks: what they promise, and which server keeps which promise.

SeaweedFS is the server of the local run; versitygw is a gateway written in Go, independent of it. moto confirms no
checksum of a body with a trailer, which the storage rightly takes for a failure: it is held to the rest. The fake of
the simulation is held to the suite in both orders in which servers check the condition of a Complete.
"""

import os
import secrets
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
import pytest
import requests
from awscrt import checksums
from botocore.config import Config
from botocore.exceptions import ClientError
from moto import mock_aws

from local.aws_account import ACCESS_KEY, REGION, SECRET_KEY
from local.services import processes
from local.services.s3 import BUCKET
from sitebackup import bootstrap
from sitebackup.adapters.s3.links import S3Links, Signer, signer
from sitebackup.adapters.s3.storage import S3Storage
from sitebackup.domain.checksum import encode_crc
from sitebackup.domain.errors import InvalidPart, NoSuchUpload, ObjectExists, Permanent, Transient
from sitebackup.domain.job import Part, StoredObject
from sitebackup.domain.lock import Lock, LockMode
from sitebackup.domain.plan import MIB, Plan, plan_parts
from sitebackup.ports import DownloadLinks, ObjectStorage, Place
from sitebackup.transfer.checksums import combine_crcs
from tests.fakes.links import MemoryLinks
from tests.fakes.readers import BytesReader
from tests.fakes.storage import MemoryStorage

PART = 5 * MIB
type Found = tuple[str, str, int]
"""Key, version and size."""
VERSITYGW = Path(os.environ.get("VERSITYGW", "~/.cache/sitebackup-tools/versitygw")).expanduser()


@dataclass(frozen=True)
class Server:
    """What stores objects, and what it does not model."""

    name: str
    lacks: dict[str, str] = field(default_factory=dict)
    """A reason by feature."""

    def needs(self, feature: str) -> None:
        """Skips the test if the server lacks it."""
        if feature in self.lacks:
            pytest.skip(f"{self.name}: {self.lacks[feature]}")

    def storage(self) -> ObjectStorage:
        raise NotImplementedError

    def client(self) -> Any:
        """Another client than the storage. Skips the test if there can't be one."""
        raise NotImplementedError

    def links(self) -> DownloadLinks:
        raise NotImplementedError

    def place(self, key: str, data: bytes) -> str:
        """The version of an object that the storage did not write."""
        raise NotImplementedError

    def read(self, key: str, version_id: str | None = None) -> bytes:
        """The newest version, or the one named."""
        raise NotImplementedError


@dataclass(frozen=True)
class S3Server(Server):
    url: str | None = None
    """None for what answers inside of boto3."""

    def storage(self) -> S3Storage:
        return S3Storage(self.client(), BUCKET)

    def client(self) -> Any:
        return boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name=REGION,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            config=Config(
                s3={"addressing_style": "path"},
                connect_timeout=5,
                read_timeout=20,
                retries={"total_max_attempts": 1},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )

    def links(self) -> S3Links:
        def as_client() -> Signer:
            return signer(
                BUCKET,
                self.url,
                region_name=REGION,
                aws_access_key_id=ACCESS_KEY,
                aws_secret_access_key=SECRET_KEY,
            )

        return S3Links(as_client, BUCKET, bootstrap.now)

    def place(self, key: str, data: bytes) -> str:
        return str(self.client().put_object(Bucket=BUCKET, Key=key, Body=data)["VersionId"])

    def read(self, key: str, version_id: str | None = None) -> bytes:
        version = {"VersionId": version_id} if version_id else {}
        body: bytes = self.client().get_object(Bucket=BUCKET, Key=key, **version)["Body"].read()
        return body


@dataclass(frozen=True)
class FakeServer(Server):
    memory: MemoryStorage = field(default_factory=MemoryStorage)

    def storage(self) -> MemoryStorage:
        return self.memory

    def client(self) -> Any:
        pytest.skip(f"{self.name}: it is reached through the port alone")

    def links(self) -> MemoryLinks:
        return MemoryLinks(bootstrap.now)

    def place(self, key: str, data: bytes) -> str:
        return self.memory.add_version(key, data)

    def read(self, key: str, version_id: str | None = None) -> bytes:
        versions = self.memory.versions[key]
        return versions[version_id or list(versions)[-1]]


@contextmanager
def moto() -> Iterator[S3Server]:
    with mock_aws():
        yield S3Server("moto", MOTO_LACKS)


@contextmanager
def versitygw(folder: Path) -> Iterator[S3Server]:
    if not VERSITYGW.is_file():
        pytest.skip(
            "versitygw is not there: `GOBIN=~/.cache/sitebackup-tools go install "
            "github.com/versity/versitygw/cmd/versitygw@latest`, or name it in VERSITYGW"
        )
    data, versions, port = folder / "data", folder / "versions", processes.free_port()
    data.mkdir()
    versions.mkdir()
    process = subprocess.Popen(
        [
            *(str(VERSITYGW), "--port", f"127.0.0.1:{port}", "--region", REGION, "--quiet"),
            *("--access", ACCESS_KEY, "--secret", SECRET_KEY),
            *("posix", "--versioning-dir", str(versions), str(data)),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        limit = time.monotonic() + 20
        while process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert time.monotonic() < limit, "versitygw does not listen"
            time.sleep(0.02)
        assert process.poll() is None, "versitygw ended at once"
        yield S3Server("versitygw", VERSITYGW_LACKS, f"http://127.0.0.1:{port}")
    finally:
        process.terminate()
        process.wait(10)


SEAWEEDFS_LACKS = {
    "replaced parts": "now and then it goes on showing the part that was replaced",
}
MOTO_LACKS = {
    "signatures": "it checks no signature of a link, nor when it ends",
    "checksums": "it checks no CRC64NVME",
    "locks": "it fails when it is asked for the retention of a version that has none",
    "trailers": "it confirms no checksum of a body with a trailer",
    "places": "it passes over the first version behind a key that is not there",
}
VERSITYGW_LACKS = {
    "repeated removal": "it refuses the id of a version that is gone",
}


@pytest.fixture(scope="module", params=["SeaweedFS", "versitygw", "moto", "fake", "fake, condition first"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if request.param.startswith("fake"):
        yield FakeServer(
            request.param, memory=MemoryStorage(condition_first=request.param == "fake, condition first")
        )
        return
    if request.param == "SeaweedFS":
        yield S3Server("SeaweedFS", SEAWEEDFS_LACKS, request.getfixturevalue("s3").address)
        return
    started = moto() if request.param == "moto" else versitygw(tmp_path_factory.mktemp("versitygw"))
    with started as found:
        client = found.client()
        client.create_bucket(Bucket=BUCKET, ObjectLockEnabledForBucket=True)
        client.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
        yield found


@pytest.fixture
def storage(server: Server) -> ObjectStorage:
    return server.storage()


@pytest.fixture
def writing(server: Server, storage: ObjectStorage) -> ObjectStorage:
    """The storage, for tests that write through it."""
    server.needs("trailers")
    return storage


@pytest.fixture
def key() -> str:
    return f"u/s/{uuid4().hex[:24]}/site.zip"


DATA = secrets.token_bytes(2 * PART + 4321)
PLAN = plan_parts(len(DATA), PART, '"1"')
CRC = encode_crc(checksums.crc64nvme(DATA))


def put_parts(
    storage: ObjectStorage, key: str, upload_id: str, data: bytes = DATA, plan: Plan = PLAN
) -> list[Part]:
    return [
        storage.put_part(key, upload_id, part.number, BytesReader(data[part.start : part.end]), part.length)
        for part in map(plan.part, range(1, plan.parts + 1))
    ]


def test_parts_become_an_object_with_the_checksum_of_the_whole(
    server: Server, writing: ObjectStorage, key: str
) -> None:
    upload_id = writing.create_upload(key)
    parts = put_parts(writing, key, upload_id)
    assert writing.head(key) is None
    assert {part.crc64nvme for part in parts} == {
        encode_crc(checksums.crc64nvme(DATA[one.start : one.end])) for one in map(PLAN.part, range(1, 4))
    }
    assert combine_crcs(parts) == CRC
    writing.complete(key, upload_id, PLAN, parts, CRC)
    stored = writing.head(key)
    assert stored is not None
    assert (stored.size, stored.checksum_crc64nvme) == (len(DATA), CRC)
    assert stored.version_id
    assert writing.head(key, stored.version_id) == stored
    assert server.read(key) == DATA
    assert writing.at_key(key) == ([], [stored.version_id])


def test_a_completion_that_is_repeated_tells_that_it_worked(
    server: Server, writing: ObjectStorage, key: str
) -> None:
    upload_id = writing.create_upload(key)
    parts = put_parts(writing, key, upload_id)
    writing.complete(key, upload_id, PLAN, parts, CRC)
    stored = writing.head(key)
    with suppress(NoSuchUpload, ObjectExists):  # servers differ; AWS goes on answering 200 for a while
        writing.complete(key, upload_id, PLAN, parts, CRC)
    assert writing.head(key) == stored
    assert writing.at_key(key).versions == [stored.version_id if stored else None]


def test_a_completion_never_covers_an_object(server: Server, writing: ObjectStorage, key: str) -> None:
    first = writing.put_object(key, memoryview(b"first"))
    upload_id = writing.create_upload(key)
    parts = put_parts(writing, key, upload_id)
    with pytest.raises(ObjectExists):
        writing.complete(key, upload_id, PLAN, parts, CRC)
    assert writing.head(key) == first
    writing.delete_version(key, first.version_id or "")
    writing.complete(key, upload_id, PLAN, parts, CRC)
    assert server.read(key) == DATA


def test_a_completion_of_an_aborted_upload_beside_an_object_makes_nothing(
    writing: ObjectStorage, key: str
) -> None:
    """Whatever the answer is: only a HEAD tells what is there."""
    upload_id = writing.create_upload(key)
    parts = put_parts(writing, key, upload_id)
    writing.abort(key, upload_id)
    first = writing.put_object(key, memoryview(b"first"))
    with suppress(ObjectExists, NoSuchUpload):  # versitygw answers 200
        writing.complete(key, upload_id, PLAN, parts, CRC)
    assert writing.head(key) == first


def test_what_is_put_once_is_never_replaced(server: Server, writing: ObjectStorage, key: str) -> None:
    writing.put_once(key, b"first")
    for again in (b"first", b"other"):
        with pytest.raises(ObjectExists):
            writing.put_once(key, again)
    assert server.read(key) == b"first"
    (version,) = writing.at_key(key).versions
    writing.delete_version(key, version)
    writing.put_once(key, b"other")
    assert server.read(key) == b"other"


def test_of_many_that_put_an_object_once_at_the_same_time_one_does(
    server: Server, writing: ObjectStorage, key: str
) -> None:
    def put(number: int) -> int:
        try:
            writing.put_once(key, str(number).encode())
        except (ObjectExists, Transient):
            return 0
        return number

    numbers = range(1, 9)
    with ThreadPoolExecutor(len(numbers)) as pool:
        (winner,) = filter(None, pool.map(put, numbers))
    assert server.read(key) == str(winner).encode()
    assert len(writing.at_key(key).versions) == 1


def test_a_wrong_checksum_of_the_whole_makes_no_object(
    server: Server, writing: ObjectStorage, key: str
) -> None:
    upload_id = writing.create_upload(key)
    parts = put_parts(writing, key, upload_id)
    with pytest.raises((Transient, InvalidPart, Permanent)):
        writing.complete(key, upload_id, PLAN, parts, encode_crc(1))
    assert writing.head(key) is None


def test_a_wrong_etag_of_a_part_makes_no_object(writing: ObjectStorage, key: str) -> None:
    upload_id = writing.create_upload(key)
    parts = put_parts(writing, key, upload_id)
    wrong = [parts[0].replace(etag=parts[1].etag), *parts[1:]]
    with pytest.raises(InvalidPart):
        writing.complete(key, upload_id, PLAN, wrong, CRC)
    assert writing.head(key) is None
    writing.complete(key, upload_id, PLAN, parts, CRC)


def test_a_part_that_is_not_there_makes_no_object(writing: ObjectStorage, key: str) -> None:
    upload_id = writing.create_upload(key)
    parts = put_parts(writing, key, upload_id)
    other = writing.create_upload(key)
    for part in parts[:2]:
        writing.put_part(key, other, part.number, BytesReader(DATA[:PART]), PART)
    with pytest.raises(InvalidPart):
        writing.complete(key, other, PLAN, parts, CRC)
    assert writing.head(key) is None


def test_s3_shows_which_parts_it_holds(writing: ObjectStorage, key: str) -> None:
    upload_id = writing.create_upload(key)
    parts = put_parts(writing, key, upload_id)
    held = {part.number: (part.length, part.etag) for part in parts}
    assert writing.part_etags(key, upload_id) == held


def test_s3_shows_the_part_that_came_last(server: Server, writing: ObjectStorage, key: str) -> None:
    server.needs("replaced parts")
    upload_id = writing.create_upload(key)
    writing.put_part(key, upload_id, 1, BytesReader(DATA[:PART]), PART)
    again = writing.put_part(key, upload_id, 1, BytesReader(DATA[PART : 2 * PART]), PART)
    assert writing.part_etags(key, upload_id) == {1: (PART, again.etag)}


def test_parts_that_are_held_in_memory_become_the_same_object(
    server: Server, storage: ObjectStorage, key: str
) -> None:
    server.needs("checksums")
    upload_id = storage.create_upload(key)
    parts = [
        storage.put_held_part(key, upload_id, part.number, memoryview(DATA)[part.start : part.end])
        for part in map(PLAN.part, range(1, PLAN.parts + 1))
    ]
    assert combine_crcs(parts) == CRC
    storage.complete(key, upload_id, PLAN, parts, CRC)
    assert server.read(key) == DATA


def test_an_upload_that_is_gone_is_told(writing: ObjectStorage, key: str) -> None:
    upload_id = writing.create_upload(key)
    parts = put_parts(writing, key, upload_id)
    writing.abort(key, upload_id)
    writing.abort(key, upload_id)
    with pytest.raises(NoSuchUpload):
        writing.put_part(key, upload_id, 1, BytesReader(b"x"), 1)
    with pytest.raises(NoSuchUpload):
        writing.complete(key, upload_id, PLAN, parts, CRC)
    with pytest.raises(NoSuchUpload):
        writing.part_etags(key, upload_id)
    assert writing.at_key(key) == ([], [])


@pytest.mark.parametrize("size", [0, 1, 70_000])
def test_a_small_object_is_stored_in_one_go(
    server: Server, writing: ObjectStorage, key: str, size: int
) -> None:
    data = secrets.token_bytes(size)
    stored = writing.put_object(key, memoryview(data))
    assert (stored.size, stored.checksum_crc64nvme) == (size, encode_crc(checksums.crc64nvme(data)))
    assert writing.head(key, stored.version_id) == stored
    assert server.read(key, stored.version_id) == data


def test_the_coding_of_the_transfer_is_not_stored(server: Server, writing: ObjectStorage, key: str) -> None:
    writing.put_object(key, memoryview(DATA))
    head = server.client().head_object(Bucket=BUCKET, Key=key)
    assert "ContentEncoding" not in head


def test_a_source_that_ends_early_stores_nothing(writing: ObjectStorage, key: str) -> None:
    upload_id = writing.create_upload(key)
    with pytest.raises(Transient):
        writing.put_part(key, upload_id, 1, BytesReader(b"x" * 999), 1000)
    assert writing.part_etags(key, upload_id) == {}
    assert writing.head(key) is None


@pytest.mark.parametrize("of_part", [True, False])
def test_a_wrong_checksum_of_the_bytes_is_refused(
    server: Server, storage: ObjectStorage, key: str, of_part: bool
) -> None:
    server.needs("checksums")
    to: dict[str, Any] = {"Bucket": BUCKET, "Key": key}
    if of_part:
        to |= {"UploadId": storage.create_upload(key), "PartNumber": 1}
    client = server.client()
    put = client.upload_part if of_part else client.put_object
    with pytest.raises(ClientError):
        put(**to, Body=b"x", ChecksumCRC64NVME=encode_crc(1))
    assert storage.head(key) is None


def test_a_range_of_one_version_is_read(server: Server, storage: ObjectStorage, key: str) -> None:
    first = server.place(key, DATA)
    server.place(key, b"another")
    stored = storage.head(key, first)
    assert stored is not None
    for start, length in ((0, 1), (0, 64), (len(DATA) - 70_000, 70_000), (len(DATA) - 1, 1), (0, len(DATA))):
        assert storage.read(stored, start, length) == DATA[start : start + length]


def test_bytes_that_are_not_there_are_not_read(server: Server, storage: ObjectStorage, key: str) -> None:
    server.place(key, b"some")
    stored = storage.head(key)
    assert stored is not None
    for start, length in ((0, 5), (3, 2), (4, 1)):
        with pytest.raises(Transient):
            storage.read(stored, start, length)
    storage.delete_version(key, stored.version_id or "")
    with pytest.raises(Transient, match=r"^S3 does not show the object that it took\.$"):
        storage.read(stored, 0, 4)


def test_only_what_is_at_exactly_this_key_is_listed(server: Server, storage: ObjectStorage, key: str) -> None:
    neighbours = [f"{key}.old", key.removesuffix(".zip"), f"{key[:-8]}site2.zip"]
    for neighbour in neighbours:
        server.place(neighbour, b"x")
        storage.create_upload(neighbour)
    assert storage.at_key(key) == ([], [])
    upload_ids = [storage.create_upload(key) for _ in range(3)]
    placed = [server.place(key, data) for data in (b"1", b"2", b"2")]
    found = storage.at_key(key)
    assert sorted(found.uploads) == sorted(upload_ids)
    assert sorted(found.versions) == sorted(placed)
    for neighbour in neighbours:
        at = storage.at_key(neighbour)
        assert (len(at.uploads), len(at.versions)) == (1, 1)


def test_a_version_is_removed_alone_and_for_good(server: Server, storage: ObjectStorage, key: str) -> None:
    first = server.place(key, b"first")
    second = server.place(key, b"second")
    storage.delete_version(key, second)
    assert (found := storage.head(key))
    assert (found.version_id, found.size) == (first, 5)
    assert storage.head(key, second) is None
    assert server.read(key) == b"first"
    storage.delete_version(key, first)
    assert storage.head(key) is None
    assert storage.at_key(key) == ([], [])


def test_a_version_may_be_removed_twice(server: Server, storage: ObjectStorage, key: str) -> None:
    server.needs("repeated removal")
    version_id = server.place(key, b"first")
    storage.delete_version(key, version_id)
    storage.delete_version(key, version_id)
    assert storage.at_key(key) == ([], [])


def test_delete_markers_are_listed_and_can_be_removed(
    server: Server, storage: ObjectStorage, key: str
) -> None:
    placed = server.place(key, b"first")
    server.client().delete_object(Bucket=BUCKET, Key=key)
    found = storage.at_key(key)
    assert len(found.versions) == 2
    for version_id in found.versions:
        if version_id != placed:
            storage.delete_version(key, version_id)
    assert (still := storage.head(key))
    assert still.version_id == placed


def test_a_bucket_that_is_not_there_is_refused(server: Server, key: str) -> None:
    storage = S3Storage(server.client(), "nobody-has-made-it")
    with pytest.raises(Permanent, match=r"^S3 answered NoSuchBucket\.$"):
        storage.create_upload(key)
    server.needs("trailers")
    with pytest.raises(Permanent, match=r"^S3 answered NoSuchBucket\.$"):
        storage.put_object(key, memoryview(b"x"))


def test_a_server_that_is_down_is_tried_again_later(key: str) -> None:
    storage = S3Server("none", url=f"http://127.0.0.1:{processes.free_port()}").storage()
    with pytest.raises(Transient):
        storage.create_upload(key)
    with pytest.raises(Transient):
        storage.put_object(key, memoryview(b"x"))
    with pytest.raises(Transient):
        storage.head(key)
    with pytest.raises(Transient):
        storage.read(StoredObject(bucket=BUCKET, key=key, size=1, checksum_crc64nvme=""), 0, 1)


# --- links

QUARTER_HOUR = timedelta(minutes=15)
LIMIT_SECONDS = 20.0


@pytest.fixture
def links(server: Server) -> DownloadLinks:
    return server.links()


def placed(server: Server, storage: ObjectStorage, key: str, data: bytes = DATA) -> StoredObject:
    """An object as it is recorded, under which another one lies at its key."""
    stored = storage.head(key, server.place(key, data))
    assert stored is not None
    server.place(key, b"another")
    return stored


def listed(storage: ObjectStorage, prefix: str, after: Place | None = None, limit: int = 1000) -> list[Found]:
    """What all pages show: (key, version, size)."""
    found: list[Found] = []
    while True:
        page = storage.list_versions(prefix, after, limit)
        assert len(page.versions) <= limit
        found += [(one.key, one.version_id, one.size) for one in page.versions]
        if page.next is None:
            return found
        assert page.next != after, "it goes round and round"
        after = page.next


@pytest.fixture
def family(server: Server, key: str) -> list[Found]:
    """Three keys with one, five and two versions, as they are listed: by key, and the newest version first."""
    folder = key.rpartition("/")[0]
    return [
        (one, server.place(one, bytes(size)), size)
        for name, sizes in (("a.zip", [1]), ("b", [9, 8, 7, 6, 5]), ("b.zip", [3, 2]))
        for one in [f"{folder}/{name}"]
        for size in sizes
    ]


@pytest.mark.parametrize("limit", [2, 3, 8, 1000])
def test_versions_are_listed_by_key_and_the_newest_first_however_large_the_pages_are(
    storage: ObjectStorage, family: list[Found], limit: int
) -> None:
    placed: dict[str, list[Found]] = {}
    for found in family:
        placed.setdefault(found[0], []).insert(0, found)
    expected = [one for versions in placed.values() for one in versions]
    folder = family[0][0].rpartition("/")[0]
    assert listed(storage, f"{folder}/", limit=limit) == expected
    assert listed(storage, f"{folder}/b.z", limit=limit) == expected[-2:]
    assert listed(storage, f"{folder}/c", limit=limit) == []


def test_a_listing_goes_on_behind_a_key_at_which_nothing_lies(
    server: Server, storage: ObjectStorage, family: list[Found]
) -> None:
    server.needs("places")
    folder = family[0][0].rpartition("/")[0]
    for after, first in ((folder, 0), (f"{folder}/a0", 1), (f"{folder}/b-", 6), (f"{folder}0", 8)):
        found = listed(storage, f"{folder.rpartition('/')[0]}/", Place(after), limit=3)
        assert [one for one in found if one[0].startswith(f"{folder}/")] == [
            *family[first:1],
            *reversed(family[max(first, 1) : 6]),
            *reversed(family[max(first, 6) :]),
        ], after


def test_a_listing_tells_which_version_is_answered_and_when_each_was_stored(
    storage: ObjectStorage, family: list[Found]
) -> None:
    folder = family[0][0].rpartition("/")[0]
    versions = storage.list_versions(f"{folder}/b.zip").versions
    assert [(one.version_id, one.is_latest) for one in versions] == [
        (family[7][1], True),
        (family[6][1], False),
    ]
    for one in versions:
        assert abs(bootstrap.now() - one.stored_at) < timedelta(seconds=LIMIT_SECONDS)


def test_a_delete_marker_is_listed_as_what_it_is(
    server: Server, storage: ObjectStorage, family: list[Found]
) -> None:
    key, version, _ = family[0]
    server.client().delete_object(Bucket=BUCKET, Key=key)
    stored, marker = storage.list_versions(key).versions
    assert (stored.version_id, stored.is_marker, stored.is_latest) == (version, False, False)
    assert (marker.key, marker.is_marker, marker.is_latest, marker.size) == (key, True, True, 0)


def in_an_hour() -> datetime:
    return (bootstrap.now() + timedelta(hours=1)).replace(microsecond=0)


def test_a_locked_version_can_not_be_removed_and_its_lock_not_shortened(
    server: Server, storage: ObjectStorage, key: str
) -> None:
    server.needs("locks")
    version, until = server.place(key, b"locked"), in_an_hour()
    assert storage.held(key, version) == (None, False)
    lock = Lock(mode=LockMode.COMPLIANCE, until=until)
    for _ in range(2):
        storage.lock(key, version, lock)
        assert storage.held(key, version) == (until, False)
    with pytest.raises(Permanent, match="AccessDenied"):
        storage.delete_version(key, version)
    with pytest.raises((Permanent, Transient)):
        storage.lock(key, version, lock.replace(until=until - timedelta(minutes=30)))
    longer = lock.replace(until=until + timedelta(minutes=1))
    storage.lock(key, version, longer)
    assert storage.held(key, version) == (longer.until, False)
    assert server.read(key, version) == b"locked"


def test_what_is_gone_can_not_be_locked_and_is_on_no_hold(
    server: Server, storage: ObjectStorage, key: str
) -> None:
    server.needs("locks")
    version = server.place(key, b"some")
    storage.delete_version(key, version)
    with pytest.raises(Permanent):
        storage.lock(key, version, Lock(mode=LockMode.GOVERNANCE, until=in_an_hour()))
    storage.set_legal_hold(key, version, False)
    assert storage.held(key, version) is None


def test_a_lock_ends_by_itself(server: Server, storage: ObjectStorage, key: str) -> None:
    version = server.place(key, b"locked for seconds")
    until = bootstrap.now().replace(microsecond=0) + timedelta(seconds=3)
    storage.lock(key, version, Lock(mode=LockMode.COMPLIANCE, until=until))
    while storage.at_key(key).versions:
        assert bootstrap.now() < until + timedelta(seconds=LIMIT_SECONDS), "it does not end"
        with suppress(Permanent):
            storage.delete_version(key, version)
        time.sleep(0.1)
    assert bootstrap.now() > until


def test_a_legal_hold_keeps_a_version_until_it_is_released(
    server: Server, storage: ObjectStorage, key: str
) -> None:
    server.needs("locks")
    version = server.place(key, b"evidence")
    storage.set_legal_hold(key, version, True)
    assert storage.held(key, version) == (None, True)
    with pytest.raises(Permanent, match="AccessDenied"):
        storage.delete_version(key, version)
    for _ in range(2):
        storage.set_legal_hold(key, version, False)
    assert storage.held(key, version) == (None, False)
    storage.delete_version(key, version)
    assert storage.held(key, version) is None


def fetch(url: str, **headers: str) -> requests.Response:
    """As a client does that knows nothing but the link."""
    return requests.get(url, headers=headers, timeout=LIMIT_SECONDS)


def a_link(server: Server, links: DownloadLinks, stored: StoredObject) -> str:
    if isinstance(server, FakeServer):
        pytest.skip(f"{server.name}: its links lead nowhere")
    return links.link(stored, "backup.zip", bootstrap.now() + QUARTER_HOUR).url


def test_a_link_ends_when_it_is_to_and_names_the_version(
    server: Server, storage: ObjectStorage, links: DownloadLinks, key: str
) -> None:
    stored = placed(server, storage, key, b"some")
    until = bootstrap.now() + QUARTER_HOUR
    link = links.link(stored, "backup.zip", until)
    assert until - timedelta(seconds=5) < link.expires_at <= until
    assert link.expires_at.microsecond == 0
    assert str(stored.version_id) in link.url
    assert link.url not in repr(link), "it must not get into a log by accident"


def test_whoever_has_a_link_gets_the_bytes_of_its_version_alone(
    server: Server, storage: ObjectStorage, links: DownloadLinks, key: str
) -> None:
    stored = placed(server, storage, key)
    answer = fetch(a_link(server, links, stored))
    assert answer.status_code == 200
    assert answer.content == DATA
    assert answer.headers["Content-Disposition"] == 'attachment; filename="backup.zip"'
    assert answer.headers["Content-Type"] == "application/zip"
    assert answer.headers["Cache-Control"] == "no-store"
    of_any_format = fetch(a_link(server, links, stored.replace(format="any")))
    assert of_any_format.headers["Content-Type"] == "application/octet-stream"


def test_a_download_that_broke_off_goes_on_where_it_broke(
    server: Server, storage: ObjectStorage, links: DownloadLinks, key: str
) -> None:
    url = a_link(server, links, placed(server, storage, key))
    begun = fetch(url, Range=f"bytes=0-{PART - 1}")
    assert (begun.status_code, begun.content) == (206, DATA[:PART])
    rest = fetch(url, **{"Range": f"bytes={PART}-", "If-Match": begun.headers["ETag"]})
    assert rest.status_code == 206
    assert begun.content + rest.content == DATA
    assert rest.headers["ETag"] == begun.headers["ETag"]
    other = fetch(url, **{"Range": f"bytes={PART}-", "If-Match": '"another"'})
    assert other.status_code == 412


def test_a_link_to_a_version_that_is_gone_gives_nothing_else_that_lies_there(
    server: Server, storage: ObjectStorage, links: DownloadLinks, key: str
) -> None:
    stored = placed(server, storage, key)
    url = a_link(server, links, stored)
    storage.delete_version(key, stored.version_id or "")
    assert fetch(url).status_code == 404
    assert storage.head(key) is not None


def test_a_link_can_be_used_for_nothing_but_what_it_was_signed_for(
    server: Server, storage: ObjectStorage, links: DownloadLinks, key: str
) -> None:
    stored = placed(server, storage, key)
    url = a_link(server, links, stored)
    server.needs("signatures")
    other = storage.head(key)
    assert other is not None
    assert fetch(url.replace(str(stored.version_id), str(other.version_id))).status_code == 403
    assert fetch(url.replace("backup.zip", "another.zip")).status_code == 403
    assert fetch(url.partition("?")[0]).status_code == 403
    assert requests.delete(url, timeout=LIMIT_SECONDS).status_code == 403
    assert fetch(url).content == DATA


def test_a_link_that_has_ended_is_refused(
    server: Server, storage: ObjectStorage, links: DownloadLinks, key: str
) -> None:
    stored = placed(server, storage, key, b"some")
    if isinstance(server, FakeServer):
        pytest.skip(f"{server.name}: its links lead nowhere")
    server.needs("signatures")
    link = links.link(stored, "backup.zip", bootstrap.now() + timedelta(seconds=3))
    assert fetch(link.url).status_code == 200
    answers = {200}
    while 403 not in answers:
        assert bootstrap.now() < link.expires_at + timedelta(seconds=LIMIT_SECONDS), "it does not end"
        answers.add(fetch(link.url).status_code)
        time.sleep(0.1)
    assert answers == {200, 403}
    assert bootstrap.now() > link.expires_at
