"""Deletion, release and tidying on a real Mongo and a real S3: what goes goes wholly, what stays is untouched."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from local.services.s3 import BUCKET
from local.services.service import Service
from sitebackup.domain import lifecycle
from sitebackup.domain.change import Change
from sitebackup.domain.errors import StateForbids
from sitebackup.domain.job import DeleteCause, Job, Status
from sitebackup.domain.retention import Action, Why
from tests.builders import BY_SERVICE
from tests.fakes.exports import MemoryExport
from tests.integration.real_stack import DELETE_GRACE, GRACE, Stack, a_zip, an_id

DAY = timedelta(days=1)
SECOND = timedelta(seconds=1)
USER, SITE = an_id(), an_id()
EMPTY_ZIP = b"PK\x05\x06" + bytes(18)


@pytest.fixture
def stack(mongo: Service, s3: Service) -> Iterator[Stack]:
    stack = Stack(mongo.address, s3.address, f"lifecycle-{uuid4().hex}")
    yield stack
    stack.close()


def a_done_backup(stack: Stack, **changes: Any) -> Job:
    job = stack.a_backup(**changes)
    stack.deliver()
    assert stack.job(job.id).status is Status.DONE
    return stack.job(job.id)


def finished(job: Job, at: datetime) -> Job:
    """A copy of the done job, which got done then."""
    tasks = {name: task.replace(finished_at=at) for name, task in job.tasks.items()}
    return job.replace(version=1, finished_at=at, tasks=tasks)


def leave_things(stack: Stack, job: Job) -> None:
    """What races and crashes may leave at a job's key: an open upload, another version, a delete marker."""
    assert stack.s3 is not None
    key = job.key("site")
    stack.real.storage.create_upload(key)
    stack.s3.put_object(Bucket=BUCKET, Key=key, Body=b"from a run that came too late")
    stack.s3.delete_object(Bucket=BUCKET, Key=key)
    uploads, versions = stack.at_key(job)
    assert uploads
    assert len(versions) >= 2


def test_what_is_deleted_is_gone_after_the_grace_with_all_versions_markers_and_uploads(stack: Stack) -> None:
    job = a_done_backup(stack)
    neighbour = a_done_backup(stack)
    leave_things(stack, job)
    stack.change_job().delete(BY_SERVICE, job.id, None)
    stack.pass_time(DELETE_GRACE - timedelta(seconds=2))
    stack.clean()
    stack.check_backup(job.id)
    stack.pass_time(timedelta(seconds=2))
    stack.clean()
    assert stack.job(job.id).status is Status.DELETED
    assert stack.at_key(job) == ([], [])
    stack.check_backup(neighbour.id)
    with pytest.raises(StateForbids, match="deleted"):
        stack.change_job().undelete(BY_SERVICE, job.id)
    stack.pass_time(400 * DAY)
    stack.clean()
    assert stack.real.jobs.get(job.id) is None


def test_undelete_in_the_grace_brings_everything_back(stack: Stack) -> None:
    job = a_done_backup(stack)
    stack.change_job().delete(BY_SERVICE, job.id, stack.clock + 3 * DAY)
    stack.pass_time(5 * DAY)
    stack.clean()
    stack.change_job().undelete(BY_SERVICE, job.id)
    stack.pass_time(100 * DAY)
    stack.clean()
    assert stack.job(job.id).delete_at is None
    stack.check_backup(job.id)


def test_beside_a_good_backup_leftovers_go_and_its_own_version_stays(stack: Stack) -> None:
    """Its version is not even the latest at its key."""
    job = stack.a_backup()
    first = stack.bag.bag[0]
    stack.deliver_one(first)
    ran_twice = {"site": stack.job(job.id).tasks["site"].replace(runs=2)}
    stack.recorder.apply(job.id, lambda job, moment: Change(job.replace(tasks=ran_twice)))
    stack.deliver()
    job = stack.job(job.id)
    leave_things(stack, job)
    stack.clean()
    assert len(stack.at_key(job)[1]) >= 3, "cleaned while a run could still be under way"
    stack.pass_time(GRACE)
    stack.clean()
    stored = stack.job(job.id).tasks["site"].object
    assert stored is not None
    assert stack.at_key(job) == ([], [stored.version_id])
    stack.check_backup(job.id)


def test_what_a_cancelled_job_left_goes_when_no_retry_can_need_it(stack: Stack) -> None:
    """Both an open upload and an object that was completed in the race."""
    job = stack.a_backup()
    stack.deliver(2)
    stack.change_job().cancel(BY_SERVICE, job.id)
    stack.bag.bag.clear()
    leave_things(stack, job)
    stack.pass_time(GRACE - timedelta(seconds=2))
    stack.clean()
    assert len(stack.at_key(job)[0]) == 2
    stack.pass_time(timedelta(seconds=2))
    stack.clean()
    assert stack.at_key(job) == ([], [])
    assert stack.job(job.id).status is Status.CANCELLED
    stack.change_job().retry(BY_SERVICE, job.id)
    stack.deliver()
    stack.check_backup(job.id)
    assert stack.job(job.id).attempt == 2


