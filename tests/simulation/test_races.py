"""Races and outages one by one, each at the very call where it hurts most."""

from collections.abc import Callable
from datetime import timedelta

import pytest

from sitebackup.backup.create_job import CreateBackup
from sitebackup.domain.errors import Conflict, Permanent, RepositoryUnavailable, Transient
from sitebackup.domain.events import PartUpdated, TaskEvent, UploadJobCreated, UploadPartCreated
from sitebackup.domain.job import UNFINISHED, Status
from sitebackup.domain.plan import MAX_OBJECT_SIZE, MAX_PARTS
from sitebackup.domain.reason import Code
from sitebackup.upkeep.work_off import PAGE
from tests.builders import BY_SERVICE
from tests.fakes.exports import MemoryExport
from tests.fakes.readers import some_bytes
from tests.simulation.service import (
    CLEAN_UP_INTERVAL,
    INVOCATION,
    PART_SIZE,
    PASS,
    USER_ID,
    Crash,
    SimulatedService,
)

SMALL = PART_SIZE - 1
"""Bytes of an export that is one PutObject."""


def simulated(
    *, size: int = 3 * PART_SIZE, ranged: bool = True, condition_first: bool = False
) -> SimulatedService:
    """The service with a job of one provider."""
    export = MemoryExport(some_bytes("site", size), ranged=ranged)
    return SimulatedService({"site": export}, condition_first=condition_first)


def failing(error: BaseException) -> Callable[[], object]:
    def fail() -> object:
        raise error

    return fail


@pytest.mark.parametrize("condition_first", [True, False])
def test_a_late_completion_leaves_the_object_of_the_upload_that_took_over(condition_first: bool) -> None:
    service = simulated(condition_first=condition_first)
    service.deliver_all(UploadJobCreated, UploadPartCreated)
    late = service.take_of(PartUpdated)
    assert late is not None

    def planned_anew_and_done() -> None:
        service.change_exports()
        upload = service.job.tasks["site"].upload
        assert upload is not None
        service.task_recorder.replan_changed(late.task, upload.upload_id)
        service.finish()
        assert service.job.status is Status.DONE

    service.before("storage.complete", planned_anew_and_done, times=1)
    service.deliver(late)
    stored = service.job.tasks["site"].object
    assert stored is not None
    found = service.storage.head(stored.key, stored.version_id)
    assert found is not None
    assert (found.size, found.checksum_crc64nvme) == (stored.size, stored.checksum_crc64nvme)


def test_a_completion_that_always_fails_uses_up_the_tries() -> None:
    service = simulated()
    service.before("storage.complete", failing(Transient("S3 answered SlowDown.")))
    service.finish()
    assert service.job.status is Status.FAILED
    assert service.job.reason is not None
    assert service.job.reason.code is Code.RETRIES_EXHAUSTED
    assert "SlowDown" in service.job.reason.message


def test_an_error_of_another_run_leaves_the_lease_of_the_reader() -> None:
    service = simulated(ranged=False)
    event = service.take_of(UploadJobCreated)
    assert event is not None
    error = Transient("db can't be reached.")
    service.before("exports.read", lambda: service.task_recorder.retry_later(event.task, error, 0), times=1)
    service.deliver(event)
    assert service.job.tasks["site"].upload is not None, "the reader lost its stream"
    service.finish()
    assert service.job.status is Status.DONE
    assert service.job.tasks["site"].runs == 1


def test_an_object_that_comes_after_another_run_has_finished_the_task_is_removed_at_once() -> None:
    service = simulated(size=SMALL)
    late = service.take_of(UploadJobCreated)
    service.before("storage.put_object", service.finish, times=1)
    service.deliver(late)
    assert service.job.status is Status.DONE
    stored = service.job.tasks["site"].object
    assert stored is not None
    assert list(service.storage.versions[stored.key]) == [stored.version_id]


@pytest.mark.parametrize(
    "error", [Transient("S3 answered SlowDown."), Permanent(Code.STORAGE_REFUSED, "No.")]
)
def test_a_late_object_that_cannot_be_removed_now_is_no_error(error: Exception) -> None:
    service = simulated(size=SMALL)
    late = service.take_of(UploadJobCreated)
    assert isinstance(late, UploadJobCreated)
    undisturbed = service.injector

    def somebody_else_is_quicker() -> None:
        service.deliver(late)
        service.finish()
        service.before("storage.delete_version", failing(error))

    service.before("storage.put_object", somebody_else_is_quicker, times=1)
    service.process_provider(late, "late run", service.now + INVOCATION)
    assert service.job.status is Status.DONE
    service.injector = undisturbed
    service.grow_old()
    stored = service.job.tasks["site"].object
    assert stored is not None
    assert list(service.storage.versions[stored.key]) == [stored.version_id]


@pytest.mark.parametrize("ranged", [True, False])
def test_an_export_that_s3_cannot_hold_fails_with_both_numbers(ranged: bool) -> None:
    class Endless(bytes):
        def __len__(self) -> int:
            return MAX_OBJECT_SIZE + 1

    service = simulated(ranged=ranged)
    service.served["site"].content = Endless(b"abcd")
    service.finish()
    reason = service.job.reason
    assert reason is not None
    assert reason.code is Code.SIZE_LIMIT_EXCEEDED
    assert str(MAX_OBJECT_SIZE) in reason.message
    assert str(MAX_OBJECT_SIZE + 1) in reason.message


