"""The mock providers over HTTP, as a real server process: exports, control and statistics."""

import io
import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from mock_providers.client import MockSite
from tests.integration.mock_server import ROOT, get, get_raw, serve, wait_until

USER = "0" * 24
MIB = 1 << 20


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with serve() as url:
        yield url


@pytest.fixture
def site(server: str) -> MockSite:
    return MockSite(server)


@pytest.mark.parametrize("size", [0, 1, 21, 22, 1000, 3 * MIB + 1])
def test_the_body_is_the_archive(site: MockSite, size: int) -> None:
    response = get(site.set(size))
    assert response.status_code == 200
    assert response.content == site.content
    assert response.headers["content-type"] == "application/zip"
    assert response.headers["content-length"] == str(size)
    assert response.headers["accept-ranges"] == "bytes"
    assert response.headers["etag"] == site.archive.etag
    assert "last-modified" in response.headers


def test_default_sizes(server: str) -> None:
    sizes = {name: get(MockSite(server, name)).headers["content-length"] for name in ("site", "db", "tiny")}
    assert sizes == {"site": str(MIB), "db": str(2 * MIB), "tiny": "7"}


def test_head_has_the_headers_of_get_and_no_body(site: MockSite) -> None:
    head = requests.head(site.set().export_url, headers={"Range": "bytes=0-9"}, timeout=10)
    assert head.status_code == 200  # RFC 9110, 14.2: Range is of GET alone
    assert head.content == b""
    assert (site.stats()["bytesSent"], site.stats()["rangeRequests"]) == (0, 0)
    for name in ("content-length", "etag", "last-modified", "content-type", "accept-ranges"):
        assert head.headers[name] == get(site).headers[name]


@pytest.mark.parametrize(
    ("span", "start", "end"),
    [("0-9", 0, 9), ("990-", 990, 999), ("-5", 995, 999), ("5-5000", 5, 999), ("-5000", 0, 999)],
)
def test_a_range(site: MockSite, span: str, start: int, end: int) -> None:
    response = get(site.set(), span)
    assert response.status_code == 206
    assert response.headers["content-range"] == f"bytes {start}-{end}/1000"
    assert response.content == site.content[start : end + 1]
    assert site.stats()["ranges"] == [[start, end]]


@pytest.mark.parametrize("span", ["1000-", "5000-6000", "-0"])
def test_a_range_behind_the_end_is_416(site: MockSite, span: str) -> None:
    response = get(site.set(), span)
    assert (response.status_code, response.headers["content-range"]) == (416, "bytes */1000")


def test_every_range_of_an_empty_export_is_416(site: MockSite) -> None:
    response = get(site.set(0), "0-")
    assert (response.status_code, response.headers["content-range"]) == (416, "bytes */0")


@pytest.mark.parametrize("span", ["9-0", "0-1,5-6", "-", "a-b", "1-2x"])
def test_a_range_that_is_no_single_range_is_ignored(site: MockSite, span: str) -> None:
    assert get(site.set(), span).status_code == 200


def test_if_range(site: MockSite) -> None:
    headers = get(site.set()).headers
    etag = headers["etag"]
    answers = {
        validator: get(site, "0-9", If_Range=validator).status_code
        for validator in (
            etag,
            f"W/{etag}",
            '"other"',
            headers["last-modified"],
            "Thu, 01 Jan 2020 00:00:00 GMT",
        )
    }
    assert list(answers.values()) == [206, 200, 200, 206, 200]


def test_if_match(site: MockSite) -> None:
    etag = get(site.set()).headers["etag"]
    matches = (etag, "*", f'"other", {etag}', '"other"', f"W/{etag}")
    assert [get(site, If_Match=value).status_code for value in matches] == [200, 200, 200, 412, 412]
    assert get(site, "0-9", If_Match=etag).status_code == 206
    assert get(site, "0-9", If_Match='"other"').status_code == 412


class RangeFile(io.RawIOBase):
    """An export as a seekable file."""

    def __init__(self, site: MockSite) -> None:
        self.site, self.at = site, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.at, io.SEEK_END: self.site.size}[whence]
        return self.at

    def readinto(self, buffer: Any) -> int:
        if self.at >= self.site.size:
            return 0
        response = get(self.site, f"{self.at}-{self.at + len(buffer) - 1}")
        assert response.status_code == 206
        buffer[: len(response.content)] = response.content
        self.at += len(response.content)
        return len(response.content)


def test_a_zip_beyond_4_gib_opens_through_ranges(site: MockSite) -> None:
    site.set((5 << 30) + 12345)
    with zipfile.ZipFile(io.BufferedReader(RangeFile(site), MIB)) as opened:
        last = opened.infolist()[-1]
        assert last.header_offset > 4 << 30
        with opened.open(last) as stream:  # zipfile checks the CRC at the end of the entry
            assert sum(len(chunk) for chunk in iter(lambda: stream.read(MIB), b"")) == last.file_size > 0
    assert site.stats()["bytesSent"] < 100 * MIB


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("", "userId"),
        (f"userId={USER}", "siteId"),
        (f"userId={USER}1&siteId={USER}", "userId"),
        (f"userId={USER}&siteId={'g' * 24}", "siteId"),
        (f"userId={USER}&siteId={USER}&chunkSize=0", "chunkSize"),
        (f"userId={USER}&siteId={USER}&chunkSize=67108865", "chunkSize"),
        (f"userId={USER}&siteId={USER}&chunkSize=1.5", "chunkSize"),
    ],
)
def test_a_bad_field_is_named(server: str, query: str, named: str) -> None:
    response = requests.get(f"{server}/site/export?{query}", timeout=10)
    assert (response.status_code, response.json()["field"]) == (400, named)


