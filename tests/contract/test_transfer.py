"""The way of the bytes: from an export into S3 in one pass, and nothing wrong ever stored."""

import os
import threading
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
import pytest
from awscrt import checksums
from botocore.config import Config

from local.aws_account import ACCESS_KEY, REGION, SECRET_KEY
from local.services.s3 import BUCKET
from local.services.service import Service
from sitebackup.adapters.s3 import put
from sitebackup.adapters.s3.put import BUFFER_BYTES
from sitebackup.adapters.s3.storage import S3Storage
from sitebackup.domain.checksum import encode_crc
from sitebackup.domain.errors import NoSuchUpload, Permanent, Transient
from sitebackup.domain.plan import MIB, plan_parts
from sitebackup.domain.reason import Code
from sitebackup.transfer.checksums import combine_crcs
from tests.contract import wire

SIZE = 6 * MIB + 12345
KEY = "u/s/j/a site+ü~(1).zip"


class Bytes:
    """A source that gives uneven pieces, as a network does."""

    def __init__(self, data: bytes) -> None:
        self._rest = memoryview(data)

    def readinto(self, buffer: memoryview) -> int:
        count = min(len(buffer), len(self._rest), 100_003)
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


class InStep:
    """A source that goes on only once the others have filled their buffers, too."""

    def __init__(self, data: bytes, barrier: threading.Barrier) -> None:
        self._rest = memoryview(data)
        self._barrier = barrier

    def readinto(self, buffer: memoryview) -> int:
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        self._barrier.wait(10)
        return count


class Zeros:
    def readinto(self, buffer: memoryview) -> int:
        return len(buffer)


def client(endpoint: str, **settings: Any) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name=REGION,
        aws_access_key_id=settings.pop("access_key", ACCESS_KEY),
        aws_secret_access_key=SECRET_KEY,
        config=Config(
            s3={"addressing_style": "path"},
            connect_timeout=5,
            read_timeout=10,
            retries={"total_max_attempts": 1},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
        **settings,
    )


def at(port: int, **settings: Any) -> S3Storage:
    return S3Storage(client(f"http://127.0.0.1:{port}", **settings), BUCKET)


@pytest.fixture
def storage(s3: Service) -> S3Storage:
    return S3Storage(client(s3.address), BUCKET)


@pytest.fixture
def data() -> bytes:
    return os.urandom(SIZE)


def flip(position: int) -> wire.Alter:
    """Flips a bit of the byte that comes at `position` of what clients send."""
    seen = 0

    def alter(data: bytes) -> bytes:
        nonlocal seen
        if seen <= position < seen + len(data):
            changed = bytearray(data)
            changed[position - seen] ^= 1
            data = bytes(changed)
        seen += len(data)
        return data

    return alter


def other_trailer(crc: str) -> wire.Alter:
    """Puts another checksum where the right one follows the body."""
    other = encode_crc(1).encode()
    return lambda data: data.replace(crc.encode(), other)


def cut(position: int) -> wire.Alter:
    seen = 0

    def alter(data: bytes) -> bytes:
        nonlocal seen
        seen += len(data)
        return data if seen < position else b""

    return alter


def crc_of(data: bytes) -> str:
    return encode_crc(checksums.crc64nvme(data))


# --- what is moved arrives


@pytest.mark.parametrize("length", [0, 1, BUFFER_BYTES, BUFFER_BYTES + 1, SIZE])
def test_an_object_arrives_as_it_was_read(storage: S3Storage, data: bytes, length: int) -> None:
    stored = storage.put_object(KEY, memoryview(data)[:length])
    assert (stored.size, stored.checksum_crc64nvme) == (length, crc_of(data[:length]))
    body = storage._client.get_object(Bucket=BUCKET, Key=KEY, VersionId=stored.version_id or "")["Body"]
    assert body.read() == data[:length]
    assert storage._client.head_object(Bucket=BUCKET, Key=KEY)["ContentType"] == "application/zip"


def test_parts_that_are_moved_at_once_share_no_buffer(storage: S3Storage) -> None:
    """Their checksums would not show it: they are made of what is in the buffer."""
    exports = [bytes([number]) * SIZE for number in range(3)]
    upload = storage.create_upload(KEY)
    for _ in range(2):  # the second time in buffers that were used before
        barrier = threading.Barrier(len(exports))

        def move(number: int, barrier: threading.Barrier = barrier) -> str:
            source = InStep(exports[number], barrier)
            return storage.put_part(KEY, upload, number + 1, source, SIZE).crc64nvme

        with ThreadPoolExecutor(len(exports)) as pool:
            assert list(pool.map(move, range(len(exports)))) == [crc_of(export) for export in exports]


