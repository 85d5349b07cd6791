"""What the sweep sends again: of each task only what is due, by the task's own time."""

from datetime import datetime, timedelta

from sitebackup.domain import transitions
from sitebackup.domain.check import Checked, check, parts_to_look_at
from sitebackup.domain.events import PartUpdated, TaskUpdated, UploadJobCreated, UploadPartCreated
from sitebackup.domain.job import Job, PartWait, Status
from sitebackup.domain.plan import MIN_PART_SIZE
from sitebackup.domain.progress import advance
from sitebackup.domain.reason import Code
from tests.unit.test_transitions import POLICY, START, changed, new_job, planned, started, stored

STALL = timedelta(seconds=POLICY.stall_seconds)
START_WAIT = timedelta(seconds=POLICY.start_seconds)
LEASE = timedelta(seconds=POLICY.lease_seconds)


def swept(job: Job, now: datetime, missing: dict[int, PartWait] | None = None) -> Checked:
    looked_at = {name: missing or {} for name in parts_to_look_at(job, now)}
    checked = check(job, looked_at, now, POLICY)
    assert checked is not None
    return checked


def next_check(job: Job) -> datetime:
    assert job.earliest_check is not None
    return job.earliest_check


def test_progress_of_one_task_does_not_put_off_the_check_of_another() -> None:
    job = planned()
    next_try = START + timedelta(seconds=4)
    job = changed(transitions.start_task(job, 1, "db", 0, "other", START, POLICY))
    job = changed(transitions.note_trouble(job, 1, "db", "503.", next_try, "other", START))
    progress = advance(job.tasks["site"].progress, [(1, MIN_PART_SIZE)])
    job = changed(transitions.dispatch_parts(job, 1, "site", "u1", progress, START, POLICY))
    assert next_check(job) == next_try
    checked = swept(job, next_try)
    assert checked.events == [UploadJobCreated(job_id=job.id, attempt=1, provider="db", tried=1)]
    assert checked.job.tasks["site"] == job.tasks["site"]


def test_a_lost_first_record_is_sent_again_while_the_sibling_moves_on() -> None:
    now = START + START_WAIT
    checked = swept(planned(), now)
    assert checked.events == [UploadJobCreated(job_id="c" * 24, attempt=1, provider="db", tried=0)]
    assert next_check(checked.job) == now + START_WAIT


def test_a_run_that_holds_its_lease_is_left_alone_and_one_that_died_is_replaced() -> None:
    job = started()
    lease_over = START + LEASE
    renewed_at = lease_over - timedelta(seconds=1)
    renewed = changed(transitions.renew_lease(job, 1, "site", "me", renewed_at, POLICY))
    alive = swept(renewed, START + START_WAIT)
    assert [event.provider for event in alive.events] == ["db"]
    dead = swept(job, lease_over)
    assert UploadJobCreated(job_id=job.id, attempt=1, provider="site", tried=1) in dead.events


def test_after_trouble_of_one_part_that_part_alone_is_sent_again() -> None:
    next_try = START + timedelta(seconds=4)
    job = planned().replace(tasks={"site": planned().tasks["site"]})
    job = changed(transitions.note_part_trouble(job, 1, "site", "u1", "503.", next_try, START))
    waits = {1: PartWait(), 2: PartWait(attempt=1, tried=1, next_try_at=next_try), 3: PartWait()}
    checked = swept(job, next_try, waits)
    assert checked.events == [
        UploadPartCreated(job_id=job.id, attempt=1, provider="site", upload_id="u1", number=2, tried=2)
    ]
    assert next_check(checked.job) == START + STALL


def test_after_a_stall_all_missing_parts_are_sent_again_but_those_that_wait() -> None:
    job = planned().replace(tasks={"site": planned().tasks["site"]})
    now = START + STALL
    later = now + timedelta(seconds=30)
    waits = {1: PartWait(), 3: PartWait(attempt=1, tried=2, next_try_at=later)}
    checked = swept(job, now, waits)
    assert [
        (event.number, event.tried) for event in checked.events if isinstance(event, UploadPartCreated)
    ] == [(1, 1)]
    assert next_check(checked.job) == later


def test_tries_of_an_earlier_attempt_do_not_count() -> None:
    job = planned().replace(tasks={"site": planned().tasks["site"]})
    checked = swept(job, START + STALL, {1: PartWait(attempt=0, tried=4)})
    assert [event.tried for event in checked.events if isinstance(event, UploadPartCreated)] == [1]


def test_a_part_that_was_tried_often_enough_fails_its_task() -> None:
    job = planned().replace(tasks={"site": planned().tasks["site"]})
    checked = swept(job, START + STALL, {2: PartWait(attempt=1, tried=4)})
    assert checked.job.status is Status.FAILED
    assert checked.job.reason is not None
    assert checked.job.reason.code is Code.RETRIES_EXHAUSTED
    assert "Part 2" in checked.job.reason.message
    assert checked.events == [TaskUpdated(job_id=job.id, attempt=1, provider="site")]


def test_an_upload_that_lacks_no_part_is_completed() -> None:
    job = planned().replace(tasks={"site": planned().tasks["site"]})
    checked = swept(job, START + STALL)
    assert checked.events == [PartUpdated(job_id=job.id, attempt=1, provider="site", upload_id="u1", tried=1)]


def test_a_task_that_waits_longer_than_a_stall_is_left_alone_until_its_next_try() -> None:
    next_try = START + 2 * STALL
    job = started().replace(tasks={"site": started().tasks["site"]})
    job = changed(transitions.note_trouble(job, 1, "site", "503.", next_try, "me", START))
    checked = swept(job, START + STALL)
    assert not checked.events
    assert next_check(checked.job) == next_try
    assert [event.provider for event in swept(checked.job, next_try).events] == ["site"]


def test_the_pause_between_stalls_doubles_up_to_its_limit_and_begins_anew_with_progress() -> None:
    job, now, pauses = planned().replace(tasks={"site": planned().tasks["site"]}), START, []
    for _ in range(5):
        now = next_check(job)
        job = swept(job, now).job
        pauses.append((next_check(job) - now).total_seconds())
    assert pauses == [900, 1800, 3600, 3600, 3600]
    progress = advance(job.tasks["site"].progress, [(1, MIN_PART_SIZE)])
    job = changed(transitions.dispatch_parts(job, 1, "site", "u1", progress, now, POLICY))
    assert job.tasks["site"].stalls_at == now + STALL


def test_a_sealed_job_is_only_finished_with_pauses_as_long_as_it_has_waited() -> None:
    job = new_job(1)
    job = changed(transitions.start_task(job, 1, "site", 0, "me", START, POLICY))
    job = changed(transitions.finish_task(job, 1, "site", stored(3), 1, START, POLICY))
    now, pauses = START, []
    for _ in range(4):
        now = next_check(job)
        checked = swept(job, now)
        assert checked.events == [TaskUpdated(job_id=job.id, attempt=1, provider="site")]
        job = checked.job
        pauses.append((next_check(job) - now).total_seconds())
    assert pauses == [60, 120, 240, 480]
