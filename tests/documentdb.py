"""What Amazon DocumentDB 5.0 takes and can use an index for, held against what the project sends to MongoDB.

The local server takes more, and scans without a word. A command that is not judged here is refused as well: add it
with its source. Sources, all of https://docs.aws.amazon.com/documentdb/latest/developerguide/:

- mongo-apis.html, mongo-apis-query-projection-operators.html, mongo-apis-update-operators.html,
  mongo-apis-aggregation-pipeline-operators.html: what there is;
- index-property-sparse.html: a sparse index is used only if the query has `$exists` on the indexed fields;
- partial-index.html: what a filter expression may hold, and that a query must repeat it;
- functional-differences.html: no retryable writes; no index for `$ne`, `$nin`, `$nor`, `$not` and other `$exists`.
"""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Iterator, Mapping
from threading import Lock
from typing import Any

import bson
from pymongo import monitoring

COMMANDS = frozenset(
    [
        "aggregate",
        "count",
        "createIndexes",
        "delete",
        "dropDatabase",
        "endSessions",
        "find",
        "getMore",
        "hello",
        "insert",
        "ismaster",
        "isMaster",
        "killCursors",
        "ping",
        "saslContinue",
        "saslStart",
        "update",
    ]
)
ENVELOPE = frozenset({"$db", "$clusterTime", "$readPreference", "lsid", "readConcern", "writeConcern"})
OPTIONS = {
    "aggregate": frozenset(["aggregate", "pipeline", "cursor"]),
    "count": frozenset(["count", "query"]),
    "find": frozenset(
        ["find", "filter", "projection", "sort", "skip", "limit", "batchSize", "singleBatch", "maxTimeMS"]
    ),
    "insert": frozenset(["insert", "documents", "ordered"]),
    "update": frozenset(["update", "updates", "ordered"]),
    "delete": frozenset(["delete", "deletes", "ordered"]),
    "createIndexes": frozenset(["createIndexes", "indexes"]),
}
STATEMENTS = {"updates": frozenset(["q", "u", "multi", "upsert"]), "deletes": frozenset(["q", "limit"])}
INDEX_OPTIONS = frozenset(
    ["key", "name", "unique", "sparse", "expireAfterSeconds", "partialFilterExpression", "background", "v"]
)
INDEX_KINDS = (1, -1, "2dsphere", "text")
FILTER_OPERATORS = frozenset(["$eq", "$exists", "$and", "$gt", "$gte", "$lt", "$lte"])
"""Of a partial index."""

QUERY_OPERATORS = frozenset(
    [
        "$all",
        "$and",
        "$bitsAllClear",
        "$bitsAllSet",
        "$bitsAnyClear",
        "$bitsAnySet",
        "$comment",
        "$elemMatch",
        "$eq",
        "$exists",
        "$gt",
        "$gte",
        "$in",
        "$lt",
        "$lte",
        "$mod",
        "$ne",
        "$nin",
        "$nor",
        "$not",
        "$options",
        "$or",
        "$regex",
        "$size",
        "$type",
    ]
)
STAGES = frozenset(["$match", "$group"])
ACCUMULATORS = frozenset(["$sum"])
UPDATE_OPERATORS = frozenset(
    [
        "$addToSet",
        "$bit",
        "$currentDate",
        "$inc",
        "$max",
        "$min",
        "$mul",
        "$pop",
        "$pull",
        "$pullAll",
        "$push",
        "$rename",
        "$set",
        "$setOnInsert",
        "$unset",
    ]
)


class Rules(monitoring.CommandListener):
    """Hears every command of a client, and keeps what DocumentDB would refuse or could only scan for."""

    def __init__(self) -> None:
        self.broken: list[str] = []
        self._indexes: dict[tuple[str, str], dict[str, Mapping[str, Any]]] = defaultdict(dict)
        self._lock = Lock()

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        self.hear(event.database_name, event.command_name, event.command)

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        return

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        return

    def hear(self, database: str, name: str, command: Mapping[str, Any]) -> None:
        """One command, as it is sent."""
        with self._lock:
            self.broken += [f"{problem} in {command}" for problem in self._problems(database, name, command)]

    def _problems(self, database: str, name: str, command: Mapping[str, Any]) -> Iterator[str]:
        if name not in COMMANDS:
            yield f"command {name}"
            return
        if name not in OPTIONS:
            return
        for option in command.keys() - OPTIONS[name] - ENVELOPE:
            yield f"option {option} of {name}"
        indexes = self._indexes[(database, command[name])]
        for index in command.get("indexes", ()):
            indexes[index["name"]] = index
            yield from _problems_of_index(index)
        if name in ("count", "find"):
            query = command.get("filter", command.get("query", {}))
            yield from _problems_of_query(query, command.get("sort", {}), indexes)
        if name == "aggregate":
            yield from _problems_of_pipeline(command["pipeline"], indexes)
        for kind, options in STATEMENTS.items():
            for statement in command.get(kind, ()):
                for option in statement.keys() - options:
                    yield f"option {option} of {name}"
                yield from _problems_of_query(statement["q"], {}, indexes)
                yield from _problems_of_update(statement.get("u", {}))


