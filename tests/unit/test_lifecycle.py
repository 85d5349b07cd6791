"""Retry, release, deletion and undeletion, one by one: what they keep, what they refuse, and who wins a race."""

from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest

from sitebackup.domain import lifecycle, transitions
from sitebackup.domain.job import FINISHED, DeleteCause, Job, Status, Task
from sitebackup.domain.policy import Policy
from sitebackup.domain.reason import Code, Reason
from sitebackup.errors import StateForbids
from tests.unit.simulation import PART_SIZE, START, World, small_world
from tests.unit.twins import MemoryExport, some_bytes

POLICY = Policy()
GRACE = timedelta(seconds=POLICY.upload_grace_seconds + 1)
DELETE_GRACE = timedelta(seconds=POLICY.delete_grace_seconds + 1)
DAY = timedelta(days=1)


@pytest.fixture(autouse=True, scope="module")
def _small_world() -> Iterator[None]:
    with small_world():
        yield


def a_world(*, parts: int = 4, providers: int = 1, ranged: bool = True) -> World:
    names = ["site", "db"][:providers]
    return World(
        sites={name: MemoryExport(some_bytes(name, parts * PART_SIZE), ranged=ranged) for name in names}
    )


def at_storage_call(world: World, number: int, action: Callable[[], object]) -> list[str]:
    """Does something just before that call of S3, counted from 0; answers the names of all calls."""
    gate, names = world._gate, list[str]()

    def counting[T](port: str, name: str, call: Callable[[], T]) -> T:
        names.append(name)
        if len(names) == number + 1:
            action()
        return gate(port, name, call)

    world.storage.gate = counting
    return names


def deliver(world: World, count: int) -> None:
    for _ in range(count):
        world.deliver(world.take(0))


def check_backup(world: World) -> None:
    """The job is done, and what it recorded is there."""
    assert world.job.status is Status.DONE
    for name, task in world.job.tasks.items():
        assert task.object is not None
        found = dict(world.storage.versions.get(task.object.key, []))
        assert task.object.version_id in found, f"the backup of {name} is lost"
        assert found[task.object.version_id] in world.history[name]


# --- retry


def test_a_retry_keeps_done_tasks_and_the_done_parts_of_the_others() -> None:
    world = a_world(providers=2, parts=8)
    while world.job.tasks["site"].status is not Status.DONE:
        event = next(event for event in world.bus.bag if getattr(event, "provider", "") == "site")
        world.bus.bag.remove(event)
        world.deliver(event)
    deliver(world, 3)
    world.cancel()
    before = world.job
    world.bus.bag.clear()
    world.retry()
    after = world.job
    assert after.attempt == 2
    assert after.tasks["site"] == before.tasks["site"]
    assert after.tasks["db"].upload == before.tasks["db"].upload is not None
    assert after.tasks["db"].progress == before.tasks["db"].progress
    moved = world.repository.which_done({(after.tasks["db"].upload.upload_id, n) for n in range(1, 9)})  # type: ignore[union-attr]
    assert moved
    calls = at_storage_call(world, 10**6, lambda: None)
    world.finish()
    check_backup(world)
    assert calls.count("put_part") == 8 - len(moved), "a part was moved twice"
    assert "create_upload" not in calls


def test_after_the_release_a_retry_starts_anew() -> None:
    world = a_world()
    deliver(world, 2)
    world.cancel()
    world.grow_old()
    assert not world.storage.uploads
    assert world.job.cleared_at is not None
    world.retry()
    task = world.job.tasks["site"]
    assert (task.upload, task.status, world.job.upload_released_at) == (None, Status.PENDING, None)
    world.finish()
    check_backup(world)


def test_while_it_is_being_released_a_retry_is_refused_and_says_why() -> None:
    world = a_world()
    deliver(world, 2)
    world.cancel()
    world.pass_time(GRACE)
    refused: list[StateForbids] = []

    def retry() -> None:
        with pytest.raises(StateForbids) as caught:
            world.change_job.retry(world.job_id)
        refused.append(caught.value)

    at_storage_call(world, 1, retry)
    world.clean_up()
    assert "are being removed right now" in str(refused[0])
    world.change_job.retry(world.job_id)
    world.finish()
    check_backup(world)


def test_a_sweep_that_crashed_in_a_release_keeps_a_retry_waiting_but_not_for_ever() -> None:
    world = a_world()
    world.cancel()
    world.pass_time(GRACE)
    claimed = world.repository.change(world.job_id, lambda job: lifecycle.release(job, world.now))
    assert claimed is not None
    with pytest.raises(StateForbids):
        world.change_job.retry(world.job_id)
    world.pass_time(timedelta(seconds=lifecycle.CLAIM_SECONDS))
    assert world.change_job.retry(world.job_id).attempt == 2


