"""What retention decides about any history of a site's backups: nothing good is lost by age, nothing goes early."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sitebackup.domain import lifecycle
from sitebackup.domain.change import Change, Moment
from sitebackup.domain.job import (
    FINISHED,
    RETRYABLE,
    UNFINISHED,
    DeleteCause,
    Job,
    Status,
    StoredObject,
    Task,
)
from sitebackup.domain.lock import LegalHold, Lock, LockMode
from sitebackup.domain.policy import Policy, seconds
from sitebackup.domain.reason import Code, Reason
from sitebackup.domain.retention import (
    Action,
    Decision,
    Why,
    clean_at,
    decide,
    depends_on_newest,
    expires_at,
    first_look,
    pinned_until,
)
from sitebackup.domain.task_ref import RestoreRef
from sitebackup.domain.transitions.endings import finish_job
from tests.fakes.jobs import MemoryJobs

NOW = datetime(2030, 1, 31, 12, tzinfo=UTC)
DAY = timedelta(days=1)
USER, SITE = "a" * 24, "b" * 24
CENTURY = 36500 * DAY
GRACE_OVER = timedelta(seconds=Policy().delete_grace_seconds) + DAY
"""So long after its mark the data of a job is removed."""


def a_task(status: Status, finished: datetime, members: int | None = None) -> Task:
    stored = StoredObject(bucket="b", key="k", size=1, checksum_crc64nvme="AAAAAAAAAAA=", members=members)
    if status is Status.DELETED:
        status = Status.DONE
    return Task(
        status=status,
        runs=1,
        object=stored if status is Status.DONE else None,
        finished_at=None if status in UNFINISHED else finished,
    )


def a_job(number: int, status: Status, finished: datetime, **changes: object) -> Job:
    failed = status in RETRYABLE
    job = Job(
        id=f"{number:024x}",
        user_id=USER,
        site_id=SITE,
        status=status,
        version=1,
        reason=Reason(code=Code.CANCELLED, message="Cancelled on request.") if failed else None,
        tasks={"site": a_task(status, finished)},
        created_at=finished - timedelta(hours=1),
        updated_at=finished,
        deadline_at=finished + timedelta(hours=5),
        finished_at=None if status in UNFINISHED else finished,
        clean_up_at=None if status in UNFINISHED else finished + timedelta(minutes=1),
    )
    return job.replace(**changes)


def some_days(most: int) -> st.SearchStrategy[timedelta]:
    return st.integers(0, most * 24).map(lambda hours: timedelta(hours=hours))


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    return Policy(
        upload_grace_seconds=draw(st.sampled_from([0, 3600, 24 * 3600])),
        delete_grace_seconds=draw(st.sampled_from([0, 24 * 3600, 7 * 24 * 3600])),
        keep_newest=draw(st.sampled_from([0, 1, 1])),
        completed_record_days=draw(st.sampled_from([0, 30, 400])),
        failed_record_days=draw(st.sampled_from([0, 7, 30])),
        day_seconds=draw(st.sampled_from([60, 24 * 3600])),
    )


@st.composite
def histories(draw: st.DrawFn) -> list[Job]:
    """A site's jobs of the last 300 days, in every state that they can be in; at most one is active."""
    jobs = []
    for number in range(1, draw(st.integers(1, 8)) + 1):
        status = draw(st.sampled_from([Status.DONE] * 4 + [Status.FAILED, Status.CANCELLED, Status.DELETED]))
        finished = NOW - draw(some_days(300))
        job = a_job(number, status, finished)
        job = job.replace(
            expires_after_days=draw(st.one_of(st.none(), st.integers(1, 200))),
            tasks={
                name: a_task(
                    status, finished - draw(some_days(2)), draw(st.sampled_from([None, 0, 5]))
                ).replace(runs=draw(st.integers(1, 2)))
                for name in draw(st.sampled_from([["site"], ["db"], ["site", "db"]]))
            },
        )
        if draw(st.integers(0, 3)) == 0:
            job = job.replace(safety_for=RestoreRef(restore_id="d" * 24, attempt=1))
        if status in FINISHED and draw(st.booleans()):
            cause = DeleteCause.REQUESTED
            if status is Status.DONE and job.expires_after_days:
                cause = draw(st.sampled_from(DeleteCause))
            at = NOW + draw(some_days(60)) - 30 * DAY
            job = job.replace(delete_at=max(at, finished), delete_cause=cause)
            if at < NOW and draw(st.integers(0, 3)) == 0:
                job = job.replace(removing_at=NOW - timedelta(minutes=1))
        if status is Status.DONE and job.removing_at is None:
            ends = draw(st.lists(some_days(40), max_size=2))
            job = job.replace(pins={f"reader {n}": NOW - 10 * DAY + end for n, end in enumerate(ends)})
        if status in RETRYABLE and draw(st.booleans()):
            job = job.replace(cleaning_at=finished + DAY, cleaned_at=finished + DAY)
        if status is Status.DELETED:
            job = job.replace(delete_at=finished, removing_at=finished, deleted_at=finished)
        jobs.append(job)
    if draw(st.booleans()):
        jobs.append(a_job(99, draw(st.sampled_from(sorted(UNFINISHED))), NOW))
    return jobs


