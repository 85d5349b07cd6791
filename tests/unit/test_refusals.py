"""What is asked of a job in the wrong state is refused with a sentence that is true of it."""

from datetime import datetime, timedelta
from functools import partial

import pytest

from sitebackup.backup.change_job import ChangeJob
from sitebackup.backup.create_job import CreateBackup, CreateJob
from sitebackup.backup.quotas import Quotas
from sitebackup.backup.recorder import Recorder
from sitebackup.domain.errors import ActiveJob, NotFound, StateForbids, TooLate
from sitebackup.domain.job import DeleteCause, Status
from sitebackup.domain.policy import Policy
from sitebackup.domain.principal import Scope, User
from sitebackup.domain.restore import Restore
from sitebackup.domain.schedule import Schedule
from sitebackup.schedules.run_schedule import RunSchedule
from tests.builders import BY_SERVICE, NOW, a_job, a_restore, an_id
from tests.fakes.bus import MemoryBus
from tests.fakes.jobs import MemoryJobs, MemoryRestores
from tests.fakes.quotas import MemoryQuotas
from tests.fakes.schedules import MemorySchedules

ID = "a" * 24
MARKED = {"delete_at": NOW, "delete_cause": DeleteCause.REQUESTED}
REFUSALS: list[tuple[str, Status, dict[str, object], str]] = [
    *[("retry", status, {}, f"it is {status}") for status in (Status.PENDING, Status.RUNNING, Status.DONE)],
    ("retry", Status.DONE, MARKED, "it is done"),
    ("retry", Status.FAILED, MARKED, "it is marked for deletion; undelete it first"),
    ("retry", Status.CANCELLED, MARKED | {"removing_at": NOW}, "its data is being removed"),
    ("retry", Status.DELETED, MARKED, "its data is gone"),
    (
        "retry",
        Status.FAILED,
        {"cleaning_at": NOW},
        "the remains of its last attempt are being removed right now; try again in some minutes",
    ),
    *[("cancel", status, {}, f"it is {status}") for status in (Status.DONE, Status.FAILED, Status.CANCELLED)],
    ("cancel", Status.DELETED, MARKED, "its data is gone"),
    *[
        ("delete", status, {}, f"it is {status}; cancel it first")
        for status in (Status.PENDING, Status.RUNNING)
    ],
    ("delete", Status.DONE, MARKED | {"removing_at": NOW}, "its data is being removed"),
    ("delete", Status.DELETED, MARKED, "its data is gone"),
    *[
        ("undelete", status, {}, "it is not marked for deletion")
        for status in Status
        if status is not Status.DELETED
    ],
    ("undelete", Status.FAILED, MARKED | {"removing_at": NOW}, "its data is being removed"),
    ("undelete", Status.DELETED, MARKED, "its data is gone"),
]
DONE = {"retry": "retried", "cancel": "cancelled", "delete": "deleted", "undelete": "undeleted"}


def holding(status: Status, **changes: object) -> MemoryJobs:
    """One job in this state."""
    jobs = MemoryJobs()
    jobs.put(a_job(id=ID, status=status, **changes))
    return jobs


def changing(jobs: MemoryJobs) -> ChangeJob:
    return ChangeJob(recording(jobs), without_limits(jobs))


def creating(jobs: MemoryJobs) -> CreateJob:
    return CreateJob(recording(jobs), without_limits(jobs), {}, an_id)


def recording(jobs: MemoryJobs) -> Recorder:
    return Recorder(jobs, Policy(), lambda: NOW, MemoryBus())


def without_limits(jobs: MemoryJobs) -> Quotas:
    return Quotas(MemoryQuotas(jobs, MemoryRestores(jobs), MemorySchedules()), Policy(), lambda: NOW)


def ask(jobs: MemoryJobs, what: str) -> None:
    change_job = changing(jobs)
    if what == "delete":
        change_job.delete(BY_SERVICE, ID, None)
    else:
        getattr(change_job, what)(BY_SERVICE, ID)


@pytest.mark.parametrize(
    ("what", "status", "changes", "why"), REFUSALS, ids=lambda value: value if isinstance(value, str) else ""
)
def test_a_change_that_the_state_forbids_is_refused_with_what_forbids_it(
    what: str, status: Status, changes: dict[str, object], why: str
) -> None:
    jobs = holding(status, **changes)
    with pytest.raises(StateForbids) as raised:
        ask(jobs, what)
    assert str(raised.value) == f"Backup {ID} can't be {DONE[what]}: {why}."
    assert raised.value.members == {"jobId": ID}


