"""The state machine: every transition in any order, twice, late, for other attempts, under a clock that jumps."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sitebackup.domain import lifecycle, transitions
from sitebackup.domain.check import check, parts_to_look_at
from sitebackup.domain.job import (
    RETRYABLE,
    UNFINISHED,
    DeleteCause,
    Job,
    Lease,
    PartWait,
    Status,
    StoredObject,
    Task,
    Upload,
)
from sitebackup.domain.plan import MIN_PART_SIZE, Plan, plan_parts
from sitebackup.domain.policy import Policy
from sitebackup.domain.progress import advance
from sitebackup.domain.reason import Code, Reason
from tests.unit.invariants import check_change, check_job

START = datetime(2030, 1, 31, 12, tzinfo=UTC)
POLICY = Policy(parts_in_flight=3)
NAMES = ["site", "db", "mail"]
OWNERS = st.sampled_from(["run 1", "run 2"])
PROVIDERS = st.integers(0, 2)
STALE = st.sampled_from([0, 0, 0, 0, 1])
"""How many attempts an event is behind."""
OLD = st.sampled_from([False, False, False, True])
"""Whether an event is about an upload that is not the task's."""


def new_job(tasks: int) -> Job:
    return Job(
        id="c" * 24,
        user_id="a" * 24,
        site_id="b" * 24,
        status=Status.PENDING,
        version=1,
        active=True,
        tasks={name: transitions.new_task(START, POLICY) for name in NAMES[:tasks]},
        created_at=START,
        updated_at=START,
        deadline_at=START + timedelta(seconds=POLICY.attempt_seconds),
    )


def stored(size: int) -> StoredObject:
    return StoredObject(bucket="b", key="k", size=size, checksum_crc64nvme="AAAAAAAAAAA=", version_id="v")


PLANS = [
    plan_parts(size, MIN_PART_SIZE, '"1"')
    for size in (MIN_PART_SIZE + 1, 4 * MIN_PART_SIZE, 5 * MIN_PART_SIZE)
]


