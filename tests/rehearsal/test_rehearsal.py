"""The template as it is deployed: what CloudFormation made of it, each function's answers, and a backup."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack
from typing import Any

import psutil
import pymongo
import pytest

from local.asgi import serve
from local.event_sources.kafka_mapping import EventSourceMapping
from local.http_api.gateway import HttpApi
from local.lambda_runtime.client import lambda_client
from local.paths import ROOT
from mock_providers.client import MockSite
from sitebackup.adapters.mongo.jobs import MongoJobs
from tests.e2e.client import Api, Bucket
from tests.integration.lambda_harness import LoopThread
from tests.parity.test_events import CHANGES, EVENTS, job, plain
from tests.rehearsal.conftest import CLUSTER, DEPLOYED, LOCAL, PARAMETER, Deployment

MIB = 1 << 20
INVOKE_SECONDS = 60.0
TOPICS, GROUPS = (CLUSTER.replace(":cluster/", f":{kind}/") for kind in ("topic", "group"))


def invoke(lambdas: Any, function: str, event: str) -> Any:
    answer = lambdas.invoke(FunctionName=function, Payload=(ROOT / f"events/{event}.json").read_bytes())
    payload = json.loads(answer["Payload"].read())
    assert "FunctionError" not in answer, payload
    return payload


def test_functions_are_deployed_as_a_local_run_reads_them(deployment: Deployment) -> None:
    lambdas = deployment.aws.client("lambda")
    for name, function in deployment.template.functions.items():
        found = lambdas.get_function_configuration(FunctionName=deployment.ids[name])
        assert found["Runtime"] == "python3.13"
        assert found["Environment"]["Variables"] == function.environment, name
        given = (found["Handler"], found["Timeout"], found["MemorySize"])
        assert given == (function.handler, function.timeout, function.memory), name
        assert [layer["Arn"].split(":")[-2] for layer in found["Layers"]] == ["CommonLayer"], name


def test_mappings_are_deployed_as_a_local_run_reads_them(deployment: Deployment) -> None:
    lambdas = deployment.aws.client("lambda")
    assert deployment.template.mappings
    for one in deployment.template.mappings:
        found = lambdas.get_event_source_mapping(UUID=deployment.ids[one.name])
        assert found["State"] == "Enabled"
        assert found["FunctionArn"].split(":")[-1] == deployment.ids[one.function]
        assert found["BatchSize"] == one.batch_size
        assert found["MaximumBatchingWindowInSeconds"] == one.window_seconds
        assert found["MaximumRetryAttempts"] == one.max_retries
        assert found["StartingPosition"] == one.starting_position
        assert found["FunctionResponseTypes"] == ["ReportBatchItemFailures"] * one.report_item_failures
        assert found["DestinationConfig"]["OnFailure"]["Destination"] == f"kafka://{one.on_failure_topic}"


def test_schedules_have_their_functions_as_targets(deployment: Deployment) -> None:
    events = deployment.aws.client("events")
    assert len(events.list_rules()["Rules"]) == len(deployment.template.schedules) > 0
    for schedule in deployment.template.schedules:
        (target,) = events.list_targets_by_rule(Rule=deployment.ids[schedule.name])["Targets"]
        assert target["Arn"].split(":")[-1] == deployment.ids[schedule.function]


class Roles:
    """Of the functions, as they were deployed."""

    def __init__(self, deployment: Deployment) -> None:
        lambdas = deployment.aws.client("lambda")
        self._iam = deployment.aws.client("iam")
        self._roles: dict[str, str] = {
            name: lambdas.get_function_configuration(FunctionName=deployment.ids[name])["Role"]
            for name in deployment.template.functions
        }

    def allow(self, function: str, action: str, resource: str) -> bool:
        (result,) = self._iam.simulate_principal_policy(
            PolicySourceArn=self._roles[function], ActionNames=[action], ResourceArns=[resource]
        )["EvaluationResults"]
        return bool(result["EvalDecision"] == "allowed")


def test_roles_read_the_secret_of_mongodb_and_no_other(deployment: Deployment) -> None:
    roles = Roles(deployment)
    for name, function in deployment.template.functions.items():
        secret = function.environment["MONGO_SECRET_ARN"]
        assert roles.allow(name, "secretsmanager:GetSecretValue", secret), name
        assert not roles.allow(name, "secretsmanager:GetSecretValue", f"{secret}-of-others"), name


def test_roles_read_the_list_of_providers_where_it_is_needed_and_no_other_parameter(
    deployment: Deployment,
) -> None:
    roles = Roles(deployment)
    parameter = f"arn:aws:ssm:us-east-1:123456789012:parameter{PARAMETER}"
    readers = {
        name
        for name in deployment.template.functions
        if roles.allow(name, "ssm:GetParameter", parameter)
        and roles.allow(name, "ssm:GetParameterHistory", parameter)
    }
    assert {"CreateJobFunction", "ProcessProviderFunction", "UploadPartFunction"} <= readers
    assert "GetJobFunction" not in readers
    for name in deployment.template.functions:
        assert not roles.allow(name, "ssm:GetParameter", f"{parameter}-of-others"), name
        assert not roles.allow(name, "ssm:PutParameter", parameter), name


def test_roles_allow_what_lambda_needs_for_their_mappings(deployment: Deployment) -> None:
    """Lambda developer guide, "Configuring cluster access permissions" for Amazon MSK sources, with IAM."""
    roles = Roles(deployment)
    for one in deployment.template.mappings:
        needed = [
            ("Connect", CLUSTER),
            ("DescribeClusterDynamicConfiguration", CLUSTER),
            ("DescribeGroup", f"{GROUPS}/{one.consumer_group}"),
            ("AlterGroup", f"{GROUPS}/{one.consumer_group}"),
            ("DescribeTopic", f"{TOPICS}/{one.topic}"),
            ("ReadData", f"{TOPICS}/{one.topic}"),
            ("DescribeTopic", f"{TOPICS}/{one.on_failure_topic}"),
            ("WriteData", f"{TOPICS}/{one.on_failure_topic}"),
        ]
        for action, resource in needed:
            assert roles.allow(one.function, f"kafka-cluster:{action}", resource), (one, action, resource)
        assert not roles.allow(one.function, "kafka-cluster:ReadData", f"{TOPICS}/{one.on_failure_topic}"), (
            one
        )


def test_nothing_listens_beyond_loopback(deployment: Deployment) -> None:
    server = psutil.Process(deployment.aws.pid)
    processes = [server, *server.children(recursive=True)]
    sockets = [socket for process in processes for socket in process.net_connections("inet")]
    listening = {socket.laddr.ip for socket in sockets if socket.status == psutil.CONN_LISTEN}
    assert listening == {"127.0.0.1"}


def test_every_function_has_a_sample_event(deployment: Deployment) -> None:
    assert sorted(function.folder for function in deployment.template.functions.values()) == EVENTS


@pytest.mark.parametrize("event", EVENTS)
def test_a_deployed_function_answers_as_the_local_run(deployment: Deployment, event: str) -> None:
    (function,) = [
        name for name, function in deployment.template.functions.items() if function.folder == event
    ]
    deployed = lambda_client(deployment.aws.address, read_timeout=INVOKE_SECONDS)
    ways: dict[str, tuple[Any, Any]] = {}
    with pymongo.MongoClient[dict[str, Any]](deployment.mongo, tz_aware=True) as client:
        for database, lambdas, name in (
            (LOCAL, deployment.local.client, function),
            (DEPLOYED, deployed, deployment.ids[function]),
        ):
            jobs = client[database]["jobs"]
            jobs.delete_many({})
            if event != "create_job":
                MongoJobs(client, database).add(job())
            ways[database] = (invoke(lambdas, name, event), list(jobs.find()))
    same_bucket = json.dumps(plain(ways[LOCAL])).replace(f'"{LOCAL}"', f'"{DEPLOYED}"')
    assert plain(ways[DEPLOYED]) == json.loads(same_bucket)
    answer, found = ways[DEPLOYED]
    assert len(found) == 1
    assert answer.get("statusCode", 200) < 500
    assert not answer.get("batchItemFailures")
    assert (found[0]["version"] > 1) == (event in CHANGES)


@pytest.fixture
def api(deployment: Deployment) -> Iterator[Api]:
    """Our HTTP API and Kafka mappings before the deployed functions, until the test ends."""
    template = deployment.deployed_template
    api = HttpApi(template, deployment.aws.address)
    with ExitStack() as stack:
        for one in template.mappings:
            timeout = template.functions[one.function].timeout
            mapping = EventSourceMapping(
                one, deployment.kafka, deployment.aws.address, function_timeout=timeout
            )
            mapping.start()
            stack.callback(mapping.stop)
        loop = LoopThread()
        stack.callback(loop.close)
        stack.callback(api.close)
        server = AsyncExitStack()
        port = loop.run(server.enter_async_context(serve(api.app)))
        stack.callback(lambda: loop.run(server.aclose()))
        yield Api(f"http://127.0.0.1:{port}")


def test_a_backup_through_the_deployed_functions_has_the_bytes_of_the_exports(
    deployment: Deployment, api: Api
) -> None:
    site = MockSite(deployment.providers).set(size=6 * MIB + 345)
    db = MockSite(deployment.providers, "db", site.user_id, site.site_id).set(size=1000)
    done = api.done(api.create(site, db))
    assert done["tasks"]["site"]["progress"]["partsDone"] == 2
    Bucket(deployment.s3.address).assert_holds(done, site, db)
