"""An invocation's claim on a restore task: while it holds, no other sends for that task."""

from dataclasses import dataclass
from datetime import timedelta

from ..domain.errors import TaskEnded, Unavailable
from ..domain.restore import Restore, RestoreTask
from ..domain.restoring import Arrived, begin_import, begin_slice, lose_import, renew_lease
from ..domain.task_ref import RestoreTaskRef
from ..ports.runtime import TimeLeft
from .recorder import RestoreRecorder

RENEW_EVERY = timedelta(seconds=10)
LOOK_EVERY = timedelta(seconds=3)
ENDS_EARLY = timedelta(seconds=5)
"""An invocation stops sending so long before its lease ends: nobody else has begun by then."""


@dataclass
class RestoreLease:
    """Held by one invocation, `owner`, since `start_task`. Each change of the task that it stores renews it."""

    recorder: RestoreRecorder
    ref: RestoreTaskRef
    owner: str
    restore: Restore
    """As it was stored last."""

    def __post_init__(self) -> None:
        self._until = self._renew_at = self._look_at = self.recorder.now()
        self._hold(self.restore)

    @property
    def task(self) -> RestoreTask:
        """As it was stored last."""
        return self.restore.tasks[self.ref.provider]

    def begin_import(self, url: str) -> None:
        """Stores a new upload. Raises TaskEnded, as all of these do, once another has the task or it has ended."""
        self._hold(self.recorder.apply_to_task(self.ref, begin_import, self.owner, url))

    def begin_slice(self, arrived: Arrived, sent_to: int) -> None:
        """Stores what has arrived, and how far the next slice goes, before it is sent."""
        self._hold(self.recorder.apply_to_task(self.ref, begin_slice, self.owner, arrived, sent_to))

    def lose_import(self) -> None:
        """Stores that the upload is of no use. Raises TaskEnded as well if that happened too often."""
        self._hold(self.recorder.apply_to_task(self.ref, lose_import, self.owner))

    def renew(self) -> None:
        """For a wait that stores nothing else."""
        self._hold(self.recorder.apply_to_task(self.ref, renew_lease, self.owner))

    def time_left(self, left: TimeLeft) -> TimeLeft:
        """What is left of the invocation, and of the lease."""
        return lambda: min(left(), (self._until - self.recorder.now()).total_seconds())

    def goes_on(self) -> bool:
        """Whether to send on; asked often, it looks every few seconds.

        While MongoDB does not answer the lease is taken to be held: it ends by itself.
        """
        now = self.recorder.now()
        if now < self._look_at:
            return True
        self._look_at = now + LOOK_EVERY
        try:
            if now >= self._renew_at:
                self.renew()
                return True
            restore = self.recorder.restores.get(self.ref.restore_id)
        except TaskEnded:
            return False
        except Unavailable:
            return True
        task = restore.live_task(self.ref) if restore else None
        return task is not None and task.lease is not None and task.lease.owner == self.owner

    def _hold(self, stored: Restore | None) -> None:
        if stored is None:
            raise TaskEnded
        self.restore = stored
        lease = self.task.lease
        if lease is None:
            raise TaskEnded
        now = self.recorder.now()
        self._until = lease.until - ENDS_EARLY
        third = (self._until - now) / 3  # a short lease is renewed sooner
        self._renew_at = now + min(RENEW_EVERY, third)
        self._look_at = now + min(LOOK_EVERY, third)
