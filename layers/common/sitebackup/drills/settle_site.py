"""What a site's backups prove, worked out from the backups themselves and stored for the site."""

from dataclasses import dataclass
from typing import NamedTuple

from ..domain.drilling import Newest, newest_good, opened_at
from ..domain.job import Job, Status
from ..domain.site import Site
from ..ports.repositories import JobRepository, SiteRepository

BACKUPS_READ = 50
"""So many of the site's last done backups are looked through: not each of them has each provider.

If none of so many has a good object of a provider that is in them, older ones are asked for.
"""


class Settled(NamedTuple):
    """A site as it is stored now, and its newest good backups by provider."""

    site: Site
    newest: dict[str, Newest]


@dataclass(frozen=True)
class SettleSite:
    """Safe to repeat: nothing of it is known from the calls before."""

    sites: SiteRepository
    jobs: JobRepository

    def __call__(self, site: Site) -> Settled:
        """Stores since when the site is proven. Raises RepositoryUnavailable.

        If others changed the site meanwhile nothing is stored: the next run looks at it again.
        """
        jobs = self._done_jobs(site.user_id, site.site_id)
        newest = newest_good(jobs)
        opened = opened_at(jobs, newest)
        settled = site.verified(opened[0], unread=opened[1]) if opened else site
        if settled is not site and self.sites.replace(site, settled):
            site = settled.replace(version=site.version + 1)
        return Settled(site, newest)

    def newest(self, job: Job) -> dict[str, Newest]:
        """The newest good backups of the job's site, by provider. Raises RepositoryUnavailable."""
        return newest_good(self._done_jobs(job.user_id, job.site_id))

    def _done_jobs(self, user_id: str, site_id: str) -> list[Job]:
        """The last ones, and of each of their providers the one that holds the newest good object."""
        site = {"userId": user_id, "siteId": site_id}
        jobs = self.jobs.page({**site, "status": Status.DONE}, BACKUPS_READ, None)
        if len(jobs) < BACKUPS_READ:
            return jobs
        newest = newest_good(jobs)
        found = {job.id: job for job in jobs}
        for provider in {name for job in jobs for name in job.tasks}:
            if provider not in newest or newest[provider].is_empty:
                older = self.jobs.newest_good_object(user_id, site_id, provider)
                if older is not None:
                    found.setdefault(older.id, older)
        return list(found.values())
