"""Finds restores that have stalled, timed out or wait for their next step, and takes them on (I8)."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from ..domain import restoring
from ..domain.restore import Restore
from ..restore.advance_restore import AdvanceRestore
from ..restore.recorder import RestoreRecorder
from ..telemetry import count
from .work_off import work_off

CLAIM = timedelta(seconds=30)
"""After so long another sweep looks at a restore whose check came to no end."""


@dataclass(frozen=True)
class SweepRestores:
    """One pass over the restores that are due. Several at once share them: each is claimed first."""

    recorder: RestoreRecorder
    advance: AdvanceRestore

    def __call__(self, deadline: datetime) -> int:
        """How many were checked before nothing was due or the time was up. Raises Unavailable."""
        checked = work_off(self.recorder.restores.due, self._claim_and_check, deadline, self.recorder.now)
        count("RestoresChecked", checked)
        return checked

    def _claim_and_check(self, restore: Restore) -> bool:
        """Whether it was claimed."""
        claimed = self.recorder.restores.claim_check(restore, self.recorder.now() + CLAIM)
        if claimed is None:
            return False
        if self.recorder.apply(restore.id, restoring.time_out, known=claimed) is None:
            self.recorder.apply(restore.id, restoring.check, known=claimed)
        self.advance(restore.id)
        return True
