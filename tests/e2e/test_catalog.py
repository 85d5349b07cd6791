"""MongoDB's data is lost: the bucket brings back every done job and the schedules, and life goes on."""

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from local import catalog
from local.lambda_runtime.client import lambda_client
from local.services.s3 import BUCKET, s3_client
from mock_providers.client import MockSite
from sitebackup.domain.job import Status
from tests.e2e.backups import back_up, back_up_each
from tests.e2e.client import Json, wait_until
from tests.e2e.stack import HELD, PART, Stack

SAVED = "catalog/saved/"
NOT_KEPT = {"version", "updatedAt"}
"""Of a done job that was never in trouble. docs/operations.md names them."""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Its own, as it loses its database."""
    with Stack(tmp_path_factory.mktemp("stack")) as system:
        yield system


def lose_database(stack: Stack) -> datetime:
    """Deletes MongoDB's data folder. The time before that."""
    lost_at = datetime.now(UTC)
    with stack.down(stack.mongo):
        shutil.rmtree(stack.mongo.data)
    wait_until("an empty database answers", lambda: stack.api.get("/backup").status_code == 200)
    return lost_at


def rebuild(stack: Stack, lost_at: datetime) -> int:
    """As `make catalog-rebuild` does."""
    function = catalog.local_function(stack.run.url("LAMBDA"), "RebuildCatalogFunction")
    return catalog.rebuild(function, lost_at.isoformat(), "")


def check(stack: Stack) -> int:
    """As `make catalog-check` does."""
    return catalog.check(catalog.local_function(stack.run.url("LAMBDA"), "CheckCatalogFunction"), "")


def kept(job: Json) -> Json:
    """The fields that come back."""
    return {name: value for name, value in job.items() if name not in NOT_KEPT}


def all_done(stack: Stack) -> list[Json]:
    """As `GET /backup` lists them."""
    jobs: list[Json] = []
    cursor = ""
    while True:
        page = stack.api.get(f"/backup?status=done&limit=5{cursor}").json()
        jobs += map(kept, page["jobs"])
        if "cursor" not in page:
            return jobs
        cursor = f"&cursor={page['cursor']}"


def set_schedule(stack: Stack, site: MockSite) -> str:
    """A tick every minute. The schedule's path."""
    path = f"/sites/{site.site_id}/schedule"
    body = {"userId": site.user_id, "cron": "* * * * *", "providers": ["site"], "expiresAfterDays": 3650}
    answer = stack.api.request("PUT", path, json=body)
    assert answer.status_code == 200, answer.text
    return path


def wait_saved(stack: Stack) -> None:
    """Until a copy of the schedules as they are now is whole. The days of these tests are two seconds long."""
    s3, begun = s3_client(stack.s3.address), datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")

    functions = lambda_client(stack.run.url("LAMBDA"), read_timeout=30)

    def saved() -> bool:
        functions.invoke(
            FunctionName="SaveSettingsFunction", Payload=b"{}"
        )  # as its schedule does, but sooner
        listing = s3.list_objects_v2(Bucket=BUCKET, Prefix=SAVED, StartAfter=f"{SAVED}{begun}.json")
        second = datetime.now(UTC).replace(microsecond=0)
        return any(one["LastModified"] < second for one in listing.get("Contents", []))

    wait_until("the schedules are saved", saved)


