"""Quotas in MongoDB or Amazon DocumentDB: one document for each user who has exceptions; what is used is counted."""

from collections.abc import Mapping
from typing import Any

from pymongo import ASCENDING, MongoClient
from pymongo.errors import DuplicateKeyError

from ...domain.quota import Limits, Quota, QuotaDay, UserLimits
from .connection import once_more, reachable


class MongoQuotas:
    """A QuotaRepository."""

    def __init__(self, client: MongoClient[dict[str, Any]], database: str) -> None:
        self._database = client[database]
        self._limits = self._database["limits"]

    @once_more
    def limits(self, user_id: str) -> Limits:
        with reachable():
            found = self._limits.find_one({"_id": user_id})
        return Limits.from_document(found) if found else Limits()

    @once_more
    def set_limits(self, user_id: str, limits: Limits) -> None:
        document = limits.to_document()
        if not document:
            with reachable():
                self._limits.delete_one({"_id": user_id})
            return
        try:
            with reachable():
                self._limits.replace_one({"_id": user_id}, document, upsert=True)
        except DuplicateKeyError:  # another call made the document at the same time
            with reachable():
                self._limits.replace_one({"_id": user_id}, document)

    @once_more
    def add_limits(self, user: UserLimits) -> bool:
        try:
            with reachable():
                self._limits.insert_one({"_id": user.user_id, **user.limits.to_document()})
        except DuplicateKeyError:
            return False
        return True

    @once_more
    def page_of_limits(self, limit: int, past: str | None) -> list[UserLimits]:
        query = {"_id": {"$gt": past}} if past else {}
        with reachable():
            found = list(self._limits.find(query).sort("_id", ASCENDING).limit(limit))
        return [UserLimits(user_id=one["_id"], limits=Limits.from_document(one)) for one in found]

    @once_more
    def slots(self, user_id: str, quota: Quota, day: QuotaDay | None, most: int) -> list[str | None]:
        collection, query = _counted(user_id, quota, day)
        with reachable():
            found = list(self._database[collection].find(query, {"slot": 1}).limit(most)) if most else []
        return [one.get("slot") for one in found]

    @once_more
    def count(self, user_id: str, quota: Quota, day: QuotaDay | None) -> int:
        collection, query = _counted(user_id, quota, day)
        with reachable():
            return int(self._database.command({"count": collection, "query": query})["n"])

    @once_more
    def held_bytes(self, user_id: str) -> int:
        """Costs the user's backups that have data, by an index."""
        held = {"userId": user_id, "heldBytes": {"$exists": True}}
        total = {"_id": None, "bytes": {"$sum": "$heldBytes"}}
        with reachable():
            found = list(self._database["jobs"].aggregate([{"$match": held}, {"$group": total}]))
        return int(found[0]["bytes"]) if found else 0


def _counted(user_id: str, quota: Quota, day: QuotaDay | None) -> tuple[str, Mapping[str, Any]]:
    """In which collection which documents count."""
    if quota is Quota.SCHEDULES:
        return "schedules", {"userId": user_id}
    if day is None:
        return "jobs", {"userId": user_id, "active": True, "kind": "backup"}
    within = {"$gte": day.begins, "$lt": day.ends}
    return "jobs", {"userId": user_id, "kind": "restore", "createdAt": within}
