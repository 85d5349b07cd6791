"""What links of every DownloadLinks can be used for, and for how long."""

import secrets
import time
from datetime import timedelta

import pytest
import requests

from sitebackup import bootstrap
from sitebackup.domain.job import StoredObject
from sitebackup.domain.plan import MIB
from sitebackup.ports.storage import DownloadLinks, ObjectStorage
from tests.contract.s3_servers import LIMIT_SECONDS, FakeServer, Server

PART = 5 * MIB
DATA = secrets.token_bytes(2 * PART + 4321)
QUARTER_HOUR = timedelta(minutes=15)


@pytest.fixture
def links(server: Server) -> DownloadLinks:
    return server.links()


def placed(server: Server, storage: ObjectStorage, key: str, data: bytes = DATA) -> StoredObject:
    """An object as it is recorded, under which another one lies at its key."""
    stored = storage.head(key, server.place(key, data))
    assert stored is not None
    server.place(key, b"another")
    return stored


def fetch(url: str, **headers: str) -> requests.Response:
    """As a client does that knows nothing but the link."""
    return requests.get(url, headers=headers, timeout=LIMIT_SECONDS)


def a_link(server: Server, links: DownloadLinks, stored: StoredObject) -> str:
    if isinstance(server, FakeServer):
        pytest.skip(f"{server.name}: its links lead nowhere")
    return links.link(stored, "backup.zip", bootstrap.now() + QUARTER_HOUR).url


def test_a_link_ends_when_it_is_to_and_names_the_version(
    server: Server, storage: ObjectStorage, links: DownloadLinks, key: str
) -> None:
    stored = placed(server, storage, key, b"some")
    until = bootstrap.now() + QUARTER_HOUR
    link = links.link(stored, "backup.zip", until)
    assert until - timedelta(seconds=5) < link.expires_at <= until
    assert link.expires_at.microsecond == 0
    assert str(stored.version_id) in link.url
    assert link.url not in repr(link), "it must not get into a log by accident"


def test_whoever_has_a_link_gets_the_bytes_of_its_version_alone(
    server: Server, storage: ObjectStorage, links: DownloadLinks, key: str
) -> None:
    stored = placed(server, storage, key)
    answer = fetch(a_link(server, links, stored))
    assert answer.status_code == 200
    assert answer.content == DATA
    assert answer.headers["Content-Disposition"] == 'attachment; filename="backup.zip"'
    assert answer.headers["Content-Type"] == "application/zip"
    assert answer.headers["Cache-Control"] == "no-store"
    of_any_format = fetch(a_link(server, links, stored.replace(format="any")))
    assert of_any_format.headers["Content-Type"] == "application/octet-stream"


def test_a_download_that_broke_off_goes_on_where_it_broke(
    server: Server, storage: ObjectStorage, links: DownloadLinks, key: str
) -> None:
    url = a_link(server, links, placed(server, storage, key))
    begun = fetch(url, Range=f"bytes=0-{PART - 1}")
    assert (begun.status_code, begun.content) == (206, DATA[:PART])
    rest = fetch(url, **{"Range": f"bytes={PART}-", "If-Match": begun.headers["ETag"]})
    assert rest.status_code == 206
    assert begun.content + rest.content == DATA
    assert rest.headers["ETag"] == begun.headers["ETag"]
    other = fetch(url, **{"Range": f"bytes={PART}-", "If-Match": '"another"'})
    assert other.status_code == 412


def test_a_link_to_a_version_that_is_gone_gives_nothing_else_that_lies_there(
    server: Server, storage: ObjectStorage, links: DownloadLinks, key: str
) -> None:
    stored = placed(server, storage, key)
    url = a_link(server, links, stored)
    storage.delete_version(key, stored.version_id or "")
    assert fetch(url).status_code == 404
    assert storage.head(key) is not None


def test_a_link_can_be_used_for_nothing_but_what_it_was_signed_for(
    server: Server, storage: ObjectStorage, links: DownloadLinks, key: str
) -> None:
    stored = placed(server, storage, key)
    url = a_link(server, links, stored)
    server.needs("signatures")
    other = storage.head(key)
    assert other is not None
    assert fetch(url.replace(str(stored.version_id), str(other.version_id))).status_code == 403
    assert fetch(url.replace("backup.zip", "another.zip")).status_code == 403
    assert fetch(url.partition("?")[0]).status_code == 403
    assert requests.delete(url, timeout=LIMIT_SECONDS).status_code == 403
    assert fetch(url).content == DATA


def test_a_link_that_has_ended_is_refused(
    server: Server, storage: ObjectStorage, links: DownloadLinks, key: str
) -> None:
    stored = placed(server, storage, key, b"some")
    if isinstance(server, FakeServer):
        pytest.skip(f"{server.name}: its links lead nowhere")
    server.needs("signatures")
    link = links.link(stored, "backup.zip", bootstrap.now() + timedelta(seconds=3))
    assert fetch(link.url).status_code == 200
    answers = {200}
    while 403 not in answers:
        assert bootstrap.now() < link.expires_at + timedelta(seconds=LIMIT_SECONDS), "it does not end"
        answers.add(fetch(link.url).status_code)
        time.sleep(0.1)
    assert answers == {200, 403}
    assert bootstrap.now() > link.expires_at
