"""One suite for every RestoreRepository, the fake among them: restores and backups claim sites together (I10)."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from pymongo.database import Database

from sitebackup.adapters.mongo.jobs import MongoJobs
from sitebackup.adapters.mongo.restores import MongoRestores
from sitebackup.domain.errors import DuplicateJob
from sitebackup.domain.job import Job, Status, Task
from sitebackup.domain.reason import Code, Reason
from sitebackup.domain.restore import Import, Restore, RestoreStatus
from sitebackup.domain.task_ref import RestoreRef
from sitebackup.ports.repositories import JobRepository, RestoreRepository, SiteClaim
from tests.builders import BY_SERVICE, NOW, a_job, a_restore, an_id
from tests.contract.conftest import Client
from tests.fakes.jobs import MemoryJobs, MemoryRestores

FAILED = {
    "status": RestoreStatus.FAILED,
    "reason": Reason(code=Code.IMPORT_FAILED, message="It failed."),
    "finished_at": NOW,
}


@dataclass(frozen=True)
class Documents:
    """Both kinds, in one place."""

    jobs: JobRepository
    restores: RestoreRepository


@pytest.fixture(params=["MongoDB", "fake"])
def documents(request: pytest.FixtureRequest) -> Documents:
    if request.param == "fake":
        jobs = MemoryJobs()
        return Documents(jobs, MemoryRestores(jobs))
    client: Client = request.getfixturevalue("client")
    database: Database[dict[str, Any]] = request.getfixturevalue("database")
    return Documents(MongoJobs(client, database.name), MongoRestores(client, database.name))


def changed(documents: Documents, before: Restore, **changes: Any) -> Restore:
    after = before.replace(version=before.version + 1, **changes).with_next_check()
    assert documents.restores.replace(before, after)
    return after


def test_a_restore_comes_back_as_it_was_added(documents: Documents) -> None:
    restore = a_restore(idempotency_key="once", is_pinning=True, step_at=NOW)
    documents.restores.add(restore)
    assert documents.restores.get(restore.id) == restore
    assert documents.restores.by_idempotency_key("once") == restore
    assert documents.restores.version_for(BY_SERVICE, restore.id) == 1


def test_what_a_worker_stores_of_its_task_comes_back(documents: Documents) -> None:
    restore = a_restore()
    documents.restores.add(restore)
    task = restore.tasks["site"].replace(upload=Import(url="https://example.com/1", offset=5, sent_to=9))
    after = changed(documents, restore, tasks={**restore.tasks, "site": task})
    assert documents.restores.get(restore.id) == after


def test_a_change_of_what_others_have_changed_is_refused(documents: Documents) -> None:
    restore = a_restore()
    documents.restores.add(restore)
    changed(documents, restore, is_pinning=True)
    assert not documents.restores.replace(restore, restore.replace(version=2))


def test_neither_repository_shows_documents_of_the_other_kind(documents: Documents) -> None:
    job, restore = a_job(idempotency_key="a", next_check_at=NOW), a_restore(idempotency_key="b", step_at=NOW)
    documents.jobs.add(job)
    documents.restores.add(restore)
    assert documents.jobs.get(restore.id) is None
    assert documents.restores.get(job.id) is None
    assert documents.jobs.by_idempotency_key("b") is None
    assert documents.restores.by_idempotency_key("a") is None
    assert documents.jobs.version_for(BY_SERVICE, restore.id) is None
    later = NOW + timedelta(days=1)
    assert [found.id for found in documents.jobs.due(later, 10)] == [job.id]
    assert [found.id for found in documents.restores.due(later, 10)] == [restore.id]
    assert [found.id for found in documents.jobs.page({}, 10, None)] == [job.id]
    assert [found.id for found in documents.restores.page({}, 10, None)] == [restore.id]


@pytest.mark.parametrize("status", [RestoreStatus.PENDING, RestoreStatus.BACKING_UP, RestoreStatus.RUNNING])
def test_a_site_that_is_restored_takes_neither_a_backup_nor_another_restore(
    documents: Documents, status: RestoreStatus
) -> None:
    restore = a_restore(status=status)
    documents.restores.add(restore)
    site = {"user_id": restore.user_id, "site_id": restore.site_id}
    with pytest.raises(DuplicateJob):
        documents.jobs.add(a_job(**site))
    with pytest.raises(DuplicateJob):
        documents.restores.add(a_restore(**site))
    claim = SiteClaim("restore", restore.id, status, restore.sites)
    assert documents.jobs.claim_of(restore.user_id, restore.site_id) == claim
    assert documents.restores.claim_of(restore.user_id, restore.site_id) == claim


def test_a_site_that_is_backed_up_takes_no_restore(documents: Documents) -> None:
    job = a_job()
    documents.jobs.add(job)
    with pytest.raises(DuplicateJob):
        documents.restores.add(a_restore(user_id=job.user_id, site_id=job.site_id))
    assert documents.restores.claim_of(job.user_id, job.site_id) == SiteClaim(
        "backup", job.id, "pending", (job.site_id,)
    )


def test_the_site_that_a_restore_reads_from_is_not_claimed(documents: Documents) -> None:
    restore = a_restore(source_site_id=an_id())
    documents.restores.add(restore)
    documents.jobs.add(a_job(user_id=restore.user_id, site_id=restore.source_site_id))


def test_a_safety_backup_runs_under_the_claim_of_its_restore(documents: Documents) -> None:
    restore = a_restore(status=RestoreStatus.BACKING_UP)
    documents.restores.add(restore)
    safety = a_job(
        user_id=restore.user_id,
        site_id=restore.site_id,
        safety_for=RestoreRef(restore_id=restore.id, attempt=1),
    )
    documents.jobs.add(safety)
    assert documents.jobs.get(safety.id) == safety
    assert documents.jobs.claim_of(restore.user_id, restore.site_id) == SiteClaim(
        "restore", restore.id, "backing_up", restore.sites
    )


def test_a_restore_that_is_over_gives_the_site_back_and_a_retry_needs_it_again(documents: Documents) -> None:
    restore = a_restore()
    documents.restores.add(restore)
    failed = changed(documents, restore, **FAILED)
    job = a_job(user_id=restore.user_id, site_id=restore.site_id)
    documents.jobs.add(job)
    again = failed.replace(status=RestoreStatus.PENDING, version=3, attempt=2)
    with pytest.raises(DuplicateJob):
        documents.restores.replace(failed, again)
    ended = job.replace(status=Status.CANCELLED, version=2).with_next_check()
    assert documents.jobs.replace(job, ended)
    assert documents.restores.replace(failed, again)


def test_one_idempotency_key_makes_one_restore(documents: Documents) -> None:
    documents.restores.add(a_restore(idempotency_key="same"))
    with pytest.raises(DuplicateJob):
        documents.restores.add(a_restore(idempotency_key="same"))


def test_restores_are_listed_newest_first_by_site_backup_and_status(documents: Documents) -> None:
    one = a_restore(**FAILED)
    other = a_restore(user_id=one.user_id, site_id=one.site_id, job_id=one.job_id)
    foreign = a_restore()
    for restore in (one, other, foreign):
        documents.restores.add(restore)

    def found(**filters: str) -> list[str]:
        return [restore.id for restore in documents.restores.page(filters, 10, None)]

    assert found(siteId=one.site_id) == [other.id, one.id]
    assert found(jobId=one.job_id) == [other.id, one.id]
    assert found(jobId=one.job_id, status="failed") == [one.id]
    assert found(userId=foreign.user_id) == [foreign.id]
    assert [each.id for each in documents.restores.page({"siteId": one.site_id}, 10, other.id)] == [one.id]


def test_a_due_restore_is_claimed_by_one_sweep(documents: Documents) -> None:
    restore = a_restore(step_at=NOW)
    documents.restores.add(restore)
    assert documents.restores.due(NOW - timedelta(seconds=1), 10) == []
    (seen,) = documents.restores.due(NOW, 10)
    until = NOW + timedelta(seconds=30)
    claimed = documents.restores.claim_check(seen, until)
    assert claimed == restore.replace(next_check_at=until)
    assert documents.restores.claim_check(seen, until) is None
    assert documents.restores.due(NOW, 10) == []


# --- which backup a restore takes


def a_backup(minute: int, site: dict[str, str], **changes: Any) -> Job:
    """Done so many minutes from now."""
    at = NOW + timedelta(minutes=minute)
    task = Task(status=Status.DONE, finished_at=at)
    fields: dict[str, Any] = {"status": Status.DONE, "finished_at": at, "tasks": {"site": task, "db": task}}
    return a_job(**site, **(fields | changes))


def test_the_newest_good_backup_of_a_time_is_found(documents: Documents) -> None:
    site = {"user_id": an_id(), "site_id": an_id()}
    only_db = {"db": Task(status=Status.DONE, finished_at=NOW)}
    first, second, partial, going, safety, failed = (
        a_backup(1, site),
        a_backup(2, site),
        a_backup(3, site, tasks=only_db),
        a_backup(4, site, removing_at=NOW),
        a_backup(5, site, safety_for=RestoreRef(restore_id=an_id(), attempt=1)),
        a_backup(6, site, status=Status.FAILED),
    )
    for job in (first, second, partial, going, safety, failed, a_backup(7, {**site, "user_id": an_id()})):
        documents.jobs.add(job)

    def newest(minute: int, *providers: str) -> Job | None:
        at = NOW + timedelta(minutes=minute)
        return documents.jobs.newest_good(site["user_id"], site["site_id"], at, providers)

    assert newest(9, "site") == second
    assert newest(9, "site", "db") == second
    assert newest(9, "db") == partial
    assert newest(9) == partial
    assert newest(1) == first
    assert newest(0) is None
    assert newest(9, "mail") is None