def _problems_of_index(index: Mapping[str, Any]) -> Iterator[str]:
    for option in index.keys() - INDEX_OPTIONS:
        yield f"index option {option}"
    for field, kind in index["key"].items():
        if kind not in INDEX_KINDS or "$**" in field:
            yield f"index of {field} as {kind}"
    if "expireAfterSeconds" in index and len(index["key"]) > 1:
        yield "a compound index that expires"
    for operator in _operators(index.get("partialFilterExpression", {})):
        if operator not in FILTER_OPERATORS:
            yield f"{operator} in the filter of a partial index"


def _problems_of_pipeline(
    pipeline: list[Mapping[str, Any]], indexes: Mapping[str, Mapping[str, Any]]
) -> Iterator[str]:
    """Only its first stage can use an index."""
    yield from _problems_of_query(pipeline[0].get("$match", {"$match": None}), {}, indexes)
    for stage in pipeline:
        for kind, what in stage.items():
            if kind not in STAGES:
                yield f"stage {kind}"
            if kind == "$group":
                yield from (f"accumulator {name}" for name in _operators(what) if name not in ACCUMULATORS)


def _problems_of_update(update: Any) -> Iterator[str]:
    if isinstance(update, list):
        yield "a pipeline as an update"
        return
    for operator in update:
        if operator.startswith("$") and operator not in UPDATE_OPERATORS:
            yield f"update operator {operator}"


def _problems_of_query(
    query: Mapping[str, Any], order: Mapping[str, Any], indexes: Mapping[str, Mapping[str, Any]]
) -> Iterator[str]:
    for operator in _operators(query):
        if operator not in QUERY_OPERATORS:
            yield f"query operator {operator}"
    if not indexes:
        return  # nothing was ever stored there
    fields = _by_field(query)
    if not fields and next(iter(order), "_id") == "_id":
        return  # in the order of _id, or all of it
    usable = {"_id"}
    lacking: dict[str, str] = {}
    for name, index in indexes.items():
        leading = next(iter(index["key"]))
        missing = sorted(_lacking(index, fields))
        if missing:
            lacking[leading] = f"no {', '.join(missing)} for index {name}"
        else:
            usable.add(leading)
    sought = {field for field, conditions in fields.items() if any(map(_is_sought, conditions))}
    if not usable & sought:
        for field, problem in lacking.items():
            if field in sought or field in order:
                yield problem
                return
        yield "no index"


def _lacking(index: Mapping[str, Any], fields: Mapping[str, list[Any]]) -> Iterator[str]:
    """What the query does not say, but must for a sparse or partial index to be used."""
    needed = _by_field(index.get("partialFilterExpression", {}))
    if index.get("sparse"):
        needed = {field: [{"$exists": True}] for field in index["key"]}
    for field, conditions in needed.items():
        said = [_spelled(condition) for condition in fields.get(field, [])]
        for condition in conditions:
            if not any(_spelled(condition).items() <= each.items() for each in said):
                yield f"{field}: {condition}"


def _spelled(condition: Any) -> Mapping[str, Any]:
    if isinstance(condition, Mapping) and any(key.startswith("$") for key in condition):
        return condition
    return {"$eq": condition}


def _is_sought(condition: Any) -> bool:
    """Whether an index on the field finds what this condition wants."""
    return bool(_spelled(condition).keys() & {"$eq", "$gt", "$gte", "$in", "$lt", "$lte"})


def _by_field(query: Mapping[str, Any]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = defaultdict(list)
    for field, condition in query.items():
        if field == "$and":
            for one in condition:
                for inner, conditions in _by_field(one).items():
                    found[inner] += conditions
        elif not field.startswith("$"):
            found[field].append(condition)
    return found


def _operators(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if key.startswith("$"):
                yield key
            yield from _operators(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _operators(inner)


class Wire:
    """Tells rules of the commands in one client's bytes.

    OP_MSG: https://www.mongodb.com/docs/manual/reference/mongodb-wire-protocol/
    """

    _OP_MSG = 2013

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._waiting = b""

    def __call__(self, data: bytes) -> None:
        self._waiting += data
        while len(self._waiting) >= 16 and len(self._waiting) >= (length := self._length(self._waiting)):
            message, self._waiting = self._waiting[:length], self._waiting[length:]
            if struct.unpack_from("<i", message, 12)[0] == self._OP_MSG:
                self._hear(message)

    def _hear(self, message: bytes) -> None:
        checksum = 4 if struct.unpack_from("<I", message, 16)[0] & 1 else 0
        at, command = 20, dict[str, Any]()
        while at < len(message) - checksum:
            kind, at = message[at], at + 1
            end = at + self._length(message, at)
            if kind == 0:
                command = {**bson.decode(message[at:end]), **command}
            else:
                name_end = message.index(b"\0", at + 4)
                command[message[at + 4 : name_end].decode()] = bson.decode_all(message[name_end + 1 : end])
            at = end
        documents = {name for name, value in command.items() if name in ("documents", "updates", "deletes")}
        name = next(name for name in command if name not in documents)
        self._rules.hear(command["$db"], name, command)

    def _length(self, data: bytes, at: int = 0) -> int:
        length: int = struct.unpack_from("<i", data, at)[0]
        return length
