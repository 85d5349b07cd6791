"""The scheduler on a real Mongo: 100,000 schedules, two schedulers at once, crashes, overlaps and outages."""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from threading import Barrier
from typing import Any
from uuid import uuid4

import pytest
from pymongo import MongoClient, monitoring

from local.services.mongo import Mongo
from local.services.service import Service
from sitebackup.adapters.mongo.documents import from_document, schedule_document
from sitebackup.adapters.mongo.jobs import MongoJobs
from sitebackup.adapters.mongo.schedules import MongoSchedules
from sitebackup.backup.create_job import CreateBackup
from sitebackup.bootstrap import Bootstrap
from sitebackup.domain.errors import BusUnavailable
from sitebackup.domain.events import TaskEvent, UploadJobCreated
from sitebackup.domain.job import Job, Status
from sitebackup.domain.schedule import Schedule, arm, tick_key
from sitebackup.schedules.manage_schedule import PutSchedule
from sitebackup.schedules.run_schedule import PAGE, PUT_OFF
from tests.builders import BY_SERVICE
from tests.integration.real_stack import START, Stack, an_id

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
MANY = 100_000

pytestmark = pytest.mark.timeout(600)  # to store so many takes the server a while


class Commands(monitoring.CommandListener):
    """What is sent to Mongo."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        self.sent.append(dict(event.command))

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        return

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        return


def a_schedule(number: int, next_run_at: datetime, **changes: Any) -> Schedule:
    schedule = Schedule(
        site_id=an_id(("site", number)),
        user_id=an_id(("user", number)),
        cron="daily",
        expires_after_days=60,
        version=1,
        created_at=START,
        updated_at=START,
        next_tick=next_run_at,
        next_run_at=next_run_at,
    )
    return schedule.replace(**changes)


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """100,000 schedules, of which none is due before tomorrow, and every tenth is paused; a server of their own."""
    server = Mongo(tmp_path_factory.mktemp("crowd"))
    try:
        server.start()
        server.wait_ready()
        stack = Stack(server.address, None, "crowd")
        stack.create_indexes()
        with MongoClient[dict[str, Any]](server.address) as patient:
            for start in range(0, MANY, 500):  # the server is slower with more at once
                documents = [schedule_document(crowded(number)) for number in range(start, start + 500)]
                patient["crowd"]["schedules"].insert_many(documents, ordered=False)
            assert patient["crowd"]["schedules"].estimated_document_count() == MANY
        yield stack
        stack.mongo.close()
    finally:
        server.stop()


def crowded(number: int) -> Schedule:
    if number % 10 == 0:
        return a_schedule(number, START, paused=True).replace(next_tick=None, next_run_at=None)
    return a_schedule(number, START + DAY + timedelta(seconds=number % 3600))


@pytest.fixture
def stacks(mongo: Service) -> Iterator[tuple[Stack, Stack]]:
    """Two execution environments on the same data."""
    database = f"schedules-{uuid4().hex}"
    pair = Stack(mongo.address, None, database), Stack(mongo.address, None, database)
    pair[0].create_indexes()
    yield pair
    for stack in pair:
        stack.close()


def run(stack: Stack) -> int:
    """One pass of the scheduler."""
    return stack.run_schedule()(stack.deadline())


def jobs(stack: Stack) -> list[Job]:
    found = stack.database["jobs"].find({})
    return [from_document(Job, document, "id") for document in found]


def schedule(stack: Stack, user_id: str, site_id: str) -> Schedule:
    found = stack.real.schedules.get_for(BY_SERVICE, user_id, site_id)
    assert found is not None
    return found


def add_due(stack: Stack, numbers: range) -> list[Schedule]:
    due = [a_schedule(number, START - timedelta(seconds=number % 600)) for number in numbers]
    collection = stack.database["schedules"]
    collection.insert_many([schedule_document(schedule) for schedule in due])
    return due


# --- 100,000 schedules


def client_of(stack: Stack, commands: Commands) -> MongoClient[dict[str, Any]]:
    uri = stack.settings.mongo_uri
    return MongoClient(uri, tz_aware=True, retryWrites=False, event_listeners=[commands])


@pytest.mark.parametrize("due", [0, 10])
def test_the_due_query_reads_the_index_and_of_it_only_what_is_due(
    crowd: Stack, mongo: Service, due: int
) -> None:
    database = crowd.settings.mongo_database
    added = add_due(crowd, range(MANY, MANY + due)) if due else []
    commands = Commands()
    with client_of(crowd, commands) as client:
        found = MongoSchedules(client, database).due(START, PAGE)
        assert {schedule.site_id for schedule in found} == {schedule.site_id for schedule in added}
        (find,) = (command for command in commands.sent if "find" in command)
        query = {name: find[name] for name in ("find", "filter", "sort")}
        answer = client[database].command("explain", query, verbosity="executionStats")
    for schedule in added:
        crowd.real.schedules.delete_for(BY_SERVICE, schedule.user_id, schedule.site_id)
    plan = str(answer["queryPlanner"]["winningPlan"])
    assert "'IXSCAN'" in plan
    assert "COLLSCAN" not in plan
    assert "'SORT'" not in plan
    assert answer["executionStats"]["totalKeysExamined"] <= due + 1
    assert answer["executionStats"]["totalDocsExamined"] <= due + 1


def test_a_run_costs_what_is_due_not_what_exists(crowd: Stack) -> None:
    """Counted in commands to Mongo."""
    commands = Commands()
    with client_of(crowd, commands) as client:
        database = crowd.settings.mongo_database
        adapters = replace(
            crowd.real, jobs=MongoJobs(client, database), schedules=MongoSchedules(client, database)
        )
        counted = Bootstrap(crowd.settings, adapters, crowd.runtime)
        costs = {}
        for due, start in [(0, 0), (50, MANY), (150, MANY + 1000)]:
            if due:
                add_due(crowd, range(start, start + due))
            commands.sent.clear()
            assert counted.run_schedule()(crowd.deadline()) == due
            costs[due] = sum("createIndexes" not in command for command in commands.sent)
    assert costs[0] == 1
    per_schedule = (costs[150] - costs[50]) / 100
    assert per_schedule <= 3, costs
    assert costs[50] <= 3 * 50 + 2
    assert len(jobs(crowd)) == 200


def test_a_run_takes_a_page_at_a_time_and_the_next_run_goes_on(crowd: Stack) -> None:
    """As when a night's backups come at once, and a run's time is over in the middle."""
    due = {schedule.site_id for schedule in add_due(crowd, range(MANY + 5000, MANY + 5000 + 3 * PAGE))}
    pages: list[int] = []
    read, clock = crowd.real.schedules.due, crowd.clock

    def reading(now: datetime, limit: int) -> list[Schedule]:
        found = read(now, limit)
        pages.append(len(found))
        if len(pages) == 2:
            crowd.clock += timedelta(hours=1)  # the deadline of the first run
        return found

    crowd.real.schedules.due = reading  # type: ignore[method-assign]
    try:
        assert run(crowd) == PAGE
        assert max(pages) <= PAGE
        started = {job.site_id for job in jobs(crowd)} & due
        assert len(started) == PAGE
        while run(crowd):
            pass
    finally:
        crowd.real.schedules.due = read  # type: ignore[method-assign]
        crowd.clock = clock
    assert {job.site_id for job in jobs(crowd)} >= due


# --- one job per tick


def test_two_schedulers_at_once_start_every_backup_once(stacks: tuple[Stack, Stack]) -> None:
    due = add_due(stacks[0], range(150))
    barrier = Barrier(2)

    def race(stack: Stack) -> int:
        run_schedule = stack.run_schedule()
        barrier.wait(30)
        return run_schedule(stack.deadline())

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(race, stacks))
    while run(stacks[0]):
        pass  # what both left because each thought that the other had it
    started = jobs(stacks[0])
    assert Counter(job.site_id for job in started) == dict.fromkeys((s.site_id for s in due), 1)
    assert {job.idempotency_key for job in started} == {tick_key(schedule) for schedule in due}
    for seen in due:
        now = schedule(stacks[0], seen.user_id, seen.site_id)
        assert now.version == 2, "it was moved on twice"
        assert now.last_tick == seen.next_tick
        assert now.last_job_id in {job.id for job in started if job.site_id == seen.site_id}
    emitted = [event for stack in stacks for event in stack.bag.of_jobs]
    once = {(job.id, provider): 1 for job in started for provider in job.tasks}
    assert Counter((event.task.job_id, event.task.provider) for event in emitted) == once


def test_a_scheduler_that_lags_behind_starts_nothing_again(stacks: tuple[Stack, Stack]) -> None:
    """Another one runs all of what it read, and the backups are even over, before it begins."""
    one, other = stacks
    add_due(one, range(20))
    read = one.real.schedules.due

    def reading(now: datetime, limit: int) -> list[Schedule]:
        found = read(now, limit)
        run(other)
        for job in jobs(other):
            if job.status is Status.PENDING:
                other.change_job().cancel(BY_SERVICE, job.id)
        return found

    one.real.schedules.due = reading  # type: ignore[method-assign]
    assert run(one) == 0
    assert len(jobs(one)) == 20


def test_a_crash_between_the_job_and_the_next_tick_makes_no_second_job(
    stacks: tuple[Stack, Stack], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Crash(BaseException):
        pass

    def crash(seen: Schedule, after: Schedule) -> bool:
        raise Crash

    one, other = stacks
    (due,) = add_due(one, range(1))
    monkeypatch.setattr(one.real.schedules, "replace", crash)
    for _ in range(2):
        with pytest.raises(Crash):
            run(one)
    assert schedule(one, due.user_id, due.site_id) == due
    (job,) = jobs(one)
    other.change_job().cancel(BY_SERVICE, job.id)
    assert run(other) == 1
    assert [found.id for found in jobs(other)] == [job.id]
    assert schedule(other, due.user_id, due.site_id).last_job_id == job.id
    assert run(other) == 0


def test_every_tick_of_a_week_gets_its_job(stacks: tuple[Stack, Stack]) -> None:
    one, _ = stacks
    put = PutSchedule(user_id=an_id(), cron="30 2 * * *", time_zone="Europe/Berlin")
    one.clock = datetime(2030, 10, 24, 12, tzinfo=UTC)  # clocks go back on the 27th
    site = an_id()
    planned = one.manage_schedule().next_runs(one.manage_schedule().put(BY_SERVICE, site, put))
    last = planned[-1]
    while one.clock < last + HOUR:
        one.pass_time(timedelta(minutes=10))
        run(one)
        for job in jobs(one):
            if job.status is Status.PENDING:
                one.change_job().cancel(BY_SERVICE, job.id)
    started = sorted(job.created_at for job in jobs(one))
    assert len(started) == len(planned) == 5
    for at, announced in zip(started, planned, strict=True):
        assert timedelta() <= at - announced <= timedelta(minutes=10)


def test_after_an_outage_of_a_month_one_backup_is_caught_up(stacks: tuple[Stack, Stack]) -> None:
    one, _ = stacks
    user, site = an_id(), an_id()
    one.manage_schedule().put(BY_SERVICE, site, PutSchedule(user_id=user, cron="0 */6 * * *"))
    one.pass_time(30 * DAY)
    assert run(one) == 1
    assert len(jobs(one)) == 1
    upcoming = schedule(one, user, site).next_run_at
    assert upcoming is not None
    assert one.clock < upcoming <= one.clock + 7 * HOUR
    assert run(one) == 0


# --- what keeps a backup from starting is told


def test_a_backup_that_still_runs_is_not_overtaken_and_that_is_said(stacks: tuple[Stack, Stack]) -> None:
    one, _ = stacks
    (due,) = add_due(one, range(1))
    running = one.create_job()(BY_SERVICE, CreateBackup(user_id=due.user_id, site_id=due.site_id), None)
    assert run(one) == 1
    assert [job.id for job in jobs(one)] == [running.id]
    now = schedule(one, due.user_id, due.site_id)
    assert now.last_error is not None
    assert now.last_error.startswith(f"Skipped: Backup {running.id}")
    assert now.next_run_at is not None
    assert now.next_run_at > one.clock
    one.change_job().cancel(BY_SERVICE, running.id)
    one.clock = now.next_run_at
    assert run(one) == 1
    assert len(jobs(one)) == 2
    assert schedule(one, due.user_id, due.site_id).last_error is None


def test_a_provider_that_is_gone_is_said_and_the_schedule_goes_on(stacks: tuple[Stack, Stack]) -> None:
    one, _ = stacks
    (due,) = add_due(one, range(1))
    assert one.real.schedules.replace(due, due.replace(providers=["gone"]))
    assert run(one) == 1
    now = schedule(one, due.user_id, due.site_id)
    assert now.last_error is not None
    assert "no provider 'gone'" in now.last_error
    assert now.next_run_at is not None
    assert not jobs(one)


def test_paused_schedules_start_nothing_and_resume_from_now_on(stacks: tuple[Stack, Stack]) -> None:
    one, _ = stacks
    user, site = an_id(), an_id()
    manage = one.manage_schedule()
    manage.put(BY_SERVICE, site, PutSchedule(user_id=user, cron="0 * * * *"))
    manage.pause(BY_SERVICE, user, site, True)
    assert manage.next_runs(manage.get(BY_SERVICE, user, site)) == []
    one.pass_time(3 * DAY)
    assert run(one) == 0
    assert not jobs(one)
    resumed = manage.pause(BY_SERVICE, user, site, False)
    assert resumed.next_run_at is not None
    assert resumed.next_run_at > one.clock
    one.clock = resumed.next_run_at
    assert run(one) == 1
    manage.delete(BY_SERVICE, user, site)
    one.pass_time(DAY)
    assert run(one) == 0


def test_without_kafka_the_jobs_exist_and_the_sweep_emits(
    stacks: tuple[Stack, Stack], monkeypatch: pytest.MonkeyPatch
) -> None:
    def down(events: list[TaskEvent]) -> None:
        raise BusUnavailable("Kafka does not take events.")

    one, other = stacks
    add_due(one, range(5))
    monkeypatch.setattr(one.bag, "emit", down)
    assert run(one) == 5
    assert {job.status for job in jobs(one)} == {Status.PENDING}
    other.pass_time(timedelta(minutes=10))
    assert other.sweep() == 5
    assert {event.task.job_id for event in other.bag.of_jobs} == {job.id for job in jobs(one)}
    assert all(isinstance(event, UploadJobCreated) for event in other.bag.bag)


def test_a_page_of_schedules_that_fail_unforeseen_stops_no_other_and_each_is_tried_again(
    stacks: tuple[Stack, Stack],
) -> None:
    """The jobs that their ticks started before can no longer be read."""
    one, _ = stacks
    due = add_due(one, range(PAGE + 3))
    good, bad = due[:3], due[3:]  # the bad ones were due first
    database = one.database
    unreadable = [
        {
            "_id": an_id(("bad", each.site_id)),
            "kind": "backup",
            "idempotencyKey": tick_key(each),
            "status": "on holiday",
        }
        for each in bad
    ]
    database["jobs"].insert_many(unreadable)
    run(one)
    started = database["jobs"].find({"kind": "backup", "status": "pending"})
    assert {document["siteId"] for document in started} == {each.site_id for each in good}
    for each in bad:
        waiting = schedule(one, each.user_id, each.site_id)
        assert (waiting.next_tick, waiting.next_run_at) == (each.next_tick, one.clock + PUT_OFF)
        assert waiting.last_error == "Not started yet: an unexpected error (ValidationError)."
    assert run(one) == 0
    database["jobs"].delete_many({"kind": "backup", "status": "on holiday"})
    one.pass_time(PUT_OFF)
    assert run(one) == PAGE
    assert len(jobs(one)) == PAGE + 3
    assert schedule(one, bad[0].user_id, bad[0].site_id).last_error is None


def test_one_schedule_that_makes_no_sense_any_more_stops_no_other(stacks: tuple[Stack, Stack]) -> None:
    """A zone that is gone, and a document that can't be read; both were due first."""
    one, _ = stacks
    due = add_due(one, range(3))
    gone = due[2].replace(time_zone="Mars/Olympus")
    assert one.real.schedules.replace(due[2], gone)
    collection = one.database["schedules"]
    collection.insert_one({**schedule_document(a_schedule(9, START - DAY)), "cron": 9})
    assert run(one) == 3
    assert {job.site_id for job in jobs(one)} == {schedule.site_id for schedule in due}
    stopped = schedule(one, gone.user_id, gone.site_id)
    assert stopped.next_run_at is None
    assert stopped.last_error is not None
    assert "Stopped until it is set again: timeZone: no IANA time zone 'Mars/Olympus'" in stopped.last_error
    assert one.manage_schedule().next_runs(stopped) == []
    assert arm(due[0], START, HOUR).next_run_at == schedule(one, due[0].user_id, due[0].site_id).next_run_at
