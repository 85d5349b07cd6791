"""Schedules: the functions they name are invoked again and again, with the right event."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from local.event_sources.schedules import Schedules, scheduled_event
from local.template.model import Schedule
from tests.integration.lambda_harness import LIMIT_SECONDS, Harness, running


@pytest.fixture(scope="module")
def lambdas() -> Iterator[Harness]:
    with running() as harness:
        yield harness


def run_until(lambdas: Harness, schedules: Schedules, file: Path, lines: int) -> list[str]:
    async def start() -> None:
        schedules.start()

    lambdas.loop.run(start())
    try:
        limit = time.monotonic() + LIMIT_SECONDS
        while not file.exists() or len(file.read_text().splitlines()) < lines:
            assert time.monotonic() < limit, f"fewer than {lines} invocations within {LIMIT_SECONDS} s"
            time.sleep(0.02)
    finally:
        lambdas.loop.run(schedules.stop())
    return file.read_text().splitlines()


def schedule(every_seconds: float, payload: Any) -> Schedule:
    return Schedule("FaultyFunctionTick", "FaultyFunction", every_seconds, payload)


def test_schedule_invokes_again_and_again(lambdas: Harness, tmp_path: Path) -> None:
    file = tmp_path / "calls"
    schedules = Schedules([schedule(0.05, {"countIn": str(file)})], lambdas.lambda_url)
    request_ids = run_until(lambdas, schedules, file, 3)
    assert len(set(request_ids)) == len(request_ids)


def test_environment_shortens_every_schedule(
    lambdas: Harness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_SCHEDULE_SECONDS", "0.0005")
    file = tmp_path / "calls"
    schedules = Schedules([schedule(6_000, {"countIn": str(file)})], lambdas.lambda_url)
    run_until(lambdas, schedules, file, 1)


@pytest.mark.parametrize("value", ["soon", "0", "-1", "inf"])
def test_environment_that_is_no_number_is_refused(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_SCHEDULE_SECONDS", value)
    with pytest.raises(ValueError, match=f"LOCAL_SCHEDULE_SECONDS is '{value}'"):
        Schedules([], "http://127.0.0.1:9")


def test_failure_to_invoke_is_logged_and_the_next_time_tried(
    lambdas: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    schedules = Schedules([schedule(0.01, None)], "http://127.0.0.1:9")

    async def start() -> None:
        schedules.start()

    lambdas.loop.run(start())
    limit = time.monotonic() + LIMIT_SECONDS
    while caplog.text.count("did not reach FaultyFunction, the next time will be tried") < 2:
        assert time.monotonic() < limit
        time.sleep(0.02)
    lambdas.loop.run(schedules.stop())


def test_event_without_a_payload_is_a_scheduled_event(lambdas: Harness) -> None:
    event = scheduled_event(schedule(60, None))
    assert event.keys() == {
        "version", "id", "detail-type", "source", "account", "time", "region", "resources", "detail",
    }  # fmt: skip
    assert (event["detail-type"], event["source"], event["detail"]) == ("Scheduled Event", "aws.events", {})
    assert event["resources"] == ["arn:aws:events:us-east-1:123456789012:rule/FaultyFunctionTick"]
    answer = lambdas.client.invoke(FunctionName="EchoFunction", Payload=json.dumps(event).encode())
    assert json.load(answer["Payload"])["event"] == event
