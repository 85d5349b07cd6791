"""What dead connections to MongoDB, and a server that went away, cost those who ask for jobs: no answer."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pymongo.database import Database

from local.services import processes
from local.services.mongo import Mongo
from sitebackup.adapters.mongo.connection import connect
from sitebackup.adapters.mongo.indexes import create_job_indexes
from sitebackup.adapters.mongo.jobs import MongoJobs
from sitebackup.domain.change import Change, Moment
from sitebackup.domain.errors import RepositoryUnavailable
from sitebackup.domain.job import Job
from sitebackup.ports.repositories import JobRepository
from tests.builders import BY_SERVICE, NOW, a_job, a_task, an_id, touch, touched, touches
from tests.contract.conftest import Client
from tests.contract.test_job_repository import recorder
from tests.fakes.jobs import MemoryJobs
from tests.tcp_proxy import Forgetting, TcpProxy

SERVER_SELECTION_SECONDS = 20
"""Longer than a client looks for a server, with much to spare."""
MAX_IDLE_SECONDS = 240


@pytest.fixture
def behind_proxy(client_behind_proxy: Client, database: Database[dict[str, Any]]) -> MongoJobs:
    """Jobs whose connections can be forgotten, with indexes made."""
    create_job_indexes(database)
    return MongoJobs(client_behind_proxy, database.name)


CALLS: dict[str, Callable[[JobRepository, Job, Job], object]] = {
    "add": lambda jobs, old, new: jobs.add(new),
    "get": lambda jobs, old, new: jobs.get(old.id),
    "claim_of": lambda jobs, old, new: jobs.claim_of(old.user_id, old.site_id),
    "by_idempotency_key": lambda jobs, old, new: jobs.by_idempotency_key(str(old.idempotency_key)),
    "version": lambda jobs, old, new: jobs.version_for(BY_SERVICE, old.id),
    "page": lambda jobs, old, new: jobs.page({"siteId": old.site_id}, 5, None),
    "holds_newest_good": lambda jobs, old, new: jobs.holds_newest_good(
        old.replace(tasks={"site": a_task(1).replace(finished_at=NOW)})
    ),
    "due": lambda jobs, old, new: jobs.due(NOW + timedelta(hours=1), 5),
    "due_for_clean_up": lambda jobs, old, new: jobs.due_for_clean_up(NOW, 5),
    "replace": lambda jobs, old, new: jobs.replace(old, touched(old).replace(version=2)),
    "change by the recorder": lambda jobs, old, new: recorder(jobs).apply(old.id, touch),
    "change of a job that is known": lambda jobs, old, new: recorder(jobs).apply(old.id, touch, old),
    "claim_check": lambda jobs, old, new: jobs.claim_check(old, NOW + timedelta(hours=2)),
}
DEATHS: list[Forgetting] = ["reset", "lose the answer"]
DEAD: list[tuple[str, Forgetting]] = [
    *((call, how) for how in DEATHS for call in CALLS),
    ("add", "drop"),  # each takes as long as an answer may take
    ("replace", "drop"),
]


@pytest.mark.parametrize(("call", "how"), DEAD)
def test_a_dead_connection_costs_no_answer_and_nothing_happens_twice(
    behind_proxy: MongoJobs, in_mongo: MongoJobs, proxy: TcpProxy, call: str, how: Forgetting
) -> None:
    old = a_job(idempotency_key="once")
    new = a_job()
    fake = MemoryJobs()
    fake.add(old)
    behind_proxy.add(old)
    expected = CALLS[call](fake, old, new)
    proxy.forget(how)
    assert CALLS[call](behind_proxy, old, new) == expected
    assert in_mongo.page({}, 9, None) == fake.page({}, 9, None)


def test_the_making_of_indexes_survives_a_dead_connection(
    client_behind_proxy: Client, database: Database[dict[str, Any]], proxy: TcpProxy
) -> None:
    create_job_indexes(client_behind_proxy[database.name])
    for how in DEATHS:
        proxy.forget(how)
        create_job_indexes(client_behind_proxy[database.name])
    assert "due" in database.jobs.index_information()


def test_a_lost_answer_of_a_change_that_others_overwrote_is_a_lost_race(
    behind_proxy: MongoJobs, in_mongo: MongoJobs, proxy: TcpProxy
) -> None:
    """The change is made again, on what is there by then: its outcome is one that a repeated event has as well."""
    job = a_job()
    behind_proxy.add(job)
    seen: list[int] = []

    def count_up(job: Job, moment: Moment) -> Change:
        seen.append(job.version)
        if len(seen) == 1:
            proxy.forget("lose the answer", then=lambda: recorder(in_mongo).apply(job.id, touch))
        return Change(job.replace(max_bytes=(job.max_bytes or 0) + 1))

    assert recorder(behind_proxy).apply(job.id, count_up)
    assert seen == [1, 3]
    found = in_mongo.get(job.id)
    assert found is not None
    assert (found.version, found.max_bytes, touches(found)) == (4, 2, 1)


def test_the_record_of_a_job_is_deleted_although_the_answer_is_lost(
    behind_proxy: MongoJobs, in_mongo: MongoJobs, proxy: TcpProxy
) -> None:
    job = a_job()
    behind_proxy.add(job)
    proxy.forget("lose the answer")
    assert not behind_proxy.delete_record(job)
    assert in_mongo.get(job.id) is None


def test_a_connection_that_was_idle_for_minutes_is_not_used_again(
    behind_proxy: MongoJobs, proxy: TcpProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    behind_proxy.add(job := a_job())
    opened = proxy.connections
    assert behind_proxy.get(job.id) == job
    assert proxy.connections == opened
    later = time.monotonic() + MAX_IDLE_SECONDS + 1
    monkeypatch.setattr("pymongo.synchronous.pool.time.monotonic", lambda: later)
    assert behind_proxy.get(job.id) == job
    assert proxy.connections == opened + 1


def test_a_server_that_is_not_there_is_told_within_seconds() -> None:
    client = connect(f"mongodb://127.0.0.1:{processes.free_port()}/?directConnection=true")
    jobs = MongoJobs(client, "none")
    calls: list[Callable[[], object]] = [
        lambda: jobs.get(an_id()),
        lambda: jobs.due(NOW, 1),
        lambda: jobs.replace(a_job(), a_job()),
        lambda: recorder(jobs).apply(an_id(), touch),
        lambda: jobs.add(a_job()),
    ]
    with ThreadPoolExecutor(len(calls)) as pool:
        futures = [pool.submit(call) for call in calls]
        for future in futures:
            with pytest.raises(RepositoryUnavailable, match="MongoDB does not answer"):
                future.result(timeout=SERVER_SELECTION_SECONDS)
    client.close()


@pytest.fixture
def server_of_its_own(tmp_path: Path) -> Iterator[Mongo]:
    server = Mongo(tmp_path)
    try:
        server.start()
        server.wait_ready()
        yield server
    finally:
        server.stop()


def test_a_server_that_went_away_is_unavailable_until_it_is_back(server_of_its_own: Mongo) -> None:
    server = server_of_its_own
    client = connect(server.address)
    jobs = MongoJobs(client, "contract")
    job = a_job()
    jobs.add(job)
    server.kill()
    with pytest.raises(RepositoryUnavailable):
        jobs.get(job.id)
    server.start()
    server.wait_ready()
    limit = time.monotonic() + SERVER_SELECTION_SECONDS
    while True:
        try:
            assert jobs.get(job.id) == job
            break
        except RepositoryUnavailable:
            assert time.monotonic() < limit
    client.close()
