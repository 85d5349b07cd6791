"""The use cases on a real Mongo and a real S3, with the clock, Kafka and the exports in the test's hands."""

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import batched, count
from typing import Any

from pymongo import MongoClient

from local.aws_account import ACCESS_KEY, REGION, SECRET_KEY
from local.services.s3 import BUCKET, s3_client
from mock_providers.archive import Archive
from sitebackup.adapters.mongo.connection import connect
from sitebackup.adapters.mongo.documents import site_document
from sitebackup.adapters.mongo.indexes import create_job_indexes
from sitebackup.adapters.mongo.jobs import MongoJobs
from sitebackup.adapters.mongo.parts import MongoParts
from sitebackup.adapters.mongo.quotas import MongoQuotas
from sitebackup.adapters.mongo.restores import MongoRestores
from sitebackup.adapters.mongo.schedules import MongoSchedules
from sitebackup.adapters.mongo.sites import MongoSites
from sitebackup.adapters.production import ProductionAdapters
from sitebackup.adapters.s3.links import S3Links, Signer, signer
from sitebackup.adapters.s3.storage import S3Storage
from sitebackup.backup.create_job import CreateBackup
from sitebackup.bootstrap import Bootstrap, Runtime
from sitebackup.domain.events import (
    DrillCreated,
    Event,
    PartUpdated,
    RestoreTaskCreated,
    TaskUpdated,
    UploadJobCreated,
    UploadPartCreated,
)
from sitebackup.domain.job import Job
from sitebackup.domain.manifest import manifest_of
from sitebackup.domain.provider import Provider
from sitebackup.domain.restore import Restore
from sitebackup.ports.providers import ExportApi, ImportApi
from sitebackup.ports.repositories import (
    JobRepository,
    PartRepository,
    QuotaRepository,
    RestoreRepository,
    ScheduleRepository,
    SiteRepository,
)
from sitebackup.ports.runtime import Clock
from sitebackup.ports.storage import DownloadLinks, ObjectStorage
from sitebackup.settings import Settings
from tests.builders import BY_SERVICE, LOOPBACK
from tests.fakes.bus import MemoryBus
from tests.fakes.exports import MemoryExport, MemoryExports

MIB = 1024 * 1024
EXPORT_URL = "http://127.0.0.1:1"
START = datetime(2030, 1, 31, 12, tzinfo=UTC)
GRACE = timedelta(days=1, seconds=1)
DELETE_GRACE = timedelta(days=7, seconds=1)
_numbers = count(1)


def an_id(seed: object = None) -> str:
    """24 hex digits; the same for the same seed."""
    return hashlib.sha256(repr(seed or next(_numbers)).encode()).hexdigest()[:24]


def a_zip(provider: str, size: int) -> bytes:
    """A zip of exactly so many bytes."""
    return Archive(provider, an_id("user"), an_id("site"), size).read(0, size)


def _signer(s3: str | None) -> Signer:
    """Signs for the local server at this address."""
    return signer(
        BUCKET,
        s3,
        region_name=REGION,
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
    )


@dataclass
class StackAdapters:
    """The real ones, but for Kafka and, if they have no URL, the exports."""

    providers: Mapping[str, Provider]
    jobs: JobRepository
    parts: PartRepository
    schedules: ScheduleRepository
    exports: ExportApi
    imports: ImportApi
    restores: RestoreRepository
    sites: SiteRepository
    quotas: QuotaRepository
    storage: ObjectStorage
    links: DownloadLinks
    bus: MemoryBus