def test_a_retry_moves_only_what_is_missing(stack: Stack) -> None:
    job = stack.a_backup()
    stack.deliver(2)
    stack.change_job().cancel(BY_SERVICE, job.id)
    stack.bag.bag.clear()
    upload = stack.job(job.id).tasks["site"].upload
    assert upload is not None
    done = {part.number for part in stack.real.parts.done(upload.upload_id)}
    assert done == {1, 2}
    stack.change_job().retry(BY_SERVICE, job.id)
    stack.deliver(1)
    assert [getattr(event, "number", None) for event in stack.bag.bag] == [3]
    stack.deliver()
    stack.check_backup(job.id)


def test_removing_a_version_or_an_upload_that_is_gone_is_no_error(stack: Stack) -> None:
    """Two passes may remove the same."""
    job = a_done_backup(stack)
    stored = job.tasks["site"].object
    assert stored is not None
    assert stored.version_id is not None
    for _ in range(2):
        stack.real.storage.delete_version(stored.key, stored.version_id)
    upload_id = stack.real.storage.create_upload(stored.key)
    for _ in range(2):
        stack.real.storage.abort(stored.key, upload_id)


def test_the_newest_good_backup_outlives_its_age_until_a_newer_one_is_done(stack: Stack) -> None:
    first = a_done_backup(stack, expires_after_days=1)
    stack.pass_time(100 * DAY)
    stack.clean()
    assert stack.job(first.id).delete_at is None
    second = finished(stack.job(first.id), stack.clock).replace(id="f" * 24, expires_after_days=None)
    stack.real.jobs.add(second)
    stack.pass_time(DAY)
    stack.clean()
    assert stack.job(first.id).delete_cause is DeleteCause.EXPIRED
    stack.pass_time(DELETE_GRACE)
    stack.clean()
    assert stack.job(first.id).status is Status.DELETED
    assert stack.job(second.id).delete_at is None


def site_backup(stack: Stack, *providers: str, content: bytes | None = None) -> Job:
    """A done backup of the one site that expires after a day; the next one is a day younger."""
    for name in providers:
        stack.served.by_provider[name] = MemoryExport(content or a_zip(name, 1000))
    job = a_done_backup(stack, user_id=USER, site_id=SITE, expires_after_days=1, providers=list(providers))
    stack.pass_time(DAY)
    return job


def is_kept(stack: Stack, job: Job) -> bool:
    """Whether the clean-up leaves the job alone for months."""
    for _ in range(4):
        stack.pass_time(30 * DAY)
        stack.clean()
    return stack.job(job.id).status is Status.DONE


def test_the_newest_good_object_of_each_provider_outlives_its_age(stack: Stack) -> None:
    oldest = site_backup(stack, "site", "db")
    both = site_backup(stack, "site", "db")
    of_db = site_backup(stack, "db")
    assert not is_kept(stack, oldest)
    assert is_kept(stack, both), "the only backup of `site` that is left"
    assert is_kept(stack, of_db)
    of_site = site_backup(stack, "site")
    assert not is_kept(stack, both)
    assert is_kept(stack, of_db)
    assert is_kept(stack, of_site)


def test_a_zip_without_members_displaces_no_backup_with_members(stack: Stack) -> None:
    first_empty, empty = (site_backup(stack, "site", content=EMPTY_ZIP) for _ in range(2))
    assert not is_kept(stack, first_empty)
    assert is_kept(stack, empty), "better than nothing"
    full = site_backup(stack, "site")
    newer_empty = site_backup(stack, "site", content=EMPTY_ZIP)
    assert not is_kept(stack, empty)
    assert not is_kept(stack, newer_empty)
    assert is_kept(stack, full)


def test_without_keep_newest_even_the_newest_good_backup_expires(stack: Stack) -> None:
    policy = stack.settings.policy.replace(keep_newest=0)
    stack.__dict__["settings"] = replace(stack.settings, policy=policy)
    job = a_done_backup(stack, expires_after_days=1)
    stack.pass_time(DAY - SECOND)
    stack.clean()
    assert stack.job(job.id).delete_at is None
    stack.pass_time(SECOND)
    stack.clean()
    assert stack.job(job.id).delete_cause is DeleteCause.EXPIRED
    stack.check_backup(job.id)
    stack.pass_time(DELETE_GRACE)
    stack.clean()
    assert stack.job(job.id).status is Status.DELETED
    assert stack.at_key(job) == ([], [])


