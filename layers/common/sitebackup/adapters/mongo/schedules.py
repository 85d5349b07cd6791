"""Schedules in MongoDB or Amazon DocumentDB."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

import msgspec
from pymongo import ASCENDING, MongoClient
from pymongo.errors import DuplicateKeyError

from ...domain.errors import Conflict
from ...domain.schedule import Schedule
from ...telemetry import logger
from .connection import once_more, reachable, settled
from .documents import from_document, to_document


class MongoSchedules:
    """A ScheduleRepository: one document a site."""

    def __init__(self, client: MongoClient[dict[str, Any]], database: str) -> None:
        self._schedules = client[database]["schedules"]
        self._indexed = False

    @once_more
    def create_indexes(self) -> None:
        """Idempotent. A paused schedule has no `nextRunAt`, so it is not in the index."""
        with reachable():
            self._schedules.create_index([("nextRunAt", ASCENDING)], name="due")

    @once_more
    def get(self, site_id: str) -> Schedule | None:
        with reachable():
            found = self._schedules.find_one({"_id": site_id})
        return from_document(Schedule, found, "siteId") if found else None

    def add(self, schedule: Schedule) -> None:
        """The first call of a process makes sure of the indexes."""
        if not self._indexed:
            self.create_indexes()
            self._indexed = True
        if not settled(lambda: self._insert(schedule), lambda: self.get(schedule.site_id) == schedule):
            raise Conflict("the site's schedule was just created")

    def _insert(self, schedule: Schedule) -> bool:
        try:
            with reachable():
                self._schedules.insert_one(to_document(schedule, "siteId"))
        except DuplicateKeyError:
            return False
        return True

    def replace(self, seen: Schedule, schedule: Schedule) -> bool:
        after = schedule.replace(version=seen.version + 1)
        return settled(lambda: self._compare_and_set(seen, after), lambda: self.get(seen.site_id) == after)

    def _compare_and_set(self, seen: Schedule, after: Schedule) -> bool:
        unchanged = {"_id": seen.site_id, "version": seen.version}
        with reachable():
            return self._schedules.replace_one(unchanged, to_document(after, "siteId")).matched_count == 1

    def delete(self, site_id: str) -> bool:
        return settled(lambda: self._delete(site_id), lambda: True)

    def _delete(self, site_id: str) -> bool:
        with reachable():
            return self._schedules.delete_one({"_id": site_id}).deleted_count == 1

    @once_more
    def page(self, limit: int, past: str | None) -> list[Schedule]:
        query = {"_id": {"$gt": past}} if past else {}
        with reachable(), self._schedules.find(query).sort("_id", ASCENDING).batch_size(limit) as found:
            return _readable(found, limit)

    @once_more
    def due(self, now: datetime, limit: int) -> list[Schedule]:
        query = {"nextRunAt": {"$lte": now}}
        with reachable(), self._schedules.find(query).sort("nextRunAt", ASCENDING).batch_size(limit) as found:
            return _readable(found, limit)


def _readable(documents: Iterable[dict[str, Any]], limit: int) -> list[Schedule]:
    schedules: list[Schedule] = []
    for document in documents:
        try:
            schedules.append(from_document(Schedule, document, "siteId"))
        except msgspec.ValidationError as error:
            about = {"siteId": str(document.get("_id")), "error": str(error)}
            logger.error("schedule can't be read", extra=about)
        if len(schedules) == limit:
            break
    return schedules