def test_a_bad_provider_name_is_refused(server: str) -> None:
    response = requests.get(f"{server}/SITE/export?userId={USER}&siteId={USER}", timeout=10)
    assert (response.status_code, response.json()["field"]) == (400, "provider")


@pytest.mark.parametrize("chunk_size", [1, 5 * MIB, 64 * MIB])
def test_chunk_size_does_not_change_the_body(site: MockSite, chunk_size: int) -> None:
    site.set(3 * MIB)
    assert requests.get(f"{site.export_url}&chunkSize={chunk_size}", timeout=10).content == site.content


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ('{"siez": 1}', "siez"),
        ('{"faults": {"nope": true}}', "nope"),
        ('{"faults": {"hang": {"afterBytes": 1, "second": 2}}}', "second"),
        ('{"size": -1}', "$.size"),
        ('{"size": "1"}', "$.size"),
        ('{"faults": {"status": {"code": 200}}}', "$.faults.status.code"),
        ('{"faults": {"status": {"code": 503, "retryAfter": "a\\r\\nb"}}}', "$.faults.status.retryAfter"),
        ("{", "truncated"),
        ("{]", "malformed"),
        ("[]", "object"),
        ('{"requireToken": "' + "x" * 70_000 + '"}', "65536"),
    ],
)
def test_control_refuses_what_it_does_not_know_and_names_it(site: MockSite, body: str, named: str) -> None:
    site.set(123)
    response = requests.put(site.control_url, data=body, timeout=10)
    assert response.status_code == 400
    assert named in response.json()["detail"]
    assert requests.get(site.control_url, timeout=10).json()["size"] == 123


def test_control_shows_what_is_set_and_delete_resets_it(site: MockSite) -> None:
    site.set(500, 3, status={"code": 503, "times": 2}, noRange=True)
    get(site)
    shown = requests.get(site.control_url, timeout=10).json()
    expected_faults = {"status": {"times": 1, "code": 503}, "noRange": True}
    assert shown == {
        "size": 500,
        "revision": 3,
        "requireToken": None,
        "faults": expected_faults,
        "imports": {},
    }
    reset: dict[str, object] = {"size": MIB, "revision": 1, "requireToken": None, "faults": {}, "imports": {}}
    assert requests.delete(site.control_url, timeout=10).json() == reset
    assert get(site, "0-9").status_code == 206


def test_a_revision_is_other_content_under_another_etag(site: MockSite) -> None:
    first = get(site.set(revision=1))
    second = get(site.set(revision=2))
    assert first.content != second.content == site.content
    assert first.headers["etag"] != second.headers["etag"]
    assert first.headers["last-modified"] != second.headers["last-modified"]


def test_statistics(site: MockSite) -> None:
    site.set(1000, status={"code": 503, "times": 1})
    get(site)
    get(site)
    get(site, "0-9")
    get(site, "-10")
    get(site, "2000-")
    assert site.stats() == {
        "requests": 5,
        "bytesSent": 1020,
        "rangeRequests": 3,
        "concurrent": 0,
        "maxConcurrent": 1,
        "byStatus": {"200": 1, "206": 2, "416": 1, "503": 1},
        "ranges": [[0, 9], [990, 999]],
    }
    requests.delete(site.stats_url, timeout=10)
    assert (site.stats()["requests"], site.stats()["ranges"]) == (0, [])


def test_statistics_count_what_is_under_way(site: MockSite) -> None:
    site.set(1000, hang={"afterBytes": 10, "seconds": 60})
    responses = [get_raw(site) for _ in range(3)]
    wait_until(lambda: site.stats()["bytesSent"] == 30)
    assert (site.stats()["concurrent"], site.stats()["maxConcurrent"]) == (3, 3)
    for response in responses:
        response.close()
    wait_until(lambda: site.stats()["concurrent"] == 0)  # a client that has left is not waited for
    assert site.stats()["bytesSent"] == 30


def test_a_client_that_does_not_read_stops_the_server_and_one_that_left_ends_it(site: MockSite) -> None:
    site.set(1 << 40)
    response = get_raw(site)
    wait_until(lambda: 0 < site.stats()["bytesSent"] == site.stats()["bytesSent"])  # it waits for the client
    assert site.stats()["concurrent"] == 1
    response.close()
    wait_until(lambda: site.stats()["concurrent"] == 0)
    assert site.stats()["bytesSent"] < 100 * MIB  # what the buffers of the connection took


def test_a_busy_download_does_not_keep_others_waiting(server: str) -> None:
    # gzip is slower than the client: the connection never asks the server to wait
    big, small = MockSite(server).set(4 << 30, gzip="always"), MockSite(server).set(1000)
    response = get_raw(big)
    stop = threading.Event()

    def drain() -> None:
        buffer = bytearray(MIB)
        while not stop.is_set() and response.readinto(buffer):
            pass

    thread = threading.Thread(target=drain)
    thread.start()
    try:
        for _ in range(3):
            assert get(small).content == small.content
        assert big.stats()["concurrent"] == 1
    finally:
        stop.set()
        thread.join(30)
        response.close()


def test_a_port_in_use_ends_the_server_with_a_sentence(server: str) -> None:
    port = server.rpartition(":")[2]
    command = [sys.executable, "-m", "mock_providers", "--port", port]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode != 0
    assert "address already in use" in ended.stderr


def test_a_wrong_default_size_is_named() -> None:
    environment = {**os.environ, "MOCK_PROVIDERS_DEFAULT_SIZE": "site=1MiB,db=lots"}
    command = [sys.executable, "-m", "mock_providers", "--port", "0"]
    ended = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=30, check=False
    )
    assert ended.returncode == 2
    assert "'db=lots'" in ended.stderr
