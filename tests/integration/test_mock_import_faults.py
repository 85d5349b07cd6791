"""The faults that the mock providers' import API shows on demand, as a real server process."""

from collections.abc import Iterator
from typing import Any

import pytest
import requests

from mock_providers.client import MockSite
from tests.integration.mock_server import serve, wait_until
from tests.integration.test_mock_imports import DATA, MIB, begin, digest, names, state
from tests.tus import BYTES, Tus, metadata


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with serve() as url:
        yield url


@pytest.fixture
def site(server: str) -> MockSite:
    return MockSite(server)


@pytest.fixture
def tus(site: MockSite) -> Tus:
    return Tus(site.import_url)


@pytest.mark.parametrize("method", ["OPTIONS", "POST", "HEAD", "PATCH", "GET", "DELETE"])
def test_refuse(site: MockSite, tus: Tus, method: str) -> None:
    upload = begin(site)
    refusal = {"code": 503, "retryAfter": 7, "times": 2}
    site.set(imports={"refuse": {method: refusal}})
    url = f"{tus.url}?siteId={site.site_id}" if method in ("OPTIONS", "POST") else upload
    sent = {"Upload_Length": "5", "Upload_Metadata": metadata(**names(site)), "Upload_Offset": "0"} | BYTES
    answers = [tus.call(method, url, **sent) for _ in range(3)]
    assert [answer.status_code for answer in answers[:2]] == [503, 503]
    assert answers[0].headers["retry-after"] == "7"
    assert answers[2].ok
    assert site.imports()["byAnswer"][f"{method} 503"] == 2


@pytest.mark.parametrize("code", [403, 404, 409, 410, 413, 423, 460, 500])
def test_refuse_with_any_status(site: MockSite, tus: Tus, code: int) -> None:
    upload = begin(site)
    site.set(imports={"refuse": {"PATCH": {"code": code, "times": 1}}})
    assert [tus.patch(upload, 0, DATA).status_code for _ in range(2)] == [code, 204]


def test_refuse_from_a_byte_on(site: MockSite, tus: Tus) -> None:
    upload = begin(site)
    site.set(imports={"refuse": {"PATCH": {"from": 100, "code": 500, "times": 1}}})
    answers = [tus.patch(upload, at, DATA[at : at + 100]) for at in (0, 100, 100)]
    assert [answer.status_code for answer in answers] == [204, 500, 204]


def test_a_refused_body_is_read_unless_the_connection_is_to_close(site: MockSite, tus: Tus) -> None:
    data = bytes(4 * MIB)
    upload = begin(site, data)
    site.set(imports={"refuse": {"PATCH": {"code": 503}}})
    assert tus.patch(upload, 0, data).status_code == 503
    site.set(imports={"refuse": {"PATCH": {"code": 503, "close": True}}})
    connection = tus.begin_patch(upload, 0, len(data), b"")
    assert connection.getresponse().status == 503
    with pytest.raises(ConnectionError):
        connection.send(bytes(64 * MIB))
    assert tus.offset(upload) == 0


def test_cut_at(site: MockSite, tus: Tus) -> None:
    data = MockSite(site.url, size=3 * MIB).content
    upload = begin(site, data)
    site.set(imports={"cutAt": {"bytes": 2 * MIB + 5, "times": 1}})
    with pytest.raises(requests.ConnectionError):
        tus.patch(upload, 0, data)
    assert tus.offset(upload) == site.imports()["bytesReceived"] == 2 * MIB + 5
    tus.send(upload, 2 * MIB + 5, data)
    assert site.sha256() == digest(data)


def test_cut_at_leaves_shorter_slices_alone(site: MockSite, tus: Tus) -> None:
    upload = begin(site)
    site.set(imports={"cutAt": {"bytes": 100}})
    assert tus.patch(upload, 0, DATA[:100]).status_code == 204
    with pytest.raises(requests.ConnectionError):
        tus.patch(upload, 100, DATA[100:])
    assert tus.offset(upload) == 100


@pytest.mark.parametrize("code", [404, 410])
def test_forget(site: MockSite, tus: Tus, code: int) -> None:
    upload = begin(site)
    site.set(imports={"forget": {"from": 100, "code": code, "times": 1}})
    tus.send(upload, 0, DATA[:100])
    assert [tus.call(method, upload).status_code for method in ("HEAD", "GET", "HEAD")] == [code] * 3
    assert site.imports()["open"] == []
    tus.send(begin(site), 0, DATA)


