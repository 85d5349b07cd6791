"""Creates a backup: one document, and one record a provider."""

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import msgspec

from ..domain.errors import ActiveJob, BadRequest, Conflict, DuplicateJob, IdempotencyKeyReused
from ..domain.job import Job, Status
from ..domain.lifecycle import begin
from ..domain.model import Id, Model, ProviderNames
from ..domain.plan import MAX_OBJECT_SIZE
from ..domain.principal import Access
from ..domain.provider import Provider
from ..domain.quota import OverQuota
from ..ports.repositories import ID_NAMES, SiteClaim
from .quotas import MAX_COLLISIONS, Quotas
from .recorder import Recorder

MAX_DAYS = 3650
Days = Annotated[
    int, msgspec.Meta(ge=1, le=MAX_DAYS, description=f"a whole number of days from 1 to {MAX_DAYS}")
]
Bytes = Annotated[
    int,
    msgspec.Meta(
        ge=1, le=MAX_OBJECT_SIZE, description=f"a whole number of bytes from 1 to {MAX_OBJECT_SIZE}"
    ),
]
MAX_KEY_LENGTH = 255


class CreateBackup(Model, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /backup`. An error about a field quotes its description."""

    user_id: Id
    site_id: Id
    providers: ProviderNames | None = None
    expires_after_days: Days | None = None
    max_bytes: Bytes | None = None


@dataclass(frozen=True)
class CreateJob:
    """State first: once the document is stored the backup will happen, whatever becomes of the events."""

    recorder: Recorder
    quotas: Quotas
    providers: Mapping[str, Provider]
    new_id: Callable[[], str]

    def __call__(self, access: Access, request: CreateBackup, idempotency_key: str | None) -> Job:
        """The new job, or the one that the user made before with this key.

        Raises NotYourUser, NotFound, BadRequest, OverQuota, ActiveJob, IdempotencyKeyReused, RepositoryUnavailable or
        Conflict.
        """
        access.check(request.user_id, request.site_id)
        return self.once(access, request, checked_key(f"{request.user_id}:backup", idempotency_key))

    def once(self, access: Access, request: CreateBackup, key: str | None) -> Job:
        """The one job of this key, for whoever may reach the site. Raises what the call itself does."""
        names = request.providers or list(self.providers)
        digest = _digest(request) if key else None
        try:
            check_providers(request.providers or (), self.providers)
        except BadRequest:
            if same := self._repeated(request.site_id, key, digest):  # asked when these providers were known
                return same
            raise
        moment = self.recorder.moment()
        job, events = begin(
            Job(
                id=self.new_id(),
                user_id=request.user_id,
                site_id=request.site_id,
                status=Status.PENDING,
                version=1,
                tasks={},
                created_at=moment.now,
                updated_at=moment.now,
                deadline_at=moment.in_seconds(moment.policy.attempt_seconds),
                max_bytes=request.max_bytes,
                expires_after_days=request.expires_after_days,
                idempotency_key=key,
                request_digest=digest,
            ),
            moment,
            names,
        )
        for _ in range(MAX_COLLISIONS):
            try:
                slot, byte_limit = self.quotas.for_backup(job.user_id, job.id)
                job = job.replace(slot=slot, byte_limit=byte_limit)
                self.recorder.create(job, events)
            except (DuplicateJob, OverQuota) as error:
                if same := self._repeated(job.site_id, job.idempotency_key, job.request_digest):
                    return same
                if isinstance(error, OverQuota):
                    raise
                claim = self.recorder.jobs.claim_of(job.user_id, job.site_id)
                if claim or job.slot is None:
                    raise site_claimed(claim, access, job.user_id) from None
            else:
                return job
        raise Conflict("others kept taking the slots that were free")

    def _repeated(self, site_id: str, key: str | None, digest: str | None) -> Job | None:
        """The job of the same request under this key. Raises IdempotencyKeyReused if it was another request.

        The key is the user's, but a token may be for some of their sites only: a job of another one is not named.
        """
        same = self.recorder.jobs.by_idempotency_key(key) if key else None
        if same and same.request_digest != digest:
            members = {"jobId": same.id} if same.site_id == site_id else {}
            raise IdempotencyKeyReused("Idempotency-Key: it was used for another backup", **members)
        return same


def checked_key(scope: str, key: str | None) -> str | None:
    """The idempotency key within its scope; None if the caller sent none. Raises BadRequest."""
    if key is None:
        return None
    if not (1 <= len(key) <= MAX_KEY_LENGTH and key.isascii() and key.isprintable()):
        raise BadRequest(f"Idempotency-Key: must have 1 to {MAX_KEY_LENGTH} printable ASCII characters")
    return f"{scope}:{key}"


def _digest(request: CreateBackup) -> str:
    """Of what was asked; the order of the providers says nothing."""
    asked = request.replace(providers=sorted(request.providers) if request.providers else None)
    return hashlib.sha256(msgspec.json.encode(asked)).hexdigest()


def site_claimed(claim: SiteClaim | None, access: Access, user_id: str) -> ActiveJob | Conflict:
    """What to raise if a site of the user was claimed a moment ago, and `claim` is what holds it now (I10)."""
    if claim is None:
        return Conflict("what was active on the site has just ended")
    status, seen = claim.status.replace("_", " "), claim.seen_by(access, user_id)
    if seen.id is None:
        return ActiveJob(f"A {claim.kind} of this site is still {status}.")
    message = f"{claim.kind.capitalize()} {seen.id} of this site is still {status}."
    return ActiveJob(message, **{ID_NAMES[claim.kind]: seen.id})


def check_providers(names: Sequence[str], known: Collection[str]) -> None:
    """Raises BadRequest if a provider is unknown or named twice."""
    for position, name in enumerate(names):
        if name not in known:
            raise BadRequest(f"providers[{position}]: no provider {name!r}; there are: {', '.join(known)}")
    if len(set(names)) < len(names):
        raise BadRequest("providers: a provider is named twice")