def test_parts_arrive_and_make_the_object(storage: S3Storage, data: bytes) -> None:
    key = "u/s/j/parts ü.zip"
    plan = plan_parts(SIZE, 5 * MIB, '"v"')
    upload = storage.create_upload(key)
    source = Bytes(data)
    parts = [
        storage.put_part(key, upload, number, source, plan.part(number).length)
        for number in range(1, plan.parts + 1)
    ]
    assert storage.part_etags(key, upload) == {part.number: (part.length, part.etag) for part in parts}
    storage.complete(key, upload, plan, parts, combine_crcs(parts))
    stored = storage.head(key)
    assert stored is not None
    assert (stored.size, stored.checksum_crc64nvme) == (SIZE, crc_of(data))


def test_an_object_arrives_over_https(
    s3: Service, data: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tls, trusted = wire.certificate(tmp_path)
    monkeypatch.setenv("AWS_CA_BUNDLE", str(trusted))
    with wire.proxy(s3.port, tls=tls) as proxy:
        storage = S3Storage(client(f"https://127.0.0.1:{proxy.port}"), BUCKET)
        before = proxy.accepted
        for _ in range(3):
            stored = storage.put_object(KEY, memoryview(data))
        assert stored.checksum_crc64nvme == crc_of(data)
        assert proxy.accepted - before == 2  # one of the PUTs, one of boto3's for the HEADs


def test_https_needs_a_certificate_that_is_trusted(s3: Service, data: bytes, tmp_path: Path) -> None:
    tls, _ = wire.certificate(tmp_path)
    with wire.proxy(s3.port, tls=tls) as proxy:
        storage = S3Storage(client(f"https://127.0.0.1:{proxy.port}"), BUCKET)
        with pytest.raises(Transient, match="can't be reached"):
            storage.put_object(KEY, memoryview(data))


def test_memory_does_not_grow_with_the_part(storage: S3Storage) -> None:
    upload = storage.create_upload(KEY)
    storage.put_part(KEY, upload, 1, Zeros(), 1)
    tracemalloc.start()
    try:
        storage.put_part(KEY, upload, 2, Zeros(), 64 * MIB)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    storage.abort(KEY, upload)
    assert peak < 2 * MIB


def test_connections_are_used_again(s3: Service, data: bytes) -> None:
    with wire.proxy(s3.port) as proxy:
        storage = at(proxy.port)
        upload = storage.create_upload(KEY)
        for number in range(1, 6):
            storage.put_part(KEY, upload, number, Bytes(data), SIZE)
        assert proxy.accepted == 2  # boto3's and ours
        storage.abort(KEY, upload)


# --- what is wrong is not stored

type Spoil = Callable[[bytes], wire.Alter]
SPOILED: dict[str, Spoil] = {
    "a flipped bit": lambda data: flip(SIZE // 2),
    "another trailer": lambda data: other_trailer(crc_of(data)),
    "a cut connection": lambda data: cut(SIZE // 2),
}


@pytest.mark.parametrize("spoil", SPOILED.values(), ids=SPOILED.keys())
def test_a_spoiled_part_is_refused(s3: Service, storage: S3Storage, data: bytes, spoil: Spoil) -> None:
    upload = storage.create_upload(KEY)
    with wire.proxy(s3.port, spoil(data)) as proxy, pytest.raises(Transient):
        at(proxy.port).put_part(KEY, upload, 1, Bytes(data), SIZE)
    assert storage.part_etags(KEY, upload) == {}
    storage.abort(KEY, upload)


@pytest.mark.parametrize("spoil", SPOILED.values(), ids=SPOILED.keys())
def test_a_spoiled_object_is_refused(s3: Service, storage: S3Storage, data: bytes, spoil: Spoil) -> None:
    key = "u/s/j/spoiled.zip"
    with wire.proxy(s3.port, spoil(data)) as proxy, pytest.raises(Transient):
        at(proxy.port).put_object(key, memoryview(data))
    assert storage.head(key) is None


def test_a_short_source_stores_nothing(s3: Service, storage: S3Storage, data: bytes) -> None:
    upload = storage.create_upload(KEY)
    with wire.proxy(s3.port) as proxy:
        through = at(proxy.port)
        with pytest.raises(Transient, match=f"ended after {SIZE} of {SIZE + 1} bytes"):
            through.put_part(KEY, upload, 1, Bytes(data), SIZE + 1)
        assert storage.part_etags(KEY, upload) == {}
        assert through.put_part(KEY, upload, 1, Bytes(data), SIZE).crc64nvme == crc_of(data)
        assert proxy.accepted == 2  # the first was dropped
    storage.abort(KEY, upload)


def test_what_the_source_raises_comes_through_and_nothing_is_stored(storage: S3Storage, data: bytes) -> None:
    class Breaks(Bytes):
        def readinto(self, buffer: memoryview) -> int:
            if len(self._rest) < SIZE // 2:
                raise Permanent(Code.SIZE_LIMIT_EXCEEDED, "too long")
            return super().readinto(buffer)

    upload = storage.create_upload(KEY)
    with pytest.raises(Permanent, match="too long"):
        storage.put_part(KEY, upload, 1, Breaks(data), SIZE)
    assert storage.part_etags(KEY, upload) == {}
    storage.abort(KEY, upload)


def test_a_confirmation_of_other_bytes_is_not_believed(data: bytes) -> None:
    wrong = wire.answer("200 OK", 'ETag: "x"', f"x-amz-checksum-crc64nvme: {encode_crc(7)}")
    with wire.script(wrong, read_first=SIZE) as server, pytest.raises(Transient, match="sent was"):
        at(server.port).put_part(KEY, "upload", 1, Bytes(data), SIZE)


def test_a_confirmation_without_checksum_is_not_believed(data: bytes) -> None:
    confirmed = wire.answer("200 OK", 'ETag: "x"')
    with (
        wire.script(confirmed, read_first=SIZE) as server,
        pytest.raises(Transient, match="S3 stored checksum None"),
    ):
        at(server.port).put_part(KEY, "upload", 1, Bytes(data), SIZE)


# --- what S3 refuses is told apart


def test_a_part_of_an_unknown_upload_is_told_apart(storage: S3Storage, data: bytes) -> None:
    upload = storage.create_upload(KEY)
    storage.abort(KEY, upload)
    with pytest.raises(NoSuchUpload):
        storage.put_part(KEY, upload, 1, Bytes(data), SIZE)


def test_an_unknown_bucket_is_refused_for_good(s3: Service, data: bytes) -> None:
    with pytest.raises(Permanent, match="NoSuchBucket"):
        S3Storage(client(s3.address), "nowhere").put_object(KEY, memoryview(data))


def test_unknown_credentials_are_tried_again_later(s3: Service, data: bytes) -> None:
    with pytest.raises(Transient, match="InvalidAccessKeyId"):
        at(s3.port, access_key="nobody").put_object(KEY, memoryview(data))


ERRORS = {
    "AccessDenied": ("403 Forbidden", Permanent, "S3 answered AccessDenied"),
    "NoSuchUpload": ("404 Not Found", NoSuchUpload, None),
    "SlowDown": ("503 Slow Down", Transient, "S3 answered SlowDown"),
}


@pytest.mark.parametrize("code", ERRORS)
@pytest.mark.parametrize("held", [False, True], ids=["closed", "no longer read"])
def test_a_refusal_in_the_middle_of_the_body_is_told(
    code: str, held: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who does not look for it sends on until the socket's limit, and raises that S3 can't be reached."""
    monkeypatch.setattr(put, "SEND_SECONDS", 5)
    status, expected, message = ERRORS[code]
    body = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>no</Message></Error>'
    done = threading.Event()
    try:
        with wire.script(wire.answer(status, body=body), 100_000, hold=done if held else None) as server:
            storage = at(server.port)
            for _ in range(2):
                with pytest.raises(expected, match=message):
                    storage.put_part(KEY, "upload", 1, Zeros(), 512 * MIB)
            assert server.accepted == 2  # a connection with half a body is not used again
    finally:
        done.set()


@pytest.mark.parametrize("body", ["", "<html>Bad Gateway", "<Error/>"])
def test_a_refusal_without_a_code_is_told_by_its_status(body: str) -> None:
    refusal = wire.answer("502 Bad Gateway", body=body)
    with wire.script(refusal, 1000) as server, pytest.raises(Transient, match="S3 answered 502"):
        at(server.port).put_part(KEY, "upload", 1, Bytes(b"x" * 1000), 1000)


def test_a_server_that_hangs_up_without_an_answer_is_tried_again_later(data: bytes) -> None:
    with wire.script(b"", 1000) as server, pytest.raises(Transient, match="can't be reached"):
        at(server.port).put_part(KEY, "upload", 1, Zeros(), 512 * MIB)


def test_a_server_that_does_not_listen_is_tried_again_later() -> None:
    with wire.script(b"", 0) as server:
        port = server.port
    with pytest.raises(Transient, match="can't be reached"):
        at(port).put_part(KEY, "upload", 1, Zeros(), 1)


# --- the request itself


def test_bytes_in_memory_go_as_they_are_behind_their_checksum(data: bytes) -> None:
    crc = crc_of(data[:1000])
    confirmed = wire.answer("200 OK", 'ETag: "x"', f"x-amz-checksum-crc64nvme: {crc}")
    with wire.script(confirmed, read_first=1000, until=data[900:1000]) as server:
        at(server.port).put_held_part("key", "id", 7, memoryview(data)[:1000])
    head, _, body = server.sent[0].partition(b"\r\n\r\n")
    headers = {
        name.lower(): value
        for name, _, value in (line.partition(": ") for line in head.decode().split("\r\n"))
    }
    assert body == data[:1000]
    assert headers["content-length"] == "1000"
    assert headers["x-amz-checksum-crc64nvme"] == crc
    assert headers["x-amz-content-sha256"] == "UNSIGNED-PAYLOAD"
    assert "content-encoding" not in headers
    signed = headers["authorization"].partition("SignedHeaders=")[2].partition(",")[0].split(";")
    assert {"host", "x-amz-content-sha256", "x-amz-checksum-crc64nvme"} <= set(signed)


def test_the_request_says_what_aws_wants(data: bytes) -> None:
    confirmed = wire.answer("200 OK", 'ETag: "x"', f"x-amz-checksum-crc64nvme: {crc_of(data[:1000])}")
    with wire.script(confirmed, read_first=1000, until=b"\r\n\r\n") as server:
        storage = at(server.port, aws_session_token="token")
        part = storage.put_part("a b/ü.zip", "id+/=", 7, Bytes(data), 1000)
        assert part.etag == '"x"'
    head, _, body = server.sent[0].partition(b"\r\n\r\n")
    request, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    assert request == "PUT /backups/a%20b/%C3%BC.zip?partNumber=7&uploadId=id%2B%2F%3D HTTP/1.1"
    assert headers["x-amz-content-sha256"] == "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
    assert headers["content-encoding"] == "aws-chunked"
    assert headers["x-amz-trailer"] == "x-amz-checksum-crc64nvme"
    assert headers["x-amz-decoded-content-length"] == "1000"
    assert headers["x-amz-security-token"] == "token"
    assert int(headers["content-length"]) == len(body)
    crc = crc_of(data[:1000]).encode()
    assert body == b"3e8\r\n" + data[:1000] + b"\r\n0\r\nx-amz-checksum-crc64nvme:" + crc + b"\r\n\r\n"
    signed = headers["authorization"].partition("SignedHeaders=")[2].partition(",")[0].split(";")
    assert {"host", "x-amz-content-sha256", "x-amz-decoded-content-length", "x-amz-trailer"} <= set(signed)


@pytest.mark.parametrize(
    ("endpoint", "bucket", "origin", "path"),
    [
        ("https://s3.eu-central-1.amazonaws.com", "a-b", "https://a-b.s3.eu-central-1.amazonaws.com", "/"),
        ("https://s3.eu-central-1.amazonaws.com", "a.b", "https://s3.eu-central-1.amazonaws.com", "/a.b/"),
        ("https://s3.cn-north-1.amazonaws.com.cn", "a-b", "https://a-b.s3.cn-north-1.amazonaws.com.cn", "/"),
        ("http://127.0.0.1:9", "a-b", "http://127.0.0.1:9", "/a-b/"),
    ],
)
def test_the_url_of_a_bucket_follows_its_name_and_endpoint(
    endpoint: str, bucket: str, origin: str, path: str
) -> None:
    put = S3Storage(client(endpoint), bucket)._put
    assert (put._origin, put._path) == (origin, path)
