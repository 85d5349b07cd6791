"""What a transition is given, and what it gives back."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from .events import Event
from .job import Job
from .policy import Policy


class Moment(NamedTuple):
    """When a change happens, and the policy that holds then."""

    now: datetime
    policy: Policy

    def in_seconds(self, count: float) -> datetime:
        """So many seconds later."""
        return self.now + timedelta(seconds=count)


class Change(NamedTuple):
    """The changed job, and the events that follow once it is stored (I8)."""

    job: Job
    events: Sequence[Event] = ()


type Transition = Callable[[Job, Moment], Change | None]
"""None: there is nothing to change. The event came late, came twice, or belongs to another attempt."""
