"""`GET|HEAD /{provider}/export?userId=&siteId=&chunkSize=`: a site's data as one zip, or a range of it."""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from email.utils import formatdate
from functools import lru_cache

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import Receive, Scope, Send

from mock_providers.archive import Archive
from mock_providers.behaviour import Behaviour, Status, happens
from mock_providers.body import Connection, ConnectionEndedError, flipped, gzipped, zeros
from mock_providers.conditions import (
    Range,
    accepts_gzip,
    if_match_holds,
    if_range_holds,
    parse_range,
)
from mock_providers.fields import check_chunk_size, check_id, check_provider
from mock_providers.held import Content
from mock_providers.sites import Site, Sites, Statistics

_WRITE_SIZES = (16 << 10, 1 << 20)  # what a chunkSize is cut to: bounds system calls and memory
_DEFAULT_WRITE_SIZE = 256 << 10
SESSION_COOKIE = "session=of-this-tenant-alone"
"""Every export and import sets it, as systems with sessions do; whoever sends it back is refused."""
_REVISION_0 = 1_767_225_600  # 1 January 2026; every revision is a minute later

_archive = lru_cache(maxsize=1024)(Archive)


def content_of(site: Site, ids: tuple[str, str, str], number: int = 0) -> Archive | Content:
    """What the site exports to its `number`th request: what the user has imported, or else its archive.

    ids are those of provider, user and site.
    """
    behaviour, imported = site.behaviour, site.imports.content
    revision = _revision(behaviour, number)
    if imported and imported.user_id == ids[1] and revision == behaviour.revision:
        return imported
    return _archive(*ids, behaviour.size, revision)


def _revision(behaviour: Behaviour, number: int) -> int:
    after = behaviour.faults.change_content_after
    return behaviour.revision + (after is not None and number > after)


@dataclass(frozen=True)
class Body:
    """A response with the export's bytes; chunked if its headers have no Content-Length."""

    status: int
    headers: dict[str, str]
    chunks: Iterable[bytes]


@dataclass(frozen=True)
class Export:
    """What one request sees of the export: faults may change it from one request to the next."""

    content: Archive | Content
    etag: str | None
    last_modified: str | None
    gzip: bool
    takes_ranges: bool
    has_length: bool

    def headers(self) -> dict[str, str]:
        headers = {
            "accept-ranges": "bytes" if self.takes_ranges else "none",
            "set-cookie": f"{SESSION_COOKIE}; HttpOnly",
        }
        if self.etag:
            headers["etag"] = self.etag
        if self.last_modified:
            headers["last-modified"] = self.last_modified
        return headers


class ExportEndpoint:
    """The ASGI application behind the export route. Raises InvalidFieldError and TooManySitesError."""

    def __init__(self, sites: Sites) -> None:
        self._sites = sites

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        query = request.query_params
        provider = check_provider(request.path_params["provider"])
        user_id = check_id("userId", query.get("userId"))
        site_id = check_id("siteId", query.get("siteId"))
        chunk_size = check_chunk_size(query.get("chunkSize")) or _DEFAULT_WRITE_SIZE
        write_size = min(max(chunk_size, _WRITE_SIZES[0]), _WRITE_SIZES[1])
        ids = (provider, user_id, site_id)
        site = self._sites.get(provider, site_id)
        behaviour, statistics = site.behaviour, site.statistics
        site.requests += 1
        number = site.requests
        content = content_of(site, ids, number)
        connection = Connection(scope["state"]["transport"], receive, send, statistics)
        with statistics.in_progress():
            try:
                if behaviour.faults.slow_first_byte and behaviour.faults.slow_first_byte.take():
                    await connection.pause(behaviour.faults.slow_first_byte.seconds)
                answer = _answer(request, behaviour, number, content, write_size, statistics)
                if isinstance(answer, Response):
                    statistics.by_status[answer.status_code] += 1
                    await answer(scope, receive, send)
                else:
                    statistics.by_status[answer.status] += 1
                    await connection.write_head(answer.status, answer.headers)
                    await connection.write_body(answer.chunks, behaviour.faults)
            except ConnectionEndedError:
                return