class Stack(Bootstrap):
    """Everything as the functions wire it, with time in the test's hands."""

    def __init__(
        self,
        mongo: str,
        s3: str | None,
        database: str,
        *,
        export_url: str | None = None,
        s3_endpoint_url: str | None = None,
        **variables: str,
    ) -> None:
        """`mongo` and `s3` are addresses; `s3_endpoint_url` is where the use cases find S3, if it is another.

        `variables` are those of the functions' environment that differ.
        """
        query = "userId={userId}&siteId={siteId}"
        url = export_url or EXPORT_URL
        providers = [
            {
                "name": name,
                "exportUrl": f"{url}/{name}/export?{query}",
                "importUrl": f"{url}/{name}/import",
                "importStatus": True,
                "allowNetworks": LOOPBACK,
            }
            for name in ("site", "db")
        ]
        settings = Settings.from_env(
            {
                "PROVIDERS": json.dumps(providers),
                "BACKUP_BUCKET": BUCKET,
                "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
                "MONGO_URI": mongo,
                "MONGO_DATABASE": database,
                "PART_SIZE_MIB": "5",
                "EXPORT_TIMEOUT_SECONDS": "8",
                **({"S3_ENDPOINT_URL": s3_endpoint_url} if s3_endpoint_url else {}),
                **variables,
            }
        )
        self.clock = START
        self.now: Callable[[], datetime] = lambda: self.clock
        self.sleep: Callable[[float], None] = time.sleep
        self.bag = MemoryBus()
        self.served = MemoryExports()
        self.served.by_provider["site"] = MemoryExport(a_zip("site", 11 * MIB))
        self.mongo = connect(mongo)
        self.database = self.mongo[database]
        self.s3 = s3_client(s3) if s3 else None
        production = ProductionAdapters(settings, lambda: self.now())
        at_s3 = self.s3 if s3_endpoint_url is None else None
        self.real = StackAdapters(
            providers=production.providers,
            jobs=MongoJobs(self.mongo, database),
            parts=MongoParts(self.mongo, database),
            schedules=MongoSchedules(self.mongo, database),
            exports=self.served if export_url is None else production.exports,
            imports=production.imports,
            restores=MongoRestores(self.mongo, database),
            sites=MongoSites(self.mongo, database),
            quotas=MongoQuotas(self.mongo, database),
            storage=S3Storage(at_s3, BUCKET) if at_s3 else production.storage,
            links=S3Links(lambda: _signer(s3), BUCKET, lambda: self.now()),
            bus=self.bag,
        )
        clock = Clock(lambda: self.now(), time.monotonic, lambda seconds: self.sleep(seconds))
        super().__init__(settings, self.real, Runtime(clock=clock))

    def create_indexes(self) -> None:
        """As the first job and the first schedule of a process do."""
        create_job_indexes(self.database)
        MongoSchedules(self.mongo, self.settings.mongo_database).create_indexes()

    def insert_jobs(self, jobs: Iterable[Job]) -> None:
        """Many at once, as they are."""
        for some in batched(map(site_document, jobs), 100):
            self.database["jobs"].insert_many(some)

    def close(self) -> None:
        """Drops the database."""
        with MongoClient[dict[str, Any]](self.settings.mongo_uri) as client:  # it may take long
            client.drop_database(self.settings.mongo_database)
        self.mongo.close()

    def pass_time(self, span: timedelta) -> None:
        """Time moves on."""
        self.clock += span

    def deadline(self) -> datetime:
        """Of an invocation that begins now."""
        return self.now() + timedelta(minutes=14)

    def a_backup(self, **changes: Any) -> Job:
        """A new job, of the provider `site` and of a site of its own unless `changes` say otherwise."""
        fields = {"user_id": an_id(), "site_id": an_id(), "providers": ["site"]}
        return self.create_job()(BY_SERVICE, CreateBackup(**fields | changes), None)

    def job(self, job_id: str) -> Job:
        """As it is stored."""
        found = self.real.jobs.get(job_id)
        assert found is not None
        return found

    def restore(self, restore_id: str) -> Restore:
        """As it is stored."""
        found = self.real.restores.get(restore_id)
        assert found is not None
        return found

    def deliver(self, most: int = 1000) -> None:
        """Delivers events, oldest first, until there are none or so many were delivered."""
        for _ in range(most):
            if not self.bag.bag:
                return
            self.deliver_one(self.bag.bag.pop(0))

    def deliver_one(self, event: Event) -> None:
        """One invocation."""
        match event:
            case UploadJobCreated():
                self.process_provider()(event, "test", self.deadline())
            case UploadPartCreated():
                assert not self.upload_part()([event], self.deadline())
            case PartUpdated():
                self.finish_task()(event, self.deadline())
            case TaskUpdated():
                self.finish_job()(event, self.deadline())
            case DrillCreated():
                self.drill_backup()(event, "test", self.deadline())
            case RestoreTaskCreated():
                self.restore_provider()(event, "test", self.deadline())

    def sweep(self) -> int:
        """One pass."""
        return self.sweep_jobs()(self.deadline())

    def sweep_all_restores(self) -> int:
        """One pass."""
        return self.sweep_restores()(self.deadline())

    def clean(self) -> int:
        """One pass."""
        return self.clean_up()(self.deadline())

    def at_key(self, job: Job) -> tuple[list[str], list[str]]:
        """Open uploads, and versions with delete markers, at the key of the job's task."""
        uploads, versions = self.real.storage.at_key(job.key("site"))
        return uploads, versions

    def check_backup(self, job_id: str) -> None:
        """The job is done and its recorded version holds the export's bytes."""
        stored = self.job(job_id).tasks["site"].object
        assert stored is not None
        assert stored.version_id is not None
        assert self.s3 is not None
        answer = self.s3.get_object(Bucket=BUCKET, Key=stored.key, VersionId=stored.version_id)
        assert answer["Body"].read() == self.served.by_provider["site"].content
        assert self.manifests(self.job(job_id)) == [manifest_of(self.job(job_id))]

    def manifests(self, job: Job) -> list[bytes]:
        """All versions of the job's manifest."""
        assert self.s3 is not None
        listing = self.s3.list_object_versions(Bucket=BUCKET, Prefix=job.manifest_key)
        return [
            self.s3.get_object(Bucket=BUCKET, Key=job.manifest_key, VersionId=found["VersionId"])[
                "Body"
            ].read()
            for found in listing.get("Versions", [])
        ]
