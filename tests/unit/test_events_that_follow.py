"""Each transition gives the events that follow it, so that no use case has to remember them (I8)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from inspect import getmembers, isfunction, signature

import pytest

from sitebackup.domain import check as checks
from sitebackup.domain import lifecycle
from sitebackup.domain.change import Change
from sitebackup.domain.check import check
from sitebackup.domain.events import PartUpdated, TaskEvent, TaskUpdated, UploadJobCreated, UploadPartCreated
from sitebackup.domain.job import DeleteCause, Job, PartWait, Upload
from sitebackup.domain.progress import Progress
from sitebackup.domain.reason import Code, Reason
from sitebackup.domain.transitions import endings, postponing, runs, uploads
from tests.unit.jobs import (
    DB,
    FIVE_PARTS,
    ME,
    MOMENT,
    POLICY,
    SITE,
    START,
    UPLOAD_ID,
    WINDOW,
    at,
    changed,
    new_job,
    pending_job,
    planned,
    started,
    stored,
    streaming,
)

TRIES = 2
"""Of a task or a part before it is sent again."""
LAST_TRY = LAST_LOSS = POLICY.max_tries - 1
LAST_STOP = POLICY.max_stream_stops - 1
NEXT_TRY = START + timedelta(seconds=4)
STALL = MOMENT.in_seconds(POLICY.stall_seconds)
STALLED = at(STALL)
NOT_BEGUN = at(MOMENT.in_seconds(POLICY.start_seconds))
ERROR = postponing.Postponed("503.", NEXT_TRY)
FAILURE = Reason(code=Code.EXPORT_NOT_FOUND, message="404")
READ = runs.StreamRead(bytes=9, seconds=1.0)
PLANNED = Upload(upload_id=UPLOAD_ID, plan=FIVE_PARTS, attempt=1, dispatched=WINDOW, window=WINDOW)
OF_A_STREAM = Upload(upload_id=UPLOAD_ID, attempt=1)
NEXT_SITE, NEXT_DB = (ref.replace(attempt=2) for ref in (SITE, DB))
"""The tasks of the attempt that a retry opens."""
REQUESTED = DeleteCause.REQUESTED

FAILED = changed(endings.fail_task(planned(), MOMENT, SITE, FAILURE))
SEALED = changed(endings.finish_task(started(1), MOMENT, SITE, stored(3), 1))
DONE = changed(endings.finish_job(SEALED, MOMENT, 1))
MARKED = changed(lifecycle.mark_deleted(DONE, MOMENT, START, REQUESTED))
CLEANING = changed(lifecycle.begin_cleaning(FAILED, MOMENT))
REMOVING = changed(lifecycle.begin_removal(MARKED, MOMENT))
PINNED = changed(lifecycle.pin(DONE, MOMENT, "download", STALL))
HELD = changed(lifecycle.set_legal_hold(DONE, MOMENT, True))
HALF_DONE = changed(endings.cancel(changed(endings.finish_task(planned(), MOMENT, DB, stored(3), 1)), MOMENT))
"""Cancelled, when one of its two tasks was done."""
RUN_AFTER_RETRY = changed(runs.start_task(changed(lifecycle.retry(FAILED, MOMENT)), MOMENT, NEXT_SITE, 0, ME))
"""A run has begun the task, whose upload the earlier attempt has planned."""
WAITING = started(1, next_try_at=STALL + timedelta(hours=1), lease=None, next_check_at=STALL)
"""Its run failed, and it waits longer than a stall takes."""


@dataclass(frozen=True)
class Case:
    """A transition, what it is called with after the job, and the events that follow."""

    when: str
    transition: Callable[..., Change | None]
    job: Job
    arguments: Sequence[object]
    events: Sequence[TaskEvent] = ()


def part(number: int, redelivery: int = 0) -> UploadPartCreated:
    return UploadPartCreated(task=SITE, upload_id=UPLOAD_ID, number=number, redelivery=redelivery)


def parts_done(count: int) -> Progress:
    size = count * FIVE_PARTS.part_size
    return Progress(parts=count, bytes=size, watermark=count, watermark_bytes=size)


FOLLOWED = [
    Case(
        "an adopted plan hands out its window but part 1, which the probe has opened",
        runs.adopt_upload,
        started(),
        (MOMENT, SITE, ME, PLANNED),
        [part(2), part(3)],
    ),
    Case(
        "progress hands out what the window then allows",
        uploads.dispatch_parts,
        planned(),
        (MOMENT, SITE, UPLOAD_ID, parts_done(1)),
        [part(4)],
    ),
    Case(
        "progress near the end hands out no part beyond the plan",
        uploads.dispatch_parts,
        planned(),
        (MOMENT, SITE, UPLOAD_ID, parts_done(3)),
        [part(4), part(5)],
    ),
    Case(
        "a run that finds an upload planned sends the parts that it lacks",
        runs.end_run,
        RUN_AFTER_RETRY,
        (MOMENT, NEXT_SITE, ME, [2, 3]),
        [part(number).replace(task=NEXT_SITE) for number in (2, 3)],
    ),
    Case(
        "a run that finds an upload planned and all its parts done has it completed",
        runs.end_run,
        RUN_AFTER_RETRY,
        (MOMENT, NEXT_SITE, ME, []),
        [PartUpdated(task=NEXT_SITE, upload_id=UPLOAD_ID)],
    ),
    Case(
        "a stream that was read to its end is completed",
        runs.end_stream,
        streaming(),
        (MOMENT, SITE, ME, FIVE_PARTS),
        [PartUpdated(task=SITE, upload_id=UPLOAD_ID)],
    ),
    Case(
        "a stream that ran out of time is read by another run, as the same try",
        runs.stop_stream,
        streaming(tries=TRIES),
        (MOMENT, SITE, ME, READ),
        [UploadJobCreated(task=SITE, redelivery=TRIES)],
    ),
    Case(
        "a stream that ran out of time once too often ends its task",
        runs.stop_stream,
        streaming(stream_stops=LAST_STOP),
        (MOMENT, SITE, ME, READ),
        [TaskUpdated(task=SITE)],
    ),
    Case(
        "an export that changed is planned by another run, as the same try",
        uploads.replan_changed,
        planned(tries=TRIES),
        (MOMENT, SITE, UPLOAD_ID),
        [UploadJobCreated(task=SITE, redelivery=TRIES)],
    ),
    Case(
        "an upload that was lost too often ends its task",
        uploads.replan_lost,
        planned(losses=LAST_LOSS),
        (MOMENT, SITE, UPLOAD_ID, NEXT_TRY),
        [TaskUpdated(task=SITE)],
    ),
    Case(
        "parts that were lost too often end their task",
        uploads.redo_parts,
        planned(losses=LAST_LOSS),
        (MOMENT, SITE, UPLOAD_ID, NEXT_TRY),
        [TaskUpdated(task=SITE)],
    ),
    Case(
        "a task that is done says so",
        endings.finish_task,
        planned(),
        (MOMENT, SITE, stored(3), 1),
        [TaskUpdated(task=SITE)],
    ),
    Case(
        "a task that failed says so",
        endings.fail_task,
        planned(),
        (MOMENT, SITE, FAILURE),
        [TaskUpdated(task=SITE)],
    ),
    Case(
        "a new job sends each of its tasks",
        lifecycle.begin,
        pending_job(),
        (MOMENT, ["site", "db"]),
        [UploadJobCreated(task=SITE), UploadJobCreated(task=DB)],
    ),
    Case(
        "a retry sends each task of the next attempt",
        lifecycle.retry,
        FAILED,
        (MOMENT,),
        [UploadJobCreated(task=NEXT_SITE), UploadJobCreated(task=NEXT_DB)],
    ),
    Case(
        "a retry does not send a task that is done",
        lifecycle.retry,
        HALF_DONE,
        (MOMENT,),
        [UploadJobCreated(task=NEXT_SITE)],
    ),
    Case(
        "a check sends a task that nobody has begun",
        check,
        new_job(1),
        (NOT_BEGUN, {}),
        [UploadJobCreated(task=SITE)],
    ),
    Case(
        "a check sends the missing parts of a stalled task, each as its own next try",
        check,
        planned(1),
        (STALLED, {"site": {1: PartWait(), 3: PartWait(attempt=1, tries=TRIES)}}),
        [part(1, redelivery=1), part(3, redelivery=TRIES + 1)],
    ),
    Case(
        "a check has a stalled upload that lacks no part completed",
        check,
        planned(1, tries=TRIES),
        (STALLED, {}),
        [PartUpdated(task=SITE, upload_id=UPLOAD_ID, redelivery=TRIES + 1)],
    ),
    Case(
        "a check ends a task that was tried often enough",
        check,
        planned(1, tries=LAST_TRY),
        (STALLED, {}),
        [TaskUpdated(task=SITE)],
    ),
    Case(
        "a check has a sealed job finished",
        check,
        SEALED,
        (NOT_BEGUN, {}),
        [TaskUpdated(task=SITE)],
    ),
]
SILENT = [
    Case("a run begins", runs.start_task, new_job(2), (MOMENT, SITE, 0, ME)),
    Case("a run begins anew", runs.run_again, started(), (MOMENT, SITE, ME)),
    Case("a run goes on", runs.renew_lease, started(), (MOMENT, SITE, ME)),
    Case("a run reserves bytes", runs.reserve, started(), (MOMENT, SITE, ME, 7)),
    Case("a stream begins", runs.begin_stream, started(), (MOMENT, SITE, ME)),
    Case("a stream has its upload", runs.adopt_upload, started(), (MOMENT, SITE, ME, OF_A_STREAM)),
    Case("a run failed for now", postponing.note_error, started(), (MOMENT, SITE, ME, ERROR)),
    Case("a part failed for now", postponing.note_part_error, planned(), (MOMENT, SITE, UPLOAD_ID, ERROR)),
    Case("a completion is tried again", postponing.claim_try, planned(), (MOMENT, SITE, 1)),
    Case("an upload is lost", uploads.replan_lost, planned(), (MOMENT, SITE, UPLOAD_ID, NEXT_TRY)),
    Case("parts are lost", uploads.redo_parts, planned(), (MOMENT, SITE, UPLOAD_ID, NEXT_TRY)),
    Case(
        "progress of a stream is recorded",
        uploads.dispatch_parts,
        streaming(),
        (MOMENT, SITE, UPLOAD_ID, parts_done(1)),
    ),
    Case("a sealed job is done", endings.finish_job, SEALED, (MOMENT, 1)),
    Case("a job is cancelled", endings.cancel, planned(), (MOMENT,)),
    Case("a job is past its deadline", endings.time_out, planned(), (at(planned().deadline_at),)),
    Case("a task waits longer than a stall", check, WAITING, (STALLED, {})),
    Case("a look is put off", lifecycle.look_again, DONE, (MOMENT, NEXT_TRY)),
    Case("the cleaning of a failed job begins", lifecycle.begin_cleaning, FAILED, (MOMENT,)),
    Case("the cleaning of a failed job ends", lifecycle.end_cleaning, CLEANING, (MOMENT,)),
    Case("a done job is clean", lifecycle.mark_clean, DONE, (MOMENT,)),
    Case("a job is marked for deletion", lifecycle.mark_deleted, DONE, (MOMENT, START, REQUESTED)),
    Case("a mark is taken back", lifecycle.undelete, MARKED, (MOMENT,)),
    Case("a backup is pinned", lifecycle.pin, DONE, (MOMENT, "download", STALL)),
    Case("a pin is taken out", lifecycle.unpin, PINNED, (MOMENT, "download")),
    Case("a legal hold is asked for", lifecycle.set_legal_hold, DONE, (MOMENT, True)),
    Case("s3 was told of a legal hold", lifecycle.settle_legal_hold, HELD, (MOMENT,)),
    Case("a removal begins", lifecycle.begin_removal, MARKED, (MOMENT,)),
    Case("a removal ends", lifecycle.end_removal, REMOVING, (MOMENT,)),
]


@pytest.mark.parametrize("case", FOLLOWED, ids=lambda case: case.when)
def test_a_transition_gives_the_events_that_follow(case: Case) -> None:
    change = case.transition(case.job, *case.arguments)
    assert change is not None
    assert list(change.events) == list(case.events)


@pytest.mark.parametrize("case", SILENT, ids=lambda case: case.when)
def test_a_transition_that_nobody_must_be_told_of_gives_no_event(case: Case) -> None:
    change = case.transition(case.job, *case.arguments)
    assert change is not None
    assert not change.events


def test_every_transition_of_the_domain_is_tested_here() -> None:
    found = {
        function
        for module in (runs, uploads, postponing, endings, lifecycle, checks)
        for name, function in getmembers(module, isfunction)
        if not name.startswith("_")
        and function.__module__ == module.__name__
        and signature(function).return_annotation in (Change, Change | None)
    }
    assert found == {case.transition for case in [*FOLLOWED, *SILENT]}
