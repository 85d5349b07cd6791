"""The import API of the mock providers, as a real server process: tus, and what the export then gives."""

import hashlib
import io
import subprocess
import sys
import threading
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tusclient.client import TusClient

from mock_providers.client import MockSite
from tests.integration.mock_server import ROOT, get, serve, wait_until
from tests.tus import BYTES, Tus, an_id, checksum, crc64nvme, metadata

MIB = 1 << 20
DATA = bytes(range(256)) * 4


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


def names(site: MockSite, data: bytes = DATA, **others: str) -> dict[str, str]:
    """The metadata of a restore of these bytes."""
    return {
        "filename": f"{site.provider}.zip",
        "filetype": "application/zip",
        "userId": site.user_id,
        "siteId": site.site_id,
        "jobId": an_id(),
        "restoreId": an_id(),
        "crc64nvme": crc64nvme(data),
    } | others


def begin(site: MockSite, data: bytes = DATA, **others: str) -> str:
    return Tus(site.import_url).create(len(data), **names(site, data, **others))


def state(upload: str) -> dict[str, str]:
    answer = requests.get(upload, headers={"Accept": "application/json"}, timeout=10)
    assert answer.status_code == 200, answer.text
    told: dict[str, str] = answer.json()
    return told


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# What it offers


@pytest.mark.parametrize("query", ["", "?siteId={site_id}"])
def test_options_says_what_is_offered(site: MockSite, query: str) -> None:
    answer = requests.options(site.import_url + query.format(site_id=site.site_id), timeout=10)
    assert answer.status_code == 204
    assert answer.headers["tus-version"] == "1.0.0"
    assert answer.headers["tus-extension"] == "creation,checksum,termination"
    assert answer.headers["tus-checksum-algorithm"] == "sha1,sha256,md5"
    assert int(answer.headers["tus-max-size"]) == 16 << 30


def test_options_says_what_is_set_for_the_site(site: MockSite) -> None:
    site.set(imports={"maxSize": 77, "extensions": ["creation"]})
    headers = requests.options(f"{site.import_url}?siteId={site.site_id}", timeout=10).headers
    assert (headers["tus-max-size"], headers["tus-extension"]) == ("77", "creation")
    assert "tus-checksum-algorithm" not in headers


def test_without_the_creation_extension_nothing_is_begun(site: MockSite, tus: Tus) -> None:
    site.set(imports={"extensions": []})
    assert "tus-extension" not in tus.call("OPTIONS", f"{tus.url}?siteId={site.site_id}").headers
    answer = tus.call("POST", Upload_Length="5", Upload_Metadata=metadata(**names(site)))
    assert (answer.status_code, answer.headers["allow"]) == (405, "OPTIONS, POST")


# Creation


@pytest.mark.parametrize("relative", [False, True])
def test_the_location_is_absolute_or_relative(site: MockSite, tus: Tus, relative: bool) -> None:
    site.set(imports={"relativeLocation": relative})
    answer = tus.call("POST", Upload_Length="5", Upload_Metadata=metadata(**names(site)))
    assert (answer.status_code, answer.headers["tus-resumable"]) == (201, "1.0.0")
    assert answer.headers["location"].startswith("/site/import/" if relative else f"{site.url}/site/import/")


