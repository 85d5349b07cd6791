"""The sample events: one for each function, of the exact shape, and each function answers to its own."""

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from local.services.s3 import s3_client
from local.services.service import Service
from sitebackup.adapters.topics import key_of
from sitebackup.domain.events import (
    DrillCreated,
    Event,
    PartUpdated,
    RestoreTaskCreated,
    TaskUpdated,
    UploadJobCreated,
    UploadPartCreated,
)
from tests.integration.lambda_harness import Harness, running

ROOT = Path(__file__).parents[2]
EVENTS = {path.stem: path for path in sorted((ROOT / "events").glob("*.json"))}
KINDS: dict[str, type[Event]] = {
    "upload-job-created": UploadJobCreated,
    "upload-part-created": UploadPartCreated,
    "part-updated": PartUpdated,
    "task-updated": TaskUpdated,
    "restore-task-created": RestoreTaskCreated,
    "drill-created": DrillCreated,
}


def status(expected: int) -> Callable[[Any], bool]:
    return lambda answer: answer["statusCode"] == expected


def nothing_failed(answer: Any) -> bool:
    return bool(answer == {"batchItemFailures": []})


# Each runs on an empty database and bucket. A record of an unknown job leaves nothing to do, and is acknowledged.
ANSWERS: dict[str, Callable[[Any], bool]] = {
    "create_job": status(202),
    "get_job": status(404),
    "change_job": status(404),
    "create_download": status(404),
    "manage_schedule": status(404),
    "get_retention": status(200),
    "process_provider": nothing_failed,
    "upload_part": nothing_failed,
    "finish_task": nothing_failed,
    "finish_job": nothing_failed,
    "create_restore": status(404),
    "get_restore": status(404),
    "change_restore": status(404),
    "restore_provider": nothing_failed,
    "rebuild_catalog": lambda answer: (answer["jobs"], answer["marker"]) == (0, None),
    "check_catalog": lambda answer: (answer["objects"], answer["marker"]) == (0, None),
    "save_settings": lambda answer: answer["saved"] == 0,
    "clean_up": lambda answer: answer["looked"] == 0,
    "drill_backup": nothing_failed,
    "get_drills": status(200),
    "run_drills": lambda answer: answer["sites"] == 0,
    # The job of create_job's sample is due after a minute, which a machine at work may take to come here.
    "sweep_jobs": lambda answer: answer["checked"] <= 1,
    "run_schedule": lambda answer: answer["moved"] == 0,
}


@pytest.fixture(scope="module")
def lambdas(kafka: Service, mongo: Service, s3: Service) -> Iterator[Harness]:
    """The real template on the real services, with a bucket and a database that no other test writes to."""
    bucket = "backups-of-events"
    client = s3_client(s3.address)
    client.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
    client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    providers = [{"name": name, "exportUrl": "http://127.0.0.1:1/export"} for name in ("site", "db")]
    parameters = {
        "Providers": json.dumps(providers),
        "BackupBucketName": bucket,
        "KafkaBootstrapServers": kafka.address,
        "KafkaAuth": "none",
        "MongoUri": mongo.address,
        "MongoDatabase": "test-events",
        "S3EndpointUrl": s3.address,
    }
    credentials = {"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "localsecret"}
    with running(ROOT, parameters=parameters, credentials=credentials) as harness:
        yield harness


def load(name: str) -> dict[str, Any]:
    event: dict[str, Any] = json.loads(EVENTS[name].read_text())
    return event


def test_every_function_has_a_sample() -> None:
    functions = {path.parent.name for path in (ROOT / "functions").glob("*/app.py")}
    assert set(EVENTS) == functions == set(ANSWERS)


@pytest.mark.parametrize("name", [name for name in EVENTS if load(name).get("eventSource") == "aws:kafka"])
def test_records_decode_to_events_as_they_are_emitted(name: str) -> None:
    for partition, records in load(name)["records"].items():
        for record in records:
            event = msgspec.json.decode(
                base64.b64decode(record["value"], validate=True), type=KINDS[record["topic"]]
            )
            assert partition == f"{record['topic']}-{record['partition']}"
            assert base64.b64decode(record["key"]).decode() == key_of(event)
            assert msgspec.json.encode(event) == base64.b64decode(record["value"])
            headers = {
                key: bytes(value).decode() for each in record["headers"] for key, value in each.items()
            }
            assert headers == event.task.correlation


@pytest.mark.parametrize("name", EVENTS)
def test_the_function_answers_to_its_sample(lambdas: Harness, name: str) -> None:
    function = lambdas.service.find(name)
    answer = lambdas.client.invoke(FunctionName=function.name, Payload=EVENTS[name].read_bytes())
    payload = json.loads(answer["Payload"].read())
    assert "FunctionError" not in answer, payload
    assert ANSWERS[name](payload), payload


@pytest.mark.parametrize("name", EVENTS)
def test_the_sample_is_of_a_source_that_the_template_declares(lambdas: Harness, name: str) -> None:
    template, function, event = lambdas.template, lambdas.service.find(name).name, load(name)
    if event.get("version") == "2.0":
        declared = {f"{route.method} {route.path}" for route in template.routes if route.function == function}
        assert event["routeKey"] in declared
        assert event["requestContext"]["routeKey"] == event["routeKey"]
        assert event["requestContext"]["http"]["path"] == event["rawPath"]
    elif event.get("eventSource") == "aws:kafka":
        topics = {mapping.topic for mapping in template.mappings if mapping.function == function}
        assert {record["topic"] for records in event["records"].values() for record in records} == topics
    elif name in ("rebuild_catalog", "check_catalog"):  # an operator invokes them
        assert function not in {route.function for route in template.routes}
        assert function not in {schedule.function for schedule in template.schedules}
    else:
        assert event["detail-type"] == "Scheduled Event"
        assert any(schedule.function == function for schedule in template.schedules)
