"""A whole system of a test's own: services that can be killed, and a local run that uses them."""

from __future__ import annotations

import json
import os
import signal
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import msgspec
from kafka import KafkaProducer
from kafka.partitioner.default import murmur2

from local.services.kafka import TOPICS, Kafka
from local.services.mongo import Mongo
from local.services.s3 import S3
from local.services.service import Service
from local.settings import free_ports
from mock_providers.client import MockSite
from sitebackup.adapters.topics import key_of, topic_of
from sitebackup.domain.events import Event
from tests.builders import LOOPBACK
from tests.documentdb import Rules, Wire
from tests.e2e.client import Api, Bucket, Json, wait_until
from tests.e2e.run import Run
from tests.e2e.s3_proxy import S3Proxy
from tests.e2e.secrets import APP_NAME, SecretsManager, left_behind
from tests.tcp_proxy import TcpProxy
from tests.tokens import Tokens

MIB = 1 << 20
PART = 5 * MIB
SLICE = 8 * MIB
"""So many bytes a restore sends at once."""
HELD: dict[str, Any] = {"status": {"code": 503, "retryAfter": 60}}
"""The faults of an export whose job stays running."""
MEDIA_LIMIT = 40 * MIB
"""`maxBytes` of the provider `media`, four of whose parts are in flight at once."""
PARAMETERS = {
    "PartSizeMib": 5,
    "StartSeconds": 2,
    "StallSeconds": 3,
    "LeaseSeconds": 3,
    "ExportTimeoutSeconds": 5,
    "UploadGraceSeconds": 8,
    "DeleteGraceSeconds": 3,
    "DaySeconds": 2,
    "FailedRecordDays": 300,
    "ScheduleWindowSeconds": 0,
    "ScheduleMinIntervalMinutes": 1,
    "DrillGibPerDay": 0,  # else each backup is read again at once, beside what a test looks at
}


