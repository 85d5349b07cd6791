"""What backups and restores have in common in MongoDB: one collection, one claim of a site, compare-and-set.

DocumentDB knows no pipeline updates before 5.0: nothing here needs them.
"""

from collections.abc import Mapping
from datetime import datetime
from itertools import islice
from typing import Any

import msgspec
from pymongo import ASCENDING, DESCENDING, MongoClient
from pymongo.errors import DuplicateKeyError

from ...domain.errors import DuplicateJob
from ...domain.job import Job
from ...domain.principal import Access
from ...domain.restore import Restore
from ...ports.repositories import ID_NAMES, SiteClaim
from ...telemetry import logger
from .connection import once_more, reachable, settled
from .documents import differences, from_document, site_document
from .indexes import SITE_NEWEST_FIRST, create_job_indexes
from .visible import visible

_SITE_FIELDS = {"backup": ("siteId",), "restore": ("siteId", "sourceSiteId")}
"""Where the `sites` of each kind stand."""


class SiteDocuments[D: (Job, Restore)]:
    """The documents of one kind, in a collection that they share: the unique index on claims spans both (I10)."""

    def __init__(self, client: MongoClient[dict[str, Any]], database: str, model: type[D]) -> None:
        self._database = client[database]
        self._documents = self._database["jobs"]
        self._model: type[D] = model
        self._kind: str = model.kind
        self._indexed = False

    def create_indexes(self) -> None:
        """Of both kinds."""
        create_job_indexes(self._database)

    def add(self, document: D) -> None:
        """The first call of a process makes sure of the indexes: without them nothing would be refused."""
        if not self._indexed:
            self.create_indexes()
            self._indexed = True
        if not settled(lambda: self._insert(document), lambda: self.get(document.id) is not None):
            raise DuplicateJob

    def _insert(self, document: D) -> bool:
        try:
            with reachable():
                self._documents.insert_one(site_document(document.with_next_check()))
        except DuplicateKeyError:
            return False
        return True

    def get(self, document_id: str) -> D | None:
        """By id."""
        return self._first({"_id": document_id, "kind": self._kind})

    def get_for(self, access: Access, document_id: str) -> D | None:
        """By id, if it is within reach."""
        return self._first({"_id": document_id, **self._visible(access)})

    def _visible(self, access: Access) -> dict[str, Any]:
        return {"kind": self._kind, **visible(access, *_SITE_FIELDS[self._kind])}

    @once_more
    def claim_of(self, user_id: str, site_id: str) -> SiteClaim | None:
        """What holds the site."""
        held = {"userId": user_id, "siteId": site_id, "active": True}
        with reachable():
            found = self._documents.find_one(held, {"kind": 1, "status": 1, "siteId": 1, "sourceSiteId": 1})
        if found is None:
            return None
        sites = tuple(found[field] for field in _SITE_FIELDS[found["kind"]])
        return SiteClaim(found["kind"], found["_id"], found["status"], sites)

    def by_idempotency_key(self, key: str) -> D | None:
        """The one that was created with this key."""
        return self._first({"idempotencyKey": {"$exists": True, "$eq": key}, "kind": self._kind})

    @once_more
    def version_for(self, access: Access, document_id: str) -> int | None:
        """Only the version: what a long poll reads twice a second."""
        with reachable():
            found = self._documents.find_one({"_id": document_id, **self._visible(access)}, {"version": 1})
        return int(found["version"]) if found else None

    def page_for(self, access: Access, filters: Mapping[str, str], limit: int, before: str | None) -> list[D]:
        """As `page`, of what is within reach."""
        return self._page(self._visible(access), filters, limit, before)

    def page(self, filters: Mapping[str, str], limit: int, before: str | None) -> list[D]:
        """Newest first, from just before the id `before`; filters are equalities on document fields."""
        return self._page({"kind": self._kind}, filters, limit, before)

    @once_more
    def _page(
        self, within: Mapping[str, Any], filters: Mapping[str, str], limit: int, before: str | None
    ) -> list[D]:
        query: dict[str, Any] = {**within, **filters}
        if before:
            query["_id"] = {"$lt": before}
        # A site's documents are read by the site's index, whatever else is asked: that of a status has all sites'.
        newest_first = SITE_NEWEST_FIRST if "siteId" in filters else [("_id", DESCENDING)]
        documents: list[D] = []
        while len(documents) < limit:
            wanted = limit - len(documents)
            with reachable():
                found = list(self._documents.find(query).sort(newest_first).limit(wanted))
            documents += [document for document in map(self._readable, found) if document]
            if len(found) < wanted:
                break
            query["_id"] = {"$lt": found[-1]["_id"]}
        return documents

    def due(self, now: datetime, limit: int) -> list[D]:
        """Those whose `nextCheckAt` has come, the longest due first."""
        return self._due("nextCheckAt", now, limit)

    def claim_check(self, seen: D, until: datetime) -> D | None:
        """That is no change: the version stays, and whoever changes the document sets its next check anew."""
        return self._claim("nextCheckAt", seen, seen.replace(next_check_at=until))

    def _claim(self, field: str, seen: D, claimed: D) -> D | None:
        due = {"_id": seen.id, "version": seen.version, field: site_document(seen)[field]}
        taken = {"$set": {field: site_document(claimed)[field]}}

        def take() -> bool:
            with reachable():
                return self._documents.update_one(due, taken).matched_count == 1

        return claimed if settled(take, lambda: self.get(seen.id) == claimed) else None

    @once_more
    def _due(self, field: str, now: datetime, limit: int) -> list[D]:
        with reachable():
            found = self._documents.find({"kind": self._kind, field: {"$lte": now}}).sort(field, ASCENDING)
            with found.batch_size(limit):
                return list(islice((document for document in map(self._readable, found) if document), limit))

    def replace(self, before: D, after: D) -> bool:
        """Writes only the fields that differ, so that a field of a newer release survives an older one."""
        after = after.with_next_check()
        return settled(lambda: self._compare_and_set(before, after), lambda: self.get(after.id) == after)

    def _compare_and_set(self, before: D, after: D) -> bool:
        changes, gone = differences(site_document(before), site_document(after))
        update: dict[str, Any] = {"$set": changes}
        if gone:
            update["$unset"] = dict.fromkeys(gone, "")
        try:
            with reachable():
                result = self._documents.update_one({"_id": before.id, "version": before.version}, update)
        except DuplicateKeyError as error:
            raise DuplicateJob from error
        return result.matched_count == 1

    @once_more
    def _first(self, query: Mapping[str, Any]) -> D | None:
        with reachable():
            found = self._documents.find_one(query)
        return from_document(self._model, found, "id") if found else None

    def _readable(self, document: dict[str, Any]) -> D | None:
        try:
            return from_document(self._model, document, "id")
        except msgspec.ValidationError as error:
            extra = {ID_NAMES[self._kind]: str(document.get("_id")), "error": str(error)}
            logger.error(f"{self._kind} can't be read", extra=extra)
            return None
