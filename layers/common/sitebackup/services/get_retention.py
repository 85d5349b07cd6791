"""The dry run of retention: what would be kept or removed of a site's backups now, and why."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from ..adapters.repository import Repository
from ..domain.job import Job, Status
from ..domain.policy import Policy
from ..domain.retention import Decision, decide


@dataclass(frozen=True)
class GetRetention:
    """The same decision that the sweep carries out."""

    repository: Repository
    policy: Policy
    now: Callable[[], datetime]

    def __call__(
        self, site_id: str, limit: int, before: str | None
    ) -> tuple[list[tuple[Job, Decision]], str | None]:
        """A page of the site's jobs, newest first, each with its decision; and the cursor of the next page.

        Raises RepositoryUnavailable.
        """
        jobs = self.repository.page({"siteId": site_id}, limit + 1, before)
        now = self.now()
        newest = {
            user_id: self.repository.newest_good(user_id, site_id)
            for user_id in {job.user_id for job in jobs if job.status is Status.DONE}
        }
        decisions = [(job, decide(job, newest.get(job.user_id), now, self.policy)) for job in jobs[:limit]]
        return decisions, jobs[limit - 1].id if len(jobs) > limit else None
