"""Retry, clean-up, deletion and undeletion, one by one: what they keep, what they refuse, and who wins a race."""

from collections.abc import Callable
from datetime import timedelta
from functools import partial

import pytest

from sitebackup.domain import lifecycle
from sitebackup.domain.change import Change
from sitebackup.domain.errors import StateForbids
from sitebackup.domain.job import DeleteCause, Status, Task
from sitebackup.domain.policy import Policy
from tests.builders import BY_SERVICE
from tests.fakes.exports import MemoryExport
from tests.fakes.readers import some_bytes
from tests.simulation.service import PART_SIZE, START, SimulatedService

POLICY = Policy()
GRACE = timedelta(seconds=POLICY.upload_grace_seconds + 1)
DELETE_GRACE = timedelta(seconds=POLICY.delete_grace_seconds + 1)
DAY = timedelta(days=1)
ANOTHER_ID = "d" * 24


def simulated(*, parts: int = 4, providers: int = 1) -> SimulatedService:
    """The service with a job of so many providers, each export of so many parts."""
    names = ["site", "db"][:providers]
    return SimulatedService({name: MemoryExport(some_bytes(name, parts * PART_SIZE)) for name in names})


def at_storage_call(service: SimulatedService, number: int, action: Callable[[], object]) -> list[str]:
    """Does something just before that call of S3, counted from 0; answers the names of all calls."""
    inner, names = service.injector, list[str]()

    def counting[T](port: str, name: str, call: Callable[[], T]) -> T:
        if port == "storage":
            names.append(name)
            if len(names) == number + 1:
                action()
        return inner(port, name, call)

    service.injector = counting
    return names


def check_backup(service: SimulatedService) -> None:
    """The job is done, and what it recorded is there."""
    assert service.job.status is Status.DONE
    for name, task in service.job.tasks.items():
        assert task.object is not None
        found = service.storage.versions.get(task.object.key, {})
        assert task.object.version_id in found, f"the backup of {name} is lost"
        assert found[task.object.version_id] in service.history[name]


# --- retry


def test_a_retry_keeps_done_tasks_and_the_done_parts_of_the_others() -> None:
    parts = 8
    service = simulated(providers=2, parts=parts)
    service.deliver_all(provider="site")
    assert service.job.tasks["site"].status is Status.DONE
    service.deliver_next(3)
    service.cancel()
    before = service.job
    service.bus.bag.clear()
    service.retry()
    after = service.job
    assert after.attempt == 2
    assert after.tasks["site"] == before.tasks["site"]
    assert after.tasks["db"].upload == before.tasks["db"].upload is not None
    assert after.tasks["db"].progress == before.tasks["db"].progress
    upload = after.tasks["db"].upload
    assert upload is not None
    kept = service.parts.done(upload.upload_id)
    assert kept
    service.calls.clear()
    service.finish()
    check_backup(service)
    assert service.calls.count("storage.put_part") == parts - len(kept), "a part was moved twice"
    assert "storage.create_upload" not in service.calls


def test_a_retry_after_the_clean_up_starts_anew() -> None:
    service = simulated()
    service.deliver_next(2)
    service.cancel()
    service.grow_old()
    assert not service.storage.uploads
    assert service.job.cleaned_at is not None
    service.retry()
    task = service.job.tasks["site"]
    assert (task.upload, task.status, service.job.cleaning_at) == (None, Status.PENDING, None)
    service.finish()
    check_backup(service)


def test_a_retry_during_the_clean_up_is_refused_and_says_why() -> None:
    service = simulated()
    service.deliver_next(2)
    service.cancel()
    service.pass_time(GRACE)
    refused: list[StateForbids] = []

    def retry() -> None:
        with pytest.raises(StateForbids) as caught:
            service.change_job.retry(BY_SERVICE, service.job_id)
        refused.append(caught.value)

    at_storage_call(service, 1, retry)
    service.clean_up()
    assert "are being removed right now" in str(refused[0])
    service.change_job.retry(BY_SERVICE, service.job_id)
    service.finish()
    check_backup(service)


def test_a_clean_up_that_crashed_keeps_a_retry_waiting_but_not_for_ever() -> None:
    service = simulated()
    service.cancel()
    service.pass_time(GRACE)
    assert service.recorder.apply(service.job_id, lifecycle.begin_cleaning)
    with pytest.raises(StateForbids):
        service.change_job.retry(BY_SERVICE, service.job_id)
    service.pass_time(lifecycle.CLAIM)
    assert service.change_job.retry(BY_SERVICE, service.job_id).attempt == 2


