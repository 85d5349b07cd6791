"""What the server knows of each site's export: its behaviour and its statistics."""

from collections import Counter, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from mock_providers.behaviour import Behaviour

DEFAULT_SIZE = 1 << 20
MAX_RANGES = 20_000
MAX_SITES = 50_000


@dataclass
class Statistics:
    """What was asked of one export, and sent."""

    requests: int = 0
    bytes_sent: int = 0
    range_requests: int = 0
    concurrent: int = 0
    max_concurrent: int = 0
    by_status: Counter[int] = field(default_factory=Counter)
    ranges: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=MAX_RANGES))

    @contextmanager
    def in_progress(self) -> Iterator[None]:
        self.requests += 1
        self.concurrent += 1
        self.max_concurrent = max(self.max_concurrent, self.concurrent)
        try:
            yield
        finally:
            self.concurrent -= 1

    def to_json(self) -> dict[str, object]:
        return {
            "requests": self.requests,
            "bytesSent": self.bytes_sent,
            "rangeRequests": self.range_requests,
            "concurrent": self.concurrent,
            "maxConcurrent": self.max_concurrent,
            "byStatus": {str(code): count for code, count in sorted(self.by_status.items())},
            "ranges": list(self.ranges),
        }


@dataclass
class Site:
    """The export of one site."""

    behaviour: Behaviour
    requests: int = 0  # since the behaviour was set
    statistics: Statistics = field(default_factory=Statistics)


class TooManySitesError(Exception):
    """MAX_SITES are known already."""

    def __init__(self) -> None:
        super().__init__(f"more than {MAX_SITES} sites were asked for: restart the mock providers")


class Sites:
    """Every (provider, siteId) that was asked for. Sizes are bytes."""

    def __init__(self, default_sizes: Mapping[str, int]) -> None:
        self._default_sizes = default_sizes
        self._sites: dict[tuple[str, str], Site] = {}

    def get(self, provider: str, site_id: str) -> Site:
        """The site's state, made on first use. Raises TooManySitesError."""
        site = self._sites.get((provider, site_id))
        if site is None:
            if len(self._sites) >= MAX_SITES:
                raise TooManySitesError
            site = self._sites[provider, site_id] = Site(self._default(provider))
        return site

    def set(self, provider: str, site_id: str, behaviour: Behaviour | None) -> None:
        """Sets the behaviour, or the default one for None. Raises TooManySitesError."""
        site = self.get(provider, site_id)
        site.behaviour = behaviour or self._default(provider)
        site.requests = 0

    def default_size(self, provider: str) -> int:
        return self._default_sizes.get(provider, DEFAULT_SIZE)

    def _default(self, provider: str) -> Behaviour:
        return Behaviour(size=self.default_size(provider))