def assert_forgotten_after(stack: Stack, job: Job, days: int, since: datetime | None) -> None:
    """The clean-up leaves the job's record alone until then, and no longer; no other record goes with it."""
    neighbour = a_done_backup(stack)
    assert since is not None
    stack.pass_time(since + days * DAY - SECOND - stack.clock)
    stack.clean()
    assert stack.job(job.id).status is job.status
    stack.pass_time(SECOND)
    assert stack.clean() == 1
    assert stack.real.jobs.get(job.id) is None
    assert stack.clean() == 0
    stack.check_backup(neighbour.id)


@pytest.mark.parametrize("end", [Status.FAILED, Status.CANCELLED])
def test_the_record_of_a_job_without_a_backup_goes_after_failed_record_days(
    stack: Stack, end: Status
) -> None:
    job = stack.a_backup(**({"max_bytes": 1} if end is Status.FAILED else {}))
    if end is Status.CANCELLED:
        stack.change_job().cancel(BY_SERVICE, job.id)
    stack.deliver()
    stack.pass_time(GRACE)
    stack.clean()
    job = stack.job(job.id)
    assert job.status is end
    assert job.cleaned_at is not None
    assert_forgotten_after(stack, job, stack.settings.policy.failed_record_days, job.finished_at)


@pytest.mark.parametrize("end", [Status.DONE, Status.FAILED])
def test_the_record_of_what_was_deleted_is_kept_by_how_it_had_ended(stack: Stack, end: Status) -> None:
    """A backup's for completed_record_days, that of a job that had failed for failed_record_days."""
    job = stack.a_backup(**({"max_bytes": 1} if end is Status.FAILED else {}))
    stack.deliver()
    assert stack.job(job.id).status is end
    stack.change_job().delete(BY_SERVICE, job.id, None)
    stack.pass_time(DELETE_GRACE)
    stack.clean()
    job = stack.job(job.id)
    assert job.status is Status.DELETED
    policy = stack.settings.policy
    days = policy.completed_record_days if end is Status.DONE else policy.failed_record_days
    assert_forgotten_after(stack, job, days, job.deleted_at)


def test_the_newest_good_is_what_got_done_last_and_is_whole(stack: Stack) -> None:
    user, site = an_id(), an_id()
    model = a_done_backup(stack).replace(user_id=user, site_id=site, version=1, clean_up_at=None)
    jobs = [
        finished(model, stack.clock + days * DAY).replace(id=f"{number:024x}")
        for number, days in enumerate([3, 5, 4, 9, 8])  # in the order of creation
    ]
    jobs[3] = jobs[3].replace(delete_at=stack.clock, delete_cause=DeleteCause.REQUESTED)
    expired = {"delete_at": stack.clock, "delete_cause": DeleteCause.EXPIRED}
    jobs[4] = jobs[4].replace(**expired, removing_at=stack.clock)
    jobs[1] = jobs[1].replace(**expired)
    for job in jobs:
        stack.real.jobs.add(job)
    assert [stack.real.jobs.holds_newest_good(job) for job in jobs[:3]] == [False, True, False]
    assert stack.real.jobs.holds_newest_good(jobs[0].replace(site_id=an_id()))


def test_the_dry_run_says_what_the_clean_up_then_does(stack: Stack) -> None:
    dry_run = stack.get_retention()
    job = a_done_backup(stack, expires_after_days=2)
    newer = finished(job, stack.clock + timedelta(hours=1)).replace(id="f" * 24)
    stack.real.jobs.add(newer)

    def decided() -> dict[str, tuple[Action, Why]]:
        found, cursor = dry_run(BY_SERVICE, job.user_id, job.site_id, 10, None)
        assert cursor is None
        return {job.id: (decision.action, decision.reason) for job, decision in found}

    assert decided()[job.id] == (Action.KEEP, Why.NOT_EXPIRED)
    stack.pass_time(3 * DAY)
    assert decided() == {job.id: (Action.EXPIRE, Why.EXPIRED), newer.id: (Action.KEEP, Why.NEWEST_GOOD)}
    stack.clean()
    assert decided()[job.id] == (Action.KEEP, Why.IN_GRACE)
    stack.pass_time(DELETE_GRACE)
    assert decided()[job.id] == (Action.DELETE_DATA, Why.GRACE_OVER)
    stack.clean()
    assert decided()[job.id] == (Action.KEEP, Why.RECORD_KEPT)
    assert decided()[newer.id] == (Action.KEEP, Why.NEWEST_GOOD)


def test_a_removal_whose_pass_crashed_is_taken_over_later(stack: Stack) -> None:
    job = a_done_backup(stack)
    stack.change_job().delete(BY_SERVICE, job.id, None)
    stack.pass_time(DELETE_GRACE)
    claimed = stack.recorder.apply(job.id, lifecycle.begin_removal)
    assert claimed is not None
    assert stack.clean() == 0, "another pass is at it"
    stack.pass_time(lifecycle.CLAIM)
    assert stack.clean() == 1
    assert stack.at_key(job) == ([], [])
