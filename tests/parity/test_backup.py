"""A whole backup with the functions in containers of sam; the HTTP API, Kafka mappings and services are ours."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from local import background
from local.services.s3 import BUCKET, s3_client
from local.settings import Settings, free_ports
from tests.parity.conftest import alone

USER, SITE = "5f00000000000000000000aa", "6a00000000000000000000aa"
MEBIBYTE = 1024 * 1024
SIZES = {"site": 12 * MEBIBYTE + 345, "db": 1000}  # three parts, and a single object
JOB_SECONDS = 150.0
CONTAINERS = ["docker", "ps", "--all", "--quiet"]


@pytest.fixture(scope="module")
def up(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """`make up LAMBDA=sam` with parts of 5 MiB; the containers are gone when it has stopped."""
    env = background.environment(
        **free_ports(),
        LOCAL_DIR=str(tmp_path_factory.mktemp("local")),
        SERVICES="embedded",
        PROVIDERS="",
        LAMBDA="sam",
        LAMBDA_IMAGE=image,
        MOCK_PROVIDERS_DEFAULT_SIZE=",".join(f"{name}={size}" for name, size in SIZES.items()),
        PARAM_PartSizeMib="5",
    )
    settings = Settings.from_env(env)
    with alone():
        before = containers()
        process = background.start(settings, env, with_parent=True)
    try:
        yield settings
    finally:
        assert background.end(process.pid)
        process.wait()
        assert containers() <= before


def containers() -> set[str]:
    return set(subprocess.run(CONTAINERS, capture_output=True, text=True, check=True).stdout.split())


def wait_until_final(settings: Settings, job: dict[str, Any]) -> dict[str, Any]:
    deadline = time.monotonic() + JOB_SECONDS
    while job["status"] not in ("done", "failed", "cancelled"):
        assert time.monotonic() < deadline, job
        query: dict[str, str | int] = {"wait": 5, "since": job["version"]}
        answer = requests.get(f"{settings.api_address}/backup/{job['jobId']}", params=query, timeout=60)
        assert answer.status_code == 200, answer.text
        job = answer.json()
    return job


def test_backup_through_sam_is_equal_to_the_exports(up: Settings) -> None:
    request = {"userId": USER, "siteId": SITE}
    answer = requests.post(f"{up.api_address}/backup", json=request, timeout=60)
    assert answer.status_code == 202, answer.text
    assert answer.headers["location"] == f"/backup/{answer.json()['jobId']}"
    job = wait_until_final(up, answer.json())
    assert job["status"] == "done", job
    s3 = s3_client(f"http://{up.host}:{up.ports['S3']}")
    for name, size in SIZES.items():
        stored = job["tasks"][name]["object"]
        assert stored["size"] == size
        body = s3.get_object(Bucket=BUCKET, Key=stored["key"])["Body"].read()
        export = requests.get(
            f"{up.providers_address}/{name}/export", params={"userId": USER, "siteId": SITE}, timeout=60
        )
        assert body == export.content
        assert len(body) == size
    assert job["tasks"]["site"]["progress"]["partsDone"] == 3
    log = Path(up.folder / "lambda.log").read_text(errors="replace")
    for function in ("ProcessProvider", "UploadPart", "FinishTask", "FinishJob"):
        assert f"{function}Function" in log
