"""What drills know of a site, and how much they may read."""

from datetime import datetime, timedelta
from typing import Self

from .model import Id, Model
from .plan import MIB
from .policy import Policy, seconds

GIB = 1024 * MIB
DUE_AFTER = 0.8
"""Of `drill_days`: a site is opened again when so much is over, and the rest is left for a queue and for trouble."""
LOOK_AGAIN_DAYS = 0.25
"""A site that was chosen is not chosen again before: its drills are under way, or S3 does not give what is stored."""
FORGOTTEN_AFTER = timedelta(days=1)
"""A site without a good backup is forgotten so long after it was last about to have one."""


class Site(Model, frozen=True, kw_only=True):
    """One site that has backups: one document."""

    user_id: Id
    site_id: Id
    version: int
    since: datetime
    """Unproven since then: its newest backups were opened last, or it got its first one."""
    verified_at: datetime | None = None
    """The API's `lastVerifiedAt`."""
    unread: bool = False
    """Parts of what was opened then could not be judged."""
    look_at: datetime
    """It is not chosen before."""
    backed_up_at: datetime
    """A backup of it was about to be done."""

    def verified(self, at: datetime, *, unread: bool) -> Self:
        """Its newest backups were opened then. The very site if that was known."""
        if self.verified_at is not None and at <= self.verified_at:
            return self
        return self.replace(since=at, verified_at=at, unread=unread, look_at=at)

    def unproven(self, now: datetime) -> Self:
        """What had proven it, if anything had, is damaged. It is due at once, unless an earlier backup proves it."""
        since = self.since if self.verified_at is None else now
        return self.replace(since=since, verified_at=None, unread=False, look_at=now)


class Coverage(Model, frozen=True, kw_only=True):
    """How many sites there are, and how many of them were opened within `drill_days`."""

    sites: int = 0
    opened: int = 0
    unread: int = 0
    """Of all sites: parts of what was opened could not be judged."""
    overdue: int = 0
    """Unproven for longer than `drill_days`."""
    oldest: datetime | None = None
    """The site that is unproven the longest is so since then."""
    counted_at: datetime | None = None


class Ledger(Model, frozen=True, kw_only=True):
    """What runs of the drills leave to one another: one document."""

    version: int = 0
    left: int = 0
    """Bytes that may be opened; below 0 after a big backup, and then the next runs wait."""
    left_at: datetime | None = None
    coverage: Coverage = Coverage()


class Day(Model, frozen=True, kw_only=True):
    """What drills have done within 24 hours."""

    bytes: int = 0
    seconds: float = 0.0


def due_before(now: datetime, policy: Policy) -> datetime:
    """Sites whose proof is as old as that are due. Those that were never opened are due at once."""
    return now - seconds(policy.drill_days * policy.day_seconds * DUE_AFTER)


def overdue_before(now: datetime, policy: Policy) -> datetime:
    """Sites that are unproven for longer than that are overdue."""
    return now - seconds(policy.drill_days * policy.day_seconds)


def look_again_at(now: datetime, policy: Policy) -> datetime:
    """When a site that is chosen now may be chosen again."""
    return now + seconds(LOOK_AGAIN_DAYS * policy.day_seconds)


def refill(ledger: Ledger, now: datetime, policy: Policy) -> Ledger:
    """The budget grows evenly over the day, to an hour's worth at most: what was not used does not pile up."""
    per_day = policy.drill_gib_per_day * GIB
    hour = per_day // 24
    passed = (now - ledger.left_at).total_seconds() / policy.day_seconds if ledger.left_at else 1 / 24
    return ledger.replace(left=min(hour, ledger.left + int(per_day * passed)), left_at=now)
