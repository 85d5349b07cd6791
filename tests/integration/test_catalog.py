"""The catalogue on a real MongoDB and a real S3: what was lost is back, and a schedule knows which ticks have run."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from local.services.service import Service
from sitebackup.backup.manage_limits import PutLimits
from sitebackup.catalog.check_catalog import Check
from sitebackup.catalog.rebuild_catalog import Rebuild, Rebuilt
from sitebackup.domain.catalog import DifferenceCode
from sitebackup.domain.errors import ActiveJob
from sitebackup.domain.job import Job, Status
from sitebackup.domain.quota import Limits
from sitebackup.entrypoints.views import job_view
from sitebackup.schedules.manage_schedule import PutSchedule
from tests.builders import BY_SERVICE
from tests.integration.real_stack import GRACE, Stack, an_id

DAYS = timedelta(days=400)
"""Later than any other test in this bucket saves schedules."""
NOT_KEPT = {"version", "updatedAt"}
USER = an_id()


@pytest.fixture
def stack(mongo: Service, s3: Service) -> Iterator[Stack]:
    stack = Stack(mongo.address, s3.address, f"catalog-{uuid4().hex}")
    stack.pass_time(DAYS)
    yield stack
    stack.close()


def rebuild(stack: Stack, prefix: str = "") -> list[Rebuilt]:
    """All passes. S3's clock is not the stack's."""
    request = Rebuild(before=datetime.now(UTC) + timedelta(hours=1), prefix=prefix)
    use = stack.rebuild_catalog()
    passes = [use(request, stack.deadline())]
    while passes[-1].marker:
        passes.append(use(request.replace(marker=passes[-1].marker), stack.deadline()))
    return passes


def documents(stack: Stack) -> list[dict[str, Any]]:
    """All records, as they are stored."""
    return list(stack.database["jobs"].find().sort("_id"))


def lose_database(stack: Stack) -> None:
    stack.mongo.drop_database(stack.settings.mongo_database)


def shown(stack: Stack, job: Job) -> dict[str, Any]:
    view = job_view(stack.job(job.id), stack.now())
    return {name: value for name, value in view.to_document().items() if name not in NOT_KEPT}


def a_schedule(stack: Stack) -> str:
    """A daily one. Its site."""
    request = PutSchedule(user_id=USER, cron="daily", providers=["site"])
    return stack.manage_schedule().put(BY_SERVICE, an_id(), request).site_id


def jobs_of(stack: Stack, site_id: str) -> list[Job]:
    return stack.real.jobs.page({"siteId": site_id}, 10, None)


def test_lost_records_are_back_as_they_were_and_a_second_rebuild_changes_nothing(stack: Stack) -> None:
    user_id = an_id()
    jobs = [stack.a_backup(user_id=user_id, expires_after_days=n + 1) for n in range(3)]
    stack.deliver()
    failed = stack.a_backup(user_id=user_id)
    before = [shown(stack, job) for job in jobs]
    lose_database(stack)
    (made,) = rebuild(stack, user_id)
    assert (made.jobs, made.jobs_present, made.left_out) == (3, 0, [])
    assert [shown(stack, job) for job in jobs] == before
    assert stack.real.jobs.get(failed.id) is None
    for job in jobs:
        site = stack.real.sites.get(job.user_id, job.site_id)
        assert site is not None, "drills know nothing of the site"
    first = documents(stack)
    (again,) = rebuild(stack, user_id)
    assert (again.jobs, again.jobs_present) == (0, 3)
    assert documents(stack) == first
    for job in jobs:
        stack.check_backup(job.id)
    stack.a_backup(user_id=user_id, site_id=jobs[0].site_id)
    with pytest.raises(ActiveJob):  # by an index, which was lost as well
        stack.a_backup(user_id=user_id, site_id=jobs[0].site_id)


def test_a_tick_whose_backup_is_there_is_not_run_again_and_one_whose_backup_is_lost_is(stack: Stack) -> None:
    ran, lost = a_schedule(stack), a_schedule(stack)
    limits = PutLimits(active_jobs=3, schedules="unlimited")
    stack.manage_limits().put(BY_SERVICE, USER, limits)
    assert stack.save_settings()(stack.deadline()) == 3
    stack.pass_time(timedelta(days=1, hours=1))
    assert stack.run_schedule()(stack.deadline()) == 2
    (job,) = jobs_of(stack, ran)
    stack.bag.bag = [event for event in stack.bag.bag if getattr(event.task, "job_id", "") == job.id]
    stack.deliver()
    assert stack.job(job.id).status is Status.DONE
    lose_database(stack)
    passes = rebuild(stack)
    assert (sum(one.schedules for one in passes), sum(one.limits for one in passes)) == (2, 1)
    assert stack.real.quotas.limits(USER) == Limits(active_jobs=3, schedules="unlimited")
    due = stack.real.schedules.get_for(BY_SERVICE, USER, ran)
    assert due is not None
    assert due.next_run_at is not None
    assert due.next_run_at < stack.now()
    assert stack.run_schedule()(stack.deadline()) == 2
    assert [one.id for one in jobs_of(stack, ran)] == [job.id]
    (caught_up,) = jobs_of(stack, lost)
    assert caught_up.status is Status.PENDING
    for site_id in (ran, lost):
        schedule = stack.real.schedules.get_for(BY_SERVICE, USER, site_id)
        assert schedule is not None
        assert schedule.last_error is None
        assert schedule.next_run_at is not None
        assert schedule.next_run_at > stack.now()


def test_what_an_earlier_run_left_beside_a_rebuilt_backup_is_removed_in_its_time(stack: Stack) -> None:
    job = stack.a_backup()
    event = stack.bag.bag[0]
    stack.deliver(1)
    stack.pass_time(timedelta(hours=1))
    stack.sweep()
    stack.deliver_one(event)
    stack.deliver()
    lose_database(stack)
    rebuild(stack, job.user_id)
    assert stack.real.storage.at_key(job.key("site")).versions
    stack.pass_time(GRACE)
    stack.clean()
    stack.check_backup(job.id)
    assert stack.at_key(job)[0] == []


def test_what_differs_on_real_servers_is_named(stack: Stack) -> None:
    user_id = an_id()
    jobs = [stack.a_backup(user_id=user_id) for _ in range(4)]
    stack.deliver()
    use = stack.check_catalog()

    def named() -> set[tuple[str, str]]:
        checked = use(Check(prefix=user_id), stack.deadline())
        records = use(Check(marker="records:"), stack.deadline())
        assert (checked.marker, records.marker) == (None, None)
        assert (checked.folders, records.objects) == (
            4,
            len(stack.real.jobs.page({"status": "done"}, 9, None)),
        )
        return {(one.code, one.job_id) for one in [*checked.differences, *records.differences]}

    assert named() == set()
    lost, replaced, gone, extra = (stack.job(job.id) for job in jobs)
    stack.database["jobs"].delete_one({"_id": lost.id})
    assert stack.s3 is not None
    for key in (replaced.manifest_key, extra.key("site")):
        stack.s3.put_object(Bucket=stack.settings.bucket, Key=key, Body=b"{}")
    stored = gone.tasks["site"].object
    assert stored is not None
    stack.real.storage.delete_version(stored.key, stored.version_id or "")
    assert named() == {
        (DifferenceCode.RECORD_MISSING, lost.id),
        (DifferenceCode.MANIFEST_REPLACED, replaced.id),
        (DifferenceCode.OBJECT_UNRECORDED, extra.id),
        (DifferenceCode.OBJECT_MISSING, gone.id),
    }
