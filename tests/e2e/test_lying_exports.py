"""Whole backups of exports that lie about where they end, where they are and who asked: done is one whole version."""

import uuid
from collections.abc import Callable, Iterator
from itertools import count

import pytest

from mock_providers.client import MockSite
from tests.builders import LOOPBACK
from tests.e2e.client import Json
from tests.e2e.stack import PART, Stack
from tests.lying_server import Answer, Asked, Lie, LyingServer, answer, chunked, honest, part

SIZE = PART + 70_000
HALF = SIZE // 2
CHUNKED = "Transfer-Encoding: chunked"


@pytest.fixture(scope="module")
def server() -> Iterator[LyingServer]:
    server = LyingServer()
    yield server
    server.close()


@pytest.fixture(scope="module")
def stack(server: LyingServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Its providers are one server; `listed` may redirect to its other name, `any` promises no zip."""
    site = {"name": "site", "exportUrl": server.url + "/{siteId}/export", "allowNetworks": LOOPBACK}
    listed = {**site, "name": "listed", "redirectHosts": ["localhost"]}
    with Stack(
        tmp_path_factory.mktemp("stack"), [site, listed, {**site, "name": "any", "format": "any"}]
    ) as system:
        yield system


def a_site(
    server: LyingServer, lie: Lie | Callable[[bytes], Lie], provider: str = "site", size: int = SIZE
) -> MockSite:
    """A site of a provider; `lie` is made of the bytes of its export."""
    site = MockSite("", provider, uuid.uuid4().hex[:24], uuid.uuid4().hex[:24], size)
    server.sites[site.site_id] = lie(site.content)  # type: ignore[arg-type,assignment]
    return site


def whole(*headers: str, body: Callable[[bytes], bytes] = lambda data: data) -> Callable[[bytes], Lie]:
    """A 200 for every request."""
    return lambda data: lambda asked: answer("200 OK", *headers, body=body(data))


def ranges(lie: Callable[[Asked, bytes], Answer | None]) -> Callable[[bytes], Lie]:
    """Honest but for the requests that `lie` answers."""
    return lambda data: lambda asked: lie(asked, data) or honest(data)(asked)


def later(asked: Asked) -> bool:
    return asked.span is not None and asked.span[0] > 0


def resized(asked: Asked, data: bytes, by: int) -> Answer | None:
    """The later range in chunked coding, with some bytes more or less than it says."""
    if not later(asked):
        return None
    assert asked.span is not None
    body = data[slice(*asked.span)]
    return part(asked, data, CHUNKED, body=chunked(body + bytes(by) if by > 0 else body[:by]))


def once(lie: Callable[[Asked, bytes], Answer | None]) -> Callable[[Asked, bytes], Answer | None]:
    """Tells a lie only the first time."""
    told = count()
    return lambda asked, data: found if (found := lie(asked, data)) and not next(told) else None


DONE: dict[str, tuple[str, Callable[[bytes], Lie]]] = {
    "a short length beside chunked coding": ("any", whole("Content-Length: 5", CHUNKED, body=chunked)),
    "a long length beside chunked coding": (
        "any",
        whole(CHUNKED, f"Content-Length: {2 * SIZE}", body=chunked),
    ),
    "an end that only the zip proves": ("site", whole()),
    "a range that is too short once": ("any", ranges(once(lambda asked, data: resized(asked, data, -1)))),
    "another total once": (
        "any",
        ranges(once(lambda asked, data: part(asked, data, total=SIZE + 1) if later(asked) else None)),
    ),
}

FAILED: dict[str, tuple[str, str, Callable[[bytes], Lie]]] = {
    "a zip cut where its connection ends": (
        "site",
        "export_incomplete",
        whole(body=lambda data: data[:HALF]),
    ),
    "a zip cut under a length that fits": (
        "site",
        "export_incomplete",
        whole(f"Content-Length: {HALF}", body=lambda data: data[:HALF]),
    ),
    "a login page": ("site", "export_not_a_zip", whole(body=lambda data: b"<html>Please log in.</html>")),
    "cut where its connection ends": ("any", "export_incomplete", whole(body=lambda data: data[:HALF])),
    "whole, but nothing proves it": ("any", "export_incomplete", whole()),
    "closed before its first byte": ("site", "retries_exhausted", whole(body=lambda data: b"")),
    "chunks without the last": (
        "any",
        "retries_exhausted",
        whole(CHUNKED, body=lambda data: chunked(data)[:-5]),
    ),
    "a range that is too long": (
        "any",
        "export_invalid",
        ranges(lambda asked, data: resized(asked, data, 1)),
    ),
    "a range that is too short": (
        "any",
        "retries_exhausted",
        ranges(lambda asked, data: resized(asked, data, -1)),
    ),
    "two lengths": ("any", "export_invalid", whole(f"Content-Length: {SIZE}", f"Content-Length: {HALF}")),
    "another coding": ("any", "export_invalid", whole("Transfer-Encoding: gzip", f"Content-Length: {HALF}")),
}


def reason(job: Json) -> tuple[str, str | None]:
    return job["status"], job.get("reason", {}).get("code")


@pytest.mark.slow
def test_a_lie_that_shows_is_never_done_with_other_bytes_than_one_whole_version(
    stack: Stack, server: LyingServer
) -> None:
    """Takes as long as five tries of those that never work."""
    done = {name: a_site(server, lie, provider) for name, (provider, lie) in DONE.items()}
    failed = {name: a_site(server, lie, provider) for name, (provider, _, lie) in FAILED.items()}
    jobs = {name: stack.api.create(site) for name, site in (done | failed).items()}
    ends = {name: stack.api.finish(job, 240) for name, job in jobs.items()}
    expected = dict.fromkeys(DONE, ("done", None)) | {
        name: ("failed", code) for name, (_, code, _) in FAILED.items()
    }
    assert {name: reason(job) for name, job in ends.items()} == expected
    for name, site in done.items():
        stack.bucket.assert_holds(ends[name], site)
    stack.bucket.wait_empty(*(ends[name] for name in failed))


def test_cookies_of_one_site_are_not_sent_for_another(stack: Stack, server: LyingServer) -> None:
    def with_cookie(data: bytes) -> Lie:
        def tell(asked: Asked) -> Answer:
            assert asked.span is not None
            return part(
                asked, data, f"Content-Length: {len(data[slice(*asked.span)])}", "Set-Cookie: of=one; Path=/"
            )

        return tell

    for _ in range(2):  # the second time by environments that have seen a cookie
        sites = [a_site(server, with_cookie) for _ in range(3)]
        for job, site in zip([stack.api.create(site) for site in sites], sites, strict=True):
            stack.bucket.assert_holds(stack.api.done(job), site)
            assert not any("cookie" in asked.headers for asked in server.asked[site.site_id])


def test_redirects_are_followed_within_the_hosts_of_the_provider_and_unread(
    stack: Stack, server: LyingServer
) -> None:
    def to(origin: str) -> Callable[[bytes], Lie]:
        def lie(data: bytes) -> Lie:
            def tell(asked: Asked) -> Answer:
                site, last = asked.target.split("/")[1:]
                if last == "data":
                    return honest(data)(asked)
                moved = answer("302 Found", f"Location: {origin}/{site}/data", "Content-Length: 999999999999")
                return Answer(moved.data + bytes(100_000), "keep")  # who waits for its body waits for ever

            return tell

        return lie

    elsewhere = f"http://localhost:{server.port}"
    cases = {
        "the same host": a_site(server, to(server.url)),
        "a host that is listed": a_site(server, to(elsewhere), "listed"),
        "a host that is not": a_site(server, to(elsewhere)),
        "back and forth": a_site(
            server, lambda data: lambda asked: answer("302 Found", f"Location: {asked.target}")
        ),
    }
    jobs = {name: stack.api.create(site) for name, site in cases.items()}
    ends = {name: stack.api.finish(job) for name, job in jobs.items()}
    assert {name: reason(job) for name, job in ends.items()} == {
        "the same host": ("done", None),
        "a host that is listed": ("done", None),
        "a host that is not": ("failed", "export_redirected"),
        "back and forth": ("failed", "export_redirected"),
    }
    for name in ("the same host", "a host that is listed"):
        stack.bucket.assert_holds(ends[name], cases[name])
    assert len(server.asked[cases["a host that is not"].site_id]) == 1
