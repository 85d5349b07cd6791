"""One suite for every ImportApi: the adapter before the mock providers and tusd, and the fake of the simulation."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar, Protocol

import pytest
import requests

from mock_providers.client import MockSite
from sitebackup.adapters.tus_imports.imports import TusImports
from sitebackup.domain.errors import NoSuchImport, Permanent, Transient
from sitebackup.domain.provider import Provider
from sitebackup.domain.reason import Code
from sitebackup.ports.providers import ImportApi, ImportOffer, ImportTarget
from tests.builders import LOOPBACK
from tests.contract.tusd import MAX_SIZE, serve_tusd
from tests.fakes.imports import MemoryImportApi, MemoryImports
from tests.fakes.readers import some_bytes
from tests.fakes.storage import crc_of
from tests.integration.mock_server import serve
from tests.tus import an_id

NOW = datetime(2030, 1, 31, 12, tzinfo=UTC)
SILENCE_SECONDS = 10.0
DATA = some_bytes("site", 100_000)
SLICE = 40_000


def target_of(user_id: str, site_id: str, data: bytes) -> ImportTarget:
    """Of a restore of its own."""
    return ImportTarget(
        user_id=user_id, site_id=site_id, job_id=an_id(), restore_id=an_id(), crc64nvme=crc_of(data)
    )


class Site(Protocol):
    """A site that a provider takes back."""

    lacks: ClassVar[frozenset[str]]
    """What this import API can't be made to show."""
    api: ImportApi
    provider: Provider
    user_id: str
    site_id: str

    def held(self, url: str) -> bytes:
        """What became of the bytes of a whole upload."""

    def forget(self, url: str) -> None:
        """The API knows the upload no longer."""

    def break_after(self, count: int) -> None:
        """The connection of the next slice breaks behind so many bytes, which arrive."""

    def imports_fail(self, message: str) -> None:
        """From now on."""

    def imports_take_long(self) -> None:
        """The next import is not over once its bytes are there."""

    def imports(self) -> int:
        """How many were carried out."""


@dataclass
class SiteOfMockProvider:
    """Over HTTP."""

    lacks: ClassVar[frozenset[str]] = frozenset()
    url: str
    user_id: str = field(default_factory=an_id)
    site_id: str = field(default_factory=an_id)

    def __post_init__(self) -> None:
        self._site = MockSite(self.url, user_id=self.user_id, site_id=self.site_id)
        self._site.set(imports={"maxSize": MAX_SIZE})
        self.api: ImportApi = TusImports(SILENCE_SECONDS, lambda arn, since: "", lambda: NOW)
        import_url = f"{self._site.import_url}?siteId={{siteId}}"
        self.provider = Provider(
            name="site",
            export_url="http://site",
            import_url=import_url,
            import_status=True,
            allow_networks=LOOPBACK,
        )

    def held(self, url: str) -> bytes:
        return requests.get(self._site.export_url, timeout=10).content

    def forget(self, url: str) -> None:
        self._site.set(imports={"forget": {"times": 1}})

    def break_after(self, count: int) -> None:
        self._site.set(imports={"cutAt": {"bytes": count, "times": 1}})

    def imports_fail(self, message: str) -> None:
        self._site.set(imports={"importFails": {"message": message}})

    def imports_take_long(self) -> None:
        self._site.set(imports={"importSeconds": 60})

    def imports(self) -> int:
        count: int = self._site.imports()["imported"]
        return count


@dataclass
class SiteOfTusd:
    """Over HTTP. It only keeps the bytes."""

    lacks: ClassVar[frozenset[str]] = frozenset({"imports", "broken connections"})
    url: str
    user_id: str = field(default_factory=an_id)
    site_id: str = field(default_factory=an_id)

    def __post_init__(self) -> None:
        self.api: ImportApi = TusImports(SILENCE_SECONDS, lambda arn, since: "", lambda: NOW)
        self.provider = Provider(
            name="site", export_url="http://site", import_url=self.url, allow_networks=LOOPBACK
        )

    def held(self, url: str) -> bytes:
        return requests.get(url, timeout=10).content

    def forget(self, url: str) -> None:
        requests.delete(url, headers={"Tus-Resumable": "1.0.0"}, timeout=10).raise_for_status()

    def break_after(self, count: int) -> None:
        raise NotImplementedError

    def imports_fail(self, message: str) -> None:
        raise NotImplementedError

    def imports_take_long(self) -> None:
        raise NotImplementedError

    def imports(self) -> int:
        raise NotImplementedError


