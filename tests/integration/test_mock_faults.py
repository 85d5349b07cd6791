"""Every fault of the mock providers, shown by a real server process."""

import gzip
import http.client
from collections.abc import Iterator

import pytest
import requests

from mock_providers.client import MockSite
from tests.integration.mock_server import get, get_raw, read_until_broken, serve

MIB = 1 << 20


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with serve() as url:
        yield url


@pytest.fixture
def site(server: str) -> MockSite:
    return MockSite(server)


def test_no_range(site: MockSite) -> None:
    response = get(site.set(noRange=True), "0-9")
    assert (response.status_code, response.headers["accept-ranges"]) == (200, "none")
    assert response.headers["etag"] == site.archive.etag
    assert response.content == site.content


def test_no_length(site: MockSite) -> None:
    response = get(site.set(noLength=True), "0-9")
    assert response.status_code == 200
    assert response.headers["transfer-encoding"] == "chunked"
    assert "content-length" not in response.headers
    assert response.content == site.content


def test_no_length_of_an_empty_export(site: MockSite) -> None:
    response = get(site.set(0, noLength=True))
    assert response.headers["transfer-encoding"] == "chunked"
    assert response.content == b""


def test_weak_etag(site: MockSite) -> None:
    response = get(site.set(weakEtag=True), "0-9")
    assert response.headers["etag"] == f"W/{site.archive.etag}"
    assert get(site, "0-9", If_Range=response.headers["etag"]).status_code == 200
    assert get(site, "0-9", If_Match=response.headers["etag"]).status_code == 412


def test_no_etag(site: MockSite) -> None:
    headers = get(site.set(noEtag=True)).headers
    assert not {"etag", "last-modified"} & {name.lower() for name in headers}


def test_last_modified_only(site: MockSite) -> None:
    headers = get(site.set(lastModifiedOnly=True)).headers
    assert "etag" not in headers
    assert "last-modified" in headers


def test_truncate_at(site: MockSite) -> None:
    site.set(truncateAt={"bytes": 300, "times": 1})
    response = get_raw(site)
    assert response.headers["content-length"] == "1000"
    assert read_until_broken(response) == (site.content[:300], http.client.IncompleteRead)
    assert site.stats()["bytesSent"] == 300
    assert read_until_broken(get_raw(site)) == (site.content, None)


def test_truncate_at_leaves_shorter_bodies_alone(site: MockSite) -> None:
    site.set(truncateAt={"bytes": 300, "times": 1})
    assert get(site, "0-299").content == site.content[:300]
    assert read_until_broken(get_raw(site))[0] == site.content[:300]


def test_truncate_at_0_sends_the_head_alone(site: MockSite) -> None:
    site.set(truncateAt={"bytes": 0})
    response = get_raw(site)
    assert response.status == 200
    assert read_until_broken(response) == (b"", http.client.IncompleteRead)


def test_truncate_at_a_position_in_a_later_chunk(site: MockSite) -> None:
    site.set(3 * MIB, truncateAt={"bytes": 2 * MIB + 5})
    assert read_until_broken(get_raw(site)) == (site.content[: 2 * MIB + 5], http.client.IncompleteRead)


def test_truncate_chunked(site: MockSite) -> None:
    site.set(truncateChunked={"bytes": 300, "times": 1})
    response = get_raw(site)
    assert response.headers["transfer-encoding"] == "chunked"
    with pytest.raises(http.client.IncompleteRead) as caught:
        response.read()
    assert caught.value.partial == site.content[:300]
    assert read_until_broken(get_raw(site)) == (site.content, None)


@pytest.mark.parametrize("retry_after", [7, "Wed, 21 Oct 2026 07:28:00 GMT"])
@pytest.mark.parametrize("code", [403, 404, 429, 500, 503])
def test_status(site: MockSite, code: int, retry_after: int | str) -> None:
    site.set(status={"code": code, "times": 2, "retryAfter": retry_after})
    answers = [get(site, "0-9") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [code, code, 206]
    assert answers[0].headers["retry-after"] == str(retry_after)


def test_status_on_range(site: MockSite) -> None:
    site.set(statusOnRange={"from": 500, "code": 503, "times": 2})
    spans = ("0-9", "499-999", "500-599", None, "600-", "-10")
    assert [get(site, span).status_code for span in spans] == [206, 206, 503, 200, 503, 206]
    assert [500, 599] in site.stats()["ranges"]


def test_hang(site: MockSite) -> None:
    site.set(hang={"afterBytes": 100, "seconds": 60, "times": 1})
    response = get_raw(site, timeout=0.5)
    assert response.read(100) == site.content[:100]
    with pytest.raises(TimeoutError):
        response.read(1)
    response.close()
    assert get(site).content == site.content


def test_a_hang_ends(site: MockSite) -> None:
    site.set(hang={"afterBytes": 10, "seconds": 0.2, "times": 1})
    assert get(site).content == site.content
    assert requests.get(site.control_url, timeout=10).json()["faults"]["hang"]["times"] == 0


def test_change_etag(site: MockSite) -> None:
    site.set(changeEtag=True)
    answers = [get(site, "0-9") for _ in range(3)]
    assert len({answer.headers["etag"] for answer in answers}) == 3
    assert len({answer.content for answer in answers}) == 1
    assert get(site, "0-9", If_Match=answers[-1].headers["etag"]).status_code == 412


def test_change_etag_after(site: MockSite) -> None:
    site.set(changeEtagAfter=2)
    get(site)
    site.set(changeEtagAfter=2)  # requests before this one don't count
    tags = [get(site, "0-9").headers["etag"] for _ in range(4)]
    assert tags[0] == tags[1] == site.archive.etag != tags[2] == tags[3]
    assert get(site, "0-9", If_Match=tags[0]).status_code == 412
    assert get(site, "0-9", If_Match=tags[2]).status_code == 206


def test_change_content_after(site: MockSite) -> None:
    site.set(changeContentAfter=1)
    first, second, third = (get(site) for _ in range(3))
    assert first.content == site.content
    site.revision = 2
    assert second.content == third.content == site.content
    assert first.headers["etag"] != second.headers["etag"] == site.archive.etag


def test_drip(site: MockSite) -> None:
    assert get(site.set(drip={"bytesPerSecond": 5000})).content == site.content
    site.set(drip={"bytesPerSecond": 1, "times": 1})
    with get_raw(site, timeout=0.5) as response, pytest.raises(TimeoutError):
        response.read(1)
    assert get(site).content == site.content


def test_gzip_always(site: MockSite) -> None:
    response = get_raw(site.set(gzip="always"), Range="bytes=0-9")
    assert (response.status, response.headers["content-encoding"]) == (200, "gzip")
    assert response.headers["etag"] != site.archive.etag
    assert gzip.decompress(response.read()) == site.content


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        ("gzip", "gzip"),
        ("br, gzip;q=0.5", "gzip"),
        ("*", "gzip"),
        ("identity", None),
        ("gzip;q=0", None),
        (None, None),
    ],
)
def test_gzip_if_asked(site: MockSite, accepted: str | None, coding: str | None) -> None:
    site.set(gzip="ifAsked")
    connection = http.client.HTTPConnection(site.url.removeprefix("http://"), timeout=10)
    connection.putrequest("GET", site.export_url.removeprefix(site.url), skip_accept_encoding=True)
    if accepted:
        connection.putheader("Accept-Encoding", accepted)
    connection.endheaders()
    response = connection.getresponse()
    assert response.headers["content-encoding"] == coding
    body = response.read()
    assert (gzip.decompress(body) if coding else body) == site.content


