"""Downloads through the HTTP API: a plain client gets the bytes, and the link stays between it and the service."""

from typing import Any
from urllib.parse import parse_qs, urlsplit

import requests
from awscrt import checksums
from pymongo import MongoClient

from mock_providers.client import MockSite
from sitebackup.domain.checksum import encode_crc
from tests.e2e.client import Json
from tests.e2e.stack import HELD, PART, Stack

ID = "0123456789abcdef01234567"


def a_backup(stack: Stack) -> tuple[MockSite, Json]:
    """A done backup of three parts."""
    site = stack.site(size=2 * PART + 4321)
    return site, stack.api.done(stack.api.create(site))


def post(stack: Stack, job: Json, provider: str = "site") -> requests.Response:
    return stack.api.post(f"/backup/{job['jobId']}/download", {"provider": provider})


def get(stack: Stack, job: Json, provider: str = "site", follow: bool = False) -> requests.Response:
    path = f"/backup/{job['jobId']}/providers/{provider}/download"
    return stack.api.request("GET", path, allow_redirects=follow)


def check(body: bytes, site: MockSite, stored: Json) -> None:
    assert body == site.archive.read(0, site.size)
    assert len(body) == stored["size"]
    assert encode_crc(checksums.crc64nvme(body)) == stored["checksumCRC64NVME"]


def test_a_link_gives_a_plain_client_the_bytes_that_were_backed_up(stack: Stack) -> None:
    site, job = a_backup(stack)
    answer = post(stack, job)
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    download, stored = answer.json(), job["tasks"]["site"]["object"]
    assert download.keys() == {"url", "expiresAt", "fileName", "size", "checksumCRC64NVME", "versionId"}
    assert {name: download[name] for name in ("size", "checksumCRC64NVME", "versionId")} == {
        name: stored[name] for name in ("size", "checksumCRC64NVME", "versionId")
    }
    fetched = requests.get(download["url"], timeout=20)
    check(fetched.content, site, download)
    assert download["fileName"] in fetched.headers["content-disposition"]


def test_a_redirect_leads_a_plain_client_to_the_bytes_that_were_backed_up(stack: Stack) -> None:
    site, job = a_backup(stack)
    answer = get(stack, job)
    assert (answer.status_code, answer.content) == (302, b"")
    assert answer.headers["cache-control"] == "no-store"
    assert "X-Amz-Signature" in answer.headers["location"]
    check(get(stack, job, follow=True).content, site, job["tasks"]["site"]["object"])


def test_what_can_not_be_downloaded_says_why(stack: Stack) -> None:
    running = stack.api.create(stack.site(**HELD))
    failed = stack.api.finish(stack.api.create(stack.site(status={"code": 404})))
    done = stack.api.done(stack.api.create(stack.site()))
    for ask in (post, get):
        for job, why in ((running, "it is "), (failed, "it is failed")):
            answer = ask(stack, job)
            assert (answer.status_code, answer.json()["type"]) == (409, "state-forbids")
            assert why in answer.json()["detail"]
        for job, provider in (({"jobId": ID}, "site"), (done, "db")):
            answer = ask(stack, job, provider)
            assert (answer.status_code, answer.json()["type"]) == (404, "not-found")
    stack.api.change(running, "cancel")


def test_a_deletion_is_accepted_while_a_link_is_valid_and_the_data_stays(stack: Stack) -> None:
    site, job = a_backup(stack)
    url = post(stack, job).json()["url"]
    deleted = stack.api.request("DELETE", f"/backup/{job['jobId']}")
    assert deleted.status_code == 202

    def decision() -> Json:
        (found,) = stack.api.get(f"/sites/{site.site_id}/retention?userId={site.user_id}").json()["backups"]
        return dict(found)

    pinned = stack.api.wait(job, "the grace is over", lambda _: decision()["reason"] == "pinned")
    assert pinned["status"] == "done"
    assert decision()["until"] > deleted.json()["deleteAt"], "times compare as text"
    assert requests.get(url, timeout=20).content == site.archive.read(0, site.size)
    assert "its data is being removed" in post(stack, job).json()["detail"]


def test_a_link_stands_in_no_log_and_in_no_document(stack: Stack) -> None:
    _, job = a_backup(stack)
    since = stack.run.log_size()
    urls = [post(stack, job).json()["url"], get(stack, job).headers["location"]]
    assert requests.get(urls[0], timeout=20).status_code == 200
    secrets = [parse_qs(urlsplit(url).query)["X-Amz-Signature"][0] for url in urls]
    given = [line for line in stack.run.written(since) if line.get("message") == "download link given"]
    assert [line["jobId"] for line in given] == [job["jobId"]] * 2, "the log is not the one to look into"
    log = (stack.run.folder / "output").read_text(errors="replace")
    with MongoClient[dict[str, Any]](stack.mongo.address) as client:
        names = [name for name in client.list_database_names() if name not in ("admin", "config", "local")]
        stored = [
            str(document)
            for name in names
            for collection in client[name].list_collection_names()
            for document in client[name][collection].find()
        ]
    assert any(job["jobId"] in document for document in stored)
    for text in (log, *stored):
        assert "X-Amz-Signature" not in text
        assert not [secret for secret in secrets if secret in text]
