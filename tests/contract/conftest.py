"""What contract suites share: a MongoDB database of each test's own, a way to it that can die, and tusd."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from pymongo import MongoClient
from pymongo.database import Database

from local.services.service import Service
from sitebackup.adapters.mongo.connection import connect
from tests.contract.tusd import build_tusd
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
