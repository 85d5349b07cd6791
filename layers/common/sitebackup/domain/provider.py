"""A provider as the PROVIDERS setting describes it."""

from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec

from .errors import Permanent
from .model import Model, ProviderName
from .reason import Code
from .task_ref import TaskRef

HostName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._-]+\Z", description="a host, without a port")]


class Provider(Model, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a provider's exports come from, what they may cost, and where they can be given back."""

    name: ProviderName
    export_url: Annotated[str, msgspec.Meta(pattern="^https?://")]
    """May hold `{userId}`, `{siteId}` and `{chunkSize}` (bytes)."""
    format: Literal["zip", "any"] = "zip"
    """`zip`: an export that is no whole zip fails. `any`: nobody looks into it, and 0 bytes are an export."""
    import_url: Annotated[str, msgspec.Meta(pattern=r"^https?://[^/?#{}]+([/?#]|\Z)")] | None = None
    """Of its import API (tus 1.0.0); may hold `{userId}` and `{siteId}` behind its host, which gets the token.

    None: it can't take data back.
    """
    import_status: bool = False
    """Whether the URL of an upload tells, once all bytes are there, what became of the import."""
    auth_secret_arn: str | None = None
    """A Secrets Manager secret whose text is sent as a bearer token."""
    max_bytes: Annotated[int, msgspec.Meta(ge=1)] | None = None
    parts_in_flight: Annotated[int, msgspec.Meta(ge=1, le=1000)] | None = None
    redirect_hosts: tuple[HostName, ...] = ()
    """Other hosts that an export may redirect to, and where uploads may lie; the token is not sent there."""

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


def provider_of(ref: TaskRef, providers: Mapping[str, Provider]) -> Provider:
    """Raises Permanent if the settings no longer list it."""
    provider = providers.get(ref.provider)
    if provider is None:
        raise Permanent(Code.PROVIDER_UNKNOWN, f"No provider {ref.provider} is configured.")
    return provider