def decided(job: Job, jobs: Iterable[Job], now: datetime, policy: Policy) -> Decision:
    """As the sweep decides among these."""
    if not depends_on_newest(job, now, policy):
        return decide(job, False, now, policy)
    repository = MemoryJobs()
    for other in jobs:
        repository.put(other)
    return decide(job, repository.holds_newest_good(job), now, policy)


def good(job: Job) -> bool:
    """A backup that a person would count on: done, whole, made for its own sake, and nobody asked to delete it."""
    return (
        job.status is Status.DONE
        and job.delete_cause is not DeleteCause.REQUESTED
        and job.removing_at is None
        and job.safety_for is None
    )


def newest_good(jobs: Iterable[Job]) -> set[str]:
    """The jobs that hold the newest good object of a provider, two for one provider if they are as old."""
    found = set()
    for provider in ("site", "db"):
        ranks = {job.id: rank(job.tasks[provider]) for job in jobs if good(job) and provider in job.tasks}
        found |= {job_id for job_id, each in ranks.items() if each == max(ranks.values())}
    return found


def rank(task: Task) -> tuple[bool, datetime]:
    """An object with members comes before all without, then the newest before the older ones."""
    assert task.object is not None
    assert task.finished_at is not None
    return task.object.members != 0, task.finished_at


def carry_out(job: Job, decision: Decision, now: datetime, policy: Policy) -> Job | None:
    """What the sweep makes of a job; None: its record is gone."""
    moment = Moment(now, policy)
    change: Change | None
    match decision.action:
        case Action.KEEP:
            change = lifecycle.look_again(job, moment, decision.until)
            return change.job if change else job
        case Action.CLEAN_FAILED:
            claimed = lifecycle.begin_cleaning(job, moment)
            assert claimed is not None
            change = lifecycle.end_cleaning(claimed.job, moment)
        case Action.CLEAN_DONE:
            change = lifecycle.mark_clean(job, moment)
        case Action.EXPIRE:
            change = lifecycle.mark_deleted(job, moment, now, DeleteCause.EXPIRED)
        case Action.DELETE_DATA:
            claimed = lifecycle.begin_removal(job, moment)
            assert claimed is not None
            change = lifecycle.end_removal(claimed.job, moment)
        case Action.DELETE_RECORD:
            return None
    assert change is not None, f"{decision} can't be carried out"
    return change.job


def check_decision(job: Job, decision: Decision, jobs: Iterable[Job], now: datetime, policy: Policy) -> None:
    assert decision.reason in Why
    if job.status in UNFINISHED:
        assert decision.action is Action.KEEP
    if decision.action is Action.DELETE_DATA and job.removing_at is None:
        assert job.delete_at is not None
        assert now >= job.delete_at + seconds(policy.delete_grace_seconds), "removed within the grace"
        assert all(until <= now for until in job.pins.values()), "removed while somebody needs it"
    if decision.action is Action.EXPIRE:
        expires = expires_at(job, policy)
        assert expires is not None
        assert now >= expires
    if decision.action in (Action.CLEAN_FAILED, Action.CLEAN_DONE):
        assert job.finished_at is not None
        assert now >= job.finished_at + seconds(policy.upload_grace_seconds)
        assert (decision.action is Action.CLEAN_DONE) == (job.status is Status.DONE)
    if decision.action is Action.DELETE_RECORD:
        assert job.status is Status.DELETED or (job.status in RETRYABLE and job.cleaned_at is not None)
    if policy.keep_newest and good(job) and decision.action in (Action.EXPIRE, Action.DELETE_DATA):
        assert job.id not in newest_good(jobs), "the newest would go"


