"""A task's next try is kept, whatever else the sweep does with the job."""

from datetime import timedelta

from sitebackup.domain import transitions
from sitebackup.domain.policy import Policy, seconds
from tests.unit.test_transitions import START, changed, started

POLICY = Policy(stall_seconds=360)


def test_a_sweep_that_comes_before_the_next_try_does_not_put_it_off() -> None:
    next_try = START + timedelta(seconds=600)
    stalls = START + seconds(POLICY.stall_seconds)
    job = changed(
        transitions.note_trouble(
            started().replace(next_drive_at=stalls), 1, "site", "503", next_try, None, START
        )
    )
    assert job.next_drive_at == stalls
    claimed = changed(transitions.claim_drive(job, stalls, POLICY))
    assert claimed.next_drive_at == next_try


def test_a_try_that_is_due_does_not_keep_the_sweep_busy() -> None:
    next_try = START + timedelta(seconds=10)
    job = changed(transitions.note_trouble(started(), 1, "site", "503", next_try, None, START))
    claimed = changed(transitions.claim_drive(job, next_try, POLICY))
    assert claimed.next_drive_at == next_try + seconds(POLICY.stall_seconds)
