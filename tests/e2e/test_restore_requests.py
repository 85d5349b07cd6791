"""What is asked of restores: what is refused and how, what a dry run finds, and who may be at a site at once."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import requests

from tests.e2e.backups import Backup, back_up, back_up_each, behave
from tests.e2e.client import Json, restore_request, wait_until
from tests.e2e.stack import HELD, MIB, PARAMETERS, Stack

ID = "0123456789abcdef01234567"
NOW = "2030-01-31T12:00:00Z"
NONE = object()
"""Instead of a field's value: it is not sent."""

BAD_REQUESTS: dict[str, tuple[str, dict[str, Any]]] = {
    "no userId": ("userId", {"userId": NONE}),
    "userId too short": ("userId", {"userId": "abc"}),
    "siteId in capitals": ("siteId", {"siteId": ID.upper()}),
    "jobId no hex": ("jobId", {"jobId": "x" * 24}),
    "targetSiteId no text": ("targetSiteId", {"targetSiteId": 5}),
    "neither jobId nor before": ("jobId", {"jobId": NONE}),
    "both jobId and before": ("jobId", {"before": NOW}),
    "before without an offset": ("before", {"jobId": NONE, "before": "2030-01-31T12:00:00"}),
    "before no time": ("before", {"jobId": NONE, "before": "yesterday"}),
    "no providers": ("providers", {"providers": NONE}),
    "an empty list of providers": ("providers", {"providers": []}),
    "another word for all": ("providers", {"providers": "every"}),
    "a provider that the backup has not": ("providers[1]", {"providers": ["site", "db"]}),
    "a provider twice": ("providers", {"providers": ["site", "site"]}),
    "a provider that is no name": ("providers[0]", {"providers": ["../site"]}),
    "safetyBackup no flag": ("safetyBackup", {"safetyBackup": "no"}),
    "dryRun no flag": ("dryRun", {"dryRun": 1}),
    "unknown field": ("force", {"force": True}),
}
BAD_QUERIES = {
    "/restores/xyz": "restoreId",
    f"/restores/{ID}?wait=26": "wait",
    f"/restores/{ID}?since=x": "since",
    "/restores?status=paused": "status",
    "/restores?jobId=1": "jobId",
    "/restores?limit=0": "limit",
    "/restores?order=asc": "order",
}


def _assert_problem(answer: requests.Response, status: int, kind: str, names: str = "") -> Json:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"].startswith("application/problem+json")
    problem: Json = answer.json()
    assert (problem["status"], problem["type"]) == (status, kind), problem
    assert problem["detail"].startswith(names), problem
    return problem


def _post(stack: Stack, backup: Backup, key: str | None = None, **fields: Any) -> requests.Response:
    body = restore_request(backup.job, **fields)
    sent = {name: value for name, value in body.items() if value is not NONE}
    return stack.api.post("/restores", sent, headers={"Idempotency-Key": key} if key else {})


def _restores(stack: Stack, backup: Backup) -> list[Json]:
    listed: list[Json] = stack.api.get("/restores", siteId=backup.site.site_id).json()["restores"]
    return listed


def test_what_can_not_be_restored_is_refused_and_nothing_begins(stack: Stack) -> None:
    backup, other = back_up_each(stack, [[stack.site()], [stack.site()]])
    for name, (field, change) in BAD_REQUESTS.items():
        for dry_run in (True, False):
            asked: dict[str, Any] = {"dryRun": dry_run, **change}
            answer = _post(stack, backup, **asked)
            assert answer.status_code == 400, (name, answer.text)
            _assert_problem(answer, 400, "bad-request", f"{field}:")
    _assert_problem(_post(stack, backup, key="k" * 256), 400, "bad-request", "Idempotency-Key")
    for path, field in BAD_QUERIES.items():
        _assert_problem(stack.api.get(path), 400, "bad-request", field)
    for field, value in {"userId": ID, "siteId": other.site.site_id, "jobId": ID}.items():
        _assert_problem(_post(stack, backup, **{field: value}), 404, "not-found")
    early: dict[str, Any] = {"jobId": NONE, "before": "2020-01-31T12:00:00Z"}
    _assert_problem(_post(stack, backup, **early), 404, "not-found")
    for path in (f"/restores/{ID}", f"/restores/{ID}?wait=1&since=1"):
        _assert_problem(stack.api.get(path), 404, "not-found")
    for action in ("cancel", "retry"):
        _assert_problem(stack.api.post(f"/restores/{ID}/{action}"), 404, "not-found")
    assert _restores(stack, backup) == []


