"""Chooses whose backups are opened next: the longest unproven first, within a budget."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from ..backup.recorder import MAX_CONFLICTS, Recorder
from ..domain import drilling
from ..domain.drill import DrillState
from ..domain.drilling import Newest
from ..domain.errors import Conflict
from ..domain.job import Task
from ..domain.site import (
    FORGOTTEN_AFTER,
    Ledger,
    Site,
    due_before,
    look_again_at,
    overdue_before,
    refill,
)
from ..ports.repositories import SiteRepository
from ..telemetry import count, logger
from .settle_site import SettleSite

PAGE = 100
MAX_DAMAGED = 1000
"""The figure of damaged backups goes no higher: by then it does not matter how many more there are."""
NAMED = 10
"""Of the damaged backups, in the log."""


@dataclass(frozen=True)
class RunDrills:
    """One pass over the sites that are due. Several at once share them and the budget."""

    recorder: Recorder
    settle: SettleSite
    sites: SiteRepository

    def __call__(self, deadline: datetime) -> int:
        """How many sites were chosen before none was due, the budget was used up, or the time was up.

        Raises RepositoryUnavailable or Conflict.
        """
        policy, now = self.recorder.policy, self.recorder.now
        self._count_damaged()
        if not policy.drill_gib_per_day:
            return 0
        chosen, left = 0, self._spend(0)
        while left > 0 and now() < deadline:
            page = self.sites.due(due_before(now(), policy), now(), PAGE)
            for site in page:
                if left <= 0 or now() >= deadline:
                    break
                if size := self._claim_and_begin(site):
                    chosen, left = chosen + 1, self._spend(size)
            if not page:
                break
        count("SitesDrilled", chosen)
        self._count()
        return chosen

    def _claim_and_begin(self, site: Site) -> int:
        """The bytes that are now to be opened; 0 as well if another pass has the site."""
        now, policy = self.recorder.now(), self.recorder.policy
        claimed = site.replace(look_at=look_again_at(now, policy))
        if not self.sites.replace(site, claimed):
            return 0
        site, newest = self.settle(claimed.replace(version=site.version + 1))
        if not newest:
            self.sites.forget(site, now - FORGOTTEN_AFTER)
            return 0
        if site.verified_at is not None and site.since > due_before(now, policy):
            return 0  # it was opened, and nobody had told the site
        return sum(self._begin(found) for found in _by_job(newest).values())

    def _begin(self, found: dict[str, Newest]) -> int:
        """The bytes of one job that are now to be opened: those of the drills that this call has asked for.

        What S3 did not give the last time costs nothing: else such sites, which stay the longest unproven, would take
        the budget from all others.
        """
        job = next(iter(found.values())).job
        request = partial(drilling.request, providers=list(found), newest=list(found))
        begun = self.recorder.apply(job.id, request, known=job)
        if begun is None:
            return 0
        before, after = begun.before.tasks, begun.after.tasks
        asked = [name for name in found if after[name].drilling and not before[name].drilling]
        return sum(after[name].size or 0 for name in asked if not _was_refused(before[name]))

    def _spend(self, size: int) -> int:
        """What is left of the budget. A site that is larger than what was left is a debt of the next runs."""

        def spend(ledger: Ledger) -> Ledger:
            full = refill(ledger, self.recorder.now(), self.recorder.policy)
            return full.replace(left=full.left - size)

        return self._change_ledger(spend).left

    def _count(self) -> None:
        """Stores what `GET /drills` answers, and tells whether the budget keeps up."""
        now, policy = self.recorder.now(), self.recorder.policy
        coverage = self.sites.coverage(overdue_before(now, policy)).replace(counted_at=now)
        self._change_ledger(lambda ledger: ledger.replace(coverage=coverage))
        count("SitesOverdue", coverage.overdue)
        if coverage.overdue:
            logger.warning("drills are overdue", extra={"sites": coverage.overdue, "oldest": coverage.oldest})

    def _count_damaged(self) -> None:
        """Each run tells it of what is stored, so that no crash loses it; with no budget as well."""
        damaged = self.recorder.jobs.damaged(MAX_DAMAGED)
        count("BackupsDamaged", len(damaged))
        if damaged:
            logger.error("backups are damaged", extra={"backups": len(damaged), "jobIds": damaged[:NAMED]})

    def _change_ledger(self, change: Callable[[Ledger], Ledger]) -> Ledger:
        for _ in range(MAX_CONFLICTS):
            seen = self.sites.ledger()
            changed = change(seen).replace(version=seen.version + 1)
            if self.sites.replace_ledger(seen, changed):
                return changed
        raise Conflict("other runs of the drills kept changing the budget")


def _was_refused(task: Task) -> bool:
    """Whether its last drill could not read it."""
    return task.drill is not None and task.drill.state is DrillState.UNREAD and not task.drill.compared


def _by_job(newest: dict[str, Newest]) -> dict[str, dict[str, Newest]]:
    """Nearly always one: a site's providers are backed up together."""
    jobs: dict[str, dict[str, Newest]] = {}
    for name, found in newest.items():
        jobs.setdefault(found.job.id, {})[name] = found
    return jobs
