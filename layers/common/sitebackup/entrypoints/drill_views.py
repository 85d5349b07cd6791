"""What drills have shown, as the API shows it."""

from ..domain.model import Id, Model
from ..domain.site import Day, Site
from ..drills.get_drills import Report
from .views import Bytes, Time, time_text


class DayView(Model, frozen=True, kw_only=True):
    """What drills did within 24 hours."""

    bytes: Bytes
    seconds: float


class SiteView(Model, frozen=True, kw_only=True):
    """What is known of one site."""

    user_id: Id
    site_id: Id
    last_verified_at: Time | None = None
    unread: bool | None = None
    unproven_since: Time


class CoverageView(Model, frozen=True, kw_only=True):
    """The coverage of all sites, as it was counted last; with `site` if one was asked for."""

    drill_days: int
    sites: int
    opened: int
    unread: int
    overdue: int
    oldest: Time | None = None
    counted_at: Time | None = None
    last_day: DayView
    site: SiteView | None = None


class OneSiteView(Model, frozen=True, kw_only=True):
    """What a user is told, who may not see the coverage of all sites."""

    site: SiteView


def coverage_view(report: Report, site: SiteView | None) -> CoverageView:
    """The coverage of all sites, as it was counted last."""
    coverage = report.coverage
    return CoverageView(
        drill_days=report.within_days,
        sites=coverage.sites,
        opened=coverage.opened,
        unread=coverage.unread,
        overdue=coverage.overdue,
        oldest=time_text(coverage.oldest),
        counted_at=time_text(coverage.counted_at),
        last_day=_day(report.day),
        site=site,
    )


def _day(day: Day) -> DayView:
    return DayView(bytes=day.bytes, seconds=round(day.seconds, 1))


def site_view(site: Site) -> SiteView:
    """What is known of one site."""
    return SiteView(
        user_id=site.user_id,
        site_id=site.site_id,
        last_verified_at=time_text(site.verified_at),
        unread=site.unread or None,
        unproven_since=time_text(site.since),
    )
