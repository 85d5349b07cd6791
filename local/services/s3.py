"""An S3 server as a service of the local run, and its bucket."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from ..aws_account import ACCESS_KEY, REGION, SECRET_KEY
from . import processes
from .service import HOST, Service, installed_program

BUCKET = "backups"


class S3(Service):
    """SeaweedFS: master, volume, filer and S3 gateway in one process."""

    name = "s3"
    port_setting = "S3_PORT"

    def __init__(self, folder: Path, port: int | None = None, host: str = HOST) -> None:
        super().__init__(folder, port, host)
        parts = ["master.port", "volume.port", "filer.port", "admin.port"]
        parts += [f"{part}.grpc" for part in (*parts, "s3.port")]
        self.internal_ports = {part: processes.free_port() for part in parts}

    @property
    def address(self) -> str:
        return f"http://{self.host}:{self.port}"

    def command(self) -> list[str]:
        credentials = [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}]
        actions = ["Admin", "Read", "Write", "List", "Tagging"]
        config = self.folder / "s3.json"
        config.write_text(
            json.dumps({"identities": [{"name": "local", "credentials": credentials, "actions": actions}]})
        )
        return [
            *(installed_program("weed"), "-logtostderr", "mini", f"-dir={self.data}"),
            *(f"-ip={self.host}", f"-ip.bind={self.host}"),
            *(f"-s3.port={self.port}", f"-s3.config={config}", "-s3.port.iceberg=0", "-s3.port.lance=0"),
            *("-webdav=false", "-admin.ui=false", "-master.telemetry=false", "-s3.autoCreateBucket=false"),
            *(f"-{part}={port}" for part, port in self.internal_ports.items()),
        ]

    def prepare(self) -> None:
        create_bucket(self.address)

    def stop(self) -> None:
        super().stop()
        for port in (self.port, *self.internal_ports.values()):  # Unix sockets it leaves in a fixed folder
            for socket_file in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):  # noqa: S108 - its choice
                socket_file.unlink(missing_ok=True)


def s3_client(endpoint_url: str) -> Any:
    """A boto3 S3 client for the local server, with short limits."""
    return boto3.client(
        "s3",
        endpoint_url=endpoint_url,
        region_name=REGION,
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        config=Config(connect_timeout=2, read_timeout=10, retries={"total_max_attempts": 1}),
    )


def create_bucket(endpoint_url: str) -> None:
    """Create BUCKET with versioning, able to lock, and see that it takes an object. Raises what botocore raises."""
    s3 = s3_client(endpoint_url)
    with suppress(s3.exceptions.BucketAlreadyExists, s3.exceptions.BucketAlreadyOwnedByYou):
        s3.create_bucket(Bucket=BUCKET, ObjectLockEnabledForBucket=True)
    s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    # The gateway answers before its volumes are there: only a stored object shows that it is ready.
    version = s3.put_object(Bucket=BUCKET, Key="ready", Body=b"ready")["VersionId"]
    s3.delete_object(Bucket=BUCKET, Key="ready", VersionId=version)
