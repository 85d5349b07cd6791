"""The routes: exports and imports, and for tests the control of each site's behaviour and its statistics."""

import asyncio
import hashlib
from collections.abc import Mapping, Set

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from mock_providers.behaviour import Behaviour
from mock_providers.export import ExportEndpoint, content_of
from mock_providers.fields import InvalidFieldError, check_id, check_provider
from mock_providers.held import DEFAULT_LIMIT, Store
from mock_providers.imports import ImportEndpoint
from mock_providers.sites import ImportStatistics, Sites, Statistics, TooManySitesError

_MAX_BODY = 64 << 10
_READ_SIZE = 1 << 20


def create_app(default_sizes: Mapping[str, int], import_limit: int = DEFAULT_LIMIT) -> Starlette:
    """The application; default_sizes are the bytes of an export, by provider, where control set nothing.

    import_limit bounds the bytes that all imports hold.
    """
    sites = Sites(default_sizes)
    import_endpoint = ImportEndpoint(sites, Store(import_limit))

    def ids(request: Request) -> tuple[str, str]:
        provider = check_provider(request.path_params["provider"])
        return provider, check_id("siteId", request.path_params["site_id"])

    async def control(request: Request) -> Response:
        provider, site_id = ids(request)
        if request.method == "DELETE":
            sites.set(provider, site_id, None)
            sites.get(provider, site_id).imports.drop()
        elif request.method == "PUT":
            fields, behaviour = _decode(await _body(request), sites.default_size(provider))
            sites.set(provider, site_id, behaviour)
            if fields & {"size", "revision"}:
                sites.get(provider, site_id).imports.content = None
        behaviour = sites.get(provider, site_id).behaviour
        return Response(msgspec.json.encode(behaviour), media_type="application/json")

    async def stats(request: Request) -> Response:
        site = sites.get(*ids(request))
        if request.method == "DELETE":
            site.statistics = Statistics()
        return JSONResponse(site.statistics.to_json())

    async def imports(request: Request) -> Response:
        site = sites.get(*ids(request))
        if request.method == "DELETE":
            site.imports.statistics = ImportStatistics()
        return JSONResponse(site.imports.to_json())

    async def sha256(request: Request) -> Response:
        provider, site_id = ids(request)
        user_id = check_id("userId", request.query_params.get("userId"))
        content = content_of(sites.get(provider, site_id), (provider, user_id, site_id))
        digest = hashlib.sha256()
        for chunk in content.chunks(size=_READ_SIZE):
            digest.update(chunk)
            await asyncio.sleep(0)  # the others must not wait
            if await request.is_disconnected():
                break
        return JSONResponse({"size": content.size, "sha256": digest.hexdigest()})

    async def health(request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    return Starlette(
        routes=[
            Route("/health", health),
            Route("/control/{provider}/{site_id}", control, methods=["GET", "PUT", "DELETE"]),
            Route("/stats/{provider}/{site_id}", stats, methods=["GET", "DELETE"]),
            Route("/imports/{provider}/{site_id}", imports, methods=["GET", "DELETE"]),
            Route("/sha256/{provider}/{site_id}", sha256),
            Route("/{provider}/import", import_endpoint),
            Route("/{provider}/import/{site_id}/{upload_id}", import_endpoint),
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


def _decode(body: bytes, default_size: int) -> tuple[Set[str], Behaviour]:
    """The names of the fields, and what they say."""
    try:
        fields = msgspec.json.decode(body, type=dict[str, object])
        return fields.keys(), msgspec.convert({"size": default_size} | fields, Behaviour)
    except msgspec.DecodeError as error:  # the message of a ValidationError has the field's path
        raise InvalidFieldError("body", str(error)) from error


async def _invalid_field(request: Request, error: Exception) -> Response:
    assert isinstance(error, InvalidFieldError)
    return JSONResponse({"field": error.field, "detail": error.detail}, status_code=400)


async def _too_many_sites(request: Request, error: Exception) -> Response:
    return JSONResponse({"detail": str(error)}, status_code=503)
