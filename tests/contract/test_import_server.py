"""What an import API does on the wire, step by step: the mock providers', and tusd, tus's reference server."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
import requests

from mock_providers.client import MockSite
from tests.contract.tusd import MAX_SIZE, serve_tusd
from tests.integration.mock_server import serve, wait_until
from tests.tus import BYTES, Tus, an_id, checksum, crc64nvme, metadata

DATA = MockSite("", site_id="0" * 24, size=100_000).content


@dataclass
class ImportServer:
    """An import API that takes up to MAX_SIZE bytes."""

    tus: Tus
    user_id: str = field(default_factory=an_id)
    site_id: str = field(default_factory=an_id)

    def __post_init__(self) -> None:
        self.names = {
            "filename": "site.zip",
            "filetype": "application/zip",
            "userId": self.user_id,
            "siteId": self.site_id,
            "restoreId": an_id(),
        }

    def begin(self, length: int = len(DATA)) -> str:
        return self.tus.create(length, **self.names)

    def held(self, upload: str) -> bytes:
        """What the server made of a whole upload."""
        raise NotImplementedError

    def offers(self) -> set[str]:
        return set(self.tus.call("OPTIONS").headers["tus-extension"].split(","))


class MockServer(ImportServer):
    """The mock providers: the bytes are the site's export."""

    def __init__(self, url: str) -> None:
        site = MockSite(url)
        site.set(imports={"maxSize": MAX_SIZE})
        self.site = site
        super().__init__(Tus(f"{site.import_url}?siteId={site.site_id}"), site.user_id, site.site_id)

    def held(self, upload: str) -> bytes:
        assert requests.get(upload, timeout=10).json() == {"state": "done"}
        return requests.get(self.site.export_url, timeout=10).content


class TusdServer(ImportServer):
    """tusd: it gives back what it was sent."""

    def held(self, upload: str) -> bytes:
        return requests.get(upload, timeout=10).content


@pytest.fixture(scope="module", params=["mock", "tusd"])
def url(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, str]]:
    if request.param == "mock":
        with serve() as started:
            yield request.param, started
    else:
        folder = tmp_path_factory.mktemp("tusd") / "uploads"
        folder.mkdir()
        with serve_tusd(request.getfixturevalue("tusd"), folder) as started:
            yield request.param, started


@pytest.fixture
def server(url: tuple[str, str]) -> ImportServer:
    kind, address = url
    return MockServer(address) if kind == "mock" else TusdServer(Tus(address))


def test_options_tells_version_largest_size_and_extensions(server: ImportServer) -> None:
    answer = server.tus.call("OPTIONS", Tus_Resumable="")
    assert answer.status_code in (200, 204)
    assert "1.0.0" in answer.headers["tus-version"].split(",")
    assert int(answer.headers["tus-max-size"]) == MAX_SIZE
    assert {"creation", "termination"} <= server.offers()


def test_a_new_upload_has_a_location_and_no_bytes(server: ImportServer) -> None:
    names = metadata(**server.names)
    answer = server.tus.call("POST", Upload_Length=str(len(DATA)), Upload_Metadata=names)
    assert (answer.status_code, answer.headers["tus-resumable"]) == (201, "1.0.0")
    head = server.tus.call("HEAD", answer.headers["location"])
    assert head.status_code == 200
    assert (head.headers["upload-offset"], head.headers["upload-length"]) == ("0", str(len(DATA)))
    assert head.headers["cache-control"] == "no-store"
    told = set(head.headers.get("upload-metadata", "").split(","))
    assert told == set(names.split(","))


def test_bytes_are_taken_in_slices_and_held_as_they_were_sent(server: ImportServer) -> None:
    upload = server.begin()
    server.tus.send(upload, 0, DATA, slice_size=40_000)
    assert server.tus.offset(upload) == len(DATA)
    assert server.held(upload) == DATA


def test_an_upload_of_many_megabytes(server: ImportServer) -> None:
    data = MockSite("", size=30 << 20).content
    upload = server.begin(len(data))
    server.tus.send(upload, 0, data)
    assert server.held(upload) == data


def test_an_empty_upload_needs_no_patch(server: ImportServer) -> None:
    upload = server.begin(0)
    assert server.tus.offset(upload) == 0
    assert server.held(upload) == b""


