"""The indexes of jobs, restores and parts."""

from typing import Any

from pymongo import ASCENDING, DESCENDING
from pymongo.database import Database

from .connection import once_more, reachable

PART_RECORDS_KEPT_SECONDS = 45 * 24 * 3600
"""Longer than any upload's grace; a TTL index then drops the records of parts."""
SITE_NEWEST_FIRST = [("siteId", ASCENDING), ("_id", DESCENDING)]

UNIQUE_SLOTS: dict[str, Any] = {
    "keys": [("slot", ASCENDING)],
    "name": "one_owner_per_slot",
    "unique": True,
    "partialFilterExpression": {"slot": {"$exists": True}},
}
"""Arguments of `create_index`: however many take a slot of a user at once, one gets it."""


@once_more
def create_job_indexes(database: Database[dict[str, Any]]) -> None:
    """Idempotent. Raises RepositoryUnavailable.

    DocumentDB knows no `$in` in a partial index: nothing here needs it.
    """
    jobs = database["jobs"]
    with reachable():
        # First, as the sweep may look meanwhile; not sparse:
        # see docs/decisions/0053-what-is-due-is-in-a-plain-index.md
        jobs.create_index([("kind", ASCENDING), ("nextCheckAt", ASCENDING)], name="due")
        jobs.create_index([("kind", ASCENDING), ("cleanUpAt", ASCENDING)], name="due_for_clean_up")
        jobs.create_index(
            [("userId", ASCENDING), ("siteId", ASCENDING)],
            name="one_active_job_per_site",
            unique=True,
            partialFilterExpression={"active": True},
        )
        jobs.create_index(
            [("idempotencyKey", ASCENDING)],
            name="one_job_per_idempotency_key",
            unique=True,
            partialFilterExpression={"idempotencyKey": {"$exists": True}},
        )
        jobs.create_index(**UNIQUE_SLOTS)
        jobs.create_index(
            [("userId", ASCENDING), ("heldBytes", ASCENDING)],
            name="held_bytes_of_user",
            partialFilterExpression={"heldBytes": {"$exists": True}},
        )
        jobs.create_index(
            [("userId", ASCENDING), ("createdAt", ASCENDING)],
            name="restores_of_user",
            partialFilterExpression={"kind": "restore"},
        )
        jobs.create_index(SITE_NEWEST_FIRST, name="site_newest_first")
        jobs.create_index([("userId", ASCENDING), ("_id", DESCENDING)], name="user_newest_first")
        jobs.create_index([("kind", ASCENDING), ("_id", DESCENDING)], name="kind_newest_first")
        jobs.create_index(
            [("kind", ASCENDING), ("status", ASCENDING), ("_id", DESCENDING)], name="status_newest_first"
        )
        jobs.create_index("damaged", name="damaged", sparse=True)
        jobs.create_index([("jobId", ASCENDING), ("_id", DESCENDING)], name="restores_of_job", sparse=True)
        jobs.create_index("forgetAt", name="forget", expireAfterSeconds=0)
        database["parts"].create_index(
            "writtenAt", name="forget", expireAfterSeconds=PART_RECORDS_KEPT_SECONDS
        )
