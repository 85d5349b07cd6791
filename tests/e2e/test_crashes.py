"""kill -9 of functions and services in the middle of the work: every job and restore still ends done, bytes equal."""

import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from local.services.service import Service
from mock_providers.client import MockSite
from tests.e2e.backups import back_up_each, behave
from tests.e2e.client import Json, json_of, wait_until
from tests.e2e.stack import PART, Stack

SLOW = {"bytesPerSecond": PART // 2}  # a part takes 2 s


def test_a_function_killed_in_the_middle_of_a_part_is_replaced(stack: Stack) -> None:
    site = stack.site(size=3 * PART, drip=SLOW)
    job = stack.api.create(site)
    stack.upload_id(job)
    stack.kill_busy("upload_part")
    done = stack.api.done(job)
    stack.bucket.assert_holds(done, site)
    stack.bucket.wait_clean(done)


def test_a_function_killed_in_the_middle_of_the_first_part_is_replaced(stack: Stack) -> None:
    site = stack.site(size=3 * PART, drip=SLOW)
    job = stack.api.create(site)
    stack.upload_id(job)
    stack.kill_busy("process_provider")
    done = stack.api.done(job)
    stack.bucket.assert_holds(done, site)
    stack.bucket.wait_clean(done)


def test_a_function_killed_in_the_middle_of_a_stream_is_replaced(stack: Stack) -> None:
    site = stack.site(size=2 * PART, noLength=True, drip=SLOW)
    job = stack.api.create(site)
    stack.upload_id(job)
    stack.kill_busy("process_provider")
    site.set(size=2 * PART, noLength=True)
    done = stack.api.done(job)
    stack.bucket.assert_holds(done, site)
    stack.bucket.wait_clean(done)


@pytest.mark.parametrize("name", ["kafka", "mongo", "s3"])
def test_a_service_killed_in_the_middle_of_jobs_and_restores_loses_nothing(stack: Stack, name: str) -> None:
    service: Service = getattr(stack, name)
    ranged = stack.site(size=4 * PART + 1, drip=SLOW)
    streamed = stack.site(size=2 * PART, noRange=True, drip=SLOW)
    small = stack.site(size=PART // 2, drip={"bytesPerSecond": PART // 8})
    sites = (ranged, streamed, small)
    backups = back_up_each(stack, [[stack.site(provider, 4 * PART)] for provider in ("site", "db")])
    for backup in backups:
        behave(backup.site, drip=SLOW)
    restores = [stack.api.restore(backup.job) for backup in backups]
    jobs = [stack.api.create(site) for site in sites]
    wait_until("bytes move", lambda: all(site.stats()["bytesSent"] > 0 for site in sites))
    wait_until("bytes move back", lambda: all(one.site.imports()["bytesReceived"] for one in backups))
    with stack.down(service):
        pass
    for site, job in zip(sites, jobs, strict=True):
        done = stack.api.done(job)
        stack.bucket.assert_holds(done, site)
        stack.bucket.wait_clean(done)
    for backup, restore in zip(backups, restores, strict=True):
        done = stack.api.done(restore)
        assert backup.is_back(), done
        assert backup.bytes_received() <= 1.1


def test_a_backup_is_accepted_while_kafka_is_down(stack: Stack) -> None:
    """By a process that knew the broker, and by one that never saw it."""
    sites = [stack.site(size=PART + 1), stack.site(size=1000)]
    stack.api.done(stack.api.create(stack.site()))
    jobs = []
    with stack.down(stack.kafka):
        jobs.append(_post_within_seconds(stack, sites[0], 4))
        for pid in stack.run.environments("create_job"):
            os.kill(pid, signal.SIGKILL)
        wait_until("the process is gone", lambda: not stack.run.environments("create_job"))
        jobs.append(_post_within_seconds(stack, sites[1], 8 + 3))  # a new process starts and connects
    for site, job in zip(sites, jobs, strict=True):
        stack.bucket.assert_holds(stack.api.done(job), site)


def _post_within_seconds(stack: Stack, site: MockSite, seconds: float) -> Json:
    body = {"userId": site.user_id, "siteId": site.site_id, "providers": ["site"]}
    answer = stack.api.post("/backup", body, timeout=seconds)
    assert answer.status_code == 202, answer.text
    return json_of(answer)


def test_without_mongodb_requests_are_told_to_come_again(stack: Stack) -> None:
    site = stack.site(size=1000)
    body = {"userId": site.user_id, "siteId": site.site_id, "providers": ["site"]}
    job = stack.api.done(stack.api.create(stack.site()))
    path = f"/backup/{job['jobId']}"
    requests_of_all_kinds: list[Callable[[], requests.Response]] = [
        lambda: stack.api.post("/backup", body),
        lambda: stack.api.get(path),
        lambda: stack.api.get(path, wait=25, since=job["version"], timeout=20),
        lambda: stack.api.get("/backup"),
        lambda: stack.api.post(f"{path}/cancel"),
        lambda: stack.api.get("/schedules"),
        lambda: stack.api.get(f"/sites/{site.site_id}/retention?userId={site.user_id}"),
    ]
    with stack.down(stack.mongo), ThreadPoolExecutor(len(requests_of_all_kinds)) as pool:
        answers = list(pool.map(lambda request: request(), requests_of_all_kinds))
    for answer in answers:
        _assert_unavailable(answer)
    stack.bucket.assert_holds(stack.api.done(stack.api.create(site)), site)


def _assert_unavailable(answer: requests.Response) -> None:
    assert answer.status_code == 503, answer.text
    assert int(answer.headers["retry-after"]) > 0
    assert answer.headers["content-type"].startswith("application/problem+json")
    assert answer.json()["type"] == "unavailable"
    assert "MongoDB" in answer.json()["detail"]
