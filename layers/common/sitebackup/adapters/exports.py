"""The providers' export APIs, over HTTP.

Ranges and validators follow RFC 9110 (sections 13 and 14): only a strong ETag may join ranges of one export.
Where a body ends follows RFC 9112 (section 6.3): only an end that shows proves that a body is whole.
"""

import http.client
import os
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from io import BufferedReader
from time import monotonic
from types import TracebackType
from typing import Self
from urllib.parse import urljoin, urlsplit

import requests
import urllib3
from requests.sessions import SessionRedirectMixin
from urllib3.exceptions import HeaderParsingError
from urllib3.util.response import assert_header_parsing

from ..domain.errors import ExportChanged, Permanent, Transient
from ..domain.provider import Provider
from ..domain.reason import Code
from ..telemetry import timed
from .time_limits import TimedAdapter, TimedAnswer, TimeLeft, no_deadline

CONNECT_TIMEOUT_SECONDS = 5
MAX_REDIRECTS = 5
MAX_DIGITS = 18  # of a number in a header
MOMENT_SECONDS = 0.1
MAX_LINE_BYTES = 64 * 1024  # of a chunk's size with its extensions, or of a trailer's line
MAX_TRAILERS = 100
MAX_REASON = 200  # characters of a provider's headers in an error
LONGEST_RETRY_AFTER = timedelta(days=1)
_TRANSIENT_STATUSES = frozenset({408, 425, 429})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_RULES = SessionRedirectMixin()
_CONTENT_LENGTH = re.compile(r"\d{1,18}", re.ASCII)
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n]*)?\r\n")
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})", re.ASCII)


class Export:
    """An open response: where it can be read from, and what it said of the whole export."""

    def __init__(
        self,
        response: requests.Response,
        wait: TimeLeft,
        *,
        size: int | None,
        length: int | None,
        validator: str | None,
        end_proven: bool = True,
    ) -> None:
        self.size = size
        """Bytes of the whole export; None if only the end of the stream tells."""
        self.length = length
        """Bytes of this body; None likewise."""
        self.validator = validator
        """A strong ETag if the export can be read by ranges, else None."""
        self.end_proven = end_proven
        """Whether 0 from `readinto` proves that the body is whole.

        False if the body ends with its connection, as one that was cut does: then only a look into what was stored,
        a zip that ends right, proves it.
        """
        self._response = response
        self._body = _Body(response.raw)
        self._read = 0
        self._wait = wait

    @property
    def ranged(self) -> bool:
        """Whether other ranges of the same export can be asked for."""
        return self.validator is not None

    def readinto(self, buffer: memoryview) -> int:
        """Fills the front of `buffer` with what has come; 0 only at the end.

        Raises Transient if the end comes too early, Permanent if it does not come behind the last byte of a range.
        """
        left = None if self.length is None else self.length - self._read
        try:
            count = self._body.readinto(buffer[:left], self._wait())
            goes_on = count == left and not self._body.ended(self._wait())
        except (http.client.HTTPException, OSError, ValueError) as error:
            raise Transient(f"The export broke off: {type(error).__name__}.") from error
        if goes_on:
            message = f"The export sent more than the {self.length} bytes of its range."
            raise Permanent(Code.EXPORT_INVALID, message)
        if count == 0 and left:
            raise Transient(f"The export broke off: {left} of {self.length} bytes are missing.")
        if count == 0 and self._read == 0 and not self.end_proven:
            raise Transient("The export was closed before its first byte.")
        self._read += count
        return count

    def close(self) -> None:
        """Gives the connection back if the body was read to its end, else drops it."""
        self._response.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Body:
    """Reads a body without copying it: urllib3 makes new bytes for each read, http.client's file need not.

    A read takes what comes within a moment, so that a trickle can't hold the caller beyond its deadline. It loops
    here because TLS brings no more than 16 KiB at once, and each level above would cost its share for each of them.
    """

    def __init__(self, raw: urllib3.HTTPResponse) -> None:
        self._raw = raw
        self._http = _http_client(raw)
        self._buffered = True
        """Whether the response's file may hold bytes that it took from the socket with the lines before them."""
        self._chunk: int | None = None
        """Bytes that are left of the chunk; None before the first."""

    def ended(self, wait: float) -> bool:
        """Whether nothing follows; waits for it where only the next bytes tell."""
        return self.readinto(memoryview(bytearray(1)), wait) == 0

    def readinto(self, buffer: memoryview, wait: float) -> int:
        """0 only at the end. Raises OSError or HTTPException if it comes too early, or nothing within `wait` (s)."""
        body = self._http
        if body.fp is None:  # read to its end
            return 0
        body.reads.allow(wait)
        if body.chunked:
            count = self._from_chunk(body.fp, buffer)
        elif body.length is None:  # until the connection closes
            count = self._several(body.fp, buffer)
            if count == 0:
                body.close()
        else:
            count = self._several(body.fp, buffer[: body.length])
            if count == 0 and body.length > 0:
                raise http.client.IncompleteRead(b"", body.length)
            body.length -= count
            if body.length == 0:
                body.read()  # lets http.client see that the body has ended
        if body.fp is None:
            self._raw.release_conn()
        return count

    def _from_chunk(self, file: BufferedReader, buffer: memoryview) -> int:
        """RFC 9112, section 7.1, to the letter.

        http.client is lenient: it skips what stands where a chunk must end, and takes for the last chunk a size
        that begins with a zero and was cut behind it.
        """
        if not self._chunk:
            self._chunk = self._next_chunk(file)
            if not self._chunk:
                self._http.close()
                return 0
        count = self._several(file, buffer[: self._chunk])
        if count == 0:
            raise http.client.IncompleteRead(b"", self._chunk)
        self._chunk -= count
        return count

    def _next_chunk(self, file: BufferedReader) -> int:
        """The size of the next chunk; 0 behind the last, whose trailers are skipped."""
        if self._chunk is not None and file.read(2) != b"\r\n":
            raise http.client.HTTPException("a chunk does not end after its size")
        self._buffered = True
        size = _CHUNK_SIZE.fullmatch(file.readline(MAX_LINE_BYTES))
        if not size:
            raise http.client.HTTPException("a chunk has no size")
        if int(size[1], 16):
            return int(size[1], 16)
        for _ in range(MAX_TRAILERS):
            if file.readline(MAX_LINE_BYTES) in (b"\r\n", b"\n", b""):
                return 0
        raise http.client.HTTPException("too many trailers")

    def _several(self, file: BufferedReader, buffer: memoryview) -> int:
        """What came before an error is kept: the next read raises that again."""
        filled, until = 0, monotonic() + MOMENT_SECONDS
        while filled < len(buffer):
            rest = buffer[filled:]
            try:
                if self._buffered:
                    count = file.readinto1(rest)
                    self._buffered = count == len(rest)  # less: all that came with the head has been read
                else:
                    count = self._http.reads.untimed.readinto(rest) or 0
            except OSError:
                if filled:
                    break
                raise
            filled += count
            if count == 0 or monotonic() > until:
                break
        return filled


