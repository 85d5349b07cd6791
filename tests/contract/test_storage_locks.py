"""Locks and legal holds: what an ObjectStorage promises of versions that nobody may remove."""

import time
from contextlib import suppress
from datetime import datetime, timedelta

import pytest

from sitebackup import bootstrap
from sitebackup.domain.errors import Permanent, Transient
from sitebackup.domain.lock import Lock, LockMode
from sitebackup.ports.storage import ObjectStorage
from tests.contract.s3_servers import LIMIT_SECONDS, Server


def in_an_hour() -> datetime:
    return (bootstrap.now() + timedelta(hours=1)).replace(microsecond=0)


def test_a_locked_version_can_not_be_removed_and_its_lock_not_shortened(
    server: Server, storage: ObjectStorage, key: str
) -> None:
    server.needs("locks")
    version, until = server.place(key, b"locked"), in_an_hour()
    assert storage.held(key, version) == (None, False)
    lock = Lock(mode=LockMode.COMPLIANCE, until=until)
    for _ in range(2):
        storage.lock(key, version, lock)
        assert storage.held(key, version) == (until, False)
    with pytest.raises(Permanent, match="AccessDenied"):
        storage.delete_version(key, version)
    with pytest.raises((Permanent, Transient)):
        storage.lock(key, version, lock.replace(until=until - timedelta(minutes=30)))
    longer = lock.replace(until=until + timedelta(minutes=1))
    storage.lock(key, version, longer)
    assert storage.held(key, version) == (longer.until, False)
    assert server.read(key, version) == b"locked"


def test_what_is_gone_can_not_be_locked_and_is_on_no_hold(
    server: Server, storage: ObjectStorage, key: str
) -> None:
    server.needs("locks")
    version = server.place(key, b"some")
    storage.delete_version(key, version)
    with pytest.raises(Permanent):
        storage.lock(key, version, Lock(mode=LockMode.GOVERNANCE, until=in_an_hour()))
    storage.set_legal_hold(key, version, False)
    assert storage.held(key, version) is None


def test_a_lock_ends_by_itself(server: Server, storage: ObjectStorage, key: str) -> None:
    version = server.place(key, b"locked for seconds")
    until = bootstrap.now().replace(microsecond=0) + timedelta(seconds=3)
    storage.lock(key, version, Lock(mode=LockMode.COMPLIANCE, until=until))
    while storage.at_key(key).versions:
        assert bootstrap.now() < until + timedelta(seconds=LIMIT_SECONDS), "it does not end"
        with suppress(Permanent):
            storage.delete_version(key, version)
        time.sleep(0.1)
    assert bootstrap.now() > until


def test_a_legal_hold_keeps_a_version_until_it_is_released(
    server: Server, storage: ObjectStorage, key: str
) -> None:
    server.needs("locks")
    version = server.place(key, b"evidence")
    storage.set_legal_hold(key, version, True)
    assert storage.held(key, version) == (None, True)
    with pytest.raises(Permanent, match="AccessDenied"):
        storage.delete_version(key, version)
    for _ in range(2):
        storage.set_legal_hold(key, version, False)
    assert storage.held(key, version) == (None, False)
    storage.delete_version(key, version)
    assert storage.held(key, version) is None
