"""The runtime without Docker and `sam local` give the same results; where they don't, docs/local-parity.md says so.

Each difference there is pinned by a test here or in test_http_api.py: one that goes away is noticed.
"""

from __future__ import annotations

import json
import re
import sysconfig
import threading
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from local.lambda_runtime.client import lambda_client
from local.lambda_runtime.sam import Invoked, Sam, SamServer
from tests.integration.lambda_harness import FIXTURE, Harness
from tests.parity.conftest import PARAMETERS, alone

LIMIT_SECONDS = 240
MEBIBYTE = 1024 * 1024


@pytest.fixture(scope="module")
def server(built: Sam, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SamServer]:
    server = SamServer("start-lambda", built, tmp_path_factory.mktemp("start-lambda"))
    try:
        with alone():
            server.start()
            server.wait_ready()
        yield server
    finally:
        server.stop()


@pytest.fixture
def client(server: SamServer) -> Any:
    """The client that everything local uses."""
    return lambda_client(server.address, read_timeout=LIMIT_SECONDS)


def without_docker(local: Harness, function: str, event: Any) -> tuple[Any, bool]:
    """The result, and whether it is an error."""
    response = local.client.invoke(FunctionName=function, Payload=json.dumps(event).encode())
    return json.loads(response["Payload"].read()), "FunctionError" in response


def in_container(built: Sam, function: str, event: Any) -> Invoked:
    invoked = built.invoke(function, json.dumps(event).encode(), LIMIT_SECONDS)
    assert invoked.code == 0, invoked.log
    return invoked


def plain(result: Any) -> Any:
    """What may differ from run to run or names a folder, as one word."""
    text = json.dumps(result)
    text = re.sub(r"[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}", "<id>", text)
    text = text.replace(sysconfig.get_path("stdlib"), "/var/lang/lib/python3.13")
    return json.loads(re.sub(rf"{FIXTURE}/functions/\w+", "/var/task", text))


RESULTS = {
    "null": ("FaultyFunction", {}),
    "text beyond ASCII": ("FaultyFunction", {"response": 'ü€ 𝄞 "quoted"'}),
    "partial batch response": (
        "FaultyFunction",
        {"response": {"batchItemFailures": [{"itemIdentifier": {"partition": "t-3", "offset": 2**53}}]}},
    ),
    "almost 6 MB there and back": ("FaultyFunction", {"response": "x" * (6 * MEBIBYTE - 200)}),
}
ERRORS = {
    "error of the handler": ("FaultyFunction", {"fault": "raise"}),
    "end of the process": ("FaultyFunction", {"fault": "exit"}),
    "error of the import": ("BrokenFunction", {}),
}


# A container each: only what sam's two ways could answer in two ways.
@pytest.mark.parametrize("case", ["partial batch response", "almost 6 MB there and back", *ERRORS])
def test_sam_local_invoke_gives_the_same_result(local: Harness, built: Sam, case: str) -> None:
    function, event = (RESULTS | ERRORS)[case]
    expected, failed = without_docker(local, function, event)
    assert failed == (case in ERRORS)
    assert plain(json.loads(in_container(built, function, event).payload)) == plain(expected)


@pytest.mark.parametrize("case", [*RESULTS, *ERRORS])
def test_start_lambda_gives_the_same_result(local: Harness, client: Any, case: str) -> None:
    function, event = (RESULTS | ERRORS)[case]
    expected = without_docker(local, function, event)
    response = client.invoke(FunctionName=function, Payload=json.dumps(event).encode())
    result = json.loads(response["Payload"].read()), "FunctionError" in response
    assert plain(result) == plain(expected)


def test_context_and_what_the_template_declares(local: Harness, client: Any) -> None:
    event = {"a": [1, "ü"]}
    ours, _ = without_docker(local, "EchoFunction", event)
    theirs = json.loads(
        client.invoke(FunctionName="EchoFunction", Payload=json.dumps(event))["Payload"].read()
    )
    for field in ("event", "answer", "name"):
        assert theirs[field] == ours[field]
    declared = ("GREETING", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "AWS_LAMBDA_FUNCTION_NAME", "_HANDLER", "TZ")
    runtime = ("AWS_REGION", "AWS_LAMBDA_FUNCTION_VERSION", "AWS_EXECUTION_ENV", "AWS_ACCESS_KEY_ID", "LANG")
    for name in (*declared, *runtime):
        assert theirs["environment"][name] == ours["environment"][name]
    assert ours["environment"]["GREETING"] == PARAMETERS["Greeting"]
    for answer in (ours, theirs):
        assert 0 < answer["remaining"] <= 10_000


