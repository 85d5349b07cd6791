"""What `clean_up` and `sweep_jobs` take on a second: each in its runtime process, on Kafka, MongoDB and S3 here."""

import asyncio
import json
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import AsyncExitStack, ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import batched
from typing import Any

import pymongo
from pymongo.collection import Collection

from benchmarks import counting
from benchmarks.function import cpu_seconds
from benchmarks.servers import ROOT
from benchmarks.transfer import Bench
from local.aws_account import ACCESS_KEY, REGION, SECRET_KEY
from local.lambda_runtime.execution_environment import ExecutionEnvironment
from local.services.kafka import Kafka
from local.services.mongo import Mongo
from local.services.s3 import BUCKET, S3, s3_client
from local.template.model import Template
from local.template.reader import load
from sitebackup.adapters.mongo.documents import site_document
from sitebackup.adapters.mongo.indexes import create_job_indexes
from sitebackup.domain.job import Job, Status, StoredObject, Task
from sitebackup.domain.progress import Progress

JOBS = 300
PROVIDERS = ("site", "db")
DAY = timedelta(days=1)
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": ACCESS_KEY,
    "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
    "AWS_REGION": REGION,
    "AWS_DEFAULT_REGION": REGION,
}

type Jobs = Collection[dict[str, Any]]


def measure(bench: Bench, _mib: int) -> dict[str, Any]:
    """Backups that expire at the same moment, each beside a newer one, on to their end; then as many stalled jobs."""
    folder = bench.folder / "clean-up"
    folder.mkdir()
    with ExitStack() as stack:
        kafka, mongo, s3 = Kafka(folder), Mongo(folder), S3(folder)
        for server in (kafka, mongo, s3):
            stack.callback(server.stop)
            server.start()
        for server in (kafka, mongo, s3):
            server.wait_ready()
        port, commands = stack.enter_context(counting.mongo(mongo.port))
        listed = [{"name": name, "exportUrl": "http://127.0.0.1:1/"} for name in PROVIDERS]
        parameters = {
            "Providers": json.dumps(listed),
            "BackupBucketName": BUCKET,
            "KafkaBootstrapServers": kafka.address,
            "KafkaAuth": "none",
            "MskClusterArn": "arn:aws:kafka:us-east-1:123456789012:cluster/local/local",
            "MongoUri": f"mongodb://127.0.0.1:{port}/?directConnection=true",
            "S3EndpointUrl": s3.address,
        }
        template = load(ROOT / "template.yaml", parameters)
        client = stack.enter_context(pymongo.MongoClient[dict[str, Any]](mongo.address))
        create_job_indexes(client["sitebackup"])
        found = asyncio.run(_all(bench, template, client["sitebackup"]["jobs"], s3.address, commands))
    return {"jobs": JOBS, "providers": len(PROVIDERS), "passes": found}


async def _all(
    bench: Bench, template: Template, jobs: Jobs, s3: str, commands: Counter[str]
) -> list[dict[str, Any]]:
    found = list[dict[str, Any]]()
    async with AsyncExitStack() as stack:
        environments: dict[str, list[ExecutionEnvironment]] = {}
        for name in ("CleanUpFunction", "SweepJobsFunction"):
            layers = (bench.deployed.layer, bench.deployed.runtime)
            function = replace(template.functions[name], layers=layers)
            environments[name] = [
                ExecutionEnvironment(function, CREDENTIALS, bench.deployed.python) for _ in range(2)
            ]
            for environment in environments[name]:
                stack.push_async_callback(environment.stop)
                await _invoke(environment)  # warm, and nothing is due yet

        async def run(what: str, name: str, at_once: int) -> None:
            figures = await _measured(environments[name][:at_once], commands)
            found.append({"what": what, "function": name, "atOnce": at_once, **figures})
            bench.say(f"clean-up: {what}, {at_once} at once: {figures['perSecond']:.0f} a second")

        for at_once in (1, 2):
            _insert(jobs, _expiring(s3))
            await run("expire", "CleanUpFunction", at_once)
            _age(jobs, "deleteAt")
            await run("remove", "CleanUpFunction", at_once)
            _age(jobs, "deletedAt")
            await run("forget", "CleanUpFunction", at_once)
            jobs.delete_many({})
            _insert(jobs, [_stalled() for _ in range(JOBS)])
            await run("check", "SweepJobsFunction", at_once)
            jobs.delete_many({})
    return found


