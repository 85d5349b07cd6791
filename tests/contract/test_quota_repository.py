"""One suite for every QuotaRepository, the fake among them; then what only MongoDB can show."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from pymongo.database import Database

from sitebackup.adapters.mongo.jobs import MongoJobs
from sitebackup.adapters.mongo.quotas import MongoQuotas
from sitebackup.adapters.mongo.restores import MongoRestores
from sitebackup.adapters.mongo.schedules import MongoSchedules
from sitebackup.domain.errors import Conflict, DuplicateJob, RepositoryUnavailable
from sitebackup.domain.job import Status
from sitebackup.domain.policy import Policy
from sitebackup.domain.quota import Limits, Quota, UserLimits, day_of
from sitebackup.domain.restore import RestoreStatus
from sitebackup.domain.task_ref import RestoreRef
from sitebackup.ports.repositories import (
    JobRepository,
    QuotaRepository,
    RestoreRepository,
    ScheduleRepository,
)
from tests.builders import NOW, a_job, a_restore, a_task, an_object
from tests.contract.conftest import Client
from tests.contract.test_schedule_repository import a_schedule
from tests.fakes.jobs import MemoryJobs, MemoryRestores
from tests.fakes.quotas import MemoryQuotas
from tests.fakes.schedules import MemorySchedules
from tests.tcp_proxy import Forgetting, TcpProxy

USER, OTHER = "a" * 24, "c" * 24
TODAY = day_of(NOW, Policy())
YESTERDAY = day_of(TODAY.begins - timedelta(seconds=1), Policy())


@dataclass
class Stored:
    """What counts, and who counts it."""

    jobs: JobRepository
    restores: RestoreRepository
    schedules: ScheduleRepository
    quotas: QuotaRepository


def in_mongo(client: Client, name: str) -> Stored:
    return Stored(
        MongoJobs(client, name),
        MongoRestores(client, name),
        MongoSchedules(client, name),
        MongoQuotas(client, name),
    )


@pytest.fixture(params=["MongoDB", "fake"])
def stored(request: pytest.FixtureRequest) -> Stored:
    if request.param == "MongoDB":
        database: Database[dict[str, Any]] = request.getfixturevalue("database")
        return in_mongo(request.getfixturevalue("client"), database.name)
    jobs, schedules = MemoryJobs(), MemorySchedules()
    restores = MemoryRestores(jobs)
    return Stored(jobs, restores, schedules, MemoryQuotas(jobs, restores, schedules))


def test_a_user_without_exceptions_has_none_and_those_that_are_set_come_back(stored: Stored) -> None:
    quotas = stored.quotas
    assert quotas.limits(USER) == Limits()
    for limits in (Limits(active_jobs=0), Limits(active_jobs=5, stored_bytes="unlimited"), Limits()):
        quotas.set_limits(USER, limits)
        assert (quotas.limits(USER), quotas.limits(OTHER)) == (limits, Limits())


def test_limits_are_added_only_where_there_are_none(stored: Stored) -> None:
    quotas = stored.quotas
    assert quotas.add_limits(UserLimits(user_id=USER, limits=Limits(schedules=1)))
    assert not quotas.add_limits(UserLimits(user_id=USER, limits=Limits(schedules=2)))
    assert quotas.limits(USER) == Limits(schedules=1)


def test_the_users_with_exceptions_come_in_pages(stored: Stored) -> None:
    users = [
        UserLimits(user_id=f"{number:024x}", limits=Limits(active_jobs=number)) for number in range(1, 6)
    ]
    for user in reversed(users):
        stored.quotas.set_limits(user.user_id, user.limits)
    stored.quotas.set_limits(users[1].user_id, Limits())
    left = [users[0], *users[2:]]
    assert stored.quotas.page_of_limits(2, None) == left[:2]
    assert stored.quotas.page_of_limits(5, left[1].user_id) == left[2:]
    assert stored.quotas.page_of_limits(5, left[-1].user_id) == []


def test_what_is_active_counts_and_a_safety_backup_does_not(stored: Stored) -> None:
    ref = RestoreRef(restore_id="b" * 24, attempt=1)
    stored.jobs.add(a_job(user_id=USER, slot="one"))
    stored.jobs.add(a_job(user_id=USER, status=Status.RUNNING))
    stored.jobs.add(a_job(user_id=USER, status=Status.FAILED))
    stored.jobs.add(a_job(user_id=USER, safety_for=ref))
    stored.jobs.add(a_job(user_id=OTHER, slot="other"))
    stored.restores.add(a_restore(user_id=USER))
    assert set(stored.quotas.slots(USER, Quota.ACTIVE_JOBS, None, 5)) == {"one", None}
    assert len(stored.quotas.slots(USER, Quota.ACTIVE_JOBS, None, 1)) == 1
    assert stored.quotas.slots(USER, Quota.ACTIVE_JOBS, None, 0) == []
    assert stored.quotas.count(USER, Quota.ACTIVE_JOBS, None) == 2


def test_the_restores_of_a_day_count_however_they_ended(stored: Stored) -> None:
    stored.restores.add(a_restore(user_id=USER, slot="one"))
    stored.restores.add(a_restore(user_id=USER, slot="two", status=RestoreStatus.FAILED))
    stored.restores.add(a_restore(user_id=USER, slot="first", created_at=TODAY.begins))
    stored.restores.add(a_restore(user_id=USER, slot="late", created_at=TODAY.ends))
    stored.restores.add(a_restore(user_id=OTHER))
    stored.jobs.add(a_job(user_id=USER))
    found = stored.quotas.slots(USER, Quota.RESTORES_PER_DAY, TODAY, 9)
    assert set(found) == {"one", "two", "first"}
    assert stored.quotas.count(USER, Quota.RESTORES_PER_DAY, TODAY) == 3
    assert stored.quotas.count(USER, Quota.RESTORES_PER_DAY, YESTERDAY) == 0


def test_the_schedules_of_a_user_count(stored: Stored) -> None:
    stored.schedules.add(a_schedule(1, slot="one"))
    stored.schedules.add(a_schedule(2, paused=True))
    stored.schedules.add(a_schedule(1, user_id=OTHER, slot="other"))
    assert set(stored.quotas.slots(USER, Quota.SCHEDULES, None, 5)) == {"one", None}
    assert stored.quotas.count(USER, Quota.SCHEDULES, None) == 2


def test_the_bytes_of_a_user_are_those_of_objects_and_of_what_running_backups_reserved(
    stored: Stored,
) -> None:
    assert stored.quotas.held_bytes(USER) == 0
    done = a_task(1).replace(status=Status.DONE, object=an_object("site", 100))
    running = {"site": done, "db": a_task(1).replace(reserved=20)}
    stored.jobs.add(a_job(user_id=USER, tasks={"site": done}, status=Status.DONE))
    job = a_job(user_id=USER, tasks=running, status=Status.RUNNING)
    stored.jobs.add(job)
    stored.jobs.add(a_job(user_id=USER, tasks=running, status=Status.FAILED))
    stored.jobs.add(a_job(user_id=USER, tasks={"site": done}, status=Status.DELETED))
    stored.jobs.add(a_job(user_id=OTHER, tasks={"site": done}, status=Status.DONE))
    assert stored.quotas.held_bytes(USER) == 220
    failed = job.replace(status=Status.FAILED, version=2)
    assert stored.jobs.replace(job, failed)
    assert stored.quotas.held_bytes(USER) == 100
    assert stored.jobs.replace(failed, job.replace(version=3))
    assert stored.quotas.held_bytes(USER) == 220


def test_a_slot_has_one_owner_whoever_takes_it(stored: Stored) -> None:
    job, ended = a_job(slot="one"), a_job(status=Status.FAILED)
    stored.jobs.add(job)
    stored.jobs.add(ended)
    with pytest.raises(DuplicateJob):
        stored.jobs.add(a_job(slot="one"))
    again = ended.replace(status=Status.PENDING, slot="one", version=2)
    with pytest.raises(DuplicateJob):
        stored.jobs.replace(ended, again)
    assert stored.jobs.replace(job, job.replace(status=Status.FAILED, slot=None, version=2))
    assert stored.jobs.replace(ended, again), "it is free once its owner has ended"
    stored.schedules.add(a_schedule(1, slot="one"))
    with pytest.raises(Conflict):
        stored.schedules.add(a_schedule(2, slot="one"))
    stored.restores.add(a_restore(slot="two", status=RestoreStatus.DONE))
    with pytest.raises(DuplicateJob):
        stored.restores.add(a_restore(slot="two"))


@pytest.mark.parametrize("how", ["reset", "lose the answer"])
def test_limits_whose_answer_was_lost_are_set_all_the_same(
    client_behind_proxy: Client, proxy: TcpProxy, database: Database[dict[str, Any]], how: Forgetting
) -> None:
    quotas = MongoQuotas(client_behind_proxy, database.name)
    quotas.set_limits(USER, Limits(active_jobs=1))
    proxy.forget(how)
    quotas.set_limits(USER, Limits(active_jobs=2))
    assert quotas.limits(USER) == Limits(active_jobs=2)


def test_mongodb_that_does_not_answer_is_unavailable(
    client_behind_proxy: Client, proxy: TcpProxy, database: Database[dict[str, Any]]
) -> None:
    quotas = MongoQuotas(client_behind_proxy, database.name)
    proxy.close()
    for call in (quotas.limits, quotas.held_bytes):
        with pytest.raises(RepositoryUnavailable):
            call(USER)
