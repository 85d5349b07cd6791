"""The HTTP API of a local run: routes of the template to functions, as API Gateway does it.

API Gateway developer guide: "Routes for HTTP APIs", "Configure CORS for HTTP APIs", and the quotas "Maximum
integration timeout 30 seconds" and "Payload size 10 MB". The event of a request is also held to what Lambda takes.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from botocore.exceptions import BotoCoreError, ClientError, ReadTimeoutError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import request_response

from ..asgi import read_body
from ..lambda_runtime.client import MAX_EVENT_BYTES, lambda_client
from ..template.model import Cors, Route, Template
from .authorizers import Authorizer, Refused, by_iam
from .event import MalformedResponse, to_event, to_response

log = logging.getLogger("http")

INTEGRATION_SECONDS = 30.0
_MAX_BODY_BYTES = 10 * 1024 * 1024
_MAX_IN_FLIGHT = 100  # a long poll holds a thread; past this, requests are throttled as by a stage's limit


@dataclass(frozen=True)
class _Match:
    route: Route
    key: str
    parameters: dict[str, str]


class HttpApi:
    """An ASGI application that answers the routes of a template by invoking their functions."""

    def __init__(
        self,
        template: Template,
        lambda_endpoint: str,
        authorizer: Authorizer = by_iam,
        *,
        integration_seconds: float = INTEGRATION_SECONDS,
    ) -> None:
        self._authorizer = authorizer
        self._routes = _Router(template.routes)
        self._cors = template.cors
        self._seconds = integration_seconds
        self._client = lambda_client(
            lambda_endpoint, read_timeout=integration_seconds, connections=_MAX_IN_FLIGHT
        )
        self._threads = ThreadPoolExecutor(_MAX_IN_FLIGHT, thread_name_prefix="http-api")
        self._in_flight = asyncio.Semaphore(_MAX_IN_FLIGHT)
        self.app = request_response(
            self._answer
        )  # a route of Starlette's would not match a path with a line feed

    def close(self) -> None:
        """Give the threads back; invocations under way end by themselves within the integration's limit."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _answer(self, request: Request) -> Response:
        if self._cors is not None and _is_preflight(request):
            return _with_cors(Response(status_code=204), request, self._cors, preflight=True)
        response = await self._route(request)
        response.headers["apigw-requestid"] = uuid.uuid4().hex[:16]
        return response if self._cors is None else _with_cors(response, request, self._cors)

    async def _route(self, request: Request) -> Response:
        match = self._routes.find(request.method, request.scope["raw_path"].decode("latin-1"))
        if match is None:
            return _message(404, "Not Found")
        try:
            caller = await asyncio.to_thread(self._authorizer, request)
        except Refused as refused:
            return _message(refused.status, str(refused), refused.headers)
        body = await read_body(request, _MAX_BODY_BYTES)
        if body is None:
            return _too_large()
        event = to_event(request, body, match.key, match.parameters, caller)
        payload = json.dumps(event).encode()
        if len(payload) > MAX_EVENT_BYTES:
            return _too_large()
        if self._in_flight.locked():
            return _message(429, "Too Many Requests")
        async with self._in_flight:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._threads, self._invoke, match.route.function, payload)

    def _invoke(self, function: str, payload: bytes) -> Response:
        try:
            answer = self._client.invoke(FunctionName=function, Payload=payload)
            body = answer["Payload"].read()
        except ReadTimeoutError:
            log.warning("%s did not answer within %g s", function, self._seconds)
            return _message(503, "Service Unavailable")
        except ClientError as error:
            status = error.response["ResponseMetadata"]["HTTPStatusCode"]
            log.warning("%s was not invoked: %s", function, error)
            # An HTTP API answers 503 to a function that is throttled (a REST API 500), 500 to other refusals.
            return _message(503, "Service Unavailable") if status == 429 else _failure()
        except BotoCoreError as error:
            log.error("%s could not be invoked, is the Lambda service running? %s", function, error)
            return _failure()
        if "FunctionError" in answer:
            return _failure()
        try:
            return to_response(body)
        except MalformedResponse as error:
            log.error("%s returned a response that API Gateway does not take: %s", function, error)
            return _failure()


class _Router:
    """Finds the most specific route: literal segments before variables, variables before greedy ones."""

    def __init__(self, routes: Sequence[Route]) -> None:
        ordered = sorted(routes, key=_specificity)
        self._routes = [(route, _pattern(route.path)) for route in ordered]

    def find(self, method: str, raw_path: str) -> _Match | None:
        for route, pattern in self._routes:
            match = pattern.fullmatch(raw_path)
            if match is not None and route.method in (method, "ANY"):
                key = route.path if route.path == "$default" else f"{route.method} {route.path}"
                names = re.findall(r"\{([^}+]+)\+?\}", route.path)
                return _Match(route, key, dict(zip(names, map(unquote, match.groups()), strict=True)))
        return None


def _specificity(route: Route) -> tuple[bool, list[int], bool]:
    segments = [2 if part.endswith("+}") else 1 if "{" in part else 0 for part in route.path.split("/")]
    return route.path == "$default", segments, route.method == "ANY"


def _pattern(path: str) -> re.Pattern[str]:
    if path == "$default":
        return re.compile(r".*")
    parts = re.split(r"(\{[^}]+\})", path)
    return re.compile(
        "".join(
            re.escape(part) if not part.startswith("{") else "(.+)" if part.endswith("+}") else "([^/]+)"
            for part in parts
        )
    )


def _is_preflight(request: Request) -> bool:
    asks = "origin" in request.headers and "access-control-request-method" in request.headers
    return request.method == "OPTIONS" and asks


def _with_cors(response: Response, request: Request, cors: Cors, *, preflight: bool = False) -> Response:
    """The gateway's own CORS headers; those of the function are dropped, as the developer guide says."""
    for name in [name for name in response.headers if name.startswith("access-control-")]:
        with suppress(KeyError):
            del response.headers[name]
    origin = request.headers.get("origin", "")
    if not origin or not any(
        origin == allowed or allowed in ("*", _any_host(origin)) for allowed in cors.origins
    ):
        return response
    headers: dict[str, Any] = {
        "access-control-allow-origin": "*" if "*" in cors.origins else origin,
        "access-control-allow-credentials": "true" if cors.credentials else None,
        "access-control-expose-headers": ",".join(cors.expose_headers),
    }
    if preflight:
        headers["access-control-allow-methods"] = ",".join(cors.methods)
        headers["access-control-allow-headers"] = ",".join(cors.headers)
        headers["access-control-max-age"] = None if cors.max_age is None else str(cors.max_age)
    response.headers.update({name: value for name, value in headers.items() if value})
    return response


def _any_host(origin: str) -> str:
    return origin.partition("://")[0] + "://*"


def _message(status: int, text: str, headers: Mapping[str, str] | None = None) -> Response:
    return JSONResponse({"message": text}, status_code=status, headers=headers)


def _too_large() -> Response:
    return _message(413, "Request Entity Too Large")


def _failure() -> Response:
    return _message(500, "Internal Server Error")
