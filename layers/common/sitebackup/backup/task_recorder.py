"""Stores what becomes of a task that a worker is at: errors, failures, and plans that no longer hold."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from ..domain.backoff import pause
from ..domain.errors import Permanent, Transient, Unavailable
from ..domain.events import UploadPartCreated
from ..domain.job import Job, PartWait
from ..domain.reason import Reason
from ..domain.task_ref import TaskRef
from ..domain.transitions import endings, postponing, uploads
from ..ports.repositories import PartRepository
from ..ports.storage import ObjectStorage
from ..telemetry import count, log_context, logger
from .recorder import Recorder


@dataclass(frozen=True)
class TaskRecorder:
    """Each method raises RepositoryUnavailable or Conflict if the outcome can't be stored."""

    recorder: Recorder
    parts: PartRepository
    storage: ObjectStorage
    random: Callable[[], float]
    """Uniform in [0, 1)."""

    def fail(self, ref: TaskRef, reason: Reason) -> None:
        """The task can't succeed in this attempt."""
        self.recorder.apply_to_task(ref, endings.fail_task, reason)

    def retry_later(self, ref: TaskRef, error: Transient, tries: int, owner: str | None = None) -> None:
        """A run or a completion failed for now: the sweep tries again when the wait is over.

        `owner` as for `note_error`.
        """
        postponed = self._postponed(ref, error, tries)
        self.recorder.apply_to_task(ref, postponing.note_error, owner, postponed)

    def retry_part_later(self, event: UploadPartCreated, error: Transient) -> None:
        """A part failed for now: only that part waits."""
        ref, postponed = event.task, self._postponed(event.task, error, event.redelivery)
        wait = PartWait(attempt=ref.attempt, tries=event.redelivery, next_try_at=postponed.next_try_at)
        self.parts.save_wait(event.upload_id, event.number, wait, self.recorder.now())
        self.recorder.apply_to_task(ref, postponing.note_part_error, event.upload_id, postponed)

    def replan_changed(self, ref: TaskRef, upload_id: str) -> None:
        """The export changed under the upload: it is planned anew at once."""
        changed = self.recorder.apply_to_task(ref, uploads.replan_changed, upload_id)
        if changed:
            logger.warning("task is planned anew: its export changed", extra=log_context(ref))
            self.abort(ref, changed.after.key(ref.provider), upload_id)

    def replan_lost(self, ref: TaskRef, upload_id: str) -> None:
        """S3 lost the upload: it is planned anew after a pause, or the task fails."""
        changed = self.recorder.apply(
            ref.job_id,
            lambda job, moment: uploads.replan_lost(job, moment, ref, upload_id, self._after_loss(job, ref)),
        )
        if changed:
            logger.warning("task is planned anew: S3 lost its upload", extra=log_context(ref))
            self.abort(ref, changed.after.key(ref.provider), upload_id)

    def redo_parts(self, job: Job, ref: TaskRef, upload_id: str, numbers: Sequence[int]) -> None:
        """S3 lost these parts: they are moved again after a pause, or the task fails."""
        next_try_at = self._after_loss(job, ref)
        wait = PartWait(attempt=ref.attempt, next_try_at=next_try_at)
        for number in numbers:
            self.parts.lose(upload_id, number, wait, self.recorder.now())
        changed = self.recorder.apply_to_task(ref, uploads.redo_parts, upload_id, next_try_at)
        if changed:
            logger.warning("parts are moved again", extra={**log_context(ref), "parts": list(numbers)})

    def is_live(self, ref: TaskRef) -> bool:
        """Whether the task still goes on; while MongoDB does not answer, it is taken to."""
        try:
            job = self.recorder.jobs.get(ref.job_id)
        except Unavailable:
            return True
        return job is not None and job.live_task(ref) is not None

    def abort(self, ref: TaskRef, key: str, upload_id: str) -> None:
        """Aborts an upload that nobody uses; if S3 does not answer, cleaning the key later finds it (I9)."""
        try:
            self.storage.abort(key, upload_id)
        except (Transient, Permanent) as error:
            logger.warning("upload left behind", extra={**log_context(ref), "error": str(error)})

    def _postponed(self, ref: TaskRef, error: Transient, tries: int) -> postponing.Postponed:
        wait = error.retry_after or pause(tries, self.random())
        count("TransientErrors")
        context = {**log_context(ref), "error": str(error), "seconds": wait.total_seconds()}
        logger.warning("task waits", extra=context)
        return postponing.Postponed(str(error), self.recorder.now() + wait)

    def _after_loss(self, job: Job, ref: TaskRef) -> datetime:
        task = job.tasks.get(ref.provider)
        return self.recorder.now() + pause(task.losses if task else 0, self.random())
