"""One suite for every ObjectStorage: uploads, objects, and what is read of them.

The servers are in tests/contract/s3_servers.py.
"""

import secrets
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
from awscrt import checksums
from botocore.exceptions import ClientError

from local.services import processes
from local.services.s3 import BUCKET
from sitebackup.adapters.s3.storage import S3Storage
from sitebackup.domain.checksum import encode_crc
from sitebackup.domain.errors import InvalidPart, NoSuchUpload, ObjectExists, Permanent, Transient
from sitebackup.domain.job import Part, StoredObject
from sitebackup.domain.plan import MIB, Plan, plan_parts
from sitebackup.ports.storage import ObjectStorage
from sitebackup.transfer.checksums import combine_crcs
from tests.contract.s3_servers import S3Server, Server
from tests.fakes.readers import BytesReader

PART = 5 * MIB
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
