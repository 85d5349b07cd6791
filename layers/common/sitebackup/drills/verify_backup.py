"""Opens one backup because somebody asks for it."""

from dataclasses import dataclass

from ..backup.get_job import visible
from ..backup.recorder import Recorder
from ..domain import drilling
from ..domain.change import Change, Moment
from ..domain.errors import NotFound, StateForbids
from ..domain.job import Job
from ..domain.principal import Access
from ..telemetry import logger
from .settle_site import SettleSite


@dataclass(frozen=True)
class VerifyBackup:
    """All objects of the job, whatever the budget says. What is being opened already goes on."""

    recorder: Recorder
    settle: SettleSite

    def __call__(self, access: Access, job_id: str) -> Job:
        """Raises NotFound, StateForbids, RepositoryUnavailable or Conflict."""
        job = visible(self.recorder.jobs, access, "backup", job_id)
        newest = [name for name, found in self.settle.newest(job).items() if found.job.id == job_id]

        def request(job: Job, moment: Moment) -> Change | None:
            if why := drilling.why_not(job):
                raise StateForbids(f"Backup {job_id} can't be opened: {why}.", jobId=job_id)
            return drilling.request(job, moment, list(job.tasks), newest)

        begun = self.recorder.apply(job_id, request, known=job)
        if begun is None:
            raise NotFound(f"There is no backup {job_id}.")
        logger.info("drill asked for", extra={"jobId": job_id, "attempt": begun.after.attempt})
        return begun.after
