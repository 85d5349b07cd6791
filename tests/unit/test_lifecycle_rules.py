"""Retry, clean-up, deletion and undeletion: which state of a job allows which of them."""

from datetime import timedelta
from typing import Any

import pytest

from sitebackup.domain import lifecycle
from sitebackup.domain.change import Moment
from sitebackup.domain.job import FINISHED, RETRYABLE, DeleteCause, Job, Status
from sitebackup.domain.lock import LegalHold, Lock, LockMode
from sitebackup.domain.policy import Policy
from sitebackup.domain.reason import Code, Reason
from sitebackup.domain.task_ref import RestoreRef
from sitebackup.domain.transitions import endings
from tests.unit.jobs import MOMENT, SITE, START, at, changed, new_job, started, stored

REQUESTED = DeleteCause.REQUESTED
NOT_FOUND = Reason(code=Code.EXPORT_NOT_FOUND, message="404")


def job_in(status: Status) -> Job:
    """A job of one task; what failed or was cancelled ended as the transitions end it."""
    job = new_job(1)
    match status:
        case Status.CANCELLED:
            return changed(endings.cancel(job, MOMENT))
        case Status.FAILED:
            return changed(endings.fail_task(job, MOMENT, SITE, NOT_FOUND))
        case Status.DONE:
            return job.replace(status=status, finished_at=START)
        case _:
            return job.replace(status=status)


def marked(job: Job) -> Job:
    return job.replace(delete_at=START, delete_cause=REQUESTED)


def removing(job: Job) -> Job:
    return marked(job).replace(removing_at=START)


@pytest.mark.parametrize("status", list(Status))
def test_a_retry_is_possible_of_what_failed_or_was_cancelled_and_is_not_marked(status: Status) -> None:
    job = job_in(status)
    assert (lifecycle.retry(job, MOMENT) is not None) == (status in RETRYABLE)
    assert lifecycle.retry(marked(job), MOMENT) is None


@pytest.mark.parametrize("status", list(Status))
def test_only_what_failed_or_was_cancelled_is_cleaned_and_only_once(status: Status) -> None:
    job = job_in(status)
    begun = lifecycle.begin_cleaning(job, MOMENT)
    assert (begun is not None) == (status in RETRYABLE)
    assert lifecycle.end_cleaning(job, MOMENT) is None
    if begun:
        cleaned = changed(lifecycle.end_cleaning(begun.job, MOMENT))
        assert (cleaned.cleaned_at, cleaned.clean_up_at) == (START, START)
        assert lifecycle.begin_cleaning(cleaned, MOMENT) is None


@pytest.mark.parametrize("status", list(Status))
def test_only_a_done_job_is_marked_as_clean_and_only_once(status: Status) -> None:
    clean = lifecycle.mark_clean(job_in(status), MOMENT)
    assert (clean is not None) == (status is Status.DONE)
    if clean:
        assert (clean.job.cleaned_at, clean.job.clean_up_at) == (START, START)
        assert lifecycle.mark_clean(clean.job, MOMENT) is None


@pytest.mark.parametrize("status", list(Status))
def test_a_job_is_marked_for_deletion_once_it_has_ended_and_until_its_removal(status: Status) -> None:
    job = job_in(status)
    assert (lifecycle.mark_deleted(job, MOMENT, START, REQUESTED) is not None) == (status in FINISHED)
    assert lifecycle.mark_deleted(removing(job), MOMENT, START, REQUESTED) is None


@pytest.mark.parametrize("status", list(Status))
def test_a_mark_can_be_taken_back_until_the_removal(status: Status) -> None:
    job = job_in(status)
    assert lifecycle.undelete(job, MOMENT) is None
    assert (lifecycle.undelete(marked(job), MOMENT) is not None) == (status in FINISHED)
    assert lifecycle.undelete(removing(job), MOMENT) is None


@pytest.mark.parametrize("status", list(Status))
def test_data_is_removed_only_of_a_marked_job_and_only_after_the_claim(status: Status) -> None:
    job = job_in(status)
    assert lifecycle.begin_removal(job, MOMENT) is None
    assert (lifecycle.begin_removal(marked(job), MOMENT) is not None) == (status in FINISHED)
    assert lifecycle.end_removal(marked(job), MOMENT) is None
    removed = lifecycle.end_removal(removing(job), MOMENT)
    assert (removed is not None) == (status in FINISHED)
    assert removed is None or (removed.job.status, removed.job.deleted_at) == (Status.DELETED, START)


@pytest.mark.parametrize("status", list(Status))
def test_a_look_is_put_off_only_of_a_final_job_and_only_to_another_time(status: Status) -> None:
    job, later = job_in(status), START + timedelta(days=3)
    assert lifecycle.look_again(job, MOMENT, job.clean_up_at) is None
    put_off = lifecycle.look_again(job, MOMENT, later)
    assert (put_off is not None) == (status in FINISHED | {Status.DELETED})
    assert put_off is None or put_off.job.clean_up_at == later


