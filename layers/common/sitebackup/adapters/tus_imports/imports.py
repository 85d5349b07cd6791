"""The providers' import APIs: a client of tus 1.0.0, core and creation, with checksum and termination where offered.

The rules are those of https://tus.io/protocols/resumable-upload. What each status means is in
docs/adding-a-provider.md. The URL of an upload stands in no error, nor does an error show a cause that holds it.
"""

import base64
import hashlib
import http.client
import math
import re
from collections.abc import Callable, Collection
from datetime import datetime
from time import monotonic
from typing import Literal

import msgspec
import requests

from ...domain.errors import NoSuchImport, Permanent, SiteBackupError, Transient
from ...domain.provider import Provider
from ...domain.reason import Code
from ...ports.providers import ImportOffer, ImportOutcome, ImportTarget
from ...ports.runtime import TimeLeft, no_deadline
from ...telemetry import logger
from ..http_body import Body, http_answer
from ..outgoing import Resolve, look_up
from ..provider_http import ProviderHttp, Reasons, UnsafeLink, check_link, linked, may_have_token, prepared
from .slices import ListeningAdapter, Slice

VERSION = "1.0.0"
MAX_ANSWER_BYTES = 64 * 1024
MAX_MESSAGE = 200
"""Characters."""
MAX_URL = 4096
"""Characters. It is stored in a task."""
OFFER_SECONDS = 300
"""So long the algorithm that a provider offers is kept."""
OFFER_WAIT_SECONDS = 3
"""Of a send for an answer to OPTIONS, which it can do without."""
_TUS = {"Tus-Resumable": VERSION}
_ALGORITHMS = ("sha1", "sha256")
"""Cheapest first, and sha1 is what tus asks of every server that compares checksums.

They find bytes that got damaged on the way; against people stands TLS.
"""
_LOCKED = frozenset({423})
_NOT_TAKEN = frozenset({409, 423, 460})
_NUMBER = re.compile(r"\d{1,18}", re.ASCII)
_REASONS = Reasons(
    forbidden=Code.IMPORT_FORBIDDEN,
    not_found=Code.IMPORT_NOT_FOUND,
    refused=Code.IMPORT_REFUSED,
    invalid=Code.IMPORT_INVALID,
    address_refused=Code.IMPORT_ADDRESS_REFUSED,
)


class _Told(msgspec.Struct):
    """What the URL of an upload says of its import."""

    state: Literal["done", "failed", "processing"]
    message: str | None = None


