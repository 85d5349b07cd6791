"""The rules of Amazon DocumentDB, each broken once."""

import struct
from typing import Any

import bson
import pytest

from tests.documentdb import Rules, Wire

INDEXES: dict[str, Any] = {
    "createIndexes": "jobs",
    "indexes": [
        {"name": "due", "key": {"nextCheckAt": 1}, "sparse": True},
        {
            "name": "active",
            "key": {"userId": 1, "siteId": 1},
            "unique": True,
            "partialFilterExpression": {"active": True},
        },
        {
            "name": "once",
            "key": {"idempotencyKey": 1},
            "unique": True,
            "partialFilterExpression": {"idempotencyKey": {"$exists": True}},
        },
        {"name": "newest", "key": {"siteId": 1, "_id": -1}},
    ],
}
EXISTS = {"$exists": True}


def problems(*commands: dict[str, Any]) -> list[str]:
    rules = Rules()
    for command in commands:
        rules.hear("test", next(iter(command)), {**command, "$db": "test", "lsid": {"id": 1}})
    return [problem.partition(" in {")[0] for problem in rules.broken]


def find(query: dict[str, Any], **options: Any) -> dict[str, Any]:
    return {"find": "jobs", "filter": query, **options}


def update(query: dict[str, Any], change: Any, **options: Any) -> dict[str, Any]:
    return {"update": "jobs", "updates": [{"q": query, "u": change, **options}]}


def aggregate(query: dict[str, Any], *stages: dict[str, Any]) -> dict[str, Any]:
    return {"aggregate": "jobs", "pipeline": [{"$match": query}, *stages], "cursor": {}}


@pytest.mark.parametrize(
    "command",
    [
        find({"nextCheckAt": {"$exists": True, "$lte": 1}}, sort={"nextCheckAt": 1}),
        find({"$and": [{"nextCheckAt": EXISTS}, {"nextCheckAt": {"$lte": 1}}]}),
        find({"userId": "u", "siteId": "s", "active": True}),
        find({"userId": "u", "active": {"$eq": True}}),
        find({"userId": "u", "siteId": "s"}, limit=1),
        find({"idempotencyKey": {"$exists": True, "$eq": "k"}}),
        find({"_id": {"$in": ["a"]}, "nextCheckAt": {"$lte": 1}}),
        find({}, sort={"_id": -1}),
        update({"_id": "a", "version": 1}, {"$set": {"a": 1}, "$unset": {"b": ""}}),
        update({"_id": "a"}, {"whole": "document"}, upsert=True),
        {"delete": "jobs", "deletes": [{"q": {"_id": "a"}, "limit": 1}]},
        {"insert": "jobs", "documents": [{"_id": "a"}]},
        aggregate({"siteId": "s"}, {"$group": {"_id": None, "all": {"$sum": "$size"}}}),
        {"hello": 1},
    ],
    ids=str,
)
def test_what_documentdb_takes_and_has_an_index_for_passes(command: dict[str, Any]) -> None:
    assert problems(INDEXES, command) == []


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        (find({"nextCheckAt": {"$lte": 1}}), "no nextCheckAt: {'$exists': True} for index due"),
        (find({"idempotencyKey": "k"}), "no idempotencyKey: {'$exists': True} for index once"),
        (find({"userId": "u"}), "no active: True for index active"),
        (find({}, sort={"nextCheckAt": 1}), "no nextCheckAt: {'$exists': True} for index due"),
        (update({"userId": "u"}, {"$set": {}}), "no active: True for index active"),
        (find({"version": 1}), "no index"),
        (find({"siteId": {"$ne": "s"}}), "no index"),
        (find({"$where": "true", "_id": 1}), "query operator $where"),
        (find({"_id": 1, "a": {"$near": 1}}), "query operator $near"),
        (find({"_id": 1}, collation={"locale": "en"}), "option collation of find"),
        (update({"_id": 1}, [{"$set": {}}]), "a pipeline as an update"),
        (update({"_id": 1}, {"$bogus": {}}), "update operator $bogus"),
        (update({"_id": 1}, {}, hint="x"), "option hint of update"),
        ({**update({"_id": 1}, {}), "txnNumber": 1}, "option txnNumber of update"),
        ({"mapReduce": "jobs"}, "command mapReduce"),
        (aggregate({"userId": "u"}), "no active: True for index active"),
        (aggregate({"siteId": "s"}, {"$lookup": {}}), "stage $lookup"),
        (aggregate({"siteId": "s"}, {"$group": {"a": {"$push": 1}}}), "accumulator $push"),
        (
            {"createIndexes": "j", "indexes": [{"name": "x", "key": {"a": "hashed"}}]},
            "index of a as hashed",
        ),
        (
            {"createIndexes": "j", "indexes": [{"name": "x", "key": {"a": 1}, "hidden": True}]},
            "index option hidden",
        ),
        (
            {
                "createIndexes": "j",
                "indexes": [{"name": "x", "key": {"a": 1}, "partialFilterExpression": {"a": {"$in": [1]}}}],
            },
            "$in in the filter of a partial index",
        ),
    ],
    ids=str,
)
def test_what_documentdb_refuses_or_would_scan_for_is_told(command: dict[str, Any], problem: str) -> None:
    assert [each[: len(problem)] for each in problems(INDEXES, command)] == [problem]


def test_commands_are_heard_on_the_wire_however_their_bytes_come() -> None:
    heard: list[tuple[str, str, Any]] = []

    class Hears(Rules):
        def hear(self, database: str, name: str, command: Any) -> None:
            heard.append((database, name, command.get("documents", command.get("filter"))))

    def message(*sections: bytes) -> bytes:
        body = struct.pack("<I", 0) + b"".join(sections)
        return struct.pack("<iiii", 16 + len(body), 1, 0, 2013) + body

    documents = b"documents\0" + bson.encode({"_id": 1}) + bson.encode({"_id": 2})
    sequence = b"\1" + struct.pack("<i", 4 + len(documents)) + documents
    sent = message(b"\0" + bson.encode({"find": "jobs", "filter": {"a": 1}, "$db": "d"}))
    sent += message(sequence, b"\0" + bson.encode({"insert": "jobs", "$db": "d"}))
    wire = Wire(Hears())
    for at in range(0, len(sent), 7):
        wire(sent[at : at + 7])
    assert heard == [("d", "find", {"a": 1}), ("d", "insert", [{"_id": 1}, {"_id": 2}])]
