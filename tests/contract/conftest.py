"""What contract suites share: a MongoDB database of each test's own, a way to it that can die, S3 servers, tusd."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from pymongo import MongoClient
from pymongo.database import Database

from local.services.s3 import BUCKET
from local.services.service import Service
from sitebackup.adapters.mongo.connection import connect
from sitebackup.adapters.mongo.jobs import MongoJobs
from sitebackup.ports.repositories import JobRepository
from sitebackup.ports.storage import ObjectStorage
from tests.contract.s3_servers import (
    SEAWEEDFS_LACKS,
    FakeServer,
    S3Server,
    Server,
    moto,
    versitygw,
)
from tests.contract.tusd import build_tusd
from tests.fakes.jobs import MemoryJobs
from tests.fakes.storage import MemoryStorage
from tests.tcp_proxy import TcpProxy

type Client = MongoClient[dict[str, Any]]


@pytest.fixture
def database(mongo: Service) -> Iterator[Database[dict[str, Any]]]:
    """As an operator sees it."""
    name = f"contract-{uuid4().hex}"
    with MongoClient[dict[str, Any]](mongo.address, tz_aware=True) as client:
        yield client[name]
        client.drop_database(name)


@pytest.fixture
def client(mongo: Service) -> Iterator[Client]:
    """As the service connects."""
    connected = connect(mongo.address)
    yield connected
    connected.close()


@pytest.fixture
def proxy(mongo: Service) -> Iterator[TcpProxy]:
    one = TcpProxy((mongo.host, mongo.port))
    yield one
    one.close()


@pytest.fixture
def client_behind_proxy(proxy: TcpProxy) -> Iterator[Client]:
    """A client whose connections can be forgotten."""
    connected = connect(f"mongodb://{proxy.address}/?directConnection=true")
    yield connected
    connected.close()


@pytest.fixture(scope="session")
def tusd() -> Path:
    """The program of tus's reference server."""
    return build_tusd()


@pytest.fixture(scope="module", params=["SeaweedFS", "versitygw", "moto", "fake", "fake, condition first"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if request.param.startswith("fake"):
        yield FakeServer(
            request.param, memory=MemoryStorage(condition_first=request.param == "fake, condition first")
        )
        return
    if request.param == "SeaweedFS":
        yield S3Server("SeaweedFS", SEAWEEDFS_LACKS, request.getfixturevalue("s3").address)
        return
    started = moto() if request.param == "moto" else versitygw(tmp_path_factory.mktemp("versitygw"))
    with started as found:
        client = found.client()
        client.create_bucket(Bucket=BUCKET, ObjectLockEnabledForBucket=True)
        client.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
        yield found


@pytest.fixture
def storage(server: Server) -> ObjectStorage:
    return server.storage()


@pytest.fixture
def writing(server: Server, storage: ObjectStorage) -> ObjectStorage:
    """The storage, for tests that write through it."""
    server.needs("trailers")
    return storage


@pytest.fixture
def key() -> str:
    return f"u/s/{uuid4().hex[:24]}/site.zip"


@pytest.fixture
def in_mongo(client: Client, database: Database[dict[str, Any]]) -> MongoJobs:
    return MongoJobs(client, database.name)


@pytest.fixture(params=["MongoDB", "fake"])
def jobs(request: pytest.FixtureRequest) -> JobRepository:
    if request.param == "fake":
        return MemoryJobs()
    found: MongoJobs = request.getfixturevalue("in_mongo")
    return found