@pytest.mark.parametrize("what", DONE)
def test_a_change_of_an_unknown_backup_is_not_found(what: str) -> None:
    with pytest.raises(NotFound, match=f"^There is no backup {ID}.$"):
        ask(MemoryJobs(), what)


def test_a_cancel_of_a_backup_whose_tasks_are_all_done_is_too_late() -> None:
    with pytest.raises(TooLate, match=r"^Everything is backed up; ") as raised:
        ask(holding(Status.RUNNING, sealed_at=NOW), "cancel")
    assert raised.value.members == {"jobId": ID}


DAY = timedelta(days=1)
EXPIRED = {"delete_at": NOW - DAY, "delete_cause": DeleteCause.EXPIRED}


def marked_at(at: datetime) -> dict[str, object]:
    return {"delete_at": at, "delete_cause": DeleteCause.REQUESTED}


@pytest.mark.parametrize(
    ("mark", "asked"), [(marked_at(NOW - DAY), NOW), (marked_at(NOW), NOW + DAY), (EXPIRED, NOW + DAY)]
)
def test_a_deletion_is_not_put_off_by_whoever_may_delete(mark: dict[str, object], asked: datetime) -> None:
    """That would be an undelete, which takes another scope."""
    jobs = holding(Status.DONE, **mark)
    before = jobs.get(ID)
    change_job = changing(jobs)
    with pytest.raises(StateForbids, match="later than it is marked for; undelete it first"):
        change_job.delete(BY_SERVICE, ID, asked)
    assert jobs.get(ID) == before


@pytest.mark.parametrize(
    ("mark", "asked", "deleted_at"),
    [
        (marked_at(NOW - DAY), None, NOW - DAY),
        (marked_at(NOW + DAY), NOW + DAY, NOW + DAY),
        (marked_at(NOW + 2 * DAY), NOW + DAY, NOW + DAY),
        (marked_at(NOW + DAY), None, NOW),
        (EXPIRED, None, NOW),
        (EXPIRED, NOW, NOW),
    ],
)
def test_the_earliest_time_that_was_asked_for_holds(
    mark: dict[str, object], asked: datetime | None, deleted_at: datetime
) -> None:
    change_job = changing(holding(Status.DONE, **mark))
    deleted = change_job.delete(BY_SERVICE, ID, asked)
    assert (deleted.delete_at, deleted.delete_cause) == (deleted_at, DeleteCause.REQUESTED)


def test_a_restore_that_concerns_a_site_out_of_reach_is_in_the_way_but_not_named() -> None:
    jobs = MemoryJobs()
    restores = MemoryRestores(jobs)
    restore, job = a_restore(), a_job(status=Status.FAILED)
    from_elsewhere = a_restore(user_id=job.user_id, site_id=job.site_id)
    for active in (restore, from_elsewhere):
        restores.add(active)
    jobs.put(job)
    create_job = creating(jobs)

    def refused(one: Restore, *sites: str) -> ActiveJob:
        """What a token for these sites, or for all, is told that asks for a backup, or a retry of one."""
        access = User(one.user_id, frozenset(sites) or None, frozenset(Scope)).may(Scope.WRITE)
        request = CreateBackup(user_id=one.user_id, site_id=one.site_id)
        ask = (
            partial(create_job, access, request, None)
            if one is restore
            else partial(changing(jobs).retry, access, job.id)
        )
        with pytest.raises(ActiveJob) as raised:
            ask()
        return raised.value

    for one in (restore, from_elsewhere):
        assert refused(one).members == {"restoreId": one.id}
        assert refused(one, one.site_id, one.source_site_id).members == {"restoreId": one.id}
        error = refused(one, one.site_id)
        assert (str(error), error.members) == ("A restore of this site is still pending.", {})


def test_a_schedule_does_not_name_what_not_everybody_may_know_who_sees_it() -> None:
    """Its `lastError` is shown to whoever may reach the site."""
    jobs, schedules = MemoryJobs(), MemorySchedules()
    restore = a_restore()
    MemoryRestores(jobs).add(restore)
    schedules.add(
        Schedule(
            site_id=restore.site_id,
            user_id=restore.user_id,
            cron="daily",
            expires_after_days=60,
            version=1,
            created_at=NOW,
            updated_at=NOW,
            next_tick=NOW,
            next_run_at=NOW,
        )
    )
    create_job = creating(jobs)
    RunSchedule(schedules, create_job, timedelta(0), lambda: NOW)(NOW + DAY)
    (schedule,) = schedules.page_for(BY_SERVICE, None, 9, None)
    assert schedule.last_error == "Skipped: A restore of this site is still pending."
