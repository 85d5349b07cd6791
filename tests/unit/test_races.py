"""Races and outages one by one, each at the very call where it hurts most."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from sitebackup.adapters.storage import Versions
from sitebackup.domain.check import Checked, check
from sitebackup.domain.errors import Conflict, Permanent, RepositoryUnavailable, Transient
from sitebackup.domain.events import PartUpdated, TaskEvent, UploadJobCreated, UploadPartCreated
from sitebackup.domain.job import UNFINISHED, Job, Status
from sitebackup.domain.plan import MAX_OBJECT_SIZE, MAX_PARTS
from sitebackup.domain.reason import Code
from sitebackup.services import sweep_jobs, work_off
from sitebackup.services.create_job import CreateBackup
from tests.unit.simulation import PART_SIZE, Crash, World, small_world
from tests.unit.twins import MemoryExport, some_bytes


@pytest.fixture(autouse=True, scope="module")
def _small_world() -> Iterator[None]:
    with small_world():
        yield


def a_world(*, size: int = 3 * PART_SIZE, ranged: bool = True, condition_first: bool = False) -> World:
    site = MemoryExport(some_bytes("site", size), ranged=ranged)
    return World(sites={"site": site}, condition_first=condition_first)


def deliver_all(world: World, *kinds: type[TaskEvent]) -> None:
    """Every event of these kinds, also those that come meanwhile."""
    while events := [event for event in world.bus.bag if isinstance(event, kinds)]:
        world.bus.bag.remove(events[0])
        world.deliver(events[0])


def once_before(world: World, port: str, name: str, action: Callable[[], object]) -> None:
    """Does something just before the next such call."""
    gate = world.repository.gate
    done: list[bool] = []

    def spoilt[T](port_called: str, name_called: str, call: Callable[[], T]) -> T:
        if (port_called, name_called) == (port, name) and not done:
            done.append(True)
            action()
        return gate(port_called, name_called, call)

    world.set_gate(spoilt)


def failing(error: Exception) -> Callable[..., object]:
    def fail(*arguments: object) -> object:
        raise error

    return fail


@pytest.mark.parametrize("condition_first", [True, False])
def test_a_late_completion_leaves_the_object_of_the_upload_that_took_over(condition_first: bool) -> None:
    world = a_world(condition_first=condition_first)
    deliver_all(world, UploadJobCreated, UploadPartCreated)
    late = next(event for event in world.bus.bag if isinstance(event, PartUpdated))

    def planned_anew_and_done() -> None:
        world.sites["site"].change()
        world.history["site"].append(world.sites["site"].content)
        upload = world.job.tasks["site"].upload
        assert upload is not None
        world.process_provider.outcomes.replan_changed(late, upload.upload_id)
        world.finish()
        assert world.job.status is Status.DONE

    once_before(world, "storage", "complete", planned_anew_and_done)
    world.deliver(late)
    stored = world.job.tasks["site"].object
    assert stored is not None
    assert world.storage.head(stored.key, stored.version_id) == stored


def test_a_completion_that_always_fails_uses_up_the_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    world = a_world()
    monkeypatch.setattr(world.storage, "complete", failing(Transient("S3 answered SlowDown.")))
    world.finish()
    assert world.job.status is Status.FAILED
    assert world.job.reason is not None
    assert world.job.reason.code is Code.RETRIES_EXHAUSTED
    assert "SlowDown" in world.job.reason.message


def test_trouble_of_another_run_leaves_the_lease_of_the_reader() -> None:
    world = a_world(ranged=False)
    event = world.take(0)
    assert event is not None

    def two_runs() -> None:
        once_before(
            world, "exports", "read", lambda: world.process_provider.outcomes.trouble(event, error, 0)
        )

    error = Transient("db can't be reached.")
    two_runs()
    world.deliver(event)
    assert world.job.tasks["site"].upload is not None, "the reader lost its stream"
    world.finish()
    assert world.job.status is Status.DONE
    assert world.job.tasks["site"].runs == 1


@pytest.mark.parametrize(
    "error", [Transient("S3 answered SlowDown."), Permanent(Code.STORAGE_REFUSED, "No.")]
)
def test_a_late_object_that_cannot_be_removed_now_is_no_error(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    world = a_world(size=PART_SIZE - 1)
    late = world.take(0)
    assert late is not None

    def somebody_else() -> None:
        world.deliver(late)
        world.finish()
        monkeypatch.setattr(world.storage, "delete_version", failing(error))

    once_before(world, "storage", "put_object", somebody_else)
    world.process_provider(late, "late run", world.now + timedelta(minutes=14))  # type: ignore[arg-type]
    assert world.job.status is Status.DONE
    monkeypatch.undo()
    world.grow_old()
    stored = world.job.tasks["site"].object
    assert stored is not None
    assert [version for version, _ in world.storage.versions[stored.key]] == [stored.version_id]


@pytest.mark.parametrize("ranged", [True, False])
def test_an_export_that_s3_cannot_hold_fails_with_both_numbers(
    monkeypatch: pytest.MonkeyPatch, ranged: bool
) -> None:
    class Endless(bytes):
        def __len__(self) -> int:
            return MAX_OBJECT_SIZE + 1

    world = a_world()
    world.sites["site"].content, world.sites["site"].ranged = Endless(b"abcd"), ranged
    world.finish()
    reason = world.job.reason
    assert reason is not None
    assert reason.code is Code.SIZE_LIMIT_EXCEEDED
    assert str(MAX_OBJECT_SIZE) in reason.message
    assert str(MAX_OBJECT_SIZE + 1) in reason.message


def add_job(world: World, number: int) -> str:
    create = replace(world.create_job, new_id=lambda: f"{number:024x}")
    return create(CreateBackup(user_id="a" * 24, site_id=f"{number:024x}"), None).id


@pytest.mark.parametrize("error", [Transient("S3 can't be reached."), ValueError("a bug")])
def test_more_clean_ups_than_a_page_that_fail_do_not_keep_the_pass_from_others(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    world = a_world()
    monkeypatch.setattr(work_off, "PAGE", 3)
    cancelled = [add_job(world, number) for number in range(1, 6)]
    for job_id in cancelled:
        world.change_job.cancel(job_id)
    world.pass_time(timedelta(minutes=1))
    world.cancel()
    world.pass_time(timedelta(seconds=world.policy.upload_grace_seconds + 1))
    at_key = world.storage.at_key

    def fail_but_for_the_last(key: str) -> Versions:
        if world.job_id not in key:
            raise error
        return at_key(key)

    monkeypatch.setattr(world.storage, "at_key", fail_but_for_the_last)
    world.clean_up()
    assert world.job.cleared_at is not None
    monkeypatch.undo()
    world.clean_up()
    assert not any(world.repository.jobs[job_id].get("clearedAt") for job_id in cancelled), "claimed still"
    world.pass_time(timedelta(minutes=11))
    world.clean_up()
    assert all(world.repository.jobs[job_id].get("clearedAt") for job_id in cancelled)


@pytest.mark.parametrize("error", [Conflict("busy"), ValueError("a bug")])
def test_one_job_that_cannot_be_driven_does_not_stop_the_sweep(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    world = a_world()
    other = add_job(world, 99)
    world.bus.bag.clear()
    world.pass_time(timedelta(seconds=world.policy.start_seconds + 1))

    def spoilt(job: Job, *arguments: Any) -> Checked | None:
        if job.id == world.job_id:
            raise error
        return check(job, *arguments)

    monkeypatch.setattr(sweep_jobs, "check", spoilt)
    world.sweep()
    assert {event.job_id for event in world.bus.bag} == {other}


def test_a_sweep_without_mongo_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    world = a_world()
    monkeypatch.setattr(world.repository, "due", failing(RepositoryUnavailable("MongoDB does not answer.")))
    with pytest.raises(RepositoryUnavailable):
        world.sweep_jobs(world.now + timedelta(seconds=50))


def test_a_retry_plans_ranges_where_the_attempt_before_left_half_a_stream() -> None:
    world = a_world(ranged=False)
    once_before(world, "storage", "put_part", world.cancel)
    world.deliver(world.take(0))
    assert world.job.status is Status.CANCELLED
    world.sites["site"].ranged = True
    world.retry()
    world.finish()
    job = world.job
    assert job.status is Status.DONE
    world.grow_old()
    assert not world.storage.uploads


def test_nobody_waits_for_a_job_that_is_cancelled_before_it_starts() -> None:
    world = a_world()
    world.cancel()
    deliver_all(world, TaskEvent)
    assert world.job.status not in UNFINISHED
    assert not world.storage.uploads
    assert not world.storage.versions


def test_a_run_that_lost_its_lease_gives_its_upload_up_at_once() -> None:
    world = a_world()
    event = world.take(0)

    def another_run() -> None:
        world.pass_time(timedelta(seconds=world.policy.lease_seconds))
        world.sweep()
        deliver_all(world, UploadJobCreated)

    once_before(world, "storage", "create_upload", another_run)
    world.deliver(event)
    upload = world.job.tasks["site"].upload
    assert upload is not None
    assert list(world.storage.uploads) == [upload.upload_id]
    assert world.job.tasks["site"].runs == 2


def test_what_an_earlier_run_left_goes_as_soon_as_the_task_is_done() -> None:
    world = a_world(size=PART_SIZE - 1)
    event = world.take(0)

    def crash() -> None:
        raise Crash

    world.storage.put_object(world.job.key("site"), memoryview(b"old"))
    world.storage.create_upload(world.job.key("site"))
    once_before(world, "storage", "put_object", crash)
    world.deliver(event)
    world.finish()
    stored = world.job.tasks["site"].object
    assert stored is not None
    assert world.job.tasks["site"].runs == 2
    assert world.storage.at_key(stored.key) == ([], [stored.version_id])


def test_a_stream_that_says_that_it_has_too_many_parts_is_not_begun() -> None:
    world = a_world(size=MAX_PARTS * PART_SIZE + 1, ranged=False)
    deliver_all(world, UploadJobCreated)
    task = world.job.tasks["site"]
    assert task.reason is not None
    assert task.reason.code is Code.SIZE_LIMIT_EXCEEDED
    assert f"{MAX_PARTS * PART_SIZE + 1} bytes; as a stream the limit is" in task.reason.message
    assert not world.storage.uploads


def test_a_part_of_a_stream_that_s3_refuses_once_is_sent_again_from_memory() -> None:
    world = a_world(ranged=False)
    once_before(world, "storage", "put_part", failing(Transient("S3 answered SlowDown.")))
    opened: list[str] = []
    gate = world.repository.gate

    def counting[T](port: str, name: str, call: Callable[[], T]) -> T:
        if port == "exports" and name == "probe":
            opened.append(name)
        return gate(port, name, call)

    world.set_gate(counting)
    deliver_all(world, UploadJobCreated, PartUpdated)
    task = world.job.tasks["site"]
    assert (task.status, task.runs, len(opened)) == (Status.DONE, 1, 1)
