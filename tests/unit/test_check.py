"""What the sweep sends again: of each task only what is due, by the task's own time."""

from datetime import datetime, timedelta

from sitebackup.domain.change import Change
from sitebackup.domain.check import check, uploads_to_check
from sitebackup.domain.events import PartUpdated, TaskUpdated, UploadJobCreated, UploadPartCreated
from sitebackup.domain.job import Job, PartWait, Status
from sitebackup.domain.plan import MIN_PART_SIZE
from sitebackup.domain.progress import advance
from sitebackup.domain.reason import Code
from sitebackup.domain.transitions import endings, postponing, runs, uploads
from tests.unit.jobs import (
    DB,
    ME,
    MOMENT,
    OTHER,
    POLICY,
    SITE,
    START,
    UPLOAD_ID,
    at,
    changed,
    new_job,
    planned,
    started,
    stored,
)

STALL = timedelta(seconds=POLICY.stall_seconds)
START_WAIT = timedelta(seconds=POLICY.start_seconds)
LEASE = timedelta(seconds=POLICY.lease_seconds)
LAST_TRY = POLICY.max_tries - 1
SOON = timedelta(seconds=4)
UNAVAILABLE = "503."


def swept(job: Job, now: datetime, missing: dict[int, PartWait] | None = None) -> Change:
    """What the sweep makes of the job then; `missing` are the missing parts of every upload it looks at."""
    looked_at = {name: missing or {} for name in uploads_to_check(job, now)}
    checked = check(job, at(now), looked_at)
    assert checked is not None
    return checked


def next_check(job: Job) -> datetime:
    assert job.earliest_check is not None
    return job.earliest_check


def sent_parts(checked: Change) -> list[tuple[int, int]]:
    """(number, redelivery) of the parts that are sent again."""
    return [
        (event.number, event.redelivery) for event in checked.events if isinstance(event, UploadPartCreated)
    ]


def test_progress_of_one_task_does_not_put_off_the_check_of_another() -> None:
    job = planned()
    next_try = START + SOON
    job = changed(runs.start_task(job, MOMENT, DB, 0, OTHER))
    job = changed(postponing.note_error(job, MOMENT, DB, OTHER, postponing.Postponed(UNAVAILABLE, next_try)))
    progress = advance(job.tasks["site"].progress, [(1, MIN_PART_SIZE)])
    job = changed(uploads.dispatch_parts(job, MOMENT, SITE, UPLOAD_ID, progress))
    assert next_check(job) == next_try
    checked = swept(job, next_try)
    assert checked.events == [UploadJobCreated(task=DB, redelivery=1)]
    assert checked.job.tasks["site"] == job.tasks["site"]


def test_a_lost_first_record_is_sent_again_while_the_sibling_moves_on() -> None:
    now = START + START_WAIT
    checked = swept(planned(), now)
    assert checked.events == [UploadJobCreated(task=DB, redelivery=0)]
    assert next_check(checked.job) == now + START_WAIT


def test_a_run_that_holds_its_lease_is_left_alone_and_one_that_died_is_replaced() -> None:
    job = started()
    lease_over = START + LEASE
    renewed_at = lease_over - timedelta(seconds=1)
    renewed = changed(runs.renew_lease(job, at(renewed_at), SITE, ME))
    alive = swept(renewed, START + START_WAIT)
    assert [event.task for event in alive.events] == [DB]
    dead = swept(job, lease_over)
    assert UploadJobCreated(task=SITE, redelivery=1) in dead.events


def test_after_an_error_of_one_part_that_part_alone_is_sent_again() -> None:
    next_try = START + SOON
    error = postponing.Postponed(UNAVAILABLE, next_try)
    job = changed(postponing.note_part_error(planned(1), MOMENT, SITE, UPLOAD_ID, error))
    waits = {1: PartWait(), 2: PartWait(attempt=1, tries=1, next_try_at=next_try), 3: PartWait()}
    checked = swept(job, next_try, waits)
    assert checked.events == [UploadPartCreated(task=SITE, upload_id=UPLOAD_ID, number=2, redelivery=2)]
    assert next_check(checked.job) == START + STALL


def test_after_a_stall_all_missing_parts_are_sent_again_but_those_that_wait() -> None:
    now = START + STALL
    later = now + timedelta(seconds=30)
    waits = {1: PartWait(), 3: PartWait(attempt=1, tries=2, next_try_at=later)}
    checked = swept(planned(1), now, waits)
    assert sent_parts(checked) == [(1, 1)]
    assert next_check(checked.job) == later