def settle(jobs: dict[str, Job], now: datetime, policy: Policy) -> None:
    """Sweeps until nothing changes."""
    for _ in range(8):
        before = dict(jobs)
        for job in before.values():
            current = list(jobs.values())
            decision = decided(job, current, now, policy)
            check_decision(job, decision, current, now, policy)
            changed = carry_out(job, decision, now, policy)
            if changed is None:
                del jobs[job.id]
            else:
                jobs[job.id] = changed
        if jobs == before:
            return
    raise AssertionError("the decisions come to no end")


@settings(max_examples=200, deadline=None)
@given(jobs=histories(), policy=policies(), waits=st.lists(some_days(200), max_size=5))
def test_any_history_settles_and_keeps_the_newest_good_backup(
    jobs: list[Job], policy: Policy, waits: list[timedelta]
) -> None:
    sites = {job.id: job for job in jobs}
    active = [job for job in jobs if job.status in UNFINISHED]
    now = NOW
    settle(sites, now, policy)
    for wait in waits:
        now += wait
        settle(sites, now, policy)
    for job in active:
        assert sites[job.id] == job
    for newest in newest_good(jobs) if policy.keep_newest else ():
        assert sites[newest].status is Status.DONE, "the newest good backup went by age"
        assert sites[newest].removing_at is None


@settings(max_examples=200, deadline=None)
@given(jobs=histories(), policy=policies(), part=st.floats(0, 0.999))
def test_no_decision_changes_before_the_time_that_it_names(
    jobs: list[Job], policy: Policy, part: float
) -> None:
    """The sweep looks at a job again at `until`, so nothing may come due before."""
    newest = newest_good(jobs)
    for job in jobs:
        holds_newest = job.id in newest
        decision = decided(job, jobs, NOW, policy)
        assert decision.action is decide(job, holds_newest, NOW, policy).action
        if decision.action is not Action.KEEP or job.status in UNFINISHED:
            assert job.status in UNFINISHED or decision.until is None
            continue
        if decision.until is None:
            assert decide(job, holds_newest, NOW + CENTURY, policy).action is Action.KEEP
            continue
        assert decision.until > NOW
        earlier = NOW + (decision.until - NOW) * part
        assert decide(job, holds_newest, earlier, policy).action is Action.KEEP
        if decision.reason is not Why.NEWEST_GOOD:
            assert decide(job, holds_newest, decision.until, policy) != decision


@settings(max_examples=200, deadline=None)
@given(jobs=histories(), policy=policies())
def test_a_mark_can_be_taken_back_until_the_removal_is_claimed(jobs: list[Job], policy: Policy) -> None:
    for job in jobs:
        moment = Moment(NOW, policy)
        back = lifecycle.undelete(job, moment)
        wanted = job.status in FINISHED and job.delete_at is not None and job.removing_at is None
        assert (back is not None) == wanted
        if back:
            decision = decide(back.job, False, NOW, policy)
            assert decision.action is not Action.DELETE_DATA
            claimed = lifecycle.begin_removal(job, moment)
            assert (claimed is None) == (pinned_until(job, NOW) is not None)
            assert claimed is None or lifecycle.undelete(claimed.job, moment) is None


@settings(max_examples=200, deadline=None)
@given(jobs=histories(), policy=policies())
def test_the_first_look_at_a_done_job_comes_when_something_is_due(jobs: list[Job], policy: Policy) -> None:
    for job in jobs:
        if job.status is not Status.DONE or job.delete_at is not None:
            continue
        look = first_look(job, policy)
        assert job.finished_at is not None
        if look is None:
            assert decide(job, False, job.finished_at + CENTURY, policy).action is Action.KEEP
        elif look > job.finished_at:
            before = look - timedelta(milliseconds=1)
            assert decide(job, False, before, policy).action is Action.KEEP
            assert decide(job, False, look, policy).action is not Action.KEEP


# --- by example

