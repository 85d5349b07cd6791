"""A Docker engine for `sam local`, taken by one test process at a time; without one every test here is skipped."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from local.containers import docker_missing
from local.sam import SAM
from scripts.lambda_image import IMAGE, ImageError, build


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
