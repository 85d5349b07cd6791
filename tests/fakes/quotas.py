"""Quotas in memory: what counts is read from the fakes that hold it, as MongoDB's is from its collections."""

from sitebackup.domain.quota import Limits, Quota, QuotaDay, UserLimits
from tests.fakes.faults import Fake, FaultInjector, no_faults, port_call
from tests.fakes.jobs import MemoryJobs, MemoryRestores
from tests.fakes.schedules import MemorySchedules


class MemoryQuotas(Fake):
    """Exceptions by user."""

    port = "quotas"

    def __init__(
        self,
        jobs: MemoryJobs,
        restores: MemoryRestores,
        schedules: MemorySchedules,
        faults: FaultInjector = no_faults,
    ) -> None:
        super().__init__(faults)
        self._jobs, self._restores, self._schedules = jobs, restores, schedules
        self.exceptions: dict[str, Limits] = {}

    @port_call
    def limits(self, user_id: str) -> Limits:
        return self.exceptions.get(user_id, Limits())

    @port_call
    def set_limits(self, user_id: str, limits: Limits) -> None:
        self.exceptions.pop(user_id, None)
        if limits != Limits():
            self.exceptions[user_id] = limits

    @port_call
    def add_limits(self, user: UserLimits) -> bool:
        if user.user_id in self.exceptions:
            return False
        self.exceptions[user.user_id] = user.limits
        return True

    @port_call
    def page_of_limits(self, limit: int, past: str | None) -> list[UserLimits]:
        users = sorted(user for user in self.exceptions if past is None or user > past)
        return [UserLimits(user_id=user, limits=self.exceptions[user]) for user in users[:limit]]

    @port_call
    def slots(self, user_id: str, quota: Quota, day: QuotaDay | None, most: int) -> list[str | None]:
        return self._slots(user_id, quota, day)[:most]

    @port_call
    def count(self, user_id: str, quota: Quota, day: QuotaDay | None) -> int:
        return len(self._slots(user_id, quota, day))

    def _slots(self, user_id: str, quota: Quota, day: QuotaDay | None) -> list[str | None]:
        if quota is Quota.SCHEDULES:
            return [one.slot for one in self._schedules.all() if one.user_id == user_id]
        if day is None:
            return [job.slot for job in self._jobs.all() if job.user_id == user_id and job.claims_site]
        return [
            restore.slot
            for restore in self._restores.all()
            if restore.user_id == user_id and day.begins <= restore.created_at < day.ends
        ]

    @port_call
    def held_bytes(self, user_id: str) -> int:
        return sum(job.held_bytes for job in self._jobs.all() if job.user_id == user_id)
