"""Jobs in MongoDB or Amazon DocumentDB.

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
from ...telemetry import logger
from .connection import once_more, reachable, settled
from .documents import differences, from_document, job_document
from .indexes import SITE_NEWEST_FIRST, create_job_indexes


class MongoJobs:
    """A JobRepository: one document for each job."""

    def __init__(self, client: MongoClient[dict[str, Any]], database: str) -> None:
        self._database = client[database]
        self._jobs = self._database["jobs"]
        self._indexed = False

    def add(self, job: Job) -> None:
        """The first call of a process makes sure of the indexes: without them nothing would be refused."""
        if not self._indexed:
            create_job_indexes(self._database)
            self._indexed = True
        if not settled(lambda: self._insert(job), lambda: self.get(job.id) is not None):
            raise DuplicateJob

    def _insert(self, job: Job) -> bool:
        try:
            with reachable():
                self._jobs.insert_one(job_document(job.with_next_check()))
        except DuplicateKeyError:
            return False
        return True

    def get(self, job_id: str) -> Job | None:
        return self._first({"_id": job_id})

    def active(self, user_id: str, site_id: str) -> Job | None:
        return self._first({"userId": user_id, "siteId": site_id, "active": True})

    def by_idempotency_key(self, key: str) -> Job | None:
        """The query repeats the index's condition: without that DocumentDB does not use a partial index."""
        return self._first({"idempotencyKey": {"$exists": True, "$eq": key}})

    @once_more
    def version(self, job_id: str) -> int | None:
        with reachable():
            found = self._jobs.find_one({"_id": job_id}, {"version": 1})
        return int(found["version"]) if found else None

    @once_more
    def page(self, filters: Mapping[str, str], limit: int, before: str | None) -> list[Job]:
        """Reads on where documents can't be read, so that only the last page is short."""
        query: dict[str, Any] = dict(filters)
        if before:
            query["_id"] = {"$lt": before}
        # A site's jobs are read by the site's index, whatever else is asked: that of a status has all sites' jobs.
        newest_first = SITE_NEWEST_FIRST if "siteId" in filters else [("_id", DESCENDING)]
        jobs: list[Job] = []
        while len(jobs) < limit:
            wanted = limit - len(jobs)
            with reachable():
                found = list(self._jobs.find(query).sort(newest_first).limit(wanted))
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
            return self._jobs.find_one(query, {"_id": 1}, sort=SITE_NEWEST_FIRST) is not None

    @once_more
    def delete_record(self, job: Job) -> bool:
        with reachable():
            return self._jobs.delete_one({"_id": job.id, "version": job.version}).deleted_count == 1

    def due(self, now: datetime, limit: int) -> list[Job]:
        return self._due("nextCheckAt", now, limit)

    def due_for_clean_up(self, now: datetime, limit: int) -> list[Job]:
        return self._due("cleanUpAt", now, limit)

    def claim_check(self, job: Job, until: datetime) -> Job | None:
        return self._claim("nextCheckAt", job, job.replace(next_check_at=until))

    def claim_clean_up(self, job: Job, until: datetime) -> Job | None:
        return self._claim("cleanUpAt", job, job.replace(clean_up_at=until))

    def _claim(self, field: str, seen: Job, claimed: Job) -> Job | None:
        due = {"_id": seen.id, "version": seen.version, field: job_document(seen)[field]}
        taken = {"$set": {field: job_document(claimed)[field]}}

        def take() -> bool:
            with reachable():
                return self._jobs.update_one(due, taken).matched_count == 1

        return claimed if settled(take, lambda: self.get(seen.id) == claimed) else None

    @once_more
    def _due(self, field: str, now: datetime, limit: int) -> list[Job]:
        with reachable():
            found = self._jobs.find({field: {"$lte": now}}).sort(field, ASCENDING)
            with found.batch_size(limit):
                return list(islice((job for job in map(_readable, found) if job), limit))

    def replace(self, before: Job, after: Job) -> bool:
        """Writes only the fields that differ, so that a field of a newer release survives an older one."""
        after = after.with_next_check()
        return settled(lambda: self._compare_and_set(before, after), lambda: self.get(after.id) == after)

    def _compare_and_set(self, before: Job, after: Job) -> bool:
        changes, gone = differences(job_document(before), job_document(after))
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
        return from_document(Job, found, "id") if found else None


def _readable(document: dict[str, Any]) -> Job | None:
    try:
        return from_document(Job, document, "id")
    except msgspec.ValidationError as error:
        logger.error("job can't be read", extra={"jobId": str(document.get("_id")), "error": str(error)})
        return None
