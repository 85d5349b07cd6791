"""When the sweep looks at a task again (I8): shared by all transitions."""

from datetime import datetime

from ..change import Moment
from ..job import Job, Task
from ..task_ref import TaskRef


def new_task(moment: Moment) -> Task:
    """A task that nobody has begun."""
    start = moment.in_seconds(moment.policy.start_seconds)
    return Task(stalls_at=start, next_check_at=start)


def with_task(job: Job, moment: Moment, ref: TaskRef, task: Task) -> Job:
    """The job with this task changed."""
    return job.replace(tasks={**job.tasks, ref.provider: task}, updated_at=moment.now)


def check_by(task: Task, at: datetime) -> datetime:
    """The sweep looks by then, or earlier if that was already planned: a part may wait until then."""
    return min(at, task.next_check_at or at)


def progressed(task: Task, moment: Moment) -> Task:
    """There was progress, so the time until a stall begins anew."""
    stalls_at = moment.in_seconds(moment.policy.stall_seconds)
    return task.replace(stalls_at=stalls_at, stall_delay=0, next_check_at=check_by(task, stalls_at))