def test_the_location_can_be_wrong(site: MockSite, tus: Tus) -> None:
    site.set(imports={"wrongLocation": {"location": "http://elsewhere.invalid/1", "times": 1}})
    sent = {"Upload_Length": "5", "Upload_Metadata": metadata(**names(site))}
    assert tus.call("POST", **sent).headers["location"] == "http://elsewhere.invalid/1"
    assert tus.call("POST", **sent).headers["location"].startswith(site.url)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"Upload_Length": ""}, "upload-length"),
        ({"Upload_Length": "-1"}, "upload-length"),
        ({"Upload_Length": "1e3"}, "upload-length"),
        ({"Upload_Metadata": ""}, "siteId"),
        ({"Upload_Metadata": "siteId a-b"}, "Upload-Metadata"),
        ({"siteId": "x"}, "siteId"),
        ({"userId": "x"}, "userId"),
        ({"restoreId": "x"}, "restoreId"),
        ({"jobId": "x"}, "jobId"),
        ({"crc64nvme": "AAAA"}, "crc64nvme"),
        ({"crc64nvme": "not base64"}, "crc64nvme"),
    ],
)
def test_a_bad_field_is_named(site: MockSite, tus: Tus, changed: dict[str, str], named: str) -> None:
    values = names(site) | {name: value for name, value in changed.items() if "_" not in name}
    sent = {"Upload_Length": "5", "Upload_Metadata": metadata(**values)}
    sent |= {name: value for name, value in changed.items() if "_" in name}
    answer = tus.call("POST", **sent)
    assert (answer.status_code, answer.json()["field"]) == (400, named)


def test_the_ids_may_stand_in_the_url_and_must_be_those_of_the_metadata(site: MockSite) -> None:
    query = f"?userId={site.user_id}&siteId={site.site_id}"
    assert Tus(site.import_url + query).call("POST", Upload_Length="5").status_code == 201
    other = metadata(**names(site, siteId=an_id()))
    answer = Tus(site.import_url + query).call("POST", Upload_Length="5", Upload_Metadata=other)
    assert (answer.status_code, answer.json()["field"]) == (400, "siteId")


def test_an_upload_that_is_too_large_is_413(site: MockSite, tus: Tus) -> None:
    site.set(imports={"maxSize": 10})
    sizes = ("10", "11")
    answers = [tus.call("POST", Upload_Length=n, Upload_Metadata=metadata(**names(site))) for n in sizes]
    assert [answer.status_code for answer in answers] == [201, 413]


def test_all_imports_together_are_bounded_and_make_room_when_they_go() -> None:
    with serve("--import-limit", "3KiB") as url:
        first, second = MockSite(url), MockSite(url)
        tus = Tus(first.import_url)
        upload = begin(first, bytes(2048))
        sent = {"Upload_Length": "2048", "Upload_Metadata": metadata(**names(second))}
        assert tus.call("POST", **sent).status_code == 507
        tus.call("DELETE", upload)
        assert tus.call("POST", **sent).status_code == 201
        assert tus.call("POST", Upload_Length="3073", Upload_Metadata="").status_code == 400
        sent["Upload_Length"] = "3073"
        assert tus.call("POST", **sent).status_code == 413
        requests.delete(second.control_url, timeout=10)
        begin(first, bytes(3072))


