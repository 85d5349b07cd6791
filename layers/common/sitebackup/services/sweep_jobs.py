"""Finds what has stalled, timed out, expired or been left behind, and drives it on (I8, I9)."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from aws_lambda_powertools.metrics import MetricUnit

from ..adapters.repository import Repository
from ..domain import transitions
from ..domain.check import check, parts_to_look_at
from ..domain.errors import Unavailable
from ..domain.events import UploadPartCreated
from ..domain.job import UNFINISHED, Job, PartWait, Status, Task, Upload
from ..telemetry import count, job_failed, logger
from .clean_up import CleanUp
from .outcomes import Outcomes

PAGE = 100


@dataclass(frozen=True)
class SweepJobs:
    """One pass over the jobs that are due. Several at once do no harm: each job is claimed first."""

    repository: Repository
    outcomes: Outcomes
    clean_up: CleanUp
    now: Callable[[], datetime]

    def __call__(self, deadline: datetime) -> int:
        """How many jobs were driven on before nothing was due or the time was up."""
        driven = sum(
            self._work_off(due, deadline) for due in (self.repository.due, self.repository.due_for_clean_up)
        )
        count("JobsDriven", driven)
        return driven

    def _work_off(self, due: Callable[[datetime, int], list[Job]], deadline: datetime) -> int:
        driven = 0
        while self.now() < deadline:
            claimed = [job for job in due(self.now(), PAGE) if self.now() < deadline and self._driven(job)]
            driven += len(claimed)
            if not claimed:
                break
        return driven

    def _driven(self, job: Job) -> bool:
        """Whether the job was claimed; what is wrong with one job must not stop the sweep of the others."""
        try:
            return self._drive(job)
        except Unavailable:
            raise
        except Exception:  # noqa: BLE001 - told in full, and tried again by the next sweep
            logger.exception("job not driven", extra={"jobId": job.id, "attempt": job.attempt})
            return False

    def _drive(self, job: Job) -> bool:
        """Whether the job was claimed."""
        if job.status in UNFINISHED:
            return self._time_out(job) or self._check(job)
        return self.clean_up(job)

    def _time_out(self, job: Job) -> bool:
        changed = self.repository.change(
            job.id, lambda job: transitions.time_out(job, self.now(), self.outcomes.policy), known=job
        )
        if changed:
            job_failed(changed.after)
        return changed is not None

    def _check(self, job: Job) -> bool:
        """Sends what is due. The next checks are stored first, so of several sweeps one sends."""
        now = self.now()
        missing = {
            name: self._missing(job.tasks[name], upload)
            for name, upload in parts_to_look_at(job, now).items()
        }
        checked = check(job, missing, now, self.outcomes.policy)
        if checked is None:
            return False
        changed = self.repository.change(
            job.id, lambda seen: checked.job if seen.version == job.version else None, known=job
        )
        if changed is None:
            return False
        count("SweepLag", (now - (job.next_check_at or now)).total_seconds(), MetricUnit.Seconds)
        sent_again = defaultdict[str, list[int]](list)
        for event in checked.events:
            if isinstance(event, UploadPartCreated):
                sent_again[event.upload_id].append(event.number)
        for upload_id, numbers in sent_again.items():
            self.repository.end_waits(upload_id, numbers)
        if changed.after.status is Status.FAILED:
            job_failed(changed.after)
        self.outcomes.emit(checked.events)
        return True

    def _missing(self, task: Task, upload: Upload) -> dict[int, PartWait]:
        handed_out = range(task.progress.through + 1, upload.dispatched + 1)
        return self.repository.missing_parts(upload.upload_id, handed_out)