def test_no_retry_begins_while_the_job_is_being_cleaned_unless_that_claim_is_over() -> None:
    cleaning = changed(lifecycle.begin_cleaning(job_in(Status.FAILED), MOMENT))
    over = START + lifecycle.CLAIM
    assert cleaning.clean_up_at == over
    before = at(over - timedelta(seconds=1))
    assert lifecycle.is_being_cleaned(cleaning, before.now)
    assert lifecycle.retry(cleaning, before) is None
    assert not lifecycle.is_being_cleaned(cleaning, over)
    assert lifecycle.retry(cleaning, at(over)) is not None


def test_a_second_claim_keeps_the_time_at_which_the_removal_began() -> None:
    later = at(START + lifecycle.CLAIM)
    claimed = changed(lifecycle.begin_removal(marked(job_in(Status.DONE)), MOMENT))
    again = changed(lifecycle.begin_removal(claimed, later))
    assert (again.removing_at, again.clean_up_at) == (START, later.now + lifecycle.CLAIM)


def test_a_backup_that_expired_and_was_taken_back_never_expires_again() -> None:
    job = job_in(Status.DONE).replace(expires_after_days=1)
    expired = changed(lifecycle.mark_deleted(job, MOMENT, START, DeleteCause.EXPIRED))
    asked = changed(lifecycle.mark_deleted(job, MOMENT, START, REQUESTED))
    assert changed(lifecycle.undelete(expired, MOMENT)).expires_after_days is None
    assert changed(lifecycle.undelete(asked, MOMENT)).expires_after_days == 1


def test_a_safety_backup_is_not_retried_because_its_restore_makes_a_new_one() -> None:
    made_first = job_in(Status.FAILED).replace(safety_for=RestoreRef(restore_id="d" * 24, attempt=1))
    assert lifecycle.retry(made_first, MOMENT) is None


# --- pins

DAY = timedelta(days=1)


def pinned(until: dict[str, timedelta]) -> Job:
    """A done job that is marked, with pins that end so long after the start."""
    pins = {owner: START + span for owner, span in until.items()}
    return marked(job_in(Status.DONE)).replace(pins=pins, clean_up_at=START + 9 * DAY)


@pytest.mark.parametrize("status", list(Status))
def test_only_a_done_job_is_pinned_and_only_until_its_removal_begins(status: Status) -> None:
    job = job_in(status)
    until = START + DAY
    one = lifecycle.pin(job, MOMENT, "download", until)
    assert (one is not None) == (status is Status.DONE)
    assert one is None or one.job.pins == {"download": until}
    assert (lifecycle.pin(marked(job), MOMENT, "download", until) is not None) == (status is Status.DONE)
    assert lifecycle.pin(removing(job), MOMENT, "download", until) is None


def test_a_pin_is_prolonged_and_never_shortened_and_those_that_are_over_go() -> None:
    job = pinned({"download": DAY, "a restore": 3 * DAY, "over": timedelta(0)})
    for span in (timedelta(0), DAY / 2, DAY):
        enough = lifecycle.pin(job, MOMENT, "download", START + span)
        assert enough is not None
        assert enough.job is job, "there is nothing to store"
    longer = changed(lifecycle.pin(job, MOMENT, "download", START + 2 * DAY))
    assert longer.pins == {"download": START + 2 * DAY, "a restore": START + 3 * DAY}
    assert longer.clean_up_at == job.clean_up_at, "the clean-up finds out by itself"


def test_no_removal_begins_while_a_pin_is_on() -> None:
    job = pinned({"download": DAY, "a restore": 3 * DAY})
    for moment in (MOMENT, at(START + DAY), at(START + 3 * DAY - timedelta(milliseconds=1))):
        assert lifecycle.begin_removal(job, moment) is None
    assert changed(lifecycle.begin_removal(job, at(START + 3 * DAY))).removing_at == START + 3 * DAY


def test_a_pin_that_is_taken_out_has_a_marked_job_looked_at_at_once() -> None:
    job = pinned({"download": DAY, "a restore": 3 * DAY})
    assert lifecycle.unpin(job, MOMENT, "another restore") is None
    freed = changed(lifecycle.unpin(job, MOMENT, "a restore"))
    assert (freed.pins, freed.clean_up_at) == ({"download": START + DAY}, START)
    unmarked = job.replace(delete_at=None, delete_cause=None)
    assert changed(lifecycle.unpin(unmarked, MOMENT, "a restore")).clean_up_at == job.clean_up_at


