"""A provider as the settings describe it, and the list of all of them."""

from collections.abc import Mapping
from ipaddress import ip_network
from typing import Annotated, Literal

import msgspec

from .errors import Permanent
from .model import Model, ProviderName, decode, in_plain_words
from .reason import Code
from .task_ref import TaskRef

HostName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._-]+\Z", description="a host, without a port")]
NETWORK_FORM = "a network like 10.0.0.0/8 or fd00::/8, with no bit set behind its prefix"
NetworkText = Annotated[str, msgspec.Meta(description=NETWORK_FORM)]
NAME_FORM = "a lower-case letter, then up to 31 lower-case letters, digits or hyphens"
Url = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^https?://[^\s/?#]+\S*\Z",
        description="a URL that begins with http:// or https:// and a host, and has no white space",
    ),
]


class ProvidersError(ValueError):
    """The list of providers is wrong; the message begins with the field, like `providers[1].exportUrl`."""


class Provider(Model, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a provider's exports come from, what they may cost, and where they can be given back."""

    name: Annotated[ProviderName, msgspec.Meta(description=NAME_FORM)]
    export_url: Url
    """May hold `{userId}`, `{siteId}` and `{chunkSize}` (bytes)."""
    format: Annotated[Literal["zip", "any"], msgspec.Meta(description="zip or any")] = "zip"
    """`zip`: an export that is no whole zip fails. `any`: nobody looks into it, and 0 bytes are an export."""
    import_url: (
        Annotated[
            str,
            msgspec.Meta(
                pattern=r"^https?://[^\s/?#{}]+([/?#]\S*)?\Z",
                description="a URL that begins with http:// or https:// and a host without placeholders, "
                "and has no white space",
            ),
        ]
        | None
    ) = None
    """Of its import API (tus 1.0.0); may hold `{userId}` and `{siteId}` behind its host, which gets the token.

    None: it can't take data back.
    """
    import_status: Annotated[bool, msgspec.Meta(description="true or false")] = False
    """Whether the URL of an upload tells, once all bytes are there, what became of the import."""
    auth_secret_arn: (
        Annotated[str, msgspec.Meta(min_length=1, description="the ARN of a Secrets Manager secret")] | None
    ) = None
    """A Secrets Manager secret whose text is sent as a bearer token."""
    max_bytes: (
        Annotated[int, msgspec.Meta(ge=1, description="a whole number of bytes, at least 1")] | None
    ) = None
    parts_in_flight: (
        Annotated[int, msgspec.Meta(ge=1, le=1000, description="a whole number from 1 to 1000")] | None
    ) = None
    redirect_hosts: Annotated[
        tuple[HostName, ...], msgspec.Meta(description="a list of hosts, without ports")
    ] = ()
    """Other hosts that an export may redirect to, and where uploads may lie; the token is not sent there."""
    allow_networks: Annotated[tuple[NetworkText, ...], msgspec.Meta(description="a list of networks")] = ()
    """Where it may be although these are not public; they open no metadata service of a cloud."""

    def url(self, user_id: str, site_id: str, chunk_size: int) -> str:
        """The export of one site."""
        return (
            self.export_url.replace("{userId}", user_id)
            .replace("{siteId}", site_id)
            .replace("{chunkSize}", str(chunk_size))
        )

    def import_target(self, user_id: str, site_id: str) -> str:
        """Where an import of one site is created. Raises ValueError without `import_url`."""
        if self.import_url is None:
            raise ValueError(f"{self.name} has no import API")
        return self.import_url.replace("{userId}", user_id).replace("{siteId}", site_id)


def parse_providers(text: str | bytes) -> dict[str, Provider]:
    """The providers of a JSON list, by name, in its order. Raises ProvidersError."""
    try:
        items = msgspec.json.decode(text, type=list[msgspec.Raw])
        listed = [_provider(position, item) for position, item in enumerate(items)]
    except msgspec.ValidationError as error:
        raise ProvidersError("providers: must be a JSON list") from error
    except msgspec.DecodeError as error:
        raise ProvidersError(f"providers: not valid JSON: {error}") from error
    except UnicodeDecodeError as error:
        raise ProvidersError("providers: not valid UTF-8") from error
    except RecursionError as error:
        raise ProvidersError("providers: nested too deeply") from error
    if not listed:
        raise ProvidersError("providers: must list at least one")
    providers: dict[str, Provider] = {}
    for position, provider in enumerate(listed):
        if provider.name in providers:
            raise ProvidersError(f"providers[{position}].name: {provider.name} is listed twice")
        providers[provider.name] = provider
    return providers


def _provider(position: int, item: msgspec.Raw) -> Provider:
    try:
        provider = decode(item, Provider)
    except msgspec.ValidationError as error:
        path, wrong = in_plain_words(error, Provider)
        raise ProvidersError(f"providers[{position}]{'.' if path else ''}{path}: {wrong}") from error
    for number, network in enumerate(provider.allow_networks):
        try:
            ip_network(network)
        except ValueError as error:
            field = f"providers[{position}].allowNetworks[{number}]"
            raise ProvidersError(f"{field}: must be {NETWORK_FORM}") from error
    return provider


def provider_of(ref: TaskRef, providers: Mapping[str, Provider]) -> Provider:
    """Raises Permanent if the settings no longer list it."""
    return require_listed(ref, providers.get(ref.provider))


def require_listed(ref: TaskRef, provider: Provider | None) -> Provider:
    """The task's provider, as it was looked up. Raises Permanent if it was not found."""
    if provider is None:
        raise Permanent(Code.PROVIDER_UNKNOWN, f"No provider {ref.provider} is configured.")
    return provider