def test_only_a_done_backup_whose_data_is_there_can_be_restored(stack: Stack) -> None:
    backup = back_up(stack, stack.site())
    backup.site.set(**HELD)
    running = stack.api.create(backup.site)
    _assert_problem(_post(stack, backup, jobId=running["jobId"]), 409, "state-forbids")
    stack.api.change(running, "cancel")
    problem = _assert_problem(_post(stack, backup, jobId=running["jobId"]), 409, "state-forbids")
    assert problem["jobId"] == running["jobId"]
    assert stack.api.request("DELETE", f"/backup/{backup.job['jobId']}").status_code == 202
    stack.api.wait(backup.job, "the data is gone", lambda job: job["status"] == "deleted")
    _assert_problem(_post(stack, backup), 409, "state-forbids")
    _assert_problem(_post(stack, backup, jobId=NONE, before=NOW), 404, "not-found")


def test_a_provider_that_takes_nothing_back_leads_to_the_downloads(stack: Stack) -> None:
    site = stack.site()
    backup = back_up(stack, site, stack.site("media", of=site))
    for dry_run in (False, True):
        problem = _assert_problem(_post(stack, backup, dryRun=dry_run), 409, "restore-unsupported")
        assert problem["providers"] == ["media"]
        assert problem["downloads"] == [f"/backup/{backup.job['jobId']}/providers/media/download"]
    stack.api.done(stack.api.restore(backup.job, providers=["site"]))
    assert site.sha256() == backup.sha256["site"]


def test_a_repeated_request_answers_the_same_restore(stack: Stack) -> None:
    site = stack.site()
    backup = back_up(stack, site, stack.site("db", of=site))
    key = f"again-{site.site_id}"
    first = _post(stack, backup, key, providers=["site", "db"])
    assert first.status_code == 202
    restore = first.json()
    again = _post(stack, backup, key, providers=["db", "site"])
    assert (again.status_code, again.json()["restoreId"]) == (202, restore["restoreId"])
    stack.api.done(restore)
    assert _post(stack, backup, key, providers=["site", "db"]).json()["status"] == "done"
    problem = _assert_problem(
        _post(stack, backup, key, providers=["site"]), 422, "idempotency-key-reused", "Idempotency-Key"
    )
    assert problem["restoreId"] == restore["restoreId"]
    body = {"userId": site.user_id, "siteId": site.site_id, "providers": ["site"]}
    backup_of_that_key = stack.api.post("/backup", body, headers={"Idempotency-Key": key})
    assert backup_of_that_key.status_code == 202, "keys of backups and of restores are different ones"
    stack.api.done(backup_of_that_key.json())
    assert len(_restores(stack, backup)) == 1


def test_a_dry_run_finds_what_stands_in_the_way_and_changes_nothing(stack: Stack) -> None:
    obstacles: dict[str, tuple[dict[str, Any], str]] = {
        "nothing": ({}, ""),
        "too small": ({"maxSize": 999}, "takes 999 bytes at most, the backup has 1000"),
        "API down": ({"refuse": {"OPTIONS": {"code": 503}}}, "503"),
        "no object": ({}, "not in S3"),
    }
    backups = back_up_each(stack, [[stack.site("db", 1000)] for _ in obstacles])
    for (name, (imports, said)), backup in zip(obstacles.items(), backups, strict=True):
        behave(backup.site, **imports)
        stored = backup.job["tasks"]["db"]["object"]
        if name == "no object":
            stack.bucket.remove(stored)
        before = stack.api.job(backup.job)
        answer = _post(stack, backup, dryRun=True, safetyBackup=True)
        assert answer.status_code == 200, answer.text
        found = answer.json()
        assert (found["dryRun"], found["jobId"], found["safetyBackup"]) == (True, before["jobId"], True)
        assert found["wouldStart"] is (name == "nothing")
        looked_at = found["providers"]["db"]
        assert (looked_at["size"], looked_at["versionId"]) == (1000, stored["versionId"])
        assert len(looked_at["obstacles"]) == (name != "nothing"), name
        assert said in "".join(looked_at["obstacles"])
        assert stack.api.job(backup.job) == before
        assert _restores(stack, backup) == []
        assert {answer.split()[0] for answer in backup.site.imports()["byAnswer"]} == {"OPTIONS"}
        assert len(stack.api.get("/backup", siteId=backup.site.site_id).json()["jobs"]) == 1
    busy = backups[0]
    busy.site.set(**HELD)
    running = stack.api.create(busy.site)
    found = _post(stack, busy, dryRun=True).json()
    assert (found["wouldStart"], found["active"]["jobId"]) == (False, running["jobId"])
    stack.api.change(running, "cancel")


