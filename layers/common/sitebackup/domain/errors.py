"""What can go wrong, told apart by what to do about it.

Adapters raise these; `Transient` says that the same call may work later, `Permanent` that it will not.
"""

from datetime import timedelta
from typing import Any

from .reason import Code, Reason


class SiteBackupError(Exception):
    """Any failure that the service knows by name."""


class Transient(SiteBackupError):
    """The same call may work later; `retry_after` is what the other side asked for, if it did."""

    def __init__(self, message: str, retry_after: timedelta | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Permanent(SiteBackupError):
    """The same call will fail again; `reason` is what the task is failed with."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.reason = Reason(code=code, message=message)


class ExportChanged(SiteBackupError):
    """The export is no longer the one that was planned: its validator differs."""


class NoSuchUpload(SiteBackupError):
    """S3 does not know the multipart upload, or no longer."""


class InvalidPart(SiteBackupError):
    """S3 refuses to complete an upload because a part is missing there or has another ETag."""


class ObjectExists(SiteBackupError):
    """S3 refuses to complete an upload because its key holds an object already (409 or 412)."""


class NoSuchImport(SiteBackupError):
    """The import API does not know the upload, or no longer."""


class Unavailable(SiteBackupError):
    """A system that the service itself stands on does not answer: no outcome can be stored now."""


class RepositoryUnavailable(Unavailable):
    """MongoDB does not answer."""


class BusUnavailable(Unavailable):
    """Kafka does not answer."""


class SettingsUnavailable(Unavailable):
    """The providers' settings can't be read, or no version of them is right, and none were read before."""


class Conflict(SiteBackupError):
    """Others kept changing the same document; the caller may try again."""


class DuplicateJob(SiteBackupError):
    """The site has an active job already (I10), or the idempotency key was used."""


class TaskEnded(SiteBackupError):
    """The task was cancelled, failed or taken over while its export was read."""


# --- requests that can't be served as asked


class RequestError(SiteBackupError):
    """A request that can't be served as asked; `members` are added to the answer."""

    def __init__(self, detail: str, **members: Any) -> None:
        super().__init__(detail)
        self.members = members


class BadRequest(RequestError):
    """The request is malformed; the detail names the field."""


class NotFound(RequestError):
    """There is no such thing."""


class NoCaller(RequestError):
    """Nobody has verified who calls. The authorizer of the route is missing, which no caller can make up for."""


class NoUser(RequestError):
    """The token names no user of ours."""


class NotYourUser(RequestError):
    """The call is for another user than the token."""


class ServiceOnly(RequestError):
    """No user may make this call."""


class MissingScope(RequestError):
    """The token does not hold the scope that the call needs; `scope` names it."""


class ActiveJob(RequestError):
    """The site has an active job or restore; `jobId` or `restoreId` names it, if the caller may know of it."""


class StateForbids(RequestError):
    """The job's status does not allow it."""


class Locked(RequestError):
    """S3 lets nobody remove the data yet; `lockedUntil` says how long, unless a legal hold keeps it."""


class TooLate(RequestError):
    """All tasks of the job are done, or their last bytes sent: nothing but finishing is possible."""


class RestoreUnsupported(RequestError):
    """A provider has no import API; `downloads` tells where its backup can be had instead."""


class IdempotencyKeyReused(RequestError):
    """The key was used for another request."""
