"""What a user may still have or do, and how much of it is used.

A check costs one read of the user's exceptions, and where there is a limit one read of what counts against it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from ..domain.policy import Policy
from ..domain.quota import Allowance, Limits, OverQuota, Quota, QuotaDay, day_of, free_slot, slot_name
from ..ports.repositories import QuotaRepository
from ..telemetry import count, logger

MAX_COLLISIONS = 50
"""So often at most a new document looks for another slot, because others took the one that it had chosen."""
RETRY_AFTER = {Quota.ACTIVE_JOBS: 60, Quota.STORED_BYTES: 3600, Quota.SCHEDULES: 3600}
"""Seconds until a refused call is worth another try: what ends or is deleted by then nobody can know."""


@dataclass(frozen=True)
class Usage:
    """How a user stands against one limit."""

    used: int
    limit: int | None
    """None: there is none."""
    is_exception: bool
    resets_at: datetime | None = None
    """When all of it is free again, if that is by time."""


@dataclass(frozen=True)
class Quotas:
    """Every call may raise RepositoryUnavailable."""

    repository: QuotaRepository
    policy: Policy
    now: Callable[[], datetime]

    def for_backup(self, user_id: str, job_id: str) -> Allowance:
        """For an attempt that begins. Raises OverQuota, also if no byte is left."""
        limits = self.repository.limits(user_id)
        most = limits.limit(Quota.STORED_BYTES, self.policy)
        if most is not None and (used := self.repository.held_bytes(user_id)) >= most:
            raise self._over(user_id, Quota.STORED_BYTES, most, used)
        return Allowance(self._slot(user_id, limits, Quota.ACTIVE_JOBS, job_id), most)

    def restore_slot(self, user_id: str, restore_id: str) -> str | None:
        """The slot for a restore of today; None: it needs none. Raises OverQuota."""
        return self._slot(user_id, self.repository.limits(user_id), Quota.RESTORES_PER_DAY, restore_id)

    def schedule_slot(self, user_id: str, site_id: str) -> str | None:
        """The slot for a new schedule of this site; None: it needs none. Raises OverQuota."""
        return self._slot(user_id, self.repository.limits(user_id), Quota.SCHEDULES, site_id)

    def usage(self, user_id: str) -> dict[Quota, Usage]:
        """How the user stands, limit by limit."""
        limits = self.repository.limits(user_id)

        def of(quota: Quota) -> Usage:
            day = self._day(quota)
            used = (
                self.repository.held_bytes(user_id)
                if quota is Quota.STORED_BYTES
                else self.repository.count(user_id, quota, day)
            )
            return Usage(
                used=used,
                limit=limits.limit(quota, self.policy),
                is_exception=limits.exception(quota) is not None,
                resets_at=day.ends if day else None,
            )

        return {quota: of(quota) for quota in Quota}

    def _slot(self, user_id: str, limits: Limits, quota: Quota, new_id: str) -> str | None:
        limit, day = limits.limit(quota, self.policy), self._day(quota)
        if limit is None:
            return None
        taken = self.repository.slots(user_id, quota, day, limit)
        number = free_slot(taken, limit, int(new_id, 16))
        if number is None:
            raise self._over(user_id, quota, limit, self.repository.count(user_id, quota, day))
        return slot_name(user_id, quota, number, day)

    def _day(self, quota: Quota) -> QuotaDay | None:
        return day_of(self.now(), self.policy) if quota is Quota.RESTORES_PER_DAY else None

    def _over(self, user_id: str, quota: Quota, limit: int, used: int) -> OverQuota:
        count("QuotaRefusals")
        logger.warning("over quota", extra={"userId": user_id, "quota": quota, "limit": limit, "used": used})
        day = self._day(quota)
        retry_after = day.left(self.now()) if day else RETRY_AFTER[quota]
        return OverQuota(quota, limit, used, retry_after, self.policy.day_seconds if day else None)
