"""Backups and restores in memory, as the contract suite of their repositories asks for them."""

from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from typing import Any

from sitebackup.domain.errors import DuplicateJob
from sitebackup.domain.job import DeleteCause, Job, Status, Task
from sitebackup.domain.principal import Access
from sitebackup.domain.restore import Restore
from sitebackup.ports.repositories import SiteClaim
from tests.fakes.faults import Fake, FaultInjector, no_faults, port_call

type Claimed = dict[str, Job | Restore]
"""By id, what is active: shared by all kinds, since a site has one claim."""


class MemoryDocuments[D: (Job, Restore)](Fake):
    """Documents, as they would be written: what one does not store is not read again."""

    def __init__(
        self, model: type[D], faults: FaultInjector = no_faults, claimed: Claimed | None = None
    ) -> None:
        super().__init__(faults)
        self.model: type[D] = model
        self.claimed: Claimed = {} if claimed is None else claimed
        self.documents: dict[str, dict[str, Any]] = {}
        self.on_stored: Callable[[D, D], None] = lambda before, after: None
        """Told of every change that is stored: the document before and after it."""
        self.on_added: Callable[[D], None] = lambda document: None
        """Told of every new one."""

    def all(self) -> list[D]:
        """Every one, in the order of their creation; no call of the port."""
        return [self.model.from_document(document) for document in self.documents.values()]

    def put(self, document: D) -> None:
        """Stores one in any state, whatever is there; no call of the port."""
        self.documents[document.id] = document.to_document()
        self._claim_site(document)

    def _claim_site(self, document: D) -> None:
        self.claimed.pop(document.id, None)
        if document.claims_site:
            self.claimed[document.id] = document

    @port_call
    def create_indexes(self) -> None:
        """There are none to make."""

    @port_call
    def add(self, document: D) -> None:
        if document.id in self.documents:
            raise DuplicateJob
        self._refuse_duplicate(document)
        self.put(document.with_next_check())
        self.on_added(document)

    @port_call
    def get(self, document_id: str) -> D | None:
        return self._get(document_id)

    @port_call
    def claim_of(self, user_id: str, site_id: str) -> SiteClaim | None:
        for found in self.claimed.values():
            if _site(found) == (user_id, site_id):
                return SiteClaim(found.kind, found.id, found.status, found.sites)
        return None

    @port_call
    def by_idempotency_key(self, key: str) -> D | None:
        return next((found for found in self.all() if found.idempotency_key == key), None)

    @port_call
    def get_for(self, access: Access, document_id: str) -> D | None:
        return self._get_for(access, document_id)

    @port_call
    def version_for(self, access: Access, document_id: str) -> int | None:
        found = self._get_for(access, document_id)
        return found.version if found else None

    def _get_for(self, access: Access, document_id: str) -> D | None:
        found = self._get(document_id)
        return found if found and access.sees(found.user_id, found.sites) else None

    @port_call
    def page(self, filters: Mapping[str, str], limit: int, before: str | None) -> list[D]:
        return self._page(filters, before)[:limit]

    @port_call
    def page_for(self, access: Access, filters: Mapping[str, str], limit: int, before: str | None) -> list[D]:
        found = self._page(filters, before)
        return [document for document in found if access.sees(document.user_id, document.sites)][:limit]

    def _page(self, filters: Mapping[str, str], before: str | None) -> list[D]:
        return [
            self.model.from_document(document)
            for document_id, document in sorted(self.documents.items(), reverse=True)
            if all(document.get(name) == value for name, value in filters.items())
            and (before is None or document_id < before)
        ]

    @port_call
    def replace(self, before: D, after: D) -> bool:
        if self._version(before.id) != before.version:
            return False
        self._refuse_duplicate(after)
        old, new, document = before.to_document(), after.to_document(), self.documents[before.id]
        document.update({name: value for name, value in new.items() if old.get(name) != value})
        for name in old.keys() - new.keys():
            document.pop(name, None)
        self._claim_site(after)
        self.on_stored(before, after)
        return True

    @port_call
    def due(self, now: datetime, limit: int) -> list[D]:
        return self._due("nextCheckAt", now, limit)

    def _due(self, field: str, now: datetime, limit: int) -> list[D]:
        due = [
            document for document in self.documents.values() if field in document and document[field] <= now
        ]
        due.sort(key=lambda document: document[field])
        return [self.model.from_document(document) for document in due[:limit]]

    @port_call
    def claim_check(self, seen: D, until: datetime) -> D | None:
        return self._claim("nextCheckAt", seen, seen.replace(next_check_at=until))

    def _claim(self, field: str, seen: D, claimed: D) -> D | None:
        document = self.documents.get(seen.id, {})
        if document.get("version") != seen.version or document.get(field) != seen.to_document()[field]:
            return None
        document[field] = claimed.to_document()[field]
        return claimed

    def _get(self, document_id: str) -> D | None:
        document = self.documents.get(document_id)
        return self.model.from_document(document) if document else None

    def _version(self, document_id: str) -> int | None:
        document = self.documents.get(document_id)
        return int(document["version"]) if document else None

    def _refuse_duplicate(self, new: D) -> None:
        if new.claims_site and any(
            found.id != new.id and _site(found) == _site(new) for found in self.claimed.values()
        ):
            raise DuplicateJob
        if new.slot is not None and any(found.slot == new.slot for found in self.all() if found.id != new.id):
            raise DuplicateJob
        key = new.idempotency_key
        if key is not None and any(
            found.idempotency_key == key for found in self.all() if found.id != new.id
        ):
            raise DuplicateJob