class Jobs(RuleBasedStateMachine):
    """One job, whatever comes."""

    def __init__(self) -> None:
        super().__init__()
        self.now = START
        self.uploads = 0
        self.done: dict[str, set[int]] = {}
        self.job = new_job(1)

    @initialize(tasks=st.integers(1, 3))
    def begin(self, tasks: int) -> None:
        self.job = new_job(tasks)

    def apply(self, after: Job | None, stale: int = 0) -> None:
        """Stores a change, as the repository does."""
        if after is None:
            return
        assert stale == 0, "an event of an earlier attempt changed the job"
        after = after.replace(next_check_at=after.earliest_check)
        check_change(self.job, after, self.now)
        self.job = after

    def provider(self, choice: int) -> str:
        return NAMES[choice % len(self.job.tasks)]

    def task(self, choice: int) -> Task:
        return self.job.tasks[self.provider(choice)]

    def new_upload(self, plan: Plan | None) -> Upload:
        self.uploads += 1
        released = min(plan.parts, POLICY.parts_in_flight) if plan else 0
        return Upload(
            upload_id=f"u{self.uploads}", plan=plan, attempt=self.job.attempt, dispatched=released, window=3
        )

    def upload_id(self, choice: int, old: bool) -> str:
        upload = self.task(choice).upload
        return "u0" if old or upload is None else upload.upload_id

    @rule(seconds=st.sampled_from([0, 1, 59, 61, 400, 1900, 6 * 3600, 24 * 3600]))
    def time_passes(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    @rule(choice=PROVIDERS, stale=STALE, tried=st.integers(0, 5), owner=OWNERS)
    def start(self, choice: int, stale: int, tried: int, owner: str) -> None:
        attempt, name = self.job.attempt - stale, self.provider(choice)
        after = transitions.start_task(self.job, attempt, name, tried, owner, self.now, POLICY)
        lease = self.job.tasks[name].lease
        assert not (after and lease and lease.until > self.now), "two runs would open the export"
        self.apply(after, stale)

    @rule(choice=PROVIDERS, stale=STALE, owner=OWNERS)
    def run_again(self, choice: int, stale: int, owner: str) -> None:
        attempt, name = self.job.attempt - stale, self.provider(choice)
        self.apply(transitions.run_again(self.job, attempt, name, owner, self.now, POLICY), stale)

    @rule(choice=PROVIDERS, stale=STALE, owner=OWNERS)
    def end_run(self, choice: int, stale: int, owner: str) -> None:
        attempt, name = self.job.attempt - stale, self.provider(choice)
        self.apply(transitions.end_run(self.job, attempt, name, owner, self.now, POLICY), stale)

    @rule(choice=PROVIDERS, stale=STALE, tried=st.integers(1, 5))
    def claim_try(self, choice: int, stale: int, tried: int) -> None:
        attempt, name = self.job.attempt - stale, self.provider(choice)
        after = transitions.claim_try(self.job, attempt, name, tried, self.now)
        assert after is None or after.tasks[name].tried == tried > self.job.tasks[name].tried
        self.apply(after, stale)

    @rule(choice=PROVIDERS, stale=STALE, plan=st.sampled_from(PLANS), owner=OWNERS)
    def adopt(self, choice: int, stale: int, plan: Plan, owner: str) -> None:
        upload = self.new_upload(plan)
        attempt, name = self.job.attempt - stale, self.provider(choice)
        after = transitions.adopt_upload(self.job, attempt, name, upload, owner, self.now, POLICY)
        assert after is None or self.job.tasks[name].upload is None
        self.apply(after, stale)

    @rule(choice=PROVIDERS, stale=STALE, numbers=st.sets(st.integers(1, 5)), old=OLD)
    def parts_done(self, choice: int, stale: int, numbers: set[int], old: bool) -> None:
        task, upload_id = self.task(choice), self.upload_id(choice, old)
        done = self.done.setdefault(upload_id, set())
        if task.upload is None or stale:
            return
        plan = task.upload.plan or PLANS[-1]
        done |= {number for number in numbers if number <= plan.parts}
        lengths = [(number, plan.part(number).length) for number in done if number <= plan.parts]
        progress = advance(task.progress, [part for part in lengths if part[0] > task.progress.through])
        attempt, name = self.job.attempt - stale, self.provider(choice)
        after = transitions.dispatch_parts(self.job, attempt, name, upload_id, progress, self.now, POLICY)
        assert not (old and after), "an event of another upload changed the job"
        if after and task.upload.plan:
            assert after.tasks[name].progress.parts == len(done)
            released = after.tasks[name].upload
            assert released is not None
            assert released.dispatched <= max(task.upload.dispatched, len(done) + 3)
        self.apply(after, stale)

    @rule(choice=PROVIDERS, stale=STALE, owner=OWNERS)
    def begin_stream(self, choice: int, stale: int, owner: str) -> None:
        attempt, name = self.job.attempt - stale, self.provider(choice)
        after = transitions.begin_stream(self.job, attempt, name, owner, self.now, POLICY)
        if after:
            self.apply(after, stale)
            upload = self.new_upload(None)
            adopted = transitions.adopt_upload(
                self.job, self.job.attempt, name, upload, owner, self.now, POLICY
            )
            self.apply(adopted)
            assert self.job.tasks[name].upload == upload

    @rule(choice=PROVIDERS, stale=STALE, owner=OWNERS)
    def renew(self, choice: int, stale: int, owner: str) -> None:
        attempt, name = self.job.attempt - stale, self.provider(choice)
        after = transitions.renew_lease(self.job, attempt, name, owner, self.now, POLICY)
        lease = self.job.tasks[name].lease
        assert after is None or (lease and lease.owner == owner)
        self.apply(after, stale)

    @rule(choice=PROVIDERS, stale=STALE, owner=OWNERS)
    def seal(self, choice: int, stale: int, owner: str) -> None:
        attempt, name = self.job.attempt - stale, self.provider(choice)
        task = self.job.tasks[name]
        after = transitions.end_stream(self.job, attempt, name, owner, PLANS[-1], self.now, POLICY)
        assert after is None or (task.lease and task.lease.owner == owner)
        self.apply(after, stale)

    @rule(choice=PROVIDERS, stale=STALE, owner=OWNERS)
    def stop(self, choice: int, stale: int, owner: str) -> None:
        attempt, name = self.job.attempt - stale, self.provider(choice)
        after = transitions.stop_stream(self.job, attempt, name, owner, 9, 1.0, self.now, POLICY)
        if after and after.tasks[name].status is Status.FAILED:
            reason = after.tasks[name].reason
            assert reason is not None
            assert reason.code is Code.STREAM_TOO_LONG
            assert after.tasks[name].stream_stops == POLICY.max_stream_stops - 1
        self.apply(after, stale)

    @rule(choice=PROVIDERS, stale=STALE, old=OLD, kind=st.sampled_from(["changed", "lost", "redo"]))
    def plan_anew(self, choice: int, stale: int, old: bool, kind: str) -> None:
        attempt, name = self.job.attempt - stale, self.provider(choice)
        upload_id = self.upload_id(choice, old)
        if kind == "changed":
            after = transitions.replan_changed(self.job, attempt, name, upload_id, self.now, POLICY)
        else:
            change = transitions.replan_lost if kind == "lost" else transitions.redo_parts
            next_try = self.now + timedelta(seconds=4)
            after = change(self.job, attempt, name, upload_id, next_try, self.now, POLICY)
            if after and after.status in UNFINISHED:
                assert after.tasks[name].losses == self.job.tasks[name].losses + 1 < POLICY.max_tries
        assert not (old and after), "an event of another upload changed the job"
        if after and kind == "redo":
            self.done[upload_id] = set()
        self.apply(after, stale)

    @rule(choice=PROVIDERS, stale=STALE, wait=st.integers(0, 9000), owner=st.none() | OWNERS)
    def trouble(self, choice: int, stale: int, wait: int, owner: str | None) -> None:
        attempt, name = self.job.attempt - stale, self.provider(choice)
        next_try = self.now + timedelta(seconds=wait)
        after = transitions.note_trouble(self.job, attempt, name, "503.", next_try, owner, self.now)
        lease = self.job.tasks[name].lease
        if after and lease and lease.until > self.now:
            assert lease.owner == owner, "another's trouble ended a live lease"
        self.apply(after, stale)

    @rule(choice=PROVIDERS, stale=STALE, wait=st.integers(0, 9000), old=OLD)
    def part_trouble(self, choice: int, stale: int, wait: int, old: bool) -> None:
        attempt, name = self.job.attempt - stale, self.provider(choice)
        next_try, upload_id = self.now + timedelta(seconds=wait), self.upload_id(choice, old)
        after = transitions.note_part_trouble(self.job, attempt, name, upload_id, "503.", next_try, self.now)
        assert not (old and after), "an event of another upload changed the job"
        if after:
            check = after.tasks[name].next_check_at
            assert check is not None
            assert check <= next_try
        self.apply(after, stale)

    @rule(choice=PROVIDERS, stale=STALE)
    def finish_task(self, choice: int, stale: int) -> None:
        attempt, name = self.job.attempt - stale, self.provider(choice)
        self.apply(transitions.finish_task(self.job, attempt, name, stored(7), 1, self.now, POLICY), stale)

    @rule(choice=PROVIDERS, stale=STALE)
    def fail_task(self, choice: int, stale: int) -> None:
        attempt, name = self.job.attempt - stale, self.provider(choice)
        reason = Reason(code=Code.EXPORT_NOT_FOUND, message=f"{name} answered 404.")
        after = transitions.fail_task(self.job, attempt, name, reason, self.now, POLICY)
        if after:
            assert after.reason == reason
            for other, task in after.tasks.items():
                if other != name and self.job.tasks[other].status in UNFINISHED:
                    assert task.status is Status.CANCELLED
                    assert task.reason is not None
                    assert task.reason.code is Code.SIBLING_FAILED
        self.apply(after, stale)

    @rule(stale=STALE)
    def finish_job(self, stale: int) -> None:
        self.apply(transitions.finish_job(self.job, self.job.attempt - stale, self.now, POLICY), stale)

    @rule()
    def cancel(self) -> None:
        after = transitions.cancel(self.job, self.now, POLICY)
        assert (after is not None) == (self.job.status in UNFINISHED and not self.job.sealed_at)
        self.apply(after)

    @rule()
    def time_out(self) -> None:
        after = transitions.time_out(self.job, self.now, POLICY)
        possible = self.job.status in UNFINISHED and not self.job.sealed_at
        assert (after is not None) == (possible and self.now >= self.job.deadline_at)
        self.apply(after)

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
            for name, upload in parts_to_look_at(self.job, self.now).items()
        }
        checked = check(self.job, missing, self.now, POLICY)
        if checked is None:
            return
        sent = {event.provider for event in checked.events}
        assert self.job.sealed_at or sent <= due, "what is not due was sent again"
        if checked.job.status in UNFINISHED and self.now < self.job.deadline_at:
            assert checked.job.earliest_check is not None
            assert checked.job.earliest_check > self.now, "two sweeps would send the same"
        self.apply(checked.job)

    @rule()
    def retry(self) -> None:
        after = lifecycle.retry(self.job, self.now, POLICY)
        possible = (
            self.job.status in RETRYABLE
            and self.job.delete_at is None
            and not lifecycle.being_released(self.job, self.now)
        )
        assert (after is not None) == possible
        self.apply(after)

    @rule()
    def release(self) -> None:
        self.apply(lifecycle.release(self.job, self.now))

    @rule()
    def cleared(self) -> None:
        self.apply(lifecycle.cleared(self.job, self.now))

    @precondition(lambda self: self.job.status not in UNFINISHED)
    @rule(cause=st.sampled_from(list(DeleteCause)))
    def delete(self, cause: DeleteCause) -> None:
        self.apply(lifecycle.mark_deleted(self.job, self.now, cause, self.now, POLICY))

    @precondition(lambda self: self.job.delete_at is not None)
    @rule(step=st.sampled_from(["undelete", "begin", "removed"]))
    def end_deletion(self, step: str) -> None:
        match step:
            case "undelete":
                after = lifecycle.undelete(self.job, self.now)
                assert not (after and self.job.removing_at)
            case "begin":
                after = lifecycle.begin_removal(self.job, self.now)
            case _:
                after = lifecycle.removed(self.job, self.now, POLICY)
                assert after is None or self.job.removing_at
        self.apply(after)

    @invariant()
    def holds(self) -> None:
        check_job(self.job)

    @invariant()
    def every_job_ends(self) -> None:
        if self.job.sealed_at and self.job.status in UNFINISHED:
            assert transitions.finish_job(self.job, self.job.attempt, self.now, POLICY)
        elif self.job.status in UNFINISHED:
            late = max(self.now, self.job.deadline_at)
            ended = transitions.time_out(self.job, late, POLICY)
            assert ended is not None
            assert ended.reason is not None
            assert ended.reason.code is Code.TIMED_OUT


