"""What drills have shown, as the API shows it."""

from typing import Any

from ..domain.site import Site
from ..drills.get_drills import Report
from .views import known, time_text


def drills_view(report: Report) -> dict[str, Any]:
    """JSON-ready: the coverage of all sites, as it was counted last."""
    coverage = report.coverage
    return known(
        {
            "drillDays": report.within_days,
            "sites": coverage.sites,
            "opened": coverage.opened,
            "unread": coverage.unread,
            "overdue": coverage.overdue,
            "oldest": time_text(coverage.oldest),
            "countedAt": time_text(coverage.counted_at),
            "lastDay": {"bytes": report.day.bytes, "seconds": round(report.day.seconds, 1)},
        }
    )


def site_view(site: Site) -> dict[str, Any]:
    """JSON-ready: what is known of one site."""
    return known(
        {
            "userId": site.user_id,
            "siteId": site.site_id,
            "lastVerifiedAt": time_text(site.verified_at),
            "unread": site.unread or None,
            "unprovenSince": time_text(site.since),
        }
    )
