"""A backup comes back through the API: every byte, at the right site, and only once the site itself is backed up."""

import pytest

from mock_providers.archive import SMALLEST_ZIP
from tests.e2e.backups import back_up, back_up_each
from tests.e2e.stack import PART, SLICE, Stack

SIZES = (SMALLEST_ZIP, 1000, SLICE, SLICE + 1, 3 * PART)


def test_each_byte_of_an_export_comes_back(stack: Stack) -> None:
    """Zips without members, of one slice and of several; of providers that tell what became of an import, and not."""
    sites = [stack.site(provider, size) for size in SIZES for provider in ("site", "db")]
    backups = back_up_each(stack, [[site] for site in sites])
    restores = [stack.api.restore(backup.job) for backup in backups]
    for backup, restore in zip(backups, restores, strict=True):
        done = stack.api.done(restore)
        assert backup.is_back(), done
        assert backup.bytes_received() == 1
        size = backup.job["progress"]["bytesTotal"]
        assert done["progress"] == {"bytesDone": size, "bytesTotal": size, "percent": 100}


def test_a_ranged_export_and_a_stream_of_hundreds_of_megabytes_come_back_together(stack: Stack) -> None:
    site = stack.site("site", 300_000_000)
    backup = back_up(stack, site, stack.site("db", 100_000_000, of=site, noRange=True))
    done = stack.api.done(stack.api.restore(backup.job))
    assert backup.is_back(), done
    assert backup.bytes_received() == 1


@pytest.mark.large
@pytest.mark.timeout(1200)
def test_an_export_that_needs_zip64_comes_back(stack: Stack) -> None:
    """Left out unless asked for: it takes minutes and 15 GB of disk."""
    size = 5_000_000_000
    site = stack.site("site", size)
    job = stack.api.done(stack.api.create(site), limit=600)
    sha256 = site.archive.sha256()
    site.set(size=2000, revision=2)
    stack.api.done(stack.api.restore(job), limit=600)
    assert site.sha256() == sha256
    assert (site.imports()["imported"], site.imports()["bytesReceived"]) == (1, size)


def test_what_a_site_had_become_is_in_the_backup_that_a_restore_makes_first(stack: Stack) -> None:
    site = stack.site("site", PART + 1)
    backup = back_up(stack, site, stack.site("db", 3 * PART, of=site))
    restore = stack.api.restore(backup.job, safetyBackup=True)
    assert (restore["status"], restore["safetyBackup"]) == ("backing_up", True)
    done = stack.api.done(restore)
    assert backup.is_back()
    safety = stack.api.job({"jobId": done["safetyJobId"]})
    assert (safety["status"], safety["safetyFor"]) == ("done", restore["restoreId"])
    stack.bucket.assert_holds(safety, *backup.sites)
    again = stack.api.done(stack.api.restore(safety))
    assert "safetyJobId" not in again
    assert [site.sha256() for site in backup.sites] == [site.archive.sha256() for site in backup.sites]


def test_a_backup_can_be_restored_into_another_site_of_the_user(stack: Stack) -> None:
    backup = back_up(stack, stack.site("site", PART + 1))
    (source,) = backup.sites
    target = stack.site("site", 3000)
    target.user_id = source.user_id
    restore = stack.api.restore(backup.job, targetSiteId=target.site_id, safetyBackup=True)
    assert (restore["siteId"], restore["sourceSiteId"]) == (target.site_id, source.site_id)
    done = stack.api.done(restore)
    assert target.sha256() == backup.sha256["site"]
    assert source.sha256() == source.archive.sha256(), "the site that was backed up was changed"
    safety = stack.api.job({"jobId": done["safetyJobId"]})
    assert safety["siteId"] == target.site_id
    stack.bucket.assert_holds(safety, target)
    for site_id in (source.site_id, target.site_id):
        listed = stack.api.get("/restores", siteId=site_id).json()["restores"]
        assert [one["restoreId"] for one in listed] == [done["restoreId"]] * (site_id == target.site_id)


def test_before_takes_the_newest_good_backup_of_that_time(stack: Stack) -> None:
    site = stack.site("site", 4000)
    first = back_up(stack, site)
    second = stack.api.done(stack.api.create(site))
    changed = site.sha256()
    site.set(size=5000, revision=3)
    for job, sha256 in ((second, changed), (first.job, first.sha256["site"])):
        restore = stack.api.restore(first.job, jobId=None, before=job["finishedAt"])
        assert restore["jobId"] == job["jobId"]
        stack.api.done(restore)
        assert site.sha256() == sha256