class SiteOfFake:
    """In memory."""

    lacks: ClassVar[frozenset[str]] = frozenset()

    def __init__(self) -> None:
        self.user_id, self.site_id = an_id(), an_id()
        self._imports = MemoryImports()
        self._behaviour = self._imports.by_provider["site"] = MemoryImportApi(max_size=MAX_SIZE)
        self.api: ImportApi = self._imports
        self.provider = Provider(name="site", export_url="http://site", import_url="http://site")

    def held(self, url: str) -> bytes:
        return self._imports.imported["site", self.user_id, self.site_id]

    def forget(self, url: str) -> None:
        self._imports.forget(url)

    def break_after(self, count: int) -> None:
        self._behaviour.takes = count

    def imports_fail(self, message: str) -> None:
        self._behaviour.fails = message

    def imports_take_long(self) -> None:
        self._behaviour.processing = 1

    def imports(self) -> int:
        return self._imports.carried_out.total()


@pytest.fixture(scope="module")
def mock_providers() -> Iterator[str]:
    with serve() as url:
        yield url


@pytest.fixture(scope="module")
def tusd_url(tusd: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("tusd") / "uploads"
    folder.mkdir()
    with serve_tusd(tusd, folder) as url:
        yield url


@pytest.fixture(params=["mock", "tusd", "fake"])
def site(request: pytest.FixtureRequest) -> Site:
    if request.param == "mock":
        return SiteOfMockProvider(request.getfixturevalue("mock_providers"))
    if request.param == "tusd":
        return SiteOfTusd(request.getfixturevalue("tusd_url"))
    return SiteOfFake()


def needs(site: Site, what: str) -> None:
    if what in site.lacks:
        pytest.skip(f"this API can't show {what}")


def create(site: Site, data: bytes = DATA, target: ImportTarget | None = None) -> str:
    target = target or target_of(site.user_id, site.site_id, data)
    return site.api.create(site.provider, target, len(data))


def send(site: Site, url: str, offset: int = 0, data: bytes = DATA) -> int:
    """One slice: all of the data from the offset on."""
    return site.api.send(site.provider, url, offset, memoryview(data)[offset:])


def offset(site: Site, url: str) -> int:
    return site.api.offset(site.provider, url)


# --- what is offered


def test_an_api_says_how_much_it_takes(site: Site) -> None:
    assert site.api.offer(site.provider, site.user_id, site.site_id) == ImportOffer(max_size=MAX_SIZE)


def test_an_upload_that_is_too_large_is_refused_with_a_reason(site: Site) -> None:
    target = target_of(site.user_id, site.site_id, DATA)
    with pytest.raises(Permanent) as raised:
        site.api.create(site.provider, target, MAX_SIZE + 1)
    assert raised.value.reason.code is Code.IMPORT_TOO_LARGE
    assert str(MAX_SIZE + 1) in raised.value.reason.message
    assert offset(site, site.api.create(site.provider, target, MAX_SIZE)) == 0


# --- bytes


def test_bytes_that_are_sent_in_slices_are_held_as_they_were(site: Site) -> None:
    url, data = create(site), memoryview(DATA)
    assert offset(site, url) == 0
    for start in range(0, len(DATA), SLICE):
        arrived = site.api.send(site.provider, url, start, data[start : start + SLICE])
        assert arrived == min(start + SLICE, len(DATA))
        assert offset(site, url) == arrived
    assert site.held(url) == DATA


def test_an_upload_of_many_megabytes(site: Site) -> None:
    data = some_bytes("large", 1 << 20) * 20
    url = create(site, data)
    assert send(site, url, 0, data) == len(data)
    assert site.held(url) == data


def test_an_upload_of_no_bytes_is_whole_at_once(site: Site) -> None:
    url = create(site, b"")
    assert offset(site, url) == 0
    assert site.held(url) == b""


def test_each_creation_makes_an_upload_of_its_own(site: Site) -> None:
    target = target_of(site.user_id, site.site_id, DATA)
    first, second = create(site, DATA, target), create(site, DATA, target)
    assert first != second
    send(site, first)
    assert (offset(site, first), offset(site, second)) == (len(DATA), 0)


@pytest.mark.parametrize("start", [0, SLICE - 1, SLICE + 1])
def test_a_slice_at_another_offset_is_refused_for_now_and_changes_nothing(site: Site, start: int) -> None:
    url = create(site)
    site.api.send(site.provider, url, 0, memoryview(DATA)[:SLICE])
    with pytest.raises(Transient, match=r"^site answered 409\.$"):
        send(site, url, start)
    assert offset(site, url) == SLICE
    assert send(site, url, SLICE) == len(DATA)
    assert site.held(url) == DATA


def test_more_bytes_than_were_named_are_refused(site: Site) -> None:
    url = create(site)
    with pytest.raises(Permanent, match=r"^site answered 413\.$") as raised:
        send(site, url, 0, DATA + b"more")
    assert raised.value.reason.code is Code.IMPORT_REFUSED


def test_after_a_break_the_offset_says_where_to_go_on(site: Site) -> None:
    needs(site, "broken connections")
    url = create(site)
    site.break_after(SLICE)
    with pytest.raises(Transient):
        send(site, url)
    assert offset(site, url) == SLICE
    assert send(site, url, SLICE) == len(DATA)
    assert site.held(url) == DATA


def test_a_worker_whose_time_is_over_changes_nothing(site: Site) -> None:
    """So no invocation that wakes up behind the end of its lease sends or ends anything."""
    url = create(site)

    def no_time() -> float:
        return 0.0

    for call in (
        lambda: site.api.send(site.provider, url, 0, memoryview(DATA), no_time),
        lambda: site.api.delete(site.provider, url, no_time),
    ):
        with pytest.raises(Transient):
            call()
    assert offset(site, url) == 0


# --- the end of an upload


def test_an_upload_that_is_forgotten_is_told_by_every_call(site: Site) -> None:
    url = create(site)
    site.forget(url)
    for call in (
        lambda: offset(site, url),
        lambda: send(site, url),
        lambda: site.api.outcome(site.provider, url),
    ):
        with pytest.raises(NoSuchImport):
            call()
    site.api.delete(site.provider, url)


def test_an_upload_that_was_deleted_is_gone_and_can_be_deleted_again(site: Site) -> None:
    url = create(site)
    site.api.send(site.provider, url, 0, memoryview(DATA)[:SLICE])
    for _ in range(2):
        site.api.delete(site.provider, url)
        with pytest.raises(NoSuchImport):
            offset(site, url)


# --- the import


def outcome(site: Site, url: str) -> tuple[str, str | None]:
    told = site.api.outcome(site.provider, url)
    return told.state, told.message


def test_an_import_is_processing_until_all_bytes_are_there_and_then_done(site: Site) -> None:
    needs(site, "imports")
    url = create(site)
    assert outcome(site, url) == ("processing", None)
    send(site, url)
    assert outcome(site, url) == ("done", None)
    assert site.imports() == 1


def test_an_import_that_takes_long_is_processing(site: Site) -> None:
    needs(site, "imports")
    site.imports_take_long()
    url = create(site)
    send(site, url)
    assert outcome(site, url) == ("processing", None)


def test_an_import_that_fails_says_why(site: Site) -> None:
    needs(site, "imports")
    site.imports_fail("the archive is for another version")
    url = create(site)
    assert send(site, url) == len(DATA)
    assert outcome(site, url) == ("failed", "the archive is for another version")
    assert site.imports() == 0


def test_bytes_that_are_not_those_that_were_named_are_not_imported(site: Site) -> None:
    needs(site, "imports")
    url = create(site, DATA, target_of(site.user_id, site.site_id, b"others"))
    send(site, url)
    state, message = outcome(site, url)
    assert state == "failed"
    assert message is not None
    assert "CRC64NVME" in message
    assert site.imports() == 0


def test_a_restore_is_imported_once_however_often_it_is_uploaded(site: Site) -> None:
    needs(site, "imports")
    target = target_of(site.user_id, site.site_id, DATA)
    for _ in range(2):
        url = create(site, DATA, target)
        send(site, url)
        assert outcome(site, url) == ("done", None)
    assert site.imports() == 1
    other = some_bytes("other", len(DATA))
    later = create(site, other)
    send(site, later, 0, other)
    assert site.imports() == 2
    assert site.held(later) == other
