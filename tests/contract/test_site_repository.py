"""One suite for every SiteRepository, the fake among them; then what only MongoDB can show."""

from datetime import timedelta
from typing import Any

import pytest
from pymongo.database import Database

from sitebackup.adapters.mongo.sites import MongoSites
from sitebackup.domain.errors import RepositoryUnavailable
from sitebackup.domain.site import Coverage, Day, Ledger, Site
from sitebackup.ports.repositories import SiteRepository
from tests.builders import NOW
from tests.contract.conftest import Client
from tests.fakes.sites import MemorySites
from tests.tcp_proxy import Forgetting, TcpProxy

USER = "a" * 24
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


@pytest.fixture
def in_mongo(client: Client, database: Database[dict[str, Any]]) -> MongoSites:
    return MongoSites(client, database.name)


@pytest.fixture(params=["MongoDB", "fake"])
def sites(request: pytest.FixtureRequest) -> SiteRepository:
    if request.param == "fake":
        return MemorySites()
    found: MongoSites = request.getfixturevalue("in_mongo")
    return found


def site_id(number: int) -> str:
    return f"{number:024x}"


def stored(sites: SiteRepository, number: int) -> Site:
    found = sites.get(USER, site_id(number))
    assert found is not None
    return found


def numbers(found: list[Site]) -> list[int]:
    return [int(site.site_id, 16) for site in found]


def test_the_first_backup_makes_the_site_and_the_next_ones_leave_it_as_unproven_as_it_was(
    sites: SiteRepository,
) -> None:
    assert sites.get(USER, site_id(1)) is None
    sites.backed_up(USER, site_id(1), NOW)
    sites.backed_up(USER, site_id(1), NOW + DAY)
    assert stored(sites, 1) == Site(
        user_id=USER,
        site_id=site_id(1),
        version=1,
        since=NOW,
        look_at=NOW,
        backed_up_at=NOW + DAY,
    )
    assert sites.get("b" * 24, site_id(1)) is None


def test_the_longest_unproven_come_first_and_those_that_were_chosen_or_are_proven_do_not_come(
    sites: SiteRepository,
) -> None:
    for number, days in [(1, 3), (2, 5), (3, 1), (4, 4)]:
        sites.backed_up(USER, site_id(number), NOW - days * DAY)
    sites.backed_up(USER, site_id(5), NOW)
    young = stored(sites, 3)
    assert sites.replace(young, young.verified(NOW - DAY, unread=False))
    due = sites.due(NOW - 2 * DAY, NOW, 10)
    assert numbers(due) == [2, 4, 1, 5], "the third one's proof is young, the fifth was never opened"
    assert sites.replace(due[0], due[0].replace(look_at=NOW + HOUR))
    assert numbers(sites.due(NOW - 2 * DAY, NOW, 10)) == [4, 1, 5]
    assert numbers(sites.due(NOW - 2 * DAY, NOW, 1)) == [4]
    assert numbers(sites.due(NOW - 2 * DAY, NOW + HOUR, 10)) == [2, 4, 1, 5]


def test_only_the_first_of_two_changes_of_the_same_version_is_stored(sites: SiteRepository) -> None:
    sites.backed_up(USER, site_id(1), NOW)
    seen = stored(sites, 1)
    sites.backed_up(USER, site_id(1), NOW + HOUR)
    assert sites.replace(seen, seen.verified(NOW + DAY, unread=True))
    assert not sites.replace(seen, seen.replace(look_at=NOW))
    after = stored(sites, 1)
    assert (after.version, after.since, after.verified_at, after.unread) == (2, NOW + DAY, NOW + DAY, True)
    assert after.backed_up_at == NOW + HOUR, "a backup that came meanwhile is forgotten"
    assert sites.replace(after, after.verified(NOW + 2 * DAY, unread=False))
    assert not stored(sites, 1).unread


def test_a_site_is_forgotten_only_if_no_backup_came_meanwhile(sites: SiteRepository) -> None:
    sites.backed_up(USER, site_id(1), NOW)
    seen = stored(sites, 1)
    assert not sites.forget(seen, NOW)
    assert not sites.forget(seen.replace(version=2), NOW + HOUR)
    sites.backed_up(USER, site_id(1), NOW + DAY)
    assert not sites.forget(seen, NOW + HOUR)
    assert sites.forget(seen, NOW + 2 * DAY)
    assert sites.get(USER, site_id(1)) is None
    assert not sites.forget(seen, NOW + 2 * DAY)


def test_the_coverage_counts_who_was_opened_who_is_overdue_and_who_is_young(sites: SiteRepository) -> None:
    assert sites.coverage(NOW) == Coverage()
    for number in range(6):
        sites.backed_up(USER, site_id(number), NOW - 40 * DAY)
    sites.backed_up(USER, site_id(9), NOW - DAY)
    for number, days in [(0, 1), (1, 2), (2, 35)]:
        seen = stored(sites, number)
        assert sites.replace(seen, seen.verified(NOW - days * DAY, unread=number == 1))
    assert sites.coverage(NOW - 30 * DAY) == Coverage(
        sites=7, opened=2, unread=1, overdue=4, oldest=NOW - 40 * DAY
    )


def test_the_ledger_is_changed_by_one_run_at_a_time(sites: SiteRepository) -> None:
    new = sites.ledger()
    assert new == Ledger(version=0)
    first = new.replace(left=5, left_at=NOW, coverage=Coverage(sites=3, counted_at=NOW))
    assert sites.replace_ledger(new, first)
    assert not sites.replace_ledger(new, first.replace(left=7))
    found = sites.ledger()
    assert found == first.replace(version=1)
    assert sites.replace_ledger(found, found.replace(left=-5))
    assert sites.ledger() == first.replace(version=2, left=-5)


def test_the_work_of_a_day_is_that_of_its_hours(sites: SiteRepository) -> None:
    assert sites.day(NOW) == Day()
    for moment in (NOW - 25 * HOUR, NOW - 23 * HOUR, NOW, NOW):
        sites.add_work(moment, 100, 0.5)
    assert sites.day(NOW) == Day(bytes=300, seconds=1.5)


# --- MongoDB alone


def test_a_site_that_cannot_be_read_does_not_hide_the_others(
    in_mongo: MongoSites, database: Database[dict[str, Any]]
) -> None:
    in_mongo.backed_up(USER, site_id(1), NOW)
    database["sites"].insert_one({"_id": "odd", "since": NOW - DAY, "lookAt": NOW})
    assert numbers(in_mongo.due(NOW, NOW, 1)) == [1]


@pytest.mark.parametrize("how", ["reset", "lose the answer"])
def test_a_write_whose_answer_was_lost_is_made_once(
    client_behind_proxy: Client, proxy: TcpProxy, database: Database[dict[str, Any]], how: Forgetting
) -> None:
    sites = MongoSites(client_behind_proxy, database.name)
    sites.backed_up(USER, site_id(1), NOW)
    seen = stored(sites, 1)
    proxy.forget(how)
    assert sites.replace(seen, seen.verified(NOW, unread=False))
    assert stored(sites, 1).version == 2


def test_mongodb_that_does_not_answer_is_unavailable(
    client_behind_proxy: Client, proxy: TcpProxy, database: Database[dict[str, Any]]
) -> None:
    sites = MongoSites(client_behind_proxy, database.name)
    proxy.close()
    with pytest.raises(RepositoryUnavailable):
        sites.get(USER, site_id(1))
