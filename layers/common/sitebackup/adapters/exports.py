"""The providers' export APIs, over HTTP.

Ranges and validators follow RFC 9110 (sections 13 and 14): only a strong ETag may join ranges of one export.
"""

import http.client
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from io import BufferedReader
from time import monotonic
from types import TracebackType
from typing import Self

import requests
import urllib3

from ..domain.errors import ExportChanged, Permanent, Transient
from ..domain.provider import Provider
from ..domain.reason import Code
from ..telemetry import timed
from .time_limits import TimedAdapter, TimedAnswer, TimeLeft, no_deadline

CONNECT_TIMEOUT_SECONDS = 5
MAX_REDIRECTS = 5
MAX_DIGITS = 18  # of a number in a header
MOMENT_SECONDS = 0.1
_COPIED_BYTES = 64 * 1024  # of a body without Content-Length, at once
_TRANSIENT_STATUSES = frozenset({408, 425, 429})
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})")


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
    ) -> None:
        self.size = size
        """Bytes of the whole export; None if only the end of the stream tells."""
        self.length = length
        """Bytes of this body; None likewise."""
        self.validator = validator
        """A strong ETag if the export can be read by ranges, else None."""
        self._response = response
        self._body = _Body(response.raw)
        self._wait = wait

    @property
    def ranged(self) -> bool:
        """Whether other ranges of the same export can be asked for."""
        return self.validator is not None

    def readinto(self, buffer: memoryview) -> int:
        """Fills the front of `buffer` with what has come; 0 only at the end. Raises Transient."""
        try:
            return self._body.readinto(buffer, self._wait())
        except (http.client.HTTPException, OSError, ValueError) as error:
            raise Transient(f"The export broke off: {type(error).__name__}.") from error

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
        self._http: TimedAnswer = raw._fp  # type: ignore[assignment]
        self._buffered = True
        """Whether the response's file may hold bytes that it took from the socket with the head."""

    def readinto(self, buffer: memoryview, wait: float) -> int:
        """0 only at the end. Raises OSError or HTTPException if it comes too early, or nothing within `wait` (s)."""
        body = self._http
        if body.fp is None:  # read to its end
            return 0
        body.reads.allow(wait)
        if body.length is None:  # chunked, or until the connection closes
            data = body.read1(min(len(buffer), _COPIED_BYTES))
            count = len(data)
            buffer[:count] = data
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
    """Opens exports. Connections are kept and shared by threads.

    `chunk_size` (bytes) is for the URL; `timeout` (seconds) is how long an export may stay silent.
    """

    def __init__(
        self, chunk_size: int, timeout: float, token: Callable[[str], str], now: Callable[[], datetime]
    ) -> None:
        self._chunk_size = chunk_size
        self._timeout = timeout
        self._token = token
        self._now = now
        self._session = requests.Session()
        self._session.max_redirects = MAX_REDIRECTS
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, TimedAdapter(pool_connections=32, pool_maxsize=32, max_retries=0))

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
                return Export(response, wait, size=0, length=0, validator=None)
            self._refuse(response, provider)
            body_length = _content_length(response)
            if response.status_code == 200:
                return Export(response, wait, size=body_length, length=body_length, validator=None)
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
        time_left: TimeLeft = no_deadline,
    ) -> Export:
        """Bytes `[start, start + length)` of the export that has this validator; waits as `probe` does.

        Raises ExportChanged if it has another one by now, Transient or Permanent.
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
            got_start, got_end, size = _content_range(response, provider)
            if (got_start, got_end) != (start, start + length) or _content_length(response) not in (
                None,
                length,
            ):
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
        headers = {"Accept-Encoding": "identity", **headers}
        if provider.auth_secret_arn:
            headers["Authorization"] = f"Bearer {self._token(provider.auth_secret_arn)}"
        try:
            with timed("ExportLatency"):
                return self._session.get(
                    provider.url(user_id, site_id, self._chunk_size),
                    headers=headers,
                    stream=True,
                    timeout=(min(CONNECT_TIMEOUT_SECONDS, wait()), wait()),
                )
        except requests.exceptions.InvalidHeader as error:
            raise Permanent(Code.EXPORT_FORBIDDEN, f"The token for {provider.name} can't be sent.") from error
        except requests.TooManyRedirects as error:
            raise Permanent(Code.EXPORT_INVALID, f"{provider.name} redirects without end.") from error
        except ValueError as error:  # every kind of malformed URL is one
            message = f"{provider.name} has, or redirects to, a URL that is not valid."
            raise Permanent(Code.EXPORT_INVALID, message) from error
        except requests.RequestException as error:
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
    """Retry-After as a duration: seconds or an HTTP date (RFC 9110, 10.2.3); None if absent or unreadable."""
    if value is None:
        return None
    if value.strip().isdecimal():
        return timedelta(seconds=min(int(value) if len(value) <= MAX_DIGITS else 24 * 3600, 24 * 3600))
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return min(max(moment - now, timedelta(0)), timedelta(days=1))


def _strong_etag(response: requests.Response) -> str | None:
    etag = response.headers.get("ETag", "")
    return etag if etag.startswith('"') and etag.endswith('"') and len(etag) > 2 else None


def _content_length(response: requests.Response) -> int | None:
    value = response.headers.get("Content-Length", "")
    return int(value) if value.isdecimal() and len(value) <= MAX_DIGITS else None


def _content_range(response: requests.Response, provider: Provider) -> tuple[int, int, int]:
    """(start, end past the last byte, size)."""
    match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if not match:
        raise _invalid(provider, f"206 with Content-Range {response.headers.get('Content-Range')!r}")
    return int(match[1]), int(match[2]) + 1, int(match[3])


def _range_of(response: requests.Response) -> str:
    return f"{response.headers.get('Content-Range')} of {response.headers.get('Content-Length')} bytes"


def _invalid(provider: Provider, what: str) -> Permanent:
    return Permanent(Code.EXPORT_INVALID, f"{provider.name} does not follow HTTP: {what}.")
