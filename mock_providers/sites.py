"""What the server knows of each site: behaviour, statistics, and what was imported."""

from collections import Counter, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from mock_providers.behaviour import Behaviour
from mock_providers.held import Content
from mock_providers.uploads import Upload

DEFAULT_SIZE = 1 << 20
MAX_RANGES = 20_000
MAX_SITES = 50_000
MAX_UPLOADS = 1000  # of one site


@dataclass
class InProgress:
    """How many requests came, and how many at once."""

    requests: int = 0
    concurrent: int = 0
    max_concurrent: int = 0

    @contextmanager
    def in_progress(self) -> Iterator[None]:
        self.requests += 1
        self.concurrent += 1
        self.max_concurrent = max(self.max_concurrent, self.concurrent)
        try:
            yield
        finally:
            self.concurrent -= 1


@dataclass
class Statistics(InProgress):
    """What was asked of one export, and sent."""

    bytes_sent: int = 0
    range_requests: int = 0
    by_status: Counter[int] = field(default_factory=Counter)
    ranges: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=MAX_RANGES))

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
class ImportStatistics(InProgress):
    """What was asked of one import API, and taken."""

    creations: int = 0
    patches: int = 0
    bytes_received: int = 0
    imported: int = 0
    repeated: int = 0
    failed: int = 0
    by_answer: Counter[str] = field(default_factory=Counter)

    def to_json(self) -> dict[str, object]:
        return {
            "requests": self.requests,
            "creations": self.creations,
            "patches": self.patches,
            "bytesReceived": self.bytes_received,
            "concurrent": self.concurrent,
            "maxConcurrent": self.max_concurrent,
            "imported": self.imported,
            "repeated": self.repeated,
            "failed": self.failed,
            "byAnswer": dict(sorted(self.by_answer.items())),
        }


class Imports:
    """The uploads of one site, and what the last import that was carried out has left."""

    def __init__(self) -> None:
        self.uploads: dict[str, Upload] = {}
        self.content: Content | None = None
        self.statistics = ImportStatistics()
        self._number = 0
        self._done: set[str] = set()

    def add(self, upload: Upload) -> None:
        """Also forgets the oldest one beyond MAX_UPLOADS."""
        self.uploads[upload.id] = upload
        self.statistics.creations += 1
        if len(self.uploads) > MAX_UPLOADS:
            self.uploads.pop(next(iter(self.uploads))).forget()

    def drop(self) -> None:
        """Forgets the uploads, the imported content, and what was imported already."""
        for upload in self.uploads.values():
            upload.forget()
        self.uploads.clear()
        self.content = None
        self._done.clear()

    def carry_out(self, upload: Upload, failure: str | None) -> None:
        """The import of an upload whose bytes are all there; for one restoreId it is carried out once.

        It fails for the reason `failure`, or if the bytes are not those that the metadata named.
        """
        wrong = upload.mismatch() or failure
        if wrong:
            upload.end("failed", wrong)
            self.statistics.failed += 1
            return
        held = upload.end("done")
        if upload.restore_id in self._done:
            self.statistics.repeated += 1
            return
        self._number += 1
        self.statistics.imported += 1
        self.content = Content(upload.user_id, held, upload.sha256, self._number)
        if upload.restore_id:
            self._done.add(upload.restore_id)

    def to_json(self) -> dict[str, object]:
        uploads = [upload.to_json() for upload in self.uploads.values() if upload.open]
        return self.statistics.to_json() | {"open": uploads}


@dataclass
class Site:
    """One site at one provider."""

    behaviour: Behaviour
    requests: int = 0  # of the export, since the behaviour was set
    statistics: Statistics = field(default_factory=Statistics)
    imports: Imports = field(default_factory=Imports)


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
