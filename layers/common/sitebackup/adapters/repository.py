"""Jobs and parts in MongoDB or Amazon DocumentDB.

DocumentDB knows no pipeline updates before 5.0 and no `$in` in a partial index: nothing here needs them.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from functools import wraps
from itertools import batched, islice
from typing import Any, NamedTuple

import msgspec
from pymongo import ASCENDING, DESCENDING, MongoClient
from pymongo.errors import ConnectionFailure, DuplicateKeyError, PyMongoError, ServerSelectionTimeoutError

from ..domain.errors import Conflict, RepositoryUnavailable
from ..domain.job import Job, Part, PartWait
from ..telemetry import logger

MAX_CONFLICTS = 50
PART_RECORDS_KEPT_SECONDS = 45 * 24 * 3600
"""Longer than any upload's grace; a TTL index then drops the records of parts."""

IDS_AT_ONCE = 1000
"""In one command."""

_DONE = "etag"
"""The field that only a done part has."""
_SITE_NEWEST_FIRST = [("siteId", ASCENDING), ("_id", DESCENDING)]

Change = Callable[[Job], Job | None]


class Changed(NamedTuple):
    """What a change found and what it left."""

    before: Job
    after: Job


class DuplicateJob(Exception):
    """The site has an active job already (I10), or the idempotency key was used."""


class AnswerLost(RepositoryUnavailable):
    """The connection broke before an answer came, as one does that the network forgot: a write may have happened."""


