"""Quotas as the API shows them."""

from collections.abc import Mapping

from ..backup.quotas import Usage
from ..domain.model import Id, Model
from ..domain.quota import OverQuota, Quota
from .views import Time, time_text


class OneUsageView(Model, frozen=True, kw_only=True):
    """How a user stands against one limit; without `limit` there is none."""

    used: int
    limit: int | None = None
    exception: bool | None = None
    resets_at: Time | None = None


class UsageView(Model, frozen=True, kw_only=True):
    """What a user has of each limit."""

    user_id: Id
    active_jobs: OneUsageView
    stored_bytes: OneUsageView
    restores_per_day: OneUsageView
    schedules: OneUsageView


class OverQuotaView(Model, frozen=True, kw_only=True):
    """Which limit stands in the way, and after how many seconds it is worth another try."""

    quota: Quota
    limit: int
    used: int
    retry_after: int


def usage_view(user_id: str, usage: Mapping[Quota, Usage]) -> UsageView:
    """How the user stands."""
    return UsageView(
        user_id=user_id,
        active_jobs=_usage(usage[Quota.ACTIVE_JOBS]),
        stored_bytes=_usage(usage[Quota.STORED_BYTES]),
        restores_per_day=_usage(usage[Quota.RESTORES_PER_DAY]),
        schedules=_usage(usage[Quota.SCHEDULES]),
    )


def over_quota_view(error: OverQuota) -> OverQuotaView:
    """For an answer that is no problem: a dry run's."""
    return OverQuotaView(**error.members, retry_after=error.retry_after)


def rate_limit_headers(error: OverQuota) -> dict[str, str]:
    """When to try again, and what of the limit is left: nothing.

    `q` is the quota and `w` its window, `r` what is left of it for the next `t` seconds. A limit that no time sets
    back has neither window. https://datatracker.ietf.org/doc/html/draft-ietf-httpapi-ratelimit-headers-11
    """
    window = f";w={error.window}" if error.window else ""
    left = f";t={error.retry_after}" if error.window else ""
    return {
        "Retry-After": str(error.retry_after),
        "RateLimit-Policy": f'"{error.quota}";q={error.limit}{window}',
        "RateLimit": f'"{error.quota}";r=0{left}',
    }


def _usage(usage: Usage) -> OneUsageView:
    return OneUsageView(
        used=usage.used,
        limit=usage.limit,
        exception=usage.is_exception or None,
        resets_at=time_text(usage.resets_at),
    )
