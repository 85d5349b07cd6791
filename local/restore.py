"""`make restore`: gives a backup of the local run back to its providers, and shows what came back."""

from __future__ import annotations

import sys
from typing import Any

import requests
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .follow import NotDone, call, check_done, follow

_RESTORE_SECONDS = 30 * 3600.0
"""AttemptSeconds for the safety backup and RestoreSeconds for the rest, by the template's defaults."""
_MIB = 1024 * 1024


def main(api: str, job_id: str, providers: str, safety: str) -> int:
    """`providers` is `all`, or names with commas between them; the exit code is 0 only if all got restored."""
    console = Console(soft_wrap=True)
    try:
        if safety not in ("true", "false"):
            raise NotDone(f"SAFETY is {safety!r}; it must be true or false.")
        _restore(api, job_id, providers, safety == "true", console)
        return 0
    except NotDone as error:
        print(f"Not restored. {error}", file=sys.stderr)
    except requests.RequestException as error:
        kind = type(error).__name__
        print(f"The API at {api} does not answer ({kind}). Is it up? `make up` starts it.", file=sys.stderr)
    return 1


def _restore(api: str, job_id: str, providers: str, safety: bool, console: Console) -> None:
    job = call("GET", f"{api}/backup/{job_id}", 200)
    asked = {
        "userId": job["userId"],
        "siteId": job["siteId"],
        "jobId": job["jobId"],
        "providers": providers if providers == "all" else providers.split(","),
        "safetyBackup": safety,
    }
    restore = call("POST", f"{api}/restores", 202, asked)
    url = f"{api}/restores/{restore['restoreId']}"
    console.print(f"Restoring site {restore['siteId']} from backup {job_id}: {url}")
    restore = follow(url, restore, _RESTORE_SECONDS, console)
    _show(restore, console)
    if "safetyJobId" in restore:
        console.print(f"The safety backup, of what the site was before, is {restore['safetyJobId']}.")
    check_done(restore)


def _show(restore: dict[str, Any], console: Console) -> None:
    table = Table("provider", "status", "came back, MiB", "of", "reason", box=None)
    for name, task in sorted(restore["tasks"].items()):
        done, total = (f"{task['progress'][key] / _MIB:g}" for key in ("bytesDone", "bytesTotal"))
        table.add_row(name, task["status"], done, total, Text(task.get("reason", {}).get("message", "")))
    console.print(table)
