"""What each fault of an export API means over HTTP: try again, give up with a reason, or plan anew.

What every ExportApi promises is in test_export_api.py.
"""

import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from local.services import processes
from mock_providers.client import MockSite
from sitebackup.adapters.http_exports.exports import HttpExport, HttpExports
from sitebackup.adapters.provider_http import retry_after
from sitebackup.domain.errors import ExportChanged, Permanent, Transient
from sitebackup.domain.provider import Provider
from sitebackup.domain.reason import Code
from tests.builders import LOOPBACK
from tests.integration.mock_server import serve

NOW = datetime(2030, 1, 31, 12, tzinfo=UTC)
SIZE, PART = 100_000, 40_000
TIMEOUT = 1.0


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serve() as url:
        yield url


@pytest.fixture
def site(url: str) -> MockSite:
    return MockSite(url)


def exports(token: str = "") -> HttpExports:
    return HttpExports(PART, TIMEOUT, lambda arn, since: token, lambda: NOW)


def provider(site: MockSite, **fields: Any) -> Provider:
    return Provider(
        name=site.provider,
        export_url=f"{site.url}/{site.provider}/export?userId={{userId}}&siteId={{siteId}}&chunkSize={{chunkSize}}",
        allow_networks=LOOPBACK,
        **fields,
    )


def probe(site: MockSite, length: int | None = PART) -> HttpExport:
    return exports().probe(provider(site), site.user_id, site.site_id, length)


def second_part(site: MockSite, validator: str | None = None) -> HttpExport:
    validator = validator or site.archive.etag
    return exports().open_range(provider(site), site.user_id, site.site_id, PART, PART, validator, SIZE)


def read(export: HttpExport) -> bytes:
    data, buffer = bytearray(), memoryview(bytearray(16_384))
    while count := export.readinto(buffer):
        data += buffer[:count]
    return bytes(data)


def both(site: MockSite) -> list[Any]:
    return [lambda: probe(site), lambda: second_part(site)]


# --- what an export is


def test_each_part_of_a_ranged_export_costs_one_request(site: MockSite) -> None:
    site.set(size=SIZE)
    with probe(site) as export:
        assert export.validator == site.archive.etag
        assert read(export) == site.content[:PART]
    with second_part(site) as export:
        assert read(export) == site.content[PART : 2 * PART]
    assert site.stats()["requests"] == 2


@pytest.mark.parametrize(
    ("faults", "size"),
    [({"noRange": True}, SIZE), ({"noLength": True}, None), ({"gzip": "ifAsked"}, SIZE)],
)
def test_what_answers_200_is_a_stream(site: MockSite, faults: dict[str, Any], size: int | None) -> None:
    site.set(size=SIZE, **faults)
    with probe(site, None if "gzip" in faults else PART) as export:
        assert (export.size, export.ranged) == (size, False)
        assert read(export) == site.content


@pytest.mark.parametrize("fault", ["weakEtag", "noEtag", "lastModifiedOnly"])
def test_without_a_strong_validator_it_is_a_stream(site: MockSite, fault: str) -> None:
    faults: dict[str, Any] = {fault: True}
    site.set(size=SIZE, **faults)
    with probe(site) as export:
        assert (export.size, export.ranged) == (SIZE, False)
        assert read(export) == site.content
    site.set(size=PART, **faults)
    with probe(site) as export:
        assert (export.size, export.ranged) == (PART, False)
        assert read(export) == site.content


def test_a_provider_that_wants_a_token_gets_the_secret(site: MockSite) -> None:
    site.set(size=10, token="secret")
    with pytest.raises(Permanent, match=r"site answered 401"):
        probe(site)
    with exports("secret").probe(
        provider(site, auth_secret_arn="arn:secret"), site.user_id, site.site_id, PART
    ) as export:
        assert read(export) == site.content


# --- try again


@pytest.mark.parametrize("code", [408, 425, 429, 500, 502, 503, 504])
def test_a_status_that_passes_is_tried_again_later(site: MockSite, code: int) -> None:
    site.set(size=SIZE, status={"code": code})
    for call in both(site):
        with pytest.raises(Transient, match=rf"^site answered {code}\.$") as raised:
            call()
        assert raised.value.retry_after is None


@pytest.mark.parametrize("value", [7, format_datetime(NOW + timedelta(seconds=7), usegmt=True)])
def test_a_retry_after_is_kept_with_the_error(site: MockSite, value: object) -> None:
    site.set(size=SIZE, status={"code": 429, "retryAfter": value})
    for call in both(site):
        with pytest.raises(Transient) as raised:
            call()
        assert raised.value.retry_after == timedelta(seconds=7)


def test_a_status_of_a_later_range_is_tried_again_later(site: MockSite) -> None:
    site.set(size=SIZE, statusOnRange={"from": PART, "code": 503})
    probe(site).close()
    with pytest.raises(Transient, match=r"site answered 503"):
        second_part(site)


