"""What drills know of sites, in MongoDB or Amazon DocumentDB."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

import msgspec
from pymongo import ASCENDING, MongoClient
from pymongo.errors import DuplicateKeyError

from ...domain.site import Coverage, Day, Ledger, Site
from ...telemetry import logger
from .connection import once_more, reachable, settled

WORK_KEPT_SECONDS = 2 * 24 * 3600
"""A TTL index then drops what was done in an hour."""
_LEDGER = "ledger"
_HOURS = 24
_BEFORE_ALL = datetime(1970, 1, 1, tzinfo=UTC)


class MongoSites:
    """A SiteRepository: a document each site, one ledger, and a document each hour."""

    def __init__(self, client: MongoClient[dict[str, Any]], database: str) -> None:
        self._database = client[database]
        self._sites = self._database["sites"]
        self._drills = self._database["drills"]
        self._indexed = False

    @once_more
    def create_indexes(self) -> None:
        """Idempotent. The longest unproven come first; the rest serves the counts."""
        with reachable():
            self._sites.create_index([("since", ASCENDING), ("lookAt", ASCENDING)], name="due")
            self._sites.create_index(
                [("verifiedAt", ASCENDING), ("since", ASCENDING), ("lookAt", ASCENDING)], name="opened"
            )
            self._sites.create_index([("unread", ASCENDING)], name="unread", sparse=True)
            self._drills.create_index("hour", name="forget", expireAfterSeconds=WORK_KEPT_SECONDS)

    def backed_up(self, user_id: str, site_id: str, now: datetime) -> None:
        """The first call of a process makes sure of the indexes."""
        if not self._indexed:
            self.create_indexes()
            self._indexed = True
        self._upsert(user_id, site_id, now)

    @once_more
    def _upsert(self, user_id: str, site_id: str, now: datetime) -> None:
        new = {"userId": user_id, "siteId": site_id, "version": 1, "since": now, "lookAt": now}
        update = {"$set": {"backedUpAt": now}, "$setOnInsert": new}
        try:
            with reachable():
                self._sites.update_one({"_id": _site_key(user_id, site_id)}, update, upsert=True)
        except DuplicateKeyError:  # another backup of the site was quicker
            return

    @once_more
    def get(self, user_id: str, site_id: str) -> Site | None:
        with reachable():
            found = self._sites.find_one({"_id": _site_key(user_id, site_id)})
        return Site.from_document(found) if found else None

    @once_more
    def due(self, before: datetime, now: datetime, limit: int) -> list[Site]:
        """Those that are due by their age come before those that are younger and were never opened."""
        due = self._longest_unproven({"since": {"$lte": before}}, now, limit)
        if len(due) == limit:
            return due
        never_opened = {"verifiedAt": None, "since": {"$gt": before}}
        return due + self._longest_unproven(never_opened, now, limit - len(due))

    def _longest_unproven(self, query: Mapping[str, Any], now: datetime, limit: int) -> list[Site]:
        with reachable():
            found = self._sites.find({**query, "lookAt": {"$lte": now}}).sort("since", ASCENDING)
            with found.batch_size(limit):
                return list(islice((site for site in map(_readable, found) if site), limit))

    def replace(self, seen: Site, site: Site) -> bool:
        """`backed_up` may have been called meanwhile: what it writes is left as it is."""
        after = site.replace(version=seen.version + 1)
        return settled(
            lambda: self._compare_and_set(seen, after),
            lambda: self._is_stored(after),
        )

    def _is_stored(self, after: Site) -> bool:
        found = self.get(after.user_id, after.site_id)
        return found is not None and found.replace(backed_up_at=after.backed_up_at) == after

    def _compare_and_set(self, seen: Site, after: Site) -> bool:
        document = after.to_document()
        document.pop("backedUpAt")
        gone = seen.to_document().keys() - document.keys() - {"backedUpAt"}
        update: dict[str, Any] = {"$set": document}
        if gone:
            update["$unset"] = dict.fromkeys(gone, "")
        with reachable():
            return self._sites.update_one(_unchanged(seen), update).matched_count == 1

    @once_more
    def forget(self, seen: Site, backed_up_before: datetime) -> bool:
        query = {**_unchanged(seen), "backedUpAt": {"$lt": backed_up_before}}
        with reachable():
            return self._sites.delete_one(query).deleted_count == 1

    @once_more
    def coverage(self, opened_since: datetime) -> Coverage:
        """Costs what is overdue or was never opened, and not what is there."""
        sites, overdue = self._count({}), self._count({"since": {"$lt": opened_since}})
        young = self._count({"verifiedAt": None, "since": {"$gte": opened_since}})
        unread = self._count({"unread": {"$exists": True, "$eq": True}})
        with reachable():
            first = {"since": {"$gt": _BEFORE_ALL}}
            oldest = self._sites.find_one(first, {"since": 1}, sort=[("since", ASCENDING)])
        return Coverage(
            sites=sites,
            opened=max(0, sites - overdue - young),
            unread=unread,
            overdue=overdue,
            oldest=oldest["since"] if oldest else None,
        )

    def _count(self, query: Mapping[str, Any]) -> int:
        """Of all documents by what the collection knows of itself, else by an index."""
        with reachable():
            return int(self._database.command({"count": self._sites.name, "query": query})["n"])

    @once_more
    def ledger(self) -> Ledger:
        with reachable():
            found = self._drills.find_one({"_id": _LEDGER})
        return Ledger.from_document(found) if found else Ledger(version=0)

    def replace_ledger(self, seen: Ledger, ledger: Ledger) -> bool:
        after = ledger.replace(version=seen.version + 1)
        return settled(lambda: self._set_ledger(seen, after), lambda: self.ledger() == after)

    def _set_ledger(self, seen: Ledger, after: Ledger) -> bool:
        """The first one is inserted: of two runs at once the second finds the id taken."""
        query = {"_id": _LEDGER, "version": seen.version}
        try:
            with reachable():
                document = after.to_document()
                done = self._drills.replace_one(query, document, upsert=seen.version == 0)
        except DuplicateKeyError:
            return False
        return done.matched_count == 1 or done.upserted_id is not None

    def add_work(self, now: datetime, size: int, seconds: float) -> None:
        hour = now.replace(minute=0, second=0, microsecond=0)
        update = {"$inc": {"bytes": size, "seconds": seconds}, "$setOnInsert": {"hour": hour}}
        try:
            with reachable():
                self._drills.update_one({"_id": f"{hour:%Y-%m-%dT%H}"}, update, upsert=True)
        except DuplicateKeyError:  # two made the hour at once
            with reachable():
                self._drills.update_one({"_id": f"{hour:%Y-%m-%dT%H}"}, update)

    @once_more
    def day(self, now: datetime) -> Day:
        with reachable():
            found = list(self._drills.find({"hour": {"$gt": now - timedelta(hours=_HOURS)}}))
        return Day(bytes=sum(hour["bytes"] for hour in found), seconds=sum(hour["seconds"] for hour in found))


def _site_key(user_id: str, site_id: str) -> str:
    return f"{user_id}/{site_id}"


def _unchanged(seen: Site) -> dict[str, Any]:
    return {"_id": _site_key(seen.user_id, seen.site_id), "version": seen.version}


def _readable(document: Mapping[str, Any]) -> Site | None:
    try:
        return Site.from_document(document)
    except msgspec.ValidationError as error:
        logger.error("site can't be read", extra={"site": str(document.get("_id")), "error": str(error)})
        return None
