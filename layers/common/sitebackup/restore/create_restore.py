"""Creates a restore, or says what one would do."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Literal

import msgspec

from ..backup.create_job import checked_key, site_claimed
from ..backup.quotas import MAX_COLLISIONS, Quotas
from ..domain.errors import (
    BadRequest,
    Conflict,
    DuplicateJob,
    IdempotencyKeyReused,
    NotFound,
    RestoreUnsupported,
    StateForbids,
    Unavailable,
)
from ..domain.job import Job, Status, StoredObject
from ..domain.model import Id, Model, ProviderName
from ..domain.principal import Access
from ..domain.provider import Provider
from ..domain.quota import OverQuota
from ..domain.restore import Restore, RestoreStatus, RestoreTask
from ..ports.repositories import JobRepository
from ..telemetry import logger
from .advance_restore import AdvanceRestore
from .recorder import RestoreRecorder

Providers = Annotated[
    list[ProviderName] | Literal["all"],
    msgspec.Meta(description='a list of names of providers, with at least one, or "all"'),
]
Flag = Annotated[bool, msgspec.Meta(description="true or false")]


class RestoreRequest(Model, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /restores`. An error about a field quotes its description."""

    user_id: Id
    site_id: Id
    """The site of the backup."""
    job_id: Id | None = None
    before: Annotated[str, msgspec.Meta(description="a time like 2030-01-31T12:00:00Z")] | None = None
    """Instead of `job_id`: the newest good backup of that time."""
    providers: Providers
    target_site_id: Id | None = None
    """Another site of the user that is restored."""
    safety_backup: Flag = True
    dry_run: Flag = False

    @property
    def sites(self) -> tuple[str, ...]:
        """The site that is restored, and that of the backup."""
        return (self.target_site_id or self.site_id, self.site_id)


