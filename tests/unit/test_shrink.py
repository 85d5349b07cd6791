"""When a backup is so much smaller than those before it that somebody should look."""

from statistics import median_low
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from sitebackup.domain.drill import Drill, DrillState
from sitebackup.domain.job import DeleteCause, Job, Status, StoredObject, Task, TaskWarning
from sitebackup.domain.policy import Policy
from sitebackup.domain.shrink import COMPARED, FEWEST, may_warn, shrunk, with_warnings
from sitebackup.domain.task_ref import RestoreRef
from sitebackup.domain.transitions.endings import finish_job
from tests.builders import NOW, a_job, an_id
from tests.unit.jobs import at

MIB = 1024 * 1024
PERCENT = 90
POLICY = Policy(shrink_percent=PERCENT)
OFF = Policy(shrink_percent=0)
SAFETY = RestoreRef(restore_id=an_id(), attempt=1)
sizes = st.integers(0, 10**15)
members = st.none() | st.integers(0, 10**9)
percents = st.integers(1, 99)


def an_object(size: int, members: int | None = 1) -> StoredObject:
    return StoredObject(bucket="b", key="k", size=size, checksum_crc64nvme="AAAAAAAAAAA=", members=members)


objects = st.builds(an_object, sizes, members)


def a_backup(size: int, provider: str = "site", **changes: Any) -> Job:
    """A done job of one task."""
    task = Task(status=Status.DONE, object=an_object(size), finished_at=NOW)
    return a_job(status=Status.DONE, tasks={provider: task}).replace(**changes)


def sealed(size: int, **changes: Any) -> Job:
    """All its tasks are done, and it is not yet."""
    return a_backup(size, status=Status.RUNNING, sealed_at=NOW, **changes)


def warning(job: Job, earlier: list[Job], policy: Policy = POLICY) -> TaskWarning | None:
    return with_warnings(job, earlier, policy).tasks["site"].warning


BIG = [a_backup(MIB) for _ in range(COMPARED)]


@given(st.lists(objects, max_size=2 * COMPARED), objects, percents)
def test_a_backup_shrank_if_it_lost_more_than_the_percentage_of_the_median_of_the_last(
    last: list[StoredObject], new: StoredObject, percent: int
) -> None:
    def fell(count: int, before: list[int]) -> bool:
        return len(before) >= FEWEST and 100 * count < (100 - percent) * median_low(before)

    known = [each.members for each in last if each.members is not None][:COMPARED]
    bytes_fell = fell(new.size, [each.size for each in last][:COMPARED])
    members_fell = new.members is not None and fell(new.members, known)
    found = shrunk(new, last, percent)
    assert (found is not None) == (bytes_fell or members_fell)
    if found:
        assert ("byte" in found.message, "member" in found.message) == (bytes_fell, members_fell)


@given(sizes, st.integers(1, 10**15), percents)
def test_a_backup_that_grows_never_shrank(growth: int, size: int, percent: int) -> None:
    assert shrunk(an_object(size + growth), [an_object(size)] * COMPARED, percent) is None


@given(st.data(), st.lists(sizes, min_size=FEWEST, max_size=COMPARED), sizes)
def test_the_order_of_the_backups_that_are_compared_says_nothing(
    data: st.DataObject, before: list[int], size: int
) -> None:
    last = [an_object(each) for each in before]
    turned = data.draw(st.permutations(last))
    assert shrunk(an_object(size), last, PERCENT) == shrunk(an_object(size), turned, PERCENT)


@given(sizes, sizes, st.integers(0, COMPARED - 1))
def test_one_odd_backup_neither_hides_a_loss_nor_makes_one(odd: int, size: int, place: int) -> None:
    assume(size > 0)
    last = [an_object(size)] * (COMPARED - 1)
    last.insert(place, an_object(odd))
    assert shrunk(an_object(0), last, PERCENT)
    assert shrunk(an_object(size), last, PERCENT) is None


@pytest.mark.parametrize(
    ("size", "fell"), [(100, False), (99, True)], ids=["by exactly the percentage", "by more"]
)
def test_a_fall_by_the_percentage_itself_is_none(size: int, fell: bool) -> None:
    assert bool(shrunk(an_object(size), [an_object(1000)] * FEWEST, PERCENT)) == fell


