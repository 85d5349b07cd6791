"""The Invoke operation of the Lambda API, so that boto3's lambda client reaches the local functions.

Lambda API reference, "Invoke": status codes, headers and error names. Payload limits are those of "Lambda
quotas": 6 MB for a synchronous invocation, 1 MB for an asynchronous one.
"""

from __future__ import annotations

import base64
import logging

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ..asgi import read_body
from .client import MAX_EVENT_BYTES
from .service import FunctionNotFound, LambdaService, Throttled

log = logging.getLogger("lambda")

_LIMITS = {"RequestResponse": MAX_EVENT_BYTES, "Event": 1024 * 1024, "DryRun": MAX_EVENT_BYTES}


def invoke_app(service: LambdaService) -> Starlette:
    """The API as an ASGI application: Invoke, and a listing of the execution environments."""

    async def invoke(request: Request) -> Response:
        try:
            return await _invoke(service, request)
        except FunctionNotFound as error:
            return _error(404, "ResourceNotFoundException", str(error))
        except Throttled as error:
            return _error(429, "TooManyRequestsException", str(error), Reason=error.reason)
        except OSError as error:
            log.exception("the function's process could not be started")
            return _error(500, "ServiceException", f"The function's process could not be started: {error}")

    async def environments(_request: Request) -> Response:
        return JSONResponse(service.environments())

    return Starlette(
        routes=[
            Route("/2015-03-31/functions/{name}/invocations", invoke, methods=["POST"]),
            Route("/environments", environments, methods=["GET"]),
        ]
    )


async def _invoke(service: LambdaService, request: Request) -> Response:
    name = request.path_params["name"]
    service.find(name)
    kind = request.headers.get("x-amz-invocation-type", "RequestResponse")
    if kind not in _LIMITS:
        return _error(
            400, "InvalidParameterValueException", f"InvocationType {kind!r} is not one of {[*_LIMITS]}."
        )
    payload = await read_body(request, _LIMITS[kind])
    if payload is None:
        message = f"The payload is too large for the {kind} invocation type (limit {_LIMITS[kind]} bytes)."
        return _error(413, "RequestTooLargeException", message)
    payload = payload or b"{}"
    try:
        msgspec.json.decode(payload, type=msgspec.Raw)  # checks the syntax, builds nothing
    except msgspec.DecodeError as error:
        return _error(
            400, "InvalidRequestContentException", f"Could not parse request body into json: {error}"
        )
    trace_id = request.headers.get("x-amzn-trace-id")
    if kind == "DryRun":
        return Response(status_code=204)
    if kind == "Event":
        request_id = service.submit(name, payload, trace_id=trace_id)
        return Response(status_code=202, headers={"x-amzn-requestid": request_id})
    result = await service.invoke(name, payload, trace_id=trace_id)
    headers = {"x-amzn-requestid": result.request_id, "x-amz-executed-version": "$LATEST"}
    if result.outcome.failed:
        headers["x-amz-function-error"] = "Unhandled"
    if request.headers.get("x-amz-log-type") == "Tail":
        headers["x-amz-log-result"] = base64.b64encode(result.log_tail).decode()
    return Response(result.outcome.payload, headers=headers, media_type="application/json")


def _error(status: int, name: str, message: str, **more: str) -> Response:
    body = {"Type": "User" if status < 500 else "Service", "message": message, **more}
    return JSONResponse(body, status_code=status, headers={"x-amzn-errortype": name})
