"""`python -m benchmarks.stalls`: what a broker, a database and an S3 server cost that stand still, and for how long.

Each is stopped by SIGSTOP under the whole local run and continued later, while backups are asked for. About a
quarter of an hour; prints the table of docs/operations.md. Not part of `make bench`, nor of the tests: it asserts
nothing, and what it measures is mostly waiting.
"""

import argparse
import shutil
import signal
import statistics
import sys
import tempfile
import time
import uuid
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import requests

from benchmarks.whole_run import Run, whole_run
from local.services import processes
from local.services.kafka import Kafka
from local.services.mongo import Mongo
from local.services.s3 import S3
from local.services.service import Service

SECONDS = (3, 20, 90)
JOBS = 6
SMALL_BYTES = 100_000
EVERY_SECONDS = 2
"""A backup is asked for that often while a service stands still."""
AFTER_SECONDS = 30
ENDED_SECONDS = 240
"""So long the jobs of the stall are waited for."""


@dataclass
class Asked:
    """A POST during a stall."""

    status: int
    seconds: float
    job_id: str | None


def main() -> None:
    """Prints a row for each service and duration."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stalls", description=__doc__)
    parser.add_argument("--seconds", type=int, nargs="+", default=list(SECONDS))
    parser.add_argument(
        "--only", nargs="+", choices=["kafka", "mongo", "s3"], default=["kafka", "mongo", "s3"]
    )
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that everything started is ended
    folder = Path(tempfile.mkdtemp(prefix="site-backup-stalls-"))
    kafka, mongo, s3 = Kafka(folder), Mongo(folder), S3(folder)
    services: dict[str, Service] = {"kafka": kafka, "mongo": mongo, "s3": s3}
    addresses = {
        "SERVICES": "external",
        "KAFKA_BOOTSTRAP_SERVERS": kafka.address,
        "MONGO_URI": mongo.address,
        "S3_ENDPOINT_URL": s3.address,
    }
    try:
        for service in services.values():
            service.start()
        for service in services.values():
            service.wait_ready()
        print(
            "| stands still | POST before, during, after (s) | job before, after (s) | of those asked for meanwhile |"
        )
        print("| --- | --- | --- | --- |")
        with whole_run(folder / "whole", **addresses) as run:
            for name in arguments.only:
                for seconds in arguments.seconds:
                    print(_row(run, name, services[name], seconds), flush=True)
    finally:
        for service in services.values():
            if service.process and service.running:
                processes.signal_group(service.process, signal.SIGCONT)
            service.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _row(run: Run, name: str, service: Service, seconds: int) -> str:
    before = _jobs(run)
    assert service.process
    processes.signal_group(service.process, signal.SIGSTOP)
    with ThreadPoolExecutor(64) as pool:
        pending: list[Future[Asked]] = []
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            pending.append(pool.submit(_ask, run))
            time.sleep(min(left, EVERY_SECONDS))
        processes.signal_group(service.process, signal.SIGCONT)
        continued = time.monotonic()
        asked = [one.result() for one in pending]
    time.sleep(max(continued + AFTER_SECONDS - time.monotonic(), 0))
    after = _jobs(run)
    taken = [one.job_id for one in asked if one.job_id]
    ends = _ends(run, taken, continued)
    refused = [one.status for one in asked if not one.job_id]
    told = f"{len(ends)} of {len(taken)} done"
    if ends:
        told += f", the last one {max(ends):.0f} s after it went on"
    if refused:
        told += f"; {len(refused)} answered {', '.join(map(str, sorted(set(refused))))}"
    posts = [
        statistics.median(job["postSeconds"] for job in before),
        max(one.seconds for one in asked),
        statistics.median(job["postSeconds"] for job in after),
    ]
    jobs = [statistics.median(job["clientSeconds"] for job in some) for some in (before, after)]
    return (
        f"| {name}, {seconds} s | {posts[0]:.2f}, ≤ {posts[1]:.1f}, {posts[2]:.2f} | {jobs[0]:.1f}, {jobs[1]:.1f}"
        f" | {told} |"
    )


def _jobs(run: Run) -> list[dict[str, Any]]:
    return [run.backup(SMALL_BYTES, SMALL_BYTES) for _ in range(JOBS)]


def _ask(run: Run) -> Asked:
    body = {"userId": uuid.uuid4().hex[:24], "siteId": uuid.uuid4().hex[:24]}
    started = time.perf_counter()
    answer = requests.post(f"{run.api}/backup", json=body, timeout=60)
    job_id = answer.json()["jobId"] if answer.status_code == 202 else None
    return Asked(answer.status_code, time.perf_counter() - started, job_id)


def _ends(run: Run, job_ids: list[str], since: float) -> list[float]:
    """When each of these jobs got done, in seconds after `since`; without those that failed or did not end."""
    ends: list[float] = []
    left = set(job_ids)
    while left and time.monotonic() < since + ENDED_SECONDS:
        for job_id in list(left):
            answer = requests.get(f"{run.api}/backup/{job_id}", timeout=60)
            if answer.status_code == 200 and answer.json()["status"] not in ("pending", "running"):
                left.discard(job_id)
                if answer.json()["status"] == "done":
                    finished = answer.json()["updatedAt"]  # `finishedAt` is the time of the seal
                    ends.append(_seconds_after(finished, since))
        time.sleep(0.5)
    return ends


def _seconds_after(text: str, moment: float) -> float:
    """An RFC 3339 time as seconds after a moment of the monotonic clock."""
    return (datetime.fromisoformat(text) - datetime.now(UTC)).total_seconds() + time.monotonic() - moment


if __name__ == "__main__":
    main()
