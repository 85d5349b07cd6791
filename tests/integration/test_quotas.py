"""Quotas on a real Mongo: many take the last slots at once, and what the check costs."""

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from threading import Barrier, Event
from typing import Any
from uuid import uuid4

import pytest
from pymongo import MongoClient, monitoring

from benchmarks.scale import QUOTA_COMMANDS
from local.services.service import Service
from sitebackup.adapters.mongo.jobs import MongoJobs
from sitebackup.adapters.mongo.parts import MongoParts
from sitebackup.adapters.mongo.quotas import MongoQuotas
from sitebackup.adapters.mongo.restores import MongoRestores
from sitebackup.adapters.mongo.schedules import MongoSchedules
from sitebackup.backup.create_job import CreateBackup
from sitebackup.backup.manage_limits import PutLimits
from sitebackup.bootstrap import Bootstrap
from sitebackup.domain.errors import Conflict, RequestError
from sitebackup.domain.events import UploadJobCreated
from sitebackup.domain.job import Job, Status, Task
from sitebackup.domain.quota import OverQuota, Quota
from sitebackup.domain.restore import Restore, RestoreStatus
from sitebackup.domain.schedule import Schedule
from sitebackup.restore.create_restore import RestoreRequest
from sitebackup.schedules.manage_schedule import PutSchedule
from tests.builders import BY_SERVICE, a_job, a_restore, an_object
from tests.contract.test_schedule_repository import a_schedule
from tests.fakes.exports import MemoryExport
from tests.fakes.storage import MemoryStorage
from tests.integration.real_stack import MIB, START, Stack, a_zip, an_id

AT_ONCE = 20
LIMIT = 5
CHURNS = 15
"""So often each of many begins a backup and cancels it again."""


@pytest.fixture
def stack(mongo: Service) -> Iterator[Stack]:
    yield from stack_of(mongo)


@pytest.fixture
def limited(mongo: Service) -> Iterator[Stack]:
    yield from stack_of(
        mongo,
        QUOTA_ACTIVE_JOBS=str(LIMIT),
        QUOTA_RESTORES_PER_DAY=str(LIMIT),
        QUOTA_SCHEDULES=str(LIMIT),
        QUOTA_STORED_BYTES=str(100 * MIB),
    )


def stack_of(mongo: Service, **variables: str) -> Iterator[Stack]:
    stack = Stack(mongo.address, None, f"quotas-{uuid4().hex}", **variables)
    stack.create_indexes()
    yield stack
    stack.close()


def at_once[T](work: Callable[[int], T]) -> list[T | RequestError]:
    """What each of many gets who ask at the same moment."""
    together = Barrier(AT_ONCE)

    def ask(number: int) -> T | RequestError:
        together.wait(60)
        try:
            return work(number)
        except RequestError as error:
            return error

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(ask, range(AT_ONCE)))


def check_limited(answers: list[Any], limit: int = LIMIT) -> list[Any]:
    """So many got through, and all others were told of the limit."""
    through = [one for one in answers if not isinstance(one, RequestError)]
    refused = [one for one in answers if isinstance(one, RequestError)]
    assert len(through) == limit, Counter(map(str, refused))
    assert {type(error) for error in refused} == {OverQuota}
    return through


def done_backups(stack: Stack, user_id: str, count: int, size: int = 100) -> list[Job]:
    task = Task(status=Status.DONE, object=an_object("site", size), finished_at=START)
    jobs = [
        a_job(id=an_id(), user_id=user_id, tasks={"site": task}, status=Status.DONE, finished_at=START)
        for _ in range(count)
    ]
    stack.insert_jobs(jobs)
    return jobs


def used(stack: Stack, user_id: str, quota: Quota) -> int:
    return stack.manage_limits().usage(BY_SERVICE, user_id)[quota].used


def test_of_many_backups_that_begin_at_once_no_more_get_through_than_the_limit(limited: Stack) -> None:
    user, create = an_id(), limited.create_job()

    def begin(number: int) -> Job:
        return create(BY_SERVICE, CreateBackup(user_id=user, site_id=an_id(), providers=["site"]), None)

    jobs = check_limited(at_once(begin))
    assert len({job.slot for job in jobs}) == LIMIT
    assert used(limited, user, Quota.ACTIVE_JOBS) == LIMIT
    limited.change_job().cancel(BY_SERVICE, jobs[0].id)
    check_limited(at_once(begin), 1)
    limited.a_backup()  # another user's


def test_of_many_backups_that_are_retried_at_once_no_more_get_through_than_the_limit(
    limited: Stack,
) -> None:
    user, change = an_id(), limited.change_job()
    failed = [a_job(id=an_id(), user_id=user, status=Status.FAILED) for _ in range(AT_ONCE)]
    limited.insert_jobs(failed)
    check_limited(at_once(lambda number: change.retry(BY_SERVICE, failed[number].id)))
    assert used(limited, user, Quota.ACTIVE_JOBS) == LIMIT