@pytest.mark.parametrize("outcome", ["completed in the race", "parts"])
@pytest.mark.parametrize("call", range(8))
def test_a_retry_at_any_call_of_the_release_loses_nothing(outcome: str, call: int) -> None:
    """The new attempt finds the same export, so it takes what is there for its own."""
    world = a_world()
    if outcome == "parts":
        deliver(world, 3)
        world.cancel()
    else:
        gate = world._gate

        def cancel_after_complete[T](port: str, name: str, do: Callable[[], T]) -> T:
            answer = gate(port, name, do)
            if name == "complete":
                world.cancel()
            return answer

        world.storage.gate = cancel_after_complete
        world.finish()
    assert world.job.status is Status.CANCELLED
    world.pass_time(GRACE)

    def retry_and_finish() -> None:
        world.retry()
        for _ in range(20):
            deliver(world, len(world.bus.bag))

    at_storage_call(world, call, retry_and_finish)
    world.clean_up()
    if world.job.status is Status.CANCELLED:
        world.retry()
    world.finish()
    check_backup(world)
    world.grow_old()
    check_backup(world)
    assert not world.storage.uploads


def test_a_release_is_for_the_attempt_that_was_seen() -> None:
    """The next attempt, ended as well by the time of the claim, has a grace of its own."""
    world = a_world()
    deliver(world, 2)
    world.cancel()
    world.pass_time(GRACE)

    def another_attempt() -> None:
        world.retry()
        world.cancel()

    at_storage_call(world, 0, another_attempt)
    world.clean_up()
    assert (world.job.attempt, world.job.upload_released_at) == (2, None)
    upload = world.job.tasks["site"].upload
    assert upload is not None
    assert upload.upload_id in world.storage.uploads


# --- release and deletion


def test_a_marked_job_still_gives_its_upload_up_when_a_retry_would_be_over() -> None:
    """A deletion that is far away must not keep uploads open until then (I9)."""
    world = a_world()
    deliver(world, 2)
    world.cancel()
    world.change_job.delete(world.job_id, START + 1000 * DAY)
    world.pass_time(GRACE)
    world.clean_up()
    assert not world.storage.uploads
    world.pass_time(900 * DAY)
    world.clean_up()
    assert world.job.deleted_at is None, "it went before its time"
    world.pass_time(100 * DAY + DELETE_GRACE)
    world.clean_up()
    world.clean_up()
    assert world.job.status is Status.DELETED


def test_a_marked_done_job_is_tidied_all_the_same() -> None:
    world = a_world()
    event = world.take(0)
    world.deliver(event)
    world.repository.change(
        world.job_id,
        lambda job: job.replace(tasks={"site": job.tasks["site"].replace(runs=2)}),
    )
    world.finish()
    left = world.storage.create_upload(world.job.key("site"))
    world.change_job.delete(world.job_id, START + 1000 * DAY)
    world.pass_time(GRACE)
    world.clean_up()
    assert left not in world.storage.uploads
    check_backup(world)


def test_a_deletion_soon_is_not_put_off_by_the_release() -> None:
    world = a_world()
    deliver(world, 2)
    world.cancel()
    world.pass_time(GRACE)
    world.change_job.delete(world.job_id, None)
    world.clean_up()
    world.pass_time(DELETE_GRACE)
    world.clean_up()
    assert world.job.status is Status.DELETED
    assert world.job.deleted_at == world.now


def test_delete_grace_undelete_delete_and_gone() -> None:
    world = a_world()
    world.finish()
    key = world.job.key("site")
    world.change_job.delete(world.job_id, None)
    world.pass_time(DELETE_GRACE - timedelta(seconds=2))
    world.clean_up()
    check_backup(world)
    world.change_job.undelete(world.job_id)
    world.pass_time(30 * DAY)
    world.clean_up()
    check_backup(world)
    world.change_job.delete(world.job_id, world.now + DAY)
    world.pass_time(DAY + DELETE_GRACE)
    world.clean_up()
    assert world.job.status is Status.DELETED
    assert not world.storage.versions[key]
    with pytest.raises(StateForbids):
        world.change_job.undelete(world.job_id)
    with pytest.raises(StateForbids):
        world.change_job.retry(world.job_id)
    world.pass_time(timedelta(days=POLICY.completed_record_days + 1))
    world.clean_up()
    assert world.job_id not in world.repository.jobs


@pytest.mark.parametrize("call", range(4))
def test_once_the_removal_is_claimed_there_is_no_way_back(call: int) -> None:
    """At each of its calls somebody wants the backup back: either it is whole then, or they are told no."""
    world = a_world()
    world.finish()
    world.change_job.delete(world.job_id, None)
    world.pass_time(DELETE_GRACE)
    answers: list[bool] = []

    def undelete() -> None:
        try:
            world.change_job.undelete(world.job_id)
            answers.append(True)
        except StateForbids:
            answers.append(False)

    calls = at_storage_call(world, call, undelete)
    world.clean_up()
    if call < len(calls):
        assert answers == [False]
    assert world.job.status is Status.DELETED


