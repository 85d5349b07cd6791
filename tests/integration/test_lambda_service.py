"""The local Lambda service through boto3: real runtime processes, their limits, their ends."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
from botocore.exceptions import ClientError

from local.lambda_runtime.client import lambda_client
from local.lambda_runtime.service import Throttled
from tests.integration.lambda_harness import FIXTURE, LIMIT_SECONDS, Harness, running


@pytest.fixture(scope="module")
def lambdas() -> Iterator[Harness]:
    credentials = {"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "localsecret"}
    with running(credentials=credentials, default_concurrency=3, event_retry_seconds=(0.01, 0.01)) as harness:
        yield harness


def invoke(lambdas: Harness, name: str, event: Any = None, **options: Any) -> tuple[Any, dict[str, Any]]:
    answer = lambdas.client.invoke(FunctionName=name, Payload=json.dumps(event or {}).encode(), **options)
    payload = answer["Payload"].read()
    return json.loads(payload) if payload else None, answer


def refusal(lambdas: Harness, name: str, payload: bytes, **options: Any) -> tuple[int, str, str]:
    with pytest.raises(ClientError) as error:
        lambdas.client.invoke(FunctionName=name, Payload=payload, **options)
    answer: Any = error.value.response
    return (
        answer["ResponseMetadata"]["HTTPStatusCode"],
        answer["Error"]["Code"],
        answer["Error"]["Message"],
    )


def wait_for(what: str, condition: Callable[[], Any]) -> Any:
    limit = time.monotonic() + LIMIT_SECONDS
    while not (result := condition()):
        assert time.monotonic() < limit, f"no {what} within {LIMIT_SECONDS} s"
        time.sleep(0.02)
    return result


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_event_context_and_layer_reach_the_function(lambdas: Harness) -> None:
    answer, response = invoke(lambdas, "EchoFunction", {"a": [1, "ü"]})
    assert "FunctionError" not in response
    assert (response["StatusCode"], response["ExecutedVersion"]) == (200, "$LATEST")
    assert answer["event"] == {"a": [1, "ü"]}
    assert answer["answer"] == 42
    assert answer["name"] == "EchoFunction"
    assert answer["arn"].endswith(":function:EchoFunction")
    assert answer["requestId"] == response["ResponseMetadata"]["RequestId"]
    assert 0 < answer["remaining"] <= 10_000


def test_environment_is_what_the_template_declares_and_the_runtime_adds(lambdas: Harness) -> None:
    variables = invoke(lambdas, "EchoFunction")[0]["environment"]
    assert variables["GREETING"] == "hello"
    assert variables["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"] == "256"
    assert variables["AWS_ACCESS_KEY_ID"] == "local"
    assert variables["TZ"] == ":UTC"
    assert variables["_X_AMZN_TRACE_ID"].startswith("Root=1-")
    added = ("AWS_", "LAMBDA_", "PYTHON", "_HANDLER", "_X_AMZN", "LANG", "LC_CTYPE", "PATH", "TZ")
    assert [name for name in variables if not name.startswith(added)] == ["GREETING"]
    assert not {"HOME", "PYTEST_CURRENT_TEST"} & set(variables)


@pytest.mark.parametrize(
    "name",
    [
        "EchoFunction",
        "echo",
        "arn:aws:lambda:us-east-1:123456789012:function:EchoFunction",
        "EchoFunction:$LATEST",
    ],
)
def test_every_way_to_name_a_function(lambdas: Harness, name: str) -> None:
    assert invoke(lambdas, name)[0]["name"] == "EchoFunction"


def test_environments_are_reused(lambdas: Harness) -> None:
    assert len({invoke(lambdas, "echo")[0]["pid"] for _ in range(5)}) == 1


def test_log_tail_holds_this_invocation_only(lambdas: Harness) -> None:
    invoke(lambdas, "echo")
    _, response = invoke(lambdas, "echo", LogType="Tail")
    lines = base64.b64decode(response["LogResult"]).decode().splitlines()
    request_id = response["ResponseMetadata"]["RequestId"]
    assert lines[0] == f"START RequestId: {request_id} Version: $LATEST"
    assert lines[1] == "echo was called"
    assert lines[2] == f"END RequestId: {request_id}"
    assert lines[3].startswith(f"REPORT RequestId: {request_id}\tDuration: ")
    assert "\tMemory Size: 256 MB\tMax Memory Used: " in lines[3]
    assert len(lines) == 4


def test_log_tail_is_the_last_4_kb(lambdas: Harness) -> None:
    _, response = invoke(lambdas, "faulty", {"fault": "log"}, LogType="Tail")
    tail = base64.b64decode(response["LogResult"])
    assert len(tail) == 4096
    assert b"the last line\nEND RequestId" in tail


def test_error_of_the_handler(lambdas: Harness) -> None:
    answer, response = invoke(lambdas, "faulty", {"fault": "raise"})
    assert response["FunctionError"] == "Unhandled"
    assert (answer["errorType"], answer["errorMessage"]) == ("ValueError", "as you wish")
    assert "app.py" in answer["stackTrace"][0]


def test_crash_and_restart(lambdas: Harness) -> None:
    answer, response = invoke(lambdas, "faulty", {"fault": "exit"})
    assert response["FunctionError"] == "Unhandled"
    assert answer["errorType"] == "Runtime.ExitError"
    assert answer["errorMessage"].endswith("Runtime exited with error: exit status 7")
    assert invoke(lambdas, "faulty", {"response": "again"})[0] == "again"


def test_idle_process_that_is_killed_is_replaced(lambdas: Harness) -> None:
    pid = invoke(lambdas, "echo")[0]["pid"]
    os.kill(pid, signal.SIGKILL)
    wait_for("end of the process", lambda: pid not in [one["pid"] for one in lambdas.environments("echo")])
    assert invoke(lambdas, "echo")[0]["pid"] != pid


@contextlib.contextmanager
def held(lambdas: Harness, until: Path) -> Iterator[tuple[int, Future[Any]]]:
    """One invocation of hold under way: its process id and its coming answer."""
    with ThreadPoolExecutor() as threads:
        future = threads.submit(invoke, lambdas, "hold", {"until": str(until)})
        try:
            (busy,) = wait_for("busy process", lambda: busy_ones(lambdas))
            yield busy["pid"], future
        finally:
            until.touch()


def busy_ones(lambdas: Harness) -> list[dict[str, Any]]:
    return [one for one in lambdas.environments("hold") if one["state"] == "busy"]


def test_busy_process_that_is_killed_is_an_error(lambdas: Harness, tmp_path: Path) -> None:
    with held(lambdas, tmp_path / "release") as (pid, future):
        os.kill(pid, signal.SIGKILL)
        answer, response = future.result(LIMIT_SECONDS)
    assert response["FunctionError"] == "Unhandled"
    assert answer["errorMessage"].endswith("signal: SIGKILL")


def test_error_of_the_import(lambdas: Harness) -> None:
    for _ in range(2):
        answer, response = invoke(lambdas, "broken")
        assert response["FunctionError"] == "Unhandled"
        assert (answer["errorType"], answer["errorMessage"]) == ("RuntimeError", "no configuration")


def test_timeout_kills_the_whole_process_group(lambdas: Harness) -> None:
    answer, response = invoke(lambdas, "slow", {"child": True}, LogType="Tail")
    assert response["FunctionError"] == "Unhandled"
    assert answer["errorType"] == "Sandbox.Timedout"
    assert answer["errorMessage"].endswith("Task timed out after 1.00 seconds")
    log = base64.b64decode(response["LogResult"]).decode()
    child = int(log.partition("child ")[2].split()[0])
    wait_for("end of the child", lambda: gone(child))
    assert invoke(lambdas, "slow", {"seconds": 0})[0] == 0


def test_reserved_concurrency(lambdas: Harness, tmp_path: Path) -> None:
    release = tmp_path / "release"
    with held(lambdas, release) as (_, future):
        status, code, message = refusal(lambdas, "hold", b"{}")
        assert (status, code, message) == (429, "TooManyRequestsException", "Rate Exceeded.")
        release.touch()
        assert future.result(LIMIT_SECONDS)[0] == "released"


def test_event_that_is_throttled_waits_for_its_turn(lambdas: Harness, tmp_path: Path) -> None:
    release = tmp_path / "release"
    with held(lambdas, release) as (pid, _):
        invoke(lambdas, "hold", {"until": str(release)}, InvocationType="Event")
        release.touch()
    (one,) = wait_for(
        "second invocation",
        lambda: [one for one in lambdas.environments("hold") if one["pid"] == pid and one["state"] == "idle"],
    )
    wait_for("end of the event", lambda: not lambdas.service._events)
    (after,) = lambdas.environments("hold")
    assert after["invocations"] == one["invocations"] + 1


def test_burst_waits_for_environments_up_to_their_limit(lambdas: Harness) -> None:
    async def burst() -> list[Any]:
        work = [lambdas.service.invoke("faulty", b'{"response": 1}') for _ in range(20)]
        return await asyncio.gather(*work)

    assert {result.outcome.payload for result in lambdas.loop.run(burst())} == {b"1"}
    assert len(lambdas.environments("faulty")) == 3


def test_full_queue_and_long_wait_are_refused(tmp_path: Path) -> None:
    root = copy_of_fixture(tmp_path)
    template = root / "template.yaml"
    template.write_text(template.read_text().replace("ReservedConcurrentExecutions: 1", ""))
    release = tmp_path / "release"
    with running(root, default_concurrency=1, wait_seconds=0.2, max_waiting=1) as lambdas:
        event = json.dumps({"until": str(release)}).encode()

        async def burst() -> list[Any]:
            work = [lambdas.service.invoke("hold", event) for _ in range(2)]
            return await asyncio.gather(*work, return_exceptions=True)

        with held(lambdas, release) as (_, future):
            queue_full, wait_over = lambdas.loop.run(burst())[::-1]
            assert (type(queue_full), type(wait_over)) == (Throttled, Throttled)
            assert queue_full.reason == wait_over.reason == "ConcurrentInvocationLimitExceeded"
            assert "1 are waiting already" in str(queue_full)
            assert "within 0.2 s" in str(wait_over)
            release.touch()
            assert future.result(LIMIT_SECONDS)[0] == "released"
        assert invoke(lambdas, "hold", {"until": str(release)})[0] == "released"  # no slot was lost


def test_stop_answers_who_waits_for_an_environment(tmp_path: Path) -> None:
    root = copy_of_fixture(tmp_path)
    template = root / "template.yaml"
    template.write_text(template.read_text().replace("ReservedConcurrentExecutions: 1", ""))
    with running(root, default_concurrency=1) as lambdas, held(lambdas, tmp_path / "never"):

        async def stopped() -> object:
            waiting = asyncio.create_task(lambdas.service.invoke("hold", b"{}"))
            await asyncio.sleep(0)  # it waits now
            await lambdas.service.stop()
            return (await asyncio.gather(waiting, return_exceptions=True))[0]

        assert isinstance(lambdas.loop.run(stopped()), Throttled)


@pytest.mark.parametrize(("kind", "limit"), [("RequestResponse", 6 * 1024 * 1024), ("Event", 1024 * 1024)])
def test_payload_limits(lambdas: Harness, kind: str, limit: int) -> None:
    largest = b'{"response": "' + b"x" * (limit - 16) + b'"}'
    status, code, message = refusal(lambdas, "faulty", largest + b" ", InvocationType=kind)
    assert (status, code) == (413, "RequestTooLargeException")
    assert str(limit) in message
    answer = lambdas.client.invoke(FunctionName="faulty", Payload=largest, InvocationType=kind)
    assert len(answer["Payload"].read()) == (limit - 14 if kind == "RequestResponse" else 0)


def test_response_over_the_limit_is_an_error(lambdas: Harness) -> None:
    answer, response = invoke(lambdas, "faulty", {"fault": "large", "bytes": 6 * 1024 * 1024})
    assert response["FunctionError"] == "Unhandled"
    assert answer["errorType"] == "Function.ResponseSizeTooLarge"
    assert invoke(lambdas, "faulty", {"response": "again"})[0] == "again"


@pytest.mark.parametrize(
    ("name", "payload", "options", "status", "code"),
    [
        ("nobody", b"{}", {}, 404, "ResourceNotFoundException"),
        ("echo", b"{oops", {}, 400, "InvalidRequestContentException"),
        ("echo", b"{}", {"InvocationType": "Sometime"}, 400, "InvalidParameterValueException"),
    ],
)
def test_requests_that_are_refused(
    lambdas: Harness, name: str, payload: bytes, options: dict[str, str], status: int, code: str
) -> None:
    assert refusal(lambdas, name, payload, **options)[:2] == (status, code)


def test_no_payload_is_an_empty_event(lambdas: Harness) -> None:
    answer = lambdas.client.invoke(FunctionName="echo")["Payload"].read()
    assert json.loads(answer)["event"] == {}


def test_dry_run(lambdas: Harness) -> None:
    assert invoke(lambdas, "echo", InvocationType="DryRun")[1]["StatusCode"] == 204


def calls(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def test_event_is_tried_three_times(
    lambdas: Harness, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    counter = tmp_path / "calls"
    event = {"fault": "raise", "countIn": str(counter)}
    _, response = invoke(lambdas, "faulty", event, InvocationType="Event")
    assert response["StatusCode"] == 202
    wait_for("discarded event", lambda: "is discarded" in caplog.text)
    assert calls(counter) == [response["ResponseMetadata"]["RequestId"]] * 3


def test_event_that_succeeds_is_not_tried_again(lambdas: Harness, tmp_path: Path) -> None:
    counter = tmp_path / "calls"
    event = {"fault": "fail-until", "calls": 2, "countIn": str(counter)}
    invoke(lambdas, "faulty", event, InvocationType="Event")
    wait_for("second call", lambda: len(calls(counter)) == 2)
    wait_for("end of the event", lambda: not lambdas.service._events)
    assert len(calls(counter)) == 2


def test_memory_is_listed(lambdas: Harness) -> None:
    invoke(lambdas, "echo")
    (one, *_) = lambdas.environments("echo")
    assert one["function"] == "EchoFunction"
    assert one["peakRssBytes"] >= one["rssBytes"] > 1_000_000
    assert one["invocations"] > 0


def copy_of_fixture(folder: Path) -> Path:
    shutil.copytree(FIXTURE, folder / "app", ignore=shutil.ignore_patterns("__pycache__"))
    return folder / "app"


@pytest.mark.parametrize("file", ["functions/echo/app.py", "layer/shared_layer/__init__.py"])
def test_changed_source_is_loaded(tmp_path: Path, file: str) -> None:
    root = copy_of_fixture(tmp_path)
    with running(root) as lambdas:
        before = invoke(lambdas, "echo")[0]
        path = root / file
        path.write_text(path.read_text().replace("= 42", "= 43").replace("ANSWER,", "43,"))
        after = wait_for("new answer", lambda: changed(invoke(lambdas, "echo")[0], before))
        assert (before["answer"], after["answer"]) == (42, 43)
        assert after["pid"] != before["pid"]


def changed(after: dict[str, Any], before: dict[str, Any]) -> dict[str, Any] | None:
    return after if after["answer"] != before["answer"] else None


def test_idle_environments_end(tmp_path: Path) -> None:
    with running(idle_seconds=0.2) as lambdas:
        pid = invoke(lambdas, "echo")[0]["pid"]
        wait_for("end of the idle process", lambda: gone(pid))
        assert lambdas.environments("echo") == []
        assert invoke(lambdas, "echo")[0]["pid"] != pid


def test_stop_leaves_no_process_and_answers_who_waits(tmp_path: Path) -> None:
    with running() as lambdas:
        idle = invoke(lambdas, "echo")[0]["pid"]
        with held(lambdas, tmp_path / "never") as (busy, future):
            lambdas.loop.run(lambdas.service.stop())
            answer, _ = future.result(LIMIT_SECONDS)
        assert answer["errorType"] == "Runtime.ExitError"
        assert gone(idle)
        assert gone(busy)


SERVER = """
import sys, time
from local.lambda_runtime.client import lambda_client
from local.lambda_runtime.service import Throttled
from tests.integration.lambda_harness import running
with running() as lambdas:
    print(lambdas.lambda_url, flush=True)
    time.sleep(60)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux's")
def test_functions_end_with_a_service_that_is_killed(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SERVER],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONPATH": os.curdir},
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        try:
            assert server.stdout is not None
            url = server.stdout.readline().strip()
            # A function at work notices nothing by itself, one that waits for work sees its connection close.
            event = json.dumps({"until": str(tmp_path / "never")}).encode()
            client = lambda_client(url, read_timeout=LIMIT_SECONDS)
            client.invoke(FunctionName="hold", Payload=event, InvocationType="Event")
            pid = wait_for("busy process", lambda: busy_pid(url))
        finally:
            server.kill()
    wait_for("end of the function's process", lambda: gone(pid))


def busy_pid(url: str) -> int | None:
    listing = requests.get(f"{url}/environments", timeout=5).json()
    return next((one["pid"] for one in listing if one["state"] == "busy"), None)
