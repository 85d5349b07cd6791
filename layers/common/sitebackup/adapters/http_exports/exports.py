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
from ...ports.runtime import TimeLeft, no_deadline
from ...telemetry import timed
from ..http_body import Body
from ..outgoing import Resolve, look_up
from ..provider_http import ProviderHttp, Reasons, may_have_token
from .framing import content_range, framing_of, invalid, range_of, strong_etag
from .redirects import MAX_REDIRECTS, REDIRECTS, redirected, target_of

_REASONS = Reasons(
    forbidden=Code.EXPORT_FORBIDDEN,
    not_found=Code.EXPORT_NOT_FOUND,
    refused=Code.EXPORT_REFUSED,
    invalid=Code.EXPORT_INVALID,
    address_refused=Code.EXPORT_ADDRESS_REFUSED,
)


class HttpExport:
    """An Export: an open response."""

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
        self.length = length
        self.validator = validator
        self.end_proven = end_proven
        self._response = response
        self._body = Body(response.raw)
        self._read = 0
        self._wait = wait

    @property
    def ranged(self) -> bool:
        return self.validator is not None

    def readinto(self, buffer: memoryview) -> int:
        """With the last byte of a range it makes sure that nothing follows."""
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
    """An ExportApi. Connections are kept and shared by threads; cookies are not, and no proxy is used.

    `chunk_size` (bytes) is for the URL; `timeout` (seconds) is how long an export may stay silent.
    `token(arn, since)` is the text of a secret, read at `since` (of time.monotonic, seconds) or later.
    """

    def __init__(
        self,
        chunk_size: int,
        timeout: float,
        token: Callable[[str, float], str],
        now: Callable[[], datetime],
        resolve: Resolve = look_up,
    ) -> None:
        self._chunk_size = chunk_size
        self._http = ProviderHttp("export", _REASONS, timeout, token, now, resolve)

    def probe(
        self,
        provider: Provider,
        user_id: str,
        site_id: str,
        length: int | None,
        time_left: TimeLeft = no_deadline,
    ) -> HttpExport:
        """Asks a second time, for the whole, if the first part came and further ranges can't be had."""
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
