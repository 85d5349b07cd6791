"""One suite for the repository in MongoDB and its twin in memory, and what only a server can show."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from pymongo import MongoClient

from local.services import processes
from local.services.mongo import Mongo
from local.services.service import Service
from sitebackup.adapters.repository import DuplicateJob, Repository, connect
from sitebackup.domain import lifecycle, transitions
from sitebackup.domain.errors import Conflict, RepositoryUnavailable
from sitebackup.domain.job import DeleteCause, Job, Part, PartWait, Status, StoredObject, Task, Upload
from sitebackup.domain.policy import Policy
from sitebackup.domain.progress import Progress
from tests.tcp_proxy import Forgetting, TcpProxy
from tests.unit.twins import MemoryRepository

NOW = datetime(2030, 1, 31, 12, tzinfo=UTC)
_numbers = count(1)


def an_id() -> str:
    return f"{next(_numbers):024x}"


def a_job(**changes: Any) -> Job:
    fields: dict[str, Any] = {
        "id": an_id(),
        "user_id": an_id(),
        "site_id": an_id(),
        "status": Status.PENDING,
        "version": 1,
        "active": True,
        "tasks": {"site": a_task(1), "db": a_task(2)},
        "created_at": NOW,
        "updated_at": NOW,
        "deadline_at": NOW + timedelta(hours=6),
    }
    job = Job(**fields | changes)
    return job.replace(next_check_at=job.earliest_check)


def a_task(minute: int) -> Task:
    """One that the sweep looks at so many minutes from now."""
    check_at = NOW + timedelta(minutes=minute)
    return Task(stalls_at=check_at, next_check_at=check_at)


def a_part(number: int, length: int = 5) -> Part:
    return Part(number=number, length=length, etag=f'"{number}"', crc64nvme="AAAAAAAAAAA=")


def touched(job: Job) -> Job:
    """Any change."""
    return job.replace(expires_after_days=(job.expires_after_days or 0) + 1)


@pytest.fixture
def database(mongo: Service) -> Iterator[Any]:
    name = f"contract-{uuid4().hex}"
    with MongoClient[dict[str, Any]](mongo.address, tz_aware=True) as client:
        yield client[name]
        client.drop_database(name)


@pytest.fixture
def in_mongo(mongo: Service, database: Any) -> Iterator[Repository]:
    client = connect(mongo.address)
    repository = Repository(client, database.name)
    repository.create_indexes()
    yield repository
    client.close()


@pytest.fixture(params=["mongo", "twin"])
def repository(request: pytest.FixtureRequest) -> Repository:
    if request.param == "twin":
        return MemoryRepository()
    found: Repository = request.getfixturevalue("in_mongo")
    return found


# --- jobs


def test_a_job_comes_back_as_it_was_added(repository: Repository) -> None:
    job = a_job(
        tasks={"site": Task(upload=Upload(upload_id="u", attempt=1), progress=Progress(parts=1))},
        idempotency_key="once",
        max_bytes=2**53,
    )
    repository.add(job)
    assert repository.get(job.id) == job
    assert repository.active(job.user_id, job.site_id) == job
    assert repository.by_idempotency_key("once") == job
    assert repository.version(job.id) == 1


def test_what_is_not_there_is_none(repository: Repository) -> None:
    assert repository.get(an_id()) is None
    assert repository.active(an_id(), an_id()) is None
    assert repository.by_idempotency_key("never") is None
    assert repository.version(an_id()) is None
    assert repository.change(an_id(), touched) is None


def test_one_active_job_a_site(repository: Repository) -> None:
    first = a_job()
    repository.add(first)
    with pytest.raises(DuplicateJob):
        repository.add(a_job(user_id=first.user_id, site_id=first.site_id))
    repository.add(a_job(user_id=first.user_id))
    repository.add(a_job(site_id=first.site_id))


def test_the_end_of_a_job_frees_its_site_and_a_retry_takes_it_again(repository: Repository) -> None:
    first = a_job()
    repository.add(first)
    assert repository.change(first.id, lambda job: transitions.cancel(job, NOW, Policy()))
    assert repository.active(first.user_id, first.site_id) is None
    second = a_job(user_id=first.user_id, site_id=first.site_id)
    repository.add(second)
    with pytest.raises(DuplicateJob):
        repository.change(first.id, lambda job: lifecycle.retry(job, NOW, Policy()))
    assert repository.change(second.id, lambda job: transitions.cancel(job, NOW, Policy()))
    assert repository.change(first.id, lambda job: lifecycle.retry(job, NOW, Policy()))
    assert repository.active(first.user_id, first.site_id) == repository.get(first.id)


def test_one_job_an_idempotency_key(repository: Repository) -> None:
    repository.add(a_job(idempotency_key="k", active=None))
    with pytest.raises(DuplicateJob):
        repository.add(a_job(idempotency_key="k"))
    repository.add(a_job())
    repository.add(a_job())


def test_a_change_stores_and_counts_the_version(repository: Repository) -> None:
    job = a_job()
    repository.add(job)
    changed = repository.change(job.id, touched)
    assert changed is not None
    assert changed.before == job
    assert changed.after == touched(job).replace(version=2) == repository.get(job.id)
    assert repository.version(job.id) == 2


def test_nothing_to_change_stores_nothing(repository: Repository) -> None:
    job = a_job()
    repository.add(job)
    assert repository.change(job.id, lambda job: None) is None
    assert repository.get(job.id) == job


def test_a_job_that_is_known_but_old_is_read_anew(repository: Repository) -> None:
    job = a_job()
    repository.add(job)
    repository.change(job.id, touched)
    changed = repository.change(job.id, touched, known=job)
    assert changed is not None
    assert (changed.before.version, changed.after.expires_after_days) == (2, 2)


def test_a_change_that_always_loses_is_a_conflict(repository: Repository) -> None:
    job = a_job()
    repository.add(job)

    def slow(seen: Job) -> Job:
        repository.change(job.id, touched)
        return seen.replace(max_bytes=1)

    with pytest.raises(Conflict):
        repository.change(job.id, slow)
    found = repository.get(job.id)
    assert found is not None
    assert found.max_bytes is None


def test_no_change_of_sixteen_threads_is_lost(repository: Repository) -> None:
    """Without the version in the filter of `_replace` changes overwrite one another, and this fails."""
    job = a_job()
    repository.add(job)

    def work(number: int) -> None:
        for _ in range(8):
            while True:
                try:
                    repository.change(job.id, touched)
                    break
                except Conflict:
                    continue

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(work, range(16)))
    found = repository.get(job.id)
    assert found is not None
    assert (found.expires_after_days, found.version) == (128, 129)


def test_a_field_that_is_unset_is_gone(repository: Repository) -> None:
    job = a_job(tasks={"site": Task(upload=Upload(upload_id="u", attempt=1))}, idempotency_key="once")
    repository.add(job)
    repository.change(job.id, lambda job: job.replace(tasks={"site": Task()}, idempotency_key=None))
    found = repository.get(job.id)
    assert found is not None
    assert found.tasks == {"site": Task()}
    assert found.idempotency_key is None


def test_due_is_in_order_and_at_most_so_many(repository: Repository) -> None:
    minutes = [5, 1, 3, 2, 9]
    for minute in minutes:
        repository.add(a_job(tasks={"site": a_task(minute), "db": a_task(minute + 7)}))
    repository.add(a_job(status=Status.DONE, active=None))
    due = repository.due(NOW + timedelta(minutes=5), 3)
    assert [job.next_check_at for job in due] == [NOW + timedelta(minutes=minute) for minute in (1, 2, 3)]
    assert len(repository.due(NOW + timedelta(minutes=5), 10)) == 4
    assert repository.due(NOW, 10) == []


def test_final_jobs_are_due_for_clean_up_and_for_nothing_else(repository: Repository) -> None:
    def final(minute: int | None) -> Job:
        at = NOW + timedelta(minutes=minute) if minute is not None else None
        return a_job(status=Status.DONE, active=None, clean_up_at=at)

    jobs = [final(minute) for minute in (3, 1, None, 9)]
    for job in jobs:
        repository.add(job)
    assert repository.due_for_clean_up(NOW + timedelta(minutes=5), 10) == [jobs[1], jobs[0]]
    assert repository.due(NOW + timedelta(days=1), 10) == []


def test_the_next_check_of_a_job_follows_its_tasks_whatever_change_is_stored(repository: Repository) -> None:
    job = a_job()
    repository.add(job.replace(next_check_at=None))
    assert repository.due(NOW + timedelta(minutes=1), 10) == [job]
    changed = repository.change(job.id, lambda job: job.replace(tasks={"site": a_task(8), "db": a_task(4)}))
    assert changed is not None
    assert changed.after.next_check_at == NOW + timedelta(minutes=4)
    assert repository.due(NOW + timedelta(minutes=3), 10) == []
    assert repository.due(NOW + timedelta(minutes=4), 10) == [changed.after]
    late = changed.after.deadline_at + timedelta(hours=1)
    changed = repository.change(
        job.id, lambda job: job.replace(tasks={"site": Task(stalls_at=late, next_check_at=late)})
    )
    assert changed is not None
    assert changed.after.next_check_at == job.deadline_at


def due_job(repository: Repository, queue: str) -> Job:
    """A job that is due in that queue, as it is read from it."""
    if queue == "clean_up":
        job = a_job(status=Status.DONE, active=None, clean_up_at=NOW)
    else:
        job = a_job(tasks={"site": a_task(0)})
    repository.add(job)
    (found,) = due_in(repository, queue, NOW)
    return found


def due_in(repository: Repository, queue: str, now: datetime) -> list[Job]:
    return repository.due_for_clean_up(now, 10) if queue == "clean_up" else repository.due(now, 10)


def claim_in(repository: Repository, queue: str, job: Job, until: datetime) -> Job | None:
    claim = repository.claim_clean_up if queue == "clean_up" else repository.claim_check
    return claim(job, until)


def put_off(job: Job) -> Job:
    """A change that a pass would store: the job is due again in an hour."""
    later = NOW + timedelta(hours=1)
    tasks = {name: task.replace(next_check_at=later) for name, task in job.tasks.items()}
    return job.replace(tasks=tasks, clean_up_at=later if job.clean_up_at else None)


@pytest.mark.parametrize("queue", ["check", "clean_up"])
def test_a_job_that_is_due_is_claimed_by_one_and_out_of_sight_until_then(
    repository: Repository, queue: str
) -> None:
    job, until = due_job(repository, queue), NOW + timedelta(minutes=1)
    claimed = claim_in(repository, queue, job, until)
    assert claimed == repository.get(job.id)
    assert claim_in(repository, queue, job, until + timedelta(seconds=1)) is None
    assert due_in(repository, queue, until - timedelta(milliseconds=1)) == []
    assert due_in(repository, queue, until) == [claimed]


@pytest.mark.parametrize("queue", ["check", "clean_up"])
def test_what_was_claimed_is_changed_and_due_when_the_change_says(repository: Repository, queue: str) -> None:
    job = due_job(repository, queue)
    claimed = claim_in(repository, queue, job, NOW + timedelta(minutes=1))
    assert repository.change(job.id, put_off, known=claimed)
    assert due_in(repository, queue, NOW + timedelta(minutes=59)) == []
    assert len(due_in(repository, queue, NOW + timedelta(minutes=60))) == 1


@pytest.mark.parametrize("queue", ["check", "clean_up"])
def test_a_job_that_has_changed_since_is_not_claimed(repository: Repository, queue: str) -> None:
    job = due_job(repository, queue)
    changed = repository.change(job.id, lambda job: job.replace(updated_at=NOW + timedelta(seconds=1)))
    assert changed is not None
    assert claim_in(repository, queue, job, NOW + timedelta(minutes=1)) is None
    assert due_in(repository, queue, NOW) == [changed.after]


@pytest.mark.parametrize("queue", ["check", "clean_up"])
def test_a_claim_stands_in_the_way_of_no_change(repository: Repository, queue: str) -> None:
    """Who read the job before the claim stores a change all the same, and then the pass changes nothing."""
    job = due_job(repository, queue)
    claimed = claim_in(repository, queue, job, NOW + timedelta(minutes=1))
    assert claimed is not None
    assert repository.change(job.id, put_off, known=job)
    stale = repository.change(
        job.id, lambda seen: put_off(seen) if seen.version == claimed.version else None, known=claimed
    )
    assert stale is None


def test_a_page_is_newest_first_and_filtered(repository: Repository) -> None:
    site = an_id()
    ids = []
    for number in range(5):
        job = a_job(site_id=site, status=Status.DONE if number % 2 else Status.PENDING)
        repository.add(job)
        ids.append(job.id)
    repository.add(a_job())
    found = repository.page({"siteId": site}, 2, None)
    assert [job.id for job in found] == [ids[4], ids[3]]
    assert [job.id for job in repository.page({"siteId": site}, 9, ids[3])] == [ids[2], ids[1], ids[0]]
    assert [job.id for job in repository.page({"siteId": site, "status": "done"}, 9, None)] == [
        ids[3],
        ids[1],
    ]
    assert [job.id for job in repository.page({"siteId": site, "status": "pending"}, 9, None)] == ids[4::-2]


def test_a_record_is_forgotten_only_as_it_was_seen(repository: Repository) -> None:
    job = a_job()
    repository.add(job)
    repository.change(job.id, touched)
    assert not repository.forget(job)
    found = repository.get(job.id)
    assert found is not None
    assert repository.forget(found)
    assert repository.get(job.id) is None
    assert not repository.forget(found)


def done_at(hour: int, members: int | None = None) -> Task:
    stored = StoredObject(bucket="b", key="k", size=1, checksum_crc64nvme="AAAAAAAAAAA=", members=members)
    return Task(status=Status.DONE, object=stored, finished_at=NOW + timedelta(hours=hour))


def newest_good(repository: Repository, jobs: list[Job]) -> list[bool]:
    return [repository.holds_newest_good(job) for job in jobs]


def add_done(repository: Repository, *tasks: dict[str, Task]) -> list[Job]:
    """Done jobs of one site, in the order of their creation."""
    user, site = an_id(), an_id()
    jobs = [a_job(user_id=user, site_id=site, status=Status.DONE, active=None, tasks=each) for each in tasks]
    for job in jobs:
        repository.add(job)
    return jobs


def test_the_newest_good_object_is_of_a_done_job_that_nobody_asked_to_delete(repository: Repository) -> None:
    jobs = add_done(repository, *({"site": done_at(hour)} for hour in (1, 4, 3)))
    for change in (
        {"status": Status.FAILED},
        {"removing_at": NOW},
        {"site_id": an_id()},
        {"user_id": an_id()},
    ):
        repository.add(jobs[0].replace(id=an_id(), tasks={"site": done_at(9)}, **change))
    assert newest_good(repository, jobs) == [False, True, False]
    requested = DeleteCause.REQUESTED
    repository.change(jobs[1].id, lambda job: lifecycle.mark_deleted(job, NOW, requested, NOW, Policy()))
    assert newest_good(repository, [jobs[0], jobs[2]]) == [False, True]


def test_a_job_holds_the_newest_good_object_of_any_of_its_providers(repository: Repository) -> None:
    jobs = add_done(
        repository,
        {"site": done_at(1), "db": done_at(1)},
        {"site": done_at(2), "db": done_at(2)},
        {"db": done_at(3)},
    )
    assert newest_good(repository, jobs) == [False, True, True]
    jobs += add_done(repository, {"site": done_at(4)})
    assert newest_good(repository, jobs) == [False, True, True, True], "that is of another site"
    repository.add(jobs[0].replace(id=an_id(), tasks={"site": done_at(4)}))
    assert newest_good(repository, jobs[:3]) == [False, False, True]


def test_the_time_of_the_object_counts_and_not_that_of_its_job(repository: Repository) -> None:
    """A retry keeps what was done: the job gets done later, its object is as old as it was."""
    jobs = add_done(
        repository, {"site": done_at(1), "db": done_at(9)}, {"site": done_at(2), "db": done_at(2)}
    )
    assert newest_good(repository, jobs) == [True, True]


def test_a_zip_without_members_is_never_newer_than_one_with_members(repository: Repository) -> None:
    jobs = add_done(repository, {"site": done_at(1, 0)}, {"site": done_at(2, 0)}, {"db": done_at(9)})
    assert newest_good(repository, jobs) == [False, True, True], "better than nothing"
    for members in (5, None):
        jobs = add_done(repository, *({"site": done_at(*each)} for each in ((1, 0), (2, members), (3, 0))))
        assert newest_good(repository, jobs) == [False, True, False]


# --- parts

ODD_IDS = [
    "u",
    "u:",
    "u:00001",  # its parts lie between those of "u"
    "u;",
    "u/1",
    "u~",
    "2~VmFsdWU.-_=+",
    "\u00e9\U0001f4be",
    "u\uffff",
]


def test_parts_of_any_upload_id_keep_apart(repository: Repository) -> None:
    for position, upload_id in enumerate(ODD_IDS, 1):
        for number in (1, 2, 10, position + 10, 10_000):
            repository.save_part(upload_id, a_part(number, length=position), NOW)
    for position, upload_id in enumerate(ODD_IDS, 1):
        numbers = sorted({1, 2, 10, position + 10, 10_000})
        assert repository.done_parts(upload_id) == [a_part(number, position) for number in numbers]
        assert repository.done_parts(upload_id, range(3, 10_001)) == repository.done_parts(upload_id)[2:]
        assert [part.number for part in repository.done_parts(upload_id, range(2, 11))] == numbers[1:3]
        assert repository.done_parts(upload_id, range(1, 1)) == []


def test_which_of_these_parts_are_done(repository: Repository) -> None:
    for upload_id in ODD_IDS:
        repository.save_part(upload_id, a_part(3), NOW)
    asked = {(upload_id, number) for upload_id in ODD_IDS for number in (2, 3)}
    assert repository.which_done(asked) == {(upload_id, 3) for upload_id in ODD_IDS}
    assert repository.which_done(set()) == set()


def test_a_part_that_is_saved_again_is_replaced(repository: Repository) -> None:
    repository.save_part("u", a_part(1, length=5), NOW)
    repository.save_part("u", a_part(1, length=6), NOW)
    assert repository.done_parts("u") == [a_part(1, length=6)]


def test_a_part_that_waits_is_missing_until_it_is_done_and_then_waits_no_more(repository: Repository) -> None:
    wait = PartWait(attempt=2, tried=1, next_try_at=NOW)
    repository.save_part("u", a_part(1), NOW)
    repository.save_wait("u", 3, wait, NOW)
    assert repository.missing_parts("u", range(1, 5)) == {2: PartWait(), 3: wait, 4: PartWait()}
    assert repository.done_parts("u") == repository.done_parts("u", range(1, 5)) == [a_part(1)]
    assert repository.which_done({("u", 1), ("u", 3)}) == {("u", 1)}
    repository.save_part("u", a_part(3), NOW)
    repository.save_wait("u", 3, wait, NOW)
    repository.end_waits("u", [1, 3])
    assert repository.done_parts("u") == [a_part(1), a_part(3)]
    assert repository.missing_parts("u", range(1, 4)) == {2: PartWait()}


def test_a_part_that_is_sent_again_keeps_its_tries_and_waits_no_more(repository: Repository) -> None:
    for number in (1, 2):
        repository.save_wait("u", number, PartWait(attempt=1, tried=3, next_try_at=NOW), NOW)
    repository.end_waits("u", [1, 7])
    assert repository.missing_parts("u", range(1, 3)) == {
        1: PartWait(attempt=1, tried=3),
        2: PartWait(attempt=1, tried=3, next_try_at=NOW),
    }


def test_a_done_part_that_s3_lost_waits(repository: Repository) -> None:
    repository.save_part("u", a_part(1), NOW)
    wait = PartWait(attempt=1, next_try_at=NOW)
    repository.lose_part("u", 1, wait, NOW)
    assert repository.done_parts("u") == []
    assert repository.missing_parts("u", range(1, 2)) == {1: wait}


# --- only a server shows these


def test_the_indexes_can_be_created_again(in_mongo: Repository, database: Any) -> None:
    in_mongo.create_indexes()
    indexes = database.jobs.index_information()
    assert indexes["one_active_job_per_site"]["unique"]
    assert indexes["one_active_job_per_site"]["partialFilterExpression"] == {"active": True}
    assert indexes["one_job_per_idempotency_key"]["unique"]
    assert "expireAfterSeconds" in database.parts.index_information()["forget"]


def test_fields_of_a_newer_release_survive(in_mongo: Repository, database: Any) -> None:
    job = a_job()
    in_mongo.add(job)
    newer = {"priority": 7, "tasks.site.region": "eu", "tasks.db.region": "us"}
    database.jobs.update_one({"_id": job.id}, {"$set": newer})
    started = in_mongo.change(
        job.id, lambda job: transitions.start_task(job, 1, "site", 0, "me", NOW, Policy())
    )
    assert started is not None
    document = database.jobs.find_one({"_id": job.id})
    assert document["priority"] == 7
    assert started.after.tasks["site"].to_document() | {"region": "eu"} == document["tasks"]["site"]
    assert a_task(2).to_document() | {"region": "us"} == document["tasks"]["db"]


BROKEN: list[Callable[[dict[str, Any]], dict[str, Any]]] = [
    lambda document: document | {"status": "on holiday"},
    lambda document: document | {"tasks": 3},
    lambda document: document | {"createdAt": "yesterday"},
    lambda document: {"_id": document["_id"], "nextCheckAt": document["nextCheckAt"]},
]


def test_documents_that_cannot_be_read_neither_stop_the_sweep_nor_take_places(
    in_mongo: Repository, database: Any, caplog: pytest.LogCaptureFixture
) -> None:
    broken = [spoil(a_job(tasks={"site": a_task(0)}).to_document()) for spoil in BROKEN]
    database.jobs.insert_many(broken)
    good = a_job()
    in_mongo.add(good)
    assert in_mongo.due(NOW + timedelta(minutes=1), 2) == [good]
    assert [record.__dict__["jobId"] for record in caplog.records] == [document["_id"] for document in broken]


def test_documents_that_cannot_be_read_are_left_out_of_pages_and_end_none(
    in_mongo: Repository, database: Any, caplog: pytest.LogCaptureFixture
) -> None:
    site = an_id()
    jobs = [a_job(site_id=site) for _ in range(3)]
    for job in jobs[:2]:
        in_mongo.add(job)
    broken = [spoil(a_job(site_id=site).to_document()) | {"siteId": site} for spoil in BROKEN]
    database.jobs.insert_many(broken)
    last = a_job(site_id=site)
    in_mongo.add(last)
    assert in_mongo.page({"siteId": site}, 2, None) == [last, jobs[1]]
    assert in_mongo.page({"siteId": site}, 9, None) == [last, jobs[1], jobs[0]]
    assert in_mongo.page({"siteId": site}, 1, last.id) == [jobs[1]]
    assert {record.__dict__["jobId"] for record in caplog.records} == {document["_id"] for document in broken}


# --- connections that are dead


@pytest.fixture
def proxy(mongo: Service) -> Iterator[TcpProxy]:
    one = TcpProxy((mongo.host, mongo.port))
    yield one
    one.close()


@pytest.fixture
def behind(proxy: TcpProxy, database: Any) -> Iterator[Repository]:
    """A repository whose connections can be forgotten, with indexes made."""
    client = connect(f"mongodb://{proxy.address}/?directConnection=true")
    repository = Repository(client, database.name)
    repository.create_indexes()
    yield repository
    client.close()


CALLS: dict[str, Callable[[Repository, Job, Job], object]] = {
    "create_indexes": lambda repository, old, new: repository.create_indexes(),
    "add": lambda repository, old, new: repository.add(new),
    "get": lambda repository, old, new: repository.get(old.id),
    "active": lambda repository, old, new: repository.active(old.user_id, old.site_id),
    "by_idempotency_key": lambda repository, old, new: repository.by_idempotency_key(
        str(old.idempotency_key)
    ),
    "version": lambda repository, old, new: repository.version(old.id),
    "page": lambda repository, old, new: repository.page({"siteId": old.site_id}, 5, None),
    "holds_newest_good": lambda repository, old, new: repository.holds_newest_good(
        old.replace(tasks={"site": a_task(1).replace(finished_at=NOW)})
    ),
    "due": lambda repository, old, new: repository.due(NOW + timedelta(hours=1), 5),
    "due_for_clean_up": lambda repository, old, new: repository.due_for_clean_up(NOW, 5),
    "change": lambda repository, old, new: repository.change(old.id, touched),
    "change of a job that is known": lambda repository, old, new: repository.change(old.id, touched, old),
    "claim_check": lambda repository, old, new: repository.claim_check(old, NOW + timedelta(hours=2)),
    "save_part": lambda repository, old, new: repository.save_part("v", a_part(1), NOW),
    "save_wait": lambda repository, old, new: repository.save_wait("v", 2, PartWait(attempt=1), NOW),
    "end_waits": lambda repository, old, new: repository.end_waits("v", [2]),
    "lose_part": lambda repository, old, new: repository.lose_part("v", 1, PartWait(attempt=1), NOW),
    "done_parts": lambda repository, old, new: repository.done_parts("u"),
    "done_parts of a range": lambda repository, old, new: repository.done_parts("u", range(1, 9)),
    "missing_parts": lambda repository, old, new: repository.missing_parts("u", range(1, 9)),
    "which_done": lambda repository, old, new: repository.which_done({("u", 1)}),
}


DEAD: list[tuple[str, Forgetting]] = [
    *((call, "reset") for call in CALLS),
    *((call, "lose the answer") for call in CALLS),
    ("add", "drop"),  # each takes as long as an answer may take
    ("change", "drop"),
]


@pytest.mark.parametrize(("call", "how"), DEAD)
def test_a_dead_connection_costs_no_answer_and_nothing_happens_twice(
    behind: Repository, in_mongo: Repository, proxy: TcpProxy, call: str, how: Forgetting
) -> None:
    def prepared(repository: Repository) -> tuple[Job, Job]:
        old = a_job(id="a" * 24, user_id="b" * 24, site_id="c" * 24, idempotency_key="once")
        repository.add(old)
        repository.save_part("u", a_part(1), NOW)
        return old, a_job(id="d" * 24, user_id="e" * 24, site_id="f" * 24)

    def stored(repository: Repository) -> list[object]:
        return [repository.page({}, 9, None), *(repository.done_parts(upload) for upload in "uv")]

    twin = MemoryRepository()
    expected = CALLS[call](twin, *prepared(twin))
    old, new = prepared(behind)
    proxy.forget(how)
    assert CALLS[call](behind, old, new) == expected
    assert stored(in_mongo) == stored(twin)


def test_a_lost_answer_of_a_change_that_others_overwrote_is_a_lost_race(
    behind: Repository, in_mongo: Repository, proxy: TcpProxy
) -> None:
    """The change is made again, on what is there by then: its outcome is one that a repeated event has as well."""
    job = a_job()
    behind.add(job)
    seen: list[int] = []

    def change(job: Job) -> Job:
        seen.append(job.version)
        if len(seen) == 1:
            proxy.forget("lose the answer", then=lambda: in_mongo.change(job.id, touched))
        return job.replace(max_bytes=(job.max_bytes or 0) + 1)

    assert behind.change(job.id, change)
    assert seen == [1, 3]
    found = in_mongo.get(job.id)
    assert found is not None
    assert (found.version, found.max_bytes, found.expires_after_days) == (4, 2, 1)


def test_the_record_of_a_job_is_forgotten_although_the_answer_is_lost(
    behind: Repository, in_mongo: Repository, proxy: TcpProxy
) -> None:
    job = a_job()
    behind.add(job)
    proxy.forget("lose the answer")
    assert not behind.forget(job)
    assert in_mongo.get(job.id) is None


def test_a_connection_that_was_idle_for_minutes_is_not_used_again(
    behind: Repository, proxy: TcpProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    behind.add(job := a_job())
    opened = proxy.connections
    assert behind.get(job.id) == job
    assert proxy.connections == opened
    later = time.monotonic() + 241
    monkeypatch.setattr("pymongo.synchronous.pool.time.monotonic", lambda: later)
    assert behind.get(job.id) == job
    assert proxy.connections == opened + 1


def test_no_server_is_told_within_seconds() -> None:
    client = connect(f"mongodb://127.0.0.1:{processes.free_port()}/?directConnection=true")
    repository = Repository(client, "none")
    calls: list[Callable[[], object]] = [
        lambda: repository.get(an_id()),
        lambda: repository.due(NOW, 1),
        lambda: repository.change(an_id(), touched),
        lambda: repository.add(a_job()),
        lambda: repository.save_part("u", a_part(1), NOW),
        lambda: repository.which_done({("u", 1)}),
    ]
    with ThreadPoolExecutor(len(calls)) as pool:
        futures = [pool.submit(call) for call in calls]
        for future in futures:
            with pytest.raises(RepositoryUnavailable, match="MongoDB does not answer"):
                future.result(timeout=20)
    client.close()


def test_a_server_that_went_away_is_unavailable_until_it_is_back(tmp_path: Path) -> None:
    server = Mongo(tmp_path)
    try:
        server.start()
        server.wait_ready()
        client = connect(server.address)
        repository = Repository(client, "contract")
        job = a_job()
        repository.add(job)
        server.kill()
        with pytest.raises(RepositoryUnavailable):
            repository.get(job.id)
        server.start()
        server.wait_ready()
        limit = time.monotonic() + 20
        while True:
            try:
                assert repository.get(job.id) == job
                break
            except RepositoryUnavailable:
                assert time.monotonic() < limit
        client.close()
    finally:
        server.stop()
