"""Secrets with a mark, which every stack works with, and a look through all that it left behind (I22).

What must stay out of logs, events, answers, stored documents and objects: bearer tokens of providers and of users, a
provider's cookies, the connection string of MongoDB, presigned URLs, and the URLs of uploads outside the restore that
owns them.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from kafka import KafkaConsumer, TopicPartition
from pymongo import MongoClient

from local.services.s3 import BUCKET, s3_client
from mock_providers.export import SESSION_COOKIE
from sitebackup.domain.restore import Restore

PROVIDER_TOKEN = "marked-token-of-a-provider"
APP_NAME = "marked-connection-string"
"""A part of the URI that MongoDB is reached by, as a password would be."""
_SECRET_ARN = "arn:aws:secretsmanager:us-east-1:123456789012:secret:provider"
PRESIGNED_URL, UPLOAD_URL = "a presigned URL", "the URL of an upload"
_FORMS = {
    "a provider's token": re.compile(re.escape(PROVIDER_TOKEN)),
    "a provider's cookie": re.compile(re.escape(SESSION_COOKIE)),
    "the connection string": re.compile(APP_NAME),
    "a user's token": re.compile(r"eyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]+"),  # RFC 7515: both begin with {"
    PRESIGNED_URL: re.compile(r"X-Amz-Signature=[0-9a-f]{64}", re.IGNORECASE),
    UPLOAD_URL: re.compile(r"/import/[0-9a-f]{24}/[0-9a-f]{32}"),
}
_SMALL_OBJECT = 1 << 20
_READ_SECONDS = 30


class SecretsManager:
    """Answers GetSecretValue with the marked token, as AWS Secrets Manager does (its API reference)."""

    arn = _SECRET_ARN

    def __init__(self) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Answer)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Answer(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        asked = self.rfile.read(int(self.headers["Content-Length"]))
        known = (
            self.headers["X-Amz-Target"] == "secretsmanager.GetSecretValue"
            and json.loads(asked)["SecretId"] == _SECRET_ARN
        )
        answer = (
            {"ARN": _SECRET_ARN, "SecretString": PROVIDER_TOKEN}
            if known
            else {"__type": "ResourceNotFoundException"}
        )
        body = json.dumps(answer).encode()
        self.send_response(200 if known else 400)
        self.send_header("Content-Type", "application/x-amz-json-1.1")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Silent."""


def in_text(where: str, text: str, *but: str) -> list[str]:
    """What of all this, `but` for some, stands in the text."""
    return [
        f"{what} is in {where}: …{text[max(found.start() - 200, 0) : found.start() + 20]}…"
        for what, form in _FORMS.items()
        if what not in but and (found := form.search(text))
    ]


def left_behind(log: Path, kafka: str, mongo: str, s3: str) -> list[str]:
    """What stands in the log, in the records, in the documents and in the small objects of a stack."""
    found = in_text("the log", log.read_text(errors="replace"))
    for where, text in (*_records(kafka), *_documents(mongo), *_objects(s3)):
        # A restore keeps where its upload is, so that it goes on there.
        found += in_text(where, text, *([UPLOAD_URL] if where == "a restore" else []))
    return found


def _records(kafka: str) -> Iterator[tuple[str, str]]:
    """Every record that is still there, with key and headers."""
    consumer = KafkaConsumer(
        bootstrap_servers=kafka, enable_auto_commit=False, consumer_timeout_ms=_READ_SECONDS * 1000
    )
    try:
        partitions = [
            TopicPartition(topic, number)
            for topic in consumer.topics()
            for number in consumer.partitions_for_topic(topic) or ()
        ]
        consumer.assign(partitions)
        consumer.seek_to_beginning()
        ends = consumer.end_offsets(partitions)
        while any(consumer.position(one) < ends[one] for one in partitions):
            batches = consumer.poll(timeout_ms=_READ_SECONDS * 1000)
            assert batches, "Kafka gives no more records"
            for partition, records in batches.items():
                yield (
                    f"records of {partition.topic}",
                    "\n".join(str((r.key, r.value, r.headers)) for r in records),
                )
    finally:
        consumer.close()


def _documents(mongo: str) -> Iterator[tuple[str, str]]:
    with MongoClient[dict[str, object]](mongo, timeoutMS=_READ_SECONDS * 1000) as client:
        for database in set(client.list_database_names()) - {"admin", "config", "local"}:
            for collection in client[database].list_collection_names():
                for document in client[database][collection].find():
                    restore = document.get("kind") == Restore.kind
                    yield "a restore" if restore else f"a document of {collection}", str(document)


def _objects(s3: str) -> Iterator[tuple[str, str]]:
    """Keys of all objects, and what is in those that are no backup."""
    client = s3_client(s3)
    for page in client.get_paginator("list_object_versions").paginate(Bucket=BUCKET):
        for version in page.get("Versions", []):
            key = version["Key"]
            yield "a key", key
            if version["Size"] <= _SMALL_OBJECT and not key.endswith(".zip"):
                body = client.get_object(Bucket=BUCKET, Key=key, VersionId=version["VersionId"])["Body"]
                yield f"object {key}", body.read().decode(errors="replace")
