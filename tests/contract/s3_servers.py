"""The servers that hold objects, for the suites of ObjectStorage and DownloadLinks, and what each does not model.

SeaweedFS is the server of the local run; versitygw is a gateway written in Go, independent of it. moto confirms no
checksum of a body with a trailer, which the storage rightly takes for a failure: it is held to the rest. The fake of
the simulation is held to the suites in both orders in which servers check the condition of a Complete.
"""

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from moto import mock_aws

from local.aws_account import ACCESS_KEY, REGION, SECRET_KEY
from local.services import processes
from local.services.s3 import BUCKET
from sitebackup import bootstrap
from sitebackup.adapters.s3.links import S3Links, Signer, signer
from sitebackup.adapters.s3.storage import S3Storage
from sitebackup.ports.storage import DownloadLinks, ObjectStorage
from tests.fakes.links import MemoryLinks
from tests.fakes.storage import MemoryStorage

LIMIT_SECONDS = 20.0
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
