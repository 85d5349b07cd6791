"""A backup that is much smaller than the last ones is done and kept like any other, and says so."""

from collections.abc import Iterator
from datetime import timedelta
from uuid import uuid4

import pytest

from local.services.service import Service
from sitebackup.adapters.mongo.documents import site_document
from sitebackup.domain.errors import RepositoryUnavailable
from sitebackup.domain.events import TaskUpdated
from sitebackup.domain.job import Job, Status
from sitebackup.domain.retention import Why
from sitebackup.domain.shrink import COMPARED, FEWEST
from tests.builders import BY_SERVICE, a_job
from tests.fakes.exports import MemoryExport
from tests.integration.real_stack import MIB, Stack, a_zip, an_id

USUAL, SMALL, EMPTY = MIB, 1000, 22
"""Bytes of the exports; the last is a zip without members."""
USER, SITE = an_id("user of these sites"), an_id("site of these backups")
EXPIRY = timedelta(days=3, seconds=1)
WARNED = "backup shrunk"


@pytest.fixture
def stack(mongo: Service, s3: Service) -> Iterator[Stack]:
    stack = Stack(mongo.address, s3.address, f"shrunk-{uuid4().hex}")
    yield stack
    stack.close()


def begin_backup(stack: Stack, size: int, user_id: str = USER, site_id: str = SITE) -> Job:
    """Of an export of so many bytes; an hour after the one before."""
    stack.pass_time(timedelta(hours=1))
    stack.served.by_provider["site"] = MemoryExport(a_zip("site", size))
    return stack.a_backup(user_id=user_id, site_id=site_id, expires_after_days=3)


def back_up(stack: Stack, size: int, user_id: str = USER, site_id: str = SITE) -> Job:
    """The job, as it is done."""
    job = begin_backup(stack, size, user_id, site_id)
    stack.deliver()
    done = stack.job(job.id)
    assert done.status is Status.DONE
    return done


def message(job: Job) -> str | None:
    warning = job.tasks["site"].warning
    return warning.message if warning else None


def until_sealed(stack: Stack) -> TaskUpdated:
    """Delivers all but the record that has the job finished."""
    while not isinstance(stack.bag.bag[0], TaskUpdated):
        stack.deliver(1)
    (event,) = stack.bag.bag
    stack.bag.bag.clear()
    assert isinstance(event, TaskUpdated)
    return event


def test_a_backup_that_shrank_says_so_in_the_write_that_makes_it_done(
    stack: Stack, caplog: pytest.LogCaptureFixture
) -> None:
    usual = [back_up(stack, USUAL) for _ in range(COMPARED)]
    assert [message(job) for job in usual] == [None] * COMPARED
    job = begin_backup(stack, SMALL)
    event = until_sealed(stack)
    sealed = stack.job(job.id)
    assert message(sealed) is None
    stack.deliver_one(event)
    done = stack.job(job.id)
    assert (done.status, done.version) == (Status.DONE, sealed.version + 1)
    assert message(done) == "1,000 bytes, where the last 5 backups had a median of 1,048,576."
    (line,) = [record for record in caplog.records if record.message == WARNED]
    assert line.__dict__["taskId"] == f"{job.id}/site"
    stack.deliver_one(event)
    assert stack.job(job.id) == done
    assert [record.message for record in caplog.records].count(WARNED) == 1


def test_a_zip_that_lost_its_members_says_so(stack: Stack) -> None:
    for _ in range(FEWEST):
        back_up(stack, USUAL)
    told = message(back_up(stack, EMPTY))
    assert told is not None
    assert told.startswith("22 bytes, ")
    assert "0 members, " in told


def test_a_backup_that_shrank_is_kept_and_expires_like_any_other(stack: Stack) -> None:
    usual = [back_up(stack, USUAL) for _ in range(FEWEST)]
    shrunk = back_up(stack, SMALL)
    assert message(shrunk)
    (life,) = {
        job.clean_up_at - job.finished_at for job in [*usual, shrunk] if job.clean_up_at and job.finished_at
    }
    assert life == timedelta(days=3)
    stack.check_backup(shrunk.id)
    stack.pass_time(EXPIRY)
    decided, _ = stack.get_retention()(BY_SERVICE, USER, SITE, 10, None)
    newest, *older = [decision.reason for _, decision in decided]
    assert (newest, set(older)) == (Why.NEWEST_GOOD, {Why.EXPIRED})


def test_a_site_is_compared_with_its_own_backups(stack: Stack) -> None:
    for _ in range(FEWEST):
        back_up(stack, USUAL)
    for _ in range(COMPARED):
        assert message(back_up(stack, SMALL, user_id=an_id("a user with a site of the same id"))) is None
        assert message(back_up(stack, SMALL, site_id=an_id("another site"))) is None
    assert message(back_up(stack, SMALL))


def test_a_job_whose_earlier_backups_cannot_be_read_now_is_done_when_they_can(stack: Stack) -> None:
    for _ in range(FEWEST):
        back_up(stack, USUAL)
    job = begin_backup(stack, SMALL)
    event = until_sealed(stack)
    page = stack.real.jobs.page

    def down(*_: object) -> list[Job]:
        raise RepositoryUnavailable("MongoDB does not answer.")

    stack.real.jobs.page = down  # type: ignore[method-assign, assignment]
    with pytest.raises(RepositoryUnavailable):
        stack.deliver_one(event)
    assert stack.job(job.id).status is Status.RUNNING
    stack.real.jobs.page = page  # type: ignore[method-assign]
    stack.deliver_one(event)
    assert message(stack.job(job.id))
    stack.check_backup(job.id)


def test_a_record_that_nobody_can_read_keeps_no_job_from_being_done(stack: Stack) -> None:
    for _ in range(FEWEST):
        back_up(stack, USUAL)
    broken = site_document(a_job(user_id=USER, site_id=SITE, id=an_id(), status=Status.DONE)) | {"tasks": 3}
    stack.database["jobs"].insert_one(broken)
    assert message(back_up(stack, SMALL))