def test_a_wrong_import_limit_is_named() -> None:
    command = [sys.executable, "-m", "mock_providers", "--import-limit", "lots"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 2
    assert "'lots'" in ended.stderr


# The rules of every request


@pytest.mark.parametrize("version", ["", "0.2.2"])
def test_another_version_of_tus_is_412_and_changes_nothing(site: MockSite, tus: Tus, version: str) -> None:
    upload = begin(site)
    for method, url in (("POST", tus.url), ("HEAD", upload), ("PATCH", upload), ("DELETE", upload)):
        answer = tus.call(method, url, **BYTES, Upload_Offset="0", Tus_Resumable=version)
        assert (answer.status_code, answer.headers["tus-version"]) == (412, "1.0.0")
    assert tus.offset(upload) == 0


def test_a_token_is_required_as_for_the_export(site: MockSite) -> None:
    site.set(token="secret-1")
    for headers, status in (
        ({}, 401),
        ({"Authorization": "Bearer other"}, 401),
        ({"Authorization": "Bearer secret-1"}, 201),
    ):
        answer = Tus(site.import_url, headers).call(
            "POST", Upload_Length="5", Upload_Metadata=metadata(**names(site))
        )
        assert answer.status_code == status
    upload = answer.headers["location"]
    allowed = Tus(site.import_url, {"Authorization": "Bearer secret-1"})
    assert Tus(site.import_url).call("HEAD", upload).status_code == 401
    assert requests.get(upload, timeout=10).status_code == 401
    assert allowed.offset(upload) == 0


def test_a_method_may_come_in_a_header(site: MockSite, tus: Tus) -> None:
    upload = begin(site)
    sent = BYTES | {"Upload-Offset": "0", "X-HTTP-Method-Override": "PATCH"}
    assert tus.call("POST", upload, DATA, **sent).status_code == 204
    assert state(upload) == {"state": "done"}


def test_an_unknown_upload_is_404(site: MockSite, tus: Tus) -> None:
    unknown = f"{site.import_url}/{site.site_id}/{'0' * 32}"
    assert [tus.call(method, unknown).status_code for method in ("HEAD", "PATCH", "GET", "DELETE")] == [
        404
    ] * 4


def test_a_method_that_does_not_exist_is_405(site: MockSite, tus: Tus) -> None:
    assert tus.call("PUT", begin(site)).status_code == 405
    assert tus.call("PATCH", f"{tus.url}?siteId={site.site_id}").status_code == 405


# Bytes


def test_head_says_how_far_it_is(site: MockSite, tus: Tus) -> None:
    values = names(site)
    upload = tus.create(len(DATA), **values)
    tus.patch(upload, 0, DATA[:100])
    headers = tus.call("HEAD", upload).headers
    assert (headers["upload-offset"], headers["upload-length"]) == ("100", str(len(DATA)))
    assert headers["cache-control"] == "no-store"
    assert headers["upload-metadata"] == metadata(**values)


def test_the_bytes_must_begin_at_the_offset(site: MockSite, tus: Tus) -> None:
    upload = begin(site)
    answers = [tus.patch(upload, at, DATA[at : at + 10]) for at in (1, 0, 0, 11, 10)]
    assert [answer.status_code for answer in answers] == [409, 204, 409, 409, 204]
    assert tus.offset(upload) == 20


@pytest.mark.parametrize("offset", ["", "-1", "x"])
def test_an_offset_that_is_no_number_is_400(site: MockSite, tus: Tus, offset: str) -> None:
    answer = tus.call("PATCH", begin(site), DATA, **BYTES, Upload_Offset=offset)
    assert (answer.status_code, answer.json()["field"]) == (400, "upload-offset")


def test_another_content_type_is_415(site: MockSite, tus: Tus) -> None:
    upload = begin(site)
    assert tus.patch(upload, 0, DATA, **{"Content-Type": "application/zip"}).status_code == 415
    assert tus.offset(upload) == 0


def test_more_bytes_than_were_named_are_413_and_none_is_kept(site: MockSite, tus: Tus) -> None:
    upload = begin(site)
    assert tus.patch(upload, 0, DATA + b"x").status_code == 413

    def chunked() -> Iterator[bytes]:
        yield DATA
        yield b"x"

    sent = {"Tus-Resumable": "1.0.0", "Upload-Offset": "0"} | BYTES
    assert requests.patch(upload, data=chunked(), headers=sent, timeout=10).status_code == 413
    assert tus.offset(upload) == 0
    tus.send(upload, 0, DATA)


@pytest.mark.parametrize("algorithm", ["sha1", "sha256", "md5"])
def test_a_wrong_checksum_is_460_and_the_slice_is_dropped(site: MockSite, tus: Tus, algorithm: str) -> None:
    upload = begin(site)
    assert tus.patch(upload, 0, DATA[:10], **checksum(algorithm, DATA[:10])).status_code == 204
    assert tus.patch(upload, 10, DATA[10:], **checksum(algorithm, DATA)).status_code == 460
    assert tus.offset(upload) == 10
    assert tus.patch(upload, 10, DATA[10:], **checksum(algorithm, DATA[10:])).status_code == 204
    assert state(upload) == {"state": "done"}


def test_zeros_where_wrong_bytes_were_dropped_are_zeros(site: MockSite, tus: Tus) -> None:
    upload = begin(site, bytes(1000))
    assert tus.patch(upload, 0, b"x" * 1000, **checksum("sha1", b"")).status_code == 460
    tus.send(upload, 0, bytes(1000))
    assert get(site).content == bytes(1000)


@pytest.mark.parametrize("value", ["crc32 AAAA", "sha1 ?", "sha1"])
def test_a_checksum_that_can_not_be_read_is_refused(site: MockSite, tus: Tus, value: str) -> None:
    upload = begin(site)
    assert tus.patch(upload, 0, DATA, Upload_Checksum=value).status_code in (400, 460)
    assert tus.offset(upload) == 0


def test_a_checksum_is_not_looked_at_where_that_is_not_offered(site: MockSite, tus: Tus) -> None:
    site.set(imports={"extensions": ["creation"]})
    upload = begin(site)
    assert tus.patch(upload, 0, DATA, **checksum("sha1", b"")).status_code == 204


def test_one_patch_at_a_time_writes(site: MockSite, tus: Tus) -> None:
    upload = begin(site)
    first = tus.begin_patch(upload, 0, len(DATA), DATA[:10])
    wait_until(lambda: tus.offset(upload) == 10)
    assert tus.patch(upload, 10, DATA[10:]).status_code == 423
    assert tus.call("DELETE", upload).status_code == 423
    assert site.imports()["concurrent"] == 1
    first.send(DATA[10:])
    assert first.getresponse().status == 204
    assert state(upload) == {"state": "done"}
    assert site.imports()["maxConcurrent"] == 2


def test_a_patch_that_breaks_keeps_the_bytes_that_came_and_the_lock_goes(site: MockSite, tus: Tus) -> None:
    upload = begin(site)
    tus.begin_patch(upload, 0, len(DATA), DATA[:300]).close()
    wait_until(lambda: site.imports()["concurrent"] == 0)
    assert tus.offset(upload) == 300
    tus.send(upload, 300, DATA)
    assert get(site).content == DATA


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(0, 199), max_size=4), by_server=st.booleans())
def test_an_upload_goes_on_at_any_byte(server: str, cuts: list[int], by_server: bool) -> None:
    site = MockSite(server)
    tus, data = Tus(site.import_url), site.archive.read(0, 200)
    upload = begin(site, data)
    for cut in sorted(cuts):
        offset = tus.offset(upload)
        if by_server:
            site.set(None, imports={"cutAt": {"bytes": cut, "times": 1}})
            with pytest.raises(requests.ConnectionError):
                tus.patch(upload, offset, data[offset:])
        else:
            tus.begin_patch(upload, offset, len(data) - offset, data[offset:cut]).close()
            wait_until(lambda: site.imports()["concurrent"] == 0)
        assert tus.offset(upload) == cut
    tus.send(upload, tus.offset(upload), data)
    assert state(upload) == {"state": "done"}
    assert site.sha256() == digest(data)
    assert site.imports()["bytesReceived"] == len(data)


