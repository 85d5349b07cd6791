"""The state machine: every transition in any order, twice, late, for other attempts, under a clock that jumps."""

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sitebackup.domain import lifecycle
from sitebackup.domain.change import Change, Moment
from sitebackup.domain.check import check, uploads_to_check
from sitebackup.domain.job import (
    RETRYABLE,
    UNFINISHED,
    DeleteCause,
    Job,
    Lease,
    PartWait,
    Status,
    Task,
    Upload,
)
from sitebackup.domain.plan import MIN_PART_SIZE, Plan, plan_parts
from sitebackup.domain.progress import Progress, advance
from sitebackup.domain.reason import Code, Reason
from sitebackup.domain.task_ref import TaskRef
from sitebackup.domain.transitions import endings, postponing, runs, timing, uploads
from tests.simulation.invariants import check_change, check_job
from tests.unit.jobs import (
    DB,
    FIVE_PARTS,
    ME,
    MOMENT,
    OTHER,
    POLICY,
    PROVIDERS,
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

OWNERS = st.sampled_from(["run 1", "run 2"])
CHOICES = st.integers(0, len(PROVIDERS) - 1)
"""Of a provider of the job."""
STALE = st.sampled_from([0, 0, 0, 0, 1])
"""How many attempts an event is behind."""
OLD = st.sampled_from([False, False, False, True])
"""Whether an event is about an upload that is not the task's."""
PLANS = [
    plan_parts(size, MIN_PART_SIZE, '"1"') for size in (MIN_PART_SIZE + 1, 4 * MIN_PART_SIZE, FIVE_PARTS.size)
]
SOON = timedelta(seconds=4)
"""The pause after a loss."""
UNAVAILABLE = "503."
READ = runs.StreamRead(bytes=9, seconds=1.0)


class Jobs(RuleBasedStateMachine):
    """One job, whatever comes."""

    def __init__(self) -> None:
        super().__init__()
        self.now = START
        self.uploads = 0
        self.done: dict[str, set[int]] = {}
        self.job = new_job(1)

    @initialize(tasks=st.integers(1, len(PROVIDERS)))
    def begin(self, tasks: int) -> None:
        self.job = new_job(tasks)

    @property
    def moment(self) -> Moment:
        return at(self.now)

    def apply(self, change: Change | None, stale: int = 0) -> None:
        """Stores a change, as the recorder does."""
        if change is None:
            return
        assert stale == 0, "an event of an earlier attempt changed the job"
        after = change.job.with_next_check()
        check_change(self.job, after, self.now)
        for event in change.events:
            assert event.task == after.ref(event.task.provider), "an event of another attempt follows"
            assert event.task.provider in after.tasks
        self.job = after

    def ref(self, choice: int, stale: int = 0) -> TaskRef:
        ref = self.job.ref(PROVIDERS[choice % len(self.job.tasks)])
        return ref.replace(attempt=ref.attempt - stale)

    def task(self, choice: int) -> Task:
        return self.job.tasks[self.ref(choice).provider]

    def new_upload(self, plan: Plan | None) -> Upload:
        self.uploads += 1
        return Upload(
            upload_id=f"u{self.uploads}",
            plan=plan,
            attempt=self.job.attempt,
            dispatched=min(plan.parts, WINDOW) if plan else 0,
            window=WINDOW,
        )

    def upload_id(self, choice: int, old: bool) -> str:
        upload = self.task(choice).upload
        return "u0" if old or upload is None else upload.upload_id

    @rule(seconds=st.sampled_from([0, 1, 59, 61, 400, 1900, 6 * 3600, 24 * 3600]))
    def time_passes(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    @rule(choice=CHOICES, stale=STALE, redelivery=st.integers(0, 5), owner=OWNERS)
    def start(self, choice: int, stale: int, redelivery: int, owner: str) -> None:
        change = runs.start_task(self.job, self.moment, self.ref(choice, stale), redelivery, owner)
        lease = self.task(choice).lease
        assert not (change and lease and lease.until > self.now), "two runs would open the export"
        self.apply(change, stale)

    @rule(choice=CHOICES, stale=STALE, owner=OWNERS)
    def run_again(self, choice: int, stale: int, owner: str) -> None:
        self.apply(runs.run_again(self.job, self.moment, self.ref(choice, stale), owner), stale)

    @rule(choice=CHOICES, stale=STALE, owner=OWNERS, missing=st.lists(st.integers(1, 5), max_size=2))
    def end_run(self, choice: int, stale: int, owner: str, missing: list[int]) -> None:
        self.apply(runs.end_run(self.job, self.moment, self.ref(choice, stale), owner, missing), stale)

    @rule(choice=CHOICES, stale=STALE, redelivery=st.integers(1, 5))
    def claim_try(self, choice: int, stale: int, redelivery: int) -> None:
        ref, before = self.ref(choice, stale), self.task(choice)
        change = postponing.claim_try(self.job, self.moment, ref, redelivery)
        assert change is None or change.job.tasks[ref.provider].tries == redelivery > before.tries
        self.apply(change, stale)

    @rule(choice=CHOICES, stale=STALE, plan=st.sampled_from(PLANS), owner=OWNERS)
    def adopt(self, choice: int, stale: int, plan: Plan, owner: str) -> None:
        upload = self.new_upload(plan)
        change = runs.adopt_upload(self.job, self.moment, self.ref(choice, stale), owner, upload)
        assert change is None or self.task(choice).upload is None
        self.apply(change, stale)

    @rule(choice=CHOICES, stale=STALE, numbers=st.sets(st.integers(1, 5)), old=OLD)
    def parts_done(self, choice: int, stale: int, numbers: set[int], old: bool) -> None:
        task, upload_id = self.task(choice), self.upload_id(choice, old)
        done = self.done.setdefault(upload_id, set())
        if task.upload is None or stale:
            return
        plan = task.upload.plan or PLANS[-1]
        done |= {number for number in numbers if number <= plan.parts}
        lengths = [(number, plan.part(number).length) for number in done if number <= plan.parts]
        progress = advance(task.progress, [part for part in lengths if part[0] > task.progress.watermark])
        ref = self.ref(choice)
        change = uploads.dispatch_parts(self.job, self.moment, ref, upload_id, progress)
        assert not (old and change), "an event of another upload changed the job"
        if change and task.upload.plan:
            after = change.job.tasks[ref.provider]
            assert after.progress.parts == len(done)
            assert after.upload is not None
            assert after.upload.dispatched <= max(task.upload.dispatched, len(done) + WINDOW)
        self.apply(change)

    @rule(choice=CHOICES, stale=STALE, owner=OWNERS)
    def begin_stream(self, choice: int, stale: int, owner: str) -> None:
        ref = self.ref(choice, stale)
        change = runs.begin_stream(self.job, self.moment, ref, owner)
        if change:
            self.apply(change, stale)
            upload = self.new_upload(None)
            self.apply(runs.adopt_upload(self.job, self.moment, ref, owner, upload))
            assert self.job.tasks[ref.provider].upload == upload

    @rule(choice=CHOICES, stale=STALE, owner=OWNERS)
    def renew(self, choice: int, stale: int, owner: str) -> None:
        change = runs.renew_lease(self.job, self.moment, self.ref(choice, stale), owner)
        lease = self.task(choice).lease
        assert change is None or (lease and lease.owner == owner)
        self.apply(change, stale)

    @rule(choice=CHOICES, stale=STALE, owner=OWNERS)
    def end_stream(self, choice: int, stale: int, owner: str) -> None:
        lease = self.task(choice).lease
        change = runs.end_stream(self.job, self.moment, self.ref(choice, stale), owner, PLANS[-1])
        assert change is None or (lease and lease.owner == owner)
        self.apply(change, stale)

    @rule(choice=CHOICES, stale=STALE, owner=OWNERS)
    def stop_stream(self, choice: int, stale: int, owner: str) -> None:
        ref = self.ref(choice, stale)
        change = runs.stop_stream(self.job, self.moment, ref, owner, READ)
        if change and change.job.tasks[ref.provider].status is Status.FAILED:
            task = change.job.tasks[ref.provider]
            assert task.reason is not None
            assert task.reason.code is Code.STREAM_TOO_LONG
            assert task.stream_stops == POLICY.max_stream_stops - 1
        self.apply(change, stale)

    @rule(choice=CHOICES, stale=STALE, old=OLD, kind=st.sampled_from(["changed", "lost", "redo"]))
    def plan_anew(self, choice: int, stale: int, old: bool, kind: str) -> None:
        ref, upload_id, losses = (
            self.ref(choice, stale),
            self.upload_id(choice, old),
            self.task(choice).losses,
        )
        if kind == "changed":
            change = uploads.replan_changed(self.job, self.moment, ref, upload_id)
        else:
            lose = uploads.replan_lost if kind == "lost" else uploads.redo_parts
            change = lose(self.job, self.moment, ref, upload_id, self.now + SOON)
            if change and change.job.status in UNFINISHED:
                assert change.job.tasks[ref.provider].losses == losses + 1 < POLICY.max_tries
        assert not (old and change), "an event of another upload changed the job"
        if change and kind == "redo":
            self.done[upload_id] = set()
        self.apply(change, stale)

    @rule(choice=CHOICES, stale=STALE, wait=st.integers(0, 9000), owner=st.none() | OWNERS)
    def note_error(self, choice: int, stale: int, wait: int, owner: str | None) -> None:
        error = postponing.Postponed(UNAVAILABLE, self.now + timedelta(seconds=wait))
        change = postponing.note_error(self.job, self.moment, self.ref(choice, stale), owner, error)
        lease = self.task(choice).lease
        if change and lease and lease.until > self.now:
            assert lease.owner == owner, "another's error ended a live lease"
        self.apply(change, stale)

    @rule(choice=CHOICES, stale=STALE, wait=st.integers(0, 9000), old=OLD)
    def note_part_error(self, choice: int, stale: int, wait: int, old: bool) -> None:
        ref, upload_id = self.ref(choice, stale), self.upload_id(choice, old)
        error = postponing.Postponed(UNAVAILABLE, self.now + timedelta(seconds=wait))
        change = postponing.note_part_error(self.job, self.moment, ref, upload_id, error)
        assert not (old and change), "an event of another upload changed the job"
        if change:
            next_check = change.job.tasks[ref.provider].next_check_at
            assert next_check is not None
            assert next_check <= error.next_try_at
        self.apply(change, stale)

    @rule(choice=CHOICES, stale=STALE)
    def finish_task(self, choice: int, stale: int) -> None:
        self.apply(endings.finish_task(self.job, self.moment, self.ref(choice, stale), stored(7), 1), stale)

    @rule(choice=CHOICES, stale=STALE)
    def fail_task(self, choice: int, stale: int) -> None:
        ref = self.ref(choice, stale)
        reason = Reason(code=Code.EXPORT_NOT_FOUND, message=f"{ref.provider} answered 404.")
        change = endings.fail_task(self.job, self.moment, ref, reason)
        if change:
            assert change.job.reason == reason
            for other, task in change.job.tasks.items():
                if other != ref.provider and self.job.tasks[other].status in UNFINISHED:
                    assert task.status is Status.CANCELLED
                    assert task.reason is not None
                    assert task.reason.code is Code.SIBLING_FAILED
        self.apply(change, stale)

    @rule(stale=STALE)
    def finish_job(self, stale: int) -> None:
        self.apply(endings.finish_job(self.job, self.moment, self.job.attempt - stale), stale)

    @rule()
    def cancel(self) -> None:
        change = endings.cancel(self.job, self.moment)
        assert (change is not None) == (self.job.status in UNFINISHED and not self.job.sealed_at)
        self.apply(change)

    @rule()
    def time_out(self) -> None:
        change = endings.time_out(self.job, self.moment)
        possible = self.job.status in UNFINISHED and not self.job.sealed_at
        assert (change is not None) == (possible and self.now >= self.job.deadline_at)
        self.apply(change)

    @rule()
    def sweep(self) -> None:
        due = {
            name
            for name, task in self.job.tasks.items()
            if task.status in UNFINISHED and task.next_check_at and task.next_check_at <= self.now
        }
        missing = {
            name: {
                number: PartWait()
                for number in range(1, upload.dispatched + 1)
                if number not in self.done.get(upload.upload_id, set())
            }
            for name, upload in uploads_to_check(self.job, self.now).items()
        }
        checked = check(self.job, self.moment, missing)
        if checked is None:
            return
        sent = {event.task.provider for event in checked.events}
        assert self.job.sealed_at or sent <= due, "what is not due was sent again"
        if checked.job.status in UNFINISHED and self.now < self.job.deadline_at:
            assert checked.job.earliest_check is not None
            assert checked.job.earliest_check > self.now, "two sweeps would send the same"
        self.apply(checked)

    @rule()
    def retry(self) -> None:
        change = lifecycle.retry(self.job, self.moment)
        possible = (
            self.job.status in RETRYABLE
            and self.job.delete_at is None
            and not lifecycle.is_being_cleaned(self.job, self.now)
        )
        assert (change is not None) == possible
        self.apply(change)

    @rule()
    def begin_cleaning(self) -> None:
        self.apply(lifecycle.begin_cleaning(self.job, self.moment))

    @rule()
    def end_cleaning(self) -> None:
        self.apply(lifecycle.end_cleaning(self.job, self.moment))

    @precondition(lambda self: self.job.status not in UNFINISHED)
    @rule(cause=st.sampled_from(list(DeleteCause)))
    def delete(self, cause: DeleteCause) -> None:
        self.apply(lifecycle.mark_deleted(self.job, self.moment, self.now, cause))

    @precondition(lambda self: self.job.delete_at is not None)
    @rule(step=st.sampled_from(["undelete", "begin", "end"]))
    def end_deletion(self, step: str) -> None:
        match step:
            case "undelete":
                change = lifecycle.undelete(self.job, self.moment)
                assert not (change and self.job.removing_at)
            case "begin":
                change = lifecycle.begin_removal(self.job, self.moment)
            case _:
                change = lifecycle.end_removal(self.job, self.moment)
                assert change is None or self.job.removing_at
        self.apply(change)

    @invariant()
    def holds(self) -> None:
        check_job(self.job)

    @invariant()
    def every_job_ends(self) -> None:
        if self.job.sealed_at and self.job.status in UNFINISHED:
            assert endings.finish_job(self.job, self.moment, self.job.attempt)
        elif self.job.status in UNFINISHED:
            late = max(self.now, self.job.deadline_at)
            ended = changed(endings.time_out(self.job, at(late)))
            assert ended.reason is not None
            assert ended.reason.code is Code.TIMED_OUT


Jobs.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestJobs = Jobs.TestCase


def progress_of(job: Job, *numbers: int) -> Progress:
    """That of the task `site` once these parts are done as well."""
    return advance(job.tasks["site"].progress, [(number, FIVE_PARTS.part_size) for number in numbers])


def dispatched(job: Job, progress: Progress) -> Task:
    """The task `site` once this progress is recorded."""
    return changed(uploads.dispatch_parts(job, MOMENT, SITE, UPLOAD_ID, progress)).tasks["site"]


def test_each_part_that_is_done_hands_out_another_one() -> None:
    job = planned(tries=2)
    task = dispatched(job, progress_of(job, 1, 3))
    assert task.upload is not None
    assert task.upload.dispatched == WINDOW + 2
    assert (task.progress.parts, task.progress.watermark, task.tries) == (2, 1, 0)


def test_parts_that_are_handed_out_stay_so_when_others_must_be_moved_again() -> None:
    job = planned()
    two_done = progress_of(job, 1, 2)
    job = changed(uploads.dispatch_parts(job, MOMENT, SITE, UPLOAD_ID, two_done))
    job = changed(uploads.redo_parts(job, MOMENT, SITE, UPLOAD_ID, START))
    task = dispatched(job, progress_of(planned(), 2))
    assert task.upload is not None
    assert (task.upload.dispatched, task.progress.parts) == (WINDOW + 2, 1)


def test_an_export_that_changes_within_an_attempt_is_read_as_a_stream() -> None:
    task = changed(uploads.replan_changed(planned(), MOMENT, SITE, UPLOAD_ID)).tasks["site"]
    assert (task.upload, task.stream_only, task.started_anew) == (None, True, False)


def test_an_export_that_changed_since_the_attempt_before_is_planned_anew() -> None:
    job = planned().replace(attempt=2)
    task = changed(uploads.replan_changed(job, MOMENT, job.ref("site"), UPLOAD_ID)).tasks["site"]
    assert (task.upload, task.stream_only, task.started_anew) == (None, False, True)


@pytest.mark.parametrize("lose", [uploads.replan_lost, uploads.redo_parts])
def test_too_many_losses_in_s3_fail_the_task_whatever_progress_was_made_between(lose: Any) -> None:
    last, next_try = POLICY.max_tries - 1, START + SOON
    job = changed(lose(planned(losses=last - 1), MOMENT, SITE, UPLOAD_ID, next_try))
    task = job.tasks["site"]
    assert (job.status, task.losses) == (Status.RUNNING, last)
    assert (task.next_try_at, task.next_check_at) == (next_try, next_try)
    redone = uploads.dispatch_parts(job, MOMENT, SITE, UPLOAD_ID, progress_of(job, 1))
    assert (redone.job if redone else job).tasks["site"].losses == last
    job = changed(lose(planned(losses=last), MOMENT, SITE, UPLOAD_ID, next_try))
    assert job.status is Status.FAILED
    assert job.reason is not None
    assert job.reason.code is Code.RETRIES_EXHAUSTED


def test_the_second_stop_of_a_stream_fails_the_task_and_says_how_much_was_moved() -> None:
    read = runs.StreamRead(bytes=10_000_000, seconds=5)
    job = changed(runs.stop_stream(started(), MOMENT, SITE, ME, read))
    assert (job.status, job.tasks["site"].lease) == (Status.RUNNING, None)
    assert job.earliest_check == START
    again = started(stream_stops=POLICY.max_stream_stops - 1)
    job = changed(runs.stop_stream(again, MOMENT, SITE, ME, read))
    assert job.reason is not None
    assert job.reason.code is Code.STREAM_TOO_LONG
    assert "10000000 bytes" in job.reason.message
    assert "2.0 MB/s" in job.reason.message


def test_a_live_lease_keeps_other_runs_out_until_it_is_over() -> None:
    job = started()
    lease = job.tasks["site"].lease
    assert lease == Lease(owner=ME, until=MOMENT.in_seconds(POLICY.lease_seconds))
    before, over = at(lease.until - timedelta(seconds=1)), at(lease.until)
    assert runs.start_task(job, before, SITE, 1, OTHER) is None
    assert runs.begin_stream(job, before, SITE, OTHER) is None
    assert runs.begin_stream(job, before, SITE, ME)
    taken = changed(runs.start_task(job, over, SITE, 1, OTHER))
    assert runs.renew_lease(taken, over, SITE, ME) is None


def test_a_task_that_waits_is_not_started_before_its_next_try() -> None:
    error = postponing.Postponed(UNAVAILABLE, START + SOON)
    job = changed(postponing.note_error(started(), MOMENT, SITE, ME, error))
    early = at(error.next_try_at - timedelta(seconds=1))
    assert runs.start_task(job, early, SITE, 1, OTHER) is None
    assert runs.start_task(job, at(error.next_try_at), SITE, 1, OTHER)


def test_the_last_task_to_be_done_seals_the_job_and_nothing_but_finishing_is_possible() -> None:
    job = changed(endings.finish_task(started(), MOMENT, SITE, stored(3), 1))
    assert job.sealed_at is None
    assert endings.finish_job(job, MOMENT, 1) is None
    sealed_at = job.deadline_at - timedelta(minutes=10)
    job = changed(endings.finish_task(job, at(sealed_at), DB, stored(3), 1))
    assert job.sealed_at == sealed_at
    late = at(job.deadline_at + timedelta(days=1))
    assert endings.time_out(job, late) is None
    assert endings.cancel(job, late) is None
    done = changed(endings.finish_job(job, late, 1))
    assert (done.status, done.finished_at) == (Status.DONE, sealed_at)


def test_a_retry_keeps_what_is_done_and_what_is_planned_until_that_was_cleaned_away() -> None:
    job = changed(endings.finish_task(planned(), MOMENT, DB, stored(3), 1))
    job = changed(endings.cancel(job, MOMENT))
    again = changed(lifecycle.retry(job, MOMENT))
    assert again.tasks["db"] == job.tasks["db"]
    fresh = timing.new_task(MOMENT)
    assert again.tasks["site"] == fresh.replace(upload=job.tasks["site"].upload, runs=1)
    assert (again.attempt, again.status, again.is_active) == (2, Status.PENDING, True)
    cleaned = changed(lifecycle.end_cleaning(changed(lifecycle.begin_cleaning(job, MOMENT)), MOMENT))
    anew = changed(lifecycle.retry(cleaned, MOMENT))
    assert anew.tasks == {"site": fresh.replace(runs=1), "db": fresh.replace(runs=job.tasks["db"].runs)}
