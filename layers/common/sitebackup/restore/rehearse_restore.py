"""A dry run: what a restore would do, and what stands in its way. It changes nothing."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from ..domain.errors import Permanent, Transient
from ..domain.job import StoredObject
from ..domain.principal import Access
from ..domain.provider import Provider
from ..domain.quota import OverQuota
from ..ports.providers import ImportApi
from ..ports.repositories import SiteClaim
from ..ports.runtime import Clock, Pool, TimeLeft
from ..ports.storage import ObjectStorage
from .create_restore import CreateRestore, RestoreRequest

AT_ONCE = 8


@dataclass(frozen=True)
class ProviderRehearsal:
    """What was found about one provider."""

    stored: StoredObject
    max_size: int | None
    """Bytes that its import API takes; None: it does not say, or did not answer."""
    obstacles: list[str]
    """Sentences; empty if it would be restored."""


@dataclass(frozen=True)
class Rehearsal:
    """What a restore would do now."""

    job_id: str
    site_id: str
    """The site that would be restored."""
    safety_backup: bool
    claim: SiteClaim | None
    """What is active on the site, so that the restore would be refused."""
    over_quota: OverQuota | None
    """The user has no restore left today."""
    providers: dict[str, ProviderRehearsal]

    @property
    def would_start(self) -> bool:
        """Whether nothing stands in the way."""
        is_free = self.claim is None and self.over_quota is None
        return is_free and not any(found.obstacles for found in self.providers.values())


@dataclass(frozen=True)
class RehearseRestore:
    """Looks at the objects in S3 and asks each import API what it takes."""

    create_restore: CreateRestore
    storage: ObjectStorage
    imports: ImportApi
    providers: Mapping[str, Provider]
    clock: Clock
    pool: Pool

    def __call__(
        self, access: Access, request: RestoreRequest, before: datetime | None, deadline: datetime
    ) -> Rehearsal:
        """Raises what CreateRestore raises for the same request.

        But not ActiveJob and OverQuota: these stand in the answer.
        """
        job, objects = self.create_restore.what(access, request, before)
        left, site_id = self.clock.left_until(deadline), request.target_site_id or request.site_id

        def look(name: str) -> ProviderRehearsal:
            return self._look(self.providers[name], request.user_id, site_id, objects[name], left)

        with self.pool(min(AT_ONCE, len(objects))) as pool:
            found = dict(zip(objects, pool.map(look, objects), strict=True))
        claim = self.create_restore.jobs.claim_of(request.user_id, site_id)
        seen = claim.seen_by(access, request.user_id) if claim else None
        over_quota = self._over_quota(request.user_id, job.id)
        return Rehearsal(job.id, site_id, request.safety_backup, seen, over_quota, found)

    def _over_quota(self, user_id: str, job_id: str) -> OverQuota | None:
        try:
            self.create_restore.quotas.restore_slot(user_id, job_id)
        except OverQuota as error:
            return error
        return None

    def _look(
        self, provider: Provider, user_id: str, site_id: str, stored: StoredObject, left: TimeLeft
    ) -> ProviderRehearsal:
        obstacles, max_size = self._look_at_object(stored), None
        try:
            max_size = self.imports.offer(provider, user_id, site_id, left).max_size
        except (Transient, Permanent) as error:
            obstacles.append(f"The import API can't be used: {error}")
        if max_size is not None and stored.size > max_size:
            obstacles.append(f"The import API takes {max_size} bytes at most, the backup has {stored.size}.")
        return ProviderRehearsal(stored, max_size, obstacles)

    def _look_at_object(self, stored: StoredObject) -> list[str]:
        try:
            found = self.storage.head(stored.key, stored.version_id)
        except (Transient, Permanent) as error:
            return [f"S3 does not show the object: {error}"]
        if found is None:
            return ["The object is not in S3."]
        if (found.size, found.checksum_crc64nvme) != (stored.size, stored.checksum_crc64nvme):
            return ["The object in S3 has another size or checksum than the backup."]
        return []
