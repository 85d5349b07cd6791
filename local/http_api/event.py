"""API Gateway's payload format 2.0: an HTTP request as an event, and a function's answer as a response.

API Gateway developer guide, "Create AWS Lambda proxy integrations for HTTP APIs".
"""

from __future__ import annotations

import base64
import binascii
import json
import time
import uuid
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import Response

from ..aws_account import ACCOUNT_ID
from ..lambda_runtime.client import new_trace_id

_TEXT_TYPES = ("application/json", "application/javascript", "application/xml")
_GATEWAY_HEADERS = ("content-length", "transfer-encoding", "connection")  # the gateway sets these itself


class MalformedResponse(ValueError):
    """The function's answer is not one that API Gateway takes."""


def to_event(
    request: Request,
    body: bytes,
    route_key: str,
    path_parameters: Mapping[str, str],
    authorizer: Mapping[str, Any],
) -> dict[str, Any]:
    """The event for a request that matched `route_key`, such as `GET /things/{id}`, and was let in."""
    now = time.time()
    headers = _joined((name.lower(), value) for name, value in request.headers.items() if name != "cookie")
    host = headers.get("host", "localhost")
    client = request.client.host if request.client else "127.0.0.1"
    headers.setdefault("x-amzn-trace-id", new_trace_id())
    headers.update({"x-forwarded-for": client, "x-forwarded-proto": "http"})
    headers["x-forwarded-port"] = host.rpartition(":")[2] if ":" in host else "80"
    query = request.url.query
    event: dict[str, Any] = {
        "version": "2.0",
        "routeKey": route_key,
        "rawPath": request.url.path,
        "rawQueryString": query,
        "headers": headers,
        "requestContext": {
            "accountId": ACCOUNT_ID,
            "apiId": "local",
            "authorizer": authorizer,
            "domainName": host.partition(":")[0],
            "domainPrefix": "local",
            "http": {
                "method": request.method,
                "path": request.url.path,
                "protocol": f"HTTP/{request.scope['http_version']}",
                "sourceIp": client,
                "userAgent": headers.get("user-agent", ""),
            },
            "requestId": str(uuid.uuid4()),
            "routeKey": route_key,
            "stage": "$default",
            "time": datetime.fromtimestamp(now, UTC).strftime("%d/%b/%Y:%H:%M:%S %z"),
            "timeEpoch": int(now * 1000),
        },
        "isBase64Encoded": False,
    }
    cookies = [cookie.strip() for value in request.headers.getlist("cookie") for cookie in value.split(";")]
    if cookies:
        event["cookies"] = cookies
    if query:
        event["queryStringParameters"] = _joined(parse_qsl(query, keep_blank_values=True))
    if path_parameters:
        event["pathParameters"] = dict(path_parameters)
    if body:
        event["body"], event["isBase64Encoded"] = _encode(body, headers.get("content-type", "text/plain"))
    return event


def to_response(payload: bytes) -> Response:
    """The HTTP response for what a function returned. Raises MalformedResponse."""
    try:
        answer = json.loads(payload)
    except ValueError as error:
        raise MalformedResponse(f"not JSON: {error}") from error
    if not isinstance(answer, dict) or "statusCode" not in answer:
        return Response(payload, headers={"content-type": "application/json"})
    try:
        status = int(answer["statusCode"])
    except (TypeError, ValueError):
        raise MalformedResponse(f"statusCode is {answer['statusCode']!r}") from None
    if not 200 <= status <= 599:
        raise MalformedResponse(f"statusCode is {status}")
    given, cookies = answer.get("headers") or {}, answer.get("cookies") or []
    if not isinstance(given, dict) or not isinstance(cookies, list):
        raise MalformedResponse("headers must be an object and cookies a list")
    headers = {"content-type": "text/plain;charset=UTF-8"}
    headers |= {str(name).lower(): _scalar(value) for name, value in given.items()}
    headers = {name: value for name, value in headers.items() if name not in _GATEWAY_HEADERS}
    response = Response(_decode(answer), status_code=status, headers=headers)
    for cookie in cookies:
        response.headers.append("set-cookie", _scalar(cookie))
    return response


def _decode(answer: Mapping[str, Any]) -> bytes:
    body = answer.get("body")
    if body is None:
        return b""
    if not isinstance(body, str):
        raise MalformedResponse(f"body is of type {type(body).__name__}, not a string")
    if not answer.get("isBase64Encoded"):
        return body.encode()
    try:
        return base64.b64decode(body, validate=True)
    except binascii.Error as error:
        raise MalformedResponse(f"body is not base64: {error}") from error


def _encode(body: bytes, content_type: str) -> tuple[str, bool]:
    """The body as text, or in base64 where its type is not a text or its bytes are not UTF-8."""
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type.startswith("text/") or media_type in _TEXT_TYPES or media_type.endswith(("+json", "+xml")):
        try:
            return body.decode(), False
        except UnicodeDecodeError:
            pass  # announced as text but is not: it goes the binary way
    return base64.b64encode(body).decode(), True


def _joined(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Repeated names have their values joined with commas."""
    joined: dict[str, str] = {}
    for name, value in pairs:
        joined[name] = f"{joined[name]},{value}" if name in joined else value
    return joined


def _scalar(value: Any) -> str:
    if isinstance(value, (dict, list)):
        raise MalformedResponse("a header or cookie is not a plain value")
    return json.dumps(value) if isinstance(value, bool) else str(value)
