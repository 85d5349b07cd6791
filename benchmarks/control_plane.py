"""What jobs and parts cost besides their bytes, on the whole local run: Kafka, MongoDB's protocol, every function."""

import json
import os
import statistics
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pymongo
import requests

from benchmarks import counting
from benchmarks.engine import storage
from benchmarks.servers import ROOT, module
from benchmarks.transfer import Bench
from local.aws_account import ACCESS_KEY, REGION, SECRET_KEY
from local.services.kafka import Kafka
from local.services.mongo import Mongo
from local.services.s3 import BUCKET, S3
from local.settings import free_ports
from sitebackup.adapters.kafka import KafkaBus
from sitebackup.adapters.mongo.jobs import MongoJobs
from sitebackup.domain.events import UploadPartCreated
from sitebackup.domain.job import Job, Status, Task, Upload
from sitebackup.domain.plan import Plan
from tests.builders import BY_SERVICE

JOBS, AT_ONCE = 60, 8
PART_COUNTS = (10, 100, 1000, 10_000)
PART_BYTES = 1000
LIMIT_SECONDS = 240


@dataclass
class Run:
    """A local run with counters in front of MongoDB and Kafka."""

    api: str
    kafka: str
    jobs: MongoJobs
    mongo: Counter[str]
    process: psutil.Process

    def counted(self) -> tuple[Counter[str], Counter[str]]:
        """MongoDB commands and Kafka records so far."""
        return Counter(self.mongo), Counter(counting.kafka(self.kafka))

    def cpu(self) -> float:
        """CPU seconds of the function processes that run now."""
        total = 0.0
        for child in self.process.children(recursive=True):
            try:
                if "awslambdaric" in " ".join(child.cmdline()):
                    times = child.cpu_times()
                    total += times.user + times.system
            except psutil.Error:
                continue
        return total


@contextmanager
def local_run(folder: Path, s3: str | None = None, providers: str | None = None) -> Iterator[Run]:
    """Starts everything on free ports; `s3` and `providers` replace the local ones."""
    folder.mkdir()
    with ExitStack() as stack:
        kafka, mongo = Kafka(folder), Mongo(folder)
        servers = [kafka, mongo] if s3 else [kafka, mongo, S3(folder)]
        for server in servers:
            stack.callback(server.stop)
            server.start()
        for server in servers:
            server.wait_ready()
        port, counts = stack.enter_context(counting.mongo(mongo.port))
        ports = free_ports()
        environment = {
            **os.environ,
            **ports,
            "LOCAL_DIR": str(folder / "run"),
            "SERVICES": "external",
            "KAFKA_BOOTSTRAP_SERVERS": kafka.address,
            "MONGO_URI": f"mongodb://127.0.0.1:{port}/?directConnection=true",
            "S3_ENDPOINT_URL": s3 or servers[-1].address,
            "MOCK_PROVIDERS_DEFAULT_SIZE": "site=1000,db=1000",
        }
        if providers:
            environment["PROVIDERS"] = providers
        log = (folder / "run.log").open("wb")
        stack.enter_context(log)
        command = [sys.executable, "-m", "local", "up", "--foreground"]
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
        stack.callback(process.wait, 60)
        stack.callback(process.terminate)
        api = f"http://127.0.0.1:{ports['API_PORT']}"
        _until(lambda: (folder / "run/state.json").exists() or process.poll() is not None, 120)
        if process.poll() is not None:
            raise RuntimeError((folder / "run.log").read_text()[-2000:])
        client = pymongo.MongoClient[dict[str, Any]](mongo.address)
        stack.callback(client.close)
        repository = MongoJobs(client, "sitebackup")
        yield Run(api, kafka.address, repository, counts, psutil.Process(process.pid))


def measure(bench: Bench, _mib: int) -> dict[str, Any]:
    """Tiny jobs through everything, then parts of one task; both counted."""
    with local_run(bench.folder / "jobs") as run:
        found: dict[str, Any] = {"jobs": _jobs(run, bench)}
    found["parts"] = _parts(bench)
    found["starts"] = _starts(bench)
    return found


