"""What becomes of a task's upload while its parts are moved: progress, dispatch, change and loss."""

from datetime import datetime

from ..change import Change, Moment
from ..events import UploadJobCreated, UploadPartCreated
from ..job import Job, Task
from ..progress import Progress
from ..reason import Code, Reason
from ..task_ref import TaskRef
from .endings import fail_task
from .timing import check_by, progressed, with_task


def dispatch_parts(
    job: Job, moment: Moment, ref: TaskRef, upload_id: str, progress: Progress
) -> Change | None:
    """Records what is done of the upload, and hands out as many parts more as the window then allows."""
    found = job.live_upload(ref, upload_id)
    if found is None:
        return None
    task, upload = found
    if progress.parts <= task.progress.parts:
        return None
    dispatched = upload.dispatched
    if upload.plan:
        dispatched = max(dispatched, min(upload.plan.parts, progress.parts + upload.window))
    advanced = task.replace(
        progress=progress,
        upload=upload.replace(dispatched=dispatched),
        tries=task.tries if task.stream_only else 0,
    )
    events = [
        UploadPartCreated(task=ref, upload_id=upload_id, number=number)
        for number in range(upload.dispatched + 1, dispatched + 1)
    ]
    return Change(with_task(job, moment, ref, progressed(advanced, moment)), events)


def replan_changed(job: Job, moment: Moment, ref: TaskRef, upload_id: str) -> Change | None:
    """The export changed under the plan: the task starts anew.

    If the plan was made in this attempt, the export changes faster than it can be read by ranges: then as a stream.
    """
    found = job.live_upload(ref, upload_id)
    if found is None:
        return None
    task, upload = found
    kept_from_before = upload.attempt < ref.attempt
    anew = task.replace(
        upload=None,
        lease=None,
        next_try_at=None,
        progress=Progress(),
        stream_only=task.stream_only or not kept_from_before,
        started_anew=task.started_anew or kept_from_before,
    )
    event = UploadJobCreated(task=ref, redelivery=task.tries)
    return Change(with_task(job, moment, ref, progressed(anew, moment)), [event])


def replan_lost(
    job: Job, moment: Moment, ref: TaskRef, upload_id: str, next_try_at: datetime
) -> Change | None:
    """S3 has lost the upload (I9): after a pause the task starts anew, and that counts as a loss."""
    found = job.live_upload(ref, upload_id)
    if found is None:
        return None
    anew = found[0].replace(upload=None, lease=None)
    return _after_loss(job, moment, ref, anew, next_try_at)


def redo_parts(
    job: Job, moment: Moment, ref: TaskRef, upload_id: str, next_try_at: datetime
) -> Change | None:
    """Parts that counted as done must be moved again: the progress is read anew, and that counts as a loss."""
    found = job.live_upload(ref, upload_id)
    if found is None:
        return None
    return _after_loss(job, moment, ref, found[0], next_try_at)


def _after_loss(job: Job, moment: Moment, ref: TaskRef, task: Task, next_try_at: datetime) -> Change | None:
    """The progress starts anew, after a pause; too many losses fail the task."""
    losses = task.losses + 1
    if losses >= moment.policy.max_tries:
        what = "parts of the upload" if task.upload else "the upload"
        reason = Reason(code=Code.RETRIES_EXHAUSTED, message=f"S3 lost {what} again and again.")
        return fail_task(job, moment, ref, reason)
    again = progressed(task.replace(progress=Progress(), losses=losses), moment)
    waiting = again.replace(next_try_at=next_try_at, next_check_at=check_by(again, next_try_at))
    return Change(with_task(job, moment, ref, waiting))
