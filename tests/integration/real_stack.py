"""The use cases on a real Mongo and a real S3, with the clock, Kafka and the exports in the test's hands."""

import hashlib
import json
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

from pymongo import MongoClient

from local.services.s3 import BUCKET, s3_client
from local.services.service import Service
from mock_providers.archive import Archive
from sitebackup.adapters.storage import Storage
from sitebackup.bootstrap import Bootstrap
from sitebackup.domain.events import PartUpdated, TaskEvent, TaskUpdated, UploadJobCreated, UploadPartCreated
from sitebackup.domain.job import Job
from sitebackup.services.create_job import CreateBackup
from tests.unit.twins import MemoryBus, MemoryExport, MemoryExports

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


class Stack(Bootstrap):
    """Everything as the functions build it, but for time and events, and for exports unless they have a URL."""

    def __init__(
        self,
        mongo: Service,
        s3: Service | None,
        database: str,
        *,
        export_url: str | None = None,
        s3_endpoint_url: str | None = None,
    ) -> None:
        """`s3_endpoint_url` is where the use cases find S3, if not at its own address."""
        query = "userId={userId}&siteId={siteId}"
        providers = [
            {"name": name, "exportUrl": f"{export_url or EXPORT_URL}/{name}/export?{query}"}
            for name in ("site", "db")
        ]
        super().__init__(
            {
                "PROVIDERS": json.dumps(providers),
                "BACKUP_BUCKET": BUCKET,
                "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
                "MONGO_URI": mongo.address,
                "MONGO_DATABASE": database,
                "PART_SIZE_MIB": "5",
                "EXPORT_TIMEOUT_SECONDS": "8",
                **({"S3_ENDPOINT_URL": s3_endpoint_url} if s3_endpoint_url else {}),
            }
        )
        self.clock = START
        self.now = lambda: self.clock
        self.bag = MemoryBus()
        self.served = MemoryExports()
        self.served.sites["site"] = MemoryExport(a_zip("site", 11 * MIB))
        self.s3 = s3_client(s3.address) if s3 else None
        self.__dict__.update(bus=self.bag)
        if export_url is None:
            self.__dict__.update(exports=self.served)
        if self.s3 and s3_endpoint_url is None:
            self.__dict__["storage"] = Storage(self.s3, BUCKET)

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
        return self.create_job()(CreateBackup(**fields | changes), None)

    def job(self, job_id: str) -> Job:
        """As it is stored."""
        found = self.repository.get(job_id)
        assert found is not None
        return found

    def deliver(self, most: int = 1000) -> None:
        """Delivers events, oldest first, until there are none or so many were delivered."""
        for _ in range(most):
            if not self.bag.bag:
                return
            self.deliver_one(self.bag.bag.pop(0))

    def deliver_one(self, event: TaskEvent) -> None:
        """One invocation."""
        match event:
            case UploadJobCreated():
                self.process_provider()(event, "test", self.deadline())
            case UploadPartCreated():
                assert not self.upload_part()([event], self.deadline())
            case PartUpdated():
                self.finish_task()(event, self.deadline())
            case TaskUpdated():
                self.finish_job()(event)

    def sweep(self) -> int:
        """One pass."""
        return self.sweep_jobs()(self.deadline())

    def clean(self) -> int:
        """One pass."""
        return self.clean_up()(self.deadline())

    def at_key(self, job: Job) -> tuple[list[str], list[str]]:
        """Open uploads, and versions with delete markers, at the key of the job's task."""
        uploads, versions = self.storage.at_key(job.key("site"))
        return uploads, versions

    def check_backup(self, job_id: str) -> None:
        """The job is done and its recorded version holds the export's bytes."""
        stored = self.job(job_id).tasks["site"].object
        assert stored is not None
        assert stored.version_id is not None
        assert self.s3 is not None
        answer = self.s3.get_object(Bucket=BUCKET, Key=stored.key, VersionId=stored.version_id)
        assert answer["Body"].read() == self.served.sites["site"].content
