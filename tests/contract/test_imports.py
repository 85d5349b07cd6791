"""What each fault of an import API means over HTTP: try again, give up with a reason, or begin a new upload.

What every ImportApi promises is in test_import_api.py.
"""

import socket
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from local.services import processes
from mock_providers.client import MockSite
from sitebackup.adapters.tus_imports.imports import TusImports
from sitebackup.domain.errors import NoSuchImport, Permanent, TaskEnded, Transient
from sitebackup.domain.provider import Provider
from sitebackup.domain.reason import Code
from sitebackup.ports.providers import ImportTarget
from tests.builders import LOOPBACK
from tests.contract import wire
from tests.contract.test_time_limits import ends_in_time, time_left
from tests.fakes.readers import some_bytes
from tests.fakes.storage import crc_of
from tests.integration.mock_server import serve, wait_until
from tests.tus import an_id

NOW = datetime(2030, 1, 31, 12, tzinfo=UTC)
SILENCE_SECONDS = 8.0
"""More than a busy machine keeps anybody waiting, and what `ends_in_time` knows."""
DATA = some_bytes("site", 100_000)
HALF = 50_000


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serve() as url:
        yield url


class Site:
    """A site at the mock providers, with an upload that has begun."""

    def __init__(self, url: str) -> None:
        self.mock = MockSite(url, user_id=an_id(), site_id=an_id())
        self.mock.set()
        self.api = imports()
        self.provider = provider(self.mock)
        self.upload = self.create()

    def create(self) -> str:
        target = ImportTarget(self.mock.user_id, self.mock.site_id, an_id(), an_id(), crc_of(DATA))
        return self.api.create(self.provider, target, len(DATA))

    def send(self, offset: int = 0, end: int = len(DATA), **more: Any) -> int:
        return self.api.send(self.provider, self.upload, offset, memoryview(DATA)[offset:end], **more)

    def offset(self) -> int:
        return self.api.offset(self.provider, self.upload)

    def fails(self, **imports: Any) -> None:
        """From now on the import API behaves so."""
        self.mock.set(imports=imports)

    def content_is_sent_on(self, offset: int) -> None:
        """All is well when the rest is sent."""
        assert self.send(offset) == len(DATA)
        assert self.api.outcome(self.provider, self.upload).state == "done"

    @property
    def calls(self) -> dict[str, Callable[[], object]]:
        """Each call of the port, by its method."""
        mock = self.mock
        return {
            "OPTIONS": lambda: self.api.offer(self.provider, mock.user_id, mock.site_id),
            "POST": self.create,
            "HEAD": self.offset,
            "PATCH": self.send,
            "GET": lambda: self.api.outcome(self.provider, self.upload),
            "DELETE": lambda: self.api.delete(self.provider, self.upload),
        }


def imports(token: str = "", timeout: float = SILENCE_SECONDS) -> TusImports:
    return TusImports(timeout, lambda arn, since: token, lambda: NOW)


def provider(mock: MockSite, **fields: Any) -> Provider:
    import_url = f"{mock.import_url}?userId={{userId}}&siteId={{siteId}}"
    return Provider(
        name="site", export_url="http://site", import_url=import_url, allow_networks=LOOPBACK, **fields
    )


@pytest.fixture
def site(url: str) -> Site:
    return Site(url)


# --- what a status means


def meaning(method: str, code: int) -> type[Exception] | Code | None:
    """The table of docs/adding-a-provider.md."""
    new = method in ("OPTIONS", "POST")
    if method == "DELETE" and code in (404, 405, 410, 501):
        return None
    if code in (408, 423, 425, 429) or code >= 500 or (method == "PATCH" and code in (409, 460)):
        return Transient
    if code in (401, 403):
        return Code.IMPORT_FORBIDDEN
    if code in (404, 410):
        return Code.IMPORT_NOT_FOUND if new else NoSuchImport
    return Code.IMPORT_TOO_LARGE if (method, code) == ("POST", 413) else Code.IMPORT_REFUSED


CODES = [400, 401, 403, 404, 405, 408, 409, 410, 412, 413, 415, 418, 423, 425, 429, 460]
CODES += [500, 501, 502, 503, 504, 507]


@pytest.mark.parametrize("code", CODES)
def test_a_status_is_an_outcome_that_fits_the_call(site: Site, code: int) -> None:
    calls = site.calls
    site.fails(refuse={method: {"code": code} for method in calls})
    for method, call in calls.items():
        expected = meaning(method, code)
        if expected is None:
            call()
        elif isinstance(expected, Code):
            with pytest.raises(Permanent, match=rf"^site .*answered {code}\.$") as raised:
                call()
            assert (method, raised.value.reason.code) == (method, expected)
        else:
            with pytest.raises(expected, match=rf"^site answered {code}\.$"):
                call()


