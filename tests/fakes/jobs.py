"""Jobs in memory, as the contract suite of the JobRepository asks for them."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from sitebackup.domain.errors import DuplicateJob
from sitebackup.domain.job import DeleteCause, Job, Status, Task
from tests.fakes.faults import Fake, FaultInjector, no_faults, port_call

type Stored = Callable[[Job, Job], None]
"""Told of every change that is stored: the job before and after it."""


class MemoryJobs(Fake):
    """Documents, as they would be written: what a job does not store is not read again."""

    port = "jobs"

    def __init__(self, faults: FaultInjector = no_faults) -> None:
        super().__init__(faults)
        self.documents: dict[str, dict[str, Any]] = {}
        self.on_stored: Stored = lambda before, after: None

    def all(self) -> list[Job]:
        """Every job, in the order of their creation; no call of the port."""
        return [Job.from_document(document) for document in self.documents.values()]

    def put(self, job: Job) -> None:
        """Stores a job in any state, whatever is there; no call of the port."""
        self.documents[job.id] = job.to_document()

    @port_call
    def add(self, job: Job) -> None:
        if job.id in self.documents:
            raise DuplicateJob
        self._refuse_duplicate(job)
        self.put(job.with_next_check())

    @port_call
    def get(self, job_id: str) -> Job | None:
        return self._get(job_id)

    @port_call
    def active(self, user_id: str, site_id: str) -> Job | None:
        site = (user_id, site_id)
        return next((job for job in self.all() if job.is_active and (job.user_id, job.site_id) == site), None)

    @port_call
    def by_idempotency_key(self, key: str) -> Job | None:
        return next((job for job in self.all() if job.idempotency_key == key), None)

    @port_call
    def version(self, job_id: str) -> int | None:
        job = self._get(job_id)
        return job.version if job else None

    @port_call
    def page(self, filters: Mapping[str, str], limit: int, before: str | None) -> list[Job]:
        found = [
            Job.from_document(document)
            for job_id, document in sorted(self.documents.items(), reverse=True)
            if all(document.get(name) == value for name, value in filters.items())
            and (before is None or job_id < before)
        ]
        return found[:limit]

    @port_call
    def replace(self, before: Job, after: Job) -> bool:
        if self._version(before.id) != before.version:
            return False
        self._refuse_duplicate(after)
        old, new, document = before.to_document(), after.to_document(), self.documents[before.id]
        document.update({name: value for name, value in new.items() if old.get(name) != value})
        for name in old.keys() - new.keys():
            document.pop(name, None)
        self.on_stored(before, after)
        return True

    @port_call
    def due(self, now: datetime, limit: int) -> list[Job]:
        return self._due("nextCheckAt", now, limit)

    @port_call
    def due_for_clean_up(self, now: datetime, limit: int) -> list[Job]:
        return self._due("cleanUpAt", now, limit)

    def _due(self, field: str, now: datetime, limit: int) -> list[Job]:
        due = [
            document for document in self.documents.values() if field in document and document[field] <= now
        ]
        due.sort(key=lambda document: document[field])
        return [Job.from_document(document) for document in due[:limit]]

    @port_call
    def claim_check(self, job: Job, until: datetime) -> Job | None:
        return self._claim("nextCheckAt", job, job.replace(next_check_at=until))

    @port_call
    def claim_clean_up(self, job: Job, until: datetime) -> Job | None:
        return self._claim("cleanUpAt", job, job.replace(clean_up_at=until))

    def _claim(self, field: str, seen: Job, claimed: Job) -> Job | None:
        document = self.documents.get(seen.id, {})
        if document.get("version") != seen.version or document.get(field) != seen.to_document()[field]:
            return None
        document[field] = claimed.to_document()[field]
        return claimed

    @port_call
    def holds_newest_good(self, job: Job) -> bool:
        return job.safety_for is None and any(
            not self._has_newer_good(job, provider) for provider in job.tasks
        )

    def _has_newer_good(self, job: Job, provider: str) -> bool:
        return any(
            _rank(other.tasks[provider]) > _rank(job.tasks[provider])
            for other in self.all()
            if (other.user_id, other.site_id, other.status) == (job.user_id, job.site_id, Status.DONE)
            and other.delete_cause is not DeleteCause.REQUESTED
            and other.removing_at is None
            and other.safety_for is None
            and provider in other.tasks
        )

    @port_call
    def delete_record(self, job: Job) -> bool:
        if self._version(job.id) != job.version:
            return False
        del self.documents[job.id]
        return True

    def _get(self, job_id: str) -> Job | None:
        document = self.documents.get(job_id)
        return Job.from_document(document) if document else None

    def _version(self, job_id: str) -> int | None:
        document = self.documents.get(job_id)
        return int(document["version"]) if document else None

    def _refuse_duplicate(self, new: Job) -> None:
        for other in self.all():
            if other.id == new.id:
                continue
            if other.is_active and new.is_active and _site(other) == _site(new):
                raise DuplicateJob
            if other.idempotency_key is not None and other.idempotency_key == new.idempotency_key:
                raise DuplicateJob


def _site(job: Job) -> tuple[str, str]:
    return job.user_id, job.site_id


def _rank(task: Task) -> tuple[bool, datetime]:
    """The higher, the newer as a good backup: with members before without, then by time."""
    assert task.finished_at is not None
    empty = task.object is not None and task.object.members == 0
    return not empty, task.finished_at