# --- known differences


def test_sam_local_invoke_says_nothing_of_a_time_out(local: Harness, built: Sam) -> None:
    expected, failed = without_docker(local, "SlowFunction", {})
    assert failed
    assert expected["errorMessage"].endswith("Task timed out after 1.00 seconds")
    invoked = in_container(built, "SlowFunction", {})
    assert invoked.payload == b""
    assert "No response from invoke container for SlowFunction" in invoked.log


def test_start_lambda_answers_a_time_out_with_a_bare_sentence(client: Any) -> None:
    response = client.invoke(FunctionName="SlowFunction", Payload=b"{}")
    assert response["Payload"].read() == b"Task timed out after 1.00 seconds"
    assert response["FunctionError"] == "Unhandled"  # our client's; see the next test


def test_start_lambda_does_not_mark_an_error_as_one(server: SamServer) -> None:
    bare = boto3.session.Session("local", "local", region_name="us-east-1").client(
        "lambda", endpoint_url=server.address, config=Config(read_timeout=LIMIT_SECONDS, proxies={})
    )
    response = bare.invoke(FunctionName="FaultyFunction", Payload=b'{"fault": "raise"}')
    assert json.loads(response["Payload"].read())["errorType"] == "ValueError"
    assert "FunctionError" not in response


def test_sam_lets_a_response_over_6_mb_pass(local: Harness, built: Sam) -> None:
    event = {"fault": "large", "bytes": 6 * MEBIBYTE}
    expected, failed = without_docker(local, "FaultyFunction", event)
    assert failed
    assert expected["errorType"] == "Function.ResponseSizeTooLarge"
    assert len(in_container(built, "FaultyFunction", event).payload) == 6 * MEBIBYTE + 2


def test_sam_cuts_an_event_over_6_mb(local: Harness, built: Sam) -> None:
    event = {"response": "x" * (6 * MEBIBYTE + 1000)}
    with pytest.raises(ClientError, match="RequestTooLargeException"):
        without_docker(local, "FaultyFunction", event)
    invoked = in_container(built, "FaultyFunction", event)
    assert json.loads(invoked.payload)["errorType"] == "Runtime.UnmarshalError"


@pytest.mark.parametrize("options", [{"LogType": "Tail"}, {"InvocationType": "DryRun"}])
def test_start_lambda_has_no_log_tail_and_no_dry_run(client: Any, options: dict[str, str]) -> None:
    with pytest.raises(ClientError, match="NotImplemented"):
        client.invoke(FunctionName="FaultyFunction", Payload=b"{}", **options)


def test_start_lambda_knows_no_folder_names(client: Any) -> None:
    with pytest.raises(ClientError, match="ResourceNotFound"):
        client.invoke(FunctionName="echo", Payload=b"{}")


def test_start_lambda_runs_one_invocation_of_a_function_at_a_time(local: Harness, client: Any) -> None:
    """Neither fails the others: sam queues them on its one warm container, ours starts another environment."""

    def processes(lambdas: Any) -> set[int]:
        pids: list[int] = []
        call = json.dumps({"seconds": 0}).encode()

        def invoke() -> None:
            response = lambdas.invoke(FunctionName="EchoFunction", Payload=call)
            pids.append(json.loads(response["Payload"].read())["pid"])

        threads = [threading.Thread(target=invoke) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LIMIT_SECONDS)
        assert len(pids) == len(threads)
        return set(pids)

    assert len(processes(client)) == 1
    assert 1 <= len(processes(local.client)) <= 3


def test_sam_names_the_function_in_an_account_of_its_own(local: Harness, client: Any) -> None:
    ours, _ = without_docker(local, "EchoFunction", {})
    theirs = json.loads(client.invoke(FunctionName="EchoFunction", Payload=b"{}")["Payload"].read())
    assert ours["arn"] == "arn:aws:lambda:us-east-1:123456789012:function:EchoFunction"
    assert theirs["arn"] == "arn:aws:lambda:us-east-1:012345678912:function:EchoFunction"
    assert theirs["environment"]["AWS_LAMBDA_LOG_STREAM_NAME"] == "$LATEST"
    assert re.fullmatch(r"[\d/]+\[\$LATEST\][0-9a-f]{32}", ours["environment"]["AWS_LAMBDA_LOG_STREAM_NAME"])
    assert "HOME" in theirs["environment"]
    assert "HOME" not in ours["environment"]