Jobs.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestJobs = Jobs.TestCase


def changed(job: Job | None) -> Job:
    assert job is not None
    return job


def started(**changes: Any) -> Job:
    """The run `me` has the export of `site` open."""
    job = changed(transitions.start_task(new_job(2), 1, "site", 0, "me", START, POLICY))
    return job.replace(tasks={**job.tasks, "site": job.tasks["site"].replace(**changes)})


def planned(attempt: int = 1, tried: int = 0, losses: int = 0) -> Job:
    """The run `me` has planned the export, and three parts are handed out."""
    upload = Upload(upload_id="u1", plan=PLANS[-1], attempt=attempt, dispatched=3, window=3)
    job = started(tried=tried, losses=losses)
    return changed(transitions.adopt_upload(job, 1, "site", upload, "me", START, POLICY))


def test_the_window_goes_on_with_the_parts_that_are_done() -> None:
    job = planned(tried=2)
    length = PLANS[-1].part_size
    progress = advance(job.tasks["site"].progress, [(1, length), (3, length)])
    task = changed(transitions.dispatch_parts(job, 1, "site", "u1", progress, START, POLICY)).tasks["site"]
    assert task.upload is not None
    assert (task.upload.dispatched, task.progress.parts, task.progress.through, task.tried) == (5, 2, 1, 0)


