"""How much a user may have or do, and which slot of it a new backup, restore or schedule takes.

A slot is a name under a unique index, and stands in the document that takes it. So it is taken in the very write that
stores the document, and free in the write that ends or removes it: no crash can come between the two.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Literal, NamedTuple

import msgspec

from .errors import RequestError
from .model import Id, Model
from .policy import Policy

MAX_SLOTS = 10_000
"""The slots of a user are read for each new one."""
MAX_STORED_BYTES = 10**15 - 1
"""The largest integer of a structured header field (RFC 9651)."""


class Quota(StrEnum):
    """What is limited, as the API calls it."""

    ACTIVE_JOBS = "activeJobs"
    """Backups that are not over. The safety backups of restores do not count."""
    STORED_BYTES = "storedBytes"
    """Verified objects of backups whose data is there, and what running ones have reserved."""
    RESTORES_PER_DAY = "restoresPerDay"
    """Restores that were created since the day began, in UTC, however they ended."""
    SCHEDULES = "schedules"


SlotLimit = Annotated[
    Annotated[int, msgspec.Meta(ge=0, le=MAX_SLOTS)] | Literal["unlimited"],
    msgspec.Meta(description=f'a whole number from 0 to {MAX_SLOTS}, or "unlimited"'),
]
ByteLimit = Annotated[
    Annotated[int, msgspec.Meta(ge=0, le=MAX_STORED_BYTES)] | Literal["unlimited"],
    msgspec.Meta(description=f'a whole number of bytes from 0 to {MAX_STORED_BYTES}, or "unlimited"'),
]


class Limits(Model, frozen=True, kw_only=True):
    """Exceptions of one user; what is None is as the policy has it for everybody."""

    active_jobs: SlotLimit | None = None
    stored_bytes: ByteLimit | None = None
    restores_per_day: SlotLimit | None = None
    schedules: SlotLimit | None = None

    def exception(self, quota: Quota) -> int | Literal["unlimited"] | None:
        """What this user is allowed; None: what everybody is."""
        return {
            Quota.ACTIVE_JOBS: self.active_jobs,
            Quota.STORED_BYTES: self.stored_bytes,
            Quota.RESTORES_PER_DAY: self.restores_per_day,
            Quota.SCHEDULES: self.schedules,
        }[quota]

    def limit(self, quota: Quota, policy: Policy) -> int | None:
        """What holds for this user; None: there is no limit."""
        exception = self.exception(quota)
        if exception is not None:
            return None if exception == "unlimited" else exception
        default = {
            Quota.ACTIVE_JOBS: policy.quota_active_jobs,
            Quota.STORED_BYTES: policy.quota_stored_bytes,
            Quota.RESTORES_PER_DAY: policy.quota_restores_per_day,
            Quota.SCHEDULES: policy.quota_schedules,
        }[quota]
        return default or None


class UserLimits(Model, frozen=True, kw_only=True):
    """A user who has exceptions."""

    user_id: Id
    limits: Limits


class Allowance(NamedTuple):
    """What an attempt of a backup is begun with."""

    slot: str | None = None
    """None: it needs none."""
    byte_limit: int | None = None
    """Bytes that all backups of its user may have; None: any number."""


UNBOUNDED = Allowance()


class QuotaDay(NamedTuple):
    """A day in UTC, as the policy measures it."""

    begins: datetime
    ends: datetime

    def left(self, now: datetime) -> int:
        """Whole seconds until it is over, 1 at least."""
        return max(1, -int((now - self.ends).total_seconds() // 1))


def day_of(now: datetime, policy: Policy) -> QuotaDay:
    """The day of this moment."""
    begins = now.timestamp() // policy.day_seconds * policy.day_seconds
    return QuotaDay(
        datetime.fromtimestamp(begins, UTC), datetime.fromtimestamp(begins + policy.day_seconds, UTC)
    )


class OverQuota(RequestError):
    """A user has as much of something as they may; the members say of what."""

    def __init__(self, quota: Quota, limit: int, used: int, retry_after: int, window: int | None) -> None:
        super().__init__(
            f"{quota}: the limit is {limit}, and {used} are used.", quota=quota, limit=limit, used=used
        )
        self.quota = quota
        self.limit = limit
        self.retry_after = retry_after
        """Seconds until it is worth another try."""
        self.window = window
        """Seconds after which all of it is free again; None: it becomes free when something ends or is deleted."""


def slot_name(user_id: str, quota: Quota, number: int, day: QuotaDay | None = None) -> str:
    """Under this name one document of the user has the slot, on that day if it is of a day."""
    of_day = f":{day.begins:%Y-%m-%dT%H:%M:%SZ}" if day else ""
    return f"{user_id}:{quota}{of_day}/{number}"


def free_slot(taken: Sequence[str | None], limit: int, spread: int) -> int | None:
    """A slot for a new document beside those that there are; None: there are as many as there may be.

    `taken` has the slot of each: None for one that was made while there was no limit. As many slots are given out as
    are left beside those that lie outside, so that however many take one at once there are never more than `limit`.
    `spread` keeps those apart who look at the same moment.
    """
    if len(taken) >= limit:
        return None
    numbers = {int(name.rpartition("/")[2]) for name in taken if name is not None}
    unnumbered = len(taken) - len(numbers)

    def outside(slots: int) -> int:
        return unnumbered + sum(number >= slots for number in numbers)

    slots = limit
    while slots + outside(slots) > limit:
        slots = limit - outside(slots)
    free = [number for number in range(slots) if number not in numbers]
    return free[spread % len(free)]
