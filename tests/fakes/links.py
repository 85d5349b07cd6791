"""Links to a bucket in memory, as the contract suite of the DownloadLinks asks for them."""

from collections.abc import Callable
from datetime import datetime, timedelta

from sitebackup.domain.download import DownloadLink
from sitebackup.domain.job import StoredObject
from tests.fakes.faults import Fake, FaultInjector, no_faults, port_call


class MemoryLinks(Fake):
    """Links that lead nowhere, and are remembered."""

    port = "links"

    def __init__(self, now: Callable[[], datetime], faults: FaultInjector = no_faults) -> None:
        super().__init__(faults)
        self.given: list[tuple[StoredObject, DownloadLink]] = []
        self._now = now

    @port_call
    def link(self, stored: StoredObject, file_name: str, until: datetime) -> DownloadLink:
        now = self._now()
        valid = timedelta(seconds=int((until - now).total_seconds()))
        link = DownloadLink(
            f"memory:{stored.key}?versionId={stored.version_id}", now.replace(microsecond=0) + valid
        )
        self.given.append((stored, link))
        return link
