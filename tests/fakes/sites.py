"""What drills know of sites, in memory, as the contract suite of the SiteRepository asks for it."""

from datetime import datetime, timedelta
from typing import Any

from sitebackup.domain.site import Coverage, Day, Ledger, Site
from tests.fakes.faults import Fake, FaultInjector, no_faults, port_call


class MemorySites(Fake):
    """Documents by (userId, siteId)."""

    port = "sites"

    def __init__(self, faults: FaultInjector = no_faults) -> None:
        super().__init__(faults)
        self.documents: dict[tuple[str, str], dict[str, Any]] = {}
        self._ledger = Ledger(version=0)
        self._hours: dict[datetime, tuple[int, float]] = {}

    def all(self) -> list[Site]:
        """Every one; no call of the port."""
        return [Site.from_document(document) for document in self.documents.values()]

    @port_call
    def create_indexes(self) -> None:
        """There are none to make."""

    @port_call
    def backed_up(self, user_id: str, site_id: str, now: datetime) -> None:
        new = Site(user_id=user_id, site_id=site_id, version=1, since=now, look_at=now, backed_up_at=now)
        self.documents.setdefault((user_id, site_id), new.to_document())["backedUpAt"] = now

    @port_call
    def get(self, user_id: str, site_id: str) -> Site | None:
        found = self.documents.get((user_id, site_id))
        return Site.from_document(found) if found else None

    @port_call
    def due(self, before: datetime, now: datetime, limit: int) -> list[Site]:
        due = [
            site
            for site in self.all()
            if (site.since <= before or site.verified_at is None) and site.look_at <= now
        ]
        return sorted(due, key=lambda site: site.since)[:limit]

    @port_call
    def replace(self, seen: Site, site: Site) -> bool:
        found = self.documents.get((seen.user_id, seen.site_id))
        if found is None or found["version"] != seen.version:
            return False
        after = site.replace(version=seen.version + 1, backed_up_at=found["backedUpAt"])
        self.documents[seen.user_id, seen.site_id] = after.to_document()
        return True

    @port_call
    def forget(self, seen: Site, backed_up_before: datetime) -> bool:
        found = self.documents.get((seen.user_id, seen.site_id))
        if found is None or found["version"] != seen.version or found["backedUpAt"] >= backed_up_before:
            return False
        del self.documents[seen.user_id, seen.site_id]
        return True

    @port_call
    def coverage(self, opened_since: datetime) -> Coverage:
        sites = self.all()
        return Coverage(
            sites=len(sites),
            opened=sum(site.since >= opened_since and site.verified_at is not None for site in sites),
            unread=sum(site.unread for site in sites),
            overdue=sum(site.since < opened_since for site in sites),
            oldest=min((site.since for site in sites), default=None),
        )

    @port_call
    def ledger(self) -> Ledger:
        return self._ledger

    @port_call
    def replace_ledger(self, seen: Ledger, ledger: Ledger) -> bool:
        if self._ledger.version != seen.version:
            return False
        self._ledger = ledger.replace(version=seen.version + 1)
        return True

    @port_call
    def add_work(self, now: datetime, size: int, seconds: float) -> None:
        hour = now.replace(minute=0, second=0, microsecond=0)
        before = self._hours.get(hour, (0, 0.0))
        self._hours[hour] = (before[0] + size, before[1] + seconds)

    @port_call
    def day(self, now: datetime) -> Day:
        found = [work for hour, work in self._hours.items() if hour > now - timedelta(hours=24)]
        return Day(bytes=sum(size for size, _ in found), seconds=sum(spent for _, spent in found))
