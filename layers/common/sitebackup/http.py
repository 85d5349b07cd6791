"""What every HTTP function shares: decoding, answers, problems."""

import json
import re
from collections.abc import Mapping
from datetime import datetime
from http import HTTPStatus
from typing import Any

import msgspec
from aws_lambda_powertools.event_handler import APIGatewayHttpResolver, Response
from aws_lambda_powertools.event_handler.exceptions import NotFoundError
from aws_lambda_powertools.utilities.data_classes import APIGatewayProxyEventV2

from .domain.job import Job
from .domain.model import to_milliseconds
from .errors import INTERNAL, BadRequest, Problem, RequestError, problem
from .telemetry import logger
from .view import job_view

MAX_DIGITS = 18
_ID = re.compile(r"[0-9a-f]{24}")


def resolver() -> APIGatewayHttpResolver:
    """A router that answers every error with problem details."""
    app = APIGatewayHttpResolver()

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
        return _problem(found, str(error), error.members if isinstance(error, RequestError) else {})

    return app


def body[T](event: APIGatewayProxyEventV2, kind: type[T]) -> T:
    """The request's body. Raises BadRequest, which names the field.

    API Gateway encodes a body whose type is no text in base64: a form's, too, which is what curl calls its data.
    """
    try:
        return msgspec.json.decode(event.decoded_body or "", type=kind)
    except msgspec.ValidationError as error:
        raise BadRequest(_field_first(str(error))) from error
    except msgspec.DecodeError as error:
        raise BadRequest(f"body: not valid JSON: {error}") from error
    except ValueError as error:
        raise BadRequest("body: not valid UTF-8") from error


def an_id(value: str, name: str) -> str:
    """Raises BadRequest unless it is 24 hex digits."""
    if not _ID.fullmatch(value):
        raise BadRequest(f"{name}: must be 24 hex digits in lower case")
    return value


def a_number(query: Mapping[str, str], name: str, default: int, low: int, high: int) -> int:
    """An integer of the query string. Raises BadRequest outside `low..high`."""
    value = query.get(name, str(default))
    if not value.isdecimal() or len(value) > MAX_DIGITS or not low <= int(value) <= high:
        raise BadRequest(f"{name}: must be a whole number from {low} to {high}")
    return int(value)


def a_time(value: str, name: str) -> datetime:
    """A point in time (RFC 3339). Raises BadRequest."""
    try:
        moment = datetime.fromisoformat(value.replace(" ", "+"))
        if moment.tzinfo is not None:
            return to_milliseconds(moment)
    except (ValueError, OverflowError) as error:
        raise BadRequest(f"{name}: must be a time like 2030-01-31T12:00:00Z") from error
    raise BadRequest(f"{name}: must say its offset from UTC, like 2030-01-31T12:00:00Z")


def only_known(query: Mapping[str, str], *names: str) -> Mapping[str, str]:
    """Raises BadRequest if the query string has other parameters."""
    for name in query:
        if name not in names:
            raise BadRequest(f"{name}: unknown parameter; there are: {', '.join(names)}")
    return query


def accepted(job: Job) -> Response[str]:
    """202, and where the job can be followed."""
    return _json(HTTPStatus.ACCEPTED, job_view(job), {"Location": f"/backup/{job.id}"})


def ok(document: Mapping[str, Any]) -> Response[str]:
    """200."""
    return _json(HTTPStatus.OK, document, {})


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


def _problem(found: Problem, detail: str, members: Mapping[str, Any]) -> Response[str]:
    document = {"type": found.type, "title": found.title, "status": found.status, "detail": detail, **members}
    return Response(
        status_code=found.status,
        content_type="application/problem+json",
        body=json.dumps(document),
        headers={"Retry-After": str(found.retry_after)} if found.retry_after else {},
    )


def _field_first(message: str) -> str:
    """msgspec ends with where: "… - at `$.siteId`"; people look for the field first."""
    what, _, where = message.partition(" - at `")
    if where:
        return f"{where.strip('`').removeprefix('$.') or 'body'}: {what}"
    if unknown := re.search(r"unknown field `(.+?)`", message):
        return f"{unknown[1]}: unknown field"
    if lacking := re.search(r"required field `(.+?)`", message):
        return f"{lacking[1]}: required"
    return f"body: {what}"