async def _measured(environments: list[ExecutionEnvironment], commands: Counter[str]) -> dict[str, float]:
    pids = [int(environment.describe()["pid"]) for environment in environments]
    before, cpu = commands.total(), sum(map(cpu_seconds, pids))
    started = time.perf_counter()
    done = await asyncio.gather(*map(_invoke, environments))
    seconds = time.perf_counter() - started
    if sum(done) != JOBS:
        raise RuntimeError(f"the passes took on {done} jobs, not {JOBS}")
    return {
        "perSecond": JOBS / seconds,
        "cpuMs": (sum(map(cpu_seconds, pids)) - cpu) / JOBS * 1000,
        "mongo": (commands.total() - before) / JOBS,
    }


async def _invoke(environment: ExecutionEnvironment) -> int:
    """One scheduled pass; how many jobs it took on."""
    result = await environment.invoke(str(uuid.uuid4()), b"{}", "Root=1-0-0;Sampled=0")
    if result.outcome.failed:
        raise RuntimeError(f"a pass failed: {result.log_tail.decode(errors='replace')[-1500:]}")
    (taken,) = json.loads(result.outcome.payload).values()
    return int(taken)


def _insert(jobs: Jobs, new: Iterable[Job]) -> None:
    for some in batched(new, 100):
        jobs.insert_many([site_document(job) for job in some])


def _age(jobs: Jobs, since: str) -> None:
    """Lets the jobs that have this time be due now: a time two years ago it was, and its span is over."""
    long_ago = datetime.now(UTC) - 730 * DAY
    jobs.update_many({since: {"$exists": True}}, {"$set": {since: long_ago, "cleanUpAt": long_ago}})


def _expiring(s3: str) -> Iterator[Job]:
    """Backups with their objects, due to expire, and for each a newer one that makes it dispensable."""
    client, then = s3_client(s3), datetime.now(UTC) - 800 * DAY
    for _ in range(JOBS):
        job = Job(
            id=_id(), user_id=_id(), site_id=_id(), status=Status.DONE, version=5, tasks={}, created_at=then,
            updated_at=then, deadline_at=then, finished_at=then, sealed_at=then, expires_after_days=1,
            clean_up_at=then + DAY,
        )  # fmt: skip
        tasks = {}
        for name in PROVIDERS:
            key = job.key(name)
            version = client.put_object(Bucket=BUCKET, Key=key, Body=b"zip")["VersionId"]
            stored = StoredObject(
                bucket=BUCKET, key=key, size=3, checksum_crc64nvme="AAAAAAAAAAA=", version_id=version
            )
            tasks[name] = Task(
                status=Status.DONE, object=stored, progress=Progress(bytes=3), runs=1, finished_at=then
            )
        yield job.replace(tasks=tasks)
        newer = {name: task.replace(finished_at=then + DAY) for name, task in tasks.items()}
        yield job.replace(id=_id(), tasks=newer, finished_at=then + DAY, clean_up_at=None)


def _stalled() -> Job:
    now = datetime.now(UTC) - timedelta(seconds=1)
    task = Task(next_check_at=now, stalls_at=now)
    return Job(
        id=_id(), user_id=_id(), site_id=_id(), status=Status.PENDING, version=1,
        tasks=dict.fromkeys(PROVIDERS, task), created_at=now, updated_at=now, deadline_at=now + DAY,
        next_check_at=now,
    )  # fmt: skip


def _id() -> str:
    return uuid.uuid4().hex[:24]
