"""A site's export and import as tests see them: sets how they behave, and knows the bytes of the export."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import requests

from mock_providers.archive import Archive

_TIMEOUT = 10  # seconds
_READ_TIMEOUT = 300  # seconds: the whole export is read


@dataclass
class MockSite:
    """One site at the mock providers that listen at url. Raises requests' errors if they don't answer."""

    url: str
    provider: str = "site"
    user_id: str = "0" * 24
    site_id: str = field(default_factory=lambda: uuid.uuid4().hex[:24])
    size: int = 1000
    revision: int = 1

    def set(
        self,
        size: int | None = 1000,
        revision: int = 1,
        token: str | None = None,
        imports: Mapping[str, Any] | None = None,
        **faults: Any,
    ) -> "MockSite":
        """Sets size (bytes), revision and faults, named as in the control API's JSON; what isn't given is reset.

        The export has that content from now on, whatever was imported. With None for the size what was imported
        stays. `imports` is how the import API behaves. Raises ValueError if the server refuses them.
        """
        body: dict[str, Any] = {"requireToken": token, "faults": faults, "imports": imports or {}}
        if size is not None:
            body |= {"size": size, "revision": revision}
        answer = requests.put(self.control_url, json=body, timeout=_TIMEOUT)
        if not answer.ok:
            raise ValueError(answer.text)
        if size is not None:
            self.size, self.revision = size, revision
        return self

    @property
    def control_url(self) -> str:
        return f"{self.url}/control/{self.provider}/{self.site_id}"

    @property
    def stats_url(self) -> str:
        return f"{self.url}/stats/{self.provider}/{self.site_id}"

    @property
    def export_url(self) -> str:
        return f"{self.url}/{self.provider}/export?userId={self.user_id}&siteId={self.site_id}"

    @property
    def import_url(self) -> str:
        return f"{self.url}/{self.provider}/import"

    @property
    def archive(self) -> Archive:
        return Archive(self.provider, self.user_id, self.site_id, self.size, self.revision)

    @property
    def content(self) -> bytes:
        """All bytes of the export if nothing was imported, in memory."""
        return self.archive.read(0, self.size)

    def stats(self) -> dict[str, Any]:
        answer = requests.get(self.stats_url, timeout=_TIMEOUT)
        answer.raise_for_status()
        statistics: dict[str, Any] = answer.json()
        return statistics

    def imports(self) -> dict[str, Any]:
        """What the import API was asked, and took, and the uploads that are open."""
        answer = requests.get(f"{self.url}/imports/{self.provider}/{self.site_id}", timeout=_TIMEOUT)
        answer.raise_for_status()
        counts: dict[str, Any] = answer.json()
        return counts

    def sha256(self) -> str:
        """Hex SHA-256 of what the export gives now."""
        url = f"{self.url}/sha256/{self.provider}/{self.site_id}"
        answer = requests.get(url, params={"userId": self.user_id}, timeout=_READ_TIMEOUT)
        answer.raise_for_status()
        digest: str = answer.json()["sha256"]
        return digest
