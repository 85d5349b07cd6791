"""The jobs and moments that tests of the domain begin with."""

from datetime import datetime
from typing import Any

from sitebackup.domain.change import Change, Moment
from sitebackup.domain.job import Job, StoredObject, Upload
from sitebackup.domain.lifecycle import begin
from sitebackup.domain.plan import MIN_PART_SIZE, plan_parts
from sitebackup.domain.policy import Policy
from sitebackup.domain.task_ref import TaskRef
from sitebackup.domain.transitions import runs
from tests.builders import NOW, a_job

START = NOW
WINDOW = 3
POLICY = Policy(parts_in_flight=WINDOW)
MOMENT = Moment(START, POLICY)
JOB_ID = "c" * 24
PROVIDERS = ["site", "db", "mail"]
SITE = TaskRef(job_id=JOB_ID, attempt=1, provider="site")
DB = TaskRef(job_id=JOB_ID, attempt=1, provider="db")
ME, OTHER = "me", "another run"
"""Owners of leases."""
UPLOAD_ID = "u1"
FIVE_PARTS = plan_parts(5 * MIN_PART_SIZE, MIN_PART_SIZE, '"1"')


def at(now: datetime) -> Moment:
    """Then, under the policy of these tests."""
    return Moment(now, POLICY)


def pending_job() -> Job:
    """Without tasks yet, as `begin` is given it."""
    return a_job(id=JOB_ID, tasks={}, deadline_at=MOMENT.in_seconds(POLICY.attempt_seconds))


def new_job(tasks: int) -> Job:
    """Nobody has begun any of its tasks."""
    return begin(pending_job(), MOMENT, PROVIDERS[:tasks]).job


def stored(size: int) -> StoredObject:
    """A verified object."""
    return StoredObject(bucket="b", key="k", size=size, checksum_crc64nvme="AAAAAAAAAAA=", version_id="v")


def changed(change: Change | None) -> Job:
    """The job that a transition leaves, which must not be nothing."""
    assert change is not None
    return change.job


def started(tasks: int = 2, **changes: Any) -> Job:
    """This run has the export of `site` open; `changes` are made to that task."""
    job = changed(runs.start_task(new_job(tasks), MOMENT, SITE, 0, ME))
    return job.replace(tasks={**job.tasks, "site": job.tasks["site"].replace(**changes)})


def planned(tasks: int = 2, **changes: Any) -> Job:
    """This run has planned the export of `site` in five parts, and a window of them is handed out."""
    upload = Upload(upload_id=UPLOAD_ID, plan=FIVE_PARTS, attempt=1, dispatched=WINDOW, window=WINDOW)
    return changed(runs.adopt_upload(started(tasks, **changes), MOMENT, SITE, ME, upload))


def streaming(**changes: Any) -> Job:
    """This run reads the export of `site` as a stream, into an upload of its own."""
    job = changed(runs.begin_stream(started(**changes), MOMENT, SITE, ME))
    return changed(runs.adopt_upload(job, MOMENT, SITE, ME, Upload(upload_id=UPLOAD_ID, attempt=1)))
