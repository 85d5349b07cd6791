"""Waiting for a change of a job: how long, how many reads it costs, and how soon a change is seen."""

import math
from dataclasses import dataclass, field
from datetime import timedelta
from typing import cast

import pytest

from sitebackup.backup.get_job import MAX_WAIT_SECONDS, POLL_SECONDS, GetDocument
from sitebackup.domain.errors import NotFound
from sitebackup.domain.job import Job
from sitebackup.domain.principal import Access
from sitebackup.ports.repositories import JobRepository
from sitebackup.ports.runtime import Clock
from tests.builders import BY_SERVICE, NOW, a_job

SEEN = 7
"""The version that the caller has."""
JOB = a_job(version=SEEN)


@dataclass
class OneJob:
    """A repository of one job, which is changed, or gone, at a time; notes its reads.

    Time passes by sleeping, or by a read that takes a while.
    """

    changed_at: float = math.inf
    gone_at: float = math.inf
    read_seconds: float = 0.0
    reads: list[str] = field(default_factory=list)
    seconds: float = 0.0
    """That have passed."""

    def clock(self) -> Clock:
        return Clock(
            now=lambda: NOW + timedelta(seconds=self.seconds),
            monotonic=lambda: self.seconds,
            sleep=self._sleep,
        )

    def _sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.seconds += seconds

    def version_for(self, access: Access, job_id: str) -> int | None:
        self.reads.append("version")
        self.seconds += self.read_seconds
        job = self._job(job_id)
        return job.version if job else None

    def get_for(self, access: Access, job_id: str) -> Job | None:
        self.reads.append("job")
        return self._job(job_id)

    def _job(self, job_id: str) -> Job | None:
        if job_id != JOB.id or self.seconds >= self.gone_at:
            return None
        return JOB.replace(version=SEEN + 1) if self.seconds >= self.changed_at else JOB


def get_job_of(repository: OneJob) -> GetDocument[Job]:
    return GetDocument(cast(JobRepository, repository), "backup", repository.clock())


def test_a_full_wait_reads_the_version_50_times_and_the_job_once() -> None:
    repository = OneJob()
    assert get_job_of(repository)(BY_SERVICE, JOB.id, wait=MAX_WAIT_SECONDS, since=SEEN) == JOB
    assert repository.reads == [*["version"] * 50, "job"]
    assert repository.seconds == MAX_WAIT_SECONDS


def test_a_longer_wait_than_an_http_api_allows_is_cut() -> None:
    repository = OneJob()
    get_job_of(repository)(BY_SERVICE, JOB.id, wait=3600, since=SEEN)
    assert repository.seconds == MAX_WAIT_SECONDS == 25


def test_the_last_pause_ends_with_the_wait_however_long_the_reads_take() -> None:
    repository = OneJob(read_seconds=0.125)
    get_job_of(repository)(BY_SERVICE, JOB.id, wait=1, since=SEEN)
    assert repository.seconds == 1.0
    assert repository.reads == ["version", "version", "job"]


@pytest.mark.parametrize("changed_at", [0.1, 0.5, 7.3, 24.4])
def test_a_change_is_seen_within_one_interval(changed_at: float) -> None:
    repository = OneJob(changed_at=changed_at)
    assert get_job_of(repository)(BY_SERVICE, JOB.id, wait=MAX_WAIT_SECONDS, since=SEEN).version == SEEN + 1
    assert changed_at <= repository.seconds <= changed_at + POLL_SECONDS


def test_a_change_in_the_last_pause_is_answered() -> None:
    repository = OneJob(changed_at=24.9)
    assert get_job_of(repository)(BY_SERVICE, JOB.id, wait=MAX_WAIT_SECONDS, since=SEEN).version == SEEN + 1


def test_a_change_since_the_version_that_was_seen_is_answered_at_once() -> None:
    repository = OneJob()
    assert get_job_of(repository)(BY_SERVICE, JOB.id, wait=MAX_WAIT_SECONDS, since=SEEN - 1) == JOB
    assert repository.reads == ["version", "job"]
    assert repository.seconds == 0


@pytest.mark.parametrize(("wait", "since"), [(MAX_WAIT_SECONDS, None), (0, None), (0, SEEN)])
def test_without_since_or_without_wait_the_answer_comes_at_once(wait: int, since: int | None) -> None:
    repository = OneJob()
    assert get_job_of(repository)(BY_SERVICE, JOB.id, wait, since) == JOB
    assert repository.reads == ["job"]
    assert repository.seconds == 0


@pytest.mark.parametrize(("wait", "since"), [(0, None), (MAX_WAIT_SECONDS, SEEN)])
def test_an_unknown_job_is_not_waited_for(wait: int, since: int | None) -> None:
    repository = OneJob()
    with pytest.raises(NotFound, match=f"There is no backup {'d' * 24}"):
        get_job_of(repository)(BY_SERVICE, "d" * 24, wait, since)
    assert repository.seconds == 0


def test_a_job_that_goes_while_it_is_waited_for_is_not_found() -> None:
    repository = OneJob(gone_at=3.0)
    with pytest.raises(NotFound):
        get_job_of(repository)(BY_SERVICE, JOB.id, wait=MAX_WAIT_SECONDS, since=SEEN)
    assert repository.seconds == 3.0
