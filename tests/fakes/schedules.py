"""Schedules in memory, as the contract suite of the ScheduleRepository asks for them."""

from datetime import datetime
from typing import Any

from sitebackup.domain.errors import Conflict
from sitebackup.domain.principal import Access
from sitebackup.domain.schedule import Schedule, schedule_id
from tests.fakes.faults import Fake, FaultInjector, no_faults, port_call


class MemorySchedules(Fake):
    """Documents by user and site."""

    port = "schedules"

    def __init__(self, faults: FaultInjector = no_faults) -> None:
        super().__init__(faults)
        self._documents: dict[str, dict[str, Any]] = {}

    def all(self) -> list[Schedule]:
        """Every one; no call of the port."""
        return [Schedule.from_document(document) for document in self._documents.values()]

    @port_call
    def create_indexes(self) -> None:
        """There are none to make."""

    @port_call
    def get_for(self, access: Access, user_id: str, site_id: str) -> Schedule | None:
        if not access.sees(user_id, [site_id]):
            return None
        document = self._documents.get(schedule_id(user_id, site_id))
        return Schedule.from_document(document) if document else None

    @port_call
    def add(self, schedule: Schedule) -> None:
        if schedule.id in self._documents or self._is_taken(schedule.slot):
            raise Conflict("the site's schedule was just created")
        self._documents[schedule.id] = schedule.to_document()

    def _is_taken(self, slot: str | None) -> bool:
        return slot is not None and any(document.get("slot") == slot for document in self._documents.values())

    @port_call
    def replace(self, seen: Schedule, schedule: Schedule) -> bool:
        if self._documents.get(seen.id, {}).get("version") != seen.version:
            return False
        self._documents[seen.id] = schedule.replace(version=seen.version + 1).to_document()
        return True

    @port_call
    def delete_for(self, access: Access, user_id: str, site_id: str) -> bool:
        if not access.sees(user_id, [site_id]):
            return False
        return self._documents.pop(schedule_id(user_id, site_id), None) is not None

    @port_call
    def page_for(self, access: Access, user_id: str | None, limit: int, past: str | None) -> list[Schedule]:
        found = [Schedule.from_document(document) for _, document in sorted(self._documents.items())]
        return [
            schedule
            for schedule in found
            if (past is None or schedule.id > past)
            and user_id in (None, schedule.user_id)
            and access.sees(schedule.user_id, [schedule.site_id])
        ][:limit]

    @port_call
    def due(self, now: datetime, limit: int) -> list[Schedule]:
        due = [one for one in self._documents.values() if "nextRunAt" in one and one["nextRunAt"] <= now]
        due.sort(key=lambda document: document["nextRunAt"])
        return [Schedule.from_document(document) for document in due[:limit]]
