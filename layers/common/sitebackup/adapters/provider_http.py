"""What requests to the APIs of providers have in common: tokens, waits, links, and what a refusal means."""

import logging
import os
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import lru_cache
from ipaddress import ip_network
from time import monotonic
from typing import NamedTuple
from urllib.parse import urljoin, urlsplit

import requests
import urllib3
from requests.sessions import SessionRedirectMixin

from ..domain.errors import Permanent, Transient
from ..domain.provider import Provider
from ..domain.reason import Code
from ..ports.runtime import TimeLeft
from ..telemetry import logger
from .outgoing import AddressRefused, Guard, Resolve
from .timed_http import TimedAdapter

CONNECT_TIMEOUT_SECONDS = 5
LONGEST_RETRY_AFTER = timedelta(days=1)
MAX_REASON = 200
"""Characters in an error that come from a provider."""
_MAX_RULES = 256
"""So many sets of `allowNetworks` keep their connections."""
_MAX_DIGITS = 18
_TRANSIENT_STATUSES = frozenset({408, 425, 429})
_RULES = SessionRedirectMixin()

# Its warnings hold URLs and headers, and an upload's URL is secret.
logging.getLogger("urllib3").setLevel(logging.ERROR)


class Reasons(NamedTuple):
    """What calls of one kind of API fail with."""

    forbidden: Code
    not_found: Code
    refused: Code
    invalid: Code
    address_refused: Code


class UnsafeLink(ValueError):
    """A `Location` that must not be gone to; the text says how it leads astray, without its path."""


class ProviderHttp:
    """Sends requests to providers. Connections are kept and shared by threads; cookies are not, and no proxy is used.

    A connection leads only where its provider may be, and is shared only with providers of the same `allowNetworks`.
    `what` is moved, for errors. `timeout` (seconds) is how long a provider may stay silent.
    `token(arn, since)` is the text of a secret, read at `since` (of time.monotonic, seconds) or later.
    """

    def __init__(
        self,
        what: str,
        reasons: Reasons,
        timeout: float,
        token: Callable[[str, float], str],
        now: Callable[[], datetime],
        resolve: Resolve,
        adapter: type[TimedAdapter] = TimedAdapter,
    ) -> None:
        self._what = what
        self._reasons = reasons

        # Not a Session: it keeps cookies for all tenants, and reads the body of a redirect into memory.
        @lru_cache(_MAX_RULES)
        def adapter_for(allow_networks: tuple[str, ...]) -> TimedAdapter:
            return adapter(Guard([ip_network(each) for each in allow_networks], resolve))

        self._adapter_for = adapter_for
        self._timeout = timeout
        self._token = token
        self._now = now

    def wait(self, time_left: TimeLeft) -> TimeLeft:
        """How long a provider may be waited for now, in seconds; that raises Transient once there is no time."""

        def wait() -> float:
            left = time_left()
            if left <= 0:
                raise Transient(f"The {self._what} was too slow.")
            return min(self._timeout, left)

        return wait

    def with_token(
        self, provider: Provider, ask: Callable[[str | None], requests.Response]
    ) -> requests.Response:
        """The answer to a request with the provider's token, if it has one, whatever the status.

        A token that is refused is read again once: it may have been rotated.
        """
        if not provider.auth_secret_arn:
            return ask(None)
        started = monotonic()
        token = self._read_token(provider.auth_secret_arn, 0.0)
        response = ask(token)
        if response.status_code != 401:
            return response
        response.close()
        newer = self._read_token(provider.auth_secret_arn, started)
        return response if newer == token else ask(newer)

    def _read_token(self, arn: str, since: float) -> str:
        try:
            return self._token(arn, since)
        except Permanent as error:
            raise Permanent(self._reasons.forbidden, error.reason.message) from error

    def send(
        self,
        provider: Provider,
        method: str,
        url: str,
        headers: Mapping[str, str],
        token: str | None,
        wait: TimeLeft,
        body: object = None,
    ) -> requests.Response:
        """The answer with its body unread. Raises Transient or Permanent without a cause: its text has the URL."""
        headers = {"Accept-Encoding": "identity", **headers}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        try:
            request = requests.Request(method, url, headers=headers, data=body).prepare()
        except requests.exceptions.InvalidHeader:
            message = f"The token for {provider.name} can't be sent."
            raise Permanent(self._reasons.forbidden, message) from None
        except ValueError:  # every kind of malformed URL is one
            raise Permanent(self._reasons.invalid, f"{provider.name} has a URL that is not valid.") from None
        try:
            return self._adapter_for(provider.allow_networks).send(
                request,
                stream=True,
                timeout=(min(CONNECT_TIMEOUT_SECONDS, wait()), wait()),
                verify=os.environ.get("REQUESTS_CA_BUNDLE") or True,
            )
        except AddressRefused as refused:
            extra = {"provider": provider.name, "addresses": refused.addresses}
            logger.warning("address refused", extra=extra)
            message = f"{provider.name} leads to an address that is not public, nor among its allowNetworks."
            raise Permanent(self._reasons.address_refused, message) from None
        except requests.exceptions.InvalidHeader:
            message = f"{provider.name} does not follow HTTP: several values of Content-Length."
            raise Permanent(self._reasons.invalid, message) from None
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            raise Transient(f"{provider.name} can't be reached: {type(error).__name__}.") from None

    def failure(
        self, provider: Provider, response: requests.Response, later: Collection[int] = ()
    ) -> Transient | Permanent:
        """What a status that is no success means; those in `later` are worth another try as well."""
        status = response.status_code
        answer = f"{provider.name} answered {status}."
        if status in _TRANSIENT_STATUSES or status in later or status >= 500:
            return Transient(answer, self.retry_after(response))
        if status in (401, 403):
            return Permanent(self._reasons.forbidden, answer)
        if status in (404, 410):
            return Permanent(self._reasons.not_found, answer)
        return Permanent(self._reasons.refused, answer)

    def retry_after(self, response: requests.Response) -> timedelta | None:
        """When the provider wants to be asked again."""
        return retry_after(response.headers.get("Retry-After"), self._now())