class Stack:
    """Kafka, and behind proxies MongoDB's protocol and S3, in `folder`; parameters of template.yaml can be set.

    Its secrets have a mark. At the end of the block none may stand in what the stack wrote.

    `providers` are others than the mock ones, as the setting lists them. With a `ProvidersSource` it lists none.
    """

    def __init__(self, folder: Path, providers: list[Json] | None = None, **parameters: int | str) -> None:
        self.kafka, self.mongo, self.s3 = Kafka(folder), Mongo(folder), S3(folder)
        self._services: tuple[Service, ...] = (self.kafka, self.mongo, self.s3)
        self.proxy = S3Proxy((self.s3.host, self.s3.port))
        self.rules = Rules()
        self.secrets = SecretsManager()
        self._mongo_proxy = TcpProxy((self.mongo.host, self.mongo.port), listeners=lambda: Wire(self.rules))
        ports = free_ports()
        mocks = f"http://127.0.0.1:{ports['PROVIDERS_PORT']}"
        environment = {
            "SERVICES": "external",
            "AUTH": "jwt",  # beside the API of services, which most tests use
            "KAFKA_BOOTSTRAP_SERVERS": self.kafka.address,
            "MONGO_URI": f"mongodb://{self._mongo_proxy.address}/?directConnection=true&appName={APP_NAME}",
            "SECRETS_ENDPOINT_URL": self.secrets.address,
            "S3_ENDPOINT_URL": self.proxy.address,
            "PROVIDERS": ""
            if "ProvidersSource" in parameters
            else json.dumps(providers)
            if providers
            else _providers(mocks),
            "LOCAL_SCHEDULE_SECONDS": "2",
            **{f"PARAM_{name}": str(value) for name, value in {**PARAMETERS, **parameters}.items()},
        }
        self.run = Run(folder / "run", ports, environment)
        self.api = Api(self.run.url("API"))
        self.tokens = Tokens(self.run.url("ISSUER"))
        self.bucket = Bucket(self.s3.address)

    def __enter__(self) -> Self:
        """Call it in the main thread: what it starts dies with that."""
        try:
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            leaks = [] if kind else self._left_behind()
        finally:
            self._stop()
        assert not leaks, leaks

    def _left_behind(self) -> list[str]:
        return left_behind(self.run.output, self.kafka.address, self.mongo.address, self.s3.address)

    def _start(self) -> None:
        for service in self._services:
            service.start()
        for service in self._services:
            service.wait_ready()
        self.run.start()

    def _stop(self) -> None:
        try:
            self.run.stop()
        finally:
            for service in self._services:
                service.stop()
            self.proxy.close()
            self._mongo_proxy.close()
            self.secrets.close()
        assert not self.rules.broken, self.rules.broken[:5]

    def site(
        self, provider: str = "site", size: int = 1000, of: MockSite | None = None, **faults: Any
    ) -> MockSite:
        """The export of a provider: of a new site, or of the same as another one."""
        site_id, user_id = (of.site_id, of.user_id) if of else (uuid.uuid4().hex[:24], uuid.uuid4().hex[:24])
        return MockSite(self.run.url("PROVIDERS"), provider, user_id, site_id).set(size=size, **faults)

    def as_user(self, token: str) -> Api:
        """The API of users, called with this token."""
        api = Api(self.run.url("USER_API"))
        api.session.headers["authorization"] = f"Bearer {token}"
        return api

    @contextmanager
    def down(self, service: Service) -> Iterator[None]:
        """kill -9 of a service; it is started again, on the same port and data, after the block."""
        service.kill()
        try:
            yield
        finally:
            service.start()
            service.wait_ready()

    def busy(self, folder: str) -> int:
        """The pid of the one process of a function that works, once there is one."""
        return wait_until(f"{folder} works", lambda: self.run.environments(folder, "busy"))[0]

    @contextmanager
    def paused(self, folder: str) -> Iterator[None]:
        """Stops the process of a function that works now, where it is, until the block ends."""
        pid = self.busy(folder)
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def kill_busy(self, folder: str) -> None:
        """kill -9 of the process of a function that works now."""
        os.kill(self.busy(folder), signal.SIGKILL)

    def emit(self, *events: Event) -> None:
        """Sends records as the functions do, but to partitions that hold none of the same keys.

        A process that is paused holds up the partitions of its batch, which may have records of several keys.
        """
        producer = KafkaProducer(bootstrap_servers=self.kafka.address)
        own = {(topic_of(event), _partition(event)) for event in events}
        try:
            for event in events:
                others = (_partition(event) + n for n in range(1, TOPICS[topic_of(event)]))
                free = [other % TOPICS[topic_of(event)] for other in others]
                partition = next(other for other in free if (topic_of(event), other) not in own)
                producer.send(topic_of(event), msgspec.json.encode(event), partition=partition).get(10)
        finally:
            producer.close()

    def drain(self) -> None:
        """Waits until every record has been handled."""

        def drained() -> bool:
            return all(
                one["in_flight"] == 0 and not any(lag != 0 for lag in one["lag"].values())
                for one in self.run.mappings()
            )

        wait_until("no record waits", drained)

    def upload_id(self, job: Json, provider: str = "site") -> str:
        """The one open upload of a task, once there is one."""
        key = f"{job['userId']}/{job['siteId']}/{job['jobId']}/{provider}.zip"
        return wait_until("an open upload", lambda: self.bucket.uploads(key))[0]


def _partition(event: Event) -> int:
    """Where Kafka's own partitioner puts it."""
    hashed: int = murmur2(key_of(event).encode()) & 0x7FFFFFFF
    return hashed % TOPICS[topic_of(event)]


def _providers(url: str) -> str:
    query = "userId={userId}&siteId={siteId}&chunkSize={chunkSize}"
    settings: dict[str, Json] = {
        "site": {"importUrl": f"{url}/site/import"},
        "db": {"importUrl": f"{url}/db/import?siteId={{siteId}}", "importStatus": True},
        "media": {"maxBytes": MEDIA_LIMIT, "partsInFlight": 4},
        "dump": {"format": "any"},
    }
    return json.dumps(
        [
            {
                "name": name,
                "exportUrl": f"{url}/{name}/export?{query}",
                "authSecretArn": SecretsManager.arn,
                "allowNetworks": LOOPBACK,
                **more,
            }
            for name, more in settings.items()
        ]
    )
