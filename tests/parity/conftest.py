"""A Docker engine for `sam local`, taken by one test process at a time; without one every test here is skipped."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from local.lambda_runtime import sam
from local.lambda_runtime.sam import SAM, Sam
from local.services.containers import docker_missing
from scripts.lambda_image import IMAGE, ImageError, build
from tests.integration.lambda_harness import FIXTURE, Harness, running

STARTED = time.monotonic()
PARAMETERS = {"Greeting": 'say "hi" to {you}: [1, 2]'}


@pytest.fixture(scope="session")
def image() -> str:
    """The image of functions; skips what needs it when there can be none."""
    reason = None if SAM.exists() else "the AWS SAM CLI is not installed: make setup"
    if reason := reason or docker_missing():
        pytest.skip(f"sam local is not shown: {reason} (scripts/ci-docker starts an engine)")
    try:
        with alone():
            build(IMAGE)
    except ImageError as error:
        pytest.skip(f"sam local is not shown: no Lambda-like image, {error}")
    return IMAGE


@pytest.fixture(scope="module")
def local() -> Iterator[Harness]:
    """The small functions of the integration tests, without Docker."""
    credentials = {"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "localsecret"}
    with running(parameters=PARAMETERS, credentials=credentials) as harness:
        yield harness


@pytest.fixture(scope="module")
def built(image: str, tmp_path_factory: pytest.TempPathFactory) -> Sam:
    """The same functions, built for sam."""
    folder = tmp_path_factory.mktemp("sam")
    sam.build(FIXTURE / "template.yaml", folder)
    return Sam(folder, PARAMETERS, {}, image)


@pytest.fixture(autouse=True)
def _one_at_a_time(image: str) -> Iterator[None]:
    with alone():
        yield


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Keeps other test processes from Docker: sam looks for a free port first and takes it later."""
    path = Path(tempfile.gettempdir()) / f"site-backup-docker-{os.getuid()}.lock"
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def pytest_runtest_setup() -> None:
    """Begins no test when the time that CI has for Docker is over; the most important ones come first."""
    if time.monotonic() - STARTED > float(os.environ.get("PARITY_SECONDS", "inf")):
        pytest.skip(f"the {os.environ['PARITY_SECONDS']} s for sam local are over (CI_DOCKER_SECONDS)")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How much was shown through `sam local`."""
    passed = [report.nodeid for report in terminalreporter.stats.get("passed", [])]
    events = sum("test_same_answer_and_same_state" in name for name in passed)
    backup = any("test_backup_through_sam" in name for name in passed)
    if events:
        terminalreporter.write_line(
            f"{events} sample events invoked through sam local invoke: answers equal."
        )
    if backup:
        terminalreporter.write_line("A backup through sam local start-lambda: bytes equal.")