def _answer(
    request: Request,
    behaviour: Behaviour,
    number: int,
    content: Archive | Content,
    write_size: int,
    statistics: Statistics,
) -> Response | Body:
    asked = None
    if "range" in request.headers and request.method == "GET":  # RFC 9110, 14.2: of GET alone
        statistics.range_requests += 1
        asked = parse_range(request.headers["range"], content.size)
        if asked and asked.satisfiable:
            statistics.ranges.append((asked.start, asked.end))
    refusal = _refusal(request, behaviour, asked)
    if refusal:
        return refusal
    export = _export(request, behaviour, number, content)
    if not if_match_holds(request.headers.get("if-match", "*"), export.etag):
        return _problem(412, "the export has another ETag", export.headers())
    if_range = request.headers.get("if-range")
    held = if_range is None or if_range_holds(if_range, export.etag, export.last_modified)
    if not (export.takes_ranges and held):
        asked = None
    if asked and not asked.satisfiable:
        return _problem(416, "the range is behind the end", {"content-range": f"bytes */{content.size}"})
    return _content(export, behaviour, asked, write_size, with_body=request.method == "GET")


def _refusal(request: Request, behaviour: Behaviour, asked: Range | None) -> Response | None:
    """The answer that keeps the export away, if there is one."""
    token, faults = behaviour.require_token, behaviour.faults
    if "cookie" in request.headers:
        return _problem(400, "a session belongs to one tenant: no cookie may come back", {})
    if token and request.headers.get("authorization") != f"Bearer {token}":
        return _problem(401, "the bearer token is missing or wrong", {"www-authenticate": "Bearer"})
    late = faults.status_on_range
    if late and asked and asked.start >= late.start and late.take():
        return _status(late)
    if faults.status and faults.status.take():
        return _status(faults.status)
    if faults.redirect and faults.redirect.take():
        return RedirectResponse(faults.redirect.location or str(request.url), faults.redirect.code)
    return None


def _export(request: Request, behaviour: Behaviour, number: int, content: Archive | Content) -> Export:
    faults = behaviour.faults
    gzip = faults.gzip == "always" or (
        faults.gzip == "ifAsked" and accepts_gzip(request.headers.get("accept-encoding", ""))
    )
    suffix = "-gzip" if gzip else ""
    if happens(faults.change_etag):
        suffix += f"-{number}"
    if faults.change_etag_after is not None and number > faults.change_etag_after:
        suffix += "-changed"
    etag: str | None = f'{content.etag[:-1]}{suffix}"'
    last_modified: str | None = formatdate(_changed_at(behaviour, number, content), usegmt=True)
    if happens(faults.weak_etag):
        etag = f"W/{etag}"
    if happens(faults.last_modified_only):
        etag = None
    if happens(faults.no_etag):
        etag = last_modified = None
    chunked = faults.truncate_chunked is not None and faults.truncate_chunked.times != 0
    has_length = not (happens(faults.no_length) or chunked or gzip)
    takes_ranges = has_length and not happens(faults.no_range)
    return Export(content, etag, last_modified, gzip, takes_ranges, has_length)


def _changed_at(behaviour: Behaviour, number: int, content: Archive | Content) -> int:
    """Unix time at which the content became what it is: an import is some seconds behind the revision."""
    imported = content.number if isinstance(content, Content) else 0
    return _REVISION_0 + 60 * _revision(behaviour, number) + imported


def _status(fault: Status) -> Response:
    headers = {} if fault.retry_after is None else {"retry-after": str(fault.retry_after)}
    return _problem(fault.code, "a fault set through the control API", headers)


def _problem(code: int, detail: str, headers: dict[str, str]) -> Response:
    return JSONResponse({"detail": detail}, status_code=code, headers=headers)


def _content(
    export: Export, behaviour: Behaviour, asked: Range | None, write_size: int, *, with_body: bool
) -> Body:
    faults, content = behaviour.faults, export.content
    headers = export.headers() | {"content-type": "application/zip"}
    start, length = 0, content.size
    if asked:
        if happens(faults.wrong_range):
            asked = _shifted(asked, content.size)
        start, length = asked.start, asked.end + 1 - asked.start
        headers["content-range"] = f"bytes {asked.start}-{asked.end}/{content.size}"
    chunks: Iterable[bytes] = content.chunks(start, start + length, write_size) if with_body else ()
    if with_body and length and happens(faults.wrong_body):
        chunks = flipped(chunks, length // 2)
    if with_body and faults.long_body and faults.long_body.take():
        chunks = itertools.chain(chunks, zeros(faults.long_body.bytes, write_size))
        length += faults.long_body.bytes
    if export.gzip:
        headers |= {"content-encoding": "gzip", "vary": "accept-encoding"}
        chunks = gzipped(chunks) if with_body else ()
    elif export.has_length:
        headers["content-length"] = str(length)
    return Body(206 if asked else 200, headers, chunks)


def _shifted(asked: Range, size: int) -> Range:
    """The next bytes instead of those asked for; the ones before at the end of the export."""
    if asked.end + 1 < size:
        return Range(asked.start + 1, asked.end + 1)
    return Range(max(0, asked.start - 1), max(0, asked.end - 1))