class Exports:
    """Opens exports. Connections are kept and shared by threads; cookies are not, and no proxy is used.

    `chunk_size` (bytes) is for the URL; `timeout` (seconds) is how long an export may stay silent.
    `token(arn, since)` is the text of a secret, read at `since` (of time.monotonic, seconds) or later.
    """

    def __init__(
        self,
        chunk_size: int,
        timeout: float,
        token: Callable[[str, float], str],
        now: Callable[[], datetime],
    ) -> None:
        self._chunk_size = chunk_size
        self._timeout = timeout
        self._token = token
        self._now = now
        # Not a Session: it keeps cookies for all tenants, and reads the body of a redirect into memory.
        self._http = TimedAdapter(pool_connections=32, pool_maxsize=32, max_retries=0)

    def probe(
        self,
        provider: Provider,
        user_id: str,
        site_id: str,
        length: int | None,
        time_left: TimeLeft = no_deadline,
    ) -> Export:
        """The first request: asks for the first `length` bytes (None: for all) and tells what the export is.

        Neither it nor a read of the export waits longer than the time that is left.

        Raises Transient or Permanent.
        """
        headers = {"Range": f"bytes=0-{length - 1}"} if length else {}
        wait = self._wait(time_left)
        response = self._get(provider, user_id, site_id, headers, wait)
        try:
            if response.status_code == 416 and response.headers.get("Content-Range") == "bytes */0":
                response.close()  # its body is not the export's
                return Export(response, wait, size=0, length=0, validator=None)
            self._refuse(response, provider)
            body_length, end_proven = _framing(response, provider)
            if response.status_code == 200:
                if not end_proven and provider.format == "any":
                    message = (
                        f"{provider.name} sends neither Content-Length nor chunked: nothing proves its end."
                    )
                    raise Permanent(Code.EXPORT_INCOMPLETE, message)
                return Export(
                    response,
                    wait,
                    size=body_length,
                    length=body_length,
                    validator=None,
                    end_proven=end_proven,
                )
            start, end, size = _content_range(response, provider)
            if length is None or start != 0 or end != min(length, size) or body_length not in (None, end):
                raise _invalid(provider, f"asked for {headers.get('Range')}, got {_range_of(response)}")
            validator = _strong_etag(response)
            if validator is None and end < size:
                response.close()
                return self.probe(provider, user_id, site_id, None, time_left)
            return Export(response, wait, size=size, length=end, validator=validator)
        except BaseException:
            response.close()
            raise

    def open_range(
        self,
        provider: Provider,
        user_id: str,
        site_id: str,
        start: int,
        length: int,
        validator: str,
        size: int,
        time_left: TimeLeft = no_deadline,
    ) -> Export:
        """Bytes `[start, start + length)` of the export that has this validator and size; waits as `probe` does.

        Raises ExportChanged if it has others by now, Transient or Permanent.
        """
        headers = {
            "Range": f"bytes={start}-{start + length - 1}",
            "If-Match": validator,
            "If-Range": validator,
        }
        wait = self._wait(time_left)
        response = self._get(provider, user_id, site_id, headers, wait)
        try:
            if response.status_code in (200, 412, 416):
                raise ExportChanged(f"{provider.name} no longer serves the export {validator}")
            self._refuse(response, provider)
            if _strong_etag(response) != validator:
                raise ExportChanged(f"{provider.name} no longer serves the export {validator}")
            body_length, _ = _framing(response, provider)
            got_start, got_end, got_size = _content_range(response, provider)
            if got_size != size:
                raise ExportChanged(f"{provider.name} no longer serves an export of {size} bytes")
            if (got_start, got_end) != (start, start + length) or body_length not in (None, length):
                raise _invalid(provider, f"asked for {headers['Range']}, got {_range_of(response)}")
            return Export(response, wait, size=size, length=length, validator=validator)
        except BaseException:
            response.close()
            raise

    def _wait(self, time_left: TimeLeft) -> TimeLeft:
        """How long an export may be waited for now, in seconds; that raises Transient once there is no time."""

        def wait() -> float:
            left = time_left()
            if left <= 0:
                raise Transient("The export was too slow.")
            return min(self._timeout, left)

        return wait

    def _get(
        self, provider: Provider, user_id: str, site_id: str, headers: dict[str, str], wait: TimeLeft
    ) -> requests.Response:
        """The answer, whatever its status. A token that is refused is read again once: it may have been rotated."""
        url = provider.url(user_id, site_id, self._chunk_size)
        headers = {"Accept-Encoding": "identity", **headers}
        if not provider.auth_secret_arn:
            return self._follow(provider, url, headers, None, wait)
        started = monotonic()
        token = self._token(provider.auth_secret_arn, 0.0)
        response = self._follow(provider, url, headers, token, wait)
        if response.status_code != 401:
            return response
        response.close()
        newer = self._token(provider.auth_secret_arn, started)
        return response if newer == token else self._follow(provider, url, headers, newer, wait)

    def _follow(
        self, provider: Provider, url: str, headers: dict[str, str], token: str | None, wait: TimeLeft
    ) -> requests.Response:
        """Follows redirects within the provider's hosts; of what comes with them only Location is read.

        The token goes to the host of `url` alone; which other places are the same host is requests' own rule.
        """
        authorized = headers if token is None else {**headers, "Authorization": f"Bearer {token}"}
        own = at = url
        for hop in range(MAX_REDIRECTS + 1):
            foreign = hop > 0 and _RULES.should_strip_auth(own, at)  # type: ignore[no-untyped-call]
            response = self._ask(provider, at, headers if foreign else authorized, wait)
            if response.status_code not in _REDIRECTS:
                return response
            response.close()
            if hop == 0:
                own = response.url
            at = _target(provider, response, own)
        raise _redirected(provider, f"more than {MAX_REDIRECTS} times")

    def _ask(
        self, provider: Provider, url: str, headers: dict[str, str], wait: TimeLeft
    ) -> requests.Response:
        try:
            request = requests.Request("GET", url, headers=headers).prepare()
        except requests.exceptions.InvalidHeader as error:
            raise Permanent(Code.EXPORT_FORBIDDEN, f"The token for {provider.name} can't be sent.") from error
        except ValueError as error:  # every kind of malformed URL is one
            message = f"{provider.name} has a URL that is not valid."
            raise Permanent(Code.EXPORT_INVALID, message) from error
        try:
            with timed("ExportLatency"):
                return self._http.send(
                    request,
                    stream=True,
                    timeout=(min(CONNECT_TIMEOUT_SECONDS, wait()), wait()),
                    verify=os.environ.get("REQUESTS_CA_BUNDLE") or True,
                )
        except requests.exceptions.InvalidHeader as error:
            raise _invalid(provider, "several values of Content-Length") from error
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            raise Transient(f"{provider.name} can't be reached: {type(error).__name__}.") from error

    def _refuse(self, response: requests.Response, provider: Provider) -> None:
        """Raises what a status other than 200 or 206, or an encoded body, means."""
        status = response.status_code
        answer = f"{provider.name} answered {status}."
        if status in _TRANSIENT_STATUSES or status >= 500:
            raise Transient(answer, retry_after(response.headers.get("Retry-After"), self._now()))
        if status in (401, 403):
            raise Permanent(Code.EXPORT_FORBIDDEN, answer)
        if status in (404, 410):
            raise Permanent(Code.EXPORT_NOT_FOUND, answer)
        if status not in (200, 206):
            raise Permanent(Code.EXPORT_REFUSED, answer)
        encoding = response.headers.get("Content-Encoding", "identity")
        if encoding.lower() != "identity":
            raise Permanent(Code.EXPORT_ENCODED, f"{provider.name} sent {encoding} although not asked to.")


