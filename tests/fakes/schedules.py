"""Schedules in memory, as the contract suite of the ScheduleRepository asks for them."""

from datetime import datetime
from typing import Any

from sitebackup.domain.errors import Conflict
from sitebackup.domain.schedule import Schedule
from tests.fakes.faults import Fake, FaultInjector, no_faults, port_call


class MemorySchedules(Fake):
    """Documents by site."""

    port = "schedules"

    def __init__(self, faults: FaultInjector = no_faults) -> None:
        super().__init__(faults)
        self._documents: dict[str, dict[str, Any]] = {}

    @port_call
    def create_indexes(self) -> None:
        """There are none to make."""

    @port_call
    def get(self, site_id: str) -> Schedule | None:
        document = self._documents.get(site_id)
        return Schedule.from_document(document) if document else None

    @port_call
    def add(self, schedule: Schedule) -> None:
        if schedule.site_id in self._documents:
            raise Conflict("the site's schedule was just created")
        self._documents[schedule.site_id] = schedule.to_document()

    @port_call
    def replace(self, seen: Schedule, schedule: Schedule) -> bool:
        if self._documents.get(seen.site_id, {}).get("version") != seen.version:
            return False
        self._documents[seen.site_id] = schedule.replace(version=seen.version + 1).to_document()
        return True

    @port_call
    def delete(self, site_id: str) -> bool:
        return self._documents.pop(site_id, None) is not None

    @port_call
    def page(self, limit: int, past: str | None) -> list[Schedule]:
        sites = sorted(site for site in self._documents if past is None or site > past)
        return [Schedule.from_document(self._documents[site]) for site in sites[:limit]]

    @port_call
    def due(self, now: datetime, limit: int) -> list[Schedule]:
        due = [one for one in self._documents.values() if "nextRunAt" in one and one["nextRunAt"] <= now]
        due.sort(key=lambda document: document["nextRunAt"])
        return [Schedule.from_document(document) for document in due[:limit]]
