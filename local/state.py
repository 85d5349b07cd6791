"""The state file of a local run: written once all is up, read by the other commands, removed at the end."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

import psutil

from .settings import Settings


@dataclass(frozen=True)
class RunState:
    """A run that is up: its process, what was chosen, and the port and process of each server."""

    pid: int
    choices: dict[str, str]
    host: str
    ports: dict[str, int]
    services: dict[str, int | None]


def find_run(settings: Settings) -> RunState | None:
    """The run of this folder, if it is up."""
    try:
        content: dict[str, Any] = json.loads(settings.state_file.read_text())
        command = psutil.Process(content["pid"]).cmdline()
        state = RunState(**content)
    except (OSError, ValueError, TypeError, KeyError, psutil.Error):
        return None  # no run, or one of another release
    return state if command[1:3] == ["-m", "local"] else None  # else the number was used again


def write_state(settings: Settings, state: RunState) -> None:
    """Put `state` in the place of the present one, so that a reader finds either the one or the other."""
    temporary = settings.state_file.with_suffix(".new")
    temporary.write_text(json.dumps(asdict(state), indent=2) + "\n")
    temporary.replace(settings.state_file)