class MemoryRestores(MemoryDocuments[Restore]):
    """Restores, whose claims are those of `jobs` as well."""

    port = "restores"

    def __init__(self, jobs: "MemoryJobs", faults: FaultInjector = no_faults) -> None:
        super().__init__(Restore, faults, jobs.claimed)


class MemoryJobs(MemoryDocuments[Job]):
    """Backups."""

    port = "jobs"

    def __init__(self, faults: FaultInjector = no_faults) -> None:
        super().__init__(Job, faults)

    @port_call
    def due_for_clean_up(self, now: datetime, limit: int) -> list[Job]:
        return self._due("cleanUpAt", now, limit)

    @port_call
    def claim_clean_up(self, job: Job, until: datetime) -> Job | None:
        return self._claim("cleanUpAt", job, job.replace(clean_up_at=until))

    @port_call
    def holds_newest_good(self, job: Job) -> bool:
        return job.safety_for is None and any(
            not task.is_damaged and not self._has_newer_good(job, provider)
            for provider, task in job.tasks.items()
        )

    def _has_newer_good(self, job: Job, provider: str) -> bool:
        return any(
            _rank(other.tasks[provider]) > _rank(job.tasks[provider])
            for other in self.all()
            if _site(other) == _site(job) and _is_good(other, provider)
        )

    @port_call
    def damaged(self, limit: int) -> list[str]:
        found = [
            job.id
            for job in self.all()
            if job.damaged and job.status is Status.DONE and job.delete_at is None
        ]
        return found[:limit]

    @port_call
    def newest_good_object(self, user_id: str, site_id: str, provider: str) -> Job | None:
        own = [job for job in self.all() if _site(job) == (user_id, site_id) and _is_good(job, provider)]
        return max(own, key=lambda job: _rank(job.tasks[provider]), default=None)

    @port_call
    def delete_record(self, job: Job) -> bool:
        if self._version(job.id) != job.version:
            return False
        del self.documents[job.id]
        return True

    @port_call
    def newest_good(
        self, user_id: str, site_id: str, before: datetime, providers: Collection[str]
    ) -> Job | None:
        fitting = [
            job
            for job in self.all()
            if (job.user_id, job.site_id, job.status) == (user_id, site_id, Status.DONE)
            and job.finished_at is not None
            and job.finished_at <= before
            and job.removing_at is None
            and job.safety_for is None
            and job.tasks.keys() >= set(providers)
            and not any(job.tasks[name].is_damaged for name in providers or job.tasks)
        ]
        return max(fitting, key=lambda job: job.id, default=None)


def _site(found: Job | Restore) -> tuple[str, str]:
    return found.user_id, found.site_id


def _is_good(job: Job, provider: str) -> bool:
    """Whether it has a good object of the provider (I19)."""
    return (
        job.status is Status.DONE
        and job.delete_cause is not DeleteCause.REQUESTED
        and job.removing_at is None
        and job.safety_for is None
        and provider in job.tasks
        and not job.tasks[provider].is_damaged
    )


def _rank(task: Task) -> tuple[bool, datetime]:
    """The higher, the newer as a good backup: with members before without, then by time."""
    assert task.finished_at is not None
    empty = task.object is not None and task.object.members == 0
    return not empty, task.finished_at
