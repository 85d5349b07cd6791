"""A job is done only once its manifest is in the bucket, and nobody ever overwrites that (I18)."""

from collections.abc import Iterator
from datetime import timedelta
from uuid import uuid4

import pytest

from local.services.s3 import BUCKET
from local.services.service import Service
from sitebackup.domain.errors import Transient
from sitebackup.domain.events import TaskUpdated
from sitebackup.domain.job import Job, Status
from sitebackup.domain.manifest import manifest_of
from sitebackup.ports.runtime import TimeLeft, no_deadline
from tests.builders import BY_SERVICE
from tests.integration.real_stack import DELETE_GRACE, Stack

SWEEP_INTERVAL = timedelta(minutes=1)
LONG_ENOUGH = timedelta(hours=1)


@pytest.fixture
def stack(mongo: Service, s3: Service) -> Iterator[Stack]:
    stack = Stack(mongo.address, s3.address, f"manifests-{uuid4().hex}")
    yield stack
    stack.close()


def sealed(stack: Stack) -> tuple[Job, TaskUpdated]:
    """A job whose tasks are all done, and the record that has it finished."""
    job = stack.a_backup()
    while not isinstance(stack.bag.bag[0], TaskUpdated):
        stack.deliver(1)
    (event,) = stack.bag.bag
    assert isinstance(event, TaskUpdated)
    stack.bag.bag.clear()
    return stack.job(job.id), event


def test_a_done_job_lies_beside_its_manifest(stack: Stack) -> None:
    job = stack.a_backup()
    stack.deliver()
    assert stack.job(job.id).status is Status.DONE
    stack.check_backup(job.id)


def test_a_job_waits_for_its_manifest_while_s3_does_not_take_it_and_the_sweep_asks_again(
    stack: Stack,
) -> None:
    job, event = sealed(stack)
    put_once = stack.real.storage.put_once

    def down(key: str, data: bytes, time_left: TimeLeft = no_deadline) -> None:
        raise Transient("S3 can't be reached.")

    stack.real.storage.put_once = down  # type: ignore[method-assign]
    stack.deliver_one(event)
    assert stack.job(job.id).status is Status.RUNNING
    stack.real.storage.put_once = put_once  # type: ignore[method-assign]
    stack.pass_time(SWEEP_INTERVAL)
    assert stack.sweep() == 1
    stack.deliver()
    stack.check_backup(job.id)


def test_a_finish_whose_answers_were_lost_is_finished_by_the_next(stack: Stack) -> None:
    """The manifest is there, and the worker has died before it could store that."""
    job, event = sealed(stack)
    stack.real.storage.put_once(job.manifest_key, manifest_of(job))
    stack.deliver_one(event)
    assert stack.job(job.id).status is Status.DONE
    stack.check_backup(job.id)
    stack.deliver_one(event)
    stack.check_backup(job.id)


@pytest.mark.parametrize("change", [b"{}", b" "], ids=["another length", "the same length"])
def test_another_manifest_is_neither_overwritten_nor_taken_for_the_jobs_own(
    stack: Stack, change: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    job, event = sealed(stack)
    own = manifest_of(job)
    other = change if change == b"{}" else own[:-1] + change
    assert stack.s3 is not None
    stack.s3.put_object(Bucket=BUCKET, Key=job.manifest_key, Body=other)
    stack.deliver_one(event)
    assert stack.job(job.id).status is Status.RUNNING
    assert "another manifest is in the way" in caplog.text
    assert stack.manifests(job) == [other]
    stack.pass_time(LONG_ENOUGH)
    assert stack.sweep() == 1, "it is asked for again"
    (version,) = stack.real.storage.at_key(job.manifest_key).versions
    stack.real.storage.delete_version(job.manifest_key, version)
    stack.deliver()
    stack.check_backup(job.id)


def test_a_removal_takes_the_manifest_first(stack: Stack) -> None:
    """So that no manifest speaks of what is gone, wherever the removal breaks off."""
    job = stack.a_backup()
    stack.deliver()
    stack.change_job().delete(BY_SERVICE, job.id, None)
    stack.pass_time(DELETE_GRACE)
    removed = list[str]()
    delete_version = stack.real.storage.delete_version

    def watched(key: str, version_id: str) -> None:
        removed.append(key)
        delete_version(key, version_id)

    stack.real.storage.delete_version = watched  # type: ignore[method-assign]
    stack.clean()
    assert removed == [job.manifest_key, job.key("site")]
    assert stack.job(job.id).status is Status.DELETED
    assert stack.manifests(job) == []
