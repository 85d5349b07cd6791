"""How much of what is stored is proven to open."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from ..domain.errors import NotFound
from ..domain.policy import Policy
from ..domain.principal import Access
from ..domain.site import Coverage, Day, Site
from ..ports.repositories import SiteRepository


@dataclass(frozen=True)
class Report:
    """As the last run has counted it, and what was done within a day."""

    within_days: int
    coverage: Coverage
    day: Day


@dataclass(frozen=True)
class GetDrills:
    """Each raises RepositoryUnavailable."""

    sites: SiteRepository
    policy: Policy
    now: Callable[[], datetime]

    def __call__(self) -> Report:
        """Of all sites."""
        return Report(self.policy.drill_days, self.sites.ledger().coverage, self.sites.day(self.now()))

    def of_site(self, access: Access, user_id: str, site_id: str) -> Site:
        """Of one. Raises NotYourUser, or NotFound if it is out of reach, never had a backup, or has none any more."""
        access.check(user_id, site_id)
        site = self.sites.get(user_id, site_id)
        if site is None:
            raise NotFound(f"There is no site {site_id}.")
        return site
