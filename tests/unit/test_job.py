"""What a job tells of itself."""

from datetime import datetime, timedelta

import pytest

from sitebackup.domain.job import Job, Status, Task
from tests.builders import NOW, a_job

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