def _jobs(run: Run, bench: Bench) -> dict[str, Any]:
    session = requests.Session()
    session.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=2 * AT_ONCE))

    def create(_: int = 0) -> tuple[str, float]:
        body = {"userId": uuid.uuid4().hex[:24], "siteId": uuid.uuid4().hex[:24]}
        started = time.perf_counter()
        answer = session.post(f"{run.api}/backup", json=body, timeout=30)
        answer.raise_for_status()
        return str(answer.headers["Location"]).rpartition("/")[2], time.perf_counter() - started

    def read(job_id: str) -> tuple[str, float]:
        started = time.perf_counter()
        answer = session.get(f"{run.api}/backup/{job_id}", timeout=30)
        answer.raise_for_status()
        return str(answer.json()["status"]), time.perf_counter() - started

    def finished(job_ids: list[str], reads: list[float]) -> None:
        left = list(job_ids)
        limit = time.monotonic() + LIMIT_SECONDS
        while left:
            if time.monotonic() > limit:
                raise RuntimeError(f"{len(left)} of {len(job_ids)} jobs did not end")
            status, took = read(left[0])
            reads.append(took)
            if status == "done":
                left.pop(0)
            elif status in ("failed", "cancelled"):
                raise RuntimeError(f"job {left[0]} {status}")

    with ThreadPoolExecutor(AT_ONCE) as pool:
        warm = [job_id for job_id, _ in pool.map(create, range(2 * AT_ONCE))]
        finished(warm, [])
        before, cpu = run.counted(), run.cpu()
        started = time.perf_counter()
        made = list(pool.map(create, range(JOBS)))
        reads: list[float] = []
        finished([job_id for job_id, _ in made], reads)
        seconds = time.perf_counter() - started
        after = run.counted()
    mongo, kafka = after[0] - before[0], after[1] - before[1]
    looked = len(reads)
    mongo["find jobs"] -= looked  # those of this benchmark's own polling
    bench.say(f"control plane: {JOBS / seconds * 60:.0f} jobs a minute")
    return {
        "jobs": JOBS,
        "perMinute": JOBS / seconds * 60,
        "cpuPerJob": (run.cpu() - cpu) / JOBS,
        "createMs": _percentiles([took for _, took in made]),
        "getMs": _percentiles(reads),
        "mongoPerJob": {name: count / JOBS for name, count in sorted(mongo.items()) if count > 0},
        "kafkaPerJob": {name: count / JOBS for name, count in sorted(kafka.items()) if count > 0},
    }


