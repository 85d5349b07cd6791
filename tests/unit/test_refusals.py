"""What is asked of a job in the wrong state is refused with a sentence that is true of it."""

import pytest

from sitebackup.backup.change_job import ChangeJob
from sitebackup.backup.quotas import Quotas
from sitebackup.backup.recorder import Recorder
from sitebackup.domain.errors import NotFound, StateForbids, TooLate
from sitebackup.domain.job import DeleteCause, Status
from sitebackup.domain.policy import Policy
from tests.builders import BY_SERVICE, NOW, a_job
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


def ask(jobs: MemoryJobs, what: str) -> None:
    quotas = MemoryQuotas(jobs, MemoryRestores(jobs), MemorySchedules())
    recorder = Recorder(jobs, Policy(), lambda: NOW, MemoryBus())
    change_job = ChangeJob(recorder, Quotas(quotas, Policy(), lambda: NOW))
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