def test_an_upload_goes_on_where_a_connection_broke(server: ImportServer) -> None:
    upload = server.begin()
    broken = server.tus.begin_patch(upload, 0, len(DATA), DATA[:30_000])
    broken.close()
    wait_until(lambda: server.tus.call("HEAD", upload).headers.get("upload-offset") == "30000")
    server.tus.send(upload, 30_000, DATA)
    assert server.held(upload) == DATA


@pytest.mark.parametrize("offset", [0, 9_999, 10_001, len(DATA)])
def test_a_slice_at_another_offset_is_409_and_changes_nothing(server: ImportServer, offset: int) -> None:
    upload = server.begin()
    assert server.tus.patch(upload, 0, DATA[:10_000]).status_code == 204
    assert server.tus.patch(upload, offset, DATA[offset : offset + 10]).status_code == 409
    assert server.tus.offset(upload) == 10_000


def test_an_upload_that_is_whole_takes_no_slice_at_an_old_offset(server: ImportServer) -> None:
    upload = server.begin()
    server.tus.send(upload, 0, DATA)
    assert server.tus.patch(upload, 0, DATA).status_code == 409
    assert server.held(upload) == DATA


def test_more_bytes_than_were_named_are_refused(server: ImportServer) -> None:
    upload = server.begin(10)
    assert server.tus.patch(upload, 0, DATA[:11]).status_code == 413
    assert server.tus.offset(upload) == 0


def test_an_upload_that_is_too_large_is_413(server: ImportServer) -> None:
    names = metadata(**server.names)
    answer = server.tus.call("POST", Upload_Length=str(MAX_SIZE + 1), Upload_Metadata=names)
    assert answer.status_code == 413


def test_a_wrong_checksum_is_460_and_the_slice_is_dropped(server: ImportServer) -> None:
    if "checksum" not in server.offers():
        pytest.skip("this server does not offer checksums")
    upload = server.begin()
    assert server.tus.patch(upload, 0, DATA[:10], **checksum("sha1", DATA)).status_code == 460
    assert server.tus.offset(upload) == 0
    assert server.tus.patch(upload, 0, DATA, **checksum("sha1", DATA)).status_code == 204
    assert server.held(upload) == DATA


def test_a_checksum_does_no_harm_where_it_is_not_offered(server: ImportServer) -> None:
    upload = server.begin()
    assert server.tus.patch(upload, 0, DATA, **checksum("sha1", DATA)).status_code == 204


def test_another_content_type_is_no_slice(server: ImportServer) -> None:
    upload = server.begin()
    answer = server.tus.call("PATCH", upload, DATA, Content_Type="application/zip", Upload_Offset="0")
    assert answer.status_code in (400, 415)
    assert server.tus.offset(upload) == 0


def test_a_request_without_the_version_of_tus_is_412(server: ImportServer) -> None:
    upload = server.begin()
    answers = [
        server.tus.call("POST", Upload_Length="5", Tus_Resumable=""),
        server.tus.call("PATCH", upload, DATA, **BYTES, Upload_Offset="0", Tus_Resumable="0.2.2"),
    ]
    assert [answer.status_code for answer in answers] == [412] * 2
    assert server.tus.offset(upload) == 0


def test_a_terminated_upload_is_unknown(server: ImportServer) -> None:
    upload = server.begin()
    assert server.tus.patch(upload, 0, DATA[:10]).status_code == 204
    assert server.tus.call("DELETE", upload).status_code == 204
    assert server.tus.call("HEAD", upload).status_code in (404, 410)
    assert server.tus.patch(upload, 10, DATA[10:]).status_code in (404, 410)


def test_an_upload_that_never_was_is_unknown(server: ImportServer) -> None:
    unknown = server.begin()[:-8] + "00000000"
    assert server.tus.call("HEAD", unknown).status_code in (404, 410)


def test_the_bytes_are_named_by_their_checksum(server: ImportServer) -> None:
    upload = server.tus.create(len(DATA), **server.names, crc64nvme=crc64nvme(DATA))
    server.tus.send(upload, 0, DATA)
    assert server.held(upload) == DATA
