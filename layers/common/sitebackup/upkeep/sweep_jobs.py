"""Finds what has stalled, timed out or been lost, and sends it again (I8)."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from aws_lambda_powertools.metrics import MetricUnit

from ..backup.recorder import Recorder
from ..domain import drilling
from ..domain.check import check, uploads_to_check
from ..domain.events import Event, UploadPartCreated
from ..domain.job import Job, Status
from ..domain.transitions.endings import time_out
from ..ports.repositories import PartRepository
from ..telemetry import count
from .work_off import work_off

CLAIM = timedelta(seconds=30)
"""After so long another sweep looks at a job whose check came to no end: before the next one, a minute later."""


@dataclass(frozen=True)
class SweepJobs:
    """One pass over the jobs that are due: unfinished ones, and done ones that are being opened.

    Several at once share them: each job is claimed first.
    """

    recorder: Recorder
    parts: PartRepository

    def __call__(self, deadline: datetime) -> int:
        """How many jobs were checked before nothing was due or the time was up. Raises Unavailable."""
        checked = work_off(self.recorder.jobs.due, self._claim_and_check, deadline, self.recorder.now)
        count("JobsChecked", checked)
        return checked

    def _claim_and_check(self, job: Job) -> bool:
        """Whether the job was claimed."""
        now = self.recorder.now()
        claimed = self.recorder.jobs.claim_check(job, now + CLAIM)
        if claimed is None:
            return False
        count("SweepLag", (now - (job.next_check_at or now)).total_seconds(), MetricUnit.Seconds)
        if job.status is Status.DONE:
            self.recorder.apply_seen(claimed, drilling.check)
        elif self.recorder.apply(job.id, time_out, known=claimed) is None:
            self._check(claimed)
        return True

    def _check(self, job: Job) -> None:
        """Sends what is due. The next checks are stored first, so of several sweeps one sends."""
        moment = self.recorder.moment()
        missing = {
            name: self.parts.missing(upload.upload_id, job.tasks[name].handed_out)
            for name, upload in uploads_to_check(job, moment.now).items()
        }
        # At the moment of the read: nobody has read what is missing of a task that came due since.
        self.recorder.apply_seen(job, lambda job, _: check(job, moment, missing), self._end_waits)

    def _end_waits(self, events: Sequence[Event]) -> None:
        """Before they are emitted: a part that fails again at once must keep its new wait."""
        sent_again = defaultdict[str, list[int]](list)
        for event in events:
            if isinstance(event, UploadPartCreated):
                sent_again[event.upload_id].append(event.number)
        for upload_id, numbers in sent_again.items():
            self.parts.end_waits(upload_id, numbers)
