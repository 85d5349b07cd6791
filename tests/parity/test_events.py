"""Every sample event: the runtime without Docker and `sam local invoke` answer alike, and leave alike states."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pymongo
import pytest

from local.aws_account import ACCESS_KEY, SECRET_KEY
from local.lambda_runtime import sam
from local.lambda_runtime.sam import Sam
from local.paths import ROOT, TEMPLATE
from local.services.containers import bridge_address
from local.services.kafka import Kafka
from local.services.mock_providers import MockProviders
from local.services.mongo import Mongo
from local.services.s3 import S3, s3_client
from local.services.service import Service
from local.settings import free_ports
from sitebackup.adapters.mongo.jobs import MongoJobs
from sitebackup.domain.job import Job, Status, Task
from tests.integration.lambda_harness import Harness, running
from tests.parity.conftest import alone

EVENTS = sorted(path.stem for path in (ROOT / "events").glob("*.json"))
USER, SITE, JOB = "665f1c2ab7d34e0012a4c001", "665f1c2ab7d34e0012a4c002", "665f1c2ab7d34e0012a4c9d1"
NOW = datetime(2024, 6, 4, 13, 53, tzinfo=UTC)
LIMIT_SECONDS = 240
CHANGES = {"change_job", "process_provider", "sweep_jobs"}  # what changes the job that is there


@dataclass
class World:
    """The services, and what the functions are told of them; each way to run these has a database and a bucket."""

    mongo: str
    local: Harness
    sam: Sam


@pytest.fixture(scope="module")
def world(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("world")
    host = bridge_address()
    ports = free_ports()
    kafka, mongo, s3 = Kafka(folder, host=host), Mongo(folder, host=host), S3(folder, host=host)
    providers = MockProviders(folder, int(ports["PROVIDERS_PORT"]), "site=100000,db=1000", host)
    running_services: list[Service] = [kafka, mongo, s3, providers]
    try:
        for service in running_services:
            service.start()
        for service in running_services:
            service.wait_ready()
        for way in ("local", "sam"):
            s3_client(s3.address).create_bucket(Bucket=f"parity-{way}")
        exports = (
            f"{providers.address}/{{name}}/export?userId={{userId}}&siteId={{siteId}}&chunkSize={{chunkSize}}"
        )
        parameters = {
            "Providers": json.dumps(
                [
                    {"name": name, "exportUrl": exports.replace("{name}", name), "allowNetworks": [host]}
                    for name in ("site", "db")
                ]
            ),
            "KafkaBootstrapServers": kafka.address,
            "KafkaAuth": "none",
            "MskClusterArn": "arn:aws:kafka:us-east-1:123456789012:cluster/local/local",
            "MongoUri": mongo.address,
            "S3EndpointUrl": s3.address,
        }
        with alone():
            sam.build(TEMPLATE, folder)
        local, in_sam = (
            {**parameters, "MongoDatabase": f"parity-{way}", "BackupBucketName": f"parity-{way}"}
            for way in ("local", "sam")
        )
        credentials = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
        with running(ROOT, parameters=local, credentials=credentials) as harness:
            bucket = {"BACKUP_BUCKET": in_sam["BackupBucketName"]}
            yield World(mongo.address, harness, Sam(folder, in_sam, bucket, image))
    finally:
        for service in running_services:
            service.terminate()
        for service in running_services:
            service.stop()


def job() -> Job:
    """What the events speak of: pending since long ago, and due."""
    return Job(
        id=JOB,
        user_id=USER,
        site_id=SITE,
        status=Status.PENDING,
        version=1,
        tasks={name: Task(stalls_at=NOW, next_check_at=NOW) for name in ("site", "db")},
        created_at=NOW,
        updated_at=NOW,
        deadline_at=NOW + timedelta(days=36500),
    )


def without_docker(world: World, event: str) -> Any:
    payload = (ROOT / f"events/{event}.json").read_bytes()
    response = world.local.client.invoke(FunctionName=event, Payload=payload)
    answer = json.loads(response["Payload"].read())
    assert "FunctionError" not in response, answer
    return answer


def in_container(world: World, event: str) -> Any:
    function = "".join(word.capitalize() for word in event.split("_")) + "Function"
    invoked = world.sam.invoke(function, (ROOT / f"events/{event}.json").read_bytes(), LIMIT_SECONDS)
    try:
        return json.loads(invoked.payload)
    except ValueError:
        pytest.fail(f"{invoked.payload!r}\n{invoked.log}")


def plain(value: Any) -> Any:
    """What differs from run to run as one word each: ids of other jobs than the event's, times, versions."""
    text = json.dumps(value, default=lambda other: other.isoformat())
    text = re.sub(rf"\b(?!{USER}|{SITE}|{JOB})[0-9a-f]{{24}}\b", "<id>", text)
    text = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)?", "<time>", text)
    text = re.sub(r'(\\?"versionId\\?": \\?")[^"\\]+', r"\1<version>", text)
    return json.loads(re.sub(r"parity-(local|sam)", "parity", text))


@pytest.mark.parametrize("event", EVENTS)
def test_same_answer_and_same_state(world: World, event: str) -> None:
    ways: dict[str, tuple[Any, Any]] = {}
    with pymongo.MongoClient[dict[str, Any]](world.mongo, tz_aware=True) as client:
        for way, invoke in (("local", without_docker), ("sam", in_container)):
            jobs = client[f"parity-{way}"]["jobs"]
            jobs.delete_many({})
            if event != "create_job":
                MongoJobs(client, f"parity-{way}").add(job())
            ways[way] = (invoke(world, event), list(jobs.find()))
    assert plain(ways["sam"]) == plain(ways["local"])
    answer, found = ways["local"]
    assert len(found) == 1
    assert answer.get("statusCode", 200) < 500
    assert not answer.get("batchItemFailures")
    assert (found[0]["version"] > 1) == (event in CHANGES)
