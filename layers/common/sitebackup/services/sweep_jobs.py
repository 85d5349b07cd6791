"""Finds what has stalled, timed out, expired or been left behind, and drives it on (I8, I9)."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime

from aws_lambda_powertools.metrics import MetricUnit

from ..adapters.repository import Repository
from ..domain import transitions
from ..domain.errors import Unavailable
from ..domain.events import PartUpdated, TaskEvent, TaskUpdated, UploadJobCreated
from ..domain.job import UNFINISHED, Job, Status
from ..domain.reason import Code, Reason
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
        driven = 0
        while self.now() < deadline:
            due = self.repository.due(self.now(), PAGE)
            claimed = [job for job in due if self.now() < deadline and self._driven(job)]
            driven += len(claimed)
            if not claimed:
                break
        count("JobsDriven", driven)
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
            return self._time_out(job) or self._push(job)
        return self.clean_up(job)

    def _time_out(self, job: Job) -> bool:
        changed = self.repository.change(
            job.id, lambda job: transitions.time_out(job, self.now(), self.outcomes.policy), known=job
        )
        if changed:
            job_failed(changed.after)
        return changed is not None

    def _push(self, job: Job) -> bool:
        """Emits again what seems to be lost."""
        changed = self.repository.change(
            job.id, lambda job: transitions.claim_drive(job, self.now(), self.outcomes.policy), known=job
        )
        if changed is None:
            return False
        late = (self.now() - (changed.before.next_drive_at or self.now())).total_seconds()
        count("SweepLag", late, MetricUnit.Seconds)
        self.outcomes.emit(list(self._lost_events(changed.after)))
        return True

    def _lost_events(self, job: Job) -> Iterator[TaskEvent]:
        if all(task.status is Status.DONE for task in job.tasks.values()):
            yield TaskUpdated(job_id=job.id, attempt=job.attempt, provider=next(iter(job.tasks)))
            return
        for name, task in job.tasks.items():
            waits = (task.next_try_at and task.next_try_at > self.now()) or (
                task.lease and task.lease.until > self.now()
            )
            if task.status not in UNFINISHED or waits:
                continue
            tried = task.tried + 1 if task.runs else 0
            event = UploadJobCreated(job_id=job.id, attempt=job.attempt, provider=name, tried=tried)
            if tried >= self.outcomes.policy.max_tries:
                last = f" The last error: {task.trouble.message}" if task.trouble else ""
                message = f"Given up after {tried} tries without progress.{last}"
                self.outcomes.fail(event, Reason(code=Code.RETRIES_EXHAUSTED, message=message))
                return
            upload = task.upload
            if upload and upload.plan and task.stream_only:
                yield PartUpdated(
                    job_id=job.id,
                    attempt=job.attempt,
                    provider=name,
                    upload_id=upload.upload_id,
                    tried=tried,
                )
            elif upload and upload.plan:
                yield from self.outcomes.missing_parts(job, name, tried)
            else:
                yield event
