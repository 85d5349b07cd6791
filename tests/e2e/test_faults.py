"""Every fault of an export: what may pass ends in `done`, what will not in `failed` with a reason."""

from typing import Any

import pytest

from tests.e2e.client import Json
from tests.e2e.stack import PART, Stack

SIZE = PART + 70_000
MIDDLE = PART // 2
TWICE = {"times": 2}

PASSING: dict[str, dict[str, Any]] = {
    "503 within the retries in place": {"status": {"code": 503, **TWICE}},
    "503 beyond the retries in place": {"status": {"code": 503, "times": 4}},
    "429 with Retry-After": {"status": {"code": 429, "retryAfter": 1, **TWICE}},
    "a range refused": {"statusOnRange": {"from": 1, "code": 500, **TWICE}},
    "late first byte": {"slowFirstByte": {"seconds": 6, "times": 1}},
    "a pause in the body": {"hang": {"afterBytes": MIDDLE, "seconds": 6, "times": 1}},
    "a pause in a stream": {"noRange": True, "hang": {"afterBytes": MIDDLE, "seconds": 6, "times": 1}},
    "slow": {"drip": {"bytesPerSecond": 2 * PART}},
    "cut off": {"truncateAt": {"bytes": MIDDLE, **TWICE}},
    "always cut off": {"truncateAt": {"bytes": MIDDLE}},
    "a stream cut off": {"noRange": True, "truncateAt": {"bytes": PART + 1, **TWICE}},
    "a chunked stream cut off": {"truncateChunked": {"bytes": MIDDLE, **TWICE}},
    "connection reset": {"reset": {"bytes": MIDDLE, **TWICE}},
    "always reset": {"reset": {"bytes": MIDDLE}},
    "redirected once": {"redirect": {"times": 1}},
    "weak ETag": {"weakEtag": True},
    "no ETag": {"noEtag": True},
    "only Last-Modified": {"lastModifiedOnly": True},
    "gzip if asked for": {"gzip": "ifAsked"},
    "another ETag for every request": {"changeEtag": True},
    "another ETag after the probe": {"changeEtagAfter": 1},
}

FINAL: dict[str, tuple[str, dict[str, Any]]] = {
    "400": ("export_refused", {"status": {"code": 400}}),
    "401": ("export_forbidden", {"status": {"code": 401}}),
    "403": ("export_forbidden", {"status": {"code": 403}}),
    "404": ("export_not_found", {"status": {"code": 404}}),
    "410": ("export_not_found", {"status": {"code": 410}}),
    "404 of a range": ("export_not_found", {"statusOnRange": {"from": 1, "code": 404}}),
    "no token": ("export_forbidden", {"token": "secret"}),
    "gzip unasked": ("export_encoded", {"gzip": "always"}),
    "a redirect without end": ("export_redirected", {"redirect": {}}),
    "another range than asked for": ("export_invalid", {"wrongRange": True}),
    "more bytes than the range has": ("export_invalid", {"longBody": {"bytes": 10}}),
}


def _reasons(job: Json) -> tuple[str, str | None, str | None]:
    task = job["tasks"]["site"]
    return job["status"], job.get("reason", {}).get("code"), task.get("reason", {}).get("code")


def test_a_fault_that_passes_ends_in_done_with_the_right_bytes(stack: Stack) -> None:
    sites = {name: stack.site(size=SIZE, **faults) for name, faults in PASSING.items()}
    jobs = {name: stack.api.create(site) for name, site in sites.items()}
    ends = {name: stack.api.finish(job) for name, job in jobs.items()}
    assert {name: _reasons(job) for name, job in ends.items()} == dict.fromkeys(PASSING, ("done", None, None))
    for name, site in sites.items():
        stack.bucket.assert_holds(ends[name], site)
    waited = ends["503 beyond the retries in place"]["tasks"]["site"]
    assert waited["retries"] >= 1
    assert "503" in waited["lastError"]["message"]
    for job in ends.values():
        stack.bucket.wait_clean(job)


def test_an_export_that_changes_while_it_is_read_is_read_anew(stack: Stack) -> None:
    site = stack.site(size=SIZE, changeContentAfter=1)
    job = stack.api.done(stack.api.create(site))
    site.revision = 2
    stack.bucket.assert_holds(job, site)
    stack.bucket.wait_clean(job)


def test_a_fault_that_stays_ends_in_failed_with_a_reason_and_leaves_nothing(stack: Stack) -> None:
    sites = {name: stack.site(size=SIZE, **faults) for name, (_, faults) in FINAL.items()}
    jobs = {name: stack.api.create(site) for name, site in sites.items()}
    ends = {name: stack.api.finish(job) for name, job in jobs.items()}
    assert {name: _reasons(job) for name, job in ends.items()} == {
        name: ("failed", code, code) for name, (code, _) in FINAL.items()
    }
    for name, job in ends.items():
        assert job["reason"]["message"], name
        assert "object" not in job["tasks"]["site"], name
    stack.bucket.wait_empty(*ends.values())


@pytest.mark.slow
def test_what_never_works_is_given_up_after_a_bounded_number_of_tries(stack: Stack) -> None:
    """Takes about 30 s: four waits, each twice as long as the one before."""
    faults: dict[str, dict[str, Any]] = {
        "503": {"status": {"code": 503}},
        "cut off before the first byte": {"truncateAt": {"bytes": 0}},
        "a stream cut off": {"noRange": True, "truncateAt": {"bytes": PART + 1}},
        "a range refused": {"statusOnRange": {"from": 1, "code": 503}},
        "a chunked stream cut off": {"truncateChunked": {"bytes": MIDDLE}},
        "reset before the first byte": {"reset": {"bytes": 0}},
    }
    sites = {name: stack.site(size=SIZE, **fault) for name, fault in faults.items()}
    jobs = {name: stack.api.create(site) for name, site in sites.items()}
    ends = {name: stack.api.finish(job) for name, job in jobs.items()}
    given_up = ("failed", "retries_exhausted", "retries_exhausted")
    assert {name: _reasons(job) for name, job in ends.items()} == dict.fromkeys(faults, given_up)
    assert "answered 503" in ends["503"]["reason"]["message"], "the last error is told"
    for name, site in sites.items():
        requests = site.stats()["requests"]
        openings = 3 * 2 if "first byte" in name else 1  # a range is opened twice more, and there are two
        assert 5 <= requests <= (5 * 3 + 6) * openings, (  # a record may be delivered twice
            f"{name}: {requests} requests for 5 tries, 3 times in place each"
        )
    stack.bucket.wait_empty(*ends.values())


def test_a_failed_provider_cancels_its_siblings(stack: Stack) -> None:
    site = stack.site("site", status={"code": 404})
    slow = stack.site("db", 4 * PART, of=site, drip={"bytesPerSecond": PART // 4})
    job = stack.api.finish(stack.api.create(site, slow))
    assert (job["status"], job["reason"]["code"]) == ("failed", "export_not_found")
    assert job["tasks"]["site"]["status"] == "failed"
    assert (job["tasks"]["db"]["status"], job["tasks"]["db"]["reason"]["code"]) == (
        "cancelled",
        "sibling_failed",
    )
    stack.bucket.wait_empty(job)
