"""A stored zip that is opened: the drill_backup function on a server that gives every byte at no cost."""

import asyncio
import uuid
import zipfile
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import perf_counter
from typing import Any

import pymongo

from benchmarks.clients import Job, environment
from benchmarks.function import batch, cpu_quota, cpu_seconds, invoke, load_function
from benchmarks.measure import Cost, summary
from benchmarks.restore import KEY, stored_as
from benchmarks.servers import module
from benchmarks.transfer import MB_PER_CPU, MEMORIES, MIB, Bench
from local.lambda_runtime.execution_environment import ExecutionEnvironment
from local.services.processes import memory
from sitebackup.adapters.mongo.jobs import MongoJobs
from sitebackup.domain import job as jobs
from sitebackup.domain.drill import Drilling, DrillState
from sitebackup.domain.events import DrillCreated
from sitebackup.domain.job import StoredObject
from sitebackup.domain.task_ref import TaskRef
from sitebackup.drills.open_object import SLICE_BYTES

MEMBER_MIB = 8


def measure(bench: Bench, mib: int) -> dict[str, Any]:
    """Members that are stored and members that are deflated, of bytes that halve; then by memory size, over https."""
    found: dict[str, Any] = {"sliceBytes": SLICE_BYTES, "mib": mib, "rounds": bench.rounds}
    for name, method in (("stored", zipfile.ZIP_STORED), ("deflated", zipfile.ZIP_DEFLATED)):
        path = _zip(bench, mib, method)
        stored = stored_as(path, None)
        with module("origin", path, "PORT") as origin:
            costs = [_open(bench, f"http://127.0.0.1:{origin}", stored) for _ in range(bench.rounds)]
        found[name] = summary(costs, stored.size)
        bench.say(f"drill of {name} members: {found[name]['mbps']:.0f} MB/s, {found[name]['rss']:.0f} MB")
    found["memory"] = _by_memory(bench, mib // 2)
    return found


def _by_memory(bench: Bench, mib: int) -> list[dict[str, Any]]:
    """The function under the CPU that Lambda gives at each memory size; [] where that can't be had."""
    costs: dict[int, list[Cost]] = {size: [] for size in MEMORIES}
    path = _zip(bench, mib, zipfile.ZIP_DEFLATED)
    stored = stored_as(path, None)
    with module("origin", path, "PORT", bench.tls.certificate, bench.tls.key) as origin:
        for _ in range(bench.rounds):
            for size in MEMORIES:
                try:
                    costs[size].append(
                        _open(bench, f"https://127.0.0.1:{origin}", stored, quota=size / MB_PER_CPU)
                    )
                except OSError as error:
                    bench.say(f"no drill by memory: {error}")
                    return []
            bench.say("drill by memory: a round is done")
    return [{"memory": size, **summary(those, stored.size)} for size, those in costs.items()]


def _zip(bench: Bench, mib: int, method: int) -> Path:
    """About so many MiB, once deflated: half of each member is random."""
    path = bench.folder / f"zip-{mib}-{method}"
    source, half = bench.blob(MEMBER_MIB // 2).read_bytes(), bytes(MEMBER_MIB // 2 * MIB)
    members = mib // (MEMBER_MIB if method == zipfile.ZIP_STORED else MEMBER_MIB // 2)
    with zipfile.ZipFile(path, "w", method, compresslevel=1) as archive:
        for number in range(members):
            mixed = b"".join(source[at : at + 512] + half[at : at + 512] for at in range(0, len(source), 512))
            archive.writestr(f"{number}.bin", mixed)
    return path


def _open(bench: Bench, s3: str, stored: StoredObject, quota: float | None = None) -> Cost:
    job = Job("", s3, KEY, stored.size, bench.folder)
    if s3.startswith("https"):
        job = replace(job, certificate=bench.tls.certificate)
    return asyncio.run(_drill(bench, job, stored, quota))


async def _drill(bench: Bench, job: Job, stored: StoredObject, quota: float | None) -> Cost:
    """From the record to the result. Raises RuntimeError if that is not `ok`."""
    parameters = {
        "Providers": '[{"name": "site", "exportUrl": "http://127.0.0.1:1"}]',
        "KafkaBootstrapServers": bench.function.kafka,
        "MongoUri": bench.function.mongo,
        "S3EndpointUrl": job.s3,
    }
    function, _ = load_function("DrillBackupFunction", parameters, bench.deployed)
    settings = {name: value for name, value in environment(job).items() if name != "PATH"}
    process = ExecutionEnvironment(function, settings, bench.deployed.python)
    with pymongo.MongoClient[dict[str, Any]](bench.function.mongo, tz_aware=True) as client:
        store = MongoJobs(client, "sitebackup")
        try:
            await invoke(process, _record(uuid.uuid4().hex[:24]))  # of no job: it connects to MongoDB
            pid = int(process.describe()["pid"])
            begun = _begun(store, stored)
            with cpu_quota(pid, quota):
                started, cpu = perf_counter(), cpu_seconds(pid)
                await invoke(process, _record(begun.id))
                cost = Cost(perf_counter() - started, cpu_seconds(pid) - cpu, memory(pid)[1])
        finally:
            await process.stop()
        ended = store.get(begun.id)
    drill = ended.tasks["site"].drill if ended else None
    if drill is None or drill.state is not DrillState.OK:
        raise RuntimeError(f"the backup was not opened: {drill}")
    return cost


def _begun(store: MongoJobs, stored: StoredObject) -> jobs.Job:
    """A done job whose drill waits for a worker."""
    now = datetime.now(UTC)
    user, site, job = (uuid.uuid4().hex[:24] for _ in range(3))
    drilling = Drilling(next_check_at=now + timedelta(minutes=1))
    task = jobs.Task(status=jobs.Status.DONE, object=stored, finished_at=now, drilling=drilling)
    begun = jobs.Job(
        id=job, user_id=user, site_id=site, status=jobs.Status.DONE, version=1, tasks={"site": task},
        created_at=now, updated_at=now, deadline_at=now, finished_at=now, sealed_at=now,
    )  # fmt: skip
    store.add(begun)
    return begun


def _record(job_id: str) -> dict[str, Any]:
    return batch([DrillCreated(task=TaskRef(job_id=job_id, attempt=1, provider="site"))])
