"""The whole local run as a user has it: what a small job takes by hop, and a large export of memory."""

import os
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import requests

from benchmarks.proof import prove
from benchmarks.servers import ROOT
from benchmarks.transfer import Bench
from local.settings import free_ports
from mock_providers.client import MockSite

JOBS = 20
SMALL_BYTES = 1024 * 1024
LARGE_BYTES = 2_000_000_000
LIMIT_SECONDS = 300


@dataclass
class Run:
    """Where the run's ports are."""

    api: str
    functions: str
    providers: str
    user_api: str
    issuer: str
    mongo: str

    def backup(self, site_bytes: int, db_bytes: int, **faults: Any) -> dict[str, Any]:
        """Backs up a new site; the job as it is when it is done, with `clientSeconds` from POST to that answer."""
        site_id, user_id = uuid.uuid4().hex[:24], uuid.uuid4().hex[:24]
        for name, size in (("site", site_bytes), ("db", db_bytes)):
            MockSite(self.providers, name, user_id, site_id).set(size, **(faults if name == "db" else {}))
        started = time.perf_counter()
        body = {"userId": user_id, "siteId": site_id}
        answer = requests.post(f"{self.api}/backup", json=body, timeout=30)
        answer.raise_for_status()
        posted = time.perf_counter() - started
        job: dict[str, Any] = answer.json()
        job = self._done(f"{self.api}/backup/{job['jobId']}", job)
        return {**job, "postSeconds": posted, "clientSeconds": time.perf_counter() - started}

    def restore(self, job: dict[str, Any]) -> dict[str, Any]:
        """Gives all of a job back without a safety backup; the restore, with `clientSeconds` as of a backup."""
        started = time.perf_counter()
        asked = {name: job[name] for name in ("userId", "siteId", "jobId")}
        body = {**asked, "providers": "all", "safetyBackup": False}
        answer = requests.post(f"{self.api}/restores", json=body, timeout=30)
        answer.raise_for_status()
        url = f"{self.api}/restores/{answer.json()['restoreId']}"
        restore = self._done(url, answer.json())
        seconds = time.perf_counter() - started
        # These two start functions whose memory counts as well; the first is refused.
        requests.post(f"{url}/cancel", timeout=30)
        link = f"{self.api}/backup/{job['jobId']}/download"
        requests.post(link, json={"provider": "site"}, timeout=30).raise_for_status()
        return {**restore, "clientSeconds": seconds}

    def _done(self, url: str, found: dict[str, Any]) -> dict[str, Any]:
        limit = time.monotonic() + LIMIT_SECONDS
        while found["status"] in ("pending", "running"):
            if time.monotonic() > limit:
                raise RuntimeError(f"{url} did not end")
            time.sleep(0.01)
            found = requests.get(url, timeout=30).json()
        if found["status"] != "done":
            raise RuntimeError(f"{url} {found['status']}: {found.get('reason')}")
        return found


@contextmanager
def whole_run(folder: Path, **settings: str) -> Iterator[Run]:
    """`python -m local up` on free ports and with these settings, as `make up` starts it."""
    folder.mkdir()
    ports = free_ports()
    environment = {**os.environ, **ports, **settings, "LOCAL_DIR": str(folder / "run")}
    command = [sys.executable, "-m", "local", "up"]
    subprocess.run(command, cwd=ROOT, env=environment, check=True, timeout=180, stdout=subprocess.DEVNULL)
    try:
        yield Run(
            api=f"http://127.0.0.1:{ports['API_PORT']}",
            functions=f"http://127.0.0.1:{ports['LAMBDA_PORT']}",
            providers=f"http://127.0.0.1:{ports['PROVIDERS_PORT']}",
            user_api=f"http://127.0.0.1:{ports['USER_API_PORT']}",
            issuer=f"http://127.0.0.1:{ports['ISSUER_PORT']}",
            mongo=f"mongodb://127.0.0.1:{ports['MONGO_PORT']}/?directConnection=true",
        )
    finally:
        command[-1] = "down"
        subprocess.run(command, cwd=ROOT, env=environment, check=True, timeout=60, stdout=subprocess.DEVNULL)


def measure(bench: Bench, _mib: int) -> dict[str, Any]:
    """Twenty small jobs one after the other, then one with a large ranged and a large stream-only export.

    That one is restored as well, opened, and rebuilt from the bucket.
    """
    with whole_run(bench.folder / "whole") as run:
        for _ in range(4):  # starts the processes
            run.backup(SMALL_BYTES, SMALL_BYTES)
        small = [run.backup(SMALL_BYTES, SMALL_BYTES) for _ in range(JOBS)]
        bench.say(f"whole run: {statistics.median(job['clientSeconds'] for job in small):.2f} s a small job")
        large = run.backup(LARGE_BYTES, LARGE_BYTES, noRange=True)
        restore_seconds = run.restore(large)["clientSeconds"]
        bench.say(f"whole run: {restore_seconds:.0f} s back")
        drill_seconds = prove(run.api, run.functions, run.mongo, large)
        environments = requests.get(f"{run.functions}/environments", timeout=10).json()
    bench.say(
        f"whole run: {large['clientSeconds']:.0f} s for two exports of 2 GB, {drill_seconds:.0f} s opened"
    )
    peaks: dict[str, list[float]] = {}
    for found in environments if isinstance(environments, list) else environments["environments"]:
        peaks.setdefault(found["function"], []).append(found["peakRssBytes"] / 1e6)
    return {
        "hops": {name: _medians([hops(job)[name] for job in small]) for name in hops(small[0])},
        "large": {
            "bytes": LARGE_BYTES,
            "seconds": large["clientSeconds"],
            "restoreSeconds": restore_seconds,
            "drillSeconds": drill_seconds,
            "parts": {name: task["progress"]["partsDone"] for name, task in large["tasks"].items()},
            "peaks": {
                name: {"processes": len(found), "mb": max(found)} for name, found in sorted(peaks.items())
            },
        },
    }


def hops(job: dict[str, Any]) -> dict[str, float]:
    """Milliseconds by hop, from the times in the job; the last is what the client sees of it all."""
    created, started, finished = (_time(job[name]) for name in ("createdAt", "startedAt", "updatedAt"))
    stored = max(_time(task["finishedAt"]) for task in job["tasks"].values())
    return {
        "POST /backup, as the client sees it": job["postSeconds"] * 1000,
        "stored, to the first export's opening": (started - created).total_seconds() * 1000,
        "exports read, put and verified": (stored - started).total_seconds() * 1000,
        "last task done, to job done": (finished - stored).total_seconds() * 1000,
        "POST to done, as the client sees it": job["clientSeconds"] * 1000,
    }


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _medians(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}
