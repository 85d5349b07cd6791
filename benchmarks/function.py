"""A function in its runtime process, as one more client: here upload_part."""

import asyncio
import base64
import json
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import perf_counter
from typing import Any

import msgspec
import pymongo
import requests

from benchmarks.clients import PART_MIB, Job, environment
from benchmarks.deployed import Deployed
from benchmarks.measure import Cost
from benchmarks.servers import ROOT
from local.lambda_runtime.execution_environment import ExecutionEnvironment
from local.services.kafka import Kafka
from local.services.mongo import Mongo
from local.services.processes import memory
from local.services.s3 import BUCKET, s3_client
from local.template.model import Function, KafkaMapping
from local.template.reader import load
from sitebackup.adapters.mongo.indexes import create_job_indexes
from sitebackup.adapters.mongo.jobs import MongoJobs
from sitebackup.adapters.mongo.parts import MongoParts
from sitebackup.adapters.s3.storage import S3Storage
from sitebackup.adapters.topics import topic_of
from sitebackup.domain.events import Event, UploadPartCreated
from sitebackup.domain.job import Job as Backup
from sitebackup.domain.job import Part, Status, Task, Upload
from sitebackup.domain.plan import MIB, plan_parts
from sitebackup.domain.task_ref import TaskRef
from sitebackup.transfer.checksums import combine_crcs

TICKS = os.sysconf("SC_CLK_TCK")


class UploadPartFunction:
    """Runs the function on real Kafka and MongoDB; records come in the batches of its mapping, one after another."""

    def __init__(self, kafka: str, mongo: str, deployed: Deployed) -> None:
        self.kafka, self.mongo, self._deployed = kafka, mongo, deployed
        client = pymongo.MongoClient[dict[str, Any]](mongo)
        create_job_indexes(client["sitebackup"])
        self._jobs = MongoJobs(client, "sitebackup")
        self._parts = MongoParts(client, "sitebackup")
        self.quota: float | None = None
        """CPUs the process may use; None for all."""

    def __call__(self, job: Job) -> Cost:
        """One export through a warm function, from its first batch until the object is complete."""
        backup, upload, storage = self._prepare(job)
        function, batch_size = self._function(job)
        settings = {name: value for name, value in environment(job).items() if name != "PATH"}
        return asyncio.run(self._move(job, backup, upload, storage, function, batch_size, settings))

    async def _move(
        self,
        job: Job,
        backup: Backup,
        upload: Upload,
        storage: S3Storage,
        function: Function,
        batch_size: int,
        settings: Mapping[str, str],
    ) -> Cost:
        assert upload.plan is not None
        process = ExecutionEnvironment(function, settings, self._deployed.python)
        try:
            await self._invoke(process, *self._done_already(backup), [1])
            pid = int(process.describe()["pid"])
            with cpu_quota(pid, self.quota):
                started, cpu = perf_counter(), cpu_seconds(pid)
                numbers = range(1, upload.plan.parts + 1)
                for first in range(0, len(numbers), batch_size):
                    await self._invoke(process, backup, upload, numbers[first : first + batch_size])
                used = cpu_seconds(pid) - cpu
                parts = sorted(self._parts.done(upload.upload_id), key=lambda part: part.number)
                storage.complete(job.key, upload.upload_id, upload.plan, parts, combine_crcs(parts))
                seconds = perf_counter() - started
            return Cost(seconds, used, memory(pid)[1])
        finally:
            await process.stop()

    def _prepare(self, job: Job) -> tuple[Backup, Upload, S3Storage]:
        answer = requests.head(
            job.export, timeout=10, verify=str(job.certificate) if job.certificate else True
        )
        plan = plan_parts(job.size, PART_MIB * MIB, answer.headers["ETag"])
        os.environ.pop("AWS_CA_BUNDLE", None)
        if job.certificate:
            os.environ["AWS_CA_BUNDLE"] = str(job.certificate)
        storage = S3Storage(s3_client(job.s3), BUCKET)
        upload = Upload(upload_id=storage.create_upload(job.key), plan=plan, attempt=1, dispatched=plan.parts)
        user, site, number, name = job.key.removesuffix(".zip").split("/")
        now = datetime.now(UTC)
        backup = Backup(
            id=number, user_id=user, site_id=site, status=Status.RUNNING, version=1,
            tasks={name: Task(status=Status.RUNNING, upload=upload)}, created_at=now, updated_at=now,
            deadline_at=now + timedelta(hours=6),
        )  # fmt: skip
        self._jobs.add(backup)
        return backup, upload, storage

    def _done_already(self, backup: Backup) -> tuple[Backup, Upload]:
        """A backup whose only part needs no moving: what warms the function's connections to Kafka and MongoDB."""
        upload = Upload(
            upload_id=uuid.uuid4().hex, plan=plan_parts(1, PART_MIB * MIB, '"bench"'), attempt=1, dispatched=1
        )
        number, site = uuid.uuid4().hex[:24], uuid.uuid4().hex[:24]
        tasks = {"site": Task(status=Status.RUNNING, upload=upload)}
        warm = backup.replace(id=number, site_id=site, tasks=tasks)
        self._jobs.add(warm)
        self._parts.save(upload.upload_id, Part(number=1, length=1, etag="", crc64nvme=""), backup.created_at)
        return warm, upload

    def _function(self, job: Job) -> tuple[Function, int]:
        parameters = {
            "Providers": json.dumps(
                [{"name": "site", "exportUrl": job.export, "allowNetworks": ["127.0.0.0/8"]}]
            ),
            "KafkaBootstrapServers": self.kafka,
            "MongoUri": self.mongo,
            "S3EndpointUrl": job.s3,
        }
        return load_function("UploadPartFunction", parameters, self._deployed)

    async def _invoke(
        self, process: ExecutionEnvironment, backup: Backup, upload: Upload, numbers: Sequence[int]
    ) -> None:
        await invoke(process, event(backup.id, upload.upload_id, numbers))


