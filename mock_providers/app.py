"""The routes: exports, and for tests the control of each export's behaviour and its statistics."""

from collections.abc import Mapping

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from mock_providers.behaviour import Behaviour
from mock_providers.export import ExportEndpoint
from mock_providers.fields import InvalidFieldError, check_id, check_provider
from mock_providers.sites import Sites, Statistics, TooManySitesError

_MAX_BODY = 64 << 10


def create_app(default_sizes: Mapping[str, int]) -> Starlette:
    """The application; default_sizes are the bytes of an export, by provider, where control set nothing."""
    sites = Sites(default_sizes)

    def ids(request: Request) -> tuple[str, str]:
        provider = check_provider(request.path_params["provider"])
        return provider, check_id("siteId", request.path_params["site_id"])

    async def control(request: Request) -> Response:
        provider, site_id = ids(request)
        if request.method == "DELETE":
            sites.set(provider, site_id, None)
        elif request.method == "PUT":
            sites.set(provider, site_id, _decode(await _body(request), sites.default_size(provider)))
        behaviour = sites.get(provider, site_id).behaviour
        return Response(msgspec.json.encode(behaviour), media_type="application/json")

    async def stats(request: Request) -> Response:
        site = sites.get(*ids(request))
        if request.method == "DELETE":
            site.statistics = Statistics()
        return JSONResponse(site.statistics.to_json())

    async def health(request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    return Starlette(
        routes=[
            Route("/health", health),
            Route("/control/{provider}/{site_id}", control, methods=["GET", "PUT", "DELETE"]),
            Route("/stats/{provider}/{site_id}", stats, methods=["GET", "DELETE"]),
            Route("/{provider}/export", ExportEndpoint(sites), methods=["GET", "HEAD"]),
        ],
        exception_handlers={InvalidFieldError: _invalid_field, TooManySitesError: _too_many_sites},
    )


async def _body(request: Request) -> bytes:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_BODY:
            raise InvalidFieldError("body", f"must be at most {_MAX_BODY} bytes")
    return body


def _decode(body: bytes, default_size: int) -> Behaviour:
    try:
        fields = msgspec.json.decode(body, type=dict[str, object])
        return msgspec.convert({"size": default_size} | fields, Behaviour)
    except msgspec.DecodeError as error:  # the message of a ValidationError has the field's path
        raise InvalidFieldError("body", str(error)) from error


async def _invalid_field(request: Request, error: Exception) -> Response:
    assert isinstance(error, InvalidFieldError)
    return JSONResponse({"field": error.field, "detail": error.detail}, status_code=400)


async def _too_many_sites(request: Request, error: Exception) -> Response:
    return JSONResponse({"detail": str(error)}, status_code=503)
