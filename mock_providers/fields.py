"""The fields of a request."""

import re

MAX_CHUNK_SIZE = 64 << 20


class InvalidFieldError(Exception):
    """A field that can't be used: 400."""

    def __init__(self, field: str, detail: str) -> None:
        super().__init__(f"{field}: {detail}")
        self.field, self.detail = field, detail


def check_id(field: str, value: str | None) -> str:
    """A 24 hex digit id, in lower case. Raises InvalidFieldError."""
    if value is None or not re.fullmatch(r"[0-9a-fA-F]{24}", value):
        raise InvalidFieldError(field, "must be 24 hex digits")
    return value.lower()


def check_provider(value: str) -> str:
    """A provider's name. Raises InvalidFieldError."""
    if not re.fullmatch(r"[a-z][a-z0-9_-]{0,62}", value):
        raise InvalidFieldError("provider", "must be a lower case letter, then letters, digits, - or _")
    return value


def check_chunk_size(value: str | None) -> int | None:
    """Bytes, 1 to MAX_CHUNK_SIZE. Raises InvalidFieldError."""
    if value is None:
        return None
    if not re.fullmatch(r"[0-9]{1,9}", value) or not 1 <= int(value) <= MAX_CHUNK_SIZE:
        raise InvalidFieldError("chunkSize", f"must be 1 to {MAX_CHUNK_SIZE} bytes")
    return int(value)
