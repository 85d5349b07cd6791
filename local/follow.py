"""Calls the API of a local run, and shows how a backup or a restore goes on until it is over."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import requests
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn

_LOOK_SECONDS = 0.2
_ANSWER_SECONDS = 40.0
_FINAL = ("done", "failed", "cancelled")


class NotDone(Exception):
    """What the API answered, or how it ended, instead of what was asked for: in a sentence."""


def call(method: str, url: str, status: int, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The answer, which has this status. Raises NotDone, or requests.RequestException if there is none."""
    answer = requests.request(method, url, json=body, timeout=_ANSWER_SECONDS)
    if answer.status_code != status:
        raise NotDone(f"{method} {url} answered {answer.status_code}: {_detail(answer)}")
    found: dict[str, Any] = answer.json()
    return found


def follow(url: str, found: dict[str, Any], seconds: float, console: Console) -> dict[str, Any]:
    """Show a bar for each task of the job or the restore at `url`, as `found` there, until it is over.

    Raises NotDone if it is not over in time, or requests.RequestException.
    """
    deadline = time.monotonic() + seconds
    columns = (TextColumn("{task.description:>6}"), BarColumn(40), DownloadColumn(binary_units=True))
    with Progress(
        *columns, TextColumn("{task.fields[status]}"), TimeElapsedColumn(), console=console
    ) as bars:
        rows = {name: bars.add_task(name, total=None, status="pending") for name in sorted(found["tasks"])}
        while True:
            for name, task in found["tasks"].items():
                progress, status = task["progress"], _status(found, task)
                done, total = progress["bytesDone"], progress.get("bytesTotal")
                bars.update(rows[name], completed=done, total=total, status=status)
            if found["status"] in _FINAL:
                return found
            if time.monotonic() > deadline:
                raise NotDone(f"It is still {found['status']} after {seconds:.0f} s.")
            time.sleep(_LOOK_SECONDS)
            found = call("GET", url, 200)


def check_done(found: Mapping[str, Any]) -> None:
    """Raises NotDone if the job or the restore ended in another way."""
    if found["status"] != "done":
        reason = found.get("reason") or {}
        raise NotDone(f"It ended as {found['status']}: {reason.get('code')}: {reason.get('message')}")


def _status(found: Mapping[str, Any], task: Mapping[str, Any]) -> str:
    progress: Mapping[str, Any] = task["progress"]
    if "partsDone" in progress:  # a job's; a restore's tasks have no parts
        return f"{task['status']}, {progress['partsDone']} of {progress.get('partsTotal', '?')} parts"
    return "safety backup" if found["status"] == "backing_up" else str(task["status"])


def _detail(answer: requests.Response) -> str:
    """What a problem says, or whatever came instead of one."""
    try:
        return str(answer.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return answer.text
