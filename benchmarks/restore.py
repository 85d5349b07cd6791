"""An object from S3 into an import API: the restore_provider function, beside clients that pipe into a `PUT`."""

import asyncio
import base64
import json
import uuid
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import perf_counter
from typing import Any
from urllib.parse import urlsplit

import pymongo
from awscrt import checksums

from benchmarks import clients, counting
from benchmarks.clients import Client, Job, environment
from benchmarks.function import batch, cpu_quota, cpu_seconds, invoke, load_function
from benchmarks.measure import Cost, summary
from benchmarks.servers import module
from benchmarks.transfer import MB_PER_CPU, MEMORIES, MIB, Bench
from local.lambda_runtime.execution_environment import ExecutionEnvironment
from local.services.processes import memory
from local.services.s3 import BUCKET, s3_client
from sitebackup.adapters.mongo.restores import MongoRestores
from sitebackup.domain.events import RestoreTaskCreated
from sitebackup.domain.job import StoredObject
from sitebackup.domain.restore import Restore, RestoreStatus, RestoreTask
from sitebackup.domain.task_ref import RestoreRef
from sitebackup.restore.restore_provider import SLICE_BYTES

KEY = f"{1:024x}/{2:024x}/{3:024x}/site.zip"


class RestoreProviderFunction:
    """Runs the function, warm, on a real MongoDB; `commands` are those of all its runs so far."""

    def __init__(self, bench: Bench, mongo_port: int, commands: Counter[str]) -> None:
        """`mongo_port` is that of the counter before MongoDB."""
        self._bench, self._port, self.commands = bench, mongo_port, commands
        client = pymongo.MongoClient[dict[str, Any]](bench.function.mongo)
        self._restores = MongoRestores(client, "sitebackup")
        self.quota: float | None = None
        """CPUs the process may use; None for all."""

    def client(self, stored: StoredObject, path: str = "plain") -> Client:
        """Gives the object back to the import API's `path`."""
        return lambda job: asyncio.run(self._give_back(job, stored, path))

    async def _give_back(self, job: Job, stored: StoredObject, path: str) -> Cost:
        """From the record to the task that is done. Raises RuntimeError if that is not its end."""
        provider = {
            "name": "site",
            "exportUrl": job.export,
            "importUrl": f"{job.importing}/{path}",
            "allowNetworks": ["127.0.0.0/8"],
        }
        parameters = {
            "Providers": json.dumps([provider]),
            "KafkaBootstrapServers": self._bench.function.kafka,
            "MongoUri": f"mongodb://127.0.0.1:{self._port}/?directConnection=true",
            "S3EndpointUrl": job.s3,
        }
        deployed = self._bench.deployed
        function, _ = load_function("RestoreProviderFunction", parameters, deployed)
        settings = {name: value for name, value in environment(job).items() if name != "PATH"}
        process = ExecutionEnvironment(function, settings, deployed.python)
        try:
            await invoke(process, _record(uuid.uuid4().hex[:24]))  # of no restore: it connects to MongoDB
            pid = int(process.describe()["pid"])
            restore = self._begun(stored)
            with cpu_quota(pid, self.quota):
                self.commands.clear()
                started, cpu = perf_counter(), cpu_seconds(pid)
                await invoke(process, _record(restore.id))
                cost = Cost(perf_counter() - started, cpu_seconds(pid) - cpu, memory(pid)[1])
        finally:
            await process.stop()
        ended = self._restores.get(restore.id)
        if ended is None or ended.status is not RestoreStatus.DONE:
            raise RuntimeError(f"the restore did not get done: {ended}")
        return cost

    def _begun(self, stored: StoredObject) -> Restore:
        """A new restore that may send."""
        now = datetime.now(UTC)
        user, site, job, restore = (uuid.uuid4().hex[:24] for _ in range(4))
        begun = Restore(
            id=restore, user_id=user, site_id=site, source_site_id=site, job_id=job, version=1,
            status=RestoreStatus.RUNNING, tasks={"site": RestoreTask(object=stored)}, safety_backup=False,
            created_at=now, updated_at=now, started_at=now, deadline_at=now + timedelta(days=1),
        )  # fmt: skip
        self._restores.add(begun)
        return begun


