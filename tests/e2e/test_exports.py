"""Exports of every shape end up in S3, byte by byte."""

from typing import Any

from mock_providers.archive import SMALLEST_ZIP
from tests.e2e.stack import MIB, PART, Stack

WAYS: dict[str, dict[str, Any]] = {
    "ranged": {},
    "stream": {"noRange": True},
    "stream of unknown length": {"noLength": True},
}
SIZES = (0, 1, PART, PART + 1, 2 * PART + 1, 6 * PART + 12_345)
"""The first two are no zips: they count for a provider whose format is `any`."""


def test_an_export_of_any_size_is_stored_with_exactly_its_bytes(stack: Stack) -> None:
    sites = {
        (size, way): stack.site("dump" if size < SMALLEST_ZIP else "site", size, **faults)
        for size in SIZES
        for way, faults in WAYS.items()
    }
    jobs = {case: stack.api.create(site) for case, site in sites.items()}
    for case, site in sites.items():
        job = stack.api.done(jobs[case])
        stack.bucket.assert_holds(job, site)
        task = job["tasks"][site.provider]
        assert ("members" in task["object"]) == (site.provider == "site")
        progress, parts = task["progress"], max(1, -(-site.size // PART))
        assert (progress["partsDone"], progress["partsTotal"], progress["percent"]) == (parts, parts, 100), (
            case
        )


def test_three_providers_of_a_site_are_backed_up_at_once(stack: Stack) -> None:
    site = stack.site("site", 3 * PART + 7)
    sites = [site, stack.site("db", MIB, of=site), stack.site("media", 2 * PART, of=site, noRange=True)]
    job = stack.api.done(stack.api.create(*sites))
    stack.bucket.assert_holds(job, *sites)
    size = sum(site.size for site in sites)
    assert job["progress"] == {
        "bytesDone": size,
        "bytesTotal": size,
        "partsDone": 7,
        "partsTotal": 7,
        "percent": 100,
    }
    assert "reason" not in job
    assert "retries" not in job["tasks"]["site"]


def test_twenty_jobs_of_different_sites_run_at_once(stack: Stack) -> None:
    sites = [stack.site(size=PART + number * 1000) for number in range(20)]
    jobs = [stack.api.create(site) for site in sites]
    assert len({job["jobId"] for job in jobs}) == 20
    for job, site in zip(jobs, sites, strict=True):
        stack.bucket.assert_holds(stack.api.done(job), site)