@pytest.mark.slow
def test_after_the_loss_of_the_database_every_done_job_and_the_schedules_are_back(stack: Stack) -> None:
    """Waits for a whole minute of the real clock, at worst."""
    large = stack.site("site", 3 * PART + 1)
    backup = back_up(stack, large, stack.site("db", 1000, of=large))
    others = back_up_each(stack, [[stack.site(size=500 + n)] for n in range(6)])
    limited = stack.site(size=900)
    retried = stack.api.create(limited, maxBytes=500, expiresAfterDays=3650)
    assert stack.api.finish(retried)["reason"]["code"] == "size_limit_exceeded"
    asked = stack.site(size=700)
    with_fields = stack.api.done(stack.api.create(asked, maxBytes=10**6, expiresAfterDays=3650))
    restore = stack.api.done(stack.api.restore(others[0].job, safetyBackup=True))
    safety = stack.api.job({"jobId": restore["safetyJobId"]})
    scheduled = stack.site(size=600)
    path = set_schedule(stack, scheduled)
    schedule = stack.api.get(path).json()
    under_way = stack.api.create(stack.site(**HELD))
    wait_saved(stack)
    before = all_done(stack)
    assert {job["jobId"] for job in before} >= {
        backup.job["jobId"], with_fields["jobId"], safety["jobId"], *(one.job["jobId"] for one in others)
    }  # fmt: skip

    lost_at = lose_database(stack)
    assert stack.api.get(f"/backup/{backup.job['jobId']}").status_code == 404
    assert rebuild(stack, lost_at) == 0

    assert {job["jobId"]: job for job in all_done(stack)}.items() >= {
        job["jobId"]: job for job in before
    }.items()
    assert kept(stack.api.job(safety))["safetyFor"] == restore["restoreId"]
    for lost in (retried, under_way):
        assert stack.api.get(f"/backup/{lost['jobId']}").status_code == 404, "it was not done"
    again = stack.api.get(path).json()
    assert {**again, "nextRuns": [], "lastTick": None, "lastJobId": None, "updatedAt": None} == {
        **schedule, "nextRuns": [], "lastTick": None, "lastJobId": None, "updatedAt": None
    }  # fmt: skip

    def ran() -> Json | None:
        jobs = stack.api.get("/backup", siteId=scheduled.site_id, status=Status.DONE).json()["jobs"]
        new = [job for job in jobs if datetime.fromisoformat(job["createdAt"]) > lost_at]
        return new[0] if new else None

    job = wait_until("the schedule runs on", ran)
    stack.bucket.assert_holds(job, scheduled)

    stack.api.done(stack.api.restore(stack.api.job(backup.job)))
    assert backup.is_back()
    again = all_done(stack)
    assert rebuild(stack, lost_at) == 0
    assert {job["jobId"] for job in all_done(stack)} >= {job["jobId"] for job in again}
    assert stack.api.job(backup.job) == {**stack.api.job(backup.job), **kept(backup.job)}
    assert check(stack) == 0


def test_backups_that_run_while_the_catalogue_is_rebuilt_are_not_disturbed(stack: Stack) -> None:
    kept_backups = back_up_each(stack, [[stack.site(size=800 + n)] for n in range(3)])
    lost_at = lose_database(stack)
    slow: Json = {"drip": {"bytesPerSecond": PART}}
    sites = [stack.site(size=3 * PART, **(slow if n % 2 else {})) for n in range(6)]
    jobs = [stack.api.create(site) for site in sites]
    for _ in range(3):
        assert rebuild(stack, lost_at) == 0
    for job, site in zip(jobs, sites, strict=True):
        done = stack.api.done(job)
        stack.bucket.assert_holds(done, site)
        assert rebuild(stack, lost_at) == 0
        assert stack.api.job(done) == done
    for backup in kept_backups:
        assert kept(stack.api.job(backup.job)) == kept(backup.job)
    assert check(stack) == 0


def test_what_differs_is_named_and_the_exit_code_says_so(
    stack: Stack, capsys: pytest.CaptureFixture[str]
) -> None:
    backup = back_up(stack, stack.site(size=1000))
    assert check(stack) == 0
    stored = backup.job["tasks"]["site"]["object"]
    stack.bucket.remove(stored)
    capsys.readouterr()
    assert check(stack) == catalog.DIFFERS
    lines = [line for line in capsys.readouterr().out.splitlines() if "compared" not in line]
    assert lines == [f"object_missing: {stored['key']}: Version {stored['versionId']} is not there."]
    lost_at = lose_database(stack)
    assert rebuild(stack, lost_at) == catalog.DIFFERS, "it is left out, and named"
    assert stack.api.get(f"/backup/{backup.job['jobId']}").status_code == 404
