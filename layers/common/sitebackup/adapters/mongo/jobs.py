"""Backups in MongoDB or Amazon DocumentDB."""

from collections.abc import Collection
from datetime import datetime
from typing import Any

from pymongo import DESCENDING, MongoClient

from ...domain.job import Job
from .connection import once_more, reachable
from .indexes import SITE_NEWEST_FIRST
from .site_documents import SiteDocuments


class MongoJobs(SiteDocuments[Job]):
    """One document for each job."""

    def __init__(self, client: MongoClient[dict[str, Any]], database: str) -> None:
        super().__init__(client, database, Job)

    def holds_newest_good(self, job: Job) -> bool:
        """Whether an object of the done job is the newest good one of its provider for this site (I19).

        Good is what is done, whole, no safety backup, not damaged, and what nobody asked to delete; a zip without
        members is never newer than one with members. Costs a read a provider at most, which ends at the
        first newer object.
        """
        return job.safety_for is None and any(
            not task.is_damaged and not self._has_newer_good(job, provider)
            for provider, task in job.tasks.items()
        )

    @once_more
    def _has_newer_good(self, job: Job, provider: str) -> bool:
        task = job.tasks[provider]
        query = _good_objects(job.user_id, job.site_id, provider)
        newer = {f"tasks.{provider}.finishedAt": {"$gt": task.finished_at}}
        has_members = {f"tasks.{provider}.object.members": {"$ne": 0}}
        if task.object and task.object.members == 0:
            query["$or"] = [newer, has_members]
        else:
            query |= newer | has_members
        with reachable():
            # A newer object is most likely among the site's newest jobs. By `_id` alone other indexes would serve as
            # well, and pass over the jobs of other sites where there is none.
            return self._documents.find_one(query, {"_id": 1}, sort=SITE_NEWEST_FIRST) is not None

    @once_more
    def newest_good_object(self, user_id: str, site_id: str, provider: str) -> Job | None:
        """By the index of the site. A retry keeps what is done, so the newest job need not have the newest object."""
        query = _good_objects(user_id, site_id, provider)
        latest = [(f"tasks.{provider}.finishedAt", DESCENDING)]
        for better in ({f"tasks.{provider}.object.members": {"$ne": 0}}, {}):
            with reachable():
                found = self._documents.find_one(query | better, sort=latest)
            if found:
                return self._readable(found)
        return None

    @once_more
    def delete_record(self, job: Job) -> bool:
        with reachable():
            return self._documents.delete_one({"_id": job.id, "version": job.version}).deleted_count == 1

    @once_more
    def newest_good(
        self, user_id: str, site_id: str, before: datetime, providers: Collection[str]
    ) -> Job | None:
        """The query ends at the first that fits, among the site's jobs from the newest on."""
        query = {
            "userId": user_id,
            "siteId": site_id,
            "kind": Job.kind,
            "status": "done",
            "finishedAt": {"$lte": before},
            "removingAt": {"$exists": False},
            "safetyFor": {"$exists": False},
            **{f"tasks.{provider}.status": "done" for provider in providers},
            **{f"tasks.{provider}.drill.state": {"$ne": "damaged"} for provider in providers},
        }
        if not providers:
            query["damaged"] = {"$exists": False}
        with reachable():
            found = self._documents.find_one(query, sort=SITE_NEWEST_FIRST)
        return self._readable(found) if found else None

    @once_more
    def damaged(self, limit: int) -> list[str]:
        """By an index that only damaged jobs are in."""
        query = {
            "damaged": {"$exists": True, "$eq": True},
            "status": "done",
            "deleteAt": {"$exists": False},
        }
        with reachable():
            return [found["_id"] for found in self._documents.find(query, {"_id": 1}).limit(limit)]

    def due_for_clean_up(self, now: datetime, limit: int) -> list[Job]:
        return self._due("cleanUpAt", now, limit)

    def claim_clean_up(self, job: Job, until: datetime) -> Job | None:
        return self._claim("cleanUpAt", job, job.replace(clean_up_at=until))


def _good_objects(user_id: str, site_id: str, provider: str) -> dict[str, Any]:
    """Done jobs of the site that have one of the provider."""
    return {
        "userId": user_id,
        "siteId": site_id,
        "kind": Job.kind,
        "status": "done",
        "deleteCause": {"$ne": "requested"},
        "removingAt": {"$exists": False},
        "safetyFor": {"$exists": False},
        f"tasks.{provider}.status": "done",
        f"tasks.{provider}.drill.state": {"$ne": "damaged"},
    }
