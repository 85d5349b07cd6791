"""Automatic backups, with the real clock: a tick a minute is the finest there is."""

import threading

import pytest

from local.lambda_runtime.client import lambda_client
from mock_providers.client import MockSite
from tests.e2e.backups import back_up, behave
from tests.e2e.client import Json, wait_until
from tests.e2e.stack import HELD, PART, Stack

EVERY_MINUTE = "* * * * *"


def _path(site: MockSite, action: str = "") -> str:
    return f"/sites/{site.site_id}/schedule{action}?userId={site.user_id}"


def _schedule(stack: Stack, site: MockSite, action: str = "") -> Json:
    path = _path(site, action)
    answer = stack.api.post(path) if action else stack.api.get(path)
    assert answer.status_code == 200, answer.text
    schedule: Json = answer.json()
    return schedule


def test_a_schedule_is_set_shown_paused_listed_and_deleted(stack: Stack) -> None:
    site = stack.site()
    path = _path(site)
    body = {"userId": site.user_id, "cron": "weekly", "timeZone": "Europe/Berlin", "providers": ["site"]}
    schedule = stack.api.request("PUT", f"/sites/{site.site_id}/schedule", json=body).json()
    assert {**schedule, **body} == schedule
    assert (schedule["paused"], schedule["expiresAfterDays"], len(schedule["nextRuns"])) == (False, 60, 5)
    assert _schedule(stack, site) == schedule
    assert _schedule(stack, site, "/pause")["nextRuns"] == []
    assert _schedule(stack, site)["paused"] is True
    assert _schedule(stack, site, "/resume")["nextRuns"] == schedule["nextRuns"]
    listed, cursor = [], ""
    while True:
        page = stack.api.get(f"/schedules?limit=2{cursor}").json()
        listed += page["schedules"]
        if "cursor" not in page:
            break
        cursor = f"&cursor={page['cursor']}"
    assert [one["siteId"] for one in listed].count(site.site_id) == 1
    assert stack.api.request("DELETE", path).status_code == 204
    assert stack.api.get(path).status_code == 404
    assert stack.api.request("DELETE", path).status_code == 404


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("cron", "61 * * * *"),
        ("cron", "now"),
        ("cron", "0 0 31 2 *"),
        ("timeZone", "Mars/Olympus"),
        ("providers", ["mail"]),
        ("userId", "1"),
        ("expiresAfterDays", 0),
        ("at", "noon"),
    ],
)
def test_a_bad_schedule_is_refused_by_its_field(stack: Stack, field: str, value: object) -> None:
    site = stack.site()
    body = {"userId": site.user_id, "cron": "daily", field: value}
    answer = stack.api.request("PUT", f"/sites/{site.site_id}/schedule", json=body)
    assert (answer.status_code, answer.json()["type"]) == (400, "bad-request"), answer.text
    assert answer.json()["detail"].startswith(field), answer.text


@pytest.mark.slow
def test_a_tick_makes_one_backup_of_each_site_however_many_schedulers_run(stack: Stack) -> None:
    """Waits for a whole minute of the real clock, at worst."""
    sites = [stack.site(size=PART // 4) for _ in range(5)]
    busy = stack.site(**HELD)
    active = stack.api.create(busy)
    restored = back_up(stack, stack.site())
    behave(restored.site, refuse={"POST": {"code": 503, "retryAfter": 60}})
    restore = stack.api.restore(restored.job)
    paused = stack.site()
    for site in (*sites, busy, restored.site, paused):
        body = {"userId": site.user_id, "cron": EVERY_MINUTE, "providers": ["site"], "expiresAfterDays": 7}
        answer = stack.api.request("PUT", f"/sites/{site.site_id}/schedule", json=body)
        assert answer.status_code == 200, answer.text
    _schedule(stack, paused, "/pause")
    stop = threading.Event()
    schedulers = [threading.Thread(target=_run_schedules, args=(stack, stop)) for _ in range(2)]
    for thread in schedulers:
        thread.start()
    try:
        ran = wait_until(
            "a tick of every schedule",
            lambda: all("lastTick" in _schedule(stack, site) for site in (*sites, busy, restored.site)),
        )
    finally:
        stop.set()
        for thread in schedulers:
            thread.join()
        for site in sites:
            _schedule(stack, site, "/pause")
    assert ran
    for site in sites:
        jobs = stack.api.get("/backup", siteId=site.site_id).json()["jobs"]
        ticks = {job["createdAt"][:16] for job in jobs}
        assert len(jobs) == len(ticks), f"two backups of one tick: {jobs}"
        assert _schedule(stack, site)["lastJobId"] == jobs[0]["jobId"]
        done = stack.api.done(jobs[-1])
        stack.bucket.assert_holds(done, site)
        assert done["expiresAfterDays"] == 7
    skipped = _schedule(stack, busy)
    assert skipped["lastError"].startswith("Skipped")
    assert active["jobId"] in skipped["lastError"]
    assert len(stack.api.get("/backup", siteId=busy.site_id).json()["jobs"]) == 1
    skipped = _schedule(stack, restored.site)
    assert skipped["lastError"].startswith("Skipped")
    assert restore["restoreId"] in skipped["lastError"]
    assert len(stack.api.get("/backup", siteId=restored.site.site_id).json()["jobs"]) == 1
    assert stack.api.get("/backup", siteId=paused.site_id).json()["jobs"] == []
    for one in (active, restore):
        stack.api.change(one, "cancel")
    for site in (*sites, busy, restored.site, paused):
        assert stack.api.request("DELETE", _path(site)).status_code == 204


def _run_schedules(stack: Stack, stop: threading.Event) -> None:
    """A scheduler beside the one of the local run."""
    client = lambda_client(stack.run.url("LAMBDA"), read_timeout=60)
    while not stop.wait(0.5):
        client.invoke(FunctionName="RunScheduleFunction", Payload=b"{}")
