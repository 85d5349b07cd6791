"""One suite for every repository that answers callers, fakes too: what is out of reach is not there (I21)."""

from dataclasses import dataclass
from typing import Any

import pytest
from pymongo.database import Database

from sitebackup.adapters.mongo.jobs import MongoJobs
from sitebackup.adapters.mongo.restores import MongoRestores
from sitebackup.adapters.mongo.schedules import MongoSchedules
from sitebackup.domain.principal import Access, Scope, User
from sitebackup.domain.schedule import Schedule
from sitebackup.ports.repositories import JobRepository, RestoreRepository, ScheduleRepository
from tests.builders import BY_SERVICE, NOW, a_job, a_restore
from tests.contract.conftest import Client
from tests.fakes.jobs import MemoryJobs, MemoryRestores
from tests.fakes.schedules import MemorySchedules

ME, OTHER = "a" * 24, "b" * 24
SITE, ELSEWHERE = "1" * 24, "2" * 24


def access_of(user_id: str, *sites: str) -> Access:
    """With a token for these sites, or for all."""
    return User(user_id, frozenset(sites) if sites else None, frozenset(Scope)).may(Scope.READ)


SEES = [access_of(ME), access_of(ME, SITE), access_of(ME, SITE, ELSEWHERE), BY_SERVICE]
"""What is mine and of SITE."""
DOES_NOT = [access_of(OTHER), access_of(OTHER, SITE), access_of(ME, ELSEWHERE), access_of(OTHER, ELSEWHERE)]


@dataclass(frozen=True)
class Repositories:
    jobs: JobRepository
    restores: RestoreRepository
    schedules: ScheduleRepository


@pytest.fixture(params=["MongoDB", "fake"])
def stored(request: pytest.FixtureRequest) -> Repositories:
    if request.param == "fake":
        jobs = MemoryJobs()
        return Repositories(jobs, MemoryRestores(jobs), MemorySchedules())
    client: Client = request.getfixturevalue("client")
    name = request.getfixturevalue("database").name
    return Repositories(MongoJobs(client, name), MongoRestores(client, name), MongoSchedules(client, name))


def a_schedule(user_id: str, site_id: str, **changes: Any) -> Schedule:
    schedule = Schedule(
        user_id=user_id,
        site_id=site_id,
        cron="daily",
        expires_after_days=60,
        version=1,
        created_at=NOW,
        updated_at=NOW,
    )
    return schedule.replace(**changes)


def test_a_backup_is_seen_by_its_user_for_its_site_and_by_a_service(stored: Repositories) -> None:
    job = a_job(user_id=ME, site_id=SITE)
    stored.jobs.add(job)
    for access in SEES:
        assert stored.jobs.get_for(access, job.id) == job
        assert stored.jobs.version_for(access, job.id) == 1
        assert stored.jobs.page_for(access, {}, 10, None) == [job]
        assert stored.jobs.page_for(access, {"userId": ME, "siteId": SITE}, 10, None) == [job]
    for access in DOES_NOT:
        assert stored.jobs.get_for(access, job.id) is None
        assert stored.jobs.version_for(access, job.id) is None
        assert stored.jobs.page_for(access, {}, 10, None) == []


def test_no_filter_that_is_asked_for_takes_the_place_of_what_is_within_reach(stored: Repositories) -> None:
    stored.jobs.add(a_job(user_id=ME, site_id=SITE))
    stored.schedules.add(a_schedule(ME, SITE))
    for access in DOES_NOT:
        for filters in ({"siteId": SITE}, {"userId": ME}, {"userId": ME, "siteId": SITE}):
            assert stored.jobs.page_for(access, filters, 10, None) == []
        assert stored.schedules.page_for(access, ME, 10, None) == []


def test_a_page_that_is_full_of_others_goes_on_to_ones_own(stored: Repositories) -> None:
    mine = [a_job(user_id=ME) for _ in range(3)]
    for job in mine:
        stored.jobs.add(job)
        for _ in range(3):
            stored.jobs.add(a_job(user_id=OTHER))
    newest = stored.jobs.page_for(access_of(ME), {}, 2, None)
    assert newest == [mine[2], mine[1]]
    assert stored.jobs.page_for(access_of(ME), {}, 2, newest[-1].id) == [mine[0]]


def test_a_restore_is_seen_only_with_both_of_its_sites(stored: Repositories) -> None:
    restore = a_restore(user_id=ME, site_id=SITE, source_site_id=ELSEWHERE)
    stored.restores.add(restore)
    for access in (access_of(ME), access_of(ME, SITE, ELSEWHERE), BY_SERVICE):
        assert stored.restores.get_for(access, restore.id) == restore
        assert stored.restores.page_for(access, {}, 10, None) == [restore]
    for access in (*DOES_NOT, access_of(ME, SITE)):
        assert stored.restores.get_for(access, restore.id) is None
        assert stored.restores.version_for(access, restore.id) is None
        assert stored.restores.page_for(access, {}, 10, None) == []


def test_a_schedule_is_seen_and_deleted_by_its_user_for_its_site(stored: Repositories) -> None:
    schedule = a_schedule(ME, SITE)
    stored.schedules.add(schedule)
    for access in DOES_NOT:
        assert stored.schedules.get_for(access, ME, SITE) is None
        assert stored.schedules.page_for(access, None, 10, None) == []
        assert not stored.schedules.delete_for(access, ME, SITE)
    for access in SEES:
        assert stored.schedules.get_for(access, ME, SITE) == schedule
        assert stored.schedules.page_for(access, None, 10, None) == [schedule]
    assert stored.schedules.delete_for(access_of(ME, SITE), ME, SITE)


def test_two_users_have_schedules_of_one_site_id_which_do_not_touch_each_other(stored: Repositories) -> None:
    mine, theirs = a_schedule(ME, SITE), a_schedule(OTHER, SITE, cron="weekly")
    stored.schedules.add(mine)
    stored.schedules.add(theirs)
    assert stored.schedules.replace(mine, mine.replace(cron="0 1 * * *"))
    assert stored.schedules.get_for(BY_SERVICE, OTHER, SITE) == theirs
    assert stored.schedules.page_for(BY_SERVICE, None, 10, None)[-1] == theirs
    assert stored.schedules.page_for(BY_SERVICE, OTHER, 10, None) == [theirs]
    assert stored.schedules.delete_for(BY_SERVICE, ME, SITE)
    assert stored.schedules.get_for(BY_SERVICE, OTHER, SITE) == theirs


def test_the_schedules_of_a_user_are_read_by_an_index(
    client: Client, database: Database[dict[str, Any]]
) -> None:
    schedules = MongoSchedules(client, database.name)
    schedules.create_indexes()
    assert database["schedules"].index_information()["of_user"]["key"] == [("userId", 1), ("_id", 1)]
