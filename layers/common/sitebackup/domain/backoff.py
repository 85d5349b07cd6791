"""How long a task or a part waits before it is tried again."""

from datetime import timedelta

LONGEST_SECONDS = 900.0


def pause(tries: int, random: float) -> timedelta:
    """Doubles with each try, up to 15 minutes, with jitter; `random` is uniform in [0, 1)."""
    longest = min(2.0 ** (tries + 1), LONGEST_SECONDS)
    return timedelta(seconds=longest * (0.5 + random / 2))
