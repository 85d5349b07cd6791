"""Waiting for a change of a job: how long, how many reads it costs, and how soon a change is seen."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import cast

import pytest

from sitebackup.adapters.repository import Repository
from sitebackup.domain.job import Job, Status, Task
from sitebackup.errors import NotFound
from sitebackup.services.get_job import MAX_WAIT_SECONDS, POLL_SECONDS, GetJob

NOW = datetime(2030, 1, 31, 12, tzinfo=UTC)
JOB = Job(
    id="c" * 24,
    user_id="a" * 24,
    site_id="b" * 24,
    status=Status.RUNNING,
    version=7,
    active=True,
    tasks={"site": Task(status=Status.RUNNING)},
    created_at=NOW,
    updated_at=NOW,
    deadline_at=NOW + timedelta(hours=6),
)


@dataclass
class Clock:
    """Time passes by sleeping, or by a read that takes a while."""

    seconds: float = 0.0

    def monotonic(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.seconds += seconds


@dataclass
class OneJob:
    """A repository of one job, which is changed, or gone, at a time; notes its reads."""

    clock: Clock
    changed_at: float = float("inf")
    gone_at: float = float("inf")
    read_seconds: float = 0.0
    reads: list[str] = field(default_factory=list)

    def version(self, job_id: str) -> int | None:
        self.reads.append("version")
        self.clock.seconds += self.read_seconds
        job = self._job(job_id)
        return job.version if job else None

    def get(self, job_id: str) -> Job | None:
        self.reads.append("job")
        return self._job(job_id)

    def _job(self, job_id: str) -> Job | None:
        if job_id != JOB.id or self.clock.seconds >= self.gone_at:
            return None
        return JOB.replace(version=8) if self.clock.seconds >= self.changed_at else JOB


def get_job_of(repository: OneJob) -> GetJob:
    clock = repository.clock
    return GetJob(cast(Repository, repository), clock.monotonic, clock.sleep)


def test_a_full_wait_reads_the_version_50_times_and_the_job_once() -> None:
    repository = OneJob(Clock())
    assert get_job_of(repository)(JOB.id, wait=25, since=7) == JOB
    assert repository.reads == [*["version"] * 50, "job"]
    assert repository.clock.seconds == 25.0


def test_no_wait_is_longer_than_an_http_api_allows() -> None:
    repository = OneJob(Clock())
    get_job_of(repository)(JOB.id, wait=3600, since=7)
    assert repository.clock.seconds == MAX_WAIT_SECONDS == 25


def test_the_last_pause_ends_with_the_wait_however_long_the_reads_take() -> None:
    repository = OneJob(Clock(), read_seconds=0.125)
    get_job_of(repository)(JOB.id, wait=1, since=7)
    assert repository.clock.seconds == 1.0
    assert repository.reads == ["version", "version", "job"]


@pytest.mark.parametrize("changed_at", [0.1, 0.5, 7.3, 24.4])
def test_a_change_is_seen_within_one_interval(changed_at: float) -> None:
    repository = OneJob(Clock(), changed_at=changed_at)
    assert get_job_of(repository)(JOB.id, wait=25, since=7).version == 8
    assert changed_at <= repository.clock.seconds <= changed_at + POLL_SECONDS


def test_a_change_in_the_last_pause_is_answered() -> None:
    repository = OneJob(Clock(), changed_at=24.9)
    assert get_job_of(repository)(JOB.id, wait=25, since=7).version == 8


def test_a_change_that_came_before_is_answered_at_once() -> None:
    repository = OneJob(Clock())
    assert get_job_of(repository)(JOB.id, wait=25, since=6) == JOB
    assert repository.reads == ["version", "job"]
    assert repository.clock.seconds == 0


@pytest.mark.parametrize(("wait", "since"), [(25, None), (0, None), (0, 7)])
def test_without_since_or_without_wait_the_answer_comes_at_once(wait: int, since: int | None) -> None:
    repository = OneJob(Clock())
    assert get_job_of(repository)(JOB.id, wait, since) == JOB
    assert repository.reads == ["job"]
    assert repository.clock.seconds == 0


@pytest.mark.parametrize(("wait", "since"), [(0, None), (25, 7)])
def test_an_unknown_job_is_not_waited_for(wait: int, since: int | None) -> None:
    repository = OneJob(Clock())
    with pytest.raises(NotFound, match=f"There is no backup {'d' * 24}"):
        get_job_of(repository)("d" * 24, wait, since)
    assert repository.clock.seconds == 0


def test_a_record_that_goes_while_it_is_waited_for_is_not_found() -> None:
    repository = OneJob(Clock(), gone_at=3.0)
    with pytest.raises(NotFound):
        get_job_of(repository)(JOB.id, wait=25, since=7)
    assert repository.clock.seconds == 3.0
