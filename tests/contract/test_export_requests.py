"""What is sent to providers, and to whom: no cookies, tokens to their own host alone, redirects within bounds."""

import gzip
import tracemalloc
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sitebackup.adapters.http_exports.exports import HttpExports
from sitebackup.adapters.http_exports.redirects import MAX_REDIRECTS
from sitebackup.adapters.provider_http import retry_after
from sitebackup.adapters.secrets import Secrets
from sitebackup.domain.errors import Permanent, Transient
from sitebackup.domain.provider import Provider
from sitebackup.domain.reason import Code
from tests.builders import LOOPBACK
from tests.contract import wire
from tests.lying_server import Answer, Asked, Lie, LyingServer, answer, honest

DATA = bytes(range(200))
NOW = datetime(2030, 1, 31, 12, tzinfo=UTC)
A, B = "site-a", "site-b"
ARN = "arn:secret"


@pytest.fixture
def server() -> Iterator[LyingServer]:
    server = LyingServer()
    server.sites.update({A: honest(DATA), B: honest(DATA)})
    yield server
    server.close()


@pytest.fixture
def other() -> Iterator[LyingServer]:
    other = LyingServer()
    other.sites[B] = honest(DATA)
    yield other
    other.close()


def exports(token: Callable[[str, float], str] = lambda arn, since: "token") -> HttpExports:
    return HttpExports(100, 2.0, token, lambda: NOW)


def fetch(url: str, site: str = A, through: HttpExports | None = None, **fields: Any) -> bytes:
    """The whole export."""
    provider = Provider(name="site", export_url=url + "/{siteId}/export", allow_networks=LOOPBACK, **fields)
    with (through or exports()).probe(provider, "u", site, None) as export:
        buffer = memoryview(bytearray(1000))
        return bytes(buffer[: export.readinto(buffer)])


def redirect(location: str, *headers: str, body: bytes = b"") -> Answer:
    return answer("302 Found", f"Location: {location}", *headers, body=body)


def redirected(call: Callable[[], object], message: str) -> None:
    with pytest.raises(Permanent, match=message) as raised:
        call()
    assert raised.value.reason.code is Code.EXPORT_REDIRECTED


# --- cookies


def test_a_cookie_of_one_tenant_is_sent_with_nobodys_request(server: LyingServer) -> None:
    cookies = ("Set-Cookie: session=of-a; Path=/", "Set-Cookie: tenant=a")

    def with_cookies(asked: Asked) -> Answer:
        if asked.target.endswith("export"):
            return answer("302 Found", f"Location: /{A}/data", *cookies)
        return answer("200 OK", f"Content-Length: {len(DATA)}", *cookies, body=DATA)

    server.sites[A] = with_cookies
    through = exports()
    assert fetch(server.url, A, through) == fetch(server.url, B, through) == fetch(server.url, A, through)
    assert len(server.asked[A]) == 4
    assert not any("cookie" in asked.headers for asked in server.asked[A] + server.asked[B])


# --- redirects


@pytest.mark.parametrize(
    "location", [f"/{B}/data?x=1", f"../{B}/data", "//127.0.0.1:{port}/" + B, "http://127.0.0.1:{port}/" + B]
)
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_to_the_same_host_is_followed(server: LyingServer, status: int, location: str) -> None:
    at = location.replace("{port}", str(server.port))
    server.sites[A] = lambda asked: answer(f"{status} Elsewhere", f"Location: {at}")
    assert fetch(server.url) == DATA


def test_a_range_stays_a_range_of_its_version_behind_redirects(server: LyingServer) -> None:
    server.sites[A] = lambda asked: redirect(f"/{B}/data")
    provider = Provider(name="site", export_url=server.url + "/{siteId}/export", allow_networks=LOOPBACK)
    exports().open_range(provider, "u", A, 10, 20, '"1"', len(DATA)).close()
    for asked in (server.asked[A][0], server.asked[B][0]):
        assert (asked.headers["range"], asked.headers["if-match"]) == ("bytes=10-29", '"1"')
        assert asked.headers["accept-encoding"] == "identity"


def test_another_host_is_asked_only_if_the_provider_lists_it_and_without_the_token(
    server: LyingServer, other: LyingServer
) -> None:
    server.sites[A] = lambda asked: redirect(f"http://localhost:{other.port}/{B}/data")
    redirected(lambda: fetch(server.url), r"^site redirects to localhost, which is not among")
    assert not other.asked
    assert fetch(server.url, redirect_hosts=("LocalHost",), auth_secret_arn=ARN) == DATA
    assert server.asked[A][1].headers["authorization"] == "Bearer token"
    assert "authorization" not in other.asked[B][0].headers


def test_another_port_gets_no_token_and_the_way_back_does(server: LyingServer, other: LyingServer) -> None:
    server.sites[A] = lambda asked: redirect(f"http://127.0.0.1:{other.port}/{B}/data")
    other.sites[B] = lambda asked: redirect(f"{server.url}/{B}/data")
    assert fetch(server.url, auth_secret_arn=ARN) == DATA
    assert "authorization" not in other.asked[B][0].headers
    assert server.asked[B][0].headers["authorization"] == "Bearer token"


BODIES = {
    "one that grows": ["Content-Encoding: gzip", "Content-Length: {length}"],
    "one that never comes": ["Content-Length: 999999999999"],
    "one without end": ["Transfer-Encoding: chunked"],
}


@pytest.mark.parametrize("headers", BODIES.values(), ids=BODIES.keys())
def test_the_body_of_a_redirect_is_neither_read_nor_waited_for(
    server: LyingServer, headers: list[str]
) -> None:
    body = gzip.compress(bytes(64 << 20))
    sent = [header.replace("{length}", str(len(body))) for header in headers]
    held = redirect(f"/{B}/data", *sent, body=body)
    server.sites[A] = lambda asked: Answer(held.data, "keep")
    through = exports()
    fetch(server.url, B, through)  # what is imported and kept for good
    tracemalloc.start()
    try:
        assert fetch(server.url, A, through) == DATA
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2 << 20


