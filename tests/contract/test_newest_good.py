"""Which backup is the newest good one of a site, as every JobRepository has it (I19)."""

from datetime import timedelta
from typing import Any

from pymongo import MongoClient
from pymongo.database import Database

from local.services.service import Service
from sitebackup.adapters.mongo.jobs import MongoJobs
from sitebackup.domain import lifecycle
from sitebackup.domain.drill import Drill, DrillState
from sitebackup.domain.job import DeleteCause, Job, Status, StoredObject, Task
from sitebackup.domain.task_ref import RestoreRef
from sitebackup.ports.repositories import JobRepository
from tests.builders import NOW, a_job, an_id
from tests.contract.test_job_repository import Finds, recorder, stored


def done_at(hour: int, members: int | None = None) -> Task:
    zipped = StoredObject(bucket="b", key="k", size=1, checksum_crc64nvme="AAAAAAAAAAA=", members=members)
    return Task(status=Status.DONE, object=zipped, finished_at=NOW + timedelta(hours=hour))


def newest_good(jobs: JobRepository, among: list[Job]) -> list[bool]:
    return [jobs.holds_newest_good(job) for job in among]


def add_done(jobs: JobRepository, *tasks: dict[str, Task]) -> list[Job]:
    """Done jobs of one site, in the order of their creation."""
    user, site = an_id(), an_id()
    done = [a_job(user_id=user, site_id=site, status=Status.DONE, tasks=each) for each in tasks]
    for job in done:
        jobs.add(job)
    return done


def test_the_newest_good_object_is_of_a_done_job_that_nobody_asked_to_delete(jobs: JobRepository) -> None:
    """Nor does a safety backup count, which goes after days."""
    done = add_done(jobs, *({"site": done_at(hour)} for hour in (1, 4, 3)))
    for change in (
        {"status": Status.FAILED},
        {"removing_at": NOW},
        {"site_id": an_id()},
        {"user_id": an_id()},
        {"safety_for": RestoreRef(restore_id=an_id(), attempt=1)},
    ):
        jobs.add(done[0].replace(id=an_id(), tasks={"site": done_at(9)}, **change))
    assert newest_good(jobs, done) == [False, True, False]
    recorder(jobs).apply(
        done[1].id, lambda job, moment: lifecycle.mark_deleted(job, moment, NOW, DeleteCause.REQUESTED)
    )
    assert newest_good(jobs, [done[0], done[2]]) == [False, True]


def test_a_job_holds_the_newest_good_object_of_any_of_its_providers(jobs: JobRepository) -> None:
    done = add_done(
        jobs,
        {"site": done_at(1), "db": done_at(1)},
        {"site": done_at(2), "db": done_at(2)},
        {"db": done_at(3)},
    )
    assert newest_good(jobs, done) == [False, True, True]
    done += add_done(jobs, {"site": done_at(4)})
    assert newest_good(jobs, done) == [False, True, True, True], "that is of another site"
    jobs.add(done[0].replace(id=an_id(), tasks={"site": done_at(4)}))
    assert newest_good(jobs, done[:3]) == [False, False, True]


def test_the_time_of_the_object_counts_and_not_that_of_its_job(jobs: JobRepository) -> None:
    """A retry keeps what was done: the job gets done later, its object is as old as it was."""
    done = add_done(jobs, {"site": done_at(1), "db": done_at(9)}, {"site": done_at(2), "db": done_at(2)})
    assert newest_good(jobs, done) == [True, True]


def test_a_zip_without_members_is_never_newer_than_one_with_members(jobs: JobRepository) -> None:
    done = add_done(jobs, {"site": done_at(1, 0)}, {"site": done_at(2, 0)}, {"db": done_at(9)})
    assert newest_good(jobs, done) == [False, True, True], "better than nothing"
    for members in (5, None):
        done = add_done(jobs, *({"site": done_at(*each)} for each in ((1, 0), (2, members), (3, 0))))
        assert newest_good(jobs, done) == [False, True, False]


def test_a_safety_backup_is_never_the_newest_good_and_displaces_none(jobs: JobRepository) -> None:
    older, newer = add_done(jobs, *({"site": done_at(hour)} for hour in (1, 4)))
    restore = RestoreRef(restore_id=an_id(), attempt=1)
    safety = newer.replace(id=an_id(), tasks={"site": done_at(9)}, safety_for=restore)
    jobs.add(safety)
    assert newest_good(jobs, [older, newer, safety]) == [False, True, False]
    alone = safety.replace(id=an_id(), site_id=an_id())
    jobs.add(alone)
    assert newest_good(jobs, [alone]) == [False], "not even where there is no other"


