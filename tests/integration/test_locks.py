"""Locks and legal holds on a real S3: nothing that is locked goes, nothing waits for ever, and all of it ends."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from botocore.exceptions import ClientError

from local.services.s3 import BUCKET
from local.services.service import Service
from sitebackup.domain.errors import Locked, StateForbids, Transient
from sitebackup.domain.job import Job, Status
from sitebackup.domain.lock import HeldVersion, LockMode
from sitebackup.domain.manifest import read_manifest
from sitebackup.domain.retention import Action, Why
from tests.builders import BY_SERVICE
from tests.fakes.exports import MemoryExport
from tests.integration.real_stack import DELETE_GRACE, Stack, a_zip
from tests.integration.test_lifecycle_services import a_done_backup

LOCK_SECONDS = 8
"""S3 has a clock of its own, so locks must be short enough to wait for."""


@pytest.fixture
def stack(request: pytest.FixtureRequest, mongo: Service, s3: Service) -> Iterator[Stack]:
    """Locks last some seconds, or as many as a test asks for; the clock is the real one."""
    stack = Stack(
        mongo.address,
        s3.address,
        f"locks-{uuid4().hex}",
        LOCK_MODE="compliance",
        LOCK_DAYS=str(getattr(request, "param", LOCK_SECONDS)),
        DAY_SECONDS="1",
        DELETE_GRACE_SECONDS="1",
    )
    stack.now = lambda: datetime.now(UTC)
    yield stack
    stack.close()


def held(stack: Stack, job: Job) -> set[HeldVersion | None]:
    """What S3 says of the versions of the job and of its manifest."""
    stored = job.tasks["site"].object
    assert stored is not None
    assert stored.version_id is not None
    (manifest,) = stack.real.storage.at_key(job.manifest_key).versions
    pairs = [(stored.key, stored.version_id), (job.manifest_key, manifest)]
    return {stack.real.storage.held(key, version) for key, version in pairs}


def test_each_version_of_a_done_backup_and_its_manifest_are_locked_until_the_same_second(
    stack: Stack,
) -> None:
    job = a_done_backup(stack)
    assert job.lock is not None
    assert job.sealed_at is not None
    assert job.lock.until == job.sealed_at.replace(microsecond=0) + timedelta(seconds=LOCK_SECONDS)
    assert held(stack, job) == {HeldVersion(job.lock.until, False)}
    (manifest,) = stack.manifests(job)
    assert read_manifest(manifest).lock == job.lock


@pytest.mark.parametrize("stack", [120], indirect=True)
def test_a_job_is_done_only_once_its_versions_are_locked(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S3 takes the manifest and refuses the lock; the sweep asks again."""
    storage = stack.real.storage
    lock = storage.lock

    def refuse(*_: object) -> None:
        raise Transient("S3 answered SlowDown.")

    monkeypatch.setattr(storage, "lock", refuse)
    monkeypatch.setattr(stack, "sleep", lambda seconds: None)
    job = stack.a_backup()
    stack.deliver()
    assert stack.job(job.id).status is Status.RUNNING
    assert stack.job(job.id).sealed_at is not None
    monkeypatch.setattr(storage, "lock", lock)
    stack.now = lambda: datetime.now(UTC) + timedelta(seconds=61)
    assert stack.sweep() == 1
    stack.deliver()
    done = stack.job(job.id)
    assert done.status is Status.DONE
    assert done.lock is not None
    assert held(stack, done) == {HeldVersion(done.lock.until, False)}