def test_wrong_range(site: MockSite) -> None:
    site.set(wrongRange={"times": 2})
    first, last = get(site, "0-9"), get(site, "990-999")
    assert first.status_code == 206
    assert first.headers["content-range"] == "bytes 1-10/1000"
    assert first.content == site.content[1:11]
    assert last.headers["content-range"] == "bytes 989-998/1000"
    assert get(site, "0-9").headers["content-range"] == "bytes 0-9/1000"


@pytest.mark.parametrize(("span", "middle"), [(None, 3 * MIB // 2), ("100-199", 50)])
def test_wrong_body(site: MockSite, span: str | None, middle: int) -> None:
    site.set(3 * MIB, wrongBody={"times": 1})
    wrong, right = get(site, span), get(site, span)
    assert wrong.headers["etag"] == right.headers["etag"]
    pairs = enumerate(zip(wrong.content, right.content, strict=True))
    assert [(at, a ^ b) for at, (a, b) in pairs if a != b] == [(middle, 1)]


def test_long_body(site: MockSite) -> None:
    site.set(longBody={"bytes": 5})
    response = get(site, "0-9")
    assert response.headers["content-range"] == "bytes 0-9/1000"
    assert response.headers["content-length"] == "15"
    assert response.content == site.content[:10] + bytes(5)


def test_reset(site: MockSite) -> None:
    site.set(reset={"bytes": 300, "times": 1})
    data, error = read_until_broken(get_raw(site))
    assert error is ConnectionResetError
    assert site.content.startswith(data)
    assert len(data) <= 300
    assert read_until_broken(get_raw(site)) == (site.content, None)


def test_redirect(site: MockSite) -> None:
    site.set(redirect={"times": 1, "code": 307})
    response = get(site)
    assert (response.status_code, response.headers["location"]) == (307, site.export_url)
    site.set(redirect={"times": 1})
    assert requests.get(site.export_url, timeout=10).content == site.content
    site.set(redirect={"location": "http://127.0.0.1:1/elsewhere"})
    assert get(site).headers["location"] == "http://127.0.0.1:1/elsewhere"


def test_a_redirect_without_times_never_ends(site: MockSite) -> None:
    site.set(redirect={})
    with pytest.raises(requests.TooManyRedirects):
        requests.get(site.export_url, timeout=10)


def test_slow_first_byte(site: MockSite) -> None:
    site.set(slowFirstByte={"seconds": 60, "times": 1})
    with pytest.raises(TimeoutError):
        get_raw(site, timeout=0.3)
    assert site.stats()["byStatus"] == {}
    assert get(site).content == site.content
    assert get(site.set(slowFirstByte={"seconds": 0.1})).content == site.content


def test_require_token(site: MockSite) -> None:
    site.set(token="secret-1")
    headers: list[dict[str, str]] = [
        {},
        {"Authorization": "Bearer other"},
        {"Authorization": "Bearer secret-1"},
    ]
    assert [get(site, **sent).status_code for sent in headers] == [401, 401, 200]


def test_faults_combine(site: MockSite) -> None:
    site.set(
        3 * MIB,
        status={"code": 429, "times": 1},
        noRange={"times": 2},
        weakEtag=True,
        truncateAt={"bytes": MIB, "times": 1},
        hang={"afterBytes": 100, "seconds": 0.1, "times": 1},
    )
    assert get(site, "0-9").status_code == 429
    assert requests.get(site.control_url, timeout=10).json()["faults"]["noRange"] == {"times": 2}
    cut = get_raw(site)
    assert cut.headers["etag"].startswith("W/")
    assert cut.headers["accept-ranges"] == "none"
    assert read_until_broken(cut) == (site.content[:MIB], http.client.IncompleteRead)
    assert read_until_broken(get_raw(site)) == (site.content, None)
