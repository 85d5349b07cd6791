"""Where an export may redirect to: its own host, or one of the provider's `redirectHosts`."""

import requests

from ...domain.errors import Permanent
from ...domain.provider import Provider
from ...domain.reason import Code
from ..provider_http import MAX_REASON, UnsafeLink, linked

MAX_REDIRECTS = 5
REDIRECTS = frozenset({301, 302, 303, 307, 308})


def target_of(provider: Provider, response: requests.Response, own: str) -> str:
    """The URL that a redirect leads to, as it will be asked for. Raises Permanent."""
    try:
        return linked(provider, own, response)
    except UnsafeLink as error:
        raise redirected(provider, str(error)) from error


def redirected(provider: Provider, where: str) -> Permanent:
    """The error for a redirect that is not followed."""
    return Permanent(Code.EXPORT_REDIRECTED, f"{provider.name} redirects {where[:MAX_REASON]}.")
