"""Each transition changes the fields that it must and no other, and nothing where there is nothing to change."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest

from sitebackup.domain import lifecycle
from sitebackup.domain.change import Change, Moment
from sitebackup.domain.job import DeleteCause, Job, LastError, Lease, Status, Task, Upload
from sitebackup.domain.progress import Progress
from sitebackup.domain.reason import Code, Reason
from sitebackup.domain.transitions import endings, postponing, runs, uploads
from tests.unit.jobs import (
    FIVE_PARTS,
    ME,
    OTHER,
    POLICY,
    SITE,
    START,
    UPLOAD_ID,
    WINDOW,
    at,
    new_job,
    pending_job,
    planned,
    started,
    stored,
)

LATER = at(START + timedelta(seconds=10))
"""When the transitions happen."""
NOW = LATER.now
INSTANT = timedelta(milliseconds=1)
STALL, LEASE_OVER, GRACE_OVER = (
    LATER.in_seconds(seconds)
    for seconds in (POLICY.stall_seconds, POLICY.lease_seconds, POLICY.upload_grace_seconds)
)
NEXT_TRY = NOW + timedelta(seconds=4)
"""Before any check that the jobs below have."""
NEXT_CHECK = NOW + timedelta(seconds=30)
"""Of a task that a part made wait."""
FAILED_BEFORE = LastError(message="500.", at=START, count=3)
FAILED_NOW = LastError(message="503.", at=NOW, count=4)
ERROR = postponing.Postponed("503.", NEXT_TRY)
NOT_FOUND = Reason(code=Code.EXPORT_NOT_FOUND, message="404.")
CANCELLED = Reason(code=Code.CANCELLED, message="Cancelled on request.")
TIMED_OUT = Reason(code=Code.TIMED_OUT, message=f"Not finished after {POLICY.attempt_seconds} seconds.")
PLANNED = Upload(upload_id=UPLOAD_ID, plan=FIVE_PARTS, attempt=1, dispatched=WINDOW, window=WINDOW)
OF_A_STREAM = Upload(upload_id=UPLOAD_ID, attempt=1)
OF_THE_ATTEMPT_BEFORE = PLANNED.replace(attempt=0)
THREE_BYTES = stored(3)
SOME_BYTES = runs.StreamRead(bytes=375_000, seconds=0.5)
SOME_BYTES_SAY = "The stream was not over after 0 s: 375000 bytes at 0.8 MB/s."

LEASED = {"lease": Lease(owner=ME, until=LEASE_OVER), "stalls_at": STALL, "next_check_at": LEASE_OVER}
RUN_OVER = {"lease": None, "stalls_at": STALL, "stall_delay": 0, "next_check_at": STALL}
OVER = {
    "lease": None,
    "next_try_at": None,
    "stalls_at": None,
    "stall_delay": 0,
    "next_check_at": None,
    "finished_at": NOW,
}
BEGUN_BY = LATER.in_seconds(POLICY.start_seconds)
FRESH = {
    "status": Status.PENDING,
    "reason": None,
    "tries": 0,
    "losses": 0,
    "stall_delay": 0,
    "last_error": None,
    "stalls_at": BEGUN_BY,
    "next_check_at": BEGUN_BY,
    "finished_at": None,
}
"""Of a task that was stopped and that a retry begins again."""
FRESH_JOB = {
    "status": Status.PENDING,
    "reason": None,
    "attempt": 2,
    "deadline_at": LATER.in_seconds(POLICY.attempt_seconds),
    "started_at": None,
    "finished_at": None,
    "cleaning_at": None,
    "cleaned_at": None,
    "clean_up_at": None,
}
DELETE_GRACE = timedelta(seconds=POLICY.delete_grace_seconds)


def parts_done(count: int) -> Progress:
    size = count * FIVE_PARTS.part_size
    return Progress(parts=count, bytes=size, watermark=count, watermark_bytes=size)


def with_site(job: Job, **changes: Any) -> Job:
    return job.replace(tasks={**job.tasks, "site": job.tasks["site"].replace(**changes)})


def worn(job: Job, **changes: Any) -> Job:
    """Its task `site` has been through much, so that it shows what a transition sets back."""
    fields: dict[str, Any] = {
        "runs": 4,
        "tries": 2,
        "losses": 1,
        "stall_delay": 1800,
        "last_error": FAILED_BEFORE,
        "next_try_at": NOW,
        "stalls_at": NOW + timedelta(seconds=500),
        "next_check_at": NEXT_CHECK,
    }
    return with_site(job, **fields | changes)


READING = worn(started())
"""A run has the export open, and no upload yet."""
MOVING = worn(planned(), progress=parts_done(1))
"""Others move the parts of a planned upload, and one is done."""
STREAMING = worn(started(), upload=OF_A_STREAM, progress=parts_done(1), stream_only=True)
READ_TO_ITS_END = worn(planned(), progress=parts_done(1), stream_only=True)
"""The size of its stream is known, and parts are not all counted yet."""
NOT_BEGUN = worn(new_job(2), lease=Lease(owner=OTHER, until=NOW))
"""The lease and the wait of an earlier run are over at this moment."""
ONE_DONE = MOVING.replace(
    tasks={**MOVING.tasks, "db": MOVING.tasks["db"].replace(status=Status.DONE, object=THREE_BYTES)}
)
HALF_DONE = worn(
    ONE_DONE,
    status=Status.CANCELLED,
    reason=CANCELLED,
    next_try_at=None,
    stalls_at=None,
    next_check_at=None,
    finished_at=START,
).replace(
    status=Status.CANCELLED,
    reason=CANCELLED,
    started_at=START,
    finished_at=START,
    clean_up_at=START + timedelta(seconds=POLICY.upload_grace_seconds),
)
"""Cancelled, when one of its two tasks was done."""
CLEANED = HALF_DONE.replace(cleaning_at=START, cleaned_at=START)
DONE = ONE_DONE.replace(status=Status.DONE, finished_at=START, expires_after_days=1)
MARKED = DONE.replace(delete_at=START, delete_cause=DeleteCause.REQUESTED, clean_up_at=START)
SEALED = started(1).replace(sealed_at=START, finish_check_at=NOW)


@dataclass(frozen=True)
class Case:
    """A transition, what it is called with beside the job and the moment, and the fields that then differ."""

    when: str
    transition: Callable[..., Change | None]
    job: Job
    arguments: Sequence[object] = ()
    site: Mapping[str, object] = field(default_factory=dict)
    """Fields of the task `site`."""
    db: Mapping[str, object] = field(default_factory=dict)
    fields: Mapping[str, object] = field(default_factory=dict)
    """Fields of the job, beside `updated_at`."""
    moment: Moment = LATER


def failed(reason: Reason) -> dict[str, Any]:
    """What differs once `site` has failed: its job has failed as well, and its sibling is cancelled."""
    sibling = Reason(code=Code.SIBLING_FAILED, message="Cancelled because site failed.")
    return {
        "site": {**OVER, "status": Status.FAILED, "reason": reason},
        "db": {**OVER, "status": Status.CANCELLED, "reason": sibling},
        "fields": ended(Status.FAILED, reason),
    }


def ended(status: Status, reason: Reason) -> dict[str, object]:
    """What differs of a job that did not get done."""
    return {"status": status, "reason": reason, "finished_at": NOW, "clean_up_at": GRACE_OVER}


CHANGES = [
    Case(
        "a run begins with the next try, once the lease and the wait of the run before are over",
        runs.start_task,
        NOT_BEGUN,
        (SITE, 3, ME),
        site={**LEASED, "status": Status.RUNNING, "runs": 5, "tries": 3, "next_try_at": None},
        fields={"status": Status.RUNNING, "started_at": NOW},
    ),
    Case(
        "a run begins with the same try",
        runs.start_task,
        NOT_BEGUN.replace(started_at=START),
        (SITE, 2, ME),
        site={**LEASED, "status": Status.RUNNING, "runs": 5, "next_try_at": None},
        fields={"status": Status.RUNNING},
    ),
    Case(
        "a run begins although a run before has uploaded a part of the stream",
        runs.start_task,
        with_site(STREAMING, lease=None),
        (SITE, 2, ME),
        site={**LEASED, "runs": 5, "next_try_at": None},
    ),
    Case(
        "a run begins although an earlier attempt has planned the upload",
        runs.start_task,
        with_site(MOVING, upload=OF_THE_ATTEMPT_BEFORE),
        (SITE, 2, ME),
        site={**LEASED, "runs": 5, "next_try_at": None},
    ),
    Case("a run begins anew", runs.run_again, READING, (SITE, ME), site={**LEASED, "runs": 5}),
    Case("a run goes on", runs.renew_lease, READING, (SITE, ME), site=LEASED),
    Case(
        "a run goes on under a lease that is longer than a stall takes",
        runs.renew_lease,
        READING,
        (SITE, ME),
        site={**LEASED, "lease": Lease(owner=ME, until=STALL), "next_check_at": STALL},
        moment=Moment(NOW, POLICY.replace(lease_seconds=POLICY.stall_seconds, stall_seconds=1)),
    ),
    Case("a run reserves bytes", runs.reserve, READING, (SITE, ME, 7), site={"reserved": 7}),
    Case(
        "a run leaves a planned upload to others",
        runs.end_run,
        with_site(READING, upload=OF_THE_ATTEMPT_BEFORE, progress=parts_done(1)),
        (SITE, ME, [2]),
        site=RUN_OVER,
    ),
    Case(
        "a run has planned its upload",
        runs.adopt_upload,
        with_site(READING, progress=parts_done(1)),
        (SITE, ME, PLANNED),
        site={**RUN_OVER, "upload": PLANNED, "progress": Progress()},
    ),
    Case(
        "a run has made an upload for its stream",
        runs.adopt_upload,
        with_site(READING, progress=parts_done(1)),
        (SITE, ME, OF_A_STREAM),
        site={**LEASED, "upload": OF_A_STREAM, "progress": Progress()},
    ),
    Case(
        "a run reads a stream anew",
        runs.begin_stream,
        with_site(STREAMING, stream_only=False),
        (SITE, ME),
        site={**LEASED, "upload": None, "progress": Progress(), "stream_only": True},
    ),
    Case(
        "a run has read its stream to the end",
        runs.end_stream,
        STREAMING,
        (SITE, ME, FIVE_PARTS),
        site={**RUN_OVER, "upload": OF_A_STREAM.replace(plan=FIVE_PARTS, dispatched=5)},
    ),
    Case(
        "a run was stopped in its stream",
        runs.stop_stream,
        STREAMING,
        (SITE, ME, SOME_BYTES),
        site={
            "stream_stops": 1,
            "last_error": FAILED_NOW.replace(message=SOME_BYTES_SAY),
            "next_try_at": NOW,
            "next_check_at": NOW,
            "lease": None,
        },
    ),
    Case(
        "a run was stopped in its stream once too often",
        runs.stop_stream,
        with_site(STREAMING, stream_stops=POLICY.max_stream_stops - 1),
        (SITE, ME, SOME_BYTES),
        **failed(Reason(code=Code.STREAM_TOO_LONG, message=SOME_BYTES_SAY)),
    ),
    Case(
        "a run failed for now",
        postponing.note_error,
        READING,
        (SITE, ME, ERROR),
        site={"last_error": FAILED_NOW, "next_try_at": NEXT_TRY, "next_check_at": NEXT_TRY, "lease": None},
    ),
    Case(
        "a run failed for now, long after the sweep looks",
        postponing.note_error,
        READING,
        (SITE, ME, ERROR._replace(next_try_at=STALL)),
        site={"last_error": FAILED_NOW, "next_try_at": STALL, "lease": None},
    ),
    Case(
        "a completion failed for the first time, once the lease and the wait of another run are over",
        postponing.note_error,
        with_site(READING, lease=Lease(owner=OTHER, until=NOW), last_error=None),
        (SITE, None, ERROR),
        site={
            "last_error": FAILED_NOW.replace(count=1),
            "next_try_at": NEXT_TRY,
            "next_check_at": NEXT_TRY,
            "lease": None,
        },
    ),
    Case(
        "a part failed for now",
        postponing.note_part_error,
        MOVING,
        (SITE, UPLOAD_ID, ERROR),
        site={"last_error": FAILED_NOW, "next_try_at": NEXT_TRY, "next_check_at": NEXT_TRY},
    ),
    Case(
        "a part failed for now, and another one waits longer",
        postponing.note_part_error,
        with_site(MOVING, next_try_at=NEXT_CHECK),
        (SITE, UPLOAD_ID, ERROR),
        site={"last_error": FAILED_NOW, "next_try_at": NEXT_TRY, "next_check_at": NEXT_TRY},
    ),
    Case(
        "a part failed for now, and another one is tried sooner",
        postponing.note_part_error,
        with_site(MOVING, next_try_at=NEXT_TRY - INSTANT, next_check_at=NEXT_TRY - INSTANT),
        (SITE, UPLOAD_ID, ERROR),
        site={"last_error": FAILED_NOW},
    ),
    Case(
        "a part failed for now, within seconds of an error, and is tried before the sweep looks",
        postponing.note_part_error,
        with_site(MOVING, last_error=FAILED_BEFORE.replace(at=NOW)),
        (SITE, UPLOAD_ID, ERROR),
        site={"last_error": FAILED_NOW, "next_try_at": NEXT_TRY, "next_check_at": NEXT_TRY},
    ),
    Case(
        "a part failed for now, five seconds after an error",
        postponing.note_part_error,
        with_site(MOVING, last_error=FAILED_BEFORE.replace(at=NOW - postponing.WRITTEN_EVERY)),
        (SITE, UPLOAD_ID, ERROR._replace(next_try_at=STALL)),
        site={"last_error": FAILED_NOW, "next_try_at": STALL},
    ),
    Case("a completion is tried again", postponing.claim_try, MOVING, (SITE, 3), site={"tries": 3}),
    Case(
        "parts got done before the sweep looks",
        uploads.dispatch_parts,
        MOVING,
        (SITE, UPLOAD_ID, parts_done(2)),
        site={
            "progress": parts_done(2),
            "upload": PLANNED.replace(dispatched=5),
            "tries": 0,
            "stalls_at": STALL,
            "stall_delay": 0,
        },
    ),
    Case(
        "parts of a stream got done, whose next check was later than a stall",
        uploads.dispatch_parts,
        with_site(STREAMING, next_check_at=STALL + INSTANT),
        (SITE, UPLOAD_ID, parts_done(2)),
        site={"progress": parts_done(2), "stalls_at": STALL, "stall_delay": 0, "next_check_at": STALL},
    ),
    Case(
        "parts of a stream got done that was read to its end",
        uploads.dispatch_parts,
        with_site(READ_TO_ITS_END, upload=PLANNED.replace(dispatched=5)),
        (SITE, UPLOAD_ID, parts_done(2)),
        site={"progress": parts_done(2), "stalls_at": STALL, "stall_delay": 0},
    ),
    Case(
        "an export changed within an attempt",
        uploads.replan_changed,
        with_site(MOVING, lease=Lease(owner=ME, until=LEASE_OVER)),
        (SITE, UPLOAD_ID),
        site={
            "upload": None,
            "lease": None,
            "next_try_at": None,
            "progress": Progress(),
            "stream_only": True,
            "stalls_at": STALL,
            "stall_delay": 0,
        },
    ),
    Case(
        "an export changed since the attempt before",
        uploads.replan_changed,
        with_site(MOVING, upload=OF_THE_ATTEMPT_BEFORE),
        (SITE, UPLOAD_ID),
        site={
            "upload": None,
            "next_try_at": None,
            "progress": Progress(),
            "started_anew": True,
            "stalls_at": STALL,
            "stall_delay": 0,
        },
    ),
    Case(
        "an export changed again, after it had changed since the attempt before",
        uploads.replan_changed,
        with_site(MOVING, started_anew=True),
        (SITE, UPLOAD_ID),
        site={
            "upload": None,
            "next_try_at": None,
            "progress": Progress(),
            "stream_only": True,
            "stalls_at": STALL,
            "stall_delay": 0,
        },
    ),
    Case(
        "an upload was lost",
        uploads.replan_lost,
        with_site(MOVING, lease=Lease(owner=ME, until=LEASE_OVER)),
        (SITE, UPLOAD_ID, NEXT_TRY),
        site={
            "upload": None,
            "lease": None,
            "progress": Progress(),
            "losses": 2,
            "stalls_at": STALL,
            "stall_delay": 0,
            "next_try_at": NEXT_TRY,
            "next_check_at": NEXT_TRY,
        },
    ),
    Case(
        "parts were lost, and are moved again after the sweep looks",
        uploads.redo_parts,
        MOVING,
        (SITE, UPLOAD_ID, STALL),
        site={
            "progress": Progress(),
            "losses": 2,
            "stalls_at": STALL,
            "stall_delay": 0,
            "next_try_at": STALL,
        },
    ),
    Case(
        "an upload was lost once too often",
        uploads.replan_lost,
        with_site(MOVING, losses=POLICY.max_tries - 1),
        (SITE, UPLOAD_ID, NEXT_TRY),
        **failed(Reason(code=Code.RETRIES_EXHAUSTED, message="S3 lost the upload again and again.")),
    ),
    Case(
        "parts were lost once too often",
        uploads.redo_parts,
        with_site(MOVING, losses=POLICY.max_tries - 1),
        (SITE, UPLOAD_ID, NEXT_TRY),
        **failed(Reason(code=Code.RETRIES_EXHAUSTED, message="S3 lost parts of the upload again and again.")),
    ),
    Case(
        "a task got done, and another one is not",
        endings.finish_task,
        with_site(MOVING, lease=Lease(owner=ME, until=LEASE_OVER)),
        (SITE, THREE_BYTES, 5),
        site={
            **OVER,
            "status": Status.DONE,
            "object": THREE_BYTES.replace(parts=5, validator=FIVE_PARTS.validator),
            "progress": Progress(parts=5, bytes=3, watermark=5, watermark_bytes=3),
            "upload": None,
            "tries": 0,
        },
    ),
    Case(
        "the last task got done, without an upload",
        endings.finish_task,
        ONE_DONE.replace(tasks={**ONE_DONE.tasks, "site": READING.tasks["site"]}),
        (SITE, THREE_BYTES, 1),
        site={
            **OVER,
            "status": Status.DONE,
            "object": THREE_BYTES,
            "progress": Progress(parts=1, bytes=3, watermark=1, watermark_bytes=3),
            "tries": 0,
        },
        fields={"sealed_at": NOW, "finish_check_at": LATER.in_seconds(POLICY.start_seconds)},
    ),
    Case("a task failed", endings.fail_task, MOVING, (SITE, NOT_FOUND), **failed(NOT_FOUND)),
    Case(
        "a task failed, and another one was done",
        endings.fail_task,
        ONE_DONE,
        (SITE, NOT_FOUND),
        site={**OVER, "status": Status.FAILED, "reason": NOT_FOUND},
        fields=ended(Status.FAILED, NOT_FOUND),
    ),
    Case(
        "a sealed job is done, and expires",
        endings.finish_job,
        SEALED.replace(expires_after_days=1),
        (1,),
        fields={
            "status": Status.DONE,
            "finished_at": START,
            "finish_check_at": None,
            "clean_up_at": START + timedelta(seconds=POLICY.day_seconds),
        },
    ),
    Case(
        "a job is at its deadline, and one of its tasks was done",
        endings.time_out,
        ONE_DONE.replace(deadline_at=NOW),
        site={**OVER, "status": Status.CANCELLED, "reason": TIMED_OUT},
        fields=ended(Status.FAILED, TIMED_OUT),
    ),
    Case(
        "a job is cancelled, and one of its tasks was done",
        endings.cancel,
        ONE_DONE,
        site={**OVER, "status": Status.CANCELLED, "reason": CANCELLED},
        fields=ended(Status.CANCELLED, CANCELLED),
    ),
    Case(
        "a retry keeps what is done and what is planned",
        lifecycle.retry,
        HALF_DONE,
        site=FRESH,
        fields=FRESH_JOB,
    ),
    Case(
        "a retry keeps what a task had planned that failed",
        lifecycle.retry,
        with_site(HALF_DONE, reason=NOT_FOUND),
        site=FRESH,
        fields=FRESH_JOB,
    ),
    Case(
        "a retry keeps nothing of an export that was no whole zip",
        lifecycle.retry,
        with_site(HALF_DONE, reason=Reason(code=Code.EXPORT_INCOMPLETE, message="Cut off.")),
        site={**FRESH, "upload": None, "progress": Progress()},
        fields=FRESH_JOB,
    ),
    Case(
        "a retry keeps nothing of a stream that was not read to its end",
        lifecycle.retry,
        with_site(HALF_DONE, upload=OF_A_STREAM, stream_only=True, stream_stops=1, started_anew=True),
        site={
            **FRESH,
            "upload": None,
            "progress": Progress(),
            "stream_only": False,
            "stream_stops": 0,
            "started_anew": False,
        },
        fields=FRESH_JOB,
    ),
    Case(
        "a retry keeps nothing that was cleaned away",
        lifecycle.retry,
        CLEANED,
        site={**FRESH, "upload": None, "progress": Progress()},
        db={**FRESH, "object": None},
        fields=FRESH_JOB,
    ),
    Case("a look is put off", lifecycle.look_again, DONE, (STALL,), fields={"clean_up_at": STALL}),
    Case(
        "the cleaning of a failed job begins",
        lifecycle.begin_cleaning,
        HALF_DONE,
        fields={"cleaning_at": NOW, "clean_up_at": NOW + lifecycle.CLAIM},
    ),
    Case(
        "the cleaning of a failed job ends",
        lifecycle.end_cleaning,
        HALF_DONE.replace(cleaning_at=START),
        fields={"cleaned_at": NOW, "clean_up_at": NOW},
    ),
    Case("a done job is clean", lifecycle.mark_clean, DONE, fields={"cleaned_at": NOW, "clean_up_at": NOW}),
    Case(
        "a job is marked that nobody would look at",
        lifecycle.mark_deleted,
        DONE,
        (STALL, DeleteCause.REQUESTED),
        fields={
            "delete_at": STALL,
            "delete_cause": DeleteCause.REQUESTED,
            "clean_up_at": STALL + DELETE_GRACE,
        },
    ),
    Case(
        "a job is marked that somebody would look at only after the grace",
        lifecycle.mark_deleted,
        DONE.replace(clean_up_at=STALL + DELETE_GRACE + INSTANT),
        (STALL, DeleteCause.EXPIRED),
        fields={
            "delete_at": STALL,
            "delete_cause": DeleteCause.EXPIRED,
            "clean_up_at": STALL + DELETE_GRACE,
        },
    ),
    Case(
        "a job is marked that somebody looks at before",
        lifecycle.mark_deleted,
        DONE.replace(clean_up_at=STALL),
        (STALL, DeleteCause.REQUESTED),
        fields={"delete_at": STALL, "delete_cause": DeleteCause.REQUESTED},
    ),
    Case(
        "a mark is taken back",
        lifecycle.undelete,
        MARKED,
        fields={"delete_at": None, "delete_cause": None, "clean_up_at": NOW},
    ),
    Case(
        "the mark of what had expired is taken back",
        lifecycle.undelete,
        MARKED.replace(delete_cause=DeleteCause.EXPIRED),
        fields={"delete_at": None, "delete_cause": None, "expires_after_days": None, "clean_up_at": NOW},
    ),
    Case(
        "a removal begins",
        lifecycle.begin_removal,
        MARKED,
        fields={"removing_at": NOW, "clean_up_at": NOW + lifecycle.CLAIM},
    ),
    Case(
        "a removal begins again",
        lifecycle.begin_removal,
        MARKED.replace(removing_at=START),
        fields={"clean_up_at": NOW + lifecycle.CLAIM},
    ),
    Case(
        "a removal ends",
        lifecycle.end_removal,
        MARKED.replace(removing_at=START),
        fields={
            "status": Status.DELETED,
            "deleted_at": NOW,
            "clean_up_at": LATER.in_seconds(POLICY.completed_record_days * POLICY.day_seconds),
        },
    ),
    Case(
        "the removal of a failed job ends",
        lifecycle.end_removal,
        HALF_DONE.replace(delete_at=START, delete_cause=DeleteCause.REQUESTED, removing_at=START),
        fields={
            "status": Status.DELETED,
            "deleted_at": NOW,
            "clean_up_at": LATER.in_seconds(POLICY.failed_record_days * POLICY.day_seconds),
        },
    ),
]
NOTHING = [
    Case(
        "a run would begin while another one may still hold the export",
        runs.start_task,
        with_site(NOT_BEGUN, lease=Lease(owner=OTHER, until=NOW + INSTANT)),
        (SITE, 2, ME),
    ),
    Case(
        "a run would begin while the task waits",
        runs.start_task,
        with_site(NOT_BEGUN, next_try_at=NOW + INSTANT),
        (SITE, 2, ME),
    ),
    Case("a run would begin with an earlier try", runs.start_task, NOT_BEGUN, (SITE, 1, ME)),
    Case("a run would plan what this attempt has planned", runs.start_task, MOVING, (SITE, 2, ME)),
    Case(
        "a run would read a stream that was read to its end", runs.start_task, READ_TO_ITS_END, (SITE, 2, ME)
    ),
    Case("a run without an upload would leave it to others", runs.end_run, READING, (SITE, ME, [2])),
    Case("a run would adopt a second upload", runs.adopt_upload, STREAMING, (SITE, ME, PLANNED)),
    Case(
        "a run would read a planned upload as a stream",
        runs.begin_stream,
        with_site(READING, upload=PLANNED),
        (SITE, ME),
    ),
    Case("a run without an upload would end a stream", runs.end_stream, READING, (SITE, ME, FIVE_PARTS)),
    Case(
        "a run is stopped while its task waits",
        runs.stop_stream,
        with_site(STREAMING, next_try_at=NEXT_TRY),
        (SITE, ME, SOME_BYTES),
    ),
    Case(
        "a run fails while another one holds the export",
        postponing.note_error,
        with_site(READING, lease=Lease(owner=OTHER, until=NOW + INSTANT)),
        (SITE, ME, ERROR),
    ),
    Case(
        "a run fails while its task waits",
        postponing.note_error,
        with_site(READING, next_try_at=NOW + INSTANT),
        (SITE, ME, ERROR),
    ),
    Case(
        "a part fails just within five seconds of an error, and the sweep looks sooner",
        postponing.note_part_error,
        with_site(MOVING, last_error=FAILED_BEFORE.replace(at=NOW - postponing.WRITTEN_EVERY + INSTANT)),
        (SITE, UPLOAD_ID, ERROR._replace(next_try_at=STALL)),
    ),
    Case("a completion is tried as before", postponing.claim_try, MOVING, (SITE, 2)),
    Case("no part got done", uploads.dispatch_parts, MOVING, (SITE, UPLOAD_ID, parts_done(1))),
    Case("fewer parts are known", uploads.dispatch_parts, MOVING, (SITE, UPLOAD_ID, Progress())),
    Case("a job is not sealed", endings.finish_job, MOVING, (1,)),
    Case("a sealed job is of another attempt", endings.finish_job, SEALED, (2,)),
    Case("a job is just before its deadline", endings.time_out, MOVING.replace(deadline_at=NOW + INSTANT)),
    Case("a sealed job is past its deadline", endings.time_out, SEALED.replace(deadline_at=START)),
    Case("a sealed job would be cancelled", endings.cancel, SEALED),
    Case(
        "a job would be retried while it is being cleaned",
        lifecycle.retry,
        HALF_DONE.replace(cleaning_at=NOW - lifecycle.CLAIM + INSTANT),
    ),
    Case("a job would be retried that is marked", lifecycle.retry, HALF_DONE.replace(delete_at=STALL)),
    Case("a look would be put off to when it is", lifecycle.look_again, MARKED, (START,)),
]
OF_RUNS: list[tuple[Callable[..., Change | None], Sequence[object]]] = [
    (runs.run_again, ()),
    (runs.renew_lease, ()),
    (runs.reserve, (7,)),
    (runs.end_run, ([2],)),
    (runs.adopt_upload, (PLANNED,)),
    (runs.begin_stream, ()),
    (runs.end_stream, (FIVE_PARTS,)),
    (runs.stop_stream, (SOME_BYTES,)),
]


@pytest.mark.parametrize("case", CHANGES, ids=lambda case: case.when)
def test_a_transition_changes_what_it_must_and_nothing_else(case: Case) -> None:
    change = case.transition(case.job, case.moment, *case.arguments)
    assert change is not None
    tasks = {name: task.replace(**getattr(case, name)) for name, task in case.job.tasks.items()}
    assert change.job == case.job.replace(tasks=tasks, updated_at=NOW, **case.fields)


@pytest.mark.parametrize("case", NOTHING, ids=lambda case: case.when)
def test_a_transition_changes_nothing(case: Case) -> None:
    assert case.transition(case.job, case.moment, *case.arguments) is None


@pytest.mark.parametrize(("transition", "arguments"), OF_RUNS)
@pytest.mark.parametrize("lease", [None, Lease(owner=OTHER, until=LEASE_OVER)])
def test_a_run_that_lost_the_export_changes_nothing(
    transition: Callable[..., Change | None], arguments: Sequence[object], lease: Lease | None
) -> None:
    for upload in (None, OF_A_STREAM):
        job = with_site(READING, lease=lease, upload=upload)
        assert transition(job, LATER, SITE, ME, *arguments) is None


def test_a_new_job_has_tasks_that_must_be_begun_soon() -> None:
    job = pending_job()
    begun = lifecycle.begin(job, LATER, ["site"]).job
    assert begun == job.replace(tasks={"site": Task(stalls_at=BEGUN_BY, next_check_at=BEGUN_BY)})
