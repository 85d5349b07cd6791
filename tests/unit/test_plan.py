"""Tiling an export into parts within S3's limits."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sitebackup.domain.plan import (
    MAX_OBJECT_SIZE,
    MAX_PART_SIZE,
    MAX_PARTS,
    MIB,
    MIN_PART_SIZE,
    Plan,
    parts_at_once,
    plan_parts,
)

TIB = 1024 * 1024 * MIB
DEFAULT_PART_SIZE = 16 * MIB


@given(size=st.integers(0, MAX_OBJECT_SIZE), probe=st.integers(MIN_PART_SIZE, 64 * MIB))
def test_any_plan_keeps_the_limits_of_s3(size: int, probe: int) -> None:
    plan = plan_parts(size, probe, '"v"')
    assert plan.validator == '"v"'
    assert 1 <= plan.parts <= MAX_PARTS
    first, last = plan.part(1), plan.part(plan.parts)
    assert (first.start, first.length) == (0, min(size, probe))
    assert last.end == size
    if plan.parts > 1:
        assert MIN_PART_SIZE <= plan.part_size <= MAX_PART_SIZE
        assert plan.part(2).start == first.end
        assert 0 < last.length <= plan.part_size


@given(parts=st.integers(2, 40), rest=st.integers(1, MIN_PART_SIZE))
def test_the_parts_of_a_plan_tile_the_export(parts: int, rest: int) -> None:
    size = (parts - 1) * MIN_PART_SIZE + rest
    plan = plan_parts(size, MIN_PART_SIZE, None)
    ranges = [plan.part(number) for number in range(1, plan.parts + 1)]
    assert [part.number for part in ranges] == list(range(1, parts + 1))
    assert [part.start for part in ranges] == [0, *(part.end for part in ranges[:-1])]
    assert sum(part.length for part in ranges) == size


@pytest.mark.parametrize(
    ("size", "probe", "parts", "part_size"),
    [
        (0, DEFAULT_PART_SIZE, 1, DEFAULT_PART_SIZE),
        (DEFAULT_PART_SIZE, DEFAULT_PART_SIZE, 1, DEFAULT_PART_SIZE),
        (DEFAULT_PART_SIZE + 1, DEFAULT_PART_SIZE, 2, DEFAULT_PART_SIZE),
        (DEFAULT_PART_SIZE * MAX_PARTS, DEFAULT_PART_SIZE, MAX_PARTS, DEFAULT_PART_SIZE),
        (DEFAULT_PART_SIZE * MAX_PARTS + 1, DEFAULT_PART_SIZE, 9412, 17 * MIB),
        (TIB, DEFAULT_PART_SIZE, 9988, 105 * MIB),
        (MAX_OBJECT_SIZE, DEFAULT_PART_SIZE, MAX_PARTS, MAX_PART_SIZE),
        ((DEFAULT_PART_SIZE + 1) * MAX_PARTS, DEFAULT_PART_SIZE + 1, MAX_PARTS, DEFAULT_PART_SIZE + 1),
        (MAX_PART_SIZE, MAX_PART_SIZE, 1, MAX_PART_SIZE),
    ],
)
def test_parts_grow_only_for_exports_that_would_have_too_many(
    size: int, probe: int, parts: int, part_size: int
) -> None:
    plan = plan_parts(size, probe, None)
    assert (plan.parts, plan.part_size) == (parts, part_size)
    assert isinstance(plan.part_size, int)


@pytest.mark.parametrize("size", [-1, MAX_OBJECT_SIZE + 1])
def test_an_export_that_s3_cannot_hold_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="outside S3's"):
        plan_parts(size, DEFAULT_PART_SIZE, None)


@pytest.mark.parametrize("number", [0, -1, 3])
def test_a_part_outside_the_plan_is_refused(number: int) -> None:
    with pytest.raises(ValueError, match=f"part {number} is outside 1..2"):
        Plan(size=20, part_size=10, first_size=10).part(number)


@pytest.mark.parametrize(
    ("memory", "wanted", "at_once"),
    [
        (128, 4, 1),
        (160, 4, 1),
        (168, 4, 2),
        (170, 4, 2),
        (512, 4, 4),
        (512, 64, 64),
        (512, 1000, 88),
        (3008, 64, 64),
    ],
)
def test_as_many_parts_are_moved_at_once_as_fit_the_memory(memory: int, wanted: int, at_once: int) -> None:
    assert parts_at_once(memory * MIB, wanted) == at_once
