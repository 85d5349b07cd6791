"""Carries out what retention decides about final jobs: expires them, and removes what they left (I9)."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime

from aws_lambda_powertools.metrics import MetricUnit

from ..adapters.repository import Changed, Repository
from ..adapters.storage import Storage, Versions
from ..domain import lifecycle
from ..domain.errors import Permanent, Transient
from ..domain.job import DeleteCause, Job
from ..domain.policy import Policy, seconds
from ..domain.retention import Action, decide, depends_on_newest
from ..telemetry import count, logger
from .work_off import work_off

AT_ONCE = 16
"""Jobs in the hands of one pass: nearly all of their time goes by waiting for S3."""

COUNTED_AS = {
    Action.MARK: "JobsExpired",
    Action.RELEASE: "JobsReleased",
    Action.TIDY: "JobsTidied",
    Action.REMOVE: "JobsRemoved",
    Action.FORGET: "JobsForgotten",
}


@dataclass(frozen=True)
class CleanUp:
    """One pass over the final jobs that are due. Several at once share them: each job is claimed first."""

    repository: Repository
    storage: Storage
    policy: Policy
    now: Callable[[], datetime]

    def __call__(self, deadline: datetime) -> int:
        """How many jobs were looked at before nothing was due or the time was up. Raises Unavailable."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return work_off(self.repository.due_for_clean_up, self._take, deadline, self.now, pool.map)

    def _take(self, job: Job) -> bool:
        """Whether the job was claimed; if it can't be moved on now, it is due again when the claim is over."""
        now = self.now()
        claimed = self.repository.claim_clean_up(job, now + seconds(lifecycle.CLAIM_SECONDS))
        if claimed is None:
            return False
        count("CleanUpLag", (now - (job.clean_up_at or now)).total_seconds(), MetricUnit.Seconds)
        self._move_on(claimed)
        return True

    def _move_on(self, job: Job) -> None:
        """Released, tidied, marked, removed, forgotten, or put off."""
        now = self.now()
        newest = depends_on_newest(job, now, self.policy) and self.repository.holds_newest_good(job)
        decision = decide(job, newest, now, self.policy)
        try:
            match decision.action:
                case Action.KEEP:
                    self._change(job, lambda job: lifecycle.look_again(job, decision.until, self.now()))
                    return
                case Action.MARK:
                    changed = self._change(
                        job,
                        lambda job: lifecycle.mark_deleted(
                            job, self.now(), DeleteCause.EXPIRED, self.now(), self.policy
                        ),
                    )
                    moved = changed is not None
                case Action.RELEASE:
                    moved = self._release(job)
                case Action.TIDY:
                    moved = self._tidy(job)
                case Action.REMOVE:
                    moved = self._remove(job)
                case Action.FORGET:
                    moved = self.repository.forget(job)
        except (Transient, Permanent) as error:
            logger.warning(
                "clean-up is tried again",
                extra={"jobId": job.id, "attempt": job.attempt, "error": str(error)},
            )
            return
        if moved:
            count(COUNTED_AS[decision.action])
            about = {"jobId": job.id, "attempt": job.attempt, "action": decision.action}
            logger.info("cleaned up", extra={**about, "reason": decision.reason})

    def _release(self, job: Job) -> bool:
        """Removes what an attempt that did not get done has left in S3.

        What is there is listed before the claim: a retry that opens a new attempt in between makes the claim fail,
        and none can come before the removal is over.
        """
        found = self._at_keys(job)
        claimed = self._change(job, lambda job: lifecycle.release(job, self.now()))
        if claimed is None:
            return False
        self._delete(found)
        self._change(claimed.after, lambda job: lifecycle.cleared(job, self.now()))
        return True

    def _tidy(self, job: Job) -> bool:
        """Removes what is not an object of the done job; no run of it can be under way, and none can come."""
        kept = {task.object.version_id for task in job.tasks.values() if task.object}
        if None not in kept:  # without versioning an object could not be told from a leftover
            found = self._at_keys(job)
            self._delete(
                {
                    key: Versions(uploads, [version for version in versions if version not in kept])
                    for key, (uploads, versions) in found.items()
                }
            )
        return self._change(job, lambda job: lifecycle.tidied(job, self.now())) is not None

    def _remove(self, job: Job) -> bool:
        """Removes the data for good; nothing can open the job again once that is claimed."""
        claimed = self._change(job, lambda job: lifecycle.begin_removal(job, self.now()))
        if claimed is None:
            return False
        self._delete(self._at_keys(job))
        self._change(claimed.after, lambda job: lifecycle.removed(job, self.now(), self.policy))
        return True

    def _change(self, seen: Job, change: Callable[[Job], Job | None]) -> Changed | None:
        """Changes the job only as it was seen: the decision holds for no other version."""
        return self.repository.change(
            seen.id, lambda job: change(job) if job.version == seen.version else None, known=seen
        )

    def _at_keys(self, job: Job) -> dict[str, Versions]:
        return {job.key(name): self.storage.at_key(job.key(name)) for name in job.tasks}

    def _delete(self, found: dict[str, Versions]) -> None:
        for key, (uploads, versions) in found.items():
            for upload_id in uploads:
                self.storage.abort(key, upload_id)
            for version_id in versions:
                self.storage.delete_version(key, version_id)
