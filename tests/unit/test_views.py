"""What the API shows of a job."""

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sitebackup.domain.job import (
    DeleteCause,
    Job,
    LastError,
    Lease,
    Status,
    StoredObject,
    Task,
    TaskWarning,
    Upload,
)
from sitebackup.domain.plan import MIN_PART_SIZE, plan_parts
from sitebackup.domain.progress import Progress
from sitebackup.domain.reason import Code, Reason
from sitebackup.entrypoints.views import job_view
from tests.builders import a_job

JOB_ID = "c" * 24
NOW = datetime(2030, 1, 31, 12, 0, 0, 5000, tzinfo=UTC)
PLAN = plan_parts(4 * MIN_PART_SIZE, MIN_PART_SIZE, '"1"')
PENDING = Task()
RUNNING = Task(
    status=Status.RUNNING,
    upload=Upload(upload_id="secret-upload", plan=PLAN, attempt=1, dispatched=3),
    progress=Progress(parts=1, bytes=MIN_PART_SIZE),
    lease=Lease(owner="secret-owner", until=NOW),
)
DONE = Task(
    status=Status.DONE,
    progress=Progress(parts=2, bytes=1000),
    object=StoredObject(bucket="b", key="k", size=1000, checksum_crc64nvme="AAAAAAAAAAA=", version_id="v"),
    finished_at=NOW,
)


def job_with(**changes: Any) -> Job:
    """A running job of one task, but for the changes."""
    fields: dict[str, Any] = {
        "id": JOB_ID,
        "status": Status.RUNNING,
        "version": 7,
        "tasks": {"site": RUNNING},
        "created_at": NOW,
        "updated_at": NOW,
        "deadline_at": NOW + timedelta(hours=6),
        "idempotency_key": "secret-key",
    }
    return a_job(**fields | changes)


def shown(job: Job, now: datetime = NOW) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(msgspec.json.encode(job_view(job, now)))
    return document


def test_a_running_job_shows_its_progress_and_times_and_nothing_internal() -> None:
    view = shown(job_with())
    assert (
        view["tasks"]["site"]["progress"]
        == view["progress"]
        == {
            "bytesDone": MIN_PART_SIZE,
            "bytesTotal": 4 * MIN_PART_SIZE,
            "partsDone": 1,
            "partsTotal": 4,
            "percent": 25.0,
        }
    )
    assert (view["jobId"], view["status"], view["version"]) == (JOB_ID, "running", 7)
    assert (view["createdAt"], view["deadlineAt"]) == ("2030-01-31T12:00:00.005Z", "2030-01-31T18:00:00.005Z")
    assert "secret" not in json.dumps(view), "what is nobody's business is shown"


def test_totals_are_shown_once_every_task_knows_its_own() -> None:
    view = shown(job_with(tasks={"site": RUNNING, "db": PENDING}))
    assert view["progress"] == {"bytesDone": MIN_PART_SIZE, "partsDone": 1}
    assert view["tasks"]["db"] == {"status": "pending", "progress": {"bytesDone": 0, "partsDone": 0}}


def test_a_done_task_shows_its_object_until_that_is_deleted() -> None:
    done = job_with(status=Status.DONE, tasks={"site": DONE}, finished_at=NOW)
    view = shown(done)
    assert view["tasks"]["site"]["object"] == {
        "bucket": "b",
        "key": "k",
        "size": 1000,
        "checksumCRC64NVME": "AAAAAAAAAAA=",
        "versionId": "v",
    }
    assert view["progress"] == {
        "bytesDone": 1000, "bytesTotal": 1000, "partsDone": 2, "partsTotal": 2, "percent": 100,
    }  # fmt: skip
    assert "deadlineAt" not in view
    deleted = done.replace(
        status=Status.DELETED, delete_at=NOW, delete_cause=DeleteCause.EXPIRED, deleted_at=NOW
    )
    view = shown(deleted)
    assert "object" not in view["tasks"]["site"]
    assert (view["deleteCause"], view["deletedAt"]) == ("expired", "2030-01-31T12:00:00.005Z")


def test_a_failed_task_shows_its_reason_its_retries_and_its_last_error() -> None:
    reason = Reason(code=Code.RETRIES_EXHAUSTED, message="Given up.")
    task = RUNNING.replace(
        status=Status.FAILED,
        reason=reason,
        last_error=LastError(message="site answered 503.", at=NOW, count=4),
    )
    view = shown(job_with(status=Status.FAILED, reason=reason, tasks={"site": task}))
    assert view["reason"] == view["tasks"]["site"]["reason"]
    assert view["reason"] == {"code": "retries_exhausted", "message": "Given up."}
    assert view["tasks"]["site"]["retries"] == 4
    assert view["tasks"]["site"]["lastError"] == {
        "message": "site answered 503.",
        "at": "2030-01-31T12:00:00.005Z",
    }


def test_a_task_that_shrank_shows_its_warning_even_when_its_data_is_gone() -> None:
    task = DONE.replace(warning=TaskWarning(code="shrunk", message="12 bytes."))
    done = job_with(status=Status.DONE, tasks={"site": task, "db": DONE}, finished_at=NOW)
    for job in (done, done.replace(status=Status.DELETED, deleted_at=NOW)):
        view = shown(job)["tasks"]
        assert view["site"]["warning"] == {"code": "shrunk", "message": "12 bytes."}
        assert "warning" not in view["db"]


def test_the_next_try_is_shown_until_it_has_come() -> None:
    next_try = NOW + timedelta(seconds=9)
    job = job_with(tasks={"site": RUNNING.replace(next_try_at=next_try)})
    assert shown(job)["tasks"]["site"]["nextTryAt"] == "2030-01-31T12:00:09.005Z"
    assert "nextTryAt" not in shown(job, next_try)["tasks"]["site"]


@pytest.mark.parametrize("size", [0, 1, 1000])
def test_100_percent_is_shown_only_of_what_is_done(size: int) -> None:
    stored = DONE.object
    assert stored is not None
    done = DONE.replace(object=stored.replace(size=size), progress=Progress(parts=1, bytes=size))
    assert shown(job_with(tasks={"site": done}))["progress"]["percent"] == 100
    moved = RUNNING.replace(progress=Progress(parts=4, bytes=PLAN.size))
    assert shown(job_with(tasks={"site": moved, "db": done}))["progress"]["percent"] == 99.9


@given(done=st.integers(0, PLAN.size))
def test_the_percentage_of_a_running_task_is_between_0_and_99_9(done: int) -> None:
    task = RUNNING.replace(progress=Progress(parts=1, bytes=done))
    assert 0 <= shown(job_with(tasks={"site": task}))["progress"]["percent"] <= 99.9


def test_times_are_shown_in_utc_with_milliseconds() -> None:
    zone = timezone(timedelta(hours=2))
    assert (
        shown(job_with(created_at=datetime(2030, 1, 31, 14, tzinfo=zone)))["createdAt"]
        == "2030-01-31T12:00:00.000Z"
    )
