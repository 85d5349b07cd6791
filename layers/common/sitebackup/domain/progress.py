"""Progress is what the set of done parts says, never a counter of its own (I6)."""

from collections.abc import Collection

from .model import Model


class Progress(Model, frozen=True, kw_only=True):
    """A snapshot of the set: everything up to `through` is done, `parts` and `bytes` count the whole set."""

    parts: int = 0
    bytes: int = 0
    through: int = 0
    through_bytes: int = 0


def advance(progress: Progress, done: Collection[tuple[int, int]]) -> Progress:
    """The snapshot after reading the (number, length) of every done part past `progress.through` that was handed out.

    Reading only past the watermark keeps the cost of a refresh at what is under way, not at the task's size.
    """
    lengths = dict(done)
    through, through_bytes = progress.through, progress.through_bytes
    while (length := lengths.pop(through + 1, None)) is not None:
        through, through_bytes = through + 1, through_bytes + length
    ahead = {number: length for number, length in lengths.items() if number > through}
    return Progress(
        parts=through + len(ahead),
        bytes=through_bytes + sum(ahead.values()),
        through=through,
        through_bytes=through_bytes,
    )