INSTANT = timedelta(milliseconds=1)
LATER = NOW + 3 * DAY
CLEANED_FROM = NOW + DAY
"""When what a job that ended NOW has left beside a good backup is removed."""
DELETE_GRACE = 7 * DAY
DONE = a_job(1, Status.DONE, NOW)
EXPIRING = DONE.replace(expires_after_days=3)
RUN_TWICE = {"tasks": {"site": a_task(Status.DONE, NOW), "db": a_task(Status.DONE, NOW).replace(runs=2)}}
FAILED = a_job(1, Status.FAILED, NOW)
CLEANED = FAILED.replace(cleaning_at=CLEANED_FROM, cleaned_at=CLEANED_FROM)
ASKED = EXPIRING.replace(delete_at=LATER, delete_cause=DeleteCause.REQUESTED)
AGED = ASKED.replace(delete_cause=DeleteCause.EXPIRED)
SAFETY = RestoreRef(restore_id="e" * 24, attempt=1)
GONE = DONE.replace(status=Status.DELETED, deleted_at=LATER)


def keep(reason: Why, until: datetime | None) -> Decision:
    return Decision(action=Action.KEEP, reason=reason, until=until)


@pytest.mark.parametrize(
    ("job", "holds_newest", "now", "decision"),
    [
        (
            a_job(1, Status.RUNNING, NOW, next_check_at=LATER),
            False,
            NOW + 99 * DAY,
            keep(Why.ACTIVE, LATER),
        ),
        # failed
        (FAILED, False, CLEANED_FROM - INSTANT, keep(Why.RETRY_POSSIBLE, CLEANED_FROM)),
        (FAILED, False, CLEANED_FROM, Decision(action=Action.CLEAN_FAILED, reason=Why.RETRY_OVER)),
        (CLEANED, False, NOW + 30 * DAY - INSTANT, keep(Why.RECORD_KEPT, NOW + 30 * DAY)),
        (CLEANED, False, NOW + 30 * DAY, Decision(action=Action.DELETE_RECORD, reason=Why.RECORD_OVER)),
        # done
        (DONE, False, LATER, keep(Why.NO_EXPIRY, None)),
        (EXPIRING, False, LATER - INSTANT, keep(Why.NOT_EXPIRED, LATER)),
        (EXPIRING, False, LATER, Decision(action=Action.EXPIRE, reason=Why.EXPIRED)),
        (EXPIRING, True, LATER, keep(Why.NEWEST_GOOD, LATER + DAY)),
        (
            EXPIRING.replace(safety_for=SAFETY),
            True,
            LATER,
            Decision(action=Action.EXPIRE, reason=Why.EXPIRED),
        ),
        # done, of more than one run
        (DONE.replace(**RUN_TWICE), False, CLEANED_FROM - INSTANT, keep(Why.NO_EXPIRY, CLEANED_FROM)),
        (EXPIRING.replace(**RUN_TWICE), False, NOW, keep(Why.NOT_EXPIRED, CLEANED_FROM)),
        (
            DONE.replace(**RUN_TWICE),
            False,
            CLEANED_FROM,
            Decision(action=Action.CLEAN_DONE, reason=Why.RUNS_OVER),
        ),
        (DONE.replace(**RUN_TWICE, cleaned_at=LATER), False, LATER, keep(Why.NO_EXPIRY, None)),
        (EXPIRING.replace(**RUN_TWICE), False, LATER, Decision(action=Action.EXPIRE, reason=Why.EXPIRED)),
        # marked
        (ASKED, True, LATER - INSTANT, keep(Why.MARKED, LATER + DELETE_GRACE)),
        (ASKED, True, LATER, keep(Why.IN_GRACE, LATER + DELETE_GRACE)),
        (ASKED, True, LATER + DELETE_GRACE - INSTANT, keep(Why.IN_GRACE, LATER + DELETE_GRACE)),
        (ASKED, True, LATER + DELETE_GRACE, Decision(action=Action.DELETE_DATA, reason=Why.GRACE_OVER)),
        (AGED, False, LATER, keep(Why.IN_GRACE, LATER + DELETE_GRACE)),
        (AGED, True, LATER, keep(Why.NEWEST_GOOD, LATER + DAY)),
        (AGED.replace(safety_for=SAFETY), True, LATER, keep(Why.IN_GRACE, LATER + DELETE_GRACE)),
        (
            AGED.replace(removing_at=LATER),
            True,
            LATER,
            Decision(action=Action.DELETE_DATA, reason=Why.GRACE_OVER),
        ),
        # gone
        (GONE, False, LATER + 400 * DAY - INSTANT, keep(Why.RECORD_KEPT, LATER + 400 * DAY)),
        (GONE, False, LATER + 400 * DAY, Decision(action=Action.DELETE_RECORD, reason=Why.RECORD_OVER)),
        (GONE.replace(reason=FAILED.reason), False, LATER, keep(Why.RECORD_KEPT, LATER + 30 * DAY)),
    ],
)
def test_a_job_is_decided_about_by_its_state_and_the_time(
    job: Job, holds_newest: bool, now: datetime, decision: Decision
) -> None:
    assert decide(job, holds_newest, now, Policy()) == decision