def test_an_upload_can_be_terminated(site: MockSite, tus: Tus) -> None:
    upload = begin(site)
    assert len(site.imports()["open"]) == 1
    assert tus.call("DELETE", upload).status_code == 204
    assert tus.call("HEAD", upload).status_code == 404
    assert site.imports()["open"] == []


def test_an_upload_stays_where_termination_is_not_offered(site: MockSite, tus: Tus) -> None:
    site.set(imports={"extensions": ["creation"]})
    upload = begin(site)
    assert tus.call("DELETE", upload).status_code == 405
    assert tus.offset(upload) == 0


# The import, and what the export then gives


@pytest.mark.parametrize("size", [22, 1000, 30 * MIB])
def test_a_round_trip_gives_the_same_bytes(site: MockSite, tus: Tus, size: int) -> None:
    exported = get(site.set(size))
    before = site.sha256()
    assert before == digest(exported.content) == site.archive.sha256()
    site.set(size + 5, revision=2)
    assert site.sha256() != before
    upload = begin(site, exported.content)
    tus.send(upload, 0, exported.content)
    assert state(upload) == {"state": "done"}
    assert site.sha256() == before
    again = get(site)
    assert again.content == exported.content
    assert again.headers["content-length"] == str(size)
    assert again.headers["etag"].startswith('"')
    assert site.imports()["bytesReceived"] == size


