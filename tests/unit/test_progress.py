"""Progress is what the set of done parts says, however it was read (I6)."""

from hypothesis import given
from hypothesis import strategies as st

from sitebackup.domain.progress import Progress, advance

SETS = st.sets(st.integers(1, 30))


def length(number: int) -> int:
    return 100 + number


def read(done: set[int], past: int) -> list[tuple[int, int]]:
    """As the repository answers: what is done past the watermark."""
    return [(number, length(number)) for number in sorted(done) if number > past]


@given(steps=st.lists(SETS, max_size=8))
def test_any_way_to_the_same_set_gives_the_same_snapshot(steps: list[set[int]]) -> None:
    done: set[int] = set()
    progress = Progress()
    for step in steps:
        done |= step
        before, progress = progress, advance(progress, read(done, progress.watermark))
        assert progress == advance(Progress(), read(done, 0)), "the way mattered"
        assert progress == advance(progress, read(done, progress.watermark)), "a duplicate mattered"
        assert progress.parts >= before.parts
        assert progress.watermark >= before.watermark
    assert (progress.parts, progress.bytes) == (len(done), sum(map(length, done)))
    assert set(range(1, progress.watermark + 1)) <= done
    assert progress.watermark + 1 not in done
    assert progress.watermark_bytes == sum(length(number) for number in range(1, progress.watermark + 1))


def test_a_part_that_is_read_again_at_the_watermark_counts_once() -> None:
    progress = advance(Progress(), [(1, 10), (2, 20)])
    assert advance(progress, [(2, 20)]) == progress
    assert advance(progress, [(1, 10), (2, 20), (4, 40)]) == advance(progress, [(4, 40)])