def test_a_job_that_expires_before_it_is_cleaned_is_looked_at_when_it_expires() -> None:
    early = NOW + timedelta(hours=3)
    job = EXPIRING.replace(**RUN_TWICE)
    assert decide(job, False, NOW, Policy(day_seconds=3600)) == keep(Why.NOT_EXPIRED, early)


@pytest.mark.parametrize(
    ("job", "depends"),
    [(DONE, False), (EXPIRING, True), (AGED, True), (ASKED, False), (FAILED, False), (GONE, False)],
)
def test_only_of_what_age_would_take_it_matters_whether_it_is_the_newest(job: Job, depends: bool) -> None:
    assert depends_on_newest(job, LATER + DELETE_GRACE, Policy()) is depends
    assert depends_on_newest(job, LATER + DELETE_GRACE, Policy(keep_newest=0)) is False


@pytest.mark.parametrize("status", [status for status in Status if status is not Status.DONE])
def test_only_a_done_job_expires_and_only_a_final_one_is_cleaned(status: Status) -> None:
    job = a_job(1, status, NOW, expires_after_days=3)
    assert expires_at(job, Policy()) is None
    assert clean_at(job, Policy()) == (CLEANED_FROM if status in RETRYABLE else None)


def test_the_record_of_a_failed_job_goes_before_that_of_a_backup() -> None:
    policy = Policy()
    failed = a_job(1, Status.FAILED, NOW, cleaning_at=NOW, cleaned_at=NOW)
    deleted = a_job(2, Status.DELETED, NOW, deleted_at=NOW)
    for days, actions in [
        (policy.failed_record_days - 1, (Action.KEEP, Action.KEEP)),
        (policy.failed_record_days, (Action.DELETE_RECORD, Action.KEEP)),
        (policy.completed_record_days, (Action.DELETE_RECORD, Action.DELETE_RECORD)),
    ]:
        decided = [decide(job, False, NOW + days * DAY, policy).action for job in (failed, deleted)]
        assert tuple(decided) == actions
    assert policy.failed_record_days < policy.completed_record_days


@pytest.mark.parametrize("keep_newest", [0, 1])
def test_the_newest_good_backup_expires_by_age_only_if_the_setting_says_so(keep_newest: int) -> None:
    policy = Policy(keep_newest=keep_newest)
    old = a_job(1, Status.DONE, NOW - 100 * DAY, expires_after_days=60)
    decision = decide(old, True, NOW, policy)
    assert decision.action is (Action.KEEP if keep_newest else Action.EXPIRE)
    assert decision.reason is (Why.NEWEST_GOOD if keep_newest else Why.EXPIRED)
    asked = old.replace(delete_at=NOW - GRACE_OVER, delete_cause=DeleteCause.REQUESTED)
    assert decide(asked, False, NOW, policy).action is Action.DELETE_DATA, "but whoever asks for it gets it"


def test_a_safety_backup_expires_by_age_whatever_else_there_is() -> None:
    restore = RestoreRef(restore_id="d" * 24, attempt=1)
    safety = a_job(1, Status.DONE, NOW - 8 * DAY, expires_after_days=7, safety_for=restore)
    assert decided(safety, [safety], NOW, Policy()).action is Action.EXPIRE


def test_an_expired_backup_that_is_the_newest_again_is_kept_despite_its_mark() -> None:
    """The newer one was deleted on request within the grace of the older one."""
    policy = Policy()
    old = a_job(1, Status.DONE, NOW - 100 * DAY, expires_after_days=60)
    marked_at = NOW - GRACE_OVER
    marked = lifecycle.mark_deleted(old, Moment(marked_at, policy), marked_at, DeleteCause.EXPIRED)
    assert marked is not None
    assert decide(marked.job, False, NOW, policy).action is Action.DELETE_DATA
    assert decide(marked.job, True, NOW, policy).reason is Why.NEWEST_GOOD


