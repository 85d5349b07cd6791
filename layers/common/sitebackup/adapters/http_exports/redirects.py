"""Where an export may redirect to: its own host, or one of the provider's `redirectHosts`."""

from urllib.parse import urljoin, urlsplit

import requests

from ...domain.errors import Permanent
from ...domain.provider import Provider
from ...domain.reason import Code
from .framing import MAX_REASON

MAX_REDIRECTS = 5
REDIRECTS = frozenset({301, 302, 303, 307, 308})


def target_of(provider: Provider, response: requests.Response, own: str) -> str:
    """The URL that a redirect leads to, as it will be asked for. Raises Permanent."""
    try:
        location = response.headers.get("Location", "").encode("latin-1").decode()
        url = requests.Request("GET", urljoin(response.url, location)).prepare().url or ""
        to = urlsplit(url)
    except ValueError as error:  # every kind of malformed URL is one
        raise redirected(provider, "to a URL that is not valid") from error
    if not location or to.scheme not in ("http", "https"):
        raise redirected(provider, "to a URL that is not valid")
    if to.scheme == "http" and urlsplit(response.url).scheme == "https":
        raise redirected(provider, "from https to http")
    if to.hostname not in {urlsplit(own).hostname, *map(str.lower, provider.redirect_hosts)}:
        raise redirected(provider, f"to {to.hostname}, which is not among its redirectHosts")
    return url


def redirected(provider: Provider, where: str) -> Permanent:
    """The error for a redirect that is not followed."""
    return Permanent(Code.EXPORT_REDIRECTED, f"{provider.name} redirects {where[:MAX_REASON]}.")