@lru_cache(256)
def prepared(url: str) -> str:
    """The URL as it is asked for: quoted, its host in ASCII. Raises ValueError."""
    return requests.Request("GET", url).prepare().url or ""


def linked(provider: Provider, own: str, response: requests.Response) -> str:
    """The URL that `Location` leads to, as it will be asked for.

    It is on the host of `own` or one of the provider's `redirectHosts`, and http only if the answer came by http.
    Raises UnsafeLink.
    """
    try:
        location = response.headers.get("Location", "").encode("latin-1").decode()
        url = prepared(urljoin(response.url, location))
        to = urlsplit(url)
    except ValueError as error:  # every kind of malformed URL is one
        raise UnsafeLink("to a URL that is not valid") from error
    if not location or to.scheme not in ("http", "https"):
        raise UnsafeLink("to a URL that is not valid")
    check_link(provider, own, response.url, url)
    return url


def check_link(provider: Provider, own: str, source: str, url: str) -> None:
    """Raises UnsafeLink if the URLs `source` and `own` can't lead to `url`, by the rules of `linked`."""
    to = urlsplit(url)
    if to.scheme == "http" and urlsplit(source).scheme == "https":
        raise UnsafeLink("from https to http")
    if to.hostname not in {urlsplit(own).hostname, *map(str.lower, provider.redirect_hosts)}:
        raise UnsafeLink(f"to {to.hostname}, which is not among its redirectHosts"[:MAX_REASON])


def may_have_token(own: str, url: str) -> bool:
    """Whether a token for `own` may go to `url`, by requests' own rule: the same host and port, or its https."""
    return not _RULES.should_strip_auth(own, url)  # type: ignore[no-untyped-call]


def retry_after(value: str | None, now: datetime) -> timedelta | None:
    """Retry-After as a duration up to a day: seconds or an HTTP date (RFC 9110, 10.2.3).

    None if absent or unreadable.
    """
    value = (value or "").strip()
    if value.isdecimal():
        return timedelta(seconds=min(int(value[:_MAX_DIGITS]), LONGEST_RETRY_AFTER.total_seconds()))
    try:
        moment = parsedate_to_datetime(value)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return min(max(moment - now, timedelta(0)), LONGEST_RETRY_AFTER)
    except (ValueError, TypeError, IndexError, OverflowError):  # what a date at random raises
        return None
