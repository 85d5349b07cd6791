"""What transitions of restores change to the last field, and what they say to a person."""

from datetime import datetime, timedelta

from sitebackup.domain import restoring
from sitebackup.domain.job import Lease, Status
from sitebackup.domain.reason import Code
from sitebackup.domain.restore import Import, Restore, RestoreStatus
from sitebackup.domain.transitions.postponing import Postponed
from tests.builders import NOW, a_restore
from tests.unit.test_restoring import (
    FAILURE,
    ME,
    MOMENT,
    OTHER,
    POLICY,
    SIZE,
    at,
    changed,
    ref,
    running,
    sending,
    started,
)
from tests.unit.test_restoring import site as site_of

LATER = at(30)
LEASE = timedelta(seconds=POLICY.lease_seconds)


def leased_until(restore: Restore) -> datetime:
    lease = site_of(restore).lease
    assert lease is not None
    return lease.until


def reason_of(restore: Restore, provider: str = "site") -> tuple[Code, str]:
    reason = restore.tasks[provider].reason
    assert reason is not None
    return reason.code, reason.message


def test_a_restore_that_waits_for_its_safety_backup_is_looked_at_again() -> None:
    restore = changed(restoring.back_up(a_restore(), MOMENT, "f" * 24))
    change = restoring.look_again(restore, LATER)
    assert change is not None
    step_at = LATER.now + timedelta(seconds=POLICY.start_seconds)
    assert change.restore == restore.replace(step_at=step_at, updated_at=LATER.now)
    assert not change.events
    for other in (a_restore(), running()):
        assert restoring.look_again(other, LATER) is None


def test_a_lease_is_renewed_by_its_owner_alone_and_changes_nothing_else() -> None:
    restore = started()
    renewed = restoring.renew_lease(restore, LATER, ref(restore), ME)
    assert renewed is not None
    until = LATER.now + LEASE
    task = site_of(restore).replace(lease=Lease(owner=ME, until=until), next_check_at=until)
    expected = restore.replace(tasks={**restore.tasks, "site": task}, updated_at=LATER.now)
    assert renewed.restore == expected
    assert not renewed.events
    assert restoring.renew_lease(restore, LATER, ref(restore), OTHER) is None
    failed = changed(restoring.fail_task(restore, LATER, ref(restore), ME, FAILURE))
    assert restoring.renew_lease(failed, LATER, ref(restore), ME) is None


def test_the_sweep_looks_at_a_leased_task_when_its_lease_ends() -> None:
    restore = started()
    task = site_of(restore).replace(next_check_at=LATER.now)
    restore = restore.replace(tasks={**restore.tasks, "site": task})
    change = restoring.check(restore, LATER)
    assert change is not None
    assert change.restore.tasks["site"] == task.replace(next_check_at=leased_until(restore))
    assert [event.task.provider for event in change.events] == []


def test_what_timed_out_says_after_how_long_and_whether_the_last_byte_may_be_there() -> None:
    restore = sending(sent_to=SIZE)
    late = changed(restoring.time_out(restore, at(3600)))
    message = "Not finished 3600 seconds after it began to send."
    assert reason_of(late, "db") == (Code.TIMED_OUT, message)
    assert reason_of(late) == (Code.IMPORT_UNKNOWN, f"The last byte may have been sent. {message}")
    assert late.updated_at == at(3600).now
    assert restoring.time_out(restore.replace(status=RestoreStatus.PENDING), at(3600)) is None
    assert restoring.time_out(restore.replace(deadline_at=None), at(3600)) is None


def test_a_time_out_leaves_what_is_done_as_it_is() -> None:
    restore = sending(sent_to=SIZE)
    done = changed(restoring.finish_task(restore, LATER, ref(restore), ME))
    late = changed(restoring.time_out(done, at(3600)))
    assert late.tasks["site"] == done.tasks["site"]
    assert late.tasks["db"].status is Status.FAILED


def test_a_provider_that_lost_too_many_uploads_is_told_of_with_their_number() -> None:
    restore = started()
    task = site_of(restore).replace(
        losses=POLICY.max_tries - 1, upload=Import(url="https://provider.example/1")
    )
    restore = restore.replace(tasks={**restore.tasks, "site": task})
    lost = changed(restoring.lose_import(restore, LATER, ref(restore), ME))
    message = f"The provider lost {POLICY.max_tries} uploads."
    assert reason_of(lost) == (Code.RETRIES_EXHAUSTED, message)


def exhausted(restore: Restore) -> Restore:
    """The sweep finds it after its last try."""
    task = site_of(restore).replace(tries=POLICY.max_tries - 1, lease=None, next_check_at=NOW)
    return changed(restoring.check(restore.replace(tasks={**restore.tasks, "site": task}), LATER))


def test_a_task_that_ran_out_of_tries_says_how_many_and_what_went_wrong_last() -> None:
    tries = f"Given up after {POLICY.max_tries} tries without progress."
    assert reason_of(exhausted(sending(sent_to=40))) == (Code.RETRIES_EXHAUSTED, tries)
    unknown = "The last byte may have been sent, and what became of it is not known."
    assert reason_of(exhausted(sending(sent_to=SIZE))) == (Code.IMPORT_UNKNOWN, unknown)
    restore = sending(sent_to=SIZE)
    waits = changed(restoring.postpone(restore, LATER, ref(restore), ME, Postponed("503.", LATER.now)))
    assert reason_of(exhausted(waits)) == (Code.IMPORT_UNKNOWN, f"{unknown} The last error: 503.")