def test_an_empty_upload_is_whole_at_once(site: MockSite) -> None:
    assert state(begin(site, b"")) == {"state": "done"}
    assert get(site).content == b""


def test_what_was_imported_is_exported_by_ranges_under_a_new_etag_and_date(site: MockSite, tus: Tus) -> None:
    before = get(site.set()).headers
    tus.send(begin(site), 0, DATA)
    part = get(site, "5-9")
    assert (part.status_code, part.content) == (206, DATA[5:10])
    assert part.headers["content-range"] == f"bytes 5-9/{len(DATA)}"
    assert part.headers["etag"] != before["etag"]
    assert part.headers["last-modified"] != before["last-modified"]
    assert get(site, "0-9", If_Match=before["etag"]).status_code == 412
    assert get(site, "0-9", If_Match=part.headers["etag"]).status_code == 206
    assert get(site, f"{len(DATA)}-").headers["content-range"] == f"bytes */{len(DATA)}"


def test_what_was_imported_shows_the_faults_of_the_export(site: MockSite, tus: Tus) -> None:
    site.set(noRange=True, noLength=True)
    tus.send(begin(site), 0, DATA)
    stream = get(site, "0-9")
    assert (stream.status_code, stream.content) == (200, DATA)
    assert "content-length" not in stream.headers
    assert get(site.set(None), "0-9").content == DATA[:10]  # the faults end, the content stays
    changing = site.set(None, changeContentAfter=1)
    assert get(changing).content == DATA
    assert get(changing).content != DATA


def test_what_was_imported_is_the_users_alone(site: MockSite, tus: Tus) -> None:
    site.set()
    tus.send(begin(site), 0, DATA)
    other = MockSite(site.url, site.provider, an_id(), site.site_id)
    assert get(other).content == other.content
    assert other.sha256() == digest(other.content)


@pytest.mark.parametrize("changed", ["size", "revision", "DELETE"])
def test_a_site_that_is_changed_has_its_new_content(site: MockSite, tus: Tus, changed: str) -> None:
    tus.send(begin(site), 0, DATA)
    if changed == "DELETE":
        requests.delete(site.control_url, timeout=10)
    else:
        requests.put(site.control_url, json={changed: 3}, timeout=10)
    assert site.sha256() != digest(DATA)


def test_an_export_that_is_being_read_keeps_its_content(site: MockSite, tus: Tus) -> None:
    data = MockSite(site.url, size=8 * MIB).content
    tus.send(begin(site, data), 0, data)
    with requests.get(site.export_url, stream=True, timeout=10) as response:
        start = response.raw.read(1000)
        tus.send(begin(site), 0, DATA)
        assert start + response.raw.read() == data
    assert site.sha256() == digest(DATA)


def test_one_restore_is_imported_once(site: MockSite, tus: Tus) -> None:
    restore = an_id()
    tus.send(begin(site, restoreId=restore), 0, DATA)
    site.set()  # the owner goes on working
    upload = begin(site, restoreId=restore)
    tus.send(upload, 0, DATA)
    assert state(upload) == {"state": "done"}
    counts = site.imports()
    assert (counts["creations"], counts["imported"], counts["repeated"]) == (2, 1, 1)
    assert site.sha256() == digest(site.content)
    tus.send(begin(site), 0, DATA)  # another restore
    assert site.imports()["imported"] == 2


def test_an_import_takes_a_while_if_asked(site: MockSite, tus: Tus) -> None:
    site.set(imports={"importSeconds": 0.3})
    upload = begin(site)
    tus.send(upload, 0, DATA)
    assert state(upload) == {"state": "processing"}
    assert site.sha256() != digest(DATA)
    assert [each["state"] for each in site.imports()["open"]] == ["processing"]
    wait_until(lambda: state(upload) == {"state": "done"})
    assert site.sha256() == digest(DATA)


