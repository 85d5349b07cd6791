"""How much of what is stored is proven to open."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from ..domain.errors import NotFound
from ..domain.policy import Policy
from ..domain.site import Coverage, Day, Site
from ..ports import SiteRepository


@dataclass(frozen=True)
class Report:
    """As the last run has counted it, and what was done within a day."""

    within_days: int
    coverage: Coverage
    day: Day


@dataclass(frozen=True)
class GetDrills:
    """Both raise RepositoryUnavailable."""

    sites: SiteRepository
    policy: Policy
    now: Callable[[], datetime]

    def __call__(self) -> Report:
        """Of all sites."""
        return Report(self.policy.drill_days, self.sites.ledger().coverage, self.sites.day(self.now()))

    def of_site(self, user_id: str, site_id: str) -> Site:
        """Of one. Raises NotFound if it never had a backup, or has none any more."""
        site = self.sites.get(user_id, site_id)
        if site is None:
            raise NotFound(f"Site {site_id} of user {user_id} has no backup.")
        return site