def test_no_more_redirects_are_followed_than_allowed(server: LyingServer) -> None:
    def hops(most: int) -> Lie:
        def tell(asked: Asked) -> Answer:
            hop = len(server.asked[A])
            return redirect(f"/{A}/{hop}") if hop <= most else honest(DATA)(asked)

        return tell

    server.sites[A] = hops(MAX_REDIRECTS)
    assert fetch(server.url) == DATA
    server.asked.clear()
    server.sites[A] = hops(MAX_REDIRECTS + 1)
    redirected(lambda: fetch(server.url), rf"^site redirects more than {MAX_REDIRECTS} times\.$")
    assert len(server.asked[A]) == MAX_REDIRECTS + 1


@pytest.mark.parametrize(
    "location", ["", "http://[", "http://127.0.0.1:99999/", "file:///etc/passwd", "\xff"]
)
def test_a_redirect_to_nowhere_is_refused(server: LyingServer, location: str) -> None:
    data = b"HTTP/1.1 302 Found\r\nLocation: " + location.encode("latin-1") + b"\r\n\r\n"
    server.sites[A] = lambda asked: Answer(data)
    redirected(lambda: fetch(server.url), r"^site redirects to a URL that is not valid\.$")


def test_a_redirect_never_leaves_https(
    server: LyingServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tls, trusted = wire.certificate(tmp_path)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(trusted))
    with wire.proxy(server.port, tls=tls) as proxy:
        url = f"https://127.0.0.1:{proxy.port}"
        assert fetch(url) == DATA
        server.sites[A] = lambda asked: redirect(f"{url}/{B}/data")
        assert fetch(url) == DATA
        server.asked.clear()
        server.sites[A] = lambda asked: redirect(f"{server.url}/{B}/data")
        redirected(lambda: fetch(url), r"^site redirects from https to http\.$")
        assert not server.asked[B]


def test_https_needs_a_certificate_that_is_trusted(server: LyingServer, tmp_path: Path) -> None:
    tls, _ = wire.certificate(tmp_path)
    with wire.proxy(server.port, tls=tls) as proxy, pytest.raises(Transient, match="SSLError"):
        fetch(f"https://127.0.0.1:{proxy.port}")


def test_neither_a_proxy_nor_a_netrc_of_the_machine_counts(
    server: LyingServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\n")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert fetch(server.url, auth_secret_arn=ARN) == DATA
    assert server.asked[A][0].headers["authorization"] == "Bearer token"


# --- tokens


class Manager:
    """Secrets Manager with one secret."""

    def __init__(self) -> None:
        self.text = "old"
        self.reads = 0

    def get_secret_value(self, **_: Any) -> dict[str, Any]:
        self.reads += 1
        return {"SecretString": self.text}


def wants(token: str) -> Lie:
    def tell(asked: Asked) -> Answer:
        if asked.headers.get("authorization") != f"Bearer {token}":
            return answer("401 Unauthorized", "WWW-Authenticate: Bearer", "Content-Length: 0")
        return honest(DATA)(asked)

    return tell


def test_a_rotated_token_is_read_again_when_the_old_one_is_refused(server: LyingServer) -> None:
    manager = Manager()
    through = exports(Secrets(manager))  # type: ignore[arg-type]
    server.sites[A] = wants("old")
    assert fetch(server.url, A, through, auth_secret_arn=ARN) == DATA
    manager.text, server.sites[A] = "new", wants("new")
    for _ in range(2):
        assert fetch(server.url, A, through, auth_secret_arn=ARN) == DATA
    assert (len(server.asked[A]), manager.reads) == (4, 2)


def test_a_token_that_is_refused_again_fails_the_export(server: LyingServer) -> None:
    manager = Manager()
    through = exports(Secrets(manager))  # type: ignore[arg-type]
    server.sites[A] = wants("another")

    def refused(requests: int, reads: int) -> None:
        with pytest.raises(Permanent, match=r"^site answered 401\.$") as raised:
            fetch(server.url, A, through, auth_secret_arn=ARN)
        assert raised.value.reason.code is Code.EXPORT_FORBIDDEN
        assert (len(server.asked[A]), manager.reads) == (requests, reads)

    refused(1, 1)  # it was read just now
    refused(2, 2)  # the same text is not tried again
    manager.text = "new"
    refused(4, 3)


# --- Retry-After


@given(st.text() | st.from_regex(r"\w{3}, \d+ (Jan|Dec) \d+ \d+:\d+:\d+ ([+-]\d+|GMT)", fullmatch=True))
@example("Fri, 31 Dec 99999999999999999999 00:00:00 GMT")
@example("Mon, 01 Jan 0001 00:00:00 +2359")
@example("Fri, 31 Dec 9999 23:59:59 -2359")
@example("Thu, 31 Jan 2030 12:00:00 +99999999999999999999")
@example("9" * 18)
@example("0" * 30 + "5")
def test_no_retry_after_is_an_error_or_longer_than_a_day(value: str) -> None:
    wait = retry_after(value, NOW)
    assert wait is None or timedelta(0) <= wait <= timedelta(days=1)


def test_an_absurd_retry_after_is_an_outcome_like_any_other(server: LyingServer) -> None:
    absurd = "Retry-After: Fri, 31 Dec 99999999999999999999 00:00:00 GMT"
    server.sites[A] = lambda asked: answer("503 Service Unavailable", absurd)
    with pytest.raises(Transient, match="503") as raised:
        fetch(server.url)
    assert raised.value.retry_after is None
