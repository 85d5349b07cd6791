"""Which Kafka topic an event goes to, and under which key."""

from ..domain.events import (
    DrillCreated,
    Event,
    PartUpdated,
    RestoreTaskCreated,
    TaskUpdated,
    UploadJobCreated,
    UploadPartCreated,
)

TOPICS: dict[type[Event], str] = {
    UploadJobCreated: "upload-job-created",
    UploadPartCreated: "upload-part-created",
    PartUpdated: "part-updated",
    TaskUpdated: "task-updated",
    RestoreTaskCreated: "restore-task-created",
    DrillCreated: "drill-created",
}
RESTORES_AT_ONCE = 8
"""So many keys each provider has in its topic, so that no more restores reach it at once."""


def topic_of(event: Event) -> str:
    """The topic of the event's kind."""
    return TOPICS[type(event)]


def key_of(event: Event) -> str:
    """Records of one key stay in order, and one worker at a time is at them.

    The parts of a task spread over all partitions. All of a job's endings go to one, so that one worker settles it.
    """
    match event:
        case UploadPartCreated():
            return f"{event.task.task_id}/{event.number}"
        case TaskUpdated():
            return event.task.job_id
        case RestoreTaskCreated():
            return f"{event.task.provider}/{int(event.task.restore_id, 16) % RESTORES_AT_ONCE}"
        case _:
            return event.task.task_id
