"""One suite for every ScheduleRepository, the fake among them; then what only MongoDB can show."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from pymongo.database import Database

from local.services import processes
from sitebackup.adapters.mongo.connection import connect
from sitebackup.adapters.mongo.documents import schedule_document
from sitebackup.adapters.mongo.schedules import MongoSchedules
from sitebackup.domain.errors import Conflict, RepositoryUnavailable
from sitebackup.domain.schedule import Schedule
from sitebackup.ports.repositories import ScheduleRepository
from tests.builders import BY_SERVICE, NOW
from tests.contract.conftest import Client
from tests.fakes.schedules import MemorySchedules
from tests.tcp_proxy import Forgetting, TcpProxy

MINUTE = timedelta(minutes=1)
THREADS = 16


def a_schedule(number: int, due: timedelta | None = timedelta(), **changes: Any) -> Schedule:
    run_at = NOW + due if due is not None else None
    schedule = Schedule(
        site_id=f"{number:024x}",
        user_id="a" * 24,
        cron="daily",
        expires_after_days=60,
        version=1,
        created_at=NOW,
        updated_at=NOW,
        next_tick=run_at,
        next_run_at=run_at,
    )
    return schedule.replace(**changes)


@pytest.fixture
def in_mongo(client: Client, database: Database[dict[str, Any]]) -> MongoSchedules:
    return MongoSchedules(client, database.name)


@pytest.fixture(params=["MongoDB", "fake"])
def schedules(request: pytest.FixtureRequest) -> ScheduleRepository:
    if request.param == "fake":
        return MemorySchedules()
    found: MongoSchedules = request.getfixturevalue("in_mongo")
    return found


def numbers(schedules: list[Schedule]) -> list[int]:
    return [int(schedule.site_id, 16) for schedule in schedules]


def test_a_schedule_comes_back_as_it_was_added(schedules: ScheduleRepository) -> None:
    schedule = a_schedule(1, providers=["db"], time_zone="Europe/Berlin", last_error="Skipped")
    schedules.add(schedule)
    assert schedules.get_for(BY_SERVICE, schedule.user_id, schedule.site_id) == schedule
    assert schedules.get_for(BY_SERVICE, schedule.user_id, "f" * 24) is None
    with pytest.raises(Conflict):
        schedules.add(schedule)


def test_a_schedule_is_replaced_only_as_it_was_seen(schedules: ScheduleRepository) -> None:
    seen = a_schedule(1)
    schedules.add(seen)
    assert schedules.replace(seen, seen.replace(cron="weekly"))
    assert not schedules.replace(seen, seen.replace(cron="0 1 * * *"))
    found = schedules.get_for(BY_SERVICE, seen.user_id, seen.site_id)
    assert found is not None
    assert (found.cron, found.version) == ("weekly", 2)


def test_of_many_who_replace_a_schedule_at_once_one_wins(schedules: ScheduleRepository) -> None:
    seen = a_schedule(1)
    schedules.add(seen)
    with ThreadPoolExecutor(THREADS) as pool:
        won = list(
            pool.map(lambda n: schedules.replace(seen, seen.replace(cron=f"{n} 0 * * *")), range(THREADS))
        )
    assert won.count(True) == 1
    found = schedules.get_for(BY_SERVICE, seen.user_id, seen.site_id)
    assert found is not None
    assert found.cron == f"{won.index(True)} 0 * * *"


def test_a_deleted_schedule_is_not_replaced_into_being(schedules: ScheduleRepository) -> None:
    seen = a_schedule(1)
    schedules.add(seen)
    assert schedules.delete_for(BY_SERVICE, seen.user_id, seen.site_id)
    assert not schedules.delete_for(BY_SERVICE, seen.user_id, seen.site_id)
    assert not schedules.replace(seen, seen)
    assert schedules.get_for(BY_SERVICE, seen.user_id, seen.site_id) is None


def test_due_schedules_come_in_order_no_more_than_asked_for_and_without_the_paused(
    schedules: ScheduleRepository,
) -> None:
    for number, minutes in enumerate([3, 1, 2, 9, 0], 1):
        schedules.add(a_schedule(number, minutes * MINUTE))
    schedules.add(a_schedule(6, None, paused=True))
    assert numbers(schedules.due(NOW + 3 * MINUTE, 10)) == [5, 2, 3, 1]
    assert numbers(schedules.due(NOW + 3 * MINUTE, 2)) == [5, 2]
    assert schedules.due(NOW - MINUTE, 10) == []


def test_pages_follow_one_another(schedules: ScheduleRepository) -> None:
    for number in (3, 1, 2):
        schedules.add(a_schedule(number))
    first = schedules.page_for(BY_SERVICE, None, 2, None)
    assert numbers(first) == [1, 2]
    assert numbers(schedules.page_for(BY_SERVICE, None, 2, first[-1].id)) == [3]


# --- what only MongoDB can show


def test_a_schedule_that_cannot_be_read_is_logged_and_does_not_count_against_the_limit(
    in_mongo: MongoSchedules, database: Database[dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    for number in (1, 2):
        in_mongo.add(a_schedule(number, number * MINUTE))
    for number in range(10, 15):
        database["schedules"].insert_one({**schedule_document(a_schedule(number)), "cron": number})
    assert numbers(in_mongo.due(NOW + 3 * MINUTE, 2)) == [1, 2]
    assert numbers(in_mongo.page_for(BY_SERVICE, None, 2, None)) == [1, 2]
    assert "schedule can't be read" in caplog.text


def test_the_index_holds_only_what_has_a_next_run(
    in_mongo: MongoSchedules, database: Database[dict[str, Any]]
) -> None:
    in_mongo.create_indexes()
    in_mongo.create_indexes()
    index = database["schedules"].index_information()["due"]
    assert index["key"] == [("nextRunAt", 1)]
    assert "sparse" not in index
    in_mongo.add(a_schedule(1, None))
    stored = database["schedules"].find_one({})
    assert stored is not None
    assert "nextRunAt" not in stored


@pytest.mark.parametrize("call", ["get", "add", "replace", "delete", "page", "due"])
def test_without_a_server_every_call_says_so(call: str) -> None:
    client = connect(f"mongodb://127.0.0.1:{processes.free_port()}/?serverSelectionTimeoutMS=100")
    schedules, schedule = MongoSchedules(client, "none"), a_schedule(1)
    calls: dict[str, Callable[[], object]] = {
        "get": lambda: schedules.get_for(BY_SERVICE, schedule.user_id, schedule.site_id),
        "add": lambda: schedules.add(schedule),
        "replace": lambda: schedules.replace(schedule, schedule),
        "delete": lambda: schedules.delete_for(BY_SERVICE, schedule.user_id, schedule.site_id),
        "page": lambda: schedules.page_for(BY_SERVICE, None, 1, None),
        "due": lambda: schedules.due(NOW, 1),
    }
    with pytest.raises(RepositoryUnavailable, match="MongoDB does not answer"):
        calls[call]()
    client.close()


CALLS: dict[str, Callable[[MongoSchedules, Schedule, Schedule], object]] = {
    "create_indexes": lambda schedules, old, new: schedules.create_indexes(),
    "get": lambda schedules, old, new: schedules.get_for(BY_SERVICE, old.user_id, old.site_id),
    "add": lambda schedules, old, new: schedules.add(new),
    "replace": lambda schedules, old, new: schedules.replace(old, old.replace(cron="weekly")),
    "delete": lambda schedules, old, new: schedules.delete_for(BY_SERVICE, old.user_id, old.site_id),
    "page": lambda schedules, old, new: schedules.page_for(BY_SERVICE, None, 5, None),
    "due": lambda schedules, old, new: schedules.due(NOW, 5),
}


@pytest.mark.parametrize("how", ["reset", "lose the answer"])
@pytest.mark.parametrize("call", CALLS)
def test_a_dead_connection_costs_no_answer_and_nothing_happens_twice(
    client_behind_proxy: Client,
    proxy: TcpProxy,
    database: Database[dict[str, Any]],
    in_mongo: MongoSchedules,
    call: str,
    how: Forgetting,
) -> None:
    behind = MongoSchedules(client_behind_proxy, database.name)
    old, new = a_schedule(1), a_schedule(2)
    behind.add(old)
    proxy.forget(how)
    answer = CALLS[call](behind, old, new)
    assert answer == {"get": old, "replace": True, "delete": True, "page": [old], "due": [old]}.get(call)
    assert in_mongo.page_for(BY_SERVICE, None, 5, None) == {
        "add": [old, new],
        "replace": [old.replace(cron="weekly", version=2)],
        "delete": [],
    }.get(call, [old])
