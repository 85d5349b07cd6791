"""Schedules in MongoDB: compare-and-set, what is due, and documents that can't be read."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from pymongo import MongoClient

from local.services import processes
from local.services.service import Service
from sitebackup.adapters.repository import connect
from sitebackup.adapters.schedules import Schedules
from sitebackup.domain.errors import Conflict, RepositoryUnavailable
from sitebackup.domain.schedule import Schedule
from tests.tcp_proxy import Forgetting, TcpProxy

NOW = datetime(2030, 1, 31, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


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
def database(mongo: Service) -> Iterator[Any]:
    name = f"schedules-{uuid4().hex}"
    with MongoClient[dict[str, Any]](mongo.address, tz_aware=True) as client:
        yield client[name]
        client.drop_database(name)


@pytest.fixture
def schedules(mongo: Service, database: Any) -> Iterator[Schedules]:
    client = connect(mongo.address)
    yield Schedules(client, database.name)
    client.close()


def test_a_schedule_comes_back_as_it_was_added(schedules: Schedules) -> None:
    schedule = a_schedule(1, providers=["db"], time_zone="Europe/Berlin", last_error="Skipped")
    schedules.add(schedule)
    assert schedules.get(schedule.site_id) == schedule
    assert schedules.get("f" * 24) is None
    with pytest.raises(Conflict):
        schedules.add(schedule)


def test_it_is_replaced_only_as_it_was_seen(schedules: Schedules) -> None:
    seen = a_schedule(1)
    schedules.add(seen)
    assert schedules.replace(seen, seen.replace(cron="weekly"))
    assert not schedules.replace(seen, seen.replace(cron="0 1 * * *"))
    found = schedules.get(seen.site_id)
    assert found is not None
    assert (found.cron, found.version) == ("weekly", 2)


def test_of_sixteen_that_replace_it_at_once_one_does(schedules: Schedules) -> None:
    seen = a_schedule(1)
    schedules.add(seen)
    with ThreadPoolExecutor(16) as pool:
        won = list(pool.map(lambda n: schedules.replace(seen, seen.replace(cron=f"{n} 0 * * *")), range(16)))
    assert won.count(True) == 1
    found = schedules.get(seen.site_id)
    assert found is not None
    assert found.cron == f"{won.index(True)} 0 * * *"


def test_a_deleted_schedule_can_not_be_replaced_into_being(schedules: Schedules) -> None:
    seen = a_schedule(1)
    schedules.add(seen)
    assert schedules.delete(seen.site_id)
    assert not schedules.delete(seen.site_id)
    assert not schedules.replace(seen, seen)
    assert schedules.get(seen.site_id) is None


def test_due_is_in_order_at_most_so_many_and_without_the_paused(schedules: Schedules) -> None:
    for number, minutes in enumerate([3, 1, 2, 9, 0], 1):
        schedules.add(a_schedule(number, minutes * MINUTE))
    schedules.add(a_schedule(6, None, paused=True))
    assert [s.site_id[-1] for s in schedules.due(NOW + 3 * MINUTE, 10)] == ["5", "2", "3", "1"]
    assert [s.site_id[-1] for s in schedules.due(NOW + 3 * MINUTE, 2)] == ["5", "2"]
    assert schedules.due(NOW - MINUTE, 10) == []


def test_pages_follow_one_another(schedules: Schedules) -> None:
    for number in (3, 1, 2):
        schedules.add(a_schedule(number))
    first = schedules.page(2, None)
    assert [s.site_id[-1] for s in first] == ["1", "2"]
    assert [s.site_id[-1] for s in schedules.page(2, first[-1].site_id)] == ["3"]


def test_what_can_not_be_read_is_logged_and_takes_no_place(
    schedules: Schedules, database: Any, caplog: pytest.LogCaptureFixture
) -> None:
    for number in (1, 2):
        schedules.add(a_schedule(number, number * MINUTE))
    for number in range(10, 15):
        database["schedules"].insert_one({**a_schedule(number).to_document(), "cron": number})
    assert [s.site_id[-1] for s in schedules.due(NOW + 3 * MINUTE, 2)] == ["1", "2"]
    assert [s.site_id[-1] for s in schedules.page(2, None)] == ["1", "2"]
    assert "schedule can't be read" in caplog.text


def test_the_index_holds_only_what_has_a_next_run(schedules: Schedules, database: Any) -> None:
    schedules.create_indexes()
    schedules.create_indexes()
    index = database["schedules"].index_information()["due"]
    assert index["key"] == [("nextRunAt", 1)]
    assert "sparse" not in index
    schedules.add(a_schedule(1, None))
    assert "nextRunAt" not in database["schedules"].find_one({})


@pytest.mark.parametrize("call", ["get", "add", "replace", "delete", "page", "due"])
def test_without_a_server_every_call_says_so(call: str) -> None:
    client = connect(f"mongodb://127.0.0.1:{processes.free_port()}/?serverSelectionTimeoutMS=100")
    schedules, schedule = Schedules(client, "none"), a_schedule(1)
    calls: dict[str, Callable[[], object]] = {
        "get": lambda: schedules.get(schedule.site_id),
        "add": lambda: schedules.add(schedule),
        "replace": lambda: schedules.replace(schedule, schedule),
        "delete": lambda: schedules.delete(schedule.site_id),
        "page": lambda: schedules.page(1, None),
        "due": lambda: schedules.due(NOW, 1),
    }
    with pytest.raises(RepositoryUnavailable, match="MongoDB does not answer"):
        calls[call]()
    client.close()


CALLS: dict[str, Callable[[Schedules, Schedule, Schedule], object]] = {
    "create_indexes": lambda schedules, old, new: schedules.create_indexes(),
    "get": lambda schedules, old, new: schedules.get(old.site_id),
    "add": lambda schedules, old, new: schedules.add(new),
    "replace": lambda schedules, old, new: schedules.replace(old, old.replace(cron="weekly")),
    "delete": lambda schedules, old, new: schedules.delete(old.site_id),
    "page": lambda schedules, old, new: schedules.page(5, None),
    "due": lambda schedules, old, new: schedules.due(NOW, 5),
}


@pytest.mark.parametrize("how", ["reset", "lose the answer"])
@pytest.mark.parametrize("call", CALLS)
def test_a_dead_connection_costs_no_answer_and_nothing_happens_twice(
    mongo: Service, database: Any, schedules: Schedules, call: str, how: Forgetting
) -> None:
    proxy = TcpProxy((mongo.host, mongo.port))
    client = connect(f"mongodb://{proxy.address}/?directConnection=true")
    behind = Schedules(client, database.name)
    old, new = a_schedule(1), a_schedule(2)
    behind.add(old)
    proxy.forget(how)
    answer = CALLS[call](behind, old, new)
    client.close()
    proxy.close()
    assert answer == {"get": old, "replace": True, "delete": True, "page": [old], "due": [old]}.get(call)
    assert schedules.page(5, None) == {
        "add": [old, new],
        "replace": [old.replace(cron="weekly", version=2)],
        "delete": [],
    }.get(call, [old])
