"""The HTTP API's contract: what is accepted, what is refused and how, paging, waiting."""

import threading
from typing import Any

import pytest
import requests

from mock_providers.client import MockSite
from tests.e2e.client import Json
from tests.e2e.stack import HELD, Stack

ID = "0123456789abcdef01234567"
BAD_REQUESTS: dict[str, tuple[str, dict[str, Any]]] = {
    "no userId": ("userId", {"userId": None}),
    "userId too short": ("userId", {"userId": "abc"}),
    "userId no text": ("userId", {"userId": 5}),
    "siteId no hex": ("siteId", {"siteId": "x" * 24}),
    "siteId in capitals": ("siteId", {"siteId": ID.upper()}),
    "unknown provider": ("providers", {"providers": ["site", "mail"]}),
    "provider twice": ("providers", {"providers": ["site", "site"]}),
    "no provider": ("providers", {"providers": []}),
    "providers no list": ("providers", {"providers": "site"}),
    "zero days": ("expiresAfterDays", {"expiresAfterDays": 0}),
    "too many days": ("expiresAfterDays", {"expiresAfterDays": 10_000}),
    "half a day": ("expiresAfterDays", {"expiresAfterDays": 0.5}),
    "no bytes": ("maxBytes", {"maxBytes": 0}),
    "unknown field": ("priority", {"priority": 1}),
}
BAD_QUERIES = {
    "/backup/xyz": "jobId",
    f"/backup/{ID.upper()}": "jobId",
    f"/backup/{ID}?wait=26": "wait",
    f"/backup/{ID}?wait=-1": "wait",
    f"/backup/{ID}?since=x": "since",
    f"/backup/{ID}?until=5": "until",
    "/backup?limit=0": "limit",
    "/backup?limit=101": "limit",
    "/backup?status=broken": "status",
    "/backup?siteId=1": "siteId",
    "/backup?cursor=1": "cursor",
    "/backup?order=asc": "order",
}


def _assert_problem(answer: requests.Response, status: int, kind: str, names: str = "") -> Json:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"].startswith("application/problem+json")
    problem: Json = answer.json()
    assert (problem["status"], problem["type"]) == (status, kind)
    assert problem["title"]
    assert problem["detail"].startswith(names), problem
    return problem


def test_a_backup_is_accepted_at_once_and_can_be_followed(stack: Stack) -> None:
    site = stack.site(size=1000)
    body = {"userId": site.user_id, "siteId": site.site_id, "providers": ["site"]}
    answer = stack.api.post("/backup", body)
    assert answer.status_code == 202
    job = answer.json()
    assert (job["status"], job["attempt"], job["version"]) == ("pending", 1, 1)
    assert (job["userId"], job["siteId"], list(job["tasks"])) == (site.user_id, site.site_id, ["site"])
    assert answer.headers["location"] == f"/backup/{job['jobId']}"
    assert stack.api.get(answer.headers["location"]).json()["jobId"] == job["jobId"]
    stack.bucket.assert_holds(stack.api.done(job), site)


def test_without_providers_all_that_are_configured_are_backed_up(stack: Stack) -> None:
    site = stack.site()
    sites = [site, stack.site("db", of=site), stack.site("media", of=site), stack.site("dump", of=site)]
    job = stack.api.post("/backup", {"userId": site.user_id, "siteId": site.site_id}).json()
    stack.bucket.assert_holds(stack.api.done(job), *sites)


@pytest.mark.parametrize("case", BAD_REQUESTS)
def test_a_bad_field_is_refused_by_name(stack: Stack, case: str) -> None:
    field, change = BAD_REQUESTS[case]
    body = {"userId": ID, "siteId": ID, "providers": ["site"], **change}
    sent = {name: value for name, value in body.items() if value is not None}
    _assert_problem(stack.api.post("/backup", sent), 400, "bad-request", field)


def test_a_body_that_is_no_object_is_refused(stack: Stack) -> None:
    for body in (b"", b"{", b"[]", b'"text"', b"\xff\xfe"):
        _assert_problem(stack.api.request("POST", "/backup", data=body), 400, "bad-request", "body")


@pytest.mark.parametrize("path", BAD_QUERIES)
def test_a_bad_id_or_query_is_refused_by_name(stack: Stack, path: str) -> None:
    _assert_problem(stack.api.get(path), 400, "bad-request", BAD_QUERIES[path])


def test_what_does_not_exist_is_not_found(stack: Stack) -> None:
    _assert_problem(stack.api.get(f"/backup/{ID}"), 404, "not-found")
    for action in ("retry", "cancel", "undelete"):
        _assert_problem(stack.api.post(f"/backup/{ID}/{action}"), 404, "not-found")
    _assert_problem(stack.api.request("DELETE", f"/backup/{ID}"), 404, "not-found")
    _assert_problem(stack.api.get(f"/sites/{ID}/schedule?userId={ID}"), 404, "not-found")
    for method, path in (("GET", "/nowhere"), ("PATCH", "/backup"), ("POST", f"/backup/{ID}/explode")):
        assert stack.api.request(method, path).status_code == 404, f"{method} {path}"


