"""Two workers on one piece of work: each race is held open by pausing a process at the boundary."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from mock_providers.client import MockSite
from sitebackup.domain.events import PartUpdated, TaskUpdated, UploadJobCreated, UploadPartCreated
from sitebackup.domain.task_ref import TaskRef
from tests.e2e.client import Json, key, wait_until
from tests.e2e.stack import PART, Stack

# Shorter than an export may stay silent: what is paused in it goes on as if nothing had been.
PAUSE = {"seconds": 4, "times": 1}


def _created(job: Json, redelivery: int = 0) -> UploadJobCreated:
    return UploadJobCreated(task=_task(job), redelivery=redelivery)


def _task(job: Json) -> TaskRef:
    return TaskRef(job_id=job["jobId"], attempt=job["attempt"], provider="site")


@contextmanager
def _second_run(stack: Stack, job: Json, site: MockSite) -> Iterator[None]:
    """process_provider is paused while it waits for the export; when its lease is over a second run takes over."""
    wait_until("the first run waits for the export", lambda: site.stats()["concurrent"] == 1)

    def taken_over() -> bool:
        stack.emit(_created(job, redelivery=1))  # as the sweep does, which is behind the paused process
        return bool(site.stats()["requests"] > 1)

    with stack.paused("process_provider"):
        wait_until("the lease is over", taken_over, every=0.5)
        yield


def test_of_two_runs_that_open_the_export_one_uploads(stack: Stack) -> None:
    refused = {
        "from": 1,
        "code": 503,
        "retryAfter": 11,
    }  # so that only part 1 can be moved until it is lifted
    site = stack.site(size=3 * PART, slowFirstByte=PAUSE, statusOnRange=refused)
    job = stack.api.create(site)
    with _second_run(stack, job, site):
        winner = stack.upload_id(job)
    stack.drain()
    assert stack.bucket.uploads(key(job, "site")) == [winner], "the first run took over, or left its upload"
    site.set(size=3 * PART)
    stack.emit(*[UploadPartCreated(upload_id=winner, number=number, task=_task(job)) for number in (2, 3)])
    done = stack.api.done(job)
    stack.bucket.assert_holds(done, site)
    stack.bucket.wait_clean(done)


def test_a_run_that_wakes_up_after_the_job_is_done_changes_nothing(stack: Stack) -> None:
    site = stack.site(size=3 * PART, slowFirstByte=PAUSE)
    job = stack.api.create(site)
    with _second_run(stack, job, site):
        done = stack.api.done(job)
    stack.drain()
    stack.bucket.wait_clean(done)
    after = stack.api.job(job)
    assert after["tasks"] == done["tasks"]
    stack.bucket.assert_holds(after, site)


def test_of_two_runs_that_put_a_small_export_one_object_stays(stack: Stack) -> None:
    site = stack.site(size=PART // 2, hang={"afterBytes": PART // 4, **PAUSE})
    job = stack.api.create(site)
    with _second_run(stack, job, site):
        done = stack.api.done(job)
    stack.drain()
    stack.bucket.wait_clean(done)
    stack.bucket.assert_holds(stack.api.job(job), site)


def test_of_two_readers_of_a_stream_only_the_one_with_the_lease_goes_on(stack: Stack) -> None:
    site = stack.site(size=3 * PART, noRange=True, hang={"afterBytes": 2 * PART, **PAUSE})
    job = stack.api.create(site)
    wait_until("the stream is read", lambda: site.stats()["bytesSent"] >= 2 * PART)
    with _second_run(stack, job, site):
        done = stack.api.done(job)
    stack.drain()
    stack.bucket.wait_clean(done)
    after = stack.api.job(job)
    assert after["tasks"] == done["tasks"]
    stack.bucket.assert_holds(after, site)


def test_a_record_that_is_delivered_again_while_its_stream_is_read_opens_no_second_one(stack: Stack) -> None:
    site = stack.site(size=4 * PART, noRange=True, drip={"bytesPerSecond": PART})
    job = stack.api.create(site)
    wait_until("the stream is read", lambda: site.stats()["bytesSent"] > 0)
    stack.upload_id(job)
    stack.emit(*[_created(job, tried) for tried in (0, 0, 1)])
    done = stack.api.done(job)
    stack.bucket.assert_holds(done, site)
    assert site.stats()["requests"] == 1


def test_a_part_that_is_delivered_again_around_completion_changes_nothing(stack: Stack) -> None:
    site = stack.site(size=3 * PART, statusOnRange={"from": 2 * PART, "code": 503, "times": 4})
    job = stack.api.create(site)
    upload = stack.upload_id(job)
    numbers = (1, 2, 3, 3, 2, 1)
    parts = [UploadPartCreated(upload_id=upload, number=number, task=_task(job)) for number in numbers]
    updates = [PartUpdated(upload_id=upload, task=_task(job))] * 3
    stack.emit(*parts, *updates)
    done = stack.api.done(job)
    stack.bucket.assert_holds(done, site)
    stack.emit(_created(job), *parts, *updates, *[TaskUpdated(task=_task(job))] * 2)
    stack.drain()
    stack.bucket.wait_clean(done)
    assert stack.api.job(job)["tasks"] == done["tasks"]


def test_a_part_that_is_sent_after_completion_changes_nothing(stack: Stack) -> None:
    site = stack.site(size=3 * PART, drip={"bytesPerSecond": PART // 3})
    job = stack.api.create(site)
    upload = stack.upload_id(job)
    with stack.paused("upload_part"):  # in the middle of its parts: others move them
        site.set(size=3 * PART)
        stack.emit(
            *[UploadPartCreated(upload_id=upload, number=number, task=_task(job)) for number in (2, 3)]
        )
        done = stack.api.done(job)
    stack.drain()
    stack.bucket.wait_clean(done)
    after = stack.api.job(job)
    assert after["tasks"] == done["tasks"]
    stack.bucket.assert_holds(after, site)


def test_the_sweep_does_not_fail_a_part_that_is_only_slow(stack: Stack) -> None:
    """Each part takes longer than a stall does: it is emitted again while it is moved."""
    site = stack.site(size=2 * PART, drip={"bytesPerSecond": PART // 7})
    job = stack.api.done(stack.api.create(site))
    stack.bucket.assert_holds(job, site)
    stack.bucket.wait_clean(job)


@pytest.mark.parametrize("lost", [1, 4], ids=["once", "until the retries in place are over"])
def test_the_answer_to_complete_may_be_lost(stack: Stack, lost: int) -> None:
    site = stack.site(size=2 * PART + 1, statusOnRange={"from": 1, "code": 503, "times": 2})
    job = stack.api.create(site)
    path = f"/backups/{key(job, 'site')}"
    stack.proxy.lost_answers[path] = lost
    done = stack.api.done(job)
    assert stack.proxy.completes[path] >= 1
    assert stack.proxy.lost_answers[path] < lost, "no answer was lost"
    assert stack.proxy.parts[path] < 2 * 3, "all parts were moved again"
    stack.bucket.assert_holds(done, site)
    stack.bucket.wait_clean(done)
