"""The one table from errors to HTTP answers: problem details (RFC 9457) with a stable `type`."""

from dataclasses import dataclass

from ..domain.errors import (
    ActiveJob,
    BadRequest,
    Conflict,
    IdempotencyKeyReused,
    Locked,
    MissingScope,
    NoCaller,
    NotFound,
    NotYourUser,
    NoUser,
    RestoreUnsupported,
    ServiceOnly,
    StateForbids,
    TooLate,
    Unavailable,
)
from ..domain.model import Id, Model, ProviderName
from ..domain.principal import Scope
from ..domain.quota import OverQuota, Quota
from .views import Time


class ProblemView(Model, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An error as the API shows it (RFC 9457); what is beside `detail` depends on the type."""

    type: str
    title: str
    status: int
    detail: str
    job_id: Id | None = None
    restore_id: Id | None = None
    scope: Scope | None = None
    locked_until: Time | None = None
    providers: list[ProviderName] | None = None
    downloads: list[str] | None = None
    quota: Quota | None = None
    limit: int | None = None
    used: int | None = None


@dataclass(frozen=True)
class Problem:
    """How an error is answered."""

    status: int
    type: str
    title: str
    retry_after: int | None = None
    """Seconds."""


PROBLEMS: dict[type[Exception], Problem] = {
    BadRequest: Problem(400, "bad-request", "The request is not valid."),
    NoCaller: Problem(403, "no-caller", "Nobody has verified who calls."),
    NoUser: Problem(403, "no-user", "The token names no user."),
    NotYourUser: Problem(403, "not-your-user", "The call is for another user."),
    MissingScope: Problem(403, "missing-scope", "The token does not allow this."),
    ServiceOnly: Problem(403, "service-only", "The call is for services alone."),
    NotFound: Problem(404, "not-found", "There is no such resource."),
    ActiveJob: Problem(409, "active-job", "The site has an active backup or restore."),
    StateForbids: Problem(409, "state-forbids", "The state of the backup or restore does not allow this."),
    Locked: Problem(409, "locked", "The data is locked."),
    TooLate: Problem(409, "too-late", "It is too late to stop this."),
    RestoreUnsupported: Problem(409, "restore-unsupported", "A provider can't take its data back."),
    IdempotencyKeyReused: Problem(
        422, "idempotency-key-reused", "The Idempotency-Key belongs to another request."
    ),
    OverQuota: Problem(429, "quota-exceeded", "The user has as much of this as they may."),
    Conflict: Problem(503, "busy", "The backup or restore is being changed by others.", retry_after=1),
    Unavailable: Problem(
        503, "unavailable", "A system that this service needs does not answer.", retry_after=5
    ),
}
INTERNAL = Problem(500, "internal", "Something went wrong on our side.")


def problem(error: Exception) -> Problem:
    """The problem of the error's nearest class; an error that nobody expected is internal."""
    return next((PROBLEMS[kind] for kind in type(error).__mro__ if kind in PROBLEMS), INTERNAL)