def load_function(name: str, parameters: Mapping[str, str], deployed: Deployed) -> tuple[Function, int]:
    """A function of the template on the deployed layer, and the batch size of its mapping."""
    fixed = {
        "BackupBucketName": BUCKET,
        "KafkaAuth": "none",
        "MskClusterArn": "arn:aws:kafka:us-east-1:123456789012:cluster/local/local",
    }
    template = load(ROOT / "template.yaml", {**fixed, **parameters})
    mapping: KafkaMapping = next(found for found in template.mappings if found.function == name)
    layers = (deployed.layer, deployed.runtime)
    return replace(template.functions[name], layers=layers), mapping.batch_size


async def invoke(process: ExecutionEnvironment, batch: dict[str, Any]) -> None:
    """Hands it a batch of records. Raises RuntimeError if one of them fails."""
    result = await process.invoke(str(uuid.uuid4()), json.dumps(batch).encode(), "Root=1-0-0;Sampled=0")
    if result.outcome.failed or json.loads(result.outcome.payload)["batchItemFailures"]:
        said = result.log_tail.decode(errors="replace")[-1500:]
        raise RuntimeError(f"{process.function.folder} failed: {said}")


def event(job_id: str, upload_id: str, numbers: Sequence[int]) -> dict[str, Any]:
    """A batch of parts as Lambda hands it to the function."""
    task = TaskRef(job_id=job_id, attempt=1, provider="site")
    return batch([UploadPartCreated(task=task, upload_id=upload_id, number=number) for number in numbers])


def batch(events: Sequence[Event]) -> dict[str, Any]:
    """Events of one kind as Lambda hands them to their function."""
    topic = topic_of(events[0])
    records = [
        {
            "topic": topic,
            "partition": 0,
            "offset": offset,
            "timestamp": 0,
            "timestampType": "CREATE_TIME",
            "value": base64.b64encode(msgspec.json.encode(event)).decode(),
            "headers": [],
        }
        for offset, event in enumerate(events)
    ]
    return {"eventSource": "aws:kafka", "records": {f"{topic}-0": records}}


def cpu_seconds(pid: int) -> float:
    """User and system time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


@contextmanager
def cpu_quota(pid: int, cpus: float | None) -> Iterator[None]:
    """Lets a process use so many CPUs, as Lambda does by memory. Raises OSError where cgroups can't be made."""
    if cpus is None:
        yield
        return
    root, period = Path("/sys/fs/cgroup"), 20_000
    old = (root / "cpu/cpu.shares").exists()
    group = root / ("cpu" if old else ".") / f"site-backup-bench-{os.getpid()}"
    group.mkdir()
    try:
        if old:
            (group / "cpu.cfs_period_us").write_text(str(period))
            (group / "cpu.cfs_quota_us").write_text(str(int(period * cpus)))
        else:
            (group / "cpu.max").write_text(f"{int(period * cpus)} {period}")
        (group / "cgroup.procs").write_text(str(pid))
        yield
    finally:
        (group.parent / "cgroup.procs").write_text(str(pid))
        group.rmdir()


@contextmanager
def services(folder: Path, deployed: Deployed) -> Iterator[UploadPartFunction]:
    """The function as a client, with Kafka and MongoDB running."""
    kafka, mongo = Kafka(folder), Mongo(folder)
    try:
        kafka.start()
        mongo.start()
        kafka.wait_ready()
        mongo.wait_ready()
        yield UploadPartFunction(kafka.address, mongo.address, deployed)
    finally:
        kafka.stop()
        mongo.stop()