def test_the_manifest_that_the_job_wrote_is_locked_and_not_what_somebody_put_on_top_of_it(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = stack.real.storage
    put_once, planted = storage.put_once, []

    def somebody_is_quick(key: str, *more: Any) -> str | None:
        version = put_once(key, *more)
        assert stack.s3 is not None
        planted.append(stack.s3.put_object(Bucket=BUCKET, Key=key, Body=b"{}")["VersionId"])
        return version

    monkeypatch.setattr(storage, "put_once", somebody_is_quick)
    job = stack.a_backup()
    stack.deliver()
    job = stack.job(job.id)
    assert (job.status, len(planted)) == (Status.DONE, 1)
    assert job.lock is not None
    for version in storage.at_key(job.manifest_key).versions:
        until = None if version in planted else job.lock.until
        assert storage.held(job.manifest_key, version) == HeldVersion(until, False)


def test_a_deletion_whose_data_would_go_before_the_lock_ends_is_refused_and_says_when(stack: Stack) -> None:
    job = a_done_backup(stack)
    assert job.lock is not None
    with pytest.raises(Locked) as refused:
        stack.change_job().delete(BY_SERVICE, job.id, None)
    assert refused.value.members["lockedUntil"] == f"{job.lock.until:%Y-%m-%dT%H:%M:%SZ}"
    marked = stack.change_job().delete(BY_SERVICE, job.id, job.lock.until)
    assert marked.delete_at == job.lock.until


def test_what_has_expired_goes_once_the_lock_ends_and_not_before(stack: Stack) -> None:
    """With the service's own means nothing goes, nor with those of who may do all but bypass."""
    job = a_done_backup(stack, expires_after_days=1)
    a_newer = stack.a_backup(user_id=job.user_id, site_id=job.site_id)
    stack.deliver()
    assert stack.job(a_newer.id).status is Status.DONE
    assert job.lock is not None
    stored = job.tasks["site"].object
    assert stored is not None
    assert stack.s3 is not None
    reasons = set()
    while stack.job(job.id).status is not Status.DELETED:
        assert stack.now() < job.lock.until + timedelta(seconds=60), "the lock is over, and nothing happened"
        ((_, decision),) = [
            (found, decision)
            for found, decision in stack.get_retention()(BY_SERVICE, job.user_id, job.site_id, 10, None)[0]
            if found.id == job.id
        ]
        reasons.add(decision.reason)
        if stack.now() < job.lock.until - timedelta(seconds=1):
            assert decision.action is not Action.DELETE_DATA
            with pytest.raises(ClientError, match="AccessDenied"):
                stack.s3.delete_object(Bucket=BUCKET, Key=stored.key, VersionId=stored.version_id or "")
            with pytest.raises(ClientError):
                stack.s3.put_object_retention(
                    Bucket=BUCKET,
                    Key=stored.key,
                    VersionId=stored.version_id or "",
                    Retention={"Mode": "GOVERNANCE", "RetainUntilDate": stack.now() + timedelta(seconds=1)},
                    BypassGovernanceRetention=True,
                )
        stack.clean()
    assert Why.LOCKED in reasons
    assert stack.at_key(job) == ([], [])
    assert stack.manifests(job) == []
    assert stack.now() > job.lock.until


def test_what_somebody_else_locked_for_longer_waits_for_that(stack: Stack) -> None:
    """A removal is not begun that S3 would refuse in its middle."""
    job = a_done_backup(stack)
    stored = job.tasks["site"].object
    assert stored is not None
    assert job.lock is not None
    longer = job.lock.until + timedelta(seconds=4)
    lock = job.lock.replace(until=longer)
    stack.real.storage.lock(stored.key, stored.version_id, lock)
    stack.change_job().delete(BY_SERVICE, job.id, job.lock.until)
    while stack.job(job.id).status is not Status.DELETED:
        assert stack.now() < longer + timedelta(seconds=60), "the lock is over, and nothing happened"
        assert stack.now() >= longer or stack.job(job.id).removing_at is None
        stack.clean()
    assert stack.at_key(job) == ([], [])


@pytest.fixture
def unlocked(mongo: Service, s3: Service) -> Iterator[Stack]:
    """No locks, and time in the test's hands."""
    stack = Stack(mongo.address, s3.address, f"holds-{uuid4().hex}")
    yield stack
    stack.close()


def test_a_legal_hold_keeps_the_data_until_it_is_released(unlocked: Stack) -> None:
    stack = unlocked
    job = a_done_backup(stack)
    change = stack.change_job()
    change.delete(BY_SERVICE, job.id, None)
    assert change.set_legal_hold(BY_SERVICE, job.id, True).legal_hold is not None
    stack.pass_time(DELETE_GRACE)
    stack.clean()  # tells S3
    assert held(stack, job) == {HeldVersion(None, True)}
    stack.clean()
    assert stack.job(job.id).removing_at is None
    ((_, decision),) = stack.get_retention()(BY_SERVICE, job.user_id, job.site_id, 10, None)[0]
    assert (decision.action, decision.reason) == (Action.KEEP, Why.LEGAL_HOLD)
    with pytest.raises(Locked, match="legal hold"):
        change.delete(BY_SERVICE, job.id, None)
    assert change.set_legal_hold(BY_SERVICE, job.id, True).version == stack.job(job.id).version, (
        "asked for twice"
    )
    change.set_legal_hold(BY_SERVICE, job.id, False)
    stack.clean()  # tells S3, and removes the data
    assert stack.job(job.id).legal_hold is None
    assert stack.job(job.id).status is Status.DELETED
    assert stack.at_key(job) == ([], [])
    with pytest.raises(StateForbids, match="its data is gone"):
        change.set_legal_hold(BY_SERVICE, job.id, True)


def test_a_hold_that_s3_was_not_told_of_keeps_the_data_all_the_same(
    unlocked: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = unlocked
    job = a_done_backup(stack)
    stack.change_job().delete(BY_SERVICE, job.id, None)
    stack.change_job().set_legal_hold(BY_SERVICE, job.id, True)
    storage = stack.real.storage
    tell = storage.set_legal_hold

    def down(*_: object) -> None:
        raise Transient("S3 can't be reached.")

    monkeypatch.setattr(storage, "set_legal_hold", down)
    stack.pass_time(DELETE_GRACE)
    for _ in range(3):
        stack.clean()
        stack.pass_time(timedelta(minutes=11))
    with pytest.raises(StateForbids, match="just being set"):
        stack.change_job().set_legal_hold(BY_SERVICE, job.id, False)
    assert stack.job(job.id).status is Status.DONE
    monkeypatch.setattr(storage, "set_legal_hold", tell)
    stack.clean()
    assert held(stack, job) == {HeldVersion(None, True)}


def test_a_governance_lock_is_one_as_well(mongo: Service, s3: Service) -> None:
    stack = Stack(
        mongo.address,
        s3.address,
        f"locks-{uuid4().hex}",
        LOCK_MODE="governance",
        LOCK_DAYS="1",
        DAY_SECONDS="5",
    )
    stack.now = lambda: datetime.now(UTC)
    stack.served.by_provider["site"] = MemoryExport(a_zip("site", 1000))
    try:
        job = a_done_backup(stack)
        assert job.lock is not None
        assert job.lock.mode is LockMode.GOVERNANCE
        assert held(stack, job) == {HeldVersion(job.lock.until, False)}
    finally:
        stack.close()


def test_a_backup_whose_lock_would_be_over_gets_done_without_it(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S3 did not take it for so long. It takes no lock that ends in the past."""
    storage = stack.real.storage
    lock = storage.lock

    def refuse(*_: object) -> None:
        raise Transient("S3 answered AccessDenied.")

    monkeypatch.setattr(storage, "lock", refuse)
    monkeypatch.setattr(stack, "sleep", lambda seconds: None)
    job = stack.a_backup()
    stack.deliver()
    monkeypatch.setattr(storage, "lock", lock)
    stack.now = lambda: datetime.now(UTC) + timedelta(days=1)
    assert stack.sweep() == 1
    stack.deliver()
    assert stack.job(job.id).status is Status.DONE
    assert held(stack, stack.job(job.id)) == {HeldVersion(None, False)}


def test_a_version_that_is_locked_for_longer_already_counts_as_locked(stack: Stack) -> None:
    """As by a default retention of the bucket."""
    job = stack.a_backup()
    for _ in range(100):
        if stack.job(job.id).sealed_at:
            break
        stack.deliver(1)
    sealed = stack.job(job.id)
    stored = sealed.tasks["site"].object
    assert stored is not None
    assert sealed.lock is not None
    longer = sealed.lock.replace(until=sealed.lock.until + timedelta(seconds=4))
    stack.real.storage.lock(stored.key, stored.version_id, longer)
    stack.deliver()
    assert stack.job(job.id).status is Status.DONE
    assert held(stack, stack.job(job.id)) == {
        HeldVersion(longer.until, False),
        HeldVersion(sealed.lock.until, False),
    }


def test_a_delete_marker_over_the_manifest_keeps_neither_a_hold_nor_a_removal_from_coming(
    stack: Stack,
) -> None:
    job = a_done_backup(stack)
    assert stack.s3 is not None
    assert job.lock is not None
    stack.s3.delete_object(Bucket=BUCKET, Key=job.manifest_key)
    change = stack.change_job()
    change.set_legal_hold(BY_SERVICE, job.id, True)
    stack.clean()
    hold = stack.job(job.id).legal_hold
    assert hold is not None
    assert hold.settled
    change.set_legal_hold(BY_SERVICE, job.id, False)
    stack.clean()
    change.delete(BY_SERVICE, job.id, job.lock.until)
    while stack.job(job.id).status is not Status.DELETED:
        assert stack.now() < job.lock.until + timedelta(seconds=60), "the lock is over, and nothing happened"
        stack.clean()
    assert stack.real.storage.at_key(job.manifest_key).versions == []