@pytest.mark.parametrize(
    "faults",
    [
        {"truncateAt": {"bytes": 1000}},
        {"reset": {"bytes": 1000}},
        {"hang": {"afterBytes": 1000, "seconds": 5}},
        {"truncateChunked": {"bytes": 1000}},
    ],
    ids=lambda faults: next(iter(faults)),
)
def test_a_body_that_breaks_off_is_read_again_later(site: MockSite, faults: dict[str, Any]) -> None:
    site.set(size=SIZE, **faults)
    with probe(site) as export, pytest.raises(Transient, match=r"^The export broke off"):
        read(export)


def test_a_provider_that_says_nothing_is_given_up_for_now(site: MockSite) -> None:
    site.set(size=SIZE, slowFirstByte={"seconds": 5})
    for call in both(site):
        with pytest.raises(Transient, match=r"^site can't be reached: ReadTimeout"):
            call()


def test_a_provider_that_is_down_is_tried_again_later() -> None:
    with pytest.raises(Transient, match=r"^site can't be reached: ConnectionError"):
        probe(MockSite(f"http://127.0.0.1:{processes.free_port()}"))


def test_a_provider_that_hangs_up_is_tried_again_later() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        site = MockSite(f"http://127.0.0.1:{server.getsockname()[1]}")
        with pytest.raises(Transient, match=r"^site can't be reached"):
            probe(site)  # accepted by the kernel, and never answered


def test_a_slow_body_is_no_fault(site: MockSite) -> None:
    site.set(size=30_000, drip={"bytesPerSecond": 60_000})
    with probe(site) as export:
        assert read(export) == site.content


# --- give up


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (400, Code.EXPORT_REFUSED),
        (401, Code.EXPORT_FORBIDDEN),
        (403, Code.EXPORT_FORBIDDEN),
        (404, Code.EXPORT_NOT_FOUND),
        (410, Code.EXPORT_NOT_FOUND),
        (418, Code.EXPORT_REFUSED),
    ],
)
def test_a_status_that_stays_fails_with_a_reason(site: MockSite, code: int, reason: Code) -> None:
    site.set(size=SIZE, status={"code": code})
    for call in both(site):
        with pytest.raises(Permanent) as raised:
            call()
        assert (raised.value.reason.code, raised.value.reason.message) == (reason, f"site answered {code}.")


@pytest.mark.parametrize(
    ("faults", "reason"),
    [
        ({"redirect": {}}, Code.EXPORT_REDIRECTED),
        ({"gzip": "always"}, Code.EXPORT_ENCODED),
        ({"wrongRange": True}, Code.EXPORT_INVALID),
        ({"longBody": {"bytes": 1}}, Code.EXPORT_INVALID),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_an_answer_that_breaks_the_rules_fails_with_a_reason(
    site: MockSite, faults: dict[str, Any], reason: Code
) -> None:
    site.set(size=SIZE, **faults)
    with pytest.raises(Permanent) as raised:
        probe(site)
    assert raised.value.reason.code is reason
    assert raised.value.reason.message.startswith("site ")


@pytest.mark.parametrize("location", ["ftp://127.0.0.1/", "http://["])
def test_a_redirect_to_nowhere_is_an_outcome(site: MockSite, location: str) -> None:
    site.set(size=SIZE, redirect={"location": location})
    with pytest.raises(Permanent, match=r"redirects to a URL that is not valid"):
        probe(site)


def test_a_redirect_is_followed(site: MockSite) -> None:
    site.set(size=SIZE, redirect={"times": 1})
    with probe(site) as export:
        assert read(export) == site.content[:PART]


# --- plan anew


@pytest.mark.parametrize(
    "faults",
    [{"changeEtag": True}, {"noRange": True}, {"weakEtag": True}, {"noEtag": True}, {"noLength": True}],
    ids=lambda faults: next(iter(faults)),
)
def test_a_part_of_another_export_is_never_read(site: MockSite, faults: dict[str, Any]) -> None:
    site.set(size=SIZE, **faults)
    with pytest.raises(ExportChanged):
        second_part(site)


def test_an_export_that_changes_after_the_probe_is_planned_anew(site: MockSite) -> None:
    site.set(size=SIZE, changeContentAfter=1)
    validator = probe(site).validator
    with pytest.raises(ExportChanged):
        second_part(site, validator)


# --- Retry-After


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("0", 0),
        (" 12 ", 12),
        ("99999999", 24 * 3600),
        ("9" * 5000, 24 * 3600),
        ("Thu, 31 Jan 2030 12:00:30 GMT", 30),
        ("Thu, 31 Jan 2030 11:00:00 GMT", 0),
        ("Thu, 31 Jan 2031 12:00:00 GMT", 24 * 3600),
        ("Thu, 31 Jan 2030 12:00:30 -0000", 30),
        ("", None),
        ("soon", None),
        ("-1", None),
        ("1.5", None),
        ("\u00b2", None),
        ("Mon, 99 Xyz 2030 99:99:99 GMT", None),
    ],
)
def test_retry_after_is_read_in_each_of_its_forms(value: str | None, seconds: int | None) -> None:
    assert retry_after(value, NOW) == (None if seconds is None else timedelta(seconds=seconds))
