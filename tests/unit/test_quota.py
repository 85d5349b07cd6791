"""Limits of users: which one holds, which slot is free, and what of a backup counts."""

from datetime import UTC, datetime, timedelta
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sitebackup.domain.change import Moment
from sitebackup.domain.job import Status, Task
from sitebackup.domain.lifecycle import retry
from sitebackup.domain.policy import Policy
from sitebackup.domain.quota import (
    Allowance,
    Limits,
    OverQuota,
    Quota,
    day_of,
    free_slot,
    slot_name,
)
from sitebackup.domain.task_ref import RestoreRef
from sitebackup.domain.transitions import endings
from sitebackup.entrypoints.quota_views import rate_limit_headers
from tests.builders import NOW, a_job, a_task, an_object

USER = "a" * 24
MOMENT = Moment(NOW, Policy())
numbers = st.lists(st.integers(0, 12), max_size=8, unique=True)
slots = st.builds(lambda numbers, others: [*numbers, *[None] * others], numbers, st.integers(0, 4))
"""Of the documents that are there: their numbers, and None for those without."""


def named(numbers: list[int | None]) -> list[str | None]:
    return [None if n is None else slot_name(USER, Quota.ACTIVE_JOBS, n) for n in numbers]


@pytest.mark.parametrize("quota", Quota)
def test_an_exception_goes_before_the_default_and_0_is_no_default(quota: Quota) -> None:
    policy = Policy(quota_active_jobs=1, quota_stored_bytes=2, quota_restores_per_day=3, quota_schedules=4)
    default = {"activeJobs": 1, "storedBytes": 2, "restoresPerDay": 3, "schedules": 4}[quota]
    assert Limits().limit(quota, policy) == default
    assert Limits().limit(quota, Policy()) is None
    for told, limit in ((7, 7), (0, 0), ("unlimited", None)):
        limits = Limits.from_document({quota.value: told})
        assert (limits.exception(quota), limits.limit(quota, policy)) == (told, limit)
        others = [other for other in Quota if other is not quota]
        assert [limits.exception(other) for other in others] == [None, None, None]


@given(taken=slots, limit=st.integers(0, 12), spread=st.integers(0, 10**9))
def test_there_is_a_slot_as_long_as_there_are_fewer_than_the_limit(
    taken: list[int | None], limit: int, spread: int
) -> None:
    number = free_slot(named(taken), limit, spread)
    assert (number is None) == (len(taken) >= limit)
    assert number is None or (0 <= number < limit and number not in taken)


@given(taken=slots, limit=st.integers(0, 12))
def test_all_who_look_at_the_same_moment_are_given_as_many_slots_as_are_left(
    taken: list[int | None], limit: int
) -> None:
    """Also beside what has no slot, or one beyond the limit: no index refuses that."""
    found = {free_slot(named(taken), limit, spread) for spread in range(limit + 1)} - {None}
    assert len(found) == max(0, limit - len(taken))


@given(
    taken=slots,
    limit=st.integers(0, 12),
    doings=st.lists(st.tuples(st.sampled_from(["look", "take", "end"]), st.integers(0, 50)), max_size=80),
)
def test_however_many_look_and_take_slots_in_whatever_order_there_are_never_more_than_the_limit(
    taken: list[int | None], limit: int, doings: list[tuple[str, int]]
) -> None:
    """Each looks first, and later takes what it saw. The index refuses a slot that is taken."""
    there, before, seen = dict(enumerate(taken)), len(taken), list[int]()
    for key, (doing, choice) in zip(count(100), doings, strict=False):
        if doing == "look":
            number = free_slot(named(list(there.values())), limit, choice)
            seen += [] if number is None else [number]
        elif doing == "take" and seen:
            number = seen.pop(choice % len(seen))
            if number not in there.values():
                there[key] = number
        elif doing == "end" and there:
            del there[list(there)[choice % len(there)]]
        assert len(there) <= max(limit, before)


@pytest.mark.parametrize(
    ("now", "seconds", "begins", "left"),
    [
        ("2030-01-31T12:00:00", 86400, "2030-01-31T00:00:00", 43200),
        ("2030-01-31T00:00:00", 86400, "2030-01-31T00:00:00", 86400),
        ("2030-01-31T23:59:59.999", 86400, "2030-01-31T00:00:00", 1),
        ("2030-01-31T12:00:07", 60, "2030-01-31T12:00:00", 53),
    ],
)
def test_a_day_begins_at_midnight_in_utc(now: str, seconds: int, begins: str, left: int) -> None:
    moment = datetime.fromisoformat(now).replace(tzinfo=UTC)
    day = day_of(moment, Policy(day_seconds=seconds))
    assert day.begins == datetime.fromisoformat(begins).replace(tzinfo=UTC)
    assert day.ends == day.begins + timedelta(seconds=seconds)
    assert day.left(moment) == left


def test_a_slot_of_a_day_is_another_one_on_the_next() -> None:
    today = day_of(NOW, Policy())
    tomorrow = day_of(today.ends, Policy())
    names = {slot_name(USER, Quota.RESTORES_PER_DAY, 3, day) for day in (today, tomorrow)}
    assert names == {
        f"{USER}:restoresPerDay:2030-01-31T00:00:00Z/3",
        f"{USER}:restoresPerDay:2030-02-01T00:00:00Z/3",
    }


def test_what_counts_of_a_task_is_its_object_or_its_plan_or_what_it_reserved() -> None:
    assert a_task(1).held_bytes == 0
    assert a_task(1).replace(reserved=7).held_bytes == 7
    assert Task(object=an_object("site", 5), reserved=7).held_bytes == 5


@pytest.mark.parametrize("status", Status)
def test_what_is_active_or_done_counts_and_nothing_else(status: Status) -> None:
    tasks = {"site": Task(object=an_object("site", 5)), "db": Task(reserved=7)}
    job = a_job(status=status, tasks=tasks)
    counts = status in (Status.PENDING, Status.RUNNING, Status.DONE)
    assert job.held_bytes == (12 if counts else 0)
    assert job.replace(safety_for=RestoreRef(restore_id="b" * 24, attempt=1)).held_bytes == 0


def test_a_job_gives_its_slot_back_with_its_end_and_a_retry_brings_another() -> None:
    job = a_job(slot="one", byte_limit=5)
    failed = endings.cancel(job, MOMENT)
    assert failed is not None
    assert failed.job.slot is None
    again = retry(failed.job, MOMENT, Allowance("two", 9))
    assert again is not None
    assert (again.job.slot, again.job.byte_limit) == ("two", 9)
    sealed = job.replace(status=Status.RUNNING, sealed_at=NOW)
    done = endings.finish_job(sealed, MOMENT, 1)
    assert done is not None
    assert done.job.slot is None


def test_the_headers_of_a_refusal_are_those_of_the_draft() -> None:
    of_a_day = OverQuota(Quota.RESTORES_PER_DAY, 5, 5, 43200, 86400)
    assert rate_limit_headers(of_a_day) == {
        "Retry-After": "43200",
        "RateLimit-Policy": '"restoresPerDay";q=5;w=86400',
        "RateLimit": '"restoresPerDay";r=0;t=43200',
    }
    at_once = OverQuota(Quota.ACTIVE_JOBS, 1, 2, 60, None)
    assert rate_limit_headers(at_once) == {
        "Retry-After": "60",
        "RateLimit-Policy": '"activeJobs";q=1',
        "RateLimit": '"activeJobs";r=0',
    }
    assert str(at_once) == "activeJobs: the limit is 1, and 2 are used."