@pytest.mark.parametrize("outcome", ["completed in the race", "parts"])
@pytest.mark.parametrize("call", range(8))
def test_a_retry_at_any_call_of_the_clean_up_loses_nothing(outcome: str, call: int) -> None:
    """The new attempt finds the same export, so it takes what is there for its own."""
    service = simulated()
    if outcome == "parts":
        service.deliver_next(3)
        service.cancel()
    else:
        undisturbed = service.injector
        service.after("storage.complete", service.cancel)
        service.finish()
        service.injector = undisturbed
    assert service.job.status is Status.CANCELLED
    service.pass_time(GRACE)

    def retry_and_finish() -> None:
        service.retry()
        for _ in range(20):
            service.deliver_next(len(service.bus.bag))

    at_storage_call(service, call, retry_and_finish)
    service.clean_up()
    if service.job.status is Status.CANCELLED:
        service.retry()
    service.finish()
    check_backup(service)
    service.grow_old()
    check_backup(service)
    assert not service.storage.uploads


def test_a_clean_up_is_for_the_attempt_that_was_seen() -> None:
    """The next attempt, ended as well by the time of the claim, has a grace of its own."""
    service = simulated()
    service.deliver_next(2)
    service.cancel()
    service.pass_time(GRACE)

    def another_attempt() -> None:
        service.retry()
        service.cancel()

    at_storage_call(service, 0, another_attempt)
    service.clean_up()
    assert (service.job.attempt, service.job.cleaning_at) == (2, None)
    upload = service.job.tasks["site"].upload
    assert upload is not None
    assert upload.upload_id in service.storage.uploads


# --- clean-up and deletion


def test_a_marked_job_still_gives_its_upload_up_when_a_retry_would_be_over() -> None:
    """A deletion that is far away must not keep uploads open until then (I9)."""
    service = simulated()
    service.deliver_next(2)
    service.cancel()
    service.change_job.delete(BY_SERVICE, service.job_id, START + 1000 * DAY)
    service.pass_time(GRACE)
    service.clean_up()
    assert not service.storage.uploads
    service.pass_time(900 * DAY)
    service.clean_up()
    assert service.job.deleted_at is None, "it went before its time"
    service.pass_time(100 * DAY + DELETE_GRACE)
    service.clean_up()
    service.clean_up()
    assert service.job.status is Status.DELETED


def test_a_marked_done_job_is_cleaned_all_the_same() -> None:
    service = simulated()
    service.deliver_next(1)
    service.recorder.apply(
        service.job_id,
        lambda job, moment: Change(job.replace(tasks={"site": job.tasks["site"].replace(runs=2)})),
    )
    service.finish()
    left = service.storage.create_upload(service.job.key("site"))
    service.change_job.delete(BY_SERVICE, service.job_id, START + 1000 * DAY)
    service.pass_time(GRACE)
    service.clean_up()
    assert left not in service.storage.uploads
    check_backup(service)


def test_a_deletion_soon_is_not_put_off_by_the_clean_up() -> None:
    service = simulated()
    service.deliver_next(2)
    service.cancel()
    service.pass_time(GRACE)
    service.change_job.delete(BY_SERVICE, service.job_id, None)
    service.clean_up()
    service.pass_time(DELETE_GRACE)
    service.clean_up()
    assert service.job.status is Status.DELETED
    assert service.job.deleted_at == service.now


def test_a_deleted_backup_can_be_taken_back_until_its_grace_is_over() -> None:
    service = simulated()
    service.finish()
    key = service.job.key("site")
    service.change_job.delete(BY_SERVICE, service.job_id, None)
    service.pass_time(DELETE_GRACE - timedelta(seconds=2))
    service.clean_up()
    check_backup(service)
    service.change_job.undelete(BY_SERVICE, service.job_id)
    service.pass_time(30 * DAY)
    service.clean_up()
    check_backup(service)
    service.change_job.delete(BY_SERVICE, service.job_id, service.now + DAY)
    service.pass_time(DAY + DELETE_GRACE)
    service.clean_up()
    assert service.job.status is Status.DELETED
    assert not service.storage.versions[key]
    with pytest.raises(StateForbids):
        service.change_job.undelete(BY_SERVICE, service.job_id)
    with pytest.raises(StateForbids):
        service.change_job.retry(BY_SERVICE, service.job_id)
    service.pass_time(timedelta(days=POLICY.completed_record_days + 1))
    service.clean_up()
    assert service.jobs.get(service.job_id) is None


@pytest.mark.parametrize("call", range(4))
def test_once_the_removal_is_claimed_there_is_no_way_back(call: int) -> None:
    """At each of its calls somebody wants the backup back: either it is whole then, or they are told no."""
    service = simulated()
    service.finish()
    service.change_job.delete(BY_SERVICE, service.job_id, None)
    service.pass_time(DELETE_GRACE)
    answers: list[bool] = []

    def undelete() -> None:
        try:
            service.change_job.undelete(BY_SERVICE, service.job_id)
            answers.append(True)
        except StateForbids:
            answers.append(False)

    calls = at_storage_call(service, call, undelete)
    service.clean_up()
    if call < len(calls):
        assert answers == [False]
    assert service.job.status is Status.DELETED


