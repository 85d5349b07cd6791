"""Finds what has stalled, timed out or been lost, and drives it on (I8)."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from aws_lambda_powertools.metrics import MetricUnit

from ..adapters.bus import Bus
from ..adapters.repository import Repository
from ..domain import transitions
from ..domain.check import check, parts_to_look_at
from ..domain.events import UploadPartCreated
from ..domain.job import Job, PartWait, Status, Task, Upload
from ..domain.policy import Policy, seconds
from ..telemetry import count, job_failed
from .emit import emit
from .work_off import work_off

CLAIM_SECONDS = 30
"""After so long another sweep looks at a job whose check came to no end: before the next one, a minute later."""


@dataclass(frozen=True)
class SweepJobs:
    """One pass over the unfinished jobs that are due. Several at once share them: each job is claimed first."""

    repository: Repository
    bus: Bus
    policy: Policy
    now: Callable[[], datetime]

    def __call__(self, deadline: datetime) -> int:
        """How many jobs were driven on before nothing was due or the time was up. Raises Unavailable."""
        driven = work_off(self.repository.due, self._drive, deadline, self.now)
        count("JobsDriven", driven)
        return driven

    def _drive(self, job: Job) -> bool:
        """Whether the job was claimed."""
        now = self.now()
        claimed = self.repository.claim_check(job, now + seconds(CLAIM_SECONDS))
        if claimed is None:
            return False
        count("SweepLag", (now - (job.next_check_at or now)).total_seconds(), MetricUnit.Seconds)
        if not self._time_out(claimed):
            self._check(claimed)
        return True

    def _time_out(self, job: Job) -> bool:
        changed = self.repository.change(
            job.id, lambda job: transitions.time_out(job, self.now(), self.policy), known=job
        )
        if changed:
            job_failed(changed.after)
        return changed is not None

    def _check(self, job: Job) -> None:
        """Sends what is due. The next checks are stored first, so of several sweeps one sends."""
        now = self.now()
        missing = {
            name: self._missing(job.tasks[name], upload)
            for name, upload in parts_to_look_at(job, now).items()
        }
        checked = check(job, missing, now, self.policy)
        if checked is None:
            return
        changed = self.repository.change(
            job.id, lambda seen: checked.job if seen.version == job.version else None, known=job
        )
        if changed is None:
            return
        sent_again = defaultdict[str, list[int]](list)
        for event in checked.events:
            if isinstance(event, UploadPartCreated):
                sent_again[event.upload_id].append(event.number)
        for upload_id, numbers in sent_again.items():
            self.repository.end_waits(upload_id, numbers)
        if changed.after.status is Status.FAILED:
            job_failed(changed.after)
        emit(self.bus, checked.events)

    def _missing(self, task: Task, upload: Upload) -> dict[int, PartWait]:
        handed_out = range(task.progress.through + 1, upload.dispatched + 1)
        return self.repository.missing_parts(upload.upload_id, handed_out)
