"""What the sweep sends again: of each task only what is due, by the task's own time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import pytest

from sitebackup.domain.change import Change
from sitebackup.domain.check import check, uploads_to_check
from sitebackup.domain.events import PartUpdated, TaskEvent, TaskUpdated, UploadJobCreated, UploadPartCreated
from sitebackup.domain.job import Job, LastError, Lease, PartWait, Status, Task, Upload
from sitebackup.domain.plan import MIN_PART_SIZE
from sitebackup.domain.progress import advance
from sitebackup.domain.reason import Code, Reason
from sitebackup.domain.transitions import endings, postponing, runs, uploads
from tests.unit.jobs import (
    DB,
    FIVE_PARTS,
    ME,
    MOMENT,
    OTHER,
    POLICY,
    SITE,
    START,
    UPLOAD_ID,
    WINDOW,
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


NOW = START + timedelta(minutes=1)
"""When the tasks of the table below are looked at."""
INSTANT = timedelta(milliseconds=1)
SOONER, LATER, MUCH_LATER = (NOW + timedelta(seconds=seconds) for seconds in (10, 20, 30))
PLANNED = Upload(upload_id=UPLOAD_ID, plan=FIVE_PARTS, attempt=1, dispatched=WINDOW, window=WINDOW)
MOVING = Task(
    status=Status.RUNNING,
    upload=PLANNED,
    runs=1,
    tries=1,
    stall_delay=1000,
    stalls_at=LATER,
    next_check_at=NOW,
)
"""A task whose parts others move, which is looked at before it stalls."""
STALLED = MOVING.replace(stalls_at=NOW)
NOT_BEGUN = Task(stalls_at=NOW, next_check_at=NOW)
RUN_DIED = Lease(owner=ME, until=NOW)
TWICE_AS_LATE = {
    "stall_delay": 2000,
    "stalls_at": NOW + timedelta(seconds=2000),
    "next_check_at": NOW + timedelta(seconds=2000),
}


@dataclass(frozen=True)
class Look:
    """A task that is due, what is missing of its upload, what is sent, and the fields that then differ."""

    at: str
    task: Task
    sent: Sequence[TaskEvent]
    changes: Mapping[str, object]
    missing: Mapping[int, PartWait] = field(default_factory=dict)
    by_parts: bool = True
    """Whether its missing parts are asked for."""


def run_again(redelivery: int) -> UploadJobCreated:
    return UploadJobCreated(task=SITE, redelivery=redelivery)


def part(number: int, redelivery: int) -> UploadPartCreated:
    return UploadPartCreated(task=SITE, upload_id=UPLOAD_ID, number=number, redelivery=redelivery)


def waits(until: datetime | None, tries: int = 2) -> PartWait:
    return PartWait(attempt=1, tries=tries, next_try_at=until)


LOOKS = [
    Look(
        "a run that has the export open",
        MOVING.replace(lease=Lease(owner=ME, until=NOW + INSTANT), next_try_at=NOW),
        [],
        {"next_check_at": NOW + INSTANT},
        by_parts=False,
    ),
    Look(
        "a stream whose run died",
        MOVING.replace(lease=RUN_DIED, upload=PLANNED.replace(plan=None), stream_only=True),
        [run_again(2)],
        {**TWICE_AS_LATE, "lease": None},
        by_parts=False,
    ),
    Look(
        "a task that waits beyond its stall",
        STALLED.replace(upload=None, next_try_at=SOONER),
        [],
        {"next_check_at": SOONER, "stalls_at": SOONER},
        by_parts=False,
    ),
    Look(
        "a task that waits, but not until its stall",
        MOVING.replace(upload=None, next_try_at=SOONER),
        [],
        {"next_check_at": SOONER},
        by_parts=False,
    ),
    Look(
        "a task whose wait is over",
        MOVING.replace(upload=None, next_try_at=NOW),
        [run_again(2)],
        {**TWICE_AS_LATE, "next_try_at": None},
        by_parts=False,
    ),
    Look(
        "a completion whose wait is over",
        MOVING.replace(next_try_at=NOW),
        [PartUpdated(task=SITE, upload_id=UPLOAD_ID, redelivery=2)],
        {**TWICE_AS_LATE, "next_try_at": None},
    ),
    Look("a task that nothing is due of", MOVING, [], {"next_check_at": LATER}),
    Look(
        "a task that just stalls",
        STALLED,
        [PartUpdated(task=SITE, upload_id=UPLOAD_ID, redelivery=2)],
        TWICE_AS_LATE,
    ),
    Look(
        "a stream that was read to its end",
        STALLED.replace(stream_only=True),
        [PartUpdated(task=SITE, upload_id=UPLOAD_ID, redelivery=2)],
        TWICE_AS_LATE,
        by_parts=False,
    ),
    Look(
        "a task that nobody has begun",
        NOT_BEGUN,
        [run_again(0)],
        {"stall_delay": 60, "stalls_at": NOW + START_WAIT, "next_check_at": NOW + START_WAIT},
        by_parts=False,
    ),
    Look(
        "a task that no run of this attempt has begun, whose upload is planned",
        NOT_BEGUN.replace(upload=PLANNED, runs=1, stall_delay=100),
        [run_again(1)],
        {
            "stall_delay": 200,
            "stalls_at": NOW + timedelta(seconds=200),
            "next_check_at": NOW + timedelta(seconds=200),
        },
        by_parts=False,
    ),
    Look(
        "parts of which one waits no longer",
        MOVING.replace(next_try_at=NOW),
        [part(2, 3)],
        {"next_check_at": LATER, "next_try_at": None},
        {1: waits(None), 2: waits(NOW), 3: PartWait()},
    ),
    Look(
        "parts that wait, the second for the shortest time",
        MOVING.replace(next_try_at=NOW),
        [],
        {"next_check_at": SOONER, "next_try_at": SOONER},
        {1: waits(MUCH_LATER), 2: waits(SOONER), 3: waits(LATER)},
    ),
    Look(
        "a part that waits beyond the stall",
        MOVING,
        [],
        {"next_check_at": LATER, "next_try_at": MUCH_LATER},
        {2: waits(MUCH_LATER)},
    ),
    Look(
        "parts that stall, but one waits and one has waited in an earlier attempt",
        STALLED,
        [part(1, 3), part(3, 1)],
        {**TWICE_AS_LATE, "next_check_at": NOW + INSTANT, "next_try_at": NOW + INSTANT},
        {1: waits(None), 2: waits(NOW + INSTANT), 3: waits(LATER).replace(attempt=0)},
    ),
    Look(
        "parts that a run has left which died",
        MOVING.replace(lease=RUN_DIED),
        [part(1, 3)],
        {**TWICE_AS_LATE, "lease": None},
        {1: waits(None)},
    ),
]


def job_with(task: Task) -> Job:
    """A running job of this task, and of another one that is not due."""
    job = new_job(2)
    not_due = MOVING.replace(next_check_at=NOW + INSTANT)
    return job.replace(status=Status.RUNNING, tasks={"db": not_due, "site": task})


@pytest.mark.parametrize("look", LOOKS, ids=lambda look: look.at)
def test_the_sweep_looks_at(look: Look) -> None:
    job = job_with(look.task)
    assert uploads_to_check(job, NOW) == ({"site": look.task.upload} if look.by_parts else {})
    checked = check(job, at(NOW), {"site": look.missing} if look.missing else {})
    assert checked is not None
    assert checked.events == look.sent
    tasks = {**job.tasks, "site": look.task.replace(**look.changes)}
    assert checked.job == job.replace(tasks=tasks, updated_at=NOW)


@pytest.mark.parametrize(
    ("task", "missing", "says"),
    [
        (STALLED.replace(tries=LAST_TRY), {}, "Given up after 5 tries without progress."),
        (STALLED, {2: waits(NOW, LAST_TRY)}, "Part 2 was given up after 5 tries."),
    ],
)
def test_a_task_that_is_given_up_says_what_was_tried_and_the_last_error(
    task: Task, missing: Mapping[int, PartWait], says: str
) -> None:
    error = LastError(message="S3 answered 503.", at=START, count=3)
    for last, then in ((None, ""), (error, " The last error: S3 answered 503.")):
        given_up = check(job_with(task.replace(last_error=last)), at(NOW), {"site": missing})
        assert given_up is not None
        assert given_up.job.reason == Reason(code=Code.RETRIES_EXHAUSTED, message=says + then)
        assert given_up.job.tasks["site"].reason == given_up.job.reason
        assert given_up.events == [TaskUpdated(task=SITE)]


def test_a_task_with_a_try_left_is_not_given_up() -> None:
    for task, missing in (
        (STALLED.replace(tries=LAST_TRY - 1), {}),
        (STALLED, {2: waits(NOW, LAST_TRY - 1)}),
    ):
        checked = check(job_with(task), at(NOW), {"site": missing})
        assert checked is not None
        assert checked.job.status is Status.RUNNING


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
    for _ in range(8):
        now = next_check(job)
        assert check(job, at(now - INSTANT), {}) is None
        checked = swept(job, now)
        assert checked.events == [TaskUpdated(task=SITE)]
        assert checked.job == job.replace(finish_check_at=checked.job.finish_check_at, updated_at=now)
        job = checked.job
        pauses.append((next_check(job) - now).total_seconds())
    assert pauses == [60, 120, 240, 480, 960, 1920, 3600, 3600]


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
