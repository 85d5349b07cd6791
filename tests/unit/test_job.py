"""What a job tells of itself."""

from datetime import datetime, timedelta

import pytest

from sitebackup.domain.job import Job, Status, Task
from tests.builders import NOW, a_job
from tests.unit.jobs import DB, SITE, new_job

SOON, LATER = NOW + timedelta(minutes=1), NOW + timedelta(minutes=2)
DEADLINE = NOW + timedelta(hours=6)


def a_task(check_at: datetime | None, status: Status = Status.RUNNING) -> Task:
    return Task(status=status, stalls_at=check_at, next_check_at=check_at)


@pytest.mark.parametrize(
    ("job", "check_at"),
    [
        (a_job(tasks={"site": a_task(LATER), "db": a_task(SOON)}), SOON),
        (a_job(tasks={"site": a_task(LATER), "db": a_task(SOON, Status.DONE)}), LATER),
        (a_job(tasks={"site": a_task(DEADLINE + timedelta(seconds=1))}), DEADLINE),
        (a_job(tasks={"site": a_task(None, Status.DONE)}), DEADLINE),
        (a_job(tasks={"site": a_task(None, Status.DONE)}, sealed_at=NOW, finish_check_at=LATER), LATER),
        (a_job(tasks={"site": a_task(SOON)}, status=Status.DONE), None),
    ],
)
def test_a_job_is_stored_with_the_earliest_time_at_which_the_sweep_must_look(
    job: Job, check_at: datetime | None
) -> None:
    assert job.with_next_check() == job.replace(next_check_at=check_at)


def test_what_concerns_a_task_concerns_it_only_in_its_attempt_and_until_it_or_its_job_has_ended() -> None:
    job = new_job(1)
    assert job.live_task(SITE) == job.tasks["site"]
    done = {"site": job.tasks["site"].replace(status=Status.DONE)}
    assert job.live_task(DB) is None
    assert job.replace(attempt=2).live_task(SITE) is None
    assert job.replace(status=Status.CANCELLED).live_task(SITE) is None
    assert job.replace(tasks=done).live_task(SITE) is None
