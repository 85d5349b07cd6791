"""Finishes a job whose tasks are all done: its manifest comes first. A failed task has settled its job already."""

from dataclasses import dataclass
from datetime import datetime
from functools import partial

from ..domain.errors import ObjectExists, Permanent, Transient
from ..domain.events import TaskUpdated
from ..domain.job import Job, Status
from ..domain.lock import Lock
from ..domain.manifest import manifest_of
from ..domain.shrink import may_warn
from ..domain.task_ref import TaskRef
from ..domain.transitions.endings import finish_job
from ..ports.repositories import SiteRepository
from ..ports.runtime import Clock
from ..ports.storage import ObjectStorage
from ..telemetry import count, log_context, logger
from ..transfer.retrying import RetryInProcess
from .recorder import Recorder

BACKUPS_READ = 20
"""So many of the site's last done jobs are looked through: not each of them has each provider."""


@dataclass(frozen=True)
class FinishJob:
    """One record: a task of the job has ended."""

    recorder: Recorder
    sites: SiteRepository
    storage: ObjectStorage
    retry: RetryInProcess
    clock: Clock

    def __call__(self, event: TaskUpdated, deadline: datetime) -> None:
        """Raises RepositoryUnavailable (or Conflict) if earlier jobs can't be read or the outcome can't be stored.

        While S3 does not take the manifest or a lock the job stays sealed, and the sweep asks again (I16).
        """
        ref = event.task
        job = self.recorder.jobs.get(ref.job_id)
        if job is None or not job.awaits_finish(ref.attempt):
            return
        try:
            if not self.retry(lambda: self._is_described(job, deadline), ref, deadline):
                count("ManifestConflicts")
                logger.error("another manifest is in the way", extra=log_context(ref))
                return
            if job.lock:
                self._lock(job, job.lock, ref, deadline)
        except (Transient, Permanent) as error:
            count("FinishesPutOff")
            logger.warning(
                "manifest or locks not written yet", extra={**log_context(ref), "error": str(error)}
            )
            return
        if job.safety_for is None:  # first, so that no site with a backup is unknown to the drills
            self.sites.backed_up(job.user_id, job.site_id, self.recorder.now())
        earlier = self._earlier(job)
        self.recorder.apply(
            job.id, lambda job, moment: finish_job(job, moment, ref.attempt, earlier), known=job
        )

    def _lock(self, job: Job, lock: Lock, ref: TaskRef, deadline: datetime) -> None:
        """Locks each verified version, and the manifest last; what is locked for as long already stays so.

        S3 takes no lock that ends in the past. Whatever kept it from being set so long, the backup is good.
        """
        if lock.until <= self.clock.now():
            logger.warning("its lock would be over", extra=log_context(ref))
            return
        manifest = self.retry(lambda: self.storage.head(job.manifest_key), ref, deadline)
        for stored in [*(task.object for task in job.tasks.values()), manifest]:
            if stored is None:
                raise Transient("S3 took the manifest, but shows none.")
            try:
                self.retry(partial(self.storage.lock, stored.key, stored.version_id, lock), ref, deadline)
            except Permanent:
                held = self.storage.held(stored.key, stored.version_id or "")
                if held is None or not held.is_locked_until(lock.until):
                    raise

    def _earlier(self, job: Job) -> list[Job]:
        """The last done jobs of its site, newest first, if it is compared with them."""
        if not may_warn(job, self.recorder.policy):
            return []
        same_site = {"userId": job.user_id, "siteId": job.site_id}
        return self.recorder.jobs.page({**same_site, "status": Status.DONE}, BACKUPS_READ, None)

    def _is_described(self, job: Job, deadline: datetime) -> bool:
        """Whether the job's manifest is in the bucket (I18): written now, or by a call whose answer was lost."""
        manifest = manifest_of(job)
        try:
            self.storage.put_once(job.manifest_key, manifest, self.clock.left_until(deadline))
        except ObjectExists:
            stored = self.storage.head(job.manifest_key)
            if stored is None:
                raise Transient("S3 refuses the manifest, but shows none.") from None
            if stored.size != len(manifest):
                return False
            return self.storage.read(stored, 0, stored.size) == manifest
        return True
