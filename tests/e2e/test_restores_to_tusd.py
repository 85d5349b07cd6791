"""A restore into tusd, the reference server of tus, whose import API nobody here wrote."""

import hashlib
import json
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path

import pytest

from mock_providers.client import MockSite
from tests.builders import LOOPBACK
from tests.contract.tusd import MAX_SIZE, build_tusd, serve_tusd
from tests.e2e.client import Json
from tests.e2e.stack import PART, SLICE, Stack
from tests.integration.mock_server import serve


@pytest.fixture(scope="module")
def uploads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where tusd keeps what it took."""
    folder = tmp_path_factory.mktemp("tusd") / "uploads"
    folder.mkdir()
    return folder


@pytest.fixture(scope="module")
def exports() -> Iterator[str]:
    with serve() as url:
        yield url


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, uploads: Path, exports: str) -> Iterator[Stack]:
    with serve_tusd(build_tusd(), uploads) as tusd:
        query = "userId={userId}&siteId={siteId}&chunkSize={chunkSize}"
        providers: list[Json] = [
            {
                "name": name,
                "exportUrl": f"{exports}/{name}/export?{query}",
                "importUrl": tusd,
                "allowNetworks": LOOPBACK,
            }
            for name in ("site", "db")
        ]
        with Stack(tmp_path_factory.mktemp("stack"), providers) as system:
            yield system


def taken(uploads: Path, restore: Json) -> dict[str, str]:
    """The SHA-256 of what tusd holds whole of a restore, by file name."""
    found: dict[str, str] = {}
    for path in uploads.glob("*.info"):
        upload = json.loads(path.read_text())
        if upload["MetaData"]["restoreId"] != restore["restoreId"]:
            continue
        content = (uploads / upload["ID"]).read_bytes()
        assert len(content) == upload["Size"]
        assert len(b64decode(upload["MetaData"]["crc64nvme"])) == 8
        assert upload["MetaData"]["filename"] not in found, "imported twice"
        found[upload["MetaData"]["filename"]] = hashlib.sha256(content).hexdigest()
    return found


def test_tusd_takes_each_byte_of_two_providers_once(stack: Stack, exports: str, uploads: Path) -> None:
    site = MockSite(exports, "site").set(size=MAX_SIZE - PART)
    db = MockSite(exports, "db", site.user_id, site.site_id).set(size=SLICE + 1, noRange=True)
    job = stack.api.done(stack.api.create(site, db))
    done = stack.api.done(stack.api.restore(job))
    assert taken(uploads, done) == {f"{one.provider}.zip": one.archive.sha256() for one in (site, db)}
    size = site.size + db.size
    assert done["progress"] == {"bytesDone": size, "bytesTotal": size, "percent": 100}


def test_tusd_refuses_what_is_larger_than_it_takes_and_the_restore_says_so(
    stack: Stack, exports: str, uploads: Path
) -> None:
    site = MockSite(exports, "site").set(size=MAX_SIZE + 1)
    failed = stack.api.finish(stack.api.restore(stack.api.done(stack.api.create(site))))
    assert failed["status"] == "failed"
    assert failed["tasks"]["site"]["reason"]["code"] == "import_too_large"
    assert taken(uploads, failed) == {}
