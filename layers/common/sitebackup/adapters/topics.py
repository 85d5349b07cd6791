"""Which Kafka topic an event goes to, and under which key."""

from ..domain.events import PartUpdated, TaskEvent, TaskUpdated, UploadJobCreated, UploadPartCreated

TOPICS: dict[type[TaskEvent], str] = {
    UploadJobCreated: "upload-job-created",
    UploadPartCreated: "upload-part-created",
    PartUpdated: "part-updated",
    TaskUpdated: "task-updated",
}


def topic_of(event: TaskEvent) -> str:
    """The topic of the event's kind."""
    return TOPICS[type(event)]


def key_of(event: TaskEvent) -> str:
    """Records of one key stay in order.

    The parts of a task spread over all partitions. All of a job's endings go to one, so that one worker settles it.
    """
    match event:
        case UploadPartCreated():
            return f"{event.task.task_id}/{event.number}"
        case TaskUpdated():
            return event.task.job_id
        case _:
            return event.task.task_id
