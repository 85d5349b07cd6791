"""Expiry and deletion, on days of two seconds: marked first, removed after the grace period."""

from datetime import UTC, datetime, timedelta

from mock_providers.client import MockSite
from tests.e2e.client import Json, wait_until
from tests.e2e.stack import HELD, PARAMETERS, PART, Stack


def _delete(stack: Stack, job: Json, at: datetime | None = None) -> Json:
    query = {"at": at.isoformat()} if at else {}
    answer = stack.api.request("DELETE", f"/backup/{job['jobId']}", params=query)
    assert answer.status_code == 202, answer.text
    marked: Json = answer.json()
    return marked


def _dry_run(stack: Stack, site: MockSite) -> dict[str, tuple[str, str]]:
    """(action, reason) by job."""
    backups = stack.api.get(f"/sites/{site.site_id}/retention?userId={site.user_id}").json()["backups"]
    return {backup["jobId"]: (backup["action"], backup["reason"]) for backup in backups}


def _removed(job: Json) -> bool:
    return bool(job["status"] == "deleted")


def test_a_backup_expires_and_the_newest_good_one_stays(stack: Stack) -> None:
    site = stack.site(size=1000)
    old = stack.api.done(stack.api.create(site, expiresAfterDays=1))
    new = stack.api.done(stack.api.create(site, expiresAfterDays=1))
    lasting = stack.api.done(stack.api.create(stack.site(size=1000)))
    expired = stack.api.wait(old, "it has expired", lambda job: "deleteAt" in job)
    assert expired["deleteCause"] == "expired"
    gone = stack.api.wait(expired, "it is removed", _removed)
    assert "object" not in gone["tasks"]["site"]
    finished, marked, deleted = (
        datetime.fromisoformat(gone[name]) for name in ("finishedAt", "deleteAt", "deletedAt")
    )
    assert marked - finished >= timedelta(seconds=PARAMETERS["DaySeconds"])
    assert deleted - marked >= timedelta(seconds=PARAMETERS["DeleteGraceSeconds"])
    assert stack.bucket.is_empty(old)
    stack.bucket.assert_holds(stack.api.job(new), site)
    assert _dry_run(stack, site) == {
        old["jobId"]: ("keep", "record_kept"),
        new["jobId"]: ("keep", "newest_good"),
    }
    assert "deleteAt" not in stack.api.job(lasting), "no expiry was asked for"
    assert stack.api.post(f"/backup/{old['jobId']}/retry").status_code == 409
    assert stack.api.post(f"/backup/{old['jobId']}/undelete").status_code == 409


def test_a_backup_is_deleted_on_request_even_if_it_is_the_newest(stack: Stack) -> None:
    site = stack.site(size=2 * PART)
    now, later, undeleted = (stack.api.done(stack.api.create(site)) for _ in range(3))
    marked = _delete(stack, undeleted)
    assert (marked["status"], marked["deleteCause"]) == ("done", "requested")
    assert "deleteAt" not in stack.api.change(undeleted, "undelete")
    in_an_hour = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
    assert _delete(stack, later, in_an_hour)["deleteAt"].startswith(f"{in_an_hour:%Y-%m-%dT%H:%M:%S}")
    assert _delete(stack, now)["status"] == "done"
    assert _dry_run(stack, site)[later["jobId"]] == ("keep", "marked")
    stack.api.wait(now, "it is removed", _removed)
    assert stack.bucket.is_empty(now)
    for job in (later, undeleted):
        stack.bucket.assert_holds(stack.api.job(job), site)
    stack.api.change(later, "undelete")
    _delete(stack, later)
    _delete(stack, undeleted)
    for job in (later, undeleted):
        stack.api.wait(job, "it is removed", _removed)
        assert stack.bucket.is_empty(job)


def test_what_failed_can_be_deleted_and_what_runs_can_not(stack: Stack) -> None:
    site = stack.site(status={"code": 404})
    failed = stack.api.finish(stack.api.create(site))
    _delete(stack, failed)
    running = stack.api.create(stack.site(**HELD))
    answer = stack.api.request("DELETE", f"/backup/{running['jobId']}")
    assert (answer.status_code, answer.json()["type"]) == (409, "state-forbids")
    assert _dry_run(stack, MockSite(site.url, "site", running["userId"], running["siteId"])) == {
        running["jobId"]: ("keep", "active")
    }
    stack.api.change(running, "cancel")
    stack.api.wait(failed, "it is removed", _removed)
    for at in ("yesterday", "2020-01-01T00:00:00Z", "2040-01-01T00:00:00"):
        answer = stack.api.request("DELETE", f"/backup/{running['jobId']}", params={"at": at})
        assert (answer.status_code, answer.json()["detail"][:3]) == (400, "at:"), answer.text


def test_records_of_a_deleted_backup_and_the_objects_of_others_are_told_apart(stack: Stack) -> None:
    """Removal goes by exact keys and versions: the neighbour's backup stays."""
    site = stack.site(size=1000)
    jobs = [stack.api.done(stack.api.create(site)) for _ in range(2)]
    _delete(stack, jobs[0])
    wait_until("it is empty", lambda: stack.bucket.is_empty(jobs[0]))
    stack.bucket.assert_holds(stack.api.job(jobs[1]), site)
