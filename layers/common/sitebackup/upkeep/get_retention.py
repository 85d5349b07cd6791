"""The dry run of retention: what would be kept or removed of a site's backups now, and why."""

from dataclasses import dataclass

from ..backup.recorder import JobStore
from ..domain.change import Moment
from ..domain.job import Job
from ..domain.principal import Access
from ..domain.retention import Decision, decide, depends_on_newest
from ..ports.repositories import JobRepository


def decide_at(job: Job, moment: Moment, jobs: JobRepository) -> Decision:
    """What is to be done with the job then; reads about other jobs only if that matters."""
    now, policy = moment
    newest = depends_on_newest(job, now, policy) and jobs.holds_newest_good(job)
    return decide(job, newest, now, policy)


@dataclass(frozen=True)
class GetRetention:
    """The same decision that the clean-up carries out."""

    store: JobStore

    def __call__(
        self, access: Access, user_id: str | None, site_id: str, limit: int, before: str | None
    ) -> tuple[list[tuple[Job, Decision]], str | None]:
        """A page of the site's jobs, newest first, each with its decision; and the cursor of the next page.

        Raises NotYourUser, BadRequest if a service names no user, or RepositoryUnavailable.
        """
        site = {"userId": access.one_user(user_id), "siteId": site_id}
        jobs = self.store.jobs.page_for(access, site, limit + 1, before)
        moment = self.store.moment()
        decisions = [(job, decide_at(job, moment, self.store.jobs)) for job in jobs[:limit]]
        return decisions, jobs[limit - 1].id if len(jobs) > limit else None