def measure(bench: Bench, mib: int) -> dict[str, Any]:
    """From SeaweedFS, from a server that gives everything at no cost, and from that by memory size over https."""
    found: dict[str, Any] = {"sliceBytes": SLICE_BYTES}
    blob, small = bench.blob(mib), bench.blob(1)
    with counting.mongo(urlsplit(bench.function.mongo).port or 0) as (port, commands):
        function = RestoreProviderFunction(bench, port, commands)
        with module("imports", "PORT") as imports, bench.seaweed() as s3:
            job = _job(bench, s3, f"http://127.0.0.1:{imports}", mib)
            stored = _store(s3, small)
            function.client(stored)(replace(job, size=MIB))
            of_task = dict(commands)
            stored = _store(s3, blob)
            found["seaweedfs"] = _compare(bench, "restore", job, function, stored)
        slices = -(-stored.size // SLICE_BYTES)
        with module("imports", "PORT") as imports, module("origin", blob, "PORT") as origin:
            job = _job(bench, f"http://127.0.0.1:{origin}", f"http://127.0.0.1:{imports}", mib)
            found["null"] = _compare(bench, "restore, null", job, function, stored)
            function.client(stored)(job)
            of_slice = {
                name: (count - of_task.get(name, 0)) / (slices - 1) for name, count in commands.items()
            }
            found["mongo"] = {"task": of_task, "slice": of_slice}
        found["memory"] = _by_memory(bench, mib // 2, function)
    return found


def _compare(
    bench: Bench, title: str, job: Job, function: RestoreProviderFunction, stored: StoredObject
) -> dict[str, Any]:
    """Each client once a round, in turn first."""
    which: dict[str, Client] = {
        clients.RESTORE: function.client(stored),
        clients.RESTORE_CHECKED: function.client(stored, "checked"),
        **clients.peers(clients.GIVING_BACK),
    }
    costs: dict[str, list[Cost]] = {name: [] for name in which}
    for number in range(bench.rounds):
        names = list(which)[number % len(which) :] + list(which)[: number % len(which)]
        for name in names:
            cost = which[name](job)
            costs[name].append(cost)
            bench.say(f"{title}, round {number + 1}: {name} {job.size / 1e6 / cost.seconds:.0f} MB/s")
    figures = {name: summary(found, job.size) for name, found in costs.items()}
    return {"mib": job.size // MIB, "rounds": bench.rounds, "clients": figures}


def _by_memory(bench: Bench, mib: int, function: RestoreProviderFunction) -> list[dict[str, Any]]:
    """The function under the CPU that Lambda gives at each memory size; [] where that can't be had."""
    costs: dict[int, list[Cost]] = {size: [] for size in MEMORIES}
    tls, blob = bench.tls, bench.blob(mib)
    stored = stored_as(blob, None)
    with (
        module("origin", blob, "PORT", tls.certificate, tls.key) as origin,
        module("imports", "PORT", tls.certificate, tls.key) as imports,
    ):
        job = _job(bench, f"https://127.0.0.1:{origin}", f"https://127.0.0.1:{imports}", mib)
        job = replace(job, certificate=tls.certificate)
        for number in range(bench.rounds):
            for size in MEMORIES:
                function.quota = size / MB_PER_CPU
                try:
                    costs[size].append(function.client(stored)(job))
                except OSError as error:
                    bench.say(f"no restore by memory: {error}")
                    return []
                finally:
                    function.quota = None
            bench.say(f"restore by memory: round {number + 1} done")
    return [{"memory": size, **summary(those, job.size)} for size, those in costs.items()]


def _job(bench: Bench, s3: str, importing: str, mib: int) -> Job:
    url = s3_client(s3).generate_presigned_url("get_object", Params={"Bucket": BUCKET, "Key": KEY})
    return Job(url, s3, KEY, mib * MIB, bench.folder, importing=importing)


def _store(s3: str, blob: Path) -> StoredObject:
    client = s3_client(s3)
    client.upload_file(str(blob), BUCKET, KEY)
    return stored_as(blob, client.head_object(Bucket=BUCKET, Key=KEY).get("VersionId"))


def stored_as(blob: Path, version: str | None) -> StoredObject:
    """The file as a backup that lies at KEY."""
    crc = 0
    with blob.open("rb") as file:
        while data := file.read(MIB):
            crc = checksums.crc64nvme(data, crc)
    return StoredObject(
        bucket=BUCKET,
        key=KEY,
        version_id=version,
        size=blob.stat().st_size,
        checksum_crc64nvme=base64.b64encode(crc.to_bytes(8, "big")).decode(),
    )


def _record(restore_id: str) -> dict[str, Any]:
    ref = RestoreRef(restore_id=restore_id, attempt=1)
    return batch([RestoreTaskCreated(task=ref.task("site"))])
