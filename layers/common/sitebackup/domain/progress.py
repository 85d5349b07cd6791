"""Progress is what the set of done parts says, never a counter of its own (I6)."""

from collections.abc import Collection

from .model import Model


class Progress(Model, frozen=True, kw_only=True):
    """A snapshot of the set: everything up to `watermark` is done, `parts` and `bytes` count the whole set."""

    parts: int = 0
    bytes: int = 0
    watermark: int = 0
    watermark_bytes: int = 0


def advance(progress: Progress, done: Collection[tuple[int, int]]) -> Progress:
    """The snapshot after reading the (number, length) of every done part past the watermark that was handed out.

    Reading only past the watermark keeps the cost of a refresh at what is under way, not at the task's size.
    """
    lengths = dict(done)
    watermark, watermark_bytes = progress.watermark, progress.watermark_bytes
    while (length := lengths.pop(watermark + 1, None)) is not None:
        watermark, watermark_bytes = watermark + 1, watermark_bytes + length
    ahead = {number: length for number, length in lengths.items() if number > watermark}
    return Progress(
        parts=watermark + len(ahead),
        bytes=watermark_bytes + sum(ahead.values()),
        watermark=watermark,
        watermark_bytes=watermark_bytes,
    )
