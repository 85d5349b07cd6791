"""Retry keeps what is there; cancel stops what is not; neither leaves anything behind."""

import threading

import requests

from mock_providers.client import MockSite
from tests.e2e.client import Json, key, wait_until
from tests.e2e.stack import HELD, PART, Stack


def _fail_after(stack: Stack, site: MockSite, parts: int) -> Json:
    """The failed job of an export of which only the first `parts` could be stored."""
    site.set(size=site.size, statusOnRange={"from": parts * PART, "code": 503, "retryAfter": 1})
    job = stack.api.create(site)
    stack.api.wait(job, f"{parts} parts", lambda job: job["tasks"]["site"]["progress"]["partsDone"] == parts)
    assert stack.api.post(f"/backup/{job['jobId']}/retry").status_code == 409, "it runs"
    site.set(size=site.size, statusOnRange={"from": parts * PART, "code": 404})
    job = stack.api.finish(job)
    assert (job["status"], job["reason"]["code"]) == ("failed", "export_not_found")
    assert job["tasks"]["site"]["progress"]["bytesDone"] == parts * PART
    return job


def test_a_retry_after_60_percent_of_300_mb_moves_only_the_rest(stack: Stack) -> None:
    site = stack.site(size=300_000_000)
    stored, total = 35, -(-site.size // PART)
    assert stored / total > 0.6
    job = _fail_after(stack, site, stored)
    stack.drain()  # a part that is still tried would get through now
    site.set(size=site.size)
    requests.delete(site.stats_url, timeout=10)
    path = f"/backups/{key(job, 'site')}"
    parts, part_bytes = stack.proxy.parts[path], stack.proxy.part_bytes[path]
    again = stack.api.change(job, "retry")
    assert (again["attempt"], again["tasks"]["site"]["progress"]["partsDone"]) == (2, stored)
    done = stack.api.done(again)
    stack.bucket.assert_holds(done, site)
    assert "startedAnew" not in done["tasks"]["site"]
    rest = site.size - stored * PART
    tiles = {(start, min(start + PART, site.size) - 1) for start in range(stored * PART, site.size, PART)}
    statistics = site.stats()
    assert {tuple(asked) for asked in statistics["ranges"]} == tiles
    # On a busy machine the sweep may take a slow part for a stalled one.
    assert rest <= statistics["bytesSent"] <= rest + 4 * PART
    assert total - stored <= stack.proxy.parts[path] - parts <= total - stored + 4
    assert rest <= stack.proxy.part_bytes[path] - part_bytes <= rest + 5 * PART
    stack.bucket.wait_clean(done)


def test_a_retry_of_an_export_that_changed_starts_anew(stack: Stack) -> None:
    site = stack.site(size=4 * PART)
    job = _fail_after(stack, site, 2)
    site.set(size=4 * PART, revision=2)
    done = stack.api.done(stack.api.change(job, "retry"))
    assert done["tasks"]["site"]["startedAnew"] is True
    stack.bucket.assert_holds(done, site)
    stack.bucket.wait_clean(done)


def test_a_retry_after_the_grace_period_starts_anew(stack: Stack) -> None:
    site = stack.site(size=4 * PART)
    job = _fail_after(stack, site, 2)
    stack.bucket.wait_empty(job)
    site.set(size=4 * PART)
    again = stack.api.change(job, "retry")
    assert again["tasks"]["site"]["progress"]["partsDone"] == 0
    done = stack.api.done(again)
    stack.bucket.assert_holds(done, site)
    stack.bucket.wait_clean(done)


def test_what_is_done_stays_done_in_a_retry(stack: Stack) -> None:
    site = stack.site(**HELD)
    db = stack.site("db", PART, of=site)
    job = stack.api.create(site, db)
    stack.api.wait(job, "db is done", lambda job: job["tasks"]["db"]["status"] == "done")
    job = stack.api.change(job, "cancel")
    assert [job["tasks"][name]["status"] for name in ("site", "db")] == ["cancelled", "done"]
    site.set(size=PART)
    done = stack.api.done(stack.api.change(job, "retry"))
    assert done["tasks"]["db"]["object"] == job["tasks"]["db"]["object"]
    assert db.stats()["requests"] == 1
    stack.bucket.assert_holds(done, site, db)


def test_states_that_forbid_a_change(stack: Stack) -> None:
    site = stack.site()
    done = stack.api.done(stack.api.create(site))
    site.set(**HELD)
    running = stack.api.create(site)
    cancelled_of_other = stack.api.change(stack.api.create(stack.site(**HELD)), "cancel")
    forbidden = [
        (done, "retry"),
        (done, "cancel"),
        (done, "undelete"),
        (running, "retry"),
        (running, "undelete"),
    ]
    for job, action in [*forbidden, (cancelled_of_other, "cancel")]:
        answer = stack.api.post(f"/backup/{job['jobId']}/{action}")
        assert (answer.status_code, answer.json()["type"]) == (409, "state-forbids"), (
            f"{action}: {answer.text}"
        )
    assert stack.api.request("DELETE", f"/backup/{running['jobId']}").status_code == 409
    cancelled = stack.api.change(running, "cancel")
    newer = stack.api.create(site)
    answer = stack.api.post(f"/backup/{cancelled['jobId']}/retry")
    assert (answer.status_code, answer.json()["type"]) == (409, "active-job")
    assert answer.json()["jobId"] == newer["jobId"]
    stack.api.change(newer, "cancel")


def test_a_cancelled_job_stops_within_seconds_and_leaves_nothing(stack: Stack) -> None:
    """Four parts of the provider `media` are under way at once, so most of the eight have not begun."""
    site = stack.site("media", 8 * PART, drip={"bytesPerSecond": PART // 3})
    job = stack.api.create(site)
    stack.upload_id(job, "media")
    job = stack.api.change(job, "cancel")
    assert (job["status"], job["reason"]["code"]) == ("cancelled", "cancelled")
    assert job["tasks"]["media"]["status"] == "cancelled"
    stack.drain()
    wait_until("nobody reads the export", lambda: site.stats()["concurrent"] == 0)
    assert site.stats()["requests"] < 8
    stack.bucket.wait_empty(job)
    assert stack.api.job(job)["status"] == "cancelled"


def test_an_object_that_is_completed_while_the_job_is_cancelled_is_removed(stack: Stack) -> None:
    site = stack.site(size=2 * PART, statusOnRange={"from": 1, "code": 503, "times": 2})
    job = stack.api.create(site)
    path = f"/backups/{key(job, 'site')}"
    gate = stack.proxy.gates[path] = threading.Event()
    try:
        wait_until("the upload is about to be completed", lambda: stack.proxy.completes[path])
        job = stack.api.change(job, "cancel")
    finally:
        gate.set()
    wait_until("it is completed all the same", lambda: stack.bucket.versions(key(job, "site")))
    stack.bucket.wait_empty(job)
    assert stack.api.job(job)["status"] == "cancelled"