def about_to_be_removed() -> SimulatedService:
    """The one backup has expired, and the grace after that is over."""
    policy = Policy(parts_in_flight=3, keep_newest=0)
    service = SimulatedService({"site": MemoryExport(some_bytes("site", PART_SIZE))}, policy=policy)
    service.finish()
    expire = partial(lifecycle.mark_deleted, at=service.now, cause=DeleteCause.EXPIRED)
    assert service.recorder.apply(service.job_id, expire)
    service.pass_time(DELETE_GRACE)
    return service


def test_a_link_that_is_given_while_a_pass_decides_keeps_the_data_until_it_is_over() -> None:
    service = about_to_be_removed()
    service.before(
        "jobs.replace", lambda: service.create_download(BY_SERVICE, service.job_id, "site"), times=1
    )
    service.clean_up()
    ((_, link),) = service.links.given
    check_backup(service)
    service.pass_time(lifecycle.CLAIM)
    service.clean_up()
    check_backup(service)
    service.clock.advance_to(link.expires_at)
    service.clean_up()
    check_backup(service)
    service.clock.advance_to(max(service.job.pins.values()))
    service.clean_up()
    assert service.job.status is Status.DELETED


@pytest.mark.parametrize("call", ["storage.at_key", "storage.delete_version"])
def test_no_link_is_given_once_the_removal_has_begun(call: str) -> None:
    service = about_to_be_removed()
    refused: list[StateForbids] = []

    def download() -> None:
        with pytest.raises(StateForbids) as caught:
            service.create_download(BY_SERVICE, service.job_id, "site")
        refused.append(caught.value)

    service.before(call, download, times=1)
    service.clean_up()
    assert str(refused[0]).endswith("its data is being removed.")
    assert service.links.given == []
    assert service.job.status is Status.DELETED


def test_a_deletion_waits_for_a_reader_that_renews_its_pin_and_goes_on_when_that_is_taken_out() -> None:
    service = simulated()
    service.finish()
    service.change_job.delete(BY_SERVICE, service.job_id, None)
    for _ in range(3):
        pin = partial(lifecycle.pin, owner="a restore", until=service.now + DELETE_GRACE + DAY)
        assert service.recorder.apply(service.job_id, pin)
        service.pass_time(DELETE_GRACE)
        service.clean_up()
        check_backup(service)
    assert service.recorder.apply(service.job_id, partial(lifecycle.unpin, owner="a restore"))
    service.clean_up()
    assert service.job.status is Status.DELETED


def test_the_pin_of_a_reader_that_died_ends_by_itself() -> None:
    service = simulated()
    service.finish()
    until = service.now + DELETE_GRACE + DAY
    assert service.recorder.apply(service.job_id, partial(lifecycle.pin, owner="a restore", until=until))
    service.change_job.delete(BY_SERVICE, service.job_id, None)
    service.pass_time(DELETE_GRACE)
    service.clean_up()
    assert service.job.clean_up_at == until, "it is looked at again when the pin is over, and not before"
    service.clock.advance_to(until)
    service.clean_up()
    assert service.job.status is Status.DELETED


def test_a_removal_that_began_is_finished_even_if_the_backup_is_the_newest_by_then() -> None:
    """Half a backup protects nobody."""
    service = simulated()
    service.finish()
    half_removed = {
        "delete_at": START,
        "delete_cause": DeleteCause.EXPIRED,
        "removing_at": START,
        "clean_up_at": START,
    }
    gone = service.recorder.apply(service.job_id, lambda job, moment: Change(job.replace(**half_removed)))
    assert gone is not None
    assert service.jobs.holds_newest_good(gone.after)
    service.clean_up()
    assert service.job.status is Status.DELETED


def test_the_newest_backup_is_the_one_that_got_done_last() -> None:
    """A job that was retried holds newer data than one that was created and done in between."""
    service = simulated()
    service.deliver_next(2)
    service.cancel()
    between = service.job.replace(
        id=ANOTHER_ID,
        status=Status.DONE,
        reason=None,
        version=1,
        attempt=1,
        tasks={"site": Task(status=Status.DONE, finished_at=service.now + DAY)},
        finished_at=service.now + DAY,
    )
    service.jobs.put(between)
    service.pass_time(2 * DAY)
    service.retry()
    service.finish()
    check_backup(service)
    assert service.jobs.holds_newest_good(service.job)
    assert not service.jobs.holds_newest_good(between)


def test_an_expiry_asks_for_the_newest_good_at_its_mark_and_at_its_removal() -> None:
    service = simulated(providers=2)
    service.finish()
    done = service.job.replace(expires_after_days=1, clean_up_at=service.now)
    tasks = {name: task.replace(finished_at=service.now + DAY) for name, task in done.tasks.items()}
    service.jobs.put(done)
    service.jobs.put(done.replace(id=ANOTHER_ID, tasks=tasks, clean_up_at=None))
    for span, reads in ((DAY / 2, 0), (DAY / 2, 1), (DELETE_GRACE / 2, 1), (DELETE_GRACE / 2, 2)):
        service.pass_time(span)
        service.clean_up()
        assert service.calls.count("jobs.holds_newest_good") == reads
    assert service.job.status is Status.DELETED