@pytest.mark.parametrize("value", [7, format_datetime(NOW + timedelta(seconds=7), usegmt=True)])
def test_a_retry_after_is_kept_with_the_error(site: Site, value: object) -> None:
    calls = site.calls
    site.fails(refuse={method: {"code": 429, "retryAfter": value} for method in calls})
    for call in calls.values():
        with pytest.raises(Transient) as raised:
            call()
        assert raised.value.retry_after == timedelta(seconds=7)


def test_an_api_that_is_down_is_tried_again_later() -> None:
    mock = MockSite(f"http://127.0.0.1:{processes.free_port()}")
    with pytest.raises(Transient, match=r"^site can't be reached: ConnectionError\.$"):
        imports().offset(provider(mock), f"{mock.import_url}/secret")


def test_an_api_that_hangs_up_is_tried_again_later() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        mock = MockSite(f"http://127.0.0.1:{server.getsockname()[1]}")
        with pytest.raises(Transient, match=r"^site can't be reached: ReadTimeout\.$"):
            imports(timeout=0.5).offset(provider(mock), f"{mock.import_url}/secret")


# --- the token


def test_an_api_that_wants_a_token_gets_the_secret(site: Site) -> None:
    site.mock.set(token="secret")
    for call in site.calls.values():
        with pytest.raises(Permanent, match=r"^site answered 401\.$") as raised:
            call()
        assert raised.value.reason.code is Code.IMPORT_FORBIDDEN
    site.api, site.provider = imports("secret"), provider(site.mock, auth_secret_arn="arn:secret")
    for call in site.calls.values():
        call()


# --- bytes


@pytest.mark.parametrize("count", [1, HALF, len(DATA) - 1])
def test_a_connection_that_is_cut_at_a_byte_leaves_the_bytes_before_it(site: Site, count: int) -> None:
    site.fails(cutAt={"bytes": count, "times": 1})
    with pytest.raises(Transient, match=r"^site can't be reached: ConnectionError\.$"):
        site.send()
    assert site.offset() == count
    site.content_is_sent_on(count)


@pytest.mark.parametrize("code", [404, 410])
def test_an_upload_that_is_forgotten_in_the_middle_is_told(site: Site, code: int) -> None:
    site.fails(forget={"from": HALF, "code": code})
    assert site.send(0, HALF) == HALF
    goes_on: list[Callable[[], int]] = [lambda: site.send(HALF), site.offset]
    for call in goes_on:
        with pytest.raises(NoSuchImport, match=rf"^site answered {code}\.$"):
            call()


def test_an_upload_that_has_lost_bytes_is_at_a_lower_offset(site: Site) -> None:
    assert site.send(0, HALF) == HALF
    site.fails(loseBytes={"bytes": 10, "times": 1})
    with pytest.raises(Transient, match=r"^site answered 409\.$"):
        site.send(HALF)
    assert site.offset() == HALF - 10
    site.content_is_sent_on(HALF - 10)


@pytest.mark.parametrize(("by", "arrived"), [(-5, HALF - 5), (0, HALF)])
def test_an_offset_that_can_be_is_told_as_it_is(site: Site, by: int, arrived: int) -> None:
    site.fails(wrongOffset={"PATCH": {"by": by}, "HEAD": {"by": by}})
    assert site.send(0, HALF) == arrived
    assert site.offset() == arrived


def test_an_offset_above_what_was_sent_breaks_the_rules(site: Site) -> None:
    site.fails(wrongOffset={"PATCH": {"by": 1}, "HEAD": {"by": HALF + 1}})
    invalid(lambda: site.send(0, HALF), rf"its Upload-Offset {HALF + 1} is above {HALF}\.$")
    invalid(site.offset, rf"its Upload-Offset {len(DATA) + 1} is above {len(DATA)}\.$")


def invalid(call: Callable[[], object], message: str) -> None:
    with pytest.raises(Permanent, match=rf"^site does not follow tus: {message}") as raised:
        call()
    assert raised.value.reason.code is Code.IMPORT_INVALID


