"""A clock that only a test moves."""

from datetime import datetime, timedelta

from sitebackup.ports.runtime import Clock


class ManualClock:
    """Its sleepers are woken at once, and no time has passed for them."""

    def __init__(self, now: datetime) -> None:
        self.started = now
        self.now = now
        self.slept: list[float] = []
        """Seconds, one for each sleep that was asked for."""

    def advance(self, span: timedelta) -> None:
        """Time moves on."""
        self.now += span

    def advance_to(self, moment: datetime) -> None:
        """Time moves on to then, unless it is later already."""
        self.now = max(self.now, moment)

    def as_port(self) -> Clock:
        """What the use cases are given."""
        return Clock(
            now=lambda: self.now,
            monotonic=lambda: (self.now - self.started).total_seconds(),
            sleep=self.slept.append,
        )
