"""The providers' export APIs, over HTTP."""

import http.client
from collections.abc import Callable
from datetime import datetime
from types import TracebackType
from typing import Self

import requests

from ...domain.errors import ExportChanged, Permanent, Transient
from ...domain.provider import Provider
from ...domain.reason import Code
from ...ports import TimeLeft, no_deadline
from ...telemetry import timed
from ..http_body import Body
from ..provider_http import ProviderHttp, Reasons, may_have_token
from .framing import content_range, framing_of, invalid, range_of, strong_etag
from .redirects import MAX_REDIRECTS, REDIRECTS, redirected, target_of

_REASONS = Reasons(
    forbidden=Code.EXPORT_FORBIDDEN,
    not_found=Code.EXPORT_NOT_FOUND,
    refused=Code.EXPORT_REFUSED,
    invalid=Code.EXPORT_INVALID,
)


class HttpExport:
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
        self._body = Body(response.raw)
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


class HttpExports:
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
        self._http = ProviderHttp("export", _REASONS, timeout, token, now)

    def probe(
        self,
        provider: Provider,
        user_id: str,
        site_id: str,
        length: int | None,
        time_left: TimeLeft = no_deadline,
    ) -> HttpExport:
        """The first request: asks for the first `length` bytes (None: for all) and tells what the export is.

        Neither it nor a read of the export waits longer than the time that is left.

        Raises Transient or Permanent.
        """
        headers = {"Range": f"bytes=0-{length - 1}"} if length else {}
        wait = self._http.wait(time_left)
        response = self._get(provider, user_id, site_id, headers, wait)
        try:
            if response.status_code == 416 and response.headers.get("Content-Range") == "bytes */0":
                response.close()  # its body is not the export's
                return HttpExport(response, wait, size=0, length=0, validator=None)
            self._refuse(response, provider)
            body_length, end_proven = framing_of(response, provider)
            if response.status_code == 200:
                if not end_proven and provider.format == "any":
                    message = (
                        f"{provider.name} sends neither Content-Length nor chunked: nothing proves its end."
                    )
                    raise Permanent(Code.EXPORT_INCOMPLETE, message)
                return HttpExport(
                    response,
                    wait,
                    size=body_length,
                    length=body_length,
                    validator=None,
                    end_proven=end_proven,
                )
            start, end, size = content_range(response, provider)
            if length is None or start != 0 or end != min(length, size) or body_length not in (None, end):
                raise invalid(provider, f"asked for {headers.get('Range')}, got {range_of(response)}")
            validator = strong_etag(response)
            if validator is None and end < size:
                response.close()
                return self.probe(provider, user_id, site_id, None, time_left)
            return HttpExport(response, wait, size=size, length=end, validator=validator)
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
    ) -> HttpExport:
        """Bytes `[start, start + length)` of the export that has this validator and size; waits as `probe` does.

        Raises ExportChanged if it has others by now, Transient or Permanent.
        """
        headers = {
            "Range": f"bytes={start}-{start + length - 1}",
            "If-Match": validator,
            "If-Range": validator,
        }
        wait = self._http.wait(time_left)
        response = self._get(provider, user_id, site_id, headers, wait)
        try:
            if response.status_code in (200, 412, 416):
                raise ExportChanged(f"{provider.name} no longer serves the export {validator}")
            self._refuse(response, provider)
            if strong_etag(response) != validator:
                raise ExportChanged(f"{provider.name} no longer serves the export {validator}")
            body_length, _ = framing_of(response, provider)
            got_start, got_end, got_size = content_range(response, provider)
            if got_size != size:
                raise ExportChanged(f"{provider.name} no longer serves an export of {size} bytes")
            if (got_start, got_end) != (start, start + length) or body_length not in (None, length):
                raise invalid(provider, f"asked for {headers['Range']}, got {range_of(response)}")
            return HttpExport(response, wait, size=size, length=length, validator=validator)
        except BaseException:
            response.close()
            raise

    def _get(
        self, provider: Provider, user_id: str, site_id: str, headers: dict[str, str], wait: TimeLeft
    ) -> requests.Response:
        """The answer, whatever its status."""
        url = provider.url(user_id, site_id, self._chunk_size)
        return self._http.with_token(
            provider, lambda token: self._follow(provider, url, headers, token, wait)
        )

    def _follow(
        self, provider: Provider, url: str, headers: dict[str, str], token: str | None, wait: TimeLeft
    ) -> requests.Response:
        """Follows redirects within the provider's hosts; of what comes with them only Location is read.

        The token goes to the host of `url` alone; which other places are the same host is requests' own rule.
        """
        own = at = url
        for hop in range(MAX_REDIRECTS + 1):
            sent_token = token if hop == 0 or may_have_token(own, at) else None
            with timed("ExportLatency"):
                response = self._http.send(provider, "GET", at, headers, sent_token, wait)
            if response.status_code not in REDIRECTS:
                return response
            response.close()
            if hop == 0:
                own = response.url
            at = target_of(provider, response, own)
        raise redirected(provider, f"more than {MAX_REDIRECTS} times")

    def _refuse(self, response: requests.Response, provider: Provider) -> None:
        """Raises what a status other than 200 or 206, or an encoded body, means."""
        if response.status_code not in (200, 206):
            raise self._http.failure(provider, response)
        encoding = response.headers.get("Content-Encoding", "identity")
        if encoding.lower() != "identity":
            raise Permanent(Code.EXPORT_ENCODED, f"{provider.name} sent {encoding} although not asked to.")
