"""Reading exports: every byte once, without copies; what ends too early or has changed is told."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from mock_providers.client import MockSite
from sitebackup.adapters.http_exports.exports import HttpExport, HttpExports
from sitebackup.domain.errors import ExportChanged, Transient
from sitebackup.domain.plan import MIB
from sitebackup.domain.provider import Provider
from tests.builders import LOOPBACK
from tests.contract import wire
from tests.integration.mock_server import serve

SIZE = 3 * MIB + 17


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serve() as url:
        yield url


@pytest.fixture
def site(url: str) -> MockSite:
    return MockSite(url)


def exports() -> HttpExports:
    return HttpExports(MIB, 10.0, lambda arn, since: "", lambda: datetime.now(UTC))


def probe(site: MockSite, length: int | None = None, url: str | None = None) -> HttpExport:
    return exports().probe(provider(url or site.url), site.user_id, site.site_id, length)


def provider(url: str) -> Provider:
    return Provider(
        name="site",
        export_url=f"{url}/site/export?userId={{userId}}&siteId={{siteId}}",
        allow_networks=LOOPBACK,
    )


def read(export: HttpExport, at_once: int = 100_000) -> bytes:
    data, buffer = bytearray(), memoryview(bytearray(at_once))
    while count := export.readinto(buffer):
        data += buffer[:count]
    assert export.readinto(buffer) == 0  # and stays at the end
    return bytes(data)


@pytest.mark.parametrize("at_once", [7, 65_536, 1 << 20])
@pytest.mark.parametrize("faults", [{}, {"noLength": True}], ids=["length", "chunked"])
def test_every_byte_is_read_once(site: MockSite, faults: dict[str, Any], at_once: int) -> None:
    site.set(size=100_001 if at_once == 7 else SIZE, **faults)
    with probe(site) as export:
        assert export.size == (None if faults else site.size)
        assert read(export, at_once) == site.content


def test_an_empty_export_ends_at_once(site: MockSite) -> None:
    site.set(size=0)
    with probe(site) as export:
        assert (export.size, read(export)) == (0, b"")


def test_a_body_that_ends_with_its_connection_is_read_to_its_end() -> None:
    with (
        wire.script(b"HTTP/1.0 200 OK\r\n\r\nall there is", 10) as server,
        exports().probe(provider(f"http://127.0.0.1:{server.port}"), "u", "s", None) as export,
    ):
        assert (export.size, read(export)) == (None, b"all there is")


def test_bytes_that_came_with_the_head_are_read_before_later_ones() -> None:
    with (
        wire.script(b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nall there is", 10) as server,
        exports().probe(provider(f"http://127.0.0.1:{server.port}"), "u", "s", None) as export,
    ):
        few, many = memoryview(bytearray(4)), memoryview(bytearray(100))
        assert (export.readinto(few), bytes(few)) == (4, b"all ")
        assert (export.readinto(many), bytes(many[:8])) == (8, b"there is")


@pytest.mark.parametrize("fault", ["truncateAt", "truncateChunked", "reset"])
def test_a_body_that_ends_too_early_broke_off(site: MockSite, fault: str) -> None:
    faults: dict[str, Any] = {fault: {"bytes": SIZE // 2}}
    site.set(size=SIZE, **faults)
    with probe(site) as export, pytest.raises(Transient, match="broke off"):
        read(export)


def test_a_trickle_gives_what_has_come(site: MockSite) -> None:
    """So that a deadline can be looked at; a full buffer would take 100 s here."""
    site.set(size=SIZE, drip={"bytesPerSecond": 10_000})
    with probe(site) as export:
        assert 0 < export.readinto(memoryview(bytearray(1_000_000))) < 100_000


def test_connections_are_used_again_only_after_the_whole_body(site: MockSite) -> None:
    site.set(size=SIZE)
    with wire.proxy(int(site.url.rpartition(":")[2])) as proxy:
        source = exports()
        at = provider(f"http://127.0.0.1:{proxy.port}")

        def part(start: int, length: int) -> HttpExport:
            return source.open_range(at, site.user_id, site.site_id, start, length, site.archive.etag, SIZE)

        for start in range(0, 5 * 1000, 1000):
            with part(start, 1000) as export:
                assert read(export) == site.content[start : start + 1000]
        assert proxy.accepted == 1
        with part(0, SIZE) as export:
            export.readinto(memoryview(bytearray(10)))
        with part(5, 1000) as export:
            assert read(export) == site.content[5:1005]
        assert proxy.accepted == 2


@pytest.mark.parametrize("fault", [{"changeEtag": True}, {"changeContentAfter": 1}])
def test_another_validator_is_another_export(site: MockSite, fault: dict[str, Any]) -> None:
    site.set(size=SIZE, **fault)
    with probe(site, 1000) as export:
        validator = export.validator
        assert validator is not None
        read(export)
    with pytest.raises(ExportChanged):
        exports().open_range(provider(site.url), site.user_id, site.site_id, 1000, 1000, validator, SIZE)
