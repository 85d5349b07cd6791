"""What comes in a request, decoded: each wrong part is told by name, with what it must be."""

import json
import re
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

import msgspec
from aws_lambda_powertools.utilities.data_classes import APIGatewayProxyEventV2

from ..domain.errors import BadRequest
from ..domain.model import MAX_NAME_SHOWN, Model, in_plain_words, to_milliseconds

MAX_DIGITS = 18
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)?", re.ASCII | re.IGNORECASE)


def parse_body[T: Model](event: APIGatewayProxyEventV2, kind: type[T]) -> T:
    """The request's body. Raises BadRequest, which names the field.

    API Gateway encodes in base64 whatever is not declared as text. That includes forms, which curl calls its data.
    """
    try:
        text = event.decoded_body or ""
        decoded = msgspec.json.decode(text, type=kind)
    except msgspec.ValidationError as error:
        path, wrong = in_plain_words(error, kind)
        raise BadRequest(f"{path or 'body'}: {wrong}") from error
    except msgspec.DecodeError as error:
        raise BadRequest(f"body: not valid JSON: {str(error).removeprefix('JSON is malformed: ')}") from error
    except ValueError as error:
        raise BadRequest("body: not valid UTF-8") from error
    json.loads(text, object_pairs_hook=_unique)
    return decoded


def parse_query[T: Model](query: Mapping[str, str], kind: type[T], numbers: Collection[str]) -> T:
    """The query string, of whose parameters these are `numbers`. Raises BadRequest, which names the parameter."""
    try:
        return msgspec.convert(
            {name: _number(value) if name in numbers else value for name, value in query.items()}, kind
        )
    except msgspec.ValidationError as error:
        path, wrong = in_plain_words(error, kind)
        raise BadRequest(f"{path}: {wrong}") from error


def parse_variable(value: str, name: str, kind: Any) -> str:
    """What stands in the path. Raises BadRequest unless it is of this type."""
    try:
        parsed: str = msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise BadRequest(f"{name}: must be {msgspec.json.schema(kind)['description']}") from error
    return parsed


def parse_time(value: str, name: str) -> datetime:
    """A point in time (RFC 3339). Raises BadRequest."""
    value = value.replace(" ", "+")  # what a `+` that was not encoded in a query string comes as
    found = _TIME.fullmatch(value)
    if found and not found[2]:
        raise BadRequest(f"{name}: must say its offset from UTC, like 2030-01-31T12:00:00Z")
    try:
        if found:
            return to_milliseconds(datetime.fromisoformat(value.upper()))
    except (ValueError, OverflowError):
        pass  # there is no such day or hour, or its UTC is beyond the calendar
    raise BadRequest(f"{name}: must be a time like 2030-01-31T12:00:00Z")


def reject_unknown(query: Mapping[str, str], kind: type[Model] | None) -> None:
    """Raises BadRequest if the query string has parameters that this type has not."""
    names = [field.encode_name for field in msgspec.structs.fields(kind)] if kind else []
    for name in query:
        if name not in names:
            there_are = f"there are: {', '.join(names)}" if names else "there are none here"
            raise BadRequest(f"{name[:MAX_NAME_SHOWN]}: unknown parameter; {there_are}")


def _number(value: str) -> int | str:
    """As it came if it is none."""
    return int(value) if value.isascii() and value.isdecimal() and len(value) <= MAX_DIGITS else value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The decoder takes the last of two values for one field; nobody can have meant that."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise BadRequest(f"{twice}: comes twice")
    return fields