def test_bytes_that_are_damaged_on_the_way_are_refused_for_now_and_dropped(site: Site) -> None:
    port = int(site.mock.url.rpartition(":")[2])

    def damage(data: bytes) -> bytes:
        return data.replace(DATA[:100], bytes(100))

    with wire.proxy(port, damage) as proxy:
        upload = site.upload.replace(f":{port}", f":{proxy.port}")
        with pytest.raises(Transient, match=r"^site answered 460\.$"):
            site.api.send(site.provider, upload, 0, memoryview(DATA))
    assert site.offset() == 0
    site.content_is_sent_on(0)


def test_an_upload_that_another_request_writes_to_is_tried_again_later(site: Site) -> None:
    site.fails(hang={"afterBytes": HALF, "seconds": 30})
    all_in_its_buffers = memoryview(DATA)[
        :60_000
    ]  # else it would not look at the connection until it reads on
    with pytest.raises(Transient, match="silent for too long"):
        imports(timeout=1.0).send(site.provider, site.upload, 0, all_in_its_buffers)
    # The first one still has the upload until the server sees that its connection is gone.
    wait_until(lambda: site.mock.imports()["concurrent"] == 0)
    assert site.offset() == HALF


def test_a_slow_api_is_no_fault(site: Site) -> None:
    site.fails(drip={"bytesPerSecond": 100_000})
    site.content_is_sent_on(0)


def test_an_answer_that_is_lost_leaves_its_bytes_there(site: Site) -> None:
    site.fails(loseAnswer={"PATCH": {"times": 1}})
    with pytest.raises(Transient, match="can't be reached"):
        site.send()
    assert site.offset() == len(DATA)
    assert site.api.outcome(site.provider, site.upload).state == "done"


def test_no_call_waits_beyond_its_deadline(site: Site) -> None:
    mock = site.mock
    slow = {method: {"seconds": 60} for method in ("OPTIONS", "POST", "HEAD", "PATCH", "GET", "DELETE")}
    site.fails(slowAnswer=slow)
    target = ImportTarget(mock.user_id, mock.site_id, an_id(), an_id(), crc_of(DATA))
    with ends_in_time():
        site.api.offer(site.provider, mock.user_id, mock.site_id, time_left())
    with ends_in_time():
        site.api.create(site.provider, target, len(DATA), time_left())
    with ends_in_time():
        site.api.offset(site.provider, site.upload, time_left())
    with ends_in_time():
        site.send(time_left=time_left())
    with ends_in_time():
        site.api.outcome(site.provider, site.upload, time_left())
    with ends_in_time():
        site.api.delete(site.provider, site.upload, time_left())


def test_a_slice_that_nobody_wants_any_more_is_broken_off(site: Site) -> None:
    asked = []

    def goes_on() -> bool:
        asked.append(True)
        return len(asked) < 2

    site.fails(hang={"afterBytes": HALF, "seconds": 60})
    with pytest.raises(TaskEnded):
        site.send(end=60_000, goes_on=goes_on)  # all in its buffers, as above
    assert len(asked) == 2
    wait_until(lambda: site.mock.imports()["concurrent"] == 0)
    assert site.offset() == HALF


# --- what is offered


def test_what_a_site_is_offered_is_asked_for_once_in_several_slices(site: Site) -> None:
    for start in range(0, len(DATA), 10_000):
        site.send(start, start + 10_000)
    assert site.mock.imports()["byAnswer"]["OPTIONS 204"] == 1


@pytest.mark.parametrize("fault", [{"code": 503}, {"code": 404}, {"code": 403}, {"code": 400, "close": True}])
def test_an_api_that_does_not_say_what_it_offers_gets_its_slices_all_the_same(
    site: Site, fault: dict[str, Any]
) -> None:
    site.fails(refuse={"OPTIONS": fault})
    site.send(0, HALF)
    site.content_is_sent_on(HALF)
    assert site.mock.imports()["byAnswer"][f"OPTIONS {fault['code']}"] == 1


def test_an_api_without_creation_offers_no_import(site: Site) -> None:
    site.fails(extensions=["checksum"])
    invalid(site.calls["OPTIONS"], r"its Tus-Extension does not name creation\.$")


def test_an_api_that_has_no_termination_keeps_what_is_deleted(site: Site) -> None:
    site.fails(extensions=["creation"])
    site.api.delete(site.provider, site.upload)
    assert site.offset() == 0


# --- where an upload is


def test_the_location_of_an_upload_may_be_a_path(site: Site) -> None:
    site.fails(relativeLocation=True)
    site.upload = site.create()
    assert site.upload.startswith(site.mock.url)
    site.content_is_sent_on(0)
