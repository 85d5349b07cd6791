"""The dry run of retention: what would be kept or removed of a site's backups now, and why."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from ..adapters.repository import Repository
from ..domain.job import Job
from ..domain.policy import Policy
from ..domain.retention import Decision, decide, depends_on_newest


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
        decisions = []
        for job in jobs[:limit]:
            newest = depends_on_newest(job, now, self.policy) and self.repository.holds_newest_good(job)
            decisions.append((job, decide(job, newest, now, self.policy)))
        return decisions, jobs[limit - 1].id if len(jobs) > limit else None
