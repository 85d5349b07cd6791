"""Why something failed: a code for machines and a sentence for people."""

from enum import StrEnum

from .model import Model


class Code(StrEnum):
    """The closed list of machine-readable reasons; part of the API, so only ever added to."""

    BACKUP_DAMAGED = "backup_damaged"
    BACKUP_GONE = "backup_gone"
    CANCELLED = "cancelled"
    EXPORT_ADDRESS_REFUSED = "export_address_refused"
    EXPORT_ENCODED = "export_encoded"
    EXPORT_FORBIDDEN = "export_forbidden"
    EXPORT_INCOMPLETE = "export_incomplete"
    EXPORT_INVALID = "export_invalid"
    EXPORT_NOT_A_ZIP = "export_not_a_zip"
    EXPORT_NOT_FOUND = "export_not_found"
    EXPORT_REDIRECTED = "export_redirected"
    EXPORT_REFUSED = "export_refused"
    IMPORT_ADDRESS_REFUSED = "import_address_refused"
    IMPORT_FAILED = "import_failed"
    IMPORT_FORBIDDEN = "import_forbidden"
    IMPORT_INVALID = "import_invalid"
    IMPORT_NOT_FOUND = "import_not_found"
    IMPORT_REFUSED = "import_refused"
    IMPORT_TOO_LARGE = "import_too_large"
    IMPORT_UNKNOWN = "import_unknown"
    PROVIDER_UNKNOWN = "provider_unknown"
    QUOTA_EXCEEDED = "quota_exceeded"
    RETRIES_EXHAUSTED = "retries_exhausted"
    SAFETY_BACKUP_FAILED = "safety_backup_failed"
    SIBLING_FAILED = "sibling_failed"
    SIZE_LIMIT_EXCEEDED = "size_limit_exceeded"
    STORAGE_REFUSED = "storage_refused"
    STREAM_TOO_LONG = "stream_too_long"
    TIMED_OUT = "timed_out"


USELESS = frozenset({Code.EXPORT_INCOMPLETE, Code.EXPORT_NOT_A_ZIP})
"""What was stored is of no use: a retry must read the export anew."""


class Reason(Model, frozen=True, kw_only=True):
    """A final failure, as the API shows it."""

    code: Code
    message: str