def test_an_import_goes_on_when_its_upload_is_terminated(site: MockSite, tus: Tus) -> None:
    site.set(imports={"importSeconds": 0.2})
    upload = begin(site)
    tus.send(upload, 0, DATA)
    assert tus.call("DELETE", upload).status_code == 204
    wait_until(lambda: site.imports()["imported"] == 1)
    assert site.sha256() == digest(DATA)


def test_an_import_can_fail_and_another_upload_of_the_same_restore_is_imported(
    site: MockSite, tus: Tus
) -> None:
    site.set(imports={"importFails": {"message": "the disk is full", "times": 1}})
    restore = an_id()
    first, second = begin(site, restoreId=restore), begin(site, restoreId=restore)
    tus.send(first, 0, DATA)
    assert state(first) == {"state": "failed", "message": "the disk is full"}
    assert (site.imports()["failed"], site.sha256()) == (1, digest(site.content))
    tus.send(second, 0, DATA)
    assert state(second) == {"state": "done"}
    assert site.imports()["imported"] == 1


def test_bytes_that_are_not_those_of_the_metadata_are_not_imported(site: MockSite, tus: Tus) -> None:
    upload = begin(site, DATA)
    tus.send(upload, 0, DATA[:-1] + b"x")
    told = state(upload)
    assert told["state"] == "failed"
    assert "CRC64NVME" in told["message"]


def test_the_state_is_json_and_before_the_last_byte_nothing_has_become_of_it(
    site: MockSite, tus: Tus
) -> None:
    upload = begin(site)
    assert state(upload) == {"state": "processing"}
    assert requests.get(upload, headers={"Accept": "text/html"}, timeout=10).status_code == 406


def test_the_counts(site: MockSite, tus: Tus) -> None:
    restore = an_id()
    upload = begin(site, restoreId=restore)
    tus.patch(upload, 0, DATA[:100])
    tus.patch(upload, 0, DATA[:100])
    counts = site.imports()
    opened = counts.pop("open")
    assert counts == {
        "requests": 3,
        "creations": 1,
        "patches": 1,
        "bytesReceived": 100,
        "concurrent": 0,
        "maxConcurrent": 1,
        "imported": 0,
        "repeated": 0,
        "failed": 0,
        "byAnswer": {"PATCH 204": 1, "PATCH 409": 1, "POST 201": 1},
    }
    assert opened == [
        {
            "id": urlsplit(upload).path.rpartition("/")[2],
            "restoreId": restore,
            "offset": 100,
            "length": len(DATA),
            "state": "receiving",
        }
    ]
    url = f"{site.url}/imports/{site.provider}/{site.site_id}"
    assert requests.delete(url, timeout=10).json()["creations"] == 0


# A client that others wrote


@pytest.mark.parametrize("checksums", [False, True])
def test_another_client_uploads_and_goes_on_after_a_cut(site: MockSite, checksums: bool) -> None:
    data = MockSite(site.url, size=MIB).content
    site.set(imports={"cutAt": {"bytes": 500_000, "times": 1}, "relativeLocation": True})
    uploader = TusClient(site.import_url).uploader(
        file_stream=io.BytesIO(data),
        chunk_size=300_000,
        metadata=names(site, data),
        retries=1,
        retry_delay=0,
        upload_checksum=checksums,
    )
    uploader.upload()
    assert uploader.url
    assert state(uploader.url) == {"state": "done"}
    assert site.sha256() == digest(data)
    assert site.imports()["bytesReceived"] == MIB


def test_a_large_import_does_not_keep_others_waiting(server: str) -> None:
    large, small = MockSite(server), MockSite(server).set()
    tus, data = Tus(large.import_url), bytes(256 * MIB)
    upload = begin(large, data)
    thread = threading.Thread(target=tus.send, args=(upload, 0, data, len(data)))
    thread.start()
    for _ in range(5):
        assert get(small).content == small.content
    thread.join(60)
    assert state(upload) == {"state": "done"}