def test_of_two_who_come_to_a_site_at_once_one_wins(stack: Stack) -> None:
    """Whatever both are; the other is told who did."""
    backups = back_up_each(stack, [[stack.site()] for _ in range(3)])
    for backup in backups:
        backup.site.set(size=None, imports={"refuse": {"POST": {"code": 503, "retryAfter": 60}}}, **HELD)
    kinds: list[Callable[[Backup], requests.Response]] = [
        lambda backup: _post(stack, backup),
        lambda backup: stack.api.post(
            "/backup", {"userId": backup.site.user_id, "siteId": backup.site.site_id, "providers": ["site"]}
        ),
    ]
    pairs = [(kinds[0], kinds[0]), (kinds[0], kinds[1]), (kinds[1], kinds[0])]
    for backup, pair in zip(backups, pairs, strict=True):
        with ThreadPoolExecutor(2) as pool:
            answers = [one.result() for one in [pool.submit(call, backup) for call in pair]]
        refused, accepted = sorted(answers, key=lambda answer: answer.status_code == 202)
        assert accepted.status_code == 202, [answer.text for answer in answers]
        winner = accepted.json()
        for late in (refused, *(kind(backup) for kind in kinds)):
            problem = _assert_problem(late, 409, "active-job")
            name = "restoreId" if "restoreId" in winner else "jobId"
            assert problem[name] == winner[name]
        ended = stack.api.change(winner, "cancel")
        assert ended["status"] == "cancelled"
    for backup in backups:
        behave(backup.site)
        stack.api.done(stack.api.restore(backup.job))


def test_a_retry_of_a_restore_finds_the_site_taken(stack: Stack) -> None:
    backup = back_up(stack, stack.site())
    backup.site.set(size=None, imports={"refuse": {"POST": {"code": 503, "retryAfter": 60}}}, **HELD)
    cancelled = stack.api.change(stack.api.restore(backup.job), "cancel")
    job = stack.api.create(backup.site)
    path = f"/restores/{cancelled['restoreId']}"
    assert _assert_problem(stack.api.post(f"{path}/retry"), 409, "active-job")["jobId"] == job["jobId"]
    stack.api.change(job, "cancel")
    behave(backup.site)
    stack.api.done(stack.api.change(cancelled, "retry"))
    for action in ("retry", "cancel"):
        problem = _assert_problem(stack.api.post(f"{path}/{action}"), 409, "state-forbids")
        assert problem["restoreId"] == cancelled["restoreId"]


def test_the_data_of_a_backup_that_is_deleted_goes_after_its_restore(stack: Stack) -> None:
    size = 6 * MIB
    backup = back_up(stack, stack.site("db", size))
    behave(backup.site, drip={"bytesPerSecond": MIB})
    restore = stack.api.restore(backup.job)
    wait_until("bytes move", lambda: backup.site.imports()["bytesReceived"])
    answer = stack.api.request("DELETE", f"/backup/{backup.job['jobId']}")
    assert (answer.status_code, answer.json()["status"]) == (202, "done")

    def decision() -> str:
        page = stack.api.get(f"/sites/{backup.site.site_id}/retention?userId={backup.site.user_id}").json()
        reason: str = page["backups"][0]["reason"]
        return reason

    assert PARAMETERS["DeleteGraceSeconds"] < size // MIB
    wait_until("the grace period is over", lambda: decision() == "pinned")
    assert not stack.bucket.is_empty(backup.job)
    stack.api.done(restore)
    assert backup.is_back()
    stack.api.wait(backup.job, "the data is gone", lambda job: job["status"] == "deleted")
    stack.bucket.wait_empty(backup.job)
    assert [one["restoreId"] for one in _restores(stack, backup)] == [restore["restoreId"]]
