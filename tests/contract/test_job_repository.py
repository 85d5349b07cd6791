"""One suite for every JobRepository, the fake among them; then what only MongoDB can show."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import pytest
from pymongo import DESCENDING, MongoClient
from pymongo.database import Database
from pymongo.monitoring import CommandFailedEvent, CommandListener, CommandStartedEvent, CommandSucceededEvent

from local.services.service import Service
from sitebackup.adapters.mongo.documents import site_document
from sitebackup.adapters.mongo.indexes import SITE_NEWEST_FIRST, create_job_indexes
from sitebackup.adapters.mongo.jobs import MongoJobs
from sitebackup.backup.recorder import Recorder
from sitebackup.domain import lifecycle
from sitebackup.domain.change import Change
from sitebackup.domain.errors import Conflict, DuplicateJob
from sitebackup.domain.job import Job, Status, Task, Upload
from sitebackup.domain.policy import Policy
from sitebackup.domain.progress import Progress
from sitebackup.domain.transitions.endings import cancel
from sitebackup.domain.transitions.runs import start_task
from sitebackup.ports.repositories import JobRepository, SiteClaim
from tests.builders import BY_SERVICE, NOW, a_job, a_task, an_id, touch, touched, touches
from tests.contract.conftest import Client
from tests.fakes.bus import MemoryBus

THREADS, CHANGES_EACH = 16, 8
SERVER_SELECTION_SECONDS = 20
"""Longer than a client looks for a server, with much to spare."""
MAX_IDLE_SECONDS = 240
QUEUES = ["check", "clean_up"]


def recorder(jobs: JobRepository) -> Recorder:
    return Recorder(jobs, Policy(), lambda: NOW, MemoryBus())


def stored(jobs: JobRepository, before: Job, after: Job) -> Job:
    """Stores a change as the recorder does, and gives the job as it is stored."""
    after = after.replace(version=before.version + 1).with_next_check()
    assert jobs.replace(before, after)
    return after


def check_stored(jobs: JobRepository, job: Job) -> None:
    """The job is stored exactly so."""
    assert jobs.get(job.id) == job


# --- adding and reading


def test_a_job_comes_back_as_it_was_added(jobs: JobRepository) -> None:
    job = a_job(
        tasks={"site": Task(upload=Upload(upload_id="u", attempt=1), progress=Progress(parts=1))},
        idempotency_key="once",
        max_bytes=2**53,
    )
    jobs.add(job)
    assert jobs.get(job.id) == job
    assert jobs.claim_of(job.user_id, job.site_id) == SiteClaim("backup", job.id, job.status, (job.site_id,))
    assert jobs.by_idempotency_key("once") == job
    assert jobs.version_for(BY_SERVICE, job.id) == 1


def test_what_is_not_there_is_none(jobs: JobRepository) -> None:
    assert jobs.get(an_id()) is None
    assert jobs.claim_of(an_id(), an_id()) is None
    assert jobs.by_idempotency_key("never") is None
    assert jobs.version_for(BY_SERVICE, an_id()) is None


def test_a_site_has_one_active_job(jobs: JobRepository) -> None:
    first = a_job()
    jobs.add(first)
    with pytest.raises(DuplicateJob):
        jobs.add(a_job(user_id=first.user_id, site_id=first.site_id))
    jobs.add(a_job(user_id=first.user_id))
    jobs.add(a_job(site_id=first.site_id))


def test_the_end_of_a_job_frees_its_site_and_a_retry_takes_it_again(jobs: JobRepository) -> None:
    first = a_job()
    jobs.add(first)
    assert recorder(jobs).apply(first.id, cancel)
    assert jobs.claim_of(first.user_id, first.site_id) is None
    second = a_job(user_id=first.user_id, site_id=first.site_id)
    jobs.add(second)
    with pytest.raises(DuplicateJob):
        recorder(jobs).apply(first.id, lifecycle.retry)
    assert recorder(jobs).apply(second.id, cancel)
    assert recorder(jobs).apply(first.id, lifecycle.retry)
    assert jobs.claim_of(first.user_id, first.site_id) == SiteClaim(
        "backup", first.id, "pending", (first.site_id,)
    )


def test_an_idempotency_key_has_one_job(jobs: JobRepository) -> None:
    jobs.add(a_job(idempotency_key="k", status=Status.DONE))
    with pytest.raises(DuplicateJob):
        jobs.add(a_job(idempotency_key="k"))
    jobs.add(a_job())
    jobs.add(a_job())


def test_a_job_is_not_added_twice(jobs: JobRepository) -> None:
    job = a_job(status=Status.DONE)
    jobs.add(job)
    with pytest.raises(DuplicateJob):
        jobs.add(touched(job))
    check_stored(jobs, job)


def test_a_page_is_newest_first_and_filtered(jobs: JobRepository) -> None:
    site = an_id()
    ids = []
    for number in range(5):
        job = a_job(site_id=site, status=Status.DONE if number % 2 else Status.PENDING)
        jobs.add(job)
        ids.append(job.id)
    jobs.add(a_job())

    def page(limit: int, before: str | None, **filters: str) -> list[str]:
        return [job.id for job in jobs.page({"siteId": site, **filters}, limit, before)]

    assert page(2, None) == [ids[4], ids[3]]
    assert page(9, ids[3]) == [ids[2], ids[1], ids[0]]
    assert page(9, None, status="done") == [ids[3], ids[1]]
    assert page(9, None, status="pending") == ids[4::-2]


# --- changes


def test_a_replaced_job_is_stored_with_its_version(jobs: JobRepository) -> None:
    job = a_job()
    jobs.add(job)
    after = stored(jobs, job, touched(job))
    check_stored(jobs, after)
    assert jobs.version_for(BY_SERVICE, job.id) == after.version == 2


def test_a_job_that_has_changed_since_is_not_replaced(jobs: JobRepository) -> None:
    job = a_job()
    jobs.add(job)
    after = stored(jobs, job, touched(job))
    assert not jobs.replace(job, job.replace(version=2, max_bytes=1))
    check_stored(jobs, after)
    assert not jobs.replace(a_job(), a_job())


def test_no_change_of_sixteen_threads_is_lost(jobs: JobRepository) -> None:
    """Without the version in the filter of `replace`, changes overwrite one another and this fails."""
    job = a_job()
    jobs.add(job)

    def work(number: int) -> None:
        for _ in range(CHANGES_EACH):
            while True:
                try:
                    recorder(jobs).apply(job.id, touch)
                    break
                except Conflict:
                    continue

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(work, range(THREADS)))
    found = jobs.get(job.id)
    assert found is not None
    assert (touches(found), found.version) == (THREADS * CHANGES_EACH, 1 + THREADS * CHANGES_EACH)


def test_pins_are_set_prolonged_and_taken_out(jobs: JobRepository) -> None:
    job = a_job(status=Status.DONE)
    jobs.add(job)
    hour = timedelta(hours=1)
    one = stored(jobs, job, job.replace(pins={"download": NOW + hour}))
    two = stored(jobs, one, one.replace(pins={"download": NOW + 2 * hour, "a restore": NOW + hour}))
    check_stored(jobs, two)
    none = stored(jobs, two, two.replace(pins={}))
    check_stored(jobs, none)
    assert none.pins == {}


def test_a_field_that_is_unset_is_gone(jobs: JobRepository) -> None:
    job = a_job(tasks={"site": Task(upload=Upload(upload_id="u", attempt=1))}, idempotency_key="once")
    jobs.add(job)
    stored(jobs, job, job.replace(tasks={"site": Task()}, idempotency_key=None))
    found = jobs.get(job.id)
    assert found is not None
    assert found.tasks == {"site": Task()}
    assert found.idempotency_key is None
    assert jobs.by_idempotency_key("once") is None


def test_a_record_is_deleted_only_as_it_was_seen(jobs: JobRepository) -> None:
    job = a_job()
    jobs.add(job)
    after = stored(jobs, job, touched(job))
    assert not jobs.delete_record(job)
    check_stored(jobs, after)
    assert jobs.delete_record(after)
    assert jobs.get(job.id) is None
    assert not jobs.delete_record(after)


# --- what is due


def test_due_jobs_come_in_order_and_no_more_than_asked_for(jobs: JobRepository) -> None:
    for minute in [5, 1, 3, 2, 9]:
        jobs.add(a_job(tasks={"site": a_task(minute), "db": a_task(minute + 7)}))
    jobs.add(a_job(status=Status.DONE))
    due = jobs.due(NOW + timedelta(minutes=5), 3)
    assert [job.next_check_at for job in due] == [NOW + timedelta(minutes=minute) for minute in (1, 2, 3)]
    assert len(jobs.due(NOW + timedelta(minutes=5), 10)) == 4
    assert jobs.due(NOW, 10) == []


def test_final_jobs_are_due_for_clean_up_and_for_nothing_else(jobs: JobRepository) -> None:
    def final(minute: int | None) -> Job:
        at = NOW + timedelta(minutes=minute) if minute is not None else None
        return a_job(status=Status.DONE, clean_up_at=at)

    final_jobs = [final(minute) for minute in (3, 1, None, 9)]
    for job in final_jobs:
        jobs.add(job)
    assert jobs.due_for_clean_up(NOW + timedelta(minutes=5), 10) == [final_jobs[1], final_jobs[0]]
    assert jobs.due(NOW + timedelta(days=1), 10) == []


def test_the_next_check_of_a_job_follows_its_tasks_whatever_change_is_stored(jobs: JobRepository) -> None:
    job = a_job()
    jobs.add(job.replace(next_check_at=None))
    assert jobs.due(NOW + timedelta(minutes=1), 10) == [job]
    tasks = {"site": a_task(8), "db": a_task(4)}
    changed = recorder(jobs).apply(job.id, lambda job, moment: Change(job.replace(tasks=tasks)))
    assert changed is not None
    assert changed.after.next_check_at == NOW + timedelta(minutes=4)
    assert jobs.due(NOW + timedelta(minutes=3), 10) == []
    assert jobs.due(NOW + timedelta(minutes=4), 10) == [changed.after]
    late = job.deadline_at + timedelta(hours=1)
    tasks = {"site": Task(stalls_at=late, next_check_at=late)}
    changed = recorder(jobs).apply(job.id, lambda job, moment: Change(job.replace(tasks=tasks)))
    assert changed is not None
    assert changed.after.next_check_at == job.deadline_at


def due_job(jobs: JobRepository, queue: str) -> Job:
    """A job that is due in that queue, as it is read from it."""
    done, unfinished = a_job(status=Status.DONE, clean_up_at=NOW), a_job(tasks={"site": a_task(0)})
    jobs.add(done if queue == "clean_up" else unfinished)
    (found,) = due_in(jobs, queue, NOW)
    return found


def due_in(jobs: JobRepository, queue: str, now: datetime) -> list[Job]:
    return jobs.due_for_clean_up(now, 10) if queue == "clean_up" else jobs.due(now, 10)


def claim_in(jobs: JobRepository, queue: str, job: Job, until: datetime) -> Job | None:
    claim = jobs.claim_clean_up if queue == "clean_up" else jobs.claim_check
    return claim(job, until)


def put_off(job: Job) -> Job:
    """A change that a pass would store: the job is due again in an hour."""
    later = NOW + timedelta(hours=1)
    tasks = {name: task.replace(next_check_at=later) for name, task in job.tasks.items()}
    return job.replace(tasks=tasks, clean_up_at=later if job.clean_up_at else None)


@pytest.mark.parametrize("queue", QUEUES)
def test_a_job_that_is_due_is_claimed_by_one_and_out_of_sight_until_then(
    jobs: JobRepository, queue: str
) -> None:
    job, until = due_job(jobs, queue), NOW + timedelta(minutes=1)
    claimed = claim_in(jobs, queue, job, until)
    assert claimed == jobs.get(job.id)
    assert claim_in(jobs, queue, job, until + timedelta(seconds=1)) is None
    assert due_in(jobs, queue, until - timedelta(milliseconds=1)) == []
    assert due_in(jobs, queue, until) == [claimed]


@pytest.mark.parametrize("queue", QUEUES)
def test_a_job_that_was_claimed_and_changed_is_due_when_the_change_says(
    jobs: JobRepository, queue: str
) -> None:
    job = due_job(jobs, queue)
    claimed = claim_in(jobs, queue, job, NOW + timedelta(minutes=1))
    assert claimed is not None
    stored(jobs, claimed, put_off(claimed))
    assert due_in(jobs, queue, NOW + timedelta(minutes=59)) == []
    assert len(due_in(jobs, queue, NOW + timedelta(minutes=60))) == 1


@pytest.mark.parametrize("queue", QUEUES)
def test_a_job_that_has_changed_since_is_not_claimed(jobs: JobRepository, queue: str) -> None:
    job = due_job(jobs, queue)
    after = stored(jobs, job, job.replace(updated_at=NOW + timedelta(seconds=1)))
    assert claim_in(jobs, queue, job, NOW + timedelta(minutes=1)) is None
    assert due_in(jobs, queue, NOW) == [after]


@pytest.mark.parametrize("queue", QUEUES)
def test_a_claim_stands_in_the_way_of_no_change(jobs: JobRepository, queue: str) -> None:
    """Who read the job before the claim stores a change all the same, and then the pass changes nothing."""
    job = due_job(jobs, queue)
    claimed = claim_in(jobs, queue, job, NOW + timedelta(minutes=1))
    assert claimed is not None
    stored(jobs, job, put_off(job))
    assert recorder(jobs).apply_seen(claimed, lambda job, moment: Change(put_off(job))) is None


def test_a_claim_outlasts_a_change_that_leaves_the_next_check_as_it_was_read(jobs: JobRepository) -> None:
    """Only what differs is written, so the claim of a pass that is under way is not undone."""
    job, until = due_job(jobs, "check"), NOW + timedelta(minutes=1)
    assert jobs.claim_check(job, until)
    after = stored(jobs, job, touched(job))
    check_stored(jobs, after.replace(next_check_at=until))


# --- what only MongoDB can show


def test_a_database_that_was_emptied_gets_its_indexes_back(
    database: Database[dict[str, Any]], client: Client
) -> None:
    """A process makes sure of them once by itself."""
    jobs = MongoJobs(client, database.name)
    first = a_job()
    jobs.add(first)
    client.drop_database(database.name)
    jobs.create_indexes()
    jobs.add(first)
    with pytest.raises(DuplicateJob):
        jobs.add(a_job(user_id=first.user_id, site_id=first.site_id))


def test_the_indexes_can_be_created_again(database: Database[dict[str, Any]]) -> None:
    create_job_indexes(database)
    create_job_indexes(database)
    indexes = database.jobs.index_information()
    assert indexes["one_active_job_per_site"]["unique"]
    assert indexes["one_active_job_per_site"]["partialFilterExpression"] == {"active": True}
    assert indexes["one_job_per_idempotency_key"]["unique"]
    assert "expireAfterSeconds" in database.parts.index_information()["forget"]


def test_fields_of_a_newer_release_survive(in_mongo: MongoJobs, database: Database[dict[str, Any]]) -> None:
    job = a_job()
    in_mongo.add(job)
    newer = {"priority": 7, "tasks.site.region": "eu", "tasks.db.region": "us"}
    database.jobs.update_one({"_id": job.id}, {"$set": newer})
    started = recorder(in_mongo).apply_to_task(job.ref("site"), start_task, 0, "me")
    assert started is not None
    document = database.jobs.find_one({"_id": job.id})
    assert document is not None
    assert document["priority"] == 7
    assert started.after.tasks["site"].to_document() | {"region": "eu"} == document["tasks"]["site"]
    assert a_task(2).to_document() | {"region": "us"} == document["tasks"]["db"]


class Finds(CommandListener):
    """Keeps the reads that are sent."""

    def __init__(self) -> None:
        self.sent: list[Mapping[str, Any]] = []

    def started(self, event: CommandStartedEvent) -> None:
        if event.command_name == "find":
            self.sent.append(event.command)

    def succeeded(self, event: CommandSucceededEvent) -> None:
        return

    def failed(self, event: CommandFailedEvent) -> None:
        return


def test_a_page_of_a_site_asks_for_the_order_of_the_index_of_the_site(
    mongo: Service, database: Database[dict[str, Any]]
) -> None:
    """The index of a status would give the same jobs, but pass over those of all other sites."""
    finds = Finds()
    with MongoClient[dict[str, Any]](mongo.address, tz_aware=True, event_listeners=[finds]) as client:
        jobs = MongoJobs(client, database.name)
        jobs.page({"siteId": an_id(), "status": "done"}, 9, None)
        jobs.page({"status": "done"}, 9, None)
    assert [dict(find["sort"]) for find in finds.sent] == [dict(SITE_NEWEST_FIRST), {"_id": DESCENDING}]


BROKEN: list[Callable[[dict[str, Any]], dict[str, Any]]] = [
    lambda document: document | {"status": "on holiday"},
    lambda document: document | {"tasks": 3},
    lambda document: document | {"createdAt": "yesterday"},
    lambda document: {name: document[name] for name in ("_id", "kind", "nextCheckAt")},
]


def test_documents_that_cannot_be_read_neither_stop_the_sweep_nor_count_against_its_limit(
    in_mongo: MongoJobs, database: Database[dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    broken = [spoil(site_document(a_job(tasks={"site": a_task(0)}))) for spoil in BROKEN]
    database.jobs.insert_many(broken)
    good = a_job()
    in_mongo.add(good)
    assert in_mongo.due(NOW + timedelta(minutes=1), 2) == [good]
    assert [record.__dict__["jobId"] for record in caplog.records] == [document["_id"] for document in broken]


def test_documents_that_cannot_be_read_are_left_out_of_pages_and_do_not_end_them(
    in_mongo: MongoJobs, database: Database[dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    site = an_id()
    jobs = [a_job(site_id=site, status=Status.DONE) for _ in range(2)]
    for job in jobs:
        in_mongo.add(job)
    broken = [spoil(site_document(a_job(site_id=site))) | {"siteId": site} for spoil in BROKEN]
    database.jobs.insert_many(broken)
    last = a_job(site_id=site)
    in_mongo.add(last)
    assert in_mongo.page({"siteId": site}, 2, None) == [last, jobs[1]]
    assert in_mongo.page({"siteId": site}, 9, None) == [last, jobs[1], jobs[0]]
    assert in_mongo.page({"siteId": site}, 1, last.id) == [jobs[1]]
    assert {record.__dict__["jobId"] for record in caplog.records} == {document["_id"] for document in broken}
