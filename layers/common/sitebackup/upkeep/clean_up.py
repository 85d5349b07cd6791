"""Carries out what retention decides about final jobs: expires them, and removes what they left (I9)."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from aws_lambda_powertools.metrics import MetricUnit

from ..backup.recorder import JobStore
from ..domain import lifecycle
from ..domain.errors import Permanent, Transient
from ..domain.job import DeleteCause, Job
from ..domain.retention import Action
from ..ports.runtime import Pool
from ..ports.storage import KeyContents, ObjectStorage
from ..telemetry import count, logger
from .get_retention import decide_at
from .work_off import work_off

AT_ONCE = 16
"""Jobs in the hands of one pass: nearly all of their time goes by waiting for S3."""

LOOK_AT_A_HOLD = timedelta(days=1)
"""A legal hold that was set past this service is looked at so often."""

COUNTED_AS = {
    Action.EXPIRE: "JobsExpired",
    Action.CLEAN_FAILED: "FailedJobsCleaned",
    Action.CLEAN_DONE: "DoneJobsCleaned",
    Action.DELETE_DATA: "JobDataDeleted",
    Action.SET_LEGAL_HOLD: "LegalHoldsSet",
    Action.DELETE_RECORD: "JobRecordsDeleted",
}


@dataclass(frozen=True)
class CleanUp:
    """One pass over the final jobs that are due. Several at once share them: each job is claimed first."""

    store: JobStore
    storage: ObjectStorage
    pool: Pool

    def __call__(self, deadline: datetime) -> int:
        """How many jobs were looked at before nothing was due or the time was up. Raises Unavailable."""
        jobs, now = self.store.jobs, self.store.now
        with self.pool(AT_ONCE) as pool:
            return work_off(jobs.due_for_clean_up, self._claim_and_clean_up, deadline, now, pool.map)

    def _claim_and_clean_up(self, job: Job) -> bool:
        """Whether the job was claimed; what can't be done now is due again when the claim is over."""
        now = self.store.now()
        claimed = self.store.jobs.claim_clean_up(job, now + lifecycle.CLAIM)
        if claimed is None:
            return False
        count("CleanUpLag", (now - (job.clean_up_at or now)).total_seconds(), MetricUnit.Seconds)
        self._clean_up(claimed)
        return True

    def _clean_up(self, job: Job) -> None:
        """Carries out what retention decides."""
        decision = decide_at(job, self.store.moment(), self.store.jobs)
        try:
            match decision.action:
                case Action.KEEP:
                    self.store.apply_seen(
                        job, lambda job, moment: lifecycle.look_again(job, moment, decision.until)
                    )
                    return
                case Action.EXPIRE:
                    done = self._expire(job)
                case Action.CLEAN_FAILED:
                    done = self._clean_failed(job)
                case Action.CLEAN_DONE:
                    done = self._clean_done(job)
                case Action.SET_LEGAL_HOLD:
                    done = self._set_legal_hold(job)
                case Action.DELETE_DATA:
                    done = self._delete_data(job)
                case Action.DELETE_RECORD:
                    done = self.store.jobs.delete_record(job)
        except (Transient, Permanent) as error:
            logger.warning(
                "clean-up is tried again",
                extra={"jobId": job.id, "attempt": job.attempt, "error": str(error)},
            )
            return
        if done:
            count(COUNTED_AS[decision.action])
            context = {"jobId": job.id, "attempt": job.attempt, "action": decision.action}
            logger.info("cleaned up", extra={**context, "reason": decision.reason})

    def _expire(self, job: Job) -> bool:
        """Marks it for deletion, so that the grace period runs."""
        expired = self.store.apply_seen(
            job,
            lambda job, moment: lifecycle.mark_deleted(job, moment, moment.now, DeleteCause.EXPIRED),
        )
        return expired is not None

    def _clean_failed(self, job: Job) -> bool:
        """Removes what an attempt that did not get done has left in S3.

        What is there is listed before the claim: a retry that opens a new attempt in between makes the claim fail,
        and none can come before the removal is over.
        """
        found = self._at_keys(job)
        claimed = self.store.apply_seen(job, lifecycle.begin_cleaning)
        if claimed is None:
            return False
        if until := self._delete(found):
            return self._wait(claimed.after, until)
        self.store.apply_seen(claimed.after, lifecycle.end_cleaning)
        return True

    def _clean_done(self, job: Job) -> bool:
        """Removes what is not an object of the done job; no run of it can be under way, and none can come."""
        kept = {task.object.version_id for task in job.tasks.values() if task.object}
        if None not in kept:  # without versioning an object could not be told from a leftover
            left = {
                key: KeyContents(uploads, [version for version in versions if version not in kept])
                for key, (uploads, versions) in self._at_keys(job).items()
            }
            if until := self._delete(left):
                return self._wait(job, until)
        return self.store.apply_seen(job, lifecycle.mark_clean) is not None

    def _set_legal_hold(self, job: Job) -> bool:
        """Tells S3, for each object and the manifest."""
        for key, version_id in self._verified(job):
            self.storage.set_legal_hold(key, version_id, job.is_held)
        return self.store.apply(job.id, lifecycle.settle_legal_hold) is not None

    def _verified(self, job: Job) -> Iterator[tuple[str, str]]:
        """Key and version of each object of a done job and of its manifest. An unversioned bucket locks nothing."""
        for task in job.tasks.values():
            if task.object and task.object.version_id:
                yield task.object.key, task.object.version_id
        for found in self.storage.list_versions(job.manifest_key).versions:
            if found.key == job.manifest_key and found.version_id and not found.is_marker:
                yield found.key, found.version_id

    def _delete_data(self, job: Job) -> bool:
        """Removes the data for good; nothing can open the job again once that is claimed.

        What was locked is looked at first: somebody with rights on the bucket may have locked it for longer. Another
        version that turns out to be locked keeps nothing else from being removed, and goes once S3 lets it.
        """
        if job.lock and job.removing_at is None and (until := self._locked_in_s3(job)):
            return self._wait(job, until)
        claimed = self.store.apply_seen(job, lifecycle.begin_removal)
        if claimed is None:
            return False
        found = self._at_keys(job)
        if job.sealed_at is not None:  # first, so that no manifest speaks of what is gone
            found = {job.manifest_key: self.storage.at_key(job.manifest_key), **found}
        if until := self._delete(found):
            return self._wait(claimed.after, until)
        self.store.apply_seen(claimed.after, lifecycle.end_removal)
        return True

    def _wait(self, job: Job, until: datetime) -> bool:
        """S3 refuses until then: it is looked at again, and not before."""
        logger.warning("locked in S3", extra={"jobId": job.id, "attempt": job.attempt, "until": until})
        self.store.apply_seen(job, lambda job, moment: lifecycle.look_again(job, moment, until))
        return False

    def _locked_in_s3(self, job: Job) -> datetime | None:
        """When to look again at data that S3 refuses to remove; None: it does not refuse."""
        held = [self._locked_until(key, version) for key, version in self._verified(job)]
        return max((until for until in held if until), default=None)

    def _locked_until(self, key: str, version_id: str) -> datetime | None:
        """When to look again at a version that S3 refuses to remove; None: it does not refuse."""
        now = self.store.now()
        held = self.storage.held(key, version_id)
        if held and held.legal_hold:
            return now + LOOK_AT_A_HOLD
        return held.until if held and held.until and held.until > now else None

    def _at_keys(self, job: Job) -> dict[str, KeyContents]:
        return {job.key(name): self.storage.at_key(job.key(name)) for name in job.tasks}

    def _delete(self, found: dict[str, KeyContents]) -> datetime | None:
        """Removes what S3 lets go. When to look again at the rest, which is locked; None: all is gone."""
        refused: list[datetime] = []
        for key, (uploads, versions) in found.items():
            for upload_id in uploads:
                self.storage.abort(key, upload_id)
            for version_id in versions:
                try:
                    self.storage.delete_version(key, version_id)
                except Permanent:
                    until = self._locked_until(key, version_id)
                    if until is None:  # it is no lock that S3 refuses for
                        raise
                    refused.append(until)
        return min(refused, default=None)