def test_of_many_restores_that_begin_at_once_no_more_get_through_than_the_limit(limited: Stack) -> None:
    user, create = an_id(), limited.create_restore()
    jobs = done_backups(limited, user, AT_ONCE)

    def begin(number: int) -> Restore:
        job = jobs[number]
        request = RestoreRequest(
            user_id=user, site_id=job.site_id, job_id=job.id, providers="all", safety_backup=False
        )
        return create(BY_SERVICE, request, None, None)

    restores = check_limited(at_once(begin))
    for restore in restores:
        limited.change_restore().cancel(BY_SERVICE, restore.id)
    check_limited(at_once(begin), 0)
    assert used(limited, user, Quota.RESTORES_PER_DAY) == LIMIT
    limited.pass_time(timedelta(hours=12))
    assert used(limited, user, Quota.RESTORES_PER_DAY) == 0, "the day is over"
    check_limited(at_once(begin))


def test_of_many_schedules_that_are_set_at_once_no_more_get_through_than_the_limit(limited: Stack) -> None:
    user, manage = an_id(), limited.manage_schedule()
    sites = [an_id() for _ in range(AT_ONCE)]

    def put(number: int) -> Schedule:
        return manage.put(BY_SERVICE, sites[number], PutSchedule(user_id=user))

    schedules = check_limited(at_once(put))
    for schedule in schedules:
        assert manage.put(BY_SERVICE, schedule.site_id, PutSchedule(user_id=user)).slot == schedule.slot
    manage.delete(BY_SERVICE, user, schedules[0].site_id)
    check_limited(at_once(lambda number: manage.put(BY_SERVICE, an_id(), PutSchedule(user_id=user))), 1)
    assert used(limited, user, Quota.SCHEDULES) == LIMIT


def test_while_backups_come_and_go_there_are_never_more_than_the_limit(limited: Stack) -> None:
    """Whoever counts meanwhile sees that, at any time."""
    user, create, change = an_id(), limited.create_job(), limited.change_job()
    over, most = Event(), 0

    def churn(number: int) -> int:
        begun = 0
        for _ in range(CHURNS):
            try:
                job = create(BY_SERVICE, CreateBackup(user_id=user, site_id=an_id()), None)
            except (OverQuota, Conflict):
                continue
            begun += 1
            change.cancel(BY_SERVICE, job.id)
        return begun

    def watch() -> int:
        seen = 0
        while not over.is_set():
            seen = max(seen, used(limited, user, Quota.ACTIVE_JOBS))
        return seen

    with ThreadPoolExecutor(1) as watcher:
        watching = watcher.submit(watch)
        try:
            begun = at_once(churn)
        finally:
            over.set()
        most = watching.result(60)
    assert sum(one for one in begun if isinstance(one, int)) > LIMIT
    assert 0 < most <= LIMIT
    assert used(limited, user, Quota.ACTIVE_JOBS) == 0


def test_a_limit_that_is_set_or_lowered_later_counts_what_is_there(stack: Stack) -> None:
    """What began without a limit has no slot, and what began under a higher one has a slot beyond."""
    user, create = an_id(), stack.create_job()

    def begin(number: int = 0) -> Job:
        return create(BY_SERVICE, CreateBackup(user_id=user, site_id=an_id()), None)

    first = [begin() for _ in range(3)]
    assert {job.slot for job in first} == {None}
    stack.manage_limits().put(BY_SERVICE, user, PutLimits(active_jobs=8))
    check_limited(at_once(begin), 5)
    stack.manage_limits().put(BY_SERVICE, user, PutLimits(active_jobs=6))
    with pytest.raises(OverQuota) as raised:
        begin()
    assert raised.value.members == {"quota": Quota.ACTIVE_JOBS, "limit": 6, "used": 8}
    for job in first:
        stack.change_job().cancel(BY_SERVICE, job.id)
    check_limited(at_once(begin), 1)
    stack.manage_limits().put(BY_SERVICE, user, PutLimits())
    assert all(isinstance(one, Job) for one in at_once(begin))


def test_a_request_that_is_repeated_at_the_limit_is_still_answered_with_what_it_made(limited: Stack) -> None:
    user, create = an_id(), limited.create_job()
    request = CreateBackup(user_id=user, site_id=an_id())
    first = create(BY_SERVICE, request, "nightly")
    while used(limited, user, Quota.ACTIVE_JOBS) < LIMIT:
        limited.a_backup(user_id=user)
    assert create(BY_SERVICE, request, "nightly").id == first.id
    restored = done_backups(limited, user, 1)[0]
    again = RestoreRequest(
        user_id=user,
        site_id=restored.site_id,
        job_id=restored.id,
        providers=["site"],
        safety_backup=False,
    )
    made = limited.create_restore()(BY_SERVICE, again, None, "back")
    limited.manage_limits().put(BY_SERVICE, user, PutLimits(restores_per_day=1))
    assert limited.create_restore()(BY_SERVICE, again, None, "back").id == made.id
    assert made.status is RestoreStatus.RUNNING