def test_parts_that_are_handed_out_stay_so_when_others_must_be_moved_again() -> None:
    length, none = PLANS[-1].part_size, planned().tasks["site"].progress
    job = planned()
    progress = advance(none, [(number, length) for number in (1, 2)])
    job = changed(transitions.dispatch_parts(job, 1, "site", "u1", progress, START, POLICY))
    job = changed(transitions.redo_parts(job, 1, "site", "u1", START, START, POLICY))
    progress = advance(none, [(2, length)])
    task = changed(transitions.dispatch_parts(job, 1, "site", "u1", progress, START, POLICY)).tasks["site"]
    assert task.upload is not None
    assert (task.upload.dispatched, task.progress.parts) == (5, 1)


def test_a_change_of_the_export_in_an_attempt_makes_it_stream_only() -> None:
    task = changed(transitions.replan_changed(planned(), 1, "site", "u1", START, POLICY)).tasks["site"]
    assert (task.upload, task.stream_only, task.started_anew) == (None, True, False)


def test_a_change_since_the_attempt_before_only_starts_anew() -> None:
    job = planned().replace(attempt=2)
    task = changed(transitions.replan_changed(job, 2, "site", "u1", START, POLICY)).tasks["site"]
    assert (task.upload, task.stream_only, task.started_anew) == (None, False, True)


