"""Backups of sites that have changed since: what restores begin with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mock_providers.client import MockSite
from tests.e2e.client import Json
from tests.e2e.stack import Stack


@dataclass(frozen=True)
class Backup:
    """A done job, the exports that it is of, and the SHA-256 of each when it was made, by provider."""

    job: Json
    sites: tuple[MockSite, ...]
    sha256: dict[str, str]

    @property
    def site(self) -> MockSite:
        """The only one, or the first."""
        return self.sites[0]

    def is_back(self) -> bool:
        """Whether each provider exports what was backed up, and has imported it once."""
        held = {site.provider: site.sha256() for site in self.sites}
        return held == self.sha256 and all(site.imports()["imported"] == 1 for site in self.sites)

    def bytes_received(self) -> float:
        """By the import APIs, in sizes of the backup; what they dropped again counts as well."""
        size: int = self.job["progress"]["bytesTotal"]
        received: int = sum(site.imports()["bytesReceived"] for site in self.sites)
        return received / size


def back_up(stack: Stack, *sites: MockSite) -> Backup:
    """Backs the exports of one site up, then changes them."""
    return back_up_each(stack, [sites])[0]


def back_up_each(stack: Stack, groups: Sequence[Sequence[MockSite]]) -> list[Backup]:
    """The same for several sites at once."""
    jobs = [stack.api.create(*sites) for sites in groups]
    backups = []
    for job, sites in zip(jobs, groups, strict=True):
        done = stack.api.done(job)
        backups.append(Backup(done, tuple(sites), {site.provider: site.archive.sha256() for site in sites}))
        for site in sites:
            site.set(size=2000, revision=2)
    return backups


def behave(site: MockSite, **imports: Any) -> None:
    """How its import API behaves from now on; what was imported stays."""
    site.set(size=None, imports=imports)
