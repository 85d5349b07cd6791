"""What every HTTP function shares: decoding, answers, problems."""

import json
import re
from collections.abc import Collection, Mapping
from datetime import datetime
from http import HTTPStatus
from typing import Any

import msgspec
from aws_lambda_powertools.event_handler import APIGatewayHttpResolver, Response
from aws_lambda_powertools.event_handler.exceptions import NotFoundError
from aws_lambda_powertools.event_handler.middlewares import NextMiddleware
from aws_lambda_powertools.utilities.data_classes import APIGatewayProxyEventV2

from ..domain.errors import BadRequest, RequestError
from ..domain.model import MAX_NAME_SHOWN, Model, ProviderName, in_plain_words, to_milliseconds
from ..domain.principal import Access, Claims, Principal, Scope
from ..domain.quota import OverQuota
from ..telemetry import logger
from .principal import principal_of
from .problems import INTERNAL, Problem, problem
from .quota_views import rate_limit_headers

MAX_DIGITS = 18
_ID = re.compile(r"[0-9a-f]{24}")
_TWO_IDS = re.compile(r"[0-9a-f]{48}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)?", re.ASCII | re.IGNORECASE)


def resolver(claims: Claims, queries: Mapping[str, Collection[str]] | None = None) -> APIGatewayHttpResolver:
    """A router that answers every error with problem details.

    Whoever calls is known by an authorizer, or refused before anything else; `access` then gives what they may reach.
    `queries` names the query parameters of each route that has some, by its route key, such as `GET /backup`. Others,
    and ids and names in the path that are none, are refused before a route's function is called.
    """
    app = APIGatewayHttpResolver()
    known = queries or {}

    def check(app: APIGatewayHttpResolver, next_middleware: NextMiddleware) -> Response[str]:
        event = app.current_event
        app.context["principal"] = principal_of(event.get("requestContext") or {}, claims)
        reject_unknown(event.query_string_parameters, known.get(event.route_key, ()))
        # As API Gateway has it: the router's own pattern lets a line feed at the end of the path pass unseen.
        for name, value in event.path_parameters.items():
            (parse_provider if name == "provider" else parse_id)(value, name)
        return next_middleware(app)

    app.use([check])

    @app.not_found
    def no_route(error: NotFoundError) -> Response[str]:
        return _problem(Problem(404, "not-found", "There is no such route."), str(error), {})

    @app.exception_handler(Exception)  # type: ignore[untyped-decorator]
    def failed(error: Exception) -> Response[str]:
        found = problem(error)
        if found is INTERNAL:
            logger.exception("unexpected error")
            return _problem(found, "The error is in the log.", {})
        if found.status >= 500:
            logger.warning("request not served", extra={"error": str(error)})
        headers = rate_limit_headers(error) if isinstance(error, OverQuota) else {}
        return _problem(found, str(error), error.members if isinstance(error, RequestError) else {}, headers)

    return app


def access(app: APIGatewayHttpResolver, scope: Scope) -> Access:
    """What the present call may reach, which needs this scope. Raises MissingScope."""
    principal: Principal = app.context["principal"]
    return principal.may(scope)


def body[T: Model](event: APIGatewayProxyEventV2, kind: type[T]) -> T:
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


def parse_id(value: str, name: str) -> str:
    """Raises BadRequest unless it is 24 hex digits."""
    if not _ID.fullmatch(value):
        raise BadRequest(f"{name}: must be 24 hex digits in lower case")
    return value


def parse_ids(query: Mapping[str, str], *names: str) -> dict[str, str]:
    """Those of these ids that the query has. Raises BadRequest."""
    return {name: parse_id(query[name], name) for name in names if name in query}


def parse_schedule_id(value: str, name: str) -> str:
    """Raises BadRequest unless it is 48 hex digits."""
    if not _TWO_IDS.fullmatch(value):
        raise BadRequest(f"{name}: must be 48 hex digits in lower case")
    return value


def parse_provider(value: str, name: str) -> str:
    """Raises BadRequest unless a provider can be called so."""
    try:
        return msgspec.convert(value, ProviderName)
    except msgspec.ValidationError as error:
        raise BadRequest(f"{name}: must be the name of a provider") from error


def parse_int(query: Mapping[str, str], name: str, default: int, low: int, high: int) -> int:
    """An integer of the query string. Raises BadRequest outside `low..high`."""
    value = query.get(name, str(default))
    if (
        not (value.isascii() and value.isdecimal())
        or len(value) > MAX_DIGITS
        or not low <= int(value) <= high
    ):
        raise BadRequest(f"{name}: must be a whole number from {low} to {high}")
    return int(value)


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


def reject_unknown(query: Mapping[str, str], names: Collection[str]) -> None:
    """Raises BadRequest if the query string has other parameters."""
    for name in query:
        if name not in names:
            there_are = f"there are: {', '.join(names)}" if names else "there are none here"
            raise BadRequest(f"{name[:MAX_NAME_SHOWN]}: unknown parameter; {there_are}")


def accepted(view: Mapping[str, Any], location: str) -> Response[str]:
    """202, and where what was accepted can be followed."""
    return _json(HTTPStatus.ACCEPTED, view, {"Location": location})


def ok(document: Mapping[str, Any]) -> Response[str]:
    """200."""
    return _json(HTTPStatus.OK, document, {})


def found(location: str) -> Response[str]:
    """302."""
    headers = {"Location": location, "Cache-Control": "no-store"}
    return Response(status_code=HTTPStatus.FOUND, body="", headers=headers)


def no_content() -> Response[str]:
    """204."""
    return Response(status_code=HTTPStatus.NO_CONTENT, body="")


def _json(status: int, document: Mapping[str, Any], headers: dict[str, Any]) -> Response[str]:
    return Response(
        status_code=status,
        content_type="application/json",
        body=msgspec.json.encode(document).decode(),
        headers={"Cache-Control": "no-store", **headers},
    )


def _problem(
    found: Problem, detail: str, members: Mapping[str, Any], headers: Mapping[str, str] | None = None
) -> Response[str]:
    document = {"type": found.type, "title": found.title, "status": found.status, "detail": detail, **members}
    return Response(
        status_code=found.status,
        content_type="application/problem+json",
        body=json.dumps(document),
        headers={**({"Retry-After": str(found.retry_after)} if found.retry_after else {}), **(headers or {})},
    )


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The decoder takes the last of two values for one field; nobody can have meant that."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise BadRequest(f"{twice}: comes twice")
    return fields
