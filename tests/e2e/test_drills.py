"""Drills through the HTTP API and Kafka: a backup is opened on request, and its site is proven."""

from mock_providers.client import MockSite
from tests.e2e.client import Json, wait_until
from tests.e2e.stack import PART, Stack


def _report(stack: Stack, site: MockSite) -> Json:
    found: Json = stack.api.get("/drills", userId=site.user_id, siteId=site.site_id).json()
    return found


def test_a_backup_is_opened_on_request_however_often_that_comes_and_its_site_is_proven(stack: Stack) -> None:
    site = stack.site(size=2 * PART + 4321)
    job = stack.api.done(stack.api.create(site))
    path = f"/backup/{job['jobId']}"
    for _ in range(3):
        asked = stack.api.post(f"{path}/verify")
        assert (asked.status_code, asked.json()["jobId"]) == (202, job["jobId"])
    drill = wait_until(
        "the backup is opened", lambda: stack.api.get(path).json()["tasks"]["site"].get("drill")
    )
    assert (drill["state"], drill["members"]) == ("ok", job["tasks"]["site"]["object"]["members"])

    def proven() -> bool:
        return "lastVerifiedAt" in _report(stack, site)["site"]

    wait_until("the site is proven", proven)
    report = _report(stack, site)
    assert report["drillDays"] == 30
    assert report["lastDay"]["bytes"] >= site.size