def test_a_pin_changes_nothing_of_a_job_but_its_pins_and_its_times() -> None:
    later, job = at(START + timedelta(hours=1)), pinned({"download": DAY})
    set_anew = changed(lifecycle.pin(job, later, "a restore", START + 2 * DAY))
    both = {"download": START + DAY, "a restore": START + 2 * DAY}
    assert set_anew == job.replace(pins=both, updated_at=later.now)
    assert changed(lifecycle.unpin(set_anew, later, "a restore")) == job.replace(
        updated_at=later.now, clean_up_at=later.now
    )
    begun = changed(lifecycle.begin_removal(job, at(START + DAY)))
    assert begun == job.replace(
        removing_at=START + DAY, updated_at=START + DAY, clean_up_at=START + DAY + lifecycle.CLAIM
    )


# --- locks and legal holds


def locked(span: timedelta) -> Job:
    """A done job that is marked, with a lock that ends so long after the start."""
    lock = Lock(mode=LockMode.COMPLIANCE, until=START + span)
    return marked(job_in(Status.DONE)).replace(lock=lock, clean_up_at=START + 9 * DAY)


@pytest.mark.parametrize(
    ("changes", "days"),
    [
        ({}, 30),
        ({"expires_after_days": 3}, 30),
        ({"expires_after_days": 90}, 30),
        ({"expires_after_days": 7, "safety_for": RestoreRef(restore_id="e" * 24, attempt=1)}, 7),
        ({"expires_after_days": 90, "safety_for": RestoreRef(restore_id="e" * 24, attempt=1)}, 30),
    ],
)
def test_a_safety_backup_is_locked_no_longer_than_it_lives_and_any_other_whatever_its_expiry(
    changes: dict[str, Any], days: int
) -> None:
    moment = Moment(START, Policy(lock_mode=LockMode.COMPLIANCE, lock_days=30))
    job = started(1).replace(**changes)
    sealed = changed(endings.finish_task(job, moment, SITE, stored(100), 1))
    assert sealed.lock == Lock(mode=LockMode.COMPLIANCE, until=START + days * DAY)


def test_no_removal_begins_under_a_lock_or_a_legal_hold() -> None:
    job = locked(DAY)
    for moment in (MOMENT, at(START + DAY - timedelta(milliseconds=1))):
        assert lifecycle.begin_removal(job, moment) is None
    assert changed(lifecycle.begin_removal(job, at(START + DAY))).removing_at == START + DAY
    for hold in (LegalHold(on=True), LegalHold(on=True, settled=True), LegalHold(on=False)):
        assert lifecycle.begin_removal(job.replace(legal_hold=hold), at(START + DAY)) is None


@pytest.mark.parametrize("status", list(Status))
def test_only_a_done_job_is_put_on_legal_hold_and_only_until_its_removal_begins(status: Status) -> None:
    job = job_in(status)
    held = lifecycle.set_legal_hold(job, MOMENT, True)
    assert (held is not None) == (status is Status.DONE)
    expected = job.replace(legal_hold=LegalHold(on=True), updated_at=MOMENT.now, clean_up_at=MOMENT.now)
    assert held is None or held.job == expected
    assert lifecycle.set_legal_hold(removing(job), MOMENT, True) is None


def test_a_legal_hold_is_released_only_once_s3_was_told_of_it() -> None:
    later, job = at(START + DAY), job_in(Status.DONE)
    asked = changed(lifecycle.set_legal_hold(job, MOMENT, True))
    assert lifecycle.set_legal_hold(asked, later, False) is None
    settled = changed(lifecycle.settle_legal_hold(asked, later))
    told = LegalHold(on=True, settled=True)
    assert settled == job.replace(legal_hold=told, updated_at=later.now, clean_up_at=later.now)
    assert settled.is_held
    released = changed(lifecycle.set_legal_hold(settled, later, False))
    assert (released.legal_hold, released.is_held) == (LegalHold(on=False), False)
    assert lifecycle.set_legal_hold(released, later, True) is None
    assert changed(lifecycle.settle_legal_hold(released, later)).legal_hold is None


def test_what_is_so_already_is_not_changed() -> None:
    job = job_in(Status.DONE)
    settled = job.replace(legal_hold=LegalHold(on=True, settled=True))
    for found, on in ((job, False), (settled, True), (job.replace(legal_hold=LegalHold(on=True)), True)):
        change = lifecycle.set_legal_hold(found, MOMENT, on)
        assert change is not None
        assert change.job is found, "there is nothing to store"
    for found in (job, settled):
        assert lifecycle.settle_legal_hold(found, MOMENT) is None


@pytest.mark.parametrize("mode", LockMode)
def test_a_seal_fixes_the_lock_at_a_whole_second(mode: LockMode) -> None:
    policy = Policy(lock_mode=mode, lock_days=3)
    moment = Moment(START.replace(microsecond=999_999), policy)
    sealed = changed(endings.finish_task(started(1), moment, SITE, stored(3), 1))
    until = START.replace(microsecond=0) + 3 * DAY
    assert sealed.lock == (None if mode is LockMode.OFF else Lock(mode=mode, until=until))
