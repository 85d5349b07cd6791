"""What drills hand over, and when a site is due, to the second."""

from datetime import timedelta

import pytest

from sitebackup.domain import drilling
from sitebackup.domain.change import Moment
from sitebackup.domain.drill import Drill, DrillState, Place
from sitebackup.domain.events import DrillCreated
from sitebackup.domain.job import Status
from sitebackup.domain.policy import Policy
from sitebackup.domain.site import GIB, Ledger, Site, due_before, look_again_at, overdue_before, refill
from tests.builders import NOW
from tests.unit.jobs import changed
from tests.unit.test_drilling import ME, OTHER, at, begun, done, drilled, of

SECOND, DAY = timedelta(seconds=1), timedelta(days=1)
POLICY = Policy()
LATER = NOW + SECOND
SHORT_DAYS = Policy(drill_days=10, day_seconds=100, drill_gib_per_day=24)
A_SITE = Site(
    user_id="a" * 24, site_id="b" * 24, version=1, since=NOW - 9 * DAY, look_at=NOW, backed_up_at=NOW
)


def test_an_invocation_whose_time_is_up_leaves_the_next_one_its_place_and_a_free_drill() -> None:
    job = begun()
    job = changed(drilling.keep(job, at(NOW), job.ref("site"), ME, Place(offset=5, entry=1)))
    before, place = of(job), Place(offset=7, entry=2)
    change = drilling.hand_over(job, Moment(LATER, POLICY), job.ref("site"), ME, place)
    assert change is not None
    check_at = LATER + timedelta(seconds=POLICY.start_seconds)
    assert of(change.job) == before.replace(
        place=place, owner=None, leased_until=None, next_check_at=check_at
    )
    assert change.events == [DrillCreated(task=job.ref("site"))]
    assert change.job.updated_at == LATER


def test_one_that_is_handed_over_at_the_same_place_has_made_no_progress() -> None:
    job = begun()
    change = drilling.hand_over(job, at(NOW), job.ref("site"), ME, Place())
    assert change is not None
    assert of(change.job).tries == 1


def test_what_is_suspected_is_read_again_from_its_start_with_all_its_tries() -> None:
    job = begun()
    job = changed(drilling.keep(job, at(NOW), job.ref("site"), ME, Place(offset=5)))
    job = changed(drilling.check(job, at(of(job).next_check_at)))
    job = changed(drilling.start(job, at(NOW + DAY), job.ref("site"), OTHER))
    assert (of(job).tries, of(job).checks) == (1, 1)
    again = of(changed(drilling.suspect(job, at(NOW + DAY), job.ref("site"), OTHER, "It is odd.")))
    assert (again.place, again.suspicion, again.tries, again.checks) == (Place(), "It is odd.", 0, 0)


def test_progress_makes_the_pauses_of_the_sweep_short_again() -> None:
    job = drilled()
    job = changed(drilling.check(job, at(of(job).next_check_at)))
    job = changed(drilling.start(job, at(NOW + DAY), job.ref("site"), ME))
    assert of(job).checks == 1
    job = changed(drilling.keep(job, at(NOW + DAY), job.ref("site"), ME, Place(offset=1)))
    assert of(job).checks == 0


def test_the_pin_is_renewed_when_less_than_half_of_it_is_left_beyond_the_next_check() -> None:
    job = drilled()
    check_at = of(job).next_check_at
    assert job.pins == {"drill": check_at + drilling.PIN}
    half = check_at + drilling.PIN / 2 - timedelta(seconds=POLICY.lease_seconds)
    assert changed(drilling.start(job, at(half), job.ref("site"), ME)).pins == job.pins
    renewed = changed(drilling.start(job, at(half + SECOND), job.ref("site"), ME))
    assert renewed.pins == {"drill": of(renewed).next_check_at + drilling.PIN}


def test_a_drill_that_ends_while_another_goes_on_says_when() -> None:
    job = changed(drilling.request(done(), at(NOW), ["site", "db"], []))
    job = changed(drilling.start(job, at(NOW), job.ref("site"), ME))
    found = Drill(state=DrillState.OK, at=NOW, compared=True)
    ended = changed(drilling.finish(job, at(LATER), job.ref("site"), ME, found))
    assert ended.updated_at == LATER
    assert ended.tasks["db"].drilling is not None


def test_what_was_only_compared_takes_the_place_of_damage_and_what_was_not_read_does_not() -> None:
    damaged = Drill(state=DrillState.DAMAGED, at=NOW, message="It is odd.")
    for compared in (False, True):
        job = done()
        tasks = {**job.tasks, "site": job.tasks["site"].replace(drill=damaged)}
        job = changed(drilling.request(job.replace(tasks=tasks, damaged=True), at(NOW), ["site"], []))
        job = changed(drilling.start(job, at(NOW), job.ref("site"), ME))
        unread = Drill(state=DrillState.UNREAD, at=NOW, compared=compared)
        ended = changed(drilling.finish(job, at(LATER), job.ref("site"), ME, unread))
        assert ended.damaged is not compared


def test_a_site_is_due_after_four_fifths_of_its_days_and_overdue_after_all_of_them() -> None:
    assert due_before(NOW, SHORT_DAYS) == NOW - timedelta(seconds=800)
    assert overdue_before(NOW, SHORT_DAYS) == NOW - timedelta(seconds=1000)
    assert look_again_at(NOW, SHORT_DAYS) == NOW + timedelta(seconds=25)


def test_a_site_that_was_opened_may_be_looked_at_from_then_on_and_one_known_stays_as_it_is() -> None:
    opened = A_SITE.verified(LATER, unread=True)
    assert (opened.since, opened.verified_at, opened.unread, opened.look_at) == (LATER, LATER, True, LATER)
    assert opened.verified(LATER, unread=False) is opened


@pytest.mark.parametrize(
    ("ledger", "left"),
    [
        (Ledger(), GIB),
        (Ledger(left=-24 * GIB), -23 * GIB),
        (Ledger(left=0, left_at=NOW - timedelta(seconds=1)), 24 * GIB // 100),
        (Ledger(left=0, left_at=NOW - DAY), GIB),
    ],
)
def test_the_budget_of_an_hour_is_there_at_first_and_never_more(ledger: Ledger, left: int) -> None:
    filled = refill(ledger, NOW, SHORT_DAYS)
    assert (filled.left, filled.left_at) == (left, NOW)
    assert isinstance(filled.left, int)


def test_of_two_that_are_equally_new_the_first_one_counts() -> None:
    first, second = done(), done()
    assert {found.job.id for found in drilling.newest_good([first, second]).values()} == {first.id}


def test_a_task_without_an_end_or_without_an_object_is_no_good_backup() -> None:
    job = done()
    tasks = {
        "site": job.tasks["site"].replace(finished_at=None),
        "db": job.tasks["db"].replace(object=None),
    }
    assert drilling.newest_good([job.replace(tasks=tasks)]) == {}
    assert job.status is Status.DONE
