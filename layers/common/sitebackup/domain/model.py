"""The base of every value that travels: frozen, strict, camelCase outside."""

import re
from datetime import UTC, datetime
from threading import Lock
from typing import Annotated, Any, Self

import msgspec

Id = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{24}\Z", description="24 hex digits in lower case")]
ProviderName = Annotated[
    str, msgspec.Meta(pattern=r"^[a-z][a-z0-9-]{0,31}\Z", description="the name of a provider")
]
MAX_NAME_SHOWN = 100
"""Characters: an answer must stay within Lambda's 6 MB, whatever a request calls its fields."""
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
        _learn(cls)
        return msgspec.convert(document, cls)

    def replace(self, **changes: Any) -> Self:
        """A copy with these fields changed."""
        return msgspec.structs.replace(self, **changes)


_learnt: set[type] = set()
_learning = Lock()


def _learn(kind: type) -> None:
    """One thread at a time.

    msgspec 0.22 learns a type when it first meets it. Another thread that meets it meanwhile finds half of what is
    learnt, and that ends the process.
    """
    if kind not in _learnt:
        with _learning:
            msgspec.json.Decoder(kind)
            _learnt.add(kind)


def decode[M: Model](data: bytes | str | msgspec.Raw, kind: type[M]) -> M:
    """From JSON. Raises msgspec.ValidationError, which names the offending field, or msgspec.DecodeError."""
    _learn(kind)
    return msgspec.json.decode(data, type=kind)


def in_plain_words(error: msgspec.ValidationError, kind: type[Model]) -> tuple[str, str]:
    """The path of the field that is wrong ("": all of the document), and what is wrong: its description tells.

    msgspec says "… - at `$.siteId`".
    """
    message = str(error)
    _, _, where = message.partition(" - at `$")
    if where:
        path = where.removesuffix("`").removeprefix(".")
        return path, f"must be {_description(kind, path)}"
    if unknown := re.search(r"unknown field `(.*)`", message, re.DOTALL):
        return unknown[1][:MAX_NAME_SHOWN], "unknown field"
    if lacking := re.search(r"required field `(.+)`", message):
        return lacking[1], "required"
    return "", "must be a JSON object"


def _description(kind: type[Model], path: str) -> str:
    """Of the field at a path like `providers[1]`."""
    name, _, item = path.partition("[")
    schema = msgspec.json.schema(kind)["$defs"][kind.__name__]["properties"][name]
    first = schema.get("anyOf", [schema])[0]  # the other one is null, or shares the field's description
    description: str = (first["items"] if item else {**first, **schema})["description"]
    return description


def to_milliseconds(moment: datetime) -> datetime:
    """MongoDB keeps milliseconds: cutting here keeps what is compared equal to what was stored."""
    return moment.astimezone(UTC).replace(microsecond=moment.microsecond // 1000 * 1000)
