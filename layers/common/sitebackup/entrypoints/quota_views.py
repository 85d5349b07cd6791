"""Quotas as the API shows them."""

from collections.abc import Mapping
from typing import Any

from ..backup.quotas import Usage
from ..domain.quota import OverQuota, Quota
from .views import known, time_text


def usage_view(user_id: str, usage: Mapping[Quota, Usage]) -> dict[str, Any]:
    """JSON-ready; what has no limit has no `limit`."""
    return {"userId": user_id, **{quota.value: _usage(one) for quota, one in usage.items()}}


def over_quota_view(error: OverQuota) -> dict[str, Any]:
    """For an answer that is no problem: a dry run's."""
    return {**error.members, "retryAfter": error.retry_after}


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


def _usage(usage: Usage) -> dict[str, Any]:
    return known(
        {
            "used": usage.used,
            "limit": usage.limit,
            "exception": usage.is_exception or None,
            "resetsAt": time_text(usage.resets_at),
        }
    )
