"""One suite for every ExportApi: the adapter before the mock providers, and the fake of the simulation."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Protocol

import pytest

from mock_providers.client import MockSite
from sitebackup.adapters.http_exports.exports import HttpExports
from sitebackup.domain.errors import ExportChanged, Permanent
from sitebackup.domain.provider import Provider
from sitebackup.domain.reason import Code
from sitebackup.ports.providers import Export, ExportApi
from sitebackup.ports.runtime import Reader
from tests.builders import LOOPBACK
from tests.fakes.exports import MemoryExport, MemoryExports
from tests.fakes.readers import some_bytes
from tests.integration.mock_server import serve

NOW = datetime(2030, 1, 31, 12, tzinfo=UTC)
PART = 40_000
SIZE = 2 * PART + 20_000
SILENCE_SECONDS = 5.0
USER_ID, SITE_ID = "a" * 24, "b" * 24


class Site(Protocol):
    """A site that a provider serves."""

    api: ExportApi
    provider: Provider
    user_id: str
    site_id: str

    @property
    def content(self) -> bytes: ...

    def serve(self, size: int, *, ranged: bool = True, says_size: bool = True) -> None:
        """From now on it is served so."""

    def change(self) -> None:
        """Same size, other bytes."""

    def vanish(self) -> None:
        """The provider knows the site no longer."""


class SiteOfMockProvider:
    """Over HTTP."""

    def __init__(self, url: str) -> None:
        self._site = MockSite(url)
        self.user_id, self.site_id = self._site.user_id, self._site.site_id
        self.api: ExportApi = HttpExports(PART, SILENCE_SECONDS, lambda arn, since: "", lambda: NOW)
        name = self._site.provider
        query = "userId={userId}&siteId={siteId}"
        self.provider = Provider(
            name=name, export_url=f"{url}/{name}/export?{query}", allow_networks=LOOPBACK
        )
        self._size = 0

    @property
    def content(self) -> bytes:
        return self._site.content

    def serve(self, size: int, *, ranged: bool = True, says_size: bool = True) -> None:
        self._size = size
        self._site.set(size=size, noRange=not ranged, noLength=not says_size)

    def change(self) -> None:
        self._site.set(size=self._size, revision=2)

    def vanish(self) -> None:
        self._site.set(size=self._size, status={"code": 404})


class SiteOfFake:
    """In memory."""

    user_id, site_id = USER_ID, SITE_ID

    def __init__(self) -> None:
        self._exports = MemoryExports()
        self.api: ExportApi = self._exports
        self.provider = Provider(name="site", export_url="http://site")

    @property
    def content(self) -> bytes:
        return self._exports.by_provider["site"].content

    def serve(self, size: int, *, ranged: bool = True, says_size: bool = True) -> None:
        content = some_bytes("site", size)
        self._exports.by_provider["site"] = MemoryExport(content, ranged=ranged, says_size=says_size)

    def change(self) -> None:
        self._exports.by_provider["site"].change()

    def vanish(self) -> None:
        del self._exports.by_provider["site"]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serve() as url:
        yield url


@pytest.fixture(params=["HTTP", "fake"])
def site(request: pytest.FixtureRequest) -> Site:
    return SiteOfFake() if request.param == "fake" else SiteOfMockProvider(request.getfixturevalue("url"))


def probe(site: Site, length: int | None = PART) -> Export:
    return site.api.probe(site.provider, site.user_id, site.site_id, length)


def second_part(site: Site, validator: str | None, size: int = SIZE) -> Export:
    assert validator is not None
    return site.api.open_range(site.provider, site.user_id, site.site_id, PART, PART, validator, size)


def read(reader: Reader) -> bytes:
    """To the end, where it stays."""
    data, buffer = bytearray(), memoryview(bytearray(16_384))
    while count := reader.readinto(buffer):
        data += buffer[:count]
    assert reader.readinto(buffer) == 0
    return bytes(data)


def test_a_ranged_export_begins_with_its_first_part(site: Site) -> None:
    site.serve(SIZE)
    with probe(site) as export:
        validator = export.validator
        assert validator is not None
        assert (export.size, export.length, export.ranged, export.end_proven) == (SIZE, PART, True, True)
        assert read(export) == site.content[:PART]
    with second_part(site, validator) as export:
        assert (export.size, export.length) == (SIZE, PART)
        assert read(export) == site.content[PART : 2 * PART]


@pytest.mark.parametrize("size", [1, PART - 1, PART])
def test_an_export_within_one_part_is_whole(site: Site, size: int) -> None:
    site.serve(size)
    with probe(site) as export:
        assert (export.size, export.length) == (size, size)
        assert read(export) == site.content


@pytest.mark.parametrize("ranged", [True, False])
def test_an_empty_export_has_no_ranges_and_ends_at_once(site: Site, ranged: bool) -> None:
    site.serve(0, ranged=ranged)
    with probe(site) as export:
        assert (export.size, export.ranged) == (0, False)
        assert read(export) == b""


@pytest.mark.parametrize("says_size", [True, False])
def test_an_export_without_ranges_is_a_stream(site: Site, says_size: bool) -> None:
    site.serve(SIZE, ranged=False, says_size=says_size)
    with probe(site) as export:
        size = SIZE if says_size else None
        assert (export.size, export.length, export.ranged, export.end_proven) == (size, size, False, True)
        assert read(export) == site.content


def test_an_export_is_whole_if_no_range_of_it_is_asked_for(site: Site) -> None:
    site.serve(SIZE)
    with probe(site, None) as export:
        assert (export.size, export.ranged) == (SIZE, False)
        assert read(export) == site.content


def test_a_part_of_an_export_that_has_changed_is_never_read(site: Site) -> None:
    site.serve(SIZE)
    with probe(site) as export:
        planned = export.validator
    site.change()
    with pytest.raises(ExportChanged):
        second_part(site, planned)
    with probe(site) as export:
        assert export.validator not in (None, planned)
        assert read(export) == site.content[:PART]


def test_a_part_of_an_export_that_has_shrunk_is_never_read(site: Site) -> None:
    site.serve(SIZE)
    with probe(site) as export:
        planned = export.validator
    site.serve(10)
    with pytest.raises(ExportChanged):
        second_part(site, planned)


def test_a_part_of_an_export_that_has_lost_its_ranges_is_never_read(site: Site) -> None:
    site.serve(SIZE)
    with probe(site) as export:
        planned = export.validator
    site.serve(SIZE, ranged=False)
    with pytest.raises(ExportChanged):
        second_part(site, planned)


def test_a_site_that_the_provider_does_not_know_is_told_with_a_reason(site: Site) -> None:
    site.serve(SIZE)
    with probe(site) as export:
        planned = export.validator
    site.vanish()
    calls: list[Callable[[], Export]] = [lambda: probe(site), lambda: second_part(site, planned)]
    for call in calls:
        with pytest.raises(Permanent) as raised:
            call()
        assert raised.value.reason.code is Code.EXPORT_NOT_FOUND
        assert raised.value.reason.message == f"{site.provider.name} answered 404."
