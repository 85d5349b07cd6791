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
from .connection import AnswerLost, once_more, reachable
from .documents import differences, from_document, job_document
from .indexes import SITE_NEWEST_FIRST, create_job_indexes


class MongoJobs:
    """One document for each job."""

    def __init__(self, client: MongoClient[dict[str, Any]], database: str) -> None:
        self._database = client[database]
        self._jobs = self._database["jobs"]
        self._indexed = False

    def add(self, job: Job) -> None:
        """Raises DuplicateJob if the site has an active job or the idempotency key is taken.

        The first call of a process makes sure of the indexes: without them nothing would be refused.
        """
        if not self._indexed:
            create_job_indexes(self._database)
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
                self._jobs.insert_one(job_document(job.with_next_check()))
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
        """Only the version: what a long poll reads twice a second."""
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

        Good is what is done, whole, no safety backup, and what nobody asked to delete; a zip without members is never
        newer than one with members. Costs a read a provider at most, which ends at the first newer object.
        """
        return job.safety_for is None and any(
            not self._has_newer_good(job, provider) for provider in job.tasks
        )

    @once_more
    def _has_newer_good(self, job: Job, provider: str) -> bool:
        task = job.tasks[provider]
        query: dict[str, Any] = {
            "userId": job.user_id,
            "siteId": job.site_id,
            "status": "done",
            "deleteCause": {"$ne": "requested"},
            "removingAt": {"$exists": False},
            "safetyFor": {"$exists": False},
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
        """Removes the record, if the job's version is still this one. False after a lost answer."""
        with reachable():
            return self._jobs.delete_one({"_id": job.id, "version": job.version}).deleted_count == 1

    def due(self, now: datetime, limit: int) -> list[Job]:
        """Unfinished jobs whose `nextCheckAt` has come, the longest due first.

        A document that can't be read is logged and does not count against `limit`.
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
        due = {"_id": seen.id, "version": seen.version, field: job_document(seen)[field]}
        taken = {"$set": {field: job_document(claimed)[field]}}
        try:
            with reachable():
                mine = self._jobs.update_one(due, taken).matched_count == 1
        except AnswerLost:  # as in `replace`
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

    def replace(self, before: Job, after: Job) -> bool:
        """Writes only the fields that differ, so that a field of a newer release survives an older one.

        After a lost answer the same compare-and-set is safe to send again: at most one of the two matches. If none
        does, what is stored tells whether the first one did.
        """
        after = after.with_next_check()
        try:
            return self._compare_and_set(before, after)
        except AnswerLost:
            return self._compare_and_set(before, after) or self.get(after.id) == after

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
