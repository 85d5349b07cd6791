"""Schedules in MongoDB or Amazon DocumentDB."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import msgspec
from pymongo import ASCENDING, MongoClient
from pymongo.errors import DuplicateKeyError

from ...domain.errors import Conflict
from ...domain.principal import Access
from ...domain.schedule import Schedule, schedule_id
from ...telemetry import logger
from .connection import once_more, reachable, settled
from .documents import schedule_document
from .indexes import UNIQUE_SLOTS
from .visible import visible


class MongoSchedules:
    """A ScheduleRepository: one document for each site of a user."""

    def __init__(self, client: MongoClient[dict[str, Any]], database: str) -> None:
        self._schedules = client[database]["schedules"]
        self._indexed = False

    @once_more
    def create_indexes(self) -> None:
        """Idempotent. A paused schedule has no `nextRunAt`, so it is not in the index."""
        with reachable():
            self._schedules.create_index([("nextRunAt", ASCENDING)], name="due")
            self._schedules.create_index(**UNIQUE_SLOTS)
            self._schedules.create_index([("userId", ASCENDING), ("_id", ASCENDING)], name="of_user")

    def get_for(self, access: Access, user_id: str, site_id: str) -> Schedule | None:
        return self._first({"_id": schedule_id(user_id, site_id), **visible(access, "siteId")})

    @once_more
    def _first(self, query: Mapping[str, Any]) -> Schedule | None:
        with reachable():
            found = self._schedules.find_one(query)
        return Schedule.from_document(found) if found else None

    def add(self, schedule: Schedule) -> None:
        """The first call of a process makes sure of the indexes."""
        if not self._indexed:
            self.create_indexes()
            self._indexed = True
        if not settled(lambda: self._insert(schedule), lambda: self._stored(schedule) == schedule):
            raise Conflict("the site's schedule was just created")

    def _insert(self, schedule: Schedule) -> bool:
        try:
            with reachable():
                self._schedules.insert_one(schedule_document(schedule))
        except DuplicateKeyError:
            return False
        return True

    def replace(self, seen: Schedule, schedule: Schedule) -> bool:
        after = schedule.replace(version=seen.version + 1)
        return settled(lambda: self._compare_and_set(seen, after), lambda: self._stored(after) == after)

    def _stored(self, schedule: Schedule) -> Schedule | None:
        return self._first({"_id": schedule.id})

    def _compare_and_set(self, seen: Schedule, after: Schedule) -> bool:
        unchanged = {"_id": seen.id, "version": seen.version}
        with reachable():
            return self._schedules.replace_one(unchanged, schedule_document(after)).matched_count == 1

    def delete_for(self, access: Access, user_id: str, site_id: str) -> bool:
        query = {"_id": schedule_id(user_id, site_id), **visible(access, "siteId")}

        def delete() -> bool:
            with reachable():
                return self._schedules.delete_one(query).deleted_count == 1

        return settled(delete, lambda: True)

    @once_more
    def page_for(self, access: Access, user_id: str | None, limit: int, past: str | None) -> list[Schedule]:
        query: dict[str, Any] = {"userId": user_id} if user_id else {}
        query |= {"_id": {"$gt": past}} if past else {}
        query |= visible(access, "siteId")
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
            schedules.append(Schedule.from_document(document))
        except msgspec.ValidationError as error:
            about = {"siteId": str(document.get("siteId")), "error": str(error)}
            logger.error("schedule can't be read", extra=about)
        if len(schedules) == limit:
            break
    return schedules
