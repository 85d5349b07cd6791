"""A batch of parts asks for its jobs once, and again once a cancel may have come."""

from datetime import UTC, datetime

from sitebackup.backup.upload_part import RecentJobs
from sitebackup.domain.job import Job
from sitebackup.transfer.readers import LOOK_EVERY
from tests.fakes.clock import ManualClock
from tests.fakes.jobs import MemoryJobs

NOW = datetime(2030, 1, 31, 12, tzinfo=UTC)


class CountedReads(MemoryJobs):
    """Notes which jobs are read."""

    def __init__(self) -> None:
        super().__init__()
        self.read: list[str] = []

    def get(self, job_id: str) -> Job | None:
        self.read.append(job_id)
        return super().get(job_id)


def test_a_batch_reads_each_job_once_until_a_cancel_may_have_come() -> None:
    repository, clock = CountedReads(), ManualClock(NOW)
    jobs = RecentJobs(repository, clock.as_port().now)
    for job_id in ("a", "a", "b", "a", "b"):
        jobs.get(job_id)
    assert repository.read == ["a", "b"]
    clock.advance(LOOK_EVERY)
    jobs.get("a")
    assert repository.read == ["a", "b", "a"]
