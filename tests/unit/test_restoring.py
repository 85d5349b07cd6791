"""What may become of a restore and its tasks, transition by transition and in any order."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sitebackup.domain import restoring
from sitebackup.domain.change import Moment
from sitebackup.domain.checksum import CRC_OF_NOTHING
from sitebackup.domain.events import RestoreTaskCreated
from sitebackup.domain.job import UNFINISHED, Status
from sitebackup.domain.policy import Policy
from sitebackup.domain.reason import Code, Reason
from sitebackup.domain.restore import ACTIVE, Import, Restore, RestoreStatus, RestoreTask
from sitebackup.domain.restoring import Arrived, RestoreChange
from sitebackup.domain.task_ref import RestoreTaskRef
from sitebackup.domain.transitions.postponing import Postponed
from tests.builders import NOW, a_restore

POLICY = Policy(restore_seconds=3600)
MOMENT = Moment(NOW, POLICY)
ME, OTHER = "me", "another invocation"
URL = "https://provider.example/uploads/1"
FAILURE = Reason(code=Code.IMPORT_FAILED, message="The import failed.")
SIZE = 100
CRC = "AAAAAAAAAAE="


def at(seconds: float) -> Moment:
    return Moment(NOW + timedelta(seconds=seconds), POLICY)


def changed(change: RestoreChange | None) -> Restore:
    assert change is not None
    return change.restore.replace(version=change.restore.version + 1).with_next_check()


def ref(restore: Restore, provider: str = "site") -> RestoreTaskRef:
    return restore.ref.task(provider)


def running(**changes: Any) -> Restore:
    return changed(restoring.start_sending(a_restore(safety_backup=False, **changes), MOMENT))


def started(restore: Restore | None = None, provider: str = "site", moment: Moment = MOMENT) -> Restore:
    restore = restore or running()
    return changed(restoring.start_task(restore, moment, ref(restore, provider), 0, ME))


def sending(sent_to: int = 40, arrived: int = 0) -> Restore:
    """The worker is about to send the bytes up to `sent_to` of `site`."""
    restore = started()
    restore = changed(restoring.begin_import(restore, MOMENT, ref(restore), ME, URL))
    return changed(
        restoring.begin_slice(restore, MOMENT, ref(restore), ME, Arrived(arrived, CRC_OF_NOTHING), sent_to)
    )


def site(restore: Restore) -> RestoreTask:
    return restore.tasks["site"]


# --- the steps before anything is sent


def test_the_site_is_backed_up_before_anything_is_sent() -> None:
    restore = a_restore()
    assert restoring.start_sending(restore, MOMENT) is None
    backing_up = changed(restoring.back_up(restore, MOMENT, "f" * 24))
    assert (backing_up.status, backing_up.safety_job_id) == (RestoreStatus.BACKING_UP, "f" * 24)
    assert backing_up.next_check_at == NOW + timedelta(seconds=POLICY.start_seconds)
    assert restoring.back_up(backing_up, MOMENT, "e" * 24) is None
    assert changed(restoring.start_sending(backing_up, MOMENT)).status is RestoreStatus.RUNNING


def test_a_restore_without_safety_backup_makes_none() -> None:
    restore = a_restore(safety_backup=False)
    assert restoring.back_up(restore, MOMENT, "f" * 24) is None
    assert changed(restoring.start_sending(restore, MOMENT)).status is RestoreStatus.RUNNING


def test_the_deadline_counts_from_the_first_byte_and_each_task_gets_its_record() -> None:
    change = restoring.start_sending(a_restore(safety_backup=False), at(500))
    restore = changed(change)
    assert change is not None
    assert restore.started_at == NOW + timedelta(seconds=500)
    assert restore.deadline_at == NOW + timedelta(seconds=500 + 3600)
    assert change.events == [RestoreTaskCreated(task=ref(restore, name)) for name in ("site", "db")]
    assert restore.next_check_at == NOW + timedelta(seconds=500 + POLICY.start_seconds)


def test_a_failed_safety_backup_fails_the_restore_and_all_its_tasks() -> None:
    backing_up = changed(restoring.back_up(a_restore(), MOMENT, "f" * 24))
    failed = changed(restoring.give_up(backing_up, at(5), FAILURE))
    assert (failed.status, failed.reason, failed.finished_at) == ("failed", FAILURE, at(5).now)
    assert {(task.status, task.reason) for task in failed.tasks.values()} == {(Status.FAILED, FAILURE)}


def test_a_restore_that_sends_is_not_given_up() -> None:
    assert restoring.give_up(running(), MOMENT, FAILURE) is None


@pytest.mark.parametrize(
    ("restore", "seconds"),
    [(a_restore(), 3600 + POLICY.attempt_seconds), (a_restore(safety_backup=False), 3600), (running(), 3600)],
)
def test_the_backup_is_pinned_for_all_that_may_come(restore: Restore, seconds: int) -> None:
    assert restoring.pin_until(restore, MOMENT) == NOW + timedelta(seconds=seconds) + restoring.PIN_SPARE


def test_an_ended_restore_is_looked_at_until_its_pin_is_out() -> None:
    over = changed(restoring.cancel(a_restore(is_pinning=True), MOMENT))
    assert over.next_check_at == NOW + timedelta(seconds=POLICY.start_seconds)
    released = changed(restoring.release(over, MOMENT))
    assert (released.is_pinning, released.next_check_at) == (False, None)
    assert restoring.release(released, MOMENT) is None
    assert restoring.release(a_restore(is_pinning=True), MOMENT) is None


def test_the_record_of_a_restore_goes_after_its_days() -> None:
    over = changed(restoring.cancel(a_restore(), MOMENT))
    assert over.forget_at == NOW + timedelta(days=POLICY.completed_record_days)


def test_a_task_is_named_by_its_restore_its_attempt_and_its_provider() -> None:
    again = a_restore(attempt=2)
    named = again.ref.task("db")
    assert named == RestoreTaskRef(restore_id=again.id, attempt=2, provider="db")
    assert named.correlation == {"restoreId": again.id, "taskId": f"{again.id}/db", "attempt": "2"}


# --- one invocation at a time


def test_a_task_is_one_invocations_until_its_lease_is_over() -> None:
    restore = started()
    lease = site(restore).lease
    assert lease is not None
    assert (lease.owner, lease.until) == (ME, NOW + timedelta(seconds=POLICY.lease_seconds))
    assert restoring.start_task(restore, MOMENT, ref(restore), 1, OTHER) is None
    later = at(POLICY.lease_seconds)
    taken = changed(restoring.start_task(restore, later, ref(restore), 1, OTHER))
    zombie = ref(restore)
    for late in (
        restoring.renew_lease(taken, later, zombie, ME),
        restoring.begin_import(taken, later, zombie, ME, URL),
        restoring.begin_slice(taken, later, zombie, ME, Arrived(0, CRC_OF_NOTHING), 5),
        restoring.lose_import(taken, later, zombie, ME),
        restoring.postpone(taken, later, zombie, ME, Postponed("Late.", later.now)),
        restoring.await_import(taken, later, zombie, ME, later.now),
        restoring.hand_over(taken, later, zombie, ME),
        restoring.finish_task(taken, later, zombie, ME),
        restoring.fail_task(taken, later, zombie, ME, FAILURE),
    ):
        assert late is None


def test_a_record_of_an_earlier_attempt_or_try_does_nothing() -> None:
    restore = running()
    early = RestoreTaskRef(restore_id=restore.id, attempt=2, provider="site")
    assert restoring.start_task(restore, MOMENT, early, 0, ME) is None
    third = changed(restoring.start_task(restore, MOMENT, ref(restore), 3, ME))
    assert restoring.start_task(third, at(10**4), ref(restore), 2, OTHER) is None
    assert restoring.start_task(third, at(10**4), ref(restore), 3, OTHER) is not None


def test_a_task_that_waits_is_begun_when_its_wait_is_over() -> None:
    restore = started()
    waiting = changed(
        restoring.postpone(restore, MOMENT, ref(restore), ME, Postponed("No answer.", at(60).now))
    )
    assert waiting.next_check_at == at(60).now
    error = site(waiting).last_error
    assert error is not None
    assert (error.message, error.at, error.count) == ("No answer.", NOW, 1)
    assert restoring.start_task(waiting, at(59), ref(restore), 1, OTHER) is None
    assert restoring.start_task(waiting, at(60), ref(restore), 1, OTHER) is not None


# --- bytes


def test_what_may_have_been_sent_is_stored_before_it_is() -> None:
    upload = site(sending(sent_to=40)).upload
    assert upload == Import(url=URL, offset=0, sent_to=40)


def test_what_was_ever_sent_never_shrinks() -> None:
    restore = sending(sent_to=40)
    back = changed(restoring.begin_slice(restore, MOMENT, ref(restore), ME, Arrived(10, CRC), 20))
    assert site(back).upload == Import(url=URL, offset=10, crc64nvme=CRC, sent_to=40)


def test_bytes_that_arrive_set_the_tries_back() -> None:
    restore = sending()
    tried = restore.replace(tasks={**restore.tasks, "site": site(restore).replace(tries=4, stall_delay=120)})
    same = changed(restoring.begin_slice(tried, MOMENT, ref(restore), ME, Arrived(0, CRC_OF_NOTHING), 40))
    assert (site(same).tries, site(same).stall_delay) == (4, 120)
    moved = changed(restoring.begin_slice(tried, MOMENT, ref(restore), ME, Arrived(40, CRC), 80))
    assert (site(moved).tries, site(moved).stall_delay) == (0, 0)


def test_an_invocation_that_ends_hands_over_by_a_record() -> None:
    restore = sending()
    change = restoring.hand_over(restore, at(700), ref(restore), ME)
    handed = changed(change)
    assert change is not None
    assert change.events == [RestoreTaskCreated(task=ref(restore))]
    assert site(handed).lease is None
    assert site(handed).next_check_at == at(700 + POLICY.start_seconds).now


def test_a_lost_upload_is_begun_anew_a_few_times_at_most() -> None:
    restore = sending()
    for losses in range(1, POLICY.max_tries):
        restore = changed(restoring.lose_import(restore, MOMENT, ref(restore), ME))
        assert (site(restore).upload, site(restore).losses) == (None, losses)
        restore = changed(restoring.begin_import(restore, MOMENT, ref(restore), ME, URL))
    failed = changed(restoring.lose_import(restore, MOMENT, ref(restore), ME))
    reason = site(failed).reason
    assert reason is not None
    assert (site(failed).status, reason.code) == (Status.FAILED, Code.RETRIES_EXHAUSTED)


# --- the end


def test_a_restore_is_done_when_its_last_task_is() -> None:
    restore = sending(sent_to=SIZE)
    one = changed(restoring.finish_task(restore, at(1), ref(restore), ME))
    assert (one.status, site(one).status, site(one).bytes_done) == ("running", Status.DONE, SIZE)
    assert site(one).next_check_at is None
    other = changed(restoring.start_task(one, at(1), ref(one, "db"), 0, ME))
    other = changed(restoring.begin_import(other, at(1), ref(one, "db"), ME, URL))
    done = changed(restoring.finish_task(other, at(2), ref(one, "db"), ME))
    assert (done.status, done.reason, done.finished_at) == ("done", None, at(2).now)


def test_siblings_of_a_failed_task_go_on_to_their_own_end() -> None:
    restore = started()
    failed = changed(restoring.fail_task(restore, at(1), ref(restore), ME, FAILURE))
    assert (failed.status, failed.tasks["db"].status) == ("running", Status.PENDING)
    other = started(failed, "db", at(1))
    other = changed(restoring.begin_import(other, at(1), ref(other, "db"), ME, URL))
    ended = changed(restoring.finish_task(other, at(2), ref(other, "db"), ME))
    assert (ended.status, ended.reason) == ("failed", FAILURE)
    assert ended.tasks["db"].status is Status.DONE


def test_a_cancel_ends_what_the_providers_have_not_got_whole() -> None:
    cancelled = changed(restoring.cancel(sending(sent_to=SIZE - 1), at(1)))
    assert (cancelled.status, cancelled.finished_at) == ("cancelled", at(1).now)
    assert {task.status for task in cancelled.tasks.values()} == {Status.CANCELLED}


def test_a_cancel_lets_a_task_end_whose_last_byte_may_be_on_its_way() -> None:
    restore = changed(restoring.cancel(sending(sent_to=SIZE), at(1)))
    assert (restore.status, site(restore).status) == ("running", Status.RUNNING)
    assert restore.tasks["db"].status is Status.CANCELLED
    assert restoring.cancel(restore, at(2)) is None
    ended = changed(restoring.finish_task(restore, at(3), ref(restore), ME))
    assert (ended.status, site(ended).status) == ("cancelled", Status.DONE)


def test_a_restore_that_is_over_can_not_be_cancelled() -> None:
    cancelled = changed(restoring.cancel(running(), MOMENT))
    assert restoring.cancel(cancelled, MOMENT) is None


def test_a_restore_times_out_at_its_deadline_and_tells_what_may_have_been_imported() -> None:
    restore = sending(sent_to=SIZE)
    assert restoring.time_out(restore, at(3599)) is None
    late = changed(restoring.time_out(restore, at(3600)))
    assert late.status is RestoreStatus.FAILED
    codes = {name: task.reason.code for name, task in late.tasks.items() if task.reason}
    assert codes == {"site": Code.IMPORT_UNKNOWN, "db": Code.TIMED_OUT}
    assert restoring.time_out(a_restore(), at(10**6)) is None


# --- retry


def test_a_retry_keeps_what_is_done_and_goes_on_with_what_was_cut_off() -> None:
    restore = started(sending(), "db")
    restore = changed(restoring.begin_import(restore, MOMENT, ref(restore, "db"), ME, URL))
    restore = changed(restoring.finish_task(restore, MOMENT, ref(restore, "db"), ME))
    again = changed(restoring.retry(changed(restoring.cancel(restore, MOMENT)), at(9)))
    assert (again.status, again.attempt, again.reason, again.finished_at) == ("pending", 2, None, None)
    assert (again.safety_job_id, again.is_pinning, again.forget_at) == (None, True, None)
    assert again.tasks["db"].status is Status.DONE
    assert (site(again).status, site(again).upload) == (Status.PENDING, site(restore).upload)
    assert site(again).losses == 0


def test_a_retry_waits_until_what_the_attempt_before_held_is_released() -> None:
    over = changed(restoring.cancel(a_restore(is_pinning=True), MOMENT))
    assert restoring.retry(over, MOMENT) is None
    assert restoring.retry(changed(restoring.release(over, MOMENT)), MOMENT) is not None


@pytest.mark.parametrize("code", [code for code in Code if code not in restoring.GOES_ON])
def test_a_retry_after_what_spoils_an_upload_begins_a_new_one(code: Code) -> None:
    restore = sending()
    failed = changed(
        restoring.fail_task(restore, MOMENT, ref(restore), ME, Reason(code=code, message="Spoilt."))
    )
    over = changed(restoring.cancel(failed, MOMENT))
    assert site(changed(restoring.retry(over, MOMENT))).upload is None


@pytest.mark.parametrize("sent_to", [SIZE - 1, SIZE])
def test_a_retry_after_a_refusal_goes_on_even_if_that_was_of_the_last_bytes(sent_to: int) -> None:
    """The provider tells how many it has. If it does not know the upload any longer, that is unknown."""
    restore = sending(sent_to=sent_to)
    refused = Reason(code=Code.IMPORT_FORBIDDEN, message="site answered 403.")
    failed = changed(restoring.fail_task(restore, MOMENT, ref(restore), ME, refused))
    over = changed(restoring.cancel(failed, MOMENT))
    assert site(changed(restoring.retry(over, MOMENT))).upload == site(restore).upload


@pytest.mark.parametrize("safety_backup", [True, False])
def test_an_attempt_that_does_not_send_yet_can_be_stopped_though_an_earlier_one_sent_all(
    safety_backup: bool,
) -> None:
    restore = sending(sent_to=SIZE).replace(safety_backup=safety_backup)
    refused = Reason(code=Code.IMPORT_FORBIDDEN, message="site answered 403.")
    failed = changed(restoring.fail_task(restore, MOMENT, ref(restore), ME, refused))
    again = changed(restoring.retry(changed(restoring.cancel(failed, MOMENT)), MOMENT))
    assert site(again).is_committed
    assert changed(restoring.give_up(again, MOMENT, FAILURE)).status is RestoreStatus.FAILED
    assert changed(restoring.cancel(again, MOMENT)).status is RestoreStatus.CANCELLED


def test_a_retry_does_not_go_on_with_an_upload_that_may_be_whole() -> None:
    late = changed(restoring.time_out(sending(sent_to=SIZE), at(3600)))
    assert site(changed(restoring.retry(late, at(3601)))).upload is None


@pytest.mark.parametrize("status", [*sorted(ACTIVE), RestoreStatus.DONE])
def test_only_what_failed_or_was_cancelled_is_retried(status: RestoreStatus) -> None:
    assert restoring.retry(a_restore(status=status), MOMENT) is None


# --- the sweep


def test_the_sweep_sends_again_what_nobody_has_begun_with_growing_pauses_and_counts_no_try() -> None:
    restore, pauses = running(), list[float]()
    now = NOW
    for _ in range(4):
        assert restore.next_check_at is not None
        pauses.append((restore.next_check_at - now).total_seconds())
        now = restore.next_check_at
        change = restoring.check(restore, Moment(now, POLICY))
        assert change is not None
        assert [event.redelivery for event in change.events] == [0, 0]
        restore = changed(change)
    assert pauses == [60, 60, 120, 240]


def test_the_sweep_leaves_a_task_whose_lease_holds_and_sends_it_when_that_is_over() -> None:
    restore = started(moment=at(30))
    change = restoring.check(restore, at(60))
    assert change is not None
    assert change.events == [RestoreTaskCreated(task=ref(restore, "db"))]
    assert site(changed(change)).lease == site(restore).lease
    change = restoring.check(restore, at(30 + POLICY.lease_seconds))
    assert change is not None
    assert RestoreTaskCreated(task=ref(restore), redelivery=1) in change.events


def test_five_tries_without_progress_end_a_task_with_its_last_error() -> None:
    restore = started()
    restore = changed(
        restoring.postpone(restore, MOMENT, ref(restore), ME, Postponed("No answer.", at(5).now))
    )
    given_up = site(restore).replace(tries=POLICY.max_tries - 1)
    restore = restore.replace(tasks={**restore.tasks, "site": given_up}).with_next_check()
    failed = changed(restoring.check(restore, at(5)))
    reason = site(failed).reason
    assert reason is not None
    assert reason.code is Code.RETRIES_EXHAUSTED
    assert reason.message == "Given up after 5 tries without progress. The last error: No answer."
    assert failed.status is RestoreStatus.RUNNING


def test_a_task_that_is_given_up_when_all_was_sent_is_unknown() -> None:
    restore = sending(sent_to=SIZE)
    restore = restore.replace(
        tasks={**restore.tasks, "site": site(restore).replace(tries=POLICY.max_tries - 1)}
    )
    failed = changed(restoring.check(restore, at(POLICY.lease_seconds)))
    reason = site(failed).reason
    assert reason is not None
    assert reason.code is Code.IMPORT_UNKNOWN


def test_a_provider_that_imports_for_long_is_asked_again_and_uses_up_no_try() -> None:
    restore = sending(sent_to=SIZE)
    for minute in range(1, 20):
        ask_at = at(60 * minute).now
        restore = changed(restoring.await_import(restore, at(60 * minute - 59), ref(restore), ME, ask_at))
        change = restoring.check(restore, at(60 * minute))
        assert change is not None
        assert RestoreTaskCreated(task=ref(restore), redelivery=1) in change.events
        restore = changed(restoring.start_task(changed(change), at(60 * minute), ref(restore), 1, ME))


def test_nothing_is_due_before_its_time() -> None:
    assert restoring.check(running(), at(POLICY.start_seconds - 1)) is None
    assert restoring.check(a_restore(), at(10**6)) is None


# --- in any order

type Step = Callable[[Restore, Moment, RestoreTaskRef], RestoreChange | None]
STEPS: dict[str, Step] = {
    "back_up": lambda restore, moment, _: restoring.back_up(restore, moment, "f" * 24),
    "look_again": lambda restore, moment, _: restoring.look_again(restore, moment),
    "start_sending": lambda restore, moment, _: restoring.start_sending(restore, moment),
    "give_up": lambda restore, moment, _: restoring.give_up(restore, moment, FAILURE),
    "cancel": lambda restore, moment, _: restoring.cancel(restore, moment),
    "time_out": lambda restore, moment, _: restoring.time_out(restore, moment),
    "retry": lambda restore, moment, _: restoring.retry(restore, moment),
    "release": lambda restore, moment, _: restoring.release(restore, moment),
    "check": lambda restore, moment, _: restoring.check(restore, moment),
    "start": lambda restore, moment, ref: restoring.start_task(restore, moment, ref, 1, ME),
    "start other": lambda restore, moment, ref: restoring.start_task(restore, moment, ref, 1, OTHER),
    "renew": lambda restore, moment, ref: restoring.renew_lease(restore, moment, ref, ME),
    "begin": lambda restore, moment, ref: restoring.begin_import(restore, moment, ref, ME, URL),
    "slice": lambda restore, moment, ref: restoring.begin_slice(
        restore, moment, ref, ME, Arrived(10, CRC), 50
    ),
    "last slice": lambda restore, moment, ref: restoring.begin_slice(
        restore, moment, ref, ME, Arrived(50, CRC), SIZE
    ),
    "lose": lambda restore, moment, ref: restoring.lose_import(restore, moment, ref, ME),
    "postpone": lambda restore, moment, ref: restoring.postpone(
        restore, moment, ref, ME, Postponed("No.", moment.in_seconds(9))
    ),
    "await": lambda restore, moment, ref: restoring.await_import(
        restore, moment, ref, ME, moment.in_seconds(9)
    ),
    "hand over": lambda restore, moment, ref: restoring.hand_over(restore, moment, ref, ME),
    "finish": lambda restore, moment, ref: restoring.finish_task(restore, moment, ref, ME),
    "fail": lambda restore, moment, ref: restoring.fail_task(restore, moment, ref, ME, FAILURE),
}


@given(
    st.booleans(),
    st.lists(
        st.tuples(st.sampled_from(sorted(STEPS)), st.sampled_from(["site", "db"]), st.integers(0, 200)),
        max_size=40,
    ),
)
@settings(max_examples=400, deadline=None)
def test_whatever_happens_in_whatever_order_a_restore_keeps_its_promises(
    safety_backup: bool, steps: list[tuple[str, str, int]]
) -> None:
    restore = a_restore(safety_backup=safety_backup, is_pinning=True, step_at=NOW).with_next_check()
    now: datetime = NOW
    for name, provider, seconds in steps:
        now += timedelta(seconds=seconds)
        change = STEPS[name](restore, Moment(now, POLICY), ref(restore, provider))
        if change is None:
            continue
        after = changed(change)
        check_step(restore, after)
        restore = after


def check_step(before: Restore, after: Restore) -> None:
    """What holds of every change that is stored."""
    assert after.attempt == before.attempt or (after.attempt == before.attempt + 1 and not before.is_active)
    unfinished = [task for task in after.tasks.values() if task.status in UNFINISHED]
    assert after.is_active == bool(unfinished)
    if after.is_active or after.is_pinning:
        assert after.next_check_at is not None, "nobody would ever look at it again"
    if after.status is RestoreStatus.FAILED:
        assert after.reason is not None
    if after.status is RestoreStatus.DONE:
        assert {task.status for task in after.tasks.values()} == {Status.DONE}
    for name, task in after.tasks.items():
        was = before.tasks[name]
        assert task.reason is not None or task.status not in (Status.FAILED, Status.CANCELLED)
        if was.status is Status.DONE:
            assert task == was, "what is done stays so, in every attempt"
        if after.attempt == before.attempt and was.status not in UNFINISHED:
            assert task == was, "what is over stays so"
        if before.status is RestoreStatus.RUNNING and was.is_committed and was.status in UNFINISHED:
            assert task.status is not Status.CANCELLED, "nobody can take back what was sent whole"
        if task.upload and was.upload and task.upload.url == was.upload.url and task.losses == was.losses:
            assert task.upload.sent_to >= was.upload.sent_to or after.attempt > before.attempt
        if task.upload and task.upload.sent_to > (was.upload.sent_to if was.upload else 0):
            assert after.status is not RestoreStatus.PENDING
            assert not after.safety_backup or before.status in (RestoreStatus.RUNNING,)
        if task.lease:
            assert task.next_check_at == task.lease.until
        if after.status is RestoreStatus.RUNNING:
            assert (task.next_check_at is not None) == (task.status in UNFINISHED)
