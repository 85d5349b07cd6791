"""Backups of exports that are no zip, or part of one: none gets done, and the last real one stays (I15, I19)."""

import io
import zipfile
from collections.abc import Iterator
from datetime import timedelta
from uuid import uuid4

import pytest

from local.services.service import Service
from sitebackup.domain.job import Job, Status
from tests.builders import BY_SERVICE
from tests.fakes.exports import MemoryExport
from tests.integration.real_stack import GRACE, MIB, Stack, a_zip, an_id

DAY = timedelta(days=1)
PAGE = b"<!DOCTYPE html><title>Please log in</title>" + b"<p>Your session has expired.</p>" * 500
ZIP = a_zip("site", 11 * MIB)
USER, SITE = an_id(), an_id()


def with_a_zip_inside() -> tuple[bytes, int]:
    """A zip with a stored zip as its first member, and where that one ends."""
    inner = a_zip("db", 70_000)
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as outer:
        outer.writestr("backup/inner.zip", inner)
        outer.writestr("backup/rest.bin", bytes(1000))
    whole = written.getvalue()
    return whole, whole.index(inner) + len(inner)


NESTED, INNER_END = with_a_zip_inside()
BAD = {
    "an HTML page": (PAGE, "export_not_a_zip", "HTML"),
    "a long HTML page": (PAGE * 400, "export_not_a_zip", "HTML"),
    "nothing": (b"", "export_not_a_zip", "0 bytes"),
    "a zip cut in a member": (ZIP[: 6 * MIB], "export_incomplete", f"{6 * MIB} bytes"),
    "a zip cut before its last byte": (ZIP[:-1], "export_incomplete", f"{11 * MIB - 1} bytes"),
    "a small zip cut": (NESTED[:-1], "export_incomplete", f"{len(NESTED) - 1} bytes"),
    "a zip cut behind a zip in it": (NESTED[:INNER_END], "export_incomplete", f"{INNER_END} bytes"),
}
WAYS = {
    "ranged": {"ranged": True},
    "stream": {"ranged": False},
    "unknown length": {"ranged": False, "says_size": False},
}


@pytest.fixture
def stack(mongo: Service, s3: Service) -> Iterator[Stack]:
    stack = Stack(mongo.address, s3.address, f"zips-{uuid4().hex}")
    yield stack
    stack.close()


def a_backup(stack: Stack, content: bytes, ranged: bool = True, says_size: bool = True) -> Job:
    """Of the one site, as it has ended."""
    stack.served.by_provider["site"] = MemoryExport(content, ranged=ranged, says_size=says_size)
    job = stack.a_backup(user_id=USER, site_id=SITE, expires_after_days=1)
    stack.deliver()
    return stack.job(job.id)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("bad", BAD)
def test_what_is_no_whole_zip_fails_with_a_reason_and_the_last_real_backup_stays(
    stack: Stack, bad: str, way: str
) -> None:
    content, code, words = BAD[bad]
    good = a_backup(stack, NESTED)
    assert good.status is Status.DONE
    stack.pass_time(DAY)
    failed = a_backup(stack, content, **WAYS[way])
    assert failed.status is Status.FAILED
    assert failed.reason is not None
    assert failed.reason == failed.tasks["site"].reason
    assert failed.reason.code == code
    assert words in failed.reason.message
    stack.pass_time(30 * DAY)
    stack.clean()
    assert stack.at_key(failed) == ([], []), "what the failed job had stored is removed"
    assert stack.job(good.id).delete_at is None
    stack.served.by_provider["site"] = MemoryExport(NESTED)
    stack.check_backup(good.id)


@pytest.mark.parametrize("content", [ZIP, NESTED], ids=["parts", "one object"])
def test_a_retry_reads_the_export_anew_once_the_provider_has_mended_it(stack: Stack, content: bytes) -> None:
    failed = a_backup(stack, content[:-1])
    stack.served.by_provider["site"] = MemoryExport(content, revision=2)
    stack.change_job().retry(BY_SERVICE, failed.id)
    stack.deliver()
    stack.check_backup(failed.id)
    stack.pass_time(GRACE)
    stack.clean()
    stored = stack.job(failed.id).tasks["site"].object
    assert stored is not None
    assert stack.at_key(failed) == ([], [stored.version_id]), "nothing is left of the first attempt"
    with zipfile.ZipFile(io.BytesIO(content)) as opened:
        assert stored.members == len(opened.namelist())