@dataclass(frozen=True)
class CreateRestore:
    """State first: once the document is stored the restore will happen, whatever becomes of the rest of the call."""

    recorder: RestoreRecorder
    jobs: JobRepository
    quotas: Quotas
    advance: AdvanceRestore
    providers: Mapping[str, Provider]
    new_id: Callable[[], str]

    def __call__(
        self,
        access: Access,
        request: RestoreRequest,
        before: datetime | None,
        idempotency_key: str | None,
    ) -> Restore:
        """The new restore, or the one that the user made before with this key. `before` is that of the request.

        Raises NotYourUser, BadRequest, NotFound, StateForbids, RestoreUnsupported, OverQuota, ActiveJob,
        IdempotencyKeyReused, RepositoryUnavailable or Conflict.
        """
        access.check(request.user_id, *request.sites)
        key = checked_key(f"{request.user_id}:restore", idempotency_key)
        digest = _digest(request) if key else None
        if same := self._repeated(request, key, digest):
            return same
        job, objects = self.what(access, request, before)
        now = self.recorder.now()
        restore = Restore(
            id=self.new_id(),
            user_id=request.user_id,
            site_id=request.target_site_id or request.site_id,
            job_id=job.id,
            source_site_id=job.site_id,
            status=RestoreStatus.PENDING,
            version=1,
            tasks={name: RestoreTask(object=stored) for name, stored in objects.items()},
            safety_backup=request.safety_backup,
            created_at=now,
            updated_at=now,
            is_pinning=True,
            step_at=self.recorder.moment().in_seconds(self.recorder.policy.start_seconds),
            idempotency_key=key,
            request_digest=digest,
        )
        restore, is_new = self._store(access, restore, request)
        if not is_new:
            return restore
        try:
            self.advance(restore.id)
        except (Unavailable, Conflict) as error:
            extra = {"restoreId": restore.id, "error": str(error)}
            logger.warning("the restore's first step is left to the sweep", extra=extra)
        return self.recorder.restores.get(restore.id) or restore

    def _store(self, access: Access, restore: Restore, request: RestoreRequest) -> tuple[Restore, bool]:
        """The restore in a slot of its day; or the one that was made of the same request meanwhile."""
        for _ in range(MAX_COLLISIONS):
            try:
                restore = restore.replace(slot=self.quotas.restore_slot(restore.user_id, restore.id))
                self.recorder.create(restore)
            except (DuplicateJob, OverQuota) as error:
                if same := self._repeated(request, restore.idempotency_key, restore.request_digest):
                    return same, False
                if isinstance(error, OverQuota):
                    raise
                claim = self.jobs.claim_of(restore.user_id, restore.site_id)
                if claim or restore.slot is None:
                    raise site_claimed(claim, access, restore.user_id) from None
            else:
                return restore, True
        raise Conflict("others kept taking the slots that were free")

    def what(
        self, access: Access, request: RestoreRequest, before: datetime | None
    ) -> tuple[Job, dict[str, StoredObject]]:
        """The backup, and which of its objects are given back, by provider. Raises as the call itself does."""
        access.check(request.user_id, *request.sites)
        named = [] if request.providers == "all" else list(request.providers)
        if request.providers != "all" and not named:
            raise BadRequest('providers: must be a list of names of providers, with at least one, or "all"')
        if len(set(named)) < len(named):
            raise BadRequest("providers: a provider is named twice")
        job = self._backup(access, request, before, named)
        for position, name in enumerate(named):
            if name not in job.tasks:
                there_are = ", ".join(job.tasks)
                raise BadRequest(f"providers[{position}]: not in backup {job.id}; it has: {there_are}")
        objects = {name: stored for name in named or job.tasks if (stored := job.tasks[name].object)}
        if damaged := [name for name in objects if job.tasks[name].is_damaged]:
            raise StateForbids(
                f"Backup {job.id} can't be restored: a drill found what is stored of {', '.join(damaged)} damaged.",
                jobId=job.id,
                providers=damaged,
            )
        if unable := [name for name in objects if not self._can_import(name)]:
            raise RestoreUnsupported(
                f"No import API is configured for: {', '.join(unable)}. The backup can be downloaded instead.",
                jobId=job.id,
                providers=unable,
                downloads=[f"/backup/{job.id}/providers/{name}/download" for name in unable],
            )
        return job, objects

    def _backup(
        self, access: Access, request: RestoreRequest, before: datetime | None, named: list[str]
    ) -> Job:
        """The one that is asked for, with its data there."""
        if (request.job_id is None) == (before is None):
            raise BadRequest("jobId: either this or before must be given, and not both")
        if before is not None:
            found = self.jobs.newest_good(request.user_id, request.site_id, before, named)
            if found is None:
                raise NotFound("The site has no good backup of that time with these providers.")
            return found
        job = self.jobs.get_for(access, request.job_id or "")
        if job is None or (job.user_id, job.site_id) != (request.user_id, request.site_id):
            raise NotFound(f"There is no backup {request.job_id} of this site.")
        if job.status is not Status.DONE or job.removing_at is not None:
            gone = job.status is Status.DELETED or job.removing_at is not None
            why = "its data is gone" if gone else f"it is {job.status}"
            raise StateForbids(f"Backup {job.id} can't be restored: {why}.", jobId=job.id)
        return job

    def _can_import(self, name: str) -> bool:
        provider = self.providers.get(name)
        return provider is not None and provider.import_url is not None

    def _repeated(self, request: RestoreRequest, key: str | None, digest: str | None) -> Restore | None:
        """The restore of the same request under this key. Raises IdempotencyKeyReused if it was another request.

        One of other sites is not named, as in CreateJob.
        """
        same = self.recorder.restores.by_idempotency_key(key) if key else None
        if same and same.request_digest != digest:
            members = {"restoreId": same.id} if {*same.sites} <= {*request.sites} else {}
            raise IdempotencyKeyReused("Idempotency-Key: it was used for another restore", **members)
        return same


def _digest(request: RestoreRequest) -> str:
    """Of what was asked; the order of the providers says nothing."""
    if request.providers != "all":
        request = request.replace(providers=sorted(request.providers))
    return hashlib.sha256(msgspec.json.encode(request)).hexdigest()