def job_of_another_site(service: SimulatedService, number: int) -> str:
    """The id of a new job of a site of its own."""
    return service.create(CreateBackup(user_id=USER_ID, site_id=f"{number:024x}")).id


@pytest.mark.parametrize("error", [Transient("S3 can't be reached."), ValueError("a bug")])
def test_a_page_of_clean_ups_that_fail_does_not_keep_the_pass_from_others(error: Exception) -> None:
    service = simulated()
    cancelled = [job_of_another_site(service, number) for number in range(1, PAGE + 3)]
    for job_id in cancelled:
        service.change_job.cancel(BY_SERVICE, job_id)
    service.pass_time(timedelta(minutes=1))
    service.cancel()
    service.pass_time(timedelta(seconds=service.policy.upload_grace_seconds + 1))
    service.before("storage.at_key", failing(error), times=len(cancelled))
    service.clean_up()
    assert service.job.cleaned_at is not None
    service.clean_up()
    assert not any(service.stored(job_id).cleaned_at for job_id in cancelled), "claimed still"
    service.pass_time(CLEAN_UP_INTERVAL)
    service.clean_up()
    assert all(service.stored(job_id).cleaned_at for job_id in cancelled)


@pytest.mark.parametrize("error", [Conflict("busy"), ValueError("a bug")])
def test_one_job_that_cannot_be_checked_does_not_stop_the_sweep(error: Exception) -> None:
    service = simulated()
    service.bus.bag.clear()
    other = job_of_another_site(service, 99)
    service.bus.bag.clear()
    service.pass_time(timedelta(seconds=service.policy.start_seconds + 1))
    service.before(
        "jobs.replace", failing(error), times=1
    )  # the first job's, as it is the first that was due
    service.sweep()
    assert {event.task.job_id for event in service.bus.of_jobs} == {other}


def test_a_sweep_without_mongo_says_so() -> None:
    service = simulated()
    service.before("jobs.due", failing(RepositoryUnavailable("MongoDB does not answer.")))
    with pytest.raises(RepositoryUnavailable):
        service.sweep_jobs(service.now + PASS)


def test_a_retry_plans_ranges_where_the_attempt_before_left_half_a_stream() -> None:
    service = simulated(ranged=False)
    service.before("storage.put_part", service.cancel, times=1)
    service.deliver_next(1)
    assert service.job.status is Status.CANCELLED
    service.served["site"].ranged = True
    service.retry()
    service.finish()
    job = service.job
    assert job.status is Status.DONE
    service.grow_old()
    assert not service.storage.uploads


def test_nobody_waits_for_a_job_that_is_cancelled_before_it_starts() -> None:
    service = simulated()
    service.cancel()
    service.deliver_all(TaskEvent)
    assert service.job.status not in UNFINISHED
    assert not service.storage.uploads
    assert not service.storage.versions


def test_a_run_that_lost_its_lease_gives_its_upload_up_at_once() -> None:
    service = simulated()
    event = service.take(0)

    def another_run() -> None:
        service.pass_time(timedelta(seconds=service.policy.lease_seconds))
        service.sweep()
        service.deliver_all(UploadJobCreated)

    service.before("storage.create_upload", another_run, times=1)
    service.deliver(event)
    upload = service.job.tasks["site"].upload
    assert upload is not None
    assert list(service.storage.uploads) == [upload.upload_id]
    assert service.job.tasks["site"].runs == 2


def test_what_an_earlier_run_left_goes_as_soon_as_the_task_is_done() -> None:
    service = simulated(size=SMALL)
    event = service.take(0)
    service.storage.put_object(service.job.key("site"), memoryview(b"old"))
    service.storage.create_upload(service.job.key("site"))
    service.before("storage.put_object", failing(Crash()), times=1)
    service.deliver(event)
    service.finish()
    stored = service.job.tasks["site"].object
    assert stored is not None
    assert service.job.tasks["site"].runs == 2
    assert service.storage.at_key(stored.key) == ([], [stored.version_id])


def test_a_stream_that_says_that_it_has_too_many_parts_is_not_begun() -> None:
    size = MAX_PARTS * PART_SIZE + 1
    service = simulated(size=size, ranged=False)
    service.deliver_all(UploadJobCreated)
    task = service.job.tasks["site"]
    assert task.reason is not None
    assert task.reason.code is Code.SIZE_LIMIT_EXCEEDED
    assert f"{size} bytes; as a stream the limit is" in task.reason.message
    assert not service.storage.uploads


def test_a_part_of_a_stream_that_s3_refuses_once_is_sent_again_from_memory() -> None:
    service = simulated(ranged=False)
    service.before("storage.put_part", failing(Transient("S3 answered SlowDown.")), times=1)
    service.deliver_all(UploadJobCreated, PartUpdated)
    task = service.job.tasks["site"]
    assert (task.status, task.runs) == (Status.DONE, 1)
    assert service.calls.count("exports.probe") == 1, "the export was opened again"