def test_tries_of_an_earlier_attempt_do_not_count() -> None:
    checked = swept(planned(1), START + STALL, {1: PartWait(attempt=0, tries=LAST_TRY)})
    assert sent_parts(checked) == [(1, 1)]


def test_a_part_that_was_tried_often_enough_fails_its_task() -> None:
    checked = swept(planned(1), START + STALL, {2: PartWait(attempt=1, tries=LAST_TRY)})
    assert checked.job.status is Status.FAILED
    assert checked.job.reason is not None
    assert checked.job.reason.code is Code.RETRIES_EXHAUSTED
    assert "Part 2" in checked.job.reason.message
    assert checked.events == [TaskUpdated(task=SITE)]


def test_an_upload_that_lacks_no_part_is_sent_to_be_completed() -> None:
    checked = swept(planned(1), START + STALL)
    assert checked.events == [PartUpdated(task=SITE, upload_id=UPLOAD_ID, redelivery=1)]


def test_a_task_that_waits_longer_than_a_stall_is_left_alone_until_its_next_try() -> None:
    next_try = START + 2 * STALL
    error = postponing.Postponed(UNAVAILABLE, next_try)
    job = changed(postponing.note_error(started(1), MOMENT, SITE, ME, error))
    checked = swept(job, START + STALL)
    assert not checked.events
    assert next_check(checked.job) == next_try
    assert [event.task for event in swept(checked.job, next_try).events] == [SITE]


def test_the_pause_between_stalls_doubles_up_to_its_limit_and_begins_anew_with_progress() -> None:
    job, now, pauses = planned(1), START, []
    for _ in range(5):
        now = next_check(job)
        job = swept(job, now).job
        pauses.append((next_check(job) - now).total_seconds())
    assert pauses == [900, 1800, 3600, 3600, 3600]
    progress = advance(job.tasks["site"].progress, [(1, MIN_PART_SIZE)])
    job = changed(uploads.dispatch_parts(job, at(now), SITE, UPLOAD_ID, progress))
    assert job.tasks["site"].stalls_at == now + STALL


def test_a_sealed_job_is_only_finished_with_pauses_as_long_as_it_has_waited() -> None:
    job = changed(endings.finish_task(started(1), MOMENT, SITE, stored(3), 1))
    now, pauses = START, []
    for _ in range(4):
        now = next_check(job)
        checked = swept(job, now)
        assert checked.events == [TaskUpdated(task=SITE)]
        job = checked.job
        pauses.append((next_check(job) - now).total_seconds())
    assert pauses == [60, 120, 240, 480]


def test_a_job_of_which_nothing_is_due_is_left_as_it_is() -> None:
    early = at(START + START_WAIT - timedelta(seconds=1))
    assert check(new_job(2), early, {}) is None
    final = changed(endings.cancel(new_job(2), MOMENT))
    assert check(final, at(final.deadline_at), {}) is None


def test_a_task_whose_run_still_holds_the_export_is_looked_at_when_its_lease_is_over() -> None:
    checked = swept(started(next_check_at=START), START)
    assert checked.events == []
    assert checked.job.tasks["site"].next_check_at == START + LEASE


def test_a_task_that_is_looked_at_before_its_stall_with_nothing_missing_is_left_until_then() -> None:
    job = planned()
    early = job.tasks["site"].replace(next_check_at=START)
    checked = swept(job.replace(tasks={**job.tasks, "site": early}), START)
    assert checked.events == []
    assert checked.job.tasks["site"].next_check_at == START + STALL


def test_of_the_errors_of_parts_within_seconds_one_is_written_to_the_job() -> None:
    error = postponing.Postponed(UNAVAILABLE, START + SOON)
    job = changed(postponing.note_part_error(planned(), MOMENT, SITE, UPLOAD_ID, error))
    assert postponing.note_part_error(job, MOMENT, SITE, UPLOAD_ID, error) is None
    sooner = error._replace(next_try_at=START + SOON / 2)
    assert changed(postponing.note_part_error(job, MOMENT, SITE, UPLOAD_ID, sooner)).tasks[
        "site"
    ].next_check_at == (sooner.next_try_at)
    later = at(START + postponing.WRITTEN_EVERY)
    assert postponing.note_part_error(job, later, SITE, UPLOAD_ID, error) is not None
