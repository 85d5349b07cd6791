"""What may become of a drill, transition by transition, and what a site's backups prove."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from sitebackup.domain import drilling
from sitebackup.domain.change import Moment
from sitebackup.domain.drill import Drill, Drilling, DrillState, Place
from sitebackup.domain.events import DrillCreated
from sitebackup.domain.job import DeleteCause, Job, Status, Task
from sitebackup.domain.policy import Policy
from sitebackup.domain.site import GIB, Ledger, Site, refill
from sitebackup.domain.task_ref import RestoreRef
from sitebackup.domain.transitions.postponing import Postponed
from tests.builders import NOW, a_job, an_id, an_object
from tests.unit.jobs import changed

POLICY = Policy()
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
ME, OTHER = "me", "another invocation"


def at(now: datetime) -> Moment:
    return Moment(now, POLICY)


def done(**changes: Any) -> Job:
    tasks = {
        name: Task(status=Status.DONE, object=an_object(name), finished_at=NOW) for name in ("site", "db")
    }
    fields: dict[str, Any] = {"status": Status.DONE, "tasks": tasks, "finished_at": NOW, "sealed_at": NOW}
    return a_job(**fields | changes)


def drilled() -> Job:
    """Its object of `site` is to be opened."""
    return changed(drilling.request(done(), at(NOW), ["site"], ["site"]))


def begun() -> Job:
    """This invocation is at it."""
    job = drilled()
    return changed(drilling.start(job, at(NOW), job.ref("site"), ME))


def of(job: Job) -> Drilling:
    found = job.tasks["site"].drilling
    assert found is not None
    return found


def result(state: DrillState, **changes: Any) -> Drill:
    return Drill(state=state, at=NOW, **changes)


# --- asked for


def test_a_drill_that_is_asked_for_is_pinned_sent_and_looked_at_again() -> None:
    change = drilling.request(done(), at(NOW), ["site", "db"], ["db"])
    assert change is not None
    assert change.events == [DrillCreated(task=change.job.ref(name)) for name in ("site", "db")]
    assert {name: task.drilling and task.drilling.of_newest for name, task in change.job.tasks.items()} == {
        "site": False,
        "db": True,
    }
    check_at = NOW + timedelta(seconds=POLICY.start_seconds)
    assert change.job.earliest_check == check_at
    assert change.job.pins == {"drill": check_at + drilling.PIN}


def test_what_is_being_opened_already_goes_on() -> None:
    job = drilled()
    change = drilling.request(job, at(NOW), ["site"], [])
    assert change is not None
    assert change.job is job
    both = drilling.request(job, at(NOW), ["site", "db"], [])
    assert both is not None
    assert both.events == [DrillCreated(task=job.ref("db"))]
    assert of(both.job) == of(job)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"status": Status.RUNNING}, "it is running"),
        ({"status": Status.FAILED}, "it is failed"),
        ({"status": Status.DELETED}, "its data is gone"),
        ({"removing_at": NOW}, "its data is being removed"),
        (
            {"delete_at": NOW, "delete_cause": DeleteCause.REQUESTED},
            "it is marked for deletion; undelete it first",
        ),
        ({"delete_at": NOW, "delete_cause": DeleteCause.EXPIRED}, None),
    ],
)
def test_only_data_that_stays_is_opened(changes: dict[str, Any], why: str | None) -> None:
    job = done(**changes)
    assert drilling.why_not(job) == why
    assert (drilling.request(job, at(NOW), ["site"], []) is None) == (why is not None)


# --- under way


def test_a_drill_is_in_the_hands_of_one_invocation_until_its_lease_is_over() -> None:
    job = begun()
    ref = job.ref("site")
    over = NOW + timedelta(seconds=POLICY.lease_seconds)
    assert drilling.start(job, at(over - timedelta(milliseconds=1)), ref, OTHER) is None
    taken = changed(drilling.start(job, at(over), ref, OTHER))
    assert (of(taken).owner, of(taken).tries) == (OTHER, 2)
    place = Place(offset=5)
    assert drilling.keep(taken, at(over), ref, ME, place) is None
    assert drilling.hand_over(taken, at(over), ref, ME, place) is None
    assert drilling.suspect(taken, at(over), ref, ME, "odd") is None
    assert drilling.postpone(taken, at(over), ref, ME, Postponed("no", over)) is None
    assert drilling.finish(taken, at(over), ref, ME, result(DrillState.OK)) is None


def test_any_byte_further_is_progress_and_none_is_not() -> None:
    job = begun()
    ref = job.ref("site")
    assert of(job).tries == 1
    same = changed(drilling.keep(job, at(NOW), ref, ME, Place()))
    assert of(same).tries == 1
    further = changed(drilling.keep(job, at(NOW), ref, ME, Place(offset=1)))
    assert (of(further).tries, of(further).place.offset) == (0, 1)
    passed = changed(drilling.keep(job, at(NOW), ref, ME, Place(entry=1)))
    assert of(passed).tries == 0


def test_five_tries_without_progress_end_a_drill_as_unread_and_take_the_pin_out() -> None:
    job, now = drilled(), NOW
    for number in range(POLICY.max_tries):
        job = changed(drilling.start(job, at(now), job.ref("site"), f"run {number}"))
        now += HOUR
    ended = changed(drilling.start(job, at(now), job.ref("site"), "the last one"))
    task = ended.tasks["site"]
    assert task.drilling is None
    assert task.drill == Drill(
        state=DrillState.UNREAD, at=now, message="No try came to an end.", of_newest=True
    )
    assert (ended.pins, ended.earliest_check) == ({}, None)


def test_what_s3_refuses_is_tried_again_and_the_last_answer_is_told() -> None:
    job, now = drilled(), NOW
    for number in range(POLICY.max_tries):
        job = changed(drilling.start(job, at(now), job.ref("site"), ME))
        later = now + timedelta(minutes=10)
        job = changed(drilling.postpone(job, at(now), job.ref("site"), ME, Postponed(f"No {number}.", later)))
        if job.tasks["site"].drilling is not None:
            assert (of(job).owner, of(job).next_check_at, of(job).last_error) == (
                None,
                later,
                f"No {number}.",
            )
            assert job.pins["drill"] > later
        now = later
    drill = job.tasks["site"].drill
    assert drill is not None
    assert (drill.state, drill.message, drill.compared) == (DrillState.UNREAD, "No 4.", False)


def test_the_sweep_sends_a_drill_again_after_longer_and_longer_pauses() -> None:
    job, pauses = drilled(), []
    for _ in range(9):
        at_check = job.earliest_check
        assert at_check is not None
        assert drilling.check(job, at(at_check - timedelta(milliseconds=1))) is None
        change = drilling.check(job, at(at_check))
        assert change is not None
        assert change.events == [DrillCreated(task=job.ref("site"))]
        job = change.job
        assert job.earliest_check is not None
        pauses.append((job.earliest_check - at_check).total_seconds())
        assert job.pins["drill"] > job.earliest_check
    assert pauses == sorted(pauses)
    assert (pauses[0], pauses[3], pauses[-1]) == (60, 480, 1920)


def test_nobody_looks_at_a_drill_of_what_is_being_removed() -> None:
    job = drilled().replace(removing_at=NOW)
    assert job.earliest_check is None
    assert drilling.check(job, at(NOW + DAY)) is None
    assert drilling.start(job, at(NOW), job.ref("site"), ME) is None


# --- its end


def test_damage_is_a_suspicion_first_and_a_result_only_after_the_second_read() -> None:
    job = begun()
    ref, damaged = job.ref("site"), result(DrillState.DAMAGED, member="a", message="odd")
    assert drilling.finish(job, at(NOW), ref, ME, damaged) is None
    change = drilling.suspect(
        changed(drilling.keep(job, at(NOW), ref, ME, Place(offset=9, entry=3))), at(NOW), ref, ME, "odd"
    )
    assert change is not None
    assert change.events == [DrillCreated(task=ref)]
    assert (of(change.job).place, of(change.job).suspicion, of(change.job).owner) == (Place(), "odd", None)
    again = changed(drilling.start(change.job, at(NOW), ref, OTHER))
    ended = changed(drilling.finish(again, at(NOW + HOUR), ref, OTHER, damaged))
    assert ended.tasks["site"].drill == damaged.replace(at=NOW + HOUR, of_newest=True)
    assert ended.damaged
    assert ended.clean_up_at == NOW + HOUR, "what KeepNewest keeps has changed"
    assert not ended.pins


def test_a_pin_stays_until_the_last_drill_of_the_job_is_over() -> None:
    job = changed(drilling.request(done(), at(NOW), ["site", "db"], []))
    for name, pins in (("site", {"drill"}), ("db", set[str]())):
        job = changed(drilling.start(job, at(NOW), job.ref(name), ME))
        job = changed(drilling.finish(job, at(NOW), job.ref(name), ME, result(DrillState.OK, compared=True)))
        assert job.pins.keys() == pins


def test_what_was_damaged_stays_so_until_a_drill_has_read_all_of_it() -> None:
    was = result(DrillState.DAMAGED)
    tasks = {"site": done().tasks["site"].replace(drill=was)}
    job = changed(drilling.request(done(tasks=tasks, damaged=True), at(NOW), ["site"], []))
    job = changed(drilling.start(job, at(NOW), job.ref("site"), ME))
    unread = changed(drilling.finish(job, at(NOW), job.ref("site"), ME, result(DrillState.UNREAD)))
    assert (unread.damaged, unread.tasks["site"].drill) == (True, was)
    whole = changed(drilling.finish(job, at(NOW), job.ref("site"), ME, result(DrillState.OK, compared=True)))
    assert not whole.damaged
    assert whole.clean_up_at == NOW


# --- what it proves


def proven(job: Job, days: int, **changes: Any) -> Job:
    fields: dict[str, Any] = {
        "state": DrillState.OK,
        "at": NOW + days * DAY,
        "compared": True,
        "of_newest": True,
    }
    drill = Drill(**fields | changes)
    return job.replace(tasks={name: task.replace(drill=drill) for name, task in job.tasks.items()})


def backed_up_at(days: int, **changes: Any) -> Job:
    job = done(**changes)
    finished = NOW + days * DAY
    return job.replace(tasks={name: task.replace(finished_at=finished) for name, task in job.tasks.items()})


def test_the_newest_good_backups_are_those_that_keep_newest_would_keep() -> None:
    old, new = backed_up_at(1), backed_up_at(2)
    safety = backed_up_at(3, safety_for=RestoreRef(restore_id=an_id(), attempt=1))
    going = backed_up_at(4, delete_at=NOW, delete_cause=DeleteCause.REQUESTED)
    empty = backed_up_at(5)
    site = empty.tasks["site"]
    assert site.object is not None
    empty = empty.replace(tasks={"site": site.replace(object=site.object.replace(members=0))})
    found = drilling.newest_good([empty, going, safety, new, old])
    assert {name: each.job.id for name, each in found.items()} == {"site": new.id, "db": new.id}
    broken = {"site": new.tasks["site"].replace(drill=result(DrillState.DAMAGED)), "db": new.tasks["db"]}
    found = drilling.newest_good([new.replace(tasks=broken), old])
    assert {name: each.job.id for name, each in found.items()} == {"site": old.id, "db": new.id}


@pytest.mark.parametrize(
    "drill",
    [
        {"state": DrillState.DAMAGED},
        {"state": DrillState.UNREAD, "compared": False},
        {"of_newest": False},
    ],
)
def test_damage_what_nobody_read_and_what_was_not_the_newest_prove_nothing(drill: dict[str, Any]) -> None:
    jobs = [proven(backed_up_at(1), 3, **drill), backed_up_at(2)]
    assert drilling.opened_at(jobs, drilling.newest_good(jobs)) is None


def test_a_site_is_proven_since_the_oldest_of_its_providers_proofs() -> None:
    jobs = [backed_up_at(9), proven(backed_up_at(1), 5), proven(backed_up_at(0), 3)]
    assert drilling.opened_at(jobs, drilling.newest_good(jobs)) == (NOW + 5 * DAY, False)
    mixed = proven(backed_up_at(1), 5)
    db = mixed.tasks["db"].replace(drill=result(DrillState.UNREAD, compared=True, of_newest=True))
    jobs = [mixed.replace(tasks={"site": mixed.tasks["site"], "db": db})]
    assert drilling.opened_at(jobs, drilling.newest_good(jobs)) == (NOW, True)
    assert drilling.opened_at([], {}) is None


def test_the_time_of_a_proof_only_moves_on() -> None:
    site = Site(user_id=an_id(), site_id=an_id(), version=1, since=NOW, look_at=NOW + DAY, backed_up_at=NOW)
    later = site.verified(NOW + DAY, unread=True)
    assert (later.since, later.verified_at, later.unread) == (NOW + DAY, NOW + DAY, True)
    assert later.verified(NOW, unread=False) is later


# --- the budget


def test_the_budget_grows_evenly_and_holds_an_hour_at_most() -> None:
    policy = Policy(drill_gib_per_day=24)
    full = refill(Ledger(), NOW, policy)
    assert full.left == GIB
    spent = full.replace(left=-GIB)
    assert refill(spent, NOW + HOUR, policy).left == 0
    assert refill(spent, NOW + DAY, policy).left == GIB
    twice = refill(refill(spent, NOW + HOUR / 2, policy), NOW + HOUR, policy)
    assert abs(twice.left) <= 1


# --- what somebody asked to delete


def asked_to_delete(job: Job) -> Job:
    return job.replace(delete_at=NOW, delete_cause=DeleteCause.REQUESTED)


def test_a_drill_that_nobody_works_at_ends_once_somebody_has_asked_to_delete_the_backup() -> None:
    """Its pin would keep the removal away for as long as no worker came."""
    job = asked_to_delete(drilled())
    ended = changed(drilling.check(job, at(of(job).next_check_at)))
    assert (ended.tasks["site"].drilling, ended.pins) == (None, {})
    found = ended.tasks["site"].drill
    assert found is not None
    assert found.state is DrillState.UNREAD
    assert found.message == "It could not be opened: it is marked for deletion; undelete it first."


def test_a_drill_that_an_invocation_is_at_goes_on_until_its_lease_is_over() -> None:
    job = asked_to_delete(begun())
    until = of(job).leased_until
    assert until is not None
    waits = changed(drilling.check(job, at(until - timedelta(seconds=1))))
    assert of(waits).next_check_at == until
    assert changed(drilling.check(waits, at(until))).tasks["site"].drilling is None


def test_a_backup_that_somebody_asked_to_delete_proves_nothing_of_its_site() -> None:
    proof = result(DrillState.OK, compared=True, of_newest=True)
    older, newer = done(), done()
    newer = newer.replace(tasks={name: task.replace(drill=proof) for name, task in newer.tasks.items()})
    jobs = [newer, older]
    assert drilling.opened_at(jobs, drilling.newest_good(jobs)) == (NOW, False)
    jobs = [asked_to_delete(newer), older]
    assert drilling.opened_at(jobs, drilling.newest_good(jobs)) is None


def test_a_site_whose_proof_is_damaged_is_due_at_once() -> None:
    site = Site(user_id=an_id(), site_id=an_id(), version=1, since=NOW, look_at=NOW, backed_up_at=NOW)
    proven = site.verified(NOW + DAY, unread=True)
    later = NOW + 2 * DAY
    assert proven.unproven(later) == site.replace(since=later, look_at=later)