def test_forget_once_the_import_is_done(site: MockSite, tus: Tus) -> None:
    upload = begin(site)
    site.set(imports={"forget": {"from": len(DATA)}})
    tus.send(upload, 0, DATA)
    assert tus.call("HEAD", upload).status_code == 404
    assert site.imports()["imported"] == 1


def test_lose_bytes(site: MockSite, tus: Tus) -> None:
    upload = begin(site)
    site.set(imports={"loseBytes": {"from": 100, "bytes": 30, "times": 1}})
    tus.send(upload, 0, DATA[:100])
    assert tus.offset(upload) == 70
    tus.send(upload, 70, DATA)
    assert site.sha256() == digest(DATA)


@pytest.mark.parametrize("by", [-5, 7])
def test_wrong_offset(site: MockSite, tus: Tus, by: int) -> None:
    upload = begin(site)
    wrong = {"by": by, "times": 1}
    site.set(imports={"wrongOffset": {"HEAD": wrong, "PATCH": {**wrong, "from": 200}}})
    answers = [tus.patch(upload, at, DATA[at : at + 100]) for at in (0, 100)]
    assert [int(answer.headers["upload-offset"]) for answer in answers] == [100, 200 + by]
    assert [tus.offset(upload) for _ in range(2)] == [200 + by, 200]


def test_slow_answer(site: MockSite, tus: Tus) -> None:
    upload = begin(site)
    site.set(imports={"slowAnswer": {"PATCH": {"seconds": 60, "times": 1}}})
    connection = tus.begin_patch(upload, 0, 10, DATA[:10])
    assert connection.sock is not None
    connection.sock.settimeout(0.3)
    with pytest.raises(TimeoutError):
        connection.getresponse()
    connection.close()
    assert tus.offset(upload) == 10  # it was carried out


def test_lose_answer_to_the_last_slice(site: MockSite, tus: Tus) -> None:
    upload = begin(site)
    site.set(imports={"loseAnswer": {"PATCH": {"from": len(DATA), "times": 1}}})
    assert tus.patch(upload, 0, DATA[:10]).status_code == 204
    with pytest.raises(requests.ConnectionError):
        tus.patch(upload, 10, DATA[10:])
    assert tus.offset(upload) == len(DATA)
    assert state(upload) == {"state": "done"}
    assert site.imports()["byAnswer"]["PATCH lost"] == 1


def test_lose_answer_to_a_creation(site: MockSite) -> None:
    site.set(imports={"loseAnswer": {"POST": {"times": 1}}})
    with pytest.raises(requests.ConnectionError):
        begin(site)
    assert len(site.imports()["open"]) == 1


def test_drip(site: MockSite, tus: Tus) -> None:
    upload = begin(site)
    site.set(imports={"drip": {"bytesPerSecond": 100, "times": 1}})
    connection = tus.begin_patch(upload, 0, len(DATA), DATA)
    wait_until(lambda: 0 < tus.offset(upload) < len(DATA))
    connection.close()
    wait_until(lambda: site.imports()["concurrent"] == 0)
    tus.send(upload, tus.offset(upload), DATA)
    assert site.sha256() == digest(DATA)


def test_hang(site: MockSite, tus: Tus) -> None:
    upload = begin(site)
    site.set(imports={"hang": {"afterBytes": 100, "seconds": 60, "times": 1}})
    connection = tus.begin_patch(upload, 0, len(DATA), DATA)
    wait_until(lambda: tus.offset(upload) == 100)
    assert tus.patch(upload, 100, DATA[100:]).status_code == 423
    connection.close()
    wait_until(lambda: site.imports()["concurrent"] == 0)
    tus.send(upload, 100, DATA)


@pytest.mark.parametrize(
    ("imports", "named"),
    [
        ({"nope": 1}, "nope"),
        ({"refuse": {"PUT": {"code": 503}}}, "PUT"),
        ({"refuse": {"POST": {"code": 200}}}, "code"),
        ({"extensions": ["concatenation"]}, "concatenation"),
    ],
)
def test_control_refuses_what_it_does_not_know_and_names_it(
    site: MockSite, imports: dict[str, Any], named: str
) -> None:
    with pytest.raises(ValueError, match=named):
        site.set(imports=imports)
