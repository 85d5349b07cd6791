"""The base of every value that travels: frozen, strict, camelCase outside."""

from datetime import UTC, datetime
from typing import Annotated, Any, Self

import msgspec

Id = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{24}\Z", description="24 hex digits in lower case")]
ProviderName = Annotated[
    str, msgspec.Meta(pattern=r"^[a-z][a-z0-9-]{0,31}\Z", description="the name of a provider")
]
ProviderNames = Annotated[
    list[ProviderName],
    msgspec.Meta(min_length=1, description="a list of names of providers, with at least one"),
]


class Model(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A value object that converts to and from plain documents (JSON, BSON).

    Fields at their default are left out of documents: what a query filters on must have none.
    """

    def to_document(self) -> dict[str, Any]:
        """As a plain document; datetimes stay datetimes, fields at their default are left out."""
        document: dict[str, Any] = msgspec.to_builtins(self, builtin_types=(datetime,))
        return document

    @classmethod
    def from_document(cls, document: object) -> Self:
        """Raises msgspec.ValidationError, which names the offending field."""
        return msgspec.convert(document, cls)

    def replace(self, **changes: Any) -> Self:
        """A copy with these fields changed."""
        return msgspec.structs.replace(self, **changes)


def to_milliseconds(moment: datetime) -> datetime:
    """MongoDB keeps milliseconds: cutting here keeps what is compared equal to what was stored."""
    return moment.astimezone(UTC).replace(microsecond=moment.microsecond // 1000 * 1000)