def _percentiles(seconds: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(seconds, n=100)
    return {"p50": cuts[49] * 1000, "p95": cuts[94] * 1000, "p99": cuts[98] * 1000}


def _parts(bench: Bench) -> list[dict[str, Any]]:
    """Tasks of ever more parts: tiny ones, and S3 is the one that takes all, so that only their cost counts."""
    os.environ |= {
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_DEFAULT_REGION": REGION,
    }
    found, counts, providers = [], (300, *PART_COUNTS), []  # the first starts the processes
    with ExitStack() as stack:
        s3 = f"http://127.0.0.1:{stack.enter_context(module('sink', 'PORT'))}"
        for count in counts:  # each part is asked for under the total that its plan has
            export = bench.folder / f"{count}-parts.zip"
            export.write_bytes(bytes(count * PART_BYTES))
            origin = stack.enter_context(module("origin", str(export), "PORT"))
            url = f"http://127.0.0.1:{origin}/export.zip"
            providers.append(
                {
                    "name": _provider(count),
                    "exportUrl": url,
                    "format": "any",
                    "allowNetworks": ["127.0.0.0/8"],
                }
            )
        with local_run(bench.folder / "parts", s3, json.dumps(providers)) as run:
            for count in counts:
                figures = _task(run, s3, count)
                bench.say(f"control plane: {count} parts, {figures['msPerPart']:.1f} ms each")
                found.append(figures)
    return found[1:]


def _provider(count: int) -> str:
    return f"parts-{count}"


def _task(run: Run, s3: str, count: int) -> dict[str, Any]:
    now, name = datetime.now(UTC), _provider(count)
    job_id, user, site = (uuid.uuid4().hex[:24] for _ in range(3))
    plan = Plan(size=count * PART_BYTES, part_size=PART_BYTES, first_size=PART_BYTES, validator='"bench"')
    upload_id = storage(s3).create_upload(f"{user}/{site}/{job_id}/{name}.zip")
    window = min(count, 64)
    upload = Upload(upload_id=upload_id, plan=plan, attempt=1, dispatched=window)
    later = now + timedelta(hours=1)
    job = Job(
        id=job_id, user_id=user, site_id=site, status=Status.RUNNING, version=1,
        tasks={name: Task(status=Status.RUNNING, upload=upload, stalls_at=later, next_check_at=later)},
        created_at=now, updated_at=now, deadline_at=now + timedelta(hours=6),
    )  # fmt: skip
    run.jobs.add(job)
    before, cpu = run.counted(), run.cpu()
    started = time.perf_counter()
    bus = KafkaBus(run.kafka, {})
    bus.emit(
        [
            UploadPartCreated(task=job.ref(name), upload_id=upload_id, number=number)
            for number in range(1, window + 1)
        ]
    )
    _until(lambda: run.jobs.version_for(BY_SERVICE, job_id) is None or _ended(run, job_id), LIMIT_SECONDS)
    seconds = time.perf_counter() - started
    ended = run.jobs.get(job_id)
    if ended is None or ended.status is not Status.DONE:
        raise RuntimeError(f"the job of {count} parts ended as {ended}")
    after = run.counted()
    mongo, kafka = after[0] - before[0], after[1] - before[1]
    return {
        "parts": count,
        "msPerPart": seconds / count * 1000,
        "cpuMsPerPart": (run.cpu() - cpu) / count * 1000,
        "mongoPerPart": {name: value / count for name, value in sorted(mongo.items())},
        "kafkaPerPart": {name: value / count for name, value in sorted(kafka.items())},
        "documentBytes": len(msgspec.json.encode(ended)),
    }


def _ended(run: Run, job_id: str) -> bool:
    job = run.jobs.get(job_id)
    return job is None or job.status not in (Status.PENDING, Status.RUNNING)


def _starts(bench: Bench) -> list[dict[str, Any]]:
    """Each function's import in a fresh process, from the layer: median time, memory, the heaviest packages."""
    environment = {
        "PATH": os.environ["PATH"], "AWS_DEFAULT_REGION": REGION, "MONGO_URI": "mongodb://127.0.0.1:1",
        "PROVIDERS": '[{"name":"site","exportUrl":"http://127.0.0.1:1/"}]', "BACKUP_BUCKET": BUCKET,
        "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1", "POWERTOOLS_SERVICE_NAME": "bench",
        "POWERTOOLS_METRICS_NAMESPACE": "bench", "SCHEDULER_GROUP": "bench",
        "PYTHONPATH": bench.deployed.path, "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x",
    }  # fmt: skip
    # At its end a process would wait for the threads of its MongoDB client.
    peak = "open('/proc/self/status').read().split('VmHWM:')[1].split()[0]"
    ended = f"import os, app; print({peak}, flush=True); os._exit(0)"
    found = []
    for folder in sorted((ROOT / "functions").iterdir()):
        if not (folder / "app.py").exists():
            continue

        def python(
            *arguments: str, cwd: Path = folder, **more: str
        ) -> tuple[float, subprocess.CompletedProcess[str]]:
            started = time.perf_counter()
            done = subprocess.run(
                [*bench.deployed.python, *arguments], cwd=cwd, env=environment | more, capture_output=True,
                text=True, timeout=60, check=True,
            )  # fmt: skip
            return time.perf_counter() - started, done

        runs = [python("-c", ended) for _ in range(3)]
        compiling, _ = python("-c", ended, PYTHONPYCACHEPREFIX="/nonexistent", PYTHONDONTWRITEBYTECODE="1")
        heaviest = _heaviest(python("-X", "importtime", "-c", ended)[1].stderr)
        found.append(
            {
                "function": folder.name,
                "ms": statistics.median(seconds for seconds, _ in runs) * 1000,
                "compilingMs": compiling * 1000,
                "mb": int(runs[0][1].stdout.split()[-1]) * 1024 / 1e6,
                "heaviest": heaviest,
            }
        )
    bench.say("control plane: starts measured")
    return found


def _heaviest(importtime: str) -> dict[str, float]:
    """Milliseconds by top-level package, of the modules themselves: those of the three heaviest."""
    spent: Counter[str] = Counter()
    for line in importtime.splitlines():
        fields = line.removeprefix("import time:").split("|")
        if len(fields) == 3 and fields[0].strip().isdigit():
            spent[fields[2].strip().partition(".")[0]] += int(fields[0])
    return {name: value / 1000 for name, value in spent.most_common(4) if name != "app"}


def _until(condition: Callable[[], bool], limit: float) -> None:
    end = time.monotonic() + limit
    while not condition():
        if time.monotonic() > end:
            raise RuntimeError(f"not within {limit:.0f} s")
        time.sleep(0.05)
