"""Drills through the HTTP API and Kafka: a backup is opened on request, and its site is proven."""

import io
import zipfile
from datetime import UTC, datetime

from local.lambda_runtime.client import lambda_client
from mock_providers.client import MockSite
from tests.disk import flip_on_disk
from tests.e2e.client import Json, restore_request, wait_until
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


def _damaged_by_the_next_run(stack: Stack) -> float:
    """What the metric says that the alarm looks at."""
    since = stack.run.log_size()
    functions = lambda_client(stack.run.url("LAMBDA"), read_timeout=60)
    functions.invoke(FunctionName="RunDrillsFunction", Payload=b"{}")  # as its schedule does, but sooner

    def told() -> list[float]:
        return [line["BackupsDamaged"][0] for line in stack.run.written(since) if "BackupsDamaged" in line]

    return wait_until("the metric is in the log", told)[-1]


def test_bits_that_flip_on_the_disk_are_found_and_the_backup_before_takes_the_place(stack: Stack) -> None:
    site = stack.site(size=300_000)
    earlier = stack.api.done(stack.api.create(site))
    backed_up = site.archive.sha256()
    site.set(size=400_000, revision=2)
    newest = stack.api.done(stack.api.create(site))
    content, before = site.content, _damaged_by_the_next_run(stack)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        (member,) = archive.namelist()
    flip_on_disk(stack.s3.data, content, len(content) // 2)
    path = f"/backup/{newest['jobId']}"
    assert stack.api.post(f"{path}/verify").status_code == 202

    def drill() -> Json | None:
        found: Json | None = stack.api.get(path).json()["tasks"]["site"].get("drill")
        return found

    found = wait_until("the backup is opened", drill)
    assert (found["state"], found["member"]) == ("damaged", member)
    refused = stack.api.post("/restores", restore_request(newest))
    assert (refused.status_code, refused.json()["jobId"]) == (409, newest["jobId"])

    body = restore_request(newest, before=datetime.now(UTC).isoformat())
    del body["jobId"]
    answer = stack.api.post("/restores", body)
    assert (answer.status_code, answer.json()["jobId"]) == (202, earlier["jobId"])
    stack.api.done(answer.json())
    assert site.sha256() == backed_up
    assert _damaged_by_the_next_run(stack) == before + 1
    stack.api.request("DELETE", path)
    assert _damaged_by_the_next_run(stack) == before, "somebody has dealt with it"