@pytest.mark.parametrize("change", [transitions.replan_lost, transitions.redo_parts])
def test_what_s3_loses_again_and_again_ends_the_task_whatever_progress_was_made_between(change: Any) -> None:
    next_try = START + timedelta(seconds=4)
    job = changed(change(planned(losses=3), 1, "site", "u1", next_try, START, POLICY))
    task = job.tasks["site"]
    assert (job.status, task.losses, task.next_try_at, task.next_check_at) == (
        Status.RUNNING,
        4,
        next_try,
        next_try,
    )
    progress = advance(task.progress, [(1, PLANS[-1].part_size)])
    redone = transitions.dispatch_parts(job, 1, "site", "u1", progress, START, POLICY) or job
    assert redone.tasks["site"].losses == 4
    job = changed(change(planned(losses=4), 1, "site", "u1", next_try, START, POLICY))
    assert job.status is Status.FAILED
    assert job.reason is not None
    assert job.reason.code is Code.RETRIES_EXHAUSTED


def test_the_second_stop_of_a_stream_is_one_too_many_and_says_how_much_was_moved() -> None:
    job = changed(transitions.stop_stream(started(), 1, "site", "me", 10**7, 5, START, POLICY))
    assert (job.status, job.tasks["site"].lease) == (Status.RUNNING, None)
    assert job.earliest_check == START
    again = started(stream_stops=1)
    job = changed(transitions.stop_stream(again, 1, "site", "me", 10**7, 5, START, POLICY))
    assert job.reason is not None
    assert job.reason.code is Code.STREAM_TOO_LONG
    assert "10000000 bytes" in job.reason.message
    assert "2.0 MB/s" in job.reason.message


def test_a_live_lease_keeps_other_runs_out_until_it_is_over() -> None:
    job = started()
    lease = job.tasks["site"].lease
    assert lease == Lease(owner="me", until=START + timedelta(seconds=POLICY.lease_seconds))
    before = lease.until - timedelta(seconds=1)
    assert transitions.start_task(job, 1, "site", 1, "other", before, POLICY) is None
    assert transitions.begin_stream(job, 1, "site", "other", before, POLICY) is None
    assert transitions.begin_stream(job, 1, "site", "me", before, POLICY)
    taken = changed(transitions.start_task(job, 1, "site", 1, "other", lease.until, POLICY))
    assert transitions.renew_lease(taken, 1, "site", "me", lease.until, POLICY) is None


def test_a_task_that_waits_is_not_started_before_its_next_try() -> None:
    next_try = START + timedelta(seconds=9)
    job = changed(transitions.note_trouble(started(), 1, "site", "503.", next_try, "me", START))
    early = next_try - timedelta(seconds=1)
    assert transitions.start_task(job, 1, "site", 1, "other", early, POLICY) is None
    assert transitions.start_task(job, 1, "site", 1, "other", next_try, POLICY)


def test_the_last_task_to_be_done_seals_the_job_and_nothing_but_finishing_is_possible() -> None:
    job = changed(transitions.finish_task(started(), 1, "site", stored(3), 1, START, POLICY))
    assert job.sealed_at is None
    assert transitions.finish_job(job, 1, START, POLICY) is None
    sealed_at = job.deadline_at - timedelta(minutes=10)
    job = changed(transitions.finish_task(job, 1, "db", stored(3), 1, sealed_at, POLICY))
    assert job.sealed_at == sealed_at
    late = job.deadline_at + timedelta(days=1)
    assert transitions.time_out(job, late, POLICY) is None
    assert transitions.cancel(job, late, POLICY) is None
    done = changed(transitions.finish_job(job, 1, late, POLICY))
    assert (done.status, done.finished_at) == (Status.DONE, sealed_at)


def test_a_retry_keeps_what_is_done_and_what_is_planned() -> None:
    job = planned()
    job = changed(transitions.finish_task(job, 1, "db", stored(3), 1, START, POLICY))
    job = changed(transitions.cancel(job, START, POLICY))
    again = changed(lifecycle.retry(job, START, POLICY))
    assert again.tasks["db"] == job.tasks["db"]
    fresh = transitions.new_task(START, POLICY)
    assert again.tasks["site"] == fresh.replace(upload=job.tasks["site"].upload, runs=1)
    assert (again.attempt, again.status, again.active) == (2, Status.PENDING, True)
    released = changed(lifecycle.cleared(changed(lifecycle.release(job, START)), START))
    anew = changed(lifecycle.retry(released, START, POLICY))
    assert anew.tasks == {"site": fresh.replace(runs=1), "db": fresh.replace(runs=job.tasks["db"].runs)}
