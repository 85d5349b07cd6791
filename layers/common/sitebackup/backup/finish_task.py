"""Keeps a task's progress, hands out its next parts, and has its upload completed once all are done."""

from dataclasses import dataclass
from datetime import datetime

from ..domain.errors import InvalidPart, NoSuchUpload, Permanent, Transient
from ..domain.events import PartUpdated
from ..domain.job import Job, Upload
from ..domain.plan import Plan
from ..domain.progress import advance
from ..domain.task_ref import TaskRef
from ..domain.transitions import postponing, uploads
from ..ports.repositories import PartRepository
from ..telemetry import log_context, logger
from ..transfer.retrying import RetryInProcess
from .accept_object import AcceptObject
from .complete_upload import CompleteUpload
from .task_recorder import TaskRecorder

STREAM_PARTS_READ = 64
"""Of a stream, whose parts are not handed out: so many at most are counted by one event, the rest by later ones."""


@dataclass(frozen=True)
class FinishTask:
    """A task's part-updated records of one batch: they all say the same."""

    tasks: TaskRecorder
    accept: AcceptObject
    complete: CompleteUpload
    parts: PartRepository
    retry: RetryInProcess

    def __call__(self, event: PartUpdated, deadline: datetime) -> None:
        """Raises RepositoryUnavailable (or Conflict) if no outcome can be stored."""
        ref, recorder = event.task, self.tasks.recorder
        job = recorder.jobs.get(ref.job_id)
        found = job.live_upload(ref, event.upload_id) if job else None
        if job is None or found is None:
            return
        task, upload = found
        if event.redelivery:
            claimed = recorder.apply(
                ref.job_id,
                lambda job, moment: postponing.claim_try(job, moment, ref, event.redelivery),
                known=job,
            )
            job = claimed.after if claimed else job
        watermark = task.progress.watermark
        last = upload.dispatched or watermark + STREAM_PARTS_READ
        read = self.parts.done(event.upload_id, range(watermark + 1, last + 1))
        progress = advance(task.progress, [(part.number, part.length) for part in read])
        changed = recorder.apply(
            ref.job_id,
            lambda job, moment: uploads.dispatch_parts(job, moment, ref, event.upload_id, progress),
            known=job,
        )
        job = changed.after if changed else job
        uploaded = job.tasks[ref.provider].upload
        if uploaded and uploaded.plan and progress.parts == uploaded.plan.parts:
            self._finish(ref, job, uploaded, uploaded.plan, deadline)

    def _finish(self, ref: TaskRef, job: Job, upload: Upload, plan: Plan, deadline: datetime) -> None:
        """All parts are done: the object is made, verified and taken for the task's."""
        parts = self.parts.done(upload.upload_id)
        if [(part.number, part.length) for part in parts] != [
            (number, plan.part(number).length) for number in range(1, plan.parts + 1)
        ]:
            logger.error("parts do not tile the plan", extra=log_context(ref))
            self.tasks.replan_lost(ref, upload.upload_id)
            return
        key = job.key(ref.provider)

        def finish() -> bool:
            stored = self.complete(job, ref, upload, parts, deadline)
            if stored:
                self.accept(ref, stored, len(parts))
            return stored is not None

        try:
            try:
                is_done = self.retry(finish, ref, deadline)
            except InvalidPart:
                # A part of a stream can't be read alone: then all of it is lost.
                wrong = self.complete.wrong_parts(key, upload.upload_id, parts) if plan.validator else []
                if wrong:
                    self.tasks.redo_parts(job, ref, upload.upload_id, wrong)
                    return
                is_done = False
        except NoSuchUpload:
            is_done = False
        except Permanent as error:
            self.tasks.fail(ref, error.reason)
            return
        except Transient as error:
            self.tasks.retry_later(ref, error, job.tasks[ref.provider].tries)
            return
        if not is_done:
            self.tasks.replan_lost(ref, upload.upload_id)
