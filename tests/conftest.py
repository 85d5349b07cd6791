"""Fixtures shared by all tests: the real services, started on first use, one set per xdist worker."""

from collections.abc import Iterator
from functools import partial

import hypothesis
import pytest
from pymongo import MongoClient

from local.services.kafka import Kafka
from local.services.mongo import Mongo
from local.services.s3 import S3
from local.services.service import Service
from sitebackup.adapters.mongo import connection
from tests.documentdb import Rules

_rules = Rules()


@pytest.fixture(scope="session", autouse=True)
def _documentdb_hears_what_is_sent() -> Iterator[None]:
    """All clients that the code under test makes in this process are held to DocumentDB's rules."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connection, "MongoClient", partial(MongoClient, event_listeners=[_rules]))
        yield


@pytest.fixture(autouse=True)
def _documentdb_takes_what_was_sent(_documentdb_hears_what_is_sent: None) -> Iterator[None]:
    _rules.broken.clear()
    yield
    assert not _rules.broken


# A busy machine is no failure.
hypothesis.settings.register_profile("no deadline", deadline=None)
hypothesis.settings.load_profile("no deadline")


def _serve(service: Service) -> Iterator[Service]:
    try:
        service.start()
        service.wait_ready()
        yield service
    finally:
        service.stop()


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A Kafka broker with the project's topics; `address` is its bootstrap server."""
    yield from _serve(Kafka(tmp_path_factory.mktemp("kafka")))


@pytest.fixture(scope="session")
def mongo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A MongoDB-compatible server; `address` is its URI. Use a database of your own."""
    yield from _serve(Mongo(tmp_path_factory.mktemp("mongo")))


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """An S3 server with the versioned bucket `backups`; `address` is its endpoint URL."""
    yield from _serve(S3(tmp_path_factory.mktemp("s3")))