def test_a_job_that_gets_done_is_looked_at_when_it_expires_or_has_something_to_clean() -> None:
    policy = Policy()
    job = a_job(1, Status.RUNNING, NOW, expires_after_days=3)
    job = job.replace(tasks={"site": Task(status=Status.DONE, runs=1)}, sealed_at=NOW)
    done = finish_job(job, Moment(NOW, policy), 1)
    assert done is not None
    assert done.job.clean_up_at == NOW + 3 * DAY
    twice = job.replace(tasks={"site": Task(status=Status.DONE, runs=2)})
    done = finish_job(twice, Moment(NOW, policy), 1)
    assert done is not None
    assert done.job.clean_up_at == clean_at(done.job, policy) == NOW + DAY


def test_a_removal_that_a_pin_puts_off_is_looked_at_again_when_the_last_pin_is_over() -> None:
    policy = Policy()
    pins = {"download": NOW + DAY, "a restore": NOW + 2 * DAY, "over": NOW}
    pinned = a_job(1, Status.DONE, NOW - 100 * DAY, pins=pins)
    marked = pinned.replace(delete_at=NOW - GRACE_OVER, delete_cause=DeleteCause.REQUESTED)
    waits = Decision(action=Action.KEEP, reason=Why.PINNED, until=NOW + 2 * DAY)
    assert decide(marked, False, NOW, policy) == decide(marked, False, NOW + DAY, policy) == waits
    assert decide(marked, False, NOW + 2 * DAY, policy).action is Action.DELETE_DATA
    assert decide(pinned, False, NOW, policy).reason is Why.NO_EXPIRY, "a pin keeps nothing that stays anyway"
    in_grace = marked.replace(delete_at=NOW)
    assert decide(in_grace, False, NOW, policy).reason is Why.IN_GRACE


def test_a_pin_puts_off_neither_the_expiry_nor_the_cleaning_of_a_job() -> None:
    """Neither touches the objects that are read."""
    policy = Policy()
    pins = {"download": NOW + 100 * DAY}
    old = a_job(1, Status.DONE, NOW - 100 * DAY, expires_after_days=60, pins=pins)
    assert decide(old, False, NOW, policy).action is Action.EXPIRE
    left = old.replace(tasks={"site": old.tasks["site"].replace(runs=2)}, expires_after_days=None)
    assert decide(left, False, NOW, policy).action is Action.CLEAN_DONE


def test_a_removal_waits_for_the_lock_and_for_the_legal_hold() -> None:
    policy = Policy()
    lock = Lock(mode=LockMode.COMPLIANCE, until=NOW + 2 * DAY)
    locked = a_job(1, Status.DONE, NOW - 100 * DAY, lock=lock, pins={"download": NOW + DAY})
    marked = locked.replace(delete_at=NOW - GRACE_OVER, delete_cause=DeleteCause.REQUESTED)
    waits = Decision(action=Action.KEEP, reason=Why.LOCKED, until=NOW + 2 * DAY)
    assert decide(marked, False, NOW, policy) == decide(marked, False, NOW + DAY, policy) == waits
    assert decide(marked, False, NOW + 2 * DAY, policy).action is Action.DELETE_DATA
    assert decide(locked, False, NOW, policy).reason is Why.NO_EXPIRY
    held = marked.replace(legal_hold=LegalHold(on=True, settled=True))
    assert decide(held, False, NOW + 9 * DAY, policy) == Decision(action=Action.KEEP, reason=Why.LEGAL_HOLD)


def test_a_legal_hold_that_changed_comes_before_all_but_a_removal_that_has_begun() -> None:
    policy = Policy()
    old = a_job(1, Status.DONE, NOW - 100 * DAY, expires_after_days=60)
    tells = Decision(action=Action.SET_LEGAL_HOLD, reason=Why.LEGAL_HOLD_CHANGED)
    for hold in (LegalHold(on=True), LegalHold(on=False)):
        job = old.replace(legal_hold=hold)
        assert decide(job, False, NOW, policy) == decide(job, True, NOW, policy) == tells
        marked = job.replace(delete_at=NOW - GRACE_OVER, delete_cause=DeleteCause.REQUESTED)
        assert decide(marked, False, NOW, policy) == tells
        assert decide(marked.replace(removing_at=NOW), False, NOW, policy).action is Action.DELETE_DATA