def retry_after(value: str | None, now: datetime) -> timedelta | None:
    """Retry-After as a duration up to a day: seconds or an HTTP date (RFC 9110, 10.2.3).

    None if absent or unreadable.
    """
    value = (value or "").strip()
    if value.isdecimal():
        return timedelta(seconds=min(int(value[:MAX_DIGITS]), LONGEST_RETRY_AFTER.total_seconds()))
    try:
        moment = parsedate_to_datetime(value)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return min(max(moment - now, timedelta(0)), LONGEST_RETRY_AFTER)
    except (ValueError, TypeError, IndexError, OverflowError):  # what a date at random raises
        return None


def _http_client(raw: urllib3.HTTPResponse) -> TimedAnswer:
    """What urllib3 reads from; it has no public name."""
    return raw._fp  # type: ignore[return-value]


def _framing(response: requests.Response, provider: Provider) -> tuple[int | None, bool]:
    """(Content-Length if it frames the body, whether the body's end can be seen), by RFC 9112, section 6.3.

    Raises Permanent if that can be read in two ways, or differs from how http.client reads it.
    """
    raw: urllib3.HTTPResponse = response.raw
    parsed = _http_client(raw)
    try:
        assert_header_parsing(parsed.msg)
    except HeaderParsingError as error:  # those behind the broken one are lost
        raise _invalid(provider, "a header that can't be read") from error
    codings, lengths = raw.headers.getlist("Transfer-Encoding"), raw.headers.getlist("Content-Length")
    if codings:
        if len(codings) > 1 or not parsed.chunked or raw.version != 11:
            raise _invalid(provider, f"Transfer-Encoding {', '.join(codings)}")
        return None, True
    if not lengths:
        return None, False
    if len(lengths) > 1 or not _CONTENT_LENGTH.fullmatch(lengths[0]):
        raise _invalid(provider, f"Content-Length {', '.join(lengths)}")
    return int(lengths[0]), True


