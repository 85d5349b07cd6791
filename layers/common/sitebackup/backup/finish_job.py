"""Finishes a job whose tasks are all done: its manifest comes first. A failed task has settled its job already."""

from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import NamedTuple

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
            manifest = self.retry(lambda: self._described(job, deadline), ref, deadline)
            if manifest is None:
                count("ManifestConflicts")
                logger.error("another manifest is in the way", extra=log_context(ref))
                return
            if job.lock:
                self._lock(job, job.lock, manifest, ref, deadline)
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

    def _lock(self, job: Job, lock: Lock, manifest: "_Version", ref: TaskRef, deadline: datetime) -> None:
        """Locks each verified version, and the manifest last; what is locked for as long already stays so.

        S3 takes no lock that ends in the past. Whatever kept it from being set so long, the backup is good.
        """
        if lock.until <= self.clock.now():
            logger.warning("its lock would be over", extra=log_context(ref))
            return
        objects = [task.object for task in job.tasks.values() if task.object]
        for key, version_id in [*(_Version(one.key, one.version_id) for one in objects), manifest]:
            try:
                self.retry(partial(self.storage.lock, key, version_id, lock), ref, deadline)
            except Permanent:
                held = self.storage.held(key, version_id or "")
                if held is None or not held.is_locked_until(lock.until):
                    raise

    def _earlier(self, job: Job) -> list[Job]:
        """The last done jobs of its site, newest first, if it is compared with them."""
        if not may_warn(job, self.recorder.policy):
            return []
        same_site = {"userId": job.user_id, "siteId": job.site_id}
        return self.recorder.jobs.page({**same_site, "status": Status.DONE}, BACKUPS_READ, None)

    def _described(self, job: Job, deadline: datetime) -> "_Version | None":
        """The job's manifest in the bucket (I18), written now or by an earlier call; None: what is there differs."""
        manifest = manifest_of(job)
        try:
            version = self.storage.put_once(job.manifest_key, manifest, self.clock.left_until(deadline))
        except ObjectExists:
            stored = self.storage.head(job.manifest_key)
            if stored is None:
                raise Transient("S3 refuses the manifest, but shows none.") from None
            if stored.size != len(manifest) or self.storage.read(stored, 0, stored.size) != manifest:
                return None
            version = stored.version_id
        return _Version(job.manifest_key, version)


class _Version(NamedTuple):
    """Which version at which key: somebody may have put another one on top of it."""

    key: str
    version_id: str | None