def test_a_site_has_one_active_backup(stack: Stack) -> None:
    site = stack.site(**HELD)
    job = stack.api.create(site)
    body = {"userId": site.user_id, "siteId": site.site_id, "providers": ["site"]}
    problem = _assert_problem(stack.api.post("/backup", body), 409, "active-job")
    assert problem["jobId"] == job["jobId"]
    of_another_user = stack.api.create(MockSite(site.url, "site", ID, site.site_id))
    for active in (job, of_another_user):
        assert stack.api.change(active, "cancel")["status"] == "cancelled"
    site.set()
    second = stack.api.create(site)
    assert second["jobId"] != job["jobId"]
    stack.bucket.assert_holds(stack.api.done(second), site)


def test_of_many_requests_at_once_one_makes_the_backup(stack: Stack) -> None:
    site = stack.site(**HELD)
    body = {"userId": site.user_id, "siteId": site.site_id, "providers": ["site"]}
    answers: list[requests.Response] = []
    threads = [
        threading.Thread(target=lambda: answers.append(stack.api.post("/backup", body))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answer.status_code for answer in answers) == [202] + [409] * 7
    assert len({answer.json()["jobId"] for answer in answers}) == 1
    stack.api.change(answers[0].json(), "cancel")


def test_the_same_idempotency_key_answers_the_same_job(stack: Stack) -> None:
    site = stack.site()
    body = {"userId": site.user_id, "siteId": site.site_id, "providers": ["site"]}
    key = {"Idempotency-Key": "nightly 7"}
    first = stack.api.post("/backup", body, headers=key).json()
    again = stack.api.post("/backup", body, headers=key)
    assert (again.status_code, again.json()["jobId"]) == (202, first["jobId"])
    stack.api.done(first)
    later = stack.api.post("/backup", body, headers=key)
    assert (later.status_code, later.json()["jobId"]) == (202, first["jobId"])
    assert later.json()["status"] == "done"
    for change, named in (({"maxBytes": 1}, first["jobId"]), ({"siteId": ID}, None)):
        answer = stack.api.post("/backup", {**body, **change}, headers=key)
        problem = _assert_problem(answer, 422, "idempotency-key-reused", "Idempotency-Key")
        assert problem.get("jobId") == named, "a job of another site is not named"
    second = stack.api.post("/backup", body, headers={"Idempotency-Key": "nightly 8"})
    assert (second.status_code, second.json()["jobId"] == first["jobId"]) == (202, False)
    too_long = stack.api.post("/backup", body, headers={"Idempotency-Key": "k" * 256})
    _assert_problem(too_long, 400, "bad-request", "Idempotency-Key")


def test_jobs_are_listed_newest_first_in_pages(stack: Stack) -> None:
    site = stack.site()
    jobs = [stack.api.done(stack.api.create(site))["jobId"] for _ in range(5)]
    newest_first = jobs[::-1]
    seen: list[str] = []
    cursor = ""
    while True:
        page = stack.api.get(f"/backup?siteId={site.site_id}&limit=2{cursor}").json()
        seen += [job["jobId"] for job in page["jobs"]]
        assert len(page["jobs"]) <= 2
        if "cursor" not in page:
            break
        cursor = f"&cursor={page['cursor']}"
    assert seen == newest_first
    done = stack.api.get("/backup", siteId=site.site_id, userId=site.user_id, status="done").json()
    assert [job["jobId"] for job in done["jobs"]] == newest_first
    for filters in ("status=failed", f"userId={ID}"):
        assert stack.api.get(f"/backup?siteId={site.site_id}&{filters}").json() == {"jobs": []}


def test_waiting_ends_with_a_change_and_lasts_without_one(stack: Stack) -> None:
    job = stack.api.create(stack.site(**HELD))
    running = stack.api.wait(job, "the task waits", lambda job: "nextTryAt" in job["tasks"]["site"])
    answers: list[Json] = []

    def wait() -> None:
        # The limit is shorter than the wait: only a change can have ended it.
        answer = stack.api.get(f"/backup/{job['jobId']}", wait=25, since=running["version"], timeout=20)
        answers.append(answer.json())

    waiting = threading.Thread(target=wait)
    waiting.start()
    cancelled = stack.api.change(job, "cancel")
    waiting.join()
    assert answers[0]["version"] > running["version"]
    assert stack.api.get(f"/backup/{job['jobId']}", wait=25, since=0, timeout=10).status_code == 200
    assert stack.api.get(f"/backup/{job['jobId']}", wait=25, timeout=10).status_code == 200, "no since"
    with pytest.raises(requests.ReadTimeout):  # nothing changes from here on
        stack.api.get(f"/backup/{job['jobId']}", wait=25, since=cancelled["version"], timeout=2)


def test_browsers_may_call_the_api(stack: Stack) -> None:
    preflight = stack.api.request(
        "OPTIONS",
        "/backup",
        headers={
            "Origin": "https://example.com",
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "content-type,idempotency-key",
        },
    )
    assert preflight.status_code == 204
    assert preflight.headers["access-control-allow-origin"] == "*"
    assert "POST" in preflight.headers["access-control-allow-methods"]
    assert "idempotency-key" in preflight.headers["access-control-allow-headers"]
    answer = stack.api.request("GET", f"/backup/{ID}", headers={"Origin": "https://example.com"})
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "location" in answer.headers["access-control-expose-headers"]