def once_more[**P, T](method: Callable[P, T]) -> Callable[P, T]:
    """One more try after AnswerLost, for methods that may be carried out twice.

    PyMongo's own repeats one read or write more often than a caller can wait, or needs what DocumentDB has not got.
    """

    @wraps(method)
    def twice(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return method(*args, **kwargs)
        except AnswerLost:
            return method(*args, **kwargs)

    return twice


@contextmanager
def reachable() -> Iterator[None]:
    """Whatever keeps MongoDB from answering is RepositoryUnavailable, or AnswerLost; only a duplicate key passes."""
    try:
        yield
    except DuplicateKeyError:
        raise
    except ServerSelectionTimeoutError as error:
        raise RepositoryUnavailable("MongoDB does not answer.") from error
    except ConnectionFailure as error:
        raise AnswerLost("MongoDB does not answer.") from error
    except PyMongoError as error:
        raise RepositoryUnavailable(f"MongoDB refused a command: {type(error).__name__}.") from error


class Repository:
    """One document a job, one document a part that is done or was in trouble."""

    def __init__(self, client: MongoClient[dict[str, Any]], database: str) -> None:
        self._jobs = client[database]["jobs"]
        self._parts = client[database]["parts"]
        self._indexed = False

    @once_more
    def create_indexes(self) -> None:
        """Idempotent. Raises RepositoryUnavailable."""
        with reachable():
            self._jobs.create_index(
                [("userId", ASCENDING), ("siteId", ASCENDING)],
                name="one_active_job_per_site",
                unique=True,
                partialFilterExpression={"active": True},
            )
            self._jobs.create_index(
                [("idempotencyKey", ASCENDING)],
                name="one_job_per_idempotency_key",
                unique=True,
                partialFilterExpression={"idempotencyKey": {"$exists": True}},
            )
            # Not sparse: see docs/decisions/0053-what-is-due-is-in-a-plain-index.md
            self._jobs.create_index([("nextCheckAt", ASCENDING)], name="due")
            self._jobs.create_index([("cleanUpAt", ASCENDING)], name="due_for_clean_up")
            self._jobs.create_index(_SITE_NEWEST_FIRST, name="site_newest_first")
            self._jobs.create_index([("userId", ASCENDING), ("_id", DESCENDING)], name="user_newest_first")
            self._jobs.create_index([("status", ASCENDING), ("_id", DESCENDING)], name="status_newest_first")
            self._parts.create_index("writtenAt", name="forget", expireAfterSeconds=PART_RECORDS_KEPT_SECONDS)

    # --- jobs

    def add(self, job: Job) -> None:
        """Raises DuplicateJob if the site has an active job or the idempotency key is taken.

        The first call of a process makes sure of the indexes: without them nothing would be refused.
        """
        if not self._indexed:
            self.create_indexes()
            self._indexed = True
        try:
            self._insert(job)
        except AnswerLost:
            try:
                self._insert(job)
            except DuplicateJob:
                if not self.get(job.id):
                    raise

    def _insert(self, job: Job) -> None:
        try:
            with reachable():
                self._jobs.insert_one(with_next_check(job).to_document())
        except DuplicateKeyError as error:
            raise DuplicateJob from error

    def get(self, job_id: str) -> Job | None:
        """By id."""
        return self._first({"_id": job_id})

    def active(self, user_id: str, site_id: str) -> Job | None:
        """The site's active job."""
        return self._first({"userId": user_id, "siteId": site_id, "active": True})

    def by_idempotency_key(self, key: str) -> Job | None:
        """The job that was created with this key."""
        return self._first({"idempotencyKey": {"$exists": True, "$eq": key}})

    @once_more
    def version(self, job_id: str) -> int | None:
        """Only the version: what a long poll reads each second."""
        with reachable():
            found = self._jobs.find_one({"_id": job_id}, {"version": 1})
        return int(found["version"]) if found else None

    @once_more
    def page(self, filters: Mapping[str, str], limit: int, before: str | None) -> list[Job]:
        """Newest first, from just before the id `before`; filters are equalities on document fields.

        A document that can't be read is logged and left out.
        """
        query: dict[str, Any] = dict(filters)
        if before:
            query["_id"] = {"$lt": before}
        jobs: list[Job] = []
        while len(jobs) < limit:
            wanted = limit - len(jobs)
            with reachable():
                found = list(self._jobs.find(query).sort("_id", DESCENDING).limit(wanted))
            jobs += [job for job in map(_readable, found) if job]
            if len(found) < wanted:
                break
            query["_id"] = {"$lt": found[-1]["_id"]}
        return jobs

    def holds_newest_good(self, job: Job) -> bool:
        """Whether an object of the done job is the newest good one of its provider for this site (I19).

        Good is what is done, whole, and what nobody asked to delete; a zip without members is never newer than one
        with members. Costs a read a provider at most, which ends at the first newer object.
        """
        return any(not self._has_newer_good(job, provider) for provider in job.tasks)

    @once_more
    def _has_newer_good(self, job: Job, provider: str) -> bool:
        task = job.tasks[provider]
        query: dict[str, Any] = {
            "userId": job.user_id,
            "siteId": job.site_id,
            "status": "done",
            "deleteCause": {"$ne": "requested"},
            "removingAt": {"$exists": False},
            f"tasks.{provider}.status": "done",
        }
        newer = {f"tasks.{provider}.finishedAt": {"$gt": task.finished_at}}
        has_members = {f"tasks.{provider}.object.members": {"$ne": 0}}
        if task.object and task.object.members == 0:
            query["$or"] = [newer, has_members]
        else:
            query |= newer | has_members
        with reachable():
            # A newer object is most likely among the site's newest jobs. By `_id` alone other indexes would serve as
            # well, and pass over the jobs of other sites where there is none.
            return self._jobs.find_one(query, {"_id": 1}, sort=_SITE_NEWEST_FIRST) is not None

    @once_more
    def forget(self, job: Job) -> bool:
        """Removes the record, if the job's version is still this one. False, too, if the first answer was lost."""
        with reachable():
            return self._jobs.delete_one({"_id": job.id, "version": job.version}).deleted_count == 1

    def due(self, now: datetime, limit: int) -> list[Job]:
        """Unfinished jobs whose `nextCheckAt` has come, the longest due first.

        A document that can't be read is logged, and takes no place of others.
        """
        return self._due("nextCheckAt", now, limit)

    def due_for_clean_up(self, now: datetime, limit: int) -> list[Job]:
        """Final jobs whose `cleanUpAt` has come; otherwise as `due`."""
        return self._due("cleanUpAt", now, limit)

    def claim_check(self, job: Job, until: datetime) -> Job | None:
        """Takes a job that `due` gave out of other sweeps' sight until then; None: it is no more as it was read.

        That is no change of the job: its version stays, and whoever changes it sets its next check anew.
        """
        return self._claim("nextCheckAt", job, job.replace(next_check_at=until))

    def claim_clean_up(self, job: Job, until: datetime) -> Job | None:
        """As `claim_check`, for a job that `due_for_clean_up` gave."""
        return self._claim("cleanUpAt", job, job.replace(clean_up_at=until))

    def _claim(self, field: str, seen: Job, claimed: Job) -> Job | None:
        due = {"_id": seen.id, "version": seen.version, field: seen.to_document()[field]}
        taken = {"$set": {field: claimed.to_document()[field]}}
        try:
            with reachable():
                mine = self._jobs.update_one(due, taken).matched_count == 1
        except AnswerLost:  # as in `_replace`
            with reachable():
                mine = self._jobs.update_one(due, taken).matched_count == 1
            mine = mine or self.get(seen.id) == claimed
        return claimed if mine else None

    @once_more
    def _due(self, field: str, now: datetime, limit: int) -> list[Job]:
        with reachable():
            found = self._jobs.find({field: {"$lte": now}}).sort(field, ASCENDING)
            with found.batch_size(limit):
                return list(islice((job for job in map(_readable, found) if job), limit))

    def change(self, job_id: str, change: Change, known: Job | None = None) -> Changed | None:
        """Compare-and-set: stores what `change` makes of the job, if its version is still the one it saw.

        `known` spares the first read. None: no such job, or `change` found nothing to change.
        Raises DuplicateJob if the change makes the job active while another one of the site is, Conflict if
        others win every time.
        """
        before = known
        for _ in range(MAX_CONFLICTS):
            before = before or self.get(job_id)
            after = change(before) if before else None
            if before is None or after is None:
                return None
            after = with_next_check(after.replace(version=before.version + 1))
            if self._replace(before, after):
                return Changed(before, after)
            before = None
        raise Conflict(f"job {job_id} kept changing")

    def _replace(self, before: Job, after: Job) -> bool:
        """Writes only the fields that differ, so that a field of a newer release survives an older one.

        After a lost answer the same compare-and-set is safe to send again: at most one of the two matches. If none
        does, what is stored tells whether the first one did.
        """
        try:
            return self._compare_and_set(before, after)
        except AnswerLost:
            return self._compare_and_set(before, after) or self.get(after.id) == after

    def _compare_and_set(self, before: Job, after: Job) -> bool:
        changes, gone = differences(before.to_document(), after.to_document())
        update: dict[str, Any] = {"$set": changes}
        if gone:
            update["$unset"] = dict.fromkeys(gone, "")
        try:
            with reachable():
                result = self._jobs.update_one({"_id": before.id, "version": before.version}, update)
        except DuplicateKeyError as error:
            raise DuplicateJob from error
        return result.matched_count == 1

    @once_more
    def _first(self, query: Mapping[str, Any]) -> Job | None:
        with reachable():
            found = self._jobs.find_one(query)
        return Job.from_document(found) if found else None

    # --- parts

    @once_more
    def save_part(self, upload_id: str, part: Part, now: datetime) -> None:
        """The part is done. A part that is moved twice keeps what S3 said last."""
        document = {**part.to_document(), "writtenAt": now}
        with reachable():
            self._parts.replace_one({"_id": _part_id(upload_id, part.number)}, document, upsert=True)

    @once_more
    def save_wait(self, upload_id: str, number: int, wait: PartWait, now: datetime) -> None:
        """A try of the part begins, or it waits after a transient error. A part that is done stays done."""
        document = {**wait.to_document(), "number": number, "writtenAt": now}
        not_done = {"_id": _part_id(upload_id, number), _DONE: {"$exists": False}}
        try:
            with reachable():
                self._parts.replace_one(not_done, document, upsert=True)
        except DuplicateKeyError:
            return

    @once_more
    def end_waits(self, upload_id: str, numbers: Collection[int]) -> None:
        """These parts are about to be sent again: they wait no more."""
        with reachable():
            for some in batched(numbers, IDS_AT_ONCE):
                ids = [_part_id(upload_id, number) for number in some]
                self._parts.update_many(
                    {"_id": {"$in": ids}, _DONE: {"$exists": False}}, {"$unset": {"nextTryAt": ""}}
                )

    @once_more
    def lose_part(self, upload_id: str, number: int, wait: PartWait, now: datetime) -> None:
        """S3 has lost a part that was done: it waits to be moved again."""
        document = {**wait.to_document(), "number": number, "writtenAt": now}
        with reachable():
            self._parts.replace_one({"_id": _part_id(upload_id, number)}, document, upsert=True)

    @once_more
    def done_parts(self, upload_id: str, numbers: range | None = None) -> list[Part]:
        """Done parts, in order: those of `numbers` by their ids, or all of the upload by one scan of its ids.

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
    def missing_parts(self, upload_id: str, numbers: range) -> dict[int, PartWait]:
        """Those of `numbers` that are not done, in order, with what is remembered of them."""
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
        """Of these (uploadId, number), those that are done; one read."""
        ids = {_part_id(*part): part for part in parts}
        with reachable():
            found = self._parts.find({"_id": {"$in": sorted(ids)}}, {"_id": 1, _DONE: 1})
            return {ids[record["_id"]] for record in found if _DONE in record}


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """What to set and what to unset so that `old` becomes `new`, by dotted path.

    Tasks are compared field by field, other values as a whole: a task has several writers and may have got fields
    of a newer release, too.
    """
    changes: dict[str, Any] = {}
    gone: list[str] = []

    def compare(old: Mapping[str, Any], new: Mapping[str, Any], path: str, depth: int) -> None:
        gone.extend(f"{path}{name}" for name in old.keys() - new.keys())
        for name, value in new.items():
            if depth and isinstance(value, dict) and isinstance(old.get(name), dict):
                compare(old[name], value, f"{path}{name}.", depth - 1)
            elif old.get(name) != value:
                changes[f"{path}{name}"] = value

    compare({**old, "tasks": {}}, {**new, "tasks": {}}, "", 0)
    compare(old.get("tasks", {}), new.get("tasks", {}), "tasks.", 1)
    return changes, gone


def _readable(document: dict[str, Any]) -> Job | None:
    try:
        return Job.from_document(document)
    except msgspec.ValidationError as error:
        logger.error("job can't be read", extra={"jobId": str(document.get("_id")), "error": str(error)})
        return None


def with_next_check(job: Job) -> Job:
    """What the `due` index is on is derived where a document is written, so no transition can forget it (I8)."""
    return job.replace(next_check_at=job.earliest_check)


def _part_id(upload_id: str, number: int) -> str:
    """Zero-padded, so that ids sort by number."""
    return f"{upload_id}:{number:05d}"


def connect(uri: str) -> MongoClient[dict[str, Any]]:
    """A client that gives up after about 3 s. No retryable writes: DocumentDB has none.

    A connection that was idle for 4 minutes is not used again, since NAT gateways and load balancers forget one after
    350 s and an environment that was frozen has not noticed. `once_more` makes up for one that dies sooner.
    """
    return MongoClient(
        uri,
        tz_aware=True,
        retryWrites=False,
        retryReads=False,  # `once_more` does it
        serverSelectionTimeoutMS=3000,
        connectTimeoutMS=3000,
        socketTimeoutMS=10_000,
        maxPoolSize=8,
        maxIdleTimeMS=240_000,
    )