class TusImports:
    """Uploads to import APIs. Connections are kept and shared by threads; cookies are not, and no proxy is used.

    `timeout` (seconds) is how long an import API may stay silent.
    `token(arn, since)` is the text of a secret, read at `since` (of time.monotonic, seconds) or later.
    """

    def __init__(
        self,
        timeout: float,
        token: Callable[[str, float], str],
        now: Callable[[], datetime],
        resolve: Resolve = look_up,
    ) -> None:
        self._http = ProviderHttp("import", _REASONS, timeout, token, now, resolve, ListeningAdapter)
        self._algorithms: dict[Provider, tuple[float, str | None]] = {}
        """What `send` was offered, and when (time.monotonic, seconds)."""

    def offer(
        self, provider: Provider, user_id: str, site_id: str, time_left: TimeLeft = no_deadline
    ) -> ImportOffer:
        """What a dry run asks. Raises Transient or Permanent."""
        url = provider.import_target(user_id, site_id)
        headers = self._options(provider, url, self._http.wait(time_left))
        for header, needed in (("Tus-Version", VERSION), ("Tus-Extension", "creation")):
            if needed not in _list(headers.get(header)):
                raise _invalid(provider, f"its {header} does not name {needed}")
        if "Tus-Max-Size" not in headers:
            return ImportOffer(max_size=None)
        return ImportOffer(max_size=_number(provider, headers, "Tus-Max-Size"))

    def create(
        self, provider: Provider, target: ImportTarget, size: int, time_left: TimeLeft = no_deadline
    ) -> str:
        """The URL of a new upload of `size` bytes. Raises Transient or Permanent."""
        url = provider.import_target(target.user_id, target.site_id)
        headers = {**_TUS, "Upload-Length": str(size), "Upload-Metadata": _metadata(provider, target)}
        with self._ask(provider, "POST", url, headers, self._http.wait(time_left)) as response:
            if response.status_code == 413:
                message = f"{provider.name} takes no import of {size} bytes: it answered 413."
                raise Permanent(Code.IMPORT_TOO_LARGE, message)
            self._refuse(provider, response)
            if response.status_code != 201:
                raise _invalid(provider, f"a new upload was answered by {response.status_code}")
            try:
                location = linked(provider, response.url, response)
            except UnsafeLink as error:
                raise _invalid(provider, f"an upload leads {error}") from None
        if len(location) > MAX_URL:
            raise _invalid(provider, f"the URL of an upload has more than {MAX_URL} characters")
        return location

    def offset(self, provider: Provider, url: str, time_left: TimeLeft = no_deadline) -> int:
        """How many bytes have arrived. Raises NoSuchImport, Transient or Permanent."""
        with self._ask(provider, "HEAD", url, _TUS, self._http.wait(time_left)) as response:
            self._refuse_known(provider, response)
            length = response.headers.get("Upload-Length", "")
            most = int(length) if _NUMBER.fullmatch(length) else None
            return _arrived(provider, response, most)

    def send(
        self,
        provider: Provider,
        url: str,
        offset: int,
        data: memoryview,
        time_left: TimeLeft = no_deadline,
        goes_on: Callable[[], bool] = lambda: True,
    ) -> int:
        """Sends `data`, which stands at `offset`, and returns how many bytes have arrived by now.

        Raises NoSuchImport, TaskEnded, Transient or Permanent.
        """
        wait = self._http.wait(time_left)
        headers = {
            **_TUS,
            "Content-Type": "application/offset+octet-stream",
            "Upload-Offset": str(offset),
            **self._checksum(provider, url, data, wait),
        }
        body = Slice(data, wait, goes_on) if data else None
        with self._ask(provider, "PATCH", url, headers, wait, body) as response:
            self._refuse_known(provider, response, _NOT_TAKEN)
            cut = body is not None and not body.whole
            return _arrived(provider, response, offset + len(data) - cut)

    def outcome(self, provider: Provider, url: str, time_left: TimeLeft = no_deadline) -> ImportOutcome:
        """What became of an import whose bytes are all there. Raises NoSuchImport, Transient or Permanent."""
        wait = self._http.wait(time_left)
        headers = {**_TUS, "Accept": "application/json"}
        with self._ask(provider, "GET", url, headers, wait) as response:
            self._refuse_known(provider, response)
            document = _read(provider, response, wait())
            retry_after = self._http.retry_after(response)
        try:
            told = msgspec.json.decode(document, type=_Told)
        except (ValueError, RecursionError):  # every kind of garbage is one of them
            raise _invalid(provider, "the state of an import can't be read") from None
        return ImportOutcome(told.state, _shown(told.message), retry_after)

    def delete(self, provider: Provider, url: str, time_left: TimeLeft = no_deadline) -> None:
        """Ends an upload that nobody goes on with. Raises Transient or Permanent."""
        try:
            with self._ask(provider, "DELETE", url, _TUS, self._http.wait(time_left)) as response:
                if response.status_code not in (404, 405, 410, 501):
                    self._refuse(provider, response)
        except NoSuchImport as error:
            raise Permanent(Code.IMPORT_ADDRESS_REFUSED, str(error)) from None

    def _ask(
        self,
        provider: Provider,
        method: str,
        url: str,
        headers: dict[str, str],
        wait: TimeLeft,
        body: Slice | None = None,
    ) -> requests.Response:
        """The answer, whatever its status. The token goes to the host of `importUrl` alone.

        The URL of an upload may be older than the settings: NoSuchImport if it could not be given by now.
        """
        try:
            own, url = prepared(provider.import_url or ""), prepared(url)
        except ValueError:
            raise Permanent(Code.IMPORT_INVALID, f"{provider.name} has a URL that is not valid.") from None
        try:
            check_link(provider, own, own, url)
        except UnsafeLink:
            raise NoSuchImport(f"{provider.name} has no uploads there any longer.") from None

        def ask(token: str | None) -> requests.Response:
            return self._http.send(provider, method, url, headers, token, wait, body)

        response = self._http.with_token(provider, ask) if may_have_token(own, url) else ask(None)
        answer = http_answer(response.raw)
        empty = method == "HEAD" or (answer.length == 0 and not answer.chunked)
        if empty and (body is None or body.whole):
            response.raw.read()  # gives the connection back; those with a body left are closed
        return response

    def _refuse(
        self, provider: Provider, response: requests.Response, later: Collection[int] = _LOCKED
    ) -> None:
        """Raises what a status means that is no success."""
        if not 200 <= response.status_code < 300:
            raise self._http.failure(provider, response, later)

    def _refuse_known(
        self, provider: Provider, response: requests.Response, later: Collection[int] = _LOCKED
    ) -> None:
        """As `_refuse`, for an upload that was there."""
        if response.status_code in (404, 410):
            raise NoSuchImport(f"{provider.name} answered {response.status_code}.")
        self._refuse(provider, response, later)

    def _options(
        self, provider: Provider, url: str, wait: TimeLeft
    ) -> "requests.structures.CaseInsensitiveDict[str]":
        with self._ask(provider, "OPTIONS", url, {}, wait) as response:
            self._refuse(provider, response)
            return response.headers

    def _checksum(self, provider: Provider, url: str, data: memoryview, wait: TimeLeft) -> dict[str, str]:
        """The header with the checksum of `data`, if the API compares one."""
        algorithm = self._algorithm(provider, url, wait)
        if algorithm is None:
            return {}
        digest = hashlib.new(algorithm, data, usedforsecurity=False).digest()
        return {"Upload-Checksum": f"{algorithm} {_base64(digest)}"}

    def _algorithm(self, provider: Provider, url: str, wait: TimeLeft) -> str | None:
        """That of the checksums which the API compares, as far as it told within the last minutes."""
        at, algorithm = self._algorithms.get(provider, (-math.inf, None))
        if monotonic() - at < OFFER_SECONDS:
            return algorithm
        algorithm = None
        try:
            headers = self._options(provider, url, lambda: min(wait(), OFFER_WAIT_SECONDS))
        except SiteBackupError as error:
            extra = {"provider": provider.name, "error": str(error)}
            logger.warning("slices go without checksums", extra=extra)
        else:
            if "checksum" in _list(headers.get("Tus-Extension")):
                offered = _list(headers.get("Tus-Checksum-Algorithm"))
                algorithm = next((name for name in _ALGORITHMS if name in offered), None)
        self._algorithms[provider] = (monotonic(), algorithm)
        return algorithm


