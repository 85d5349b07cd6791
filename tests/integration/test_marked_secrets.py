"""The look for secrets in what a stack wrote: it would find them."""

import base64
from collections.abc import Callable
from pathlib import Path

import pytest
from kafka import KafkaProducer
from pymongo import MongoClient

from local.services.s3 import BUCKET, s3_client
from local.services.service import Service
from tests.e2e.secrets import APP_NAME, PROVIDER_TOKEN, in_text, left_behind

type Put = Callable[[Path, Service, Service, Service], None]
KEY = "marked/settings.json"


def log_it(log: Path, _kafka: Service, _mongo: Service, _s3: Service) -> None:
    log.write_text(f"job failed: Authorization: Bearer {PROVIDER_TOKEN}\n")


def emit_it(_log: Path, kafka: Service, _mongo: Service, _s3: Service) -> None:
    producer = KafkaProducer(bootstrap_servers=kafka.address)
    try:
        producer.send("task-updated", f"mongodb://{APP_NAME}".encode()).get(10)
    finally:
        producer.close()


def store_it(_log: Path, _kafka: Service, mongo: Service, _s3: Service) -> None:
    with MongoClient[dict[str, object]](mongo.address) as client:
        client["test-marked-secrets"]["jobs"].insert_one(
            {"lastError": f"/import/{'a' * 24}/{'b' * 32} is gone"}
        )


def put_it(_log: Path, _kafka: Service, _mongo: Service, s3: Service) -> None:
    body = f"https://backups/x.zip?X-Amz-Signature={'0' * 64}".encode()
    s3_client(s3.address).put_object(Bucket=BUCKET, Key=KEY, Body=body)


@pytest.mark.parametrize(
    ("put", "found"),
    [
        (log_it, "a provider's token is in the log"),
        (emit_it, "the connection string is in records of task-updated"),
        (store_it, "the URL of an upload is in a document of jobs"),
        (put_it, f"a presigned URL is in object {KEY}"),
    ],
)
def test_a_secret_is_found_wherever_it_was_written(
    kafka: Service, mongo: Service, s3: Service, tmp_path: Path, put: Put, found: str
) -> None:
    log = tmp_path / "log"
    log.touch()
    put(log, kafka, mongo, s3)
    try:
        leaks = left_behind(log, kafka.address, mongo.address, s3.address)
    finally:
        with MongoClient[dict[str, object]](mongo.address) as client:
            client.drop_database("test-marked-secrets")
        client_of_s3 = s3_client(s3.address)
        for version in client_of_s3.list_object_versions(Bucket=BUCKET, Prefix=KEY).get("Versions", []):
            client_of_s3.delete_object(Bucket=BUCKET, Key=KEY, VersionId=version["VersionId"])
    assert [leak for leak in leaks if leak.startswith(f"{found}: ")], leaks


def test_a_token_of_a_user_is_found() -> None:
    header, claims = (base64.b64encode(part).decode() for part in (b'{"alg":"RS256"}', b'{"sub":"user"}'))
    assert in_text("an answer", f"detail: {header}.{claims.rstrip('=')}.c2lnbmF0dXJl is over")
    assert not in_text("an answer", "detail: the token is over")
