"""A site's export as tests see it: sets how it behaves, and knows the bytes that it must have."""

import uuid
from dataclasses import dataclass, field
from typing import Any

import requests

from mock_providers.archive import Archive

_TIMEOUT = 10  # seconds


@dataclass
class MockSite:
    """One site's export at the mock providers that listen at url. Raises requests' errors if they don't answer."""

    url: str
    provider: str = "site"
    user_id: str = "0" * 24
    site_id: str = field(default_factory=lambda: uuid.uuid4().hex[:24])
    size: int = 1000
    revision: int = 1

    def set(self, size: int = 1000, revision: int = 1, token: str | None = None, **faults: Any) -> "MockSite":
        """Sets size (bytes), revision and faults, named as in the control API's JSON; what isn't given is reset.

        Raises ValueError if the server refuses them.
        """
        body = {"size": size, "revision": revision, "requireToken": token, "faults": faults}
        answer = requests.put(self.control_url, json=body, timeout=_TIMEOUT)
        if not answer.ok:
            raise ValueError(answer.text)
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
    def archive(self) -> Archive:
        return Archive(self.provider, self.user_id, self.site_id, self.size, self.revision)

    @property
    def content(self) -> bytes:
        """All bytes of the export, in memory."""
        return self.archive.read(0, self.size)

    def stats(self) -> dict[str, Any]:
        answer = requests.get(self.stats_url, timeout=_TIMEOUT)
        answer.raise_for_status()
        statistics: dict[str, Any] = answer.json()
        return statistics