def _target(provider: Provider, response: requests.Response, own: str) -> str:
    """The URL that a redirect leads to, as it will be asked for. Raises Permanent."""
    try:
        location = response.headers.get("Location", "").encode("latin-1").decode()
        url = requests.Request("GET", urljoin(response.url, location)).prepare().url or ""
        to = urlsplit(url)
    except ValueError as error:  # every kind of malformed URL is one
        raise _redirected(provider, "to a URL that is not valid") from error
    if not location or to.scheme not in ("http", "https"):
        raise _redirected(provider, "to a URL that is not valid")
    if to.scheme == "http" and urlsplit(response.url).scheme == "https":
        raise _redirected(provider, "from https to http")
    if to.hostname not in {urlsplit(own).hostname, *map(str.lower, provider.redirect_hosts)}:
        raise _redirected(provider, f"to {to.hostname}, which is not among its redirectHosts")
    return url


def _strong_etag(response: requests.Response) -> str | None:
    etag = response.headers.get("ETag", "")
    return etag if etag.startswith('"') and etag.endswith('"') and len(etag) > 2 else None


def _content_range(response: requests.Response, provider: Provider) -> tuple[int, int, int]:
    """(start, end past the last byte, size)."""
    match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if not match:
        raise _invalid(provider, f"206 with Content-Range {response.headers.get('Content-Range')!r}")
    return int(match[1]), int(match[2]) + 1, int(match[3])


def _range_of(response: requests.Response) -> str:
    return f"{response.headers.get('Content-Range')} of {response.headers.get('Content-Length')} bytes"


def _invalid(provider: Provider, what: str) -> Permanent:
    return Permanent(Code.EXPORT_INVALID, f"{provider.name} does not follow HTTP: {what[:MAX_REASON]}.")


def _redirected(provider: Provider, where: str) -> Permanent:
    return Permanent(Code.EXPORT_REDIRECTED, f"{provider.name} redirects {where[:MAX_REASON]}.")
