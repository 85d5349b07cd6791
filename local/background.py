"""Starts a local run as a process of its own, and ends it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping

import psutil

from .paths import ROOT
from .services import processes
from .services.processes import die_with_parent
from .settings import Settings
from .state import find_run

_START_SECONDS = 180.0  # the first run fetches Kafka's jars
_STOP_SECONDS = 45.0


class NotStarted(Exception):
    """The run did not come up; the message says why."""


def start(
    settings: Settings, env: Mapping[str, str], *, with_parent: bool = False, throw_away: bool = False
) -> subprocess.Popen[bytes]:
    """Start a run and wait until it is up. Raises NotStarted; whatever is raised, nothing of it runs then.

    `with_parent` ends it when this process ends, `throw_away` as well; its services are then killed at the end.
    """
    settings.folder.mkdir(parents=True, exist_ok=True)
    settings.state_file.unlink(missing_ok=True)
    since = processes.size(settings.folder / "log")
    errors = settings.folder / "errors"  # what the log can't take, such as a traceback at start
    command = [sys.executable, "-m", "local", "up", "--foreground", *(["--throw-away"] if throw_away else [])]
    with errors.open("wb") as output, processes.interrupts_held():
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=output,
            start_new_session=True,
            preexec_fn=die_with_parent if with_parent or throw_away else processes.take_interrupts,
        )
    try:
        _wait_until_up(settings, process, since)
    except BaseException:
        end(process.pid)
        process.wait()
        raise
    return process


def _wait_until_up(settings: Settings, process: subprocess.Popen[bytes], since: int) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while find_run(settings) is None:
        if process.poll() is not None:
            raise NotStarted(f"It ended with code {process.returncode}:\n{_last_words(settings, since)}")
        if time.monotonic() > deadline:
            raise NotStarted(f"It was not up within {_START_SECONDS:.0f} s:\n{_last_words(settings, since)}")
        time.sleep(0.05)


def end(pid: int) -> bool:
    """SIGTERM, and SIGKILL if that does not help in time; whether it ended by itself."""
    try:
        process = psutil.Process(pid)
        process.terminate()
        process.wait(_STOP_SECONDS)
    except psutil.NoSuchProcess:
        return True
    except psutil.TimeoutExpired:
        process.kill()  # its children die with it
        process.wait(_STOP_SECONDS)
        return False
    return True


def _last_words(settings: Settings, since: int) -> str:
    """The end of the log behind its first `since` bytes, which are of runs before, and of the errors."""
    errors = processes.last_lines(settings.folder / "errors", 15)
    log = processes.last_lines(settings.folder / "log", 5, since)
    return "\n".join(text for text in (log, errors) if text != processes.NO_OUTPUT) or processes.NO_OUTPUT


def environment(**changes: str) -> dict[str, str]:
    """This process's environment with these changes."""
    return {**os.environ, **changes}
