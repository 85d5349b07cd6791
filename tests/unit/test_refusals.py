"""What is asked of a job in the wrong state is refused with a sentence that is true of it."""

from datetime import UTC, datetime, timedelta

import pytest

from sitebackup.domain.job import DeleteCause, Job, Status, Task
from sitebackup.domain.policy import Policy
from sitebackup.errors import NotFound, StateForbids
from sitebackup.services.change_job import ChangeJob
from tests.unit.twins import MemoryBus, MemoryRepository

NOW = datetime(2026, 5, 5, tzinfo=UTC)
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
        {"upload_released_at": NOW},
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


def asked(repository: MemoryRepository, what: str) -> None:
    change_job = ChangeJob(repository=repository, bus=MemoryBus(), policy=Policy(), now=lambda: NOW)
    if what == "delete":
        change_job.delete(ID, None)
    else:
        getattr(change_job, what)(ID)


@pytest.mark.parametrize(
    ("what", "status", "changes", "why"), REFUSALS, ids=lambda value: value if isinstance(value, str) else ""
)
def test_a_refusal_says_what_forbids_it(
    what: str, status: Status, changes: dict[str, object], why: str
) -> None:
    repository = MemoryRepository()
    job = Job(
        id=ID,
        user_id=ID,
        site_id=ID,
        status=status,
        version=1,
        tasks={"site": Task()},
        created_at=NOW,
        updated_at=NOW,
        deadline_at=NOW + timedelta(hours=6),
    )
    repository.add(job.replace(**changes))
    with pytest.raises(StateForbids) as raised:
        asked(repository, what)
    assert str(raised.value) == f"Backup {ID} can't be {DONE[what]}: {why}."
    assert raised.value.members == {"jobId": ID}


@pytest.mark.parametrize("what", DONE)
def test_a_backup_that_is_not_there_is_not_found(what: str) -> None:
    with pytest.raises(NotFound, match=f"^There is no backup {ID}.$"):
        asked(MemoryRepository(), what)
