"""How long what failed for now waits."""

import pytest

from sitebackup.domain.backoff import pause


@pytest.mark.parametrize(
    ("tries", "shortest"), [(0, 1), (1, 2), (2, 4), (8, 256), (9, 450), (10, 450), (1000, 450)]
)
def test_a_pause_doubles_with_each_try_up_to_15_minutes_and_is_up_to_twice_as_long_by_chance(
    tries: int, shortest: int
) -> None:
    pauses = [pause(tries, random).total_seconds() for random in (0, 0.5, 0.75)]
    assert pauses == [shortest, 1.5 * shortest, 1.75 * shortest]