def test_a_tick_over_quota_waits_and_runs_once_there_is_room(limited: Stack) -> None:
    user, site = an_id(), an_id()
    manage = limited.manage_schedule()
    schedule = manage.put(BY_SERVICE, site, PutSchedule(user_id=user, cron="0 * * * *"))
    jobs = [limited.a_backup(user_id=user) for _ in range(LIMIT)]
    limited.pass_time(timedelta(hours=2))
    waited = limited.now()
    assert limited.run_schedule()(limited.deadline()) == 1
    waiting = manage.get(BY_SERVICE, user, site)
    assert waiting.last_error == f"Waits: activeJobs: the limit is {LIMIT}, and {LIMIT} are used."
    assert (waiting.next_tick, waiting.last_job_id) == (schedule.next_tick, None)
    assert waiting.next_run_at is not None
    assert waiting.next_run_at > waited
    limited.change_job().cancel(BY_SERVICE, jobs[0].id)
    limited.pass_time(timedelta(minutes=16))
    assert limited.run_schedule()(limited.deadline()) == 1
    ran = manage.get(BY_SERVICE, user, site)
    assert (ran.last_tick, ran.last_error) == (schedule.next_tick, None)
    assert ran.last_job_id is not None
    assert limited.job(ran.last_job_id).is_active
    assert ran.next_run_at is not None
    assert ran.next_run_at > limited.now(), "what was missed meanwhile is not caught up as well"


def test_usage_says_what_is_used_and_when_a_restore_is_free_again(limited: Stack) -> None:
    user = an_id()
    done_backups(limited, user, 2, size=7)
    limited.a_backup(user_id=user)
    limited.manage_limits().put(BY_SERVICE, user, PutLimits(schedules="unlimited", stored_bytes=14))
    usage = limited.manage_limits().usage(BY_SERVICE, user)
    told = {quota: (one.used, one.limit, one.is_exception) for quota, one in usage.items()}
    assert told == {
        Quota.ACTIVE_JOBS: (1, LIMIT, False),
        Quota.STORED_BYTES: (14, 14, True),
        Quota.RESTORES_PER_DAY: (0, LIMIT, False),
        Quota.SCHEDULES: (0, None, True),
    }
    midnight = (START + timedelta(days=1)).replace(hour=0)
    assert usage[Quota.RESTORES_PER_DAY].resets_at == midnight
    with pytest.raises(OverQuota, match=r"^storedBytes: the limit is 14, and 14 are used\.$"):
        limited.a_backup(user_id=user)


class Commands(monitoring.CommandListener):
    """Counts what is sent to Mongo."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        self.names.append(event.command_name)

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        return

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        return


def counted(stack: Stack) -> tuple[Bootstrap, Commands]:
    """The same use cases, and what they send to Mongo."""
    commands, database = Commands(), stack.settings.mongo_database
    client: MongoClient[dict[str, Any]] = MongoClient(
        stack.settings.mongo_uri, tz_aware=True, retryWrites=False, event_listeners=[commands]
    )
    adapters = replace(
        stack.real,
        jobs=MongoJobs(client, database),
        parts=MongoParts(client, database),
        restores=MongoRestores(client, database),
        schedules=MongoSchedules(client, database),
        quotas=MongoQuotas(client, database),
        storage=MemoryStorage(),
    )
    bootstrap = Bootstrap(stack.settings, adapters, stack.runtime)
    bootstrap.adapters.jobs.add(a_job(id=an_id()))  # makes sure of the indexes, once a process
    bootstrap.adapters.restores.add(a_restore(id=an_id()))
    bootstrap.adapters.schedules.add(a_schedule(1))
    return bootstrap, commands


def costs(stack: Stack) -> dict[str, int]:
    """How many commands each call sends to Mongo."""
    bootstrap, commands = counted(stack)
    user, (job,) = an_id(), [a_job()]
    (backup,) = done_backups(stack, user, 1)
    found: dict[str, int] = {}

    def cost(what: str, call: Callable[[], object]) -> None:
        commands.names.clear()
        call()
        found[what] = len(commands.names)

    def create() -> None:
        nonlocal job
        request = CreateBackup(user_id=user, site_id=an_id(), providers=["site"])
        job = bootstrap.create_job()(BY_SERVICE, request, None)

    def run() -> None:
        event = UploadJobCreated(task=job.ref("site"))
        bootstrap.process_provider()(event, "test", stack.deadline())
        assert stack.job(job.id).tasks["site"].status is Status.DONE

    request = RestoreRequest(
        user_id=user, site_id=backup.site_id, job_id=backup.id, providers="all", safety_backup=False
    )
    stack.served.by_provider["site"] = MemoryExport(a_zip("site", MIB))
    cost("`POST /backup`", create)
    cost("the run of an export of one part", run)
    cost("`POST /restores`", lambda: bootstrap.create_restore()(BY_SERVICE, request, None, None))
    put = PutSchedule(user_id=user)
    cost(
        "`PUT /sites/{siteId}/schedule`, a new one",
        lambda: bootstrap.manage_schedule().put(BY_SERVICE, an_id(), put),
    )
    return found


def test_the_check_costs_the_commands_that_the_docs_name(stack: Stack, limited: Stack) -> None:
    without, within = costs(stack), costs(limited)
    assert {what: (without[what], within[what]) for what in without} == QUOTA_COMMANDS