@pytest.mark.parametrize(
    ("new", "before", "message"),
    [
        (
            an_object(12),
            [an_object(MIB)] * COMPARED,
            "12 bytes, where the last 5 backups had a median of 1,048,576.",
        ),
        (
            an_object(1000, members=1),
            [an_object(1000, members=1204)] * 4,
            "1 member, where the last 4 backups had a median of 1,204.",
        ),
        (
            an_object(22, members=0),
            [an_object(MIB)] * FEWEST,
            "22 bytes, where the last 3 backups had a median of 1,048,576. "
            "0 members, where the last 3 backups had a median of 1.",
        ),
        (
            an_object(1, members=None),
            [an_object(1000, members=None)] * FEWEST,
            "1 byte, where the last 3 backups had a median of 1,000.",
        ),
    ],
    ids=["bytes", "members", "a zip of none", "no zip"],
)
def test_the_warning_says_what_fell_and_from_what(
    new: StoredObject, before: list[StoredObject], message: str
) -> None:
    assert shrunk(new, before, PERCENT) == TaskWarning(code="shrunk", message=message)


def test_a_zip_of_no_members_is_warned_about_at_any_percentage() -> None:
    assert shrunk(an_object(22, members=0), [an_object(22, members=1)] * FEWEST, 99)


def test_members_are_compared_with_those_that_are_known() -> None:
    """The provider's format was `any` until lately."""
    unknown = [an_object(MIB, members=None)] * COMPARED
    assert shrunk(an_object(MIB, members=0), unknown, PERCENT) is None
    known = [an_object(MIB, members=9)] * FEWEST
    assert shrunk(an_object(MIB, members=0), [*known, *unknown], PERCENT)
    assert shrunk(an_object(MIB, members=None), known, PERCENT) is None


@pytest.mark.parametrize("count", range(FEWEST))
def test_a_backup_with_too_few_before_it_is_not_compared(count: int) -> None:
    assert warning(sealed(0), BIG[:count]) is None
    assert warning(sealed(0), BIG[:FEWEST])


def test_only_the_last_backups_are_compared() -> None:
    """A site that is smaller for good is warned about three times."""
    site, warned = list(BIG), []
    for _ in range(COMPARED):
        warned.append(warning(sealed(MIB // 100), site) is not None)
        site.insert(0, a_backup(MIB // 100))
    assert warned == [True, True, True, False, False]


def test_each_provider_is_compared_with_its_own_backups() -> None:
    job = sealed(10)
    job = job.replace(tasks={**job.tasks, "db": job.tasks["site"], "mail": job.tasks["site"]})
    small = [a_backup(10, "db") for _ in range(COMPARED)]
    mixed = [each for pair in zip(small, BIG, strict=True) for each in pair]
    compared = with_warnings(job, mixed, POLICY)
    assert {name for name, task in compared.tasks.items() if task.warning} == {"site"}
    assert compared.tasks.keys() == job.tasks.keys()


def test_what_somebody_asked_to_delete_does_not_count_and_what_expired_does() -> None:
    def marked(cause: DeleteCause) -> list[Job]:
        return [each.replace(delete_at=NOW, delete_cause=cause) for each in BIG]

    assert warning(sealed(0), marked(DeleteCause.REQUESTED)) is None
    assert warning(sealed(0), marked(DeleteCause.EXPIRED))


def test_safety_backups_neither_count_nor_are_compared() -> None:
    assert warning(sealed(0), [each.replace(safety_for=SAFETY) for each in BIG]) is None
    assert warning(sealed(0, safety_for=SAFETY), BIG) is None
    assert not may_warn(sealed(0, safety_for=SAFETY), POLICY)


def test_no_backup_is_compared_where_that_is_switched_off() -> None:
    assert warning(sealed(0), BIG, OFF) is None
    assert (may_warn(sealed(0), OFF), may_warn(sealed(0), POLICY)) == (False, True)


def test_a_job_that_gets_done_with_a_warning_differs_in_nothing_else() -> None:
    job = sealed(0, expires_after_days=3)
    moment = at(NOW)
    told, silent = finish_job(job, moment, 1, BIG), finish_job(job, moment, 1)
    assert told is not None
    assert silent is not None
    assert told.job.tasks["site"].warning
    assert not told.events
    site = told.job.tasks["site"].replace(warning=None)
    assert told.job.replace(tasks={"site": site}) == silent.job
    assert finish_job(told.job, moment, 1, BIG) is None


def test_a_backup_that_a_drill_found_damaged_is_not_compared_with() -> None:
    damaged = Drill(state=DrillState.DAMAGED, at=NOW)
    earlier = [a_backup(1000) for _ in range(3)]
    for _ in range(3):
        job = a_backup(10)
        tasks = {name: task.replace(drill=damaged) for name, task in job.tasks.items()}
        earlier.insert(0, job.replace(tasks=tasks, damaged=True))
    assert warning(sealed(10), earlier) is not None