def _metadata(provider: Provider, target: ImportTarget) -> str:
    values = {
        "filename": f"{provider.name}.zip",
        "filetype": "application/zip",
        "userId": target.user_id,
        "siteId": target.site_id,
        "jobId": target.job_id,
        "restoreId": target.restore_id,
        "crc64nvme": target.crc64nvme,
    }
    return ",".join(f"{key} {_base64(value.encode())}" for key, value in values.items())


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _list(header: str | None) -> set[str]:
    return {item.strip() for item in (header or "").split(",")}


def _arrived(provider: Provider, response: requests.Response, most: int | None) -> int:
    """The offset that the answer tells; more than `most` can't be."""
    offset = _number(provider, response.headers, "Upload-Offset")
    if most is not None and offset > most:
        raise _invalid(provider, f"its Upload-Offset {offset} is above {most}")
    return offset


def _number(provider: Provider, headers: "requests.structures.CaseInsensitiveDict[str]", header: str) -> int:
    value = headers.get(header, "")
    if not _NUMBER.fullmatch(value):
        raise _invalid(provider, f"{header} is missing or no number of bytes")
    return int(value)


def _read(provider: Provider, response: requests.Response, wait: float) -> bytes:
    """The body, which must have come within `wait` (seconds)."""
    until = monotonic() + wait
    body, buffer, filled = Body(response.raw), memoryview(bytearray(MAX_ANSWER_BYTES + 1)), 0
    try:
        while count := body.readinto(buffer[filled:], until - monotonic()):
            filled += count
            if filled > MAX_ANSWER_BYTES:
                raise _invalid(provider, f"an answer has more than {MAX_ANSWER_BYTES} bytes")
    except (http.client.HTTPException, OSError, ValueError) as error:
        raise Transient(f"The answer of {provider.name} broke off: {type(error).__name__}.") from None
    return bytes(buffer[:filled])


def _shown(message: str | None) -> str | None:
    """What people can be shown of it: one line, without control characters."""
    if message is None:
        return None
    line = "".join(character if character.isprintable() else " " for character in message)
    return " ".join(line.split())[:MAX_MESSAGE] or None


def _invalid(provider: Provider, what: str) -> Permanent:
    return Permanent(Code.IMPORT_INVALID, f"{provider.name} does not follow tus: {what}.")