def found_damaged(task: Task) -> Task:
    return task.replace(drill=Drill(state=DrillState.DAMAGED, at=NOW))


def test_a_damaged_object_is_never_the_newest_good_and_displaces_none(jobs: JobRepository) -> None:
    older, newer = add_done(
        jobs, {"site": done_at(1), "db": done_at(1)}, {"site": found_damaged(done_at(2)), "db": done_at(2)}
    )
    assert newest_good(jobs, [older, newer]) == [True, True], "each holds that of one provider"
    (alone,) = add_done(jobs, {"site": found_damaged(done_at(1))})
    assert newest_good(jobs, [alone]) == [False], "not even where there is no other"
    unread = Drill(state=DrillState.UNREAD, at=NOW)
    before, after = add_done(jobs, {"site": done_at(1)}, {"site": done_at(2).replace(drill=unread)})
    assert newest_good(jobs, [before, after]) == [False, True], "what could not be judged is not damaged"


def test_the_newest_backup_for_a_restore_has_no_damaged_object_of_what_is_restored(
    jobs: JobRepository,
) -> None:
    older, newer = add_done(
        jobs, {"site": done_at(1), "db": done_at(1)}, {"site": found_damaged(done_at(2)), "db": done_at(2)}
    )
    for job, damaged in ((older, False), (newer, True)):
        stored(jobs, job, job.replace(version=2, finished_at=NOW, damaged=damaged))

    def found(*providers: str) -> str:
        job = jobs.newest_good(older.user_id, older.site_id, NOW, providers)
        assert job is not None
        return job.id

    assert (found("site"), found("site", "db"), found()) == (older.id,) * 3
    assert found("db") == newer.id


def test_the_newest_good_object_of_a_provider_is_found_however_many_unfit_ones_came_after_it(
    jobs: JobRepository,
) -> None:
    empty, good, later_job, *others = add_done(
        jobs,
        {"site": done_at(9, 0)},
        {"site": done_at(3, 5), "db": done_at(3, 5)},
        {"site": done_at(2, 5)},
        *({"site": done_at(7)} for _ in range(5)),
    )
    user, site = good.user_id, good.site_id
    changes: list[dict[str, Any]] = [
        {"tasks": {"site": found_damaged(done_at(7))}},
        {"delete_at": NOW, "delete_cause": DeleteCause.REQUESTED},
        {"delete_at": NOW, "removing_at": NOW},
        {"safety_for": RestoreRef(restore_id=an_id(), attempt=1)},
        {"status": Status.FAILED},
    ]
    for job, change in zip(others, changes, strict=True):
        stored(jobs, job, job.replace(**change))

    def found(provider: str) -> str | None:
        job = jobs.newest_good_object(user, site, provider)
        return job.id if job else None

    assert (found("site"), found("db"), found("media")) == (good.id, good.id, None)
    for job in (good, later_job):
        stored(jobs, job, job.replace(delete_at=NOW, delete_cause=DeleteCause.REQUESTED))
    assert (found("site"), found("db")) == (empty.id, None), "better than nothing"
    assert jobs.newest_good_object(an_id(), site, "site") is None
    assert jobs.newest_good_object(user, an_id(), "site") is None


def test_damaged_backups_are_found_unless_they_are_gone_or_marked_for_deletion(jobs: JobRepository) -> None:
    first, second, marked, gone, _ = add_done(jobs, *({"site": found_damaged(done_at(n))} for n in range(5)))
    for job in (first, second):
        stored(jobs, job, job.replace(damaged=True))
    stored(jobs, marked, marked.replace(damaged=True, delete_at=NOW, delete_cause=DeleteCause.REQUESTED))
    stored(jobs, gone, gone.replace(damaged=True, status=Status.DELETED, deleted_at=NOW))
    assert sorted(jobs.damaged(10)) == [first.id, second.id]
    assert len(jobs.damaged(1)) == 1


def test_the_newest_good_costs_one_read_for_each_provider_at_most(
    mongo: Service, in_mongo: MongoJobs, database: Database[dict[str, Any]]
) -> None:
    old, new = add_done(in_mongo, *({"site": done_at(hour), "db": done_at(hour)} for hour in (1, 2)))
    finds = Finds()
    with MongoClient[dict[str, Any]](mongo.address, tz_aware=True, event_listeners=[finds]) as client:
        listened = MongoJobs(client, database.name)
        assert not listened.holds_newest_good(old)
        assert len(finds.sent) == len(old.tasks)
        assert listened.holds_newest_good(new)
        assert len(finds.sent) == len(old.tasks) + 1