def test_a_removal_that_began_is_finished_even_if_the_backup_is_the_newest_by_then() -> None:
    """Half a backup protects nobody."""
    world = a_world()
    world.finish()
    gone = world.repository.change(
        world.job_id,
        lambda job: job.replace(
            delete_at=START, delete_cause=DeleteCause.EXPIRED, removing_at=START, clean_up_at=START
        ),
    )
    assert gone is not None
    assert world.repository.holds_newest_good(gone.after)
    world.clean_up()
    assert world.job.status is Status.DELETED


def test_the_newest_backup_is_the_one_that_got_done_last() -> None:
    """A job that was retried holds newer data than one that was created and done in between."""
    world = a_world()
    deliver(world, 2)
    world.cancel()
    between = world.job.replace(
        id="d" * 24,
        status=Status.DONE,
        reason=None,
        version=1,
        attempt=1,
        tasks={"site": Task(status=Status.DONE, finished_at=world.now + DAY)},
        finished_at=world.now + DAY,
    )
    world.repository.add(between)
    world.pass_time(2 * DAY)
    world.retry()
    world.finish()
    check_backup(world)
    assert world.repository.holds_newest_good(world.job)
    assert not world.repository.holds_newest_good(between)


def test_an_expiry_reads_the_newest_good_once_a_provider_at_its_mark_and_at_its_removal() -> None:
    world = a_world(providers=2)
    world.finish()
    done = world.job.replace(expires_after_days=1, clean_up_at=world.now)
    tasks = {name: task.replace(finished_at=world.now + DAY) for name, task in done.tasks.items()}
    world.repository.jobs = {
        job.id: job.to_document() for job in (done, done.replace(id="d" * 24, tasks=tasks, clean_up_at=None))
    }
    reads = list[str]()

    def counting[T](port: str, name: str, call: Callable[[], T]) -> T:
        reads.extend([name] if name == "has_newer_good" else [])
        return call()

    world.repository.gate = counting
    for span, read in ((DAY / 2, 0), (DAY / 2, 2), (DELETE_GRACE / 2, 2), (DELETE_GRACE / 2, 4)):
        world.pass_time(span)
        world.clean_up()
        assert len(reads) == read
    assert world.job.status is Status.DELETED


# --- each change alone


def final(status: Status) -> Job:
    job = a_world().job
    if status is Status.DONE:
        return job.replace(status=status, active=None, finished_at=START)
    if status is Status.CANCELLED:
        changed = transitions.cancel(job, START, POLICY)
    elif status is Status.FAILED:
        reason = Reason(code=Code.EXPORT_NOT_FOUND, message="404")
        changed = transitions.fail_task(job, 1, "site", reason, START, POLICY)
    else:
        return job.replace(status=status, active=None if status is Status.DELETED else True)
    assert changed is not None
    return changed


@pytest.mark.parametrize("status", list(Status))
def test_what_is_allowed_in_which_state(status: Status) -> None:
    job = final(status)
    requested = DeleteCause.REQUESTED
    marked = job.replace(delete_at=START, delete_cause=requested)
    removing = marked.replace(removing_at=START)
    retryable = status in (Status.FAILED, Status.CANCELLED)
    assert (lifecycle.retry(job, START, POLICY) is not None) == retryable
    assert lifecycle.retry(marked, START, POLICY) is None
    assert (lifecycle.release(job, START) is not None) == retryable
    assert (lifecycle.mark_deleted(job, START, requested, START, POLICY) is not None) == (status in FINISHED)
    assert lifecycle.mark_deleted(removing, START, requested, START, POLICY) is None
    assert lifecycle.undelete(job, START) is None
    assert (lifecycle.undelete(marked, START) is not None) == (status in FINISHED)
    assert lifecycle.undelete(removing, START) is None
    assert lifecycle.begin_removal(job, START) is None
    assert (lifecycle.begin_removal(marked, START) is not None) == (status in FINISHED)
    assert lifecycle.removed(marked, START, POLICY) is None
    assert (lifecycle.removed(removing, START, POLICY) is not None) == (status in FINISHED)
    assert lifecycle.look_again(job, job.clean_up_at, START) is None


def test_a_backup_that_expired_and_was_taken_back_never_expires_again() -> None:
    job = final(Status.DONE).replace(expires_after_days=1)
    expired = lifecycle.mark_deleted(job, START, DeleteCause.EXPIRED, START, POLICY)
    asked = lifecycle.mark_deleted(job, START, DeleteCause.REQUESTED, START, POLICY)
    assert expired is not None
    assert asked is not None
    back = lifecycle.undelete(expired, START)
    assert back is not None
    assert back.expires_after_days is None
    again = lifecycle.undelete(asked, START)
    assert again is not None
    assert again.expires_after_days == 1
