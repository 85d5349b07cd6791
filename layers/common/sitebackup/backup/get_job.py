"""Reads jobs; can wait for a change instead of being polled."""

from collections.abc import Mapping
from dataclasses import dataclass

from ..domain.errors import NotFound
from ..domain.job import Job
from ..ports import Clock, JobRepository

POLL_SECONDS = 0.5
"""Each look costs one read of one field by `_id`."""
MAX_WAIT_SECONDS = 25
"""HTTP APIs cut a request at 30 s."""


@dataclass(frozen=True)
class GetJob:
    """One job, or a page of them."""

    jobs: JobRepository
    clock: Clock

    def __call__(self, job_id: str, wait: int = 0, since: int | None = None) -> Job:
        """The job, as soon as its version is past `since` or `wait` seconds are over.

        Raises NotFound or RepositoryUnavailable.
        """
        end = self.clock.monotonic() + min(wait, MAX_WAIT_SECONDS)
        if since is not None:
            while self.clock.monotonic() < end:
                version = self.jobs.version(job_id)
                if version is None or version > since:
                    break
                self.clock.sleep(min(POLL_SECONDS, max(end - self.clock.monotonic(), 0)))
        job = self.jobs.get(job_id)
        if job is None:
            raise NotFound(f"There is no backup {job_id}.")
        return job

    def page(
        self, filters: Mapping[str, str | None], limit: int, before: str | None
    ) -> tuple[list[Job], str | None]:
        """Newest first, and the cursor of the next page; a filter that is None does not count.

        Raises RepositoryUnavailable.
        """
        asked = {name: value for name, value in filters.items() if value is not None}
        jobs = self.jobs.page(asked, limit + 1, before)
        return jobs[:limit], jobs[limit - 1].id if len(jobs) > limit else None
