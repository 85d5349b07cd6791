"""What is known of parts, in MongoDB or Amazon DocumentDB."""

from collections.abc import Collection, Iterator
from datetime import datetime
from itertools import batched
from typing import Any

from pymongo import ASCENDING, MongoClient
from pymongo.errors import DuplicateKeyError

from ...domain.job import Part, PartWait
from .connection import once_more, reachable

IDS_AT_ONCE = 1000
"""In one command."""
_DONE = "etag"
"""The field that only a done part has."""


class MongoParts:
    """A PartRepository: one document for each part that is done or had a transient error."""

    def __init__(self, client: MongoClient[dict[str, Any]], database: str) -> None:
        self._parts = client[database]["parts"]

    @once_more
    def save(self, upload_id: str, part: Part, now: datetime) -> None:
        document = {**part.to_document(), "writtenAt": now}
        with reachable():
            self._parts.replace_one({"_id": _part_id(upload_id, part.number)}, document, upsert=True)

    @once_more
    def save_wait(self, upload_id: str, number: int, wait: PartWait, now: datetime) -> None:
        """Of a part that is done the filter finds nothing, and the upsert finds its id taken."""
        document = {**wait.to_document(), "number": number, "writtenAt": now}
        not_done = {"_id": _part_id(upload_id, number), _DONE: {"$exists": False}}
        try:
            with reachable():
                self._parts.replace_one(not_done, document, upsert=True)
        except DuplicateKeyError:
            return

    @once_more
    def end_waits(self, upload_id: str, numbers: Collection[int]) -> None:
        with reachable():
            for some in batched(numbers, IDS_AT_ONCE):
                ids = [_part_id(upload_id, number) for number in some]
                self._parts.update_many(
                    {"_id": {"$in": ids}, _DONE: {"$exists": False}}, {"$unset": {"nextTryAt": ""}}
                )

    @once_more
    def lose(self, upload_id: str, number: int, wait: PartWait, now: datetime) -> None:
        document = {**wait.to_document(), "number": number, "writtenAt": now}
        with reachable():
            self._parts.replace_one({"_id": _part_id(upload_id, number)}, document, upsert=True)

    @once_more
    def done(self, upload_id: str, numbers: range | None = None) -> list[Part]:
        """Those of `numbers` are read by their ids, all of an upload by one scan of its ids.

        A window of a big task costs what the window holds. The local server would scan the whole task for a range.
        """
        if numbers is not None:
            return [
                Part.from_document(document)
                for document in self._records(upload_id, numbers)
                if _DONE in document
            ]
        with reachable():
            found = self._parts.find({"_id": {"$gt": f"{upload_id}:", "$lt": f"{upload_id};"}})
            # The range also holds the parts of an upload whose id is this one's, a colon and more.
            return [
                Part.from_document(document)
                for document in found.sort("_id", ASCENDING)
                if _DONE in document and document["_id"] == _part_id(upload_id, document["number"])
            ]

    @once_more
    def missing(self, upload_id: str, numbers: range) -> dict[int, PartWait]:
        records = {document["number"]: document for document in self._records(upload_id, numbers)}
        return {
            number: PartWait.from_document(records.get(number, {}))
            for number in numbers
            if _DONE not in records.get(number, {})
        }

    def _records(self, upload_id: str, numbers: range) -> Iterator[dict[str, Any]]:
        with reachable():
            for some in batched(numbers, IDS_AT_ONCE):
                ids = [_part_id(upload_id, number) for number in some]
                yield from self._parts.find({"_id": {"$in": ids}}).sort("_id", ASCENDING)

    @once_more
    def which_done(self, parts: Collection[tuple[str, int]]) -> set[tuple[str, int]]:
        """One read."""
        ids = {_part_id(*part): part for part in parts}
        with reachable():
            found = self._parts.find({"_id": {"$in": sorted(ids)}}, {"_id": 1, _DONE: 1})
            return {ids[record["_id"]] for record in found if _DONE in record}


def _part_id(upload_id: str, number: int) -> str:
    """Zero-padded, so that ids sort by number."""
    return f"{upload_id}:{number:05d}"
