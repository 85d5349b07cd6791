"""A batch of parts asks for its jobs once, and again once a cancel may have come."""

from datetime import UTC, datetime
from typing import cast

from sitebackup.adapters.repository import Repository
from sitebackup.domain.job import Job
from sitebackup.services.sources import LOOK_EVERY
from sitebackup.services.upload_part import RecentJobs

NOW = datetime(2030, 1, 31, 12, tzinfo=UTC)


class CountedReads:
    def __init__(self) -> None:
        self.read: list[str] = []

    def get(self, job_id: str) -> Job | None:
        self.read.append(job_id)
        return None


def test_each_job_is_read_once_in_a_while() -> None:
    repository, clock = CountedReads(), [NOW]
    jobs = RecentJobs(cast(Repository, repository), lambda: clock[0])
    for job_id in ("a", "a", "b", "a", "b"):
        jobs.get(job_id)
    assert repository.read == ["a", "b"]
    clock[0] += LOOK_EVERY
    jobs.get("a")
    assert repository.read == ["a", "b", "a"]
