"""What travels over Kafka. State is in MongoDB; an event says only where to look."""

from typing import Annotated, Any, ClassVar

import msgspec

from .model import Id, Model, ProviderName
from .plan import MAX_PARTS

Attempt = Annotated[int, msgspec.Meta(ge=1)]
Try = Annotated[int, msgspec.Meta(ge=0, le=1000)]
UploadId = Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]
CORRELATION = ("jobId", "taskId", "attempt")
PartNumber = Annotated[int, msgspec.Meta(ge=1, le=MAX_PARTS)]


class TaskEvent(Model, frozen=True, kw_only=True):
    """Any event: it belongs to one task of one attempt."""

    topic: ClassVar[str]
    job_id: Id
    attempt: Attempt
    provider: ProviderName

    def follow[E: TaskEvent](self, kind: type[E], **fields: Any) -> E:
        """The event of that kind which follows from this one: about the same task, in the same attempt."""
        return kind(job_id=self.job_id, attempt=self.attempt, provider=self.provider, **fields)

    @property
    def task_id(self) -> str:
        """Names the task across jobs."""
        return f"{self.job_id}/{self.provider}"

    @property
    def correlation(self) -> dict[str, str]:
        """What the record's headers carry: by it the records, logs and metrics of a backup are found."""
        return dict(zip(CORRELATION, (self.job_id, self.task_id, str(self.attempt)), strict=True))

    @property
    def key(self) -> str:
        """Records of one key stay in order."""
        return self.task_id


class UploadJobCreated(TaskEvent, frozen=True, kw_only=True):
    """A provider's export is to be moved. `tried` counts re-drives: 0 is the first emission."""

    topic = "upload-job-created"
    tried: Try = 0


class UploadPartCreated(TaskEvent, frozen=True, kw_only=True):
    """A part is to be moved."""

    topic = "upload-part-created"
    upload_id: UploadId
    number: PartNumber
    tried: Try = 0

    @property
    def key(self) -> str:
        """Spreads the parts of a task over all partitions."""
        return f"{self.task_id}/{self.number}"


class PartUpdated(TaskEvent, frozen=True, kw_only=True):
    """A part of this upload is done, or the size of its stream is known. `tried` as for the other events."""

    topic = "part-updated"
    upload_id: UploadId
    tried: Try = 0


class TaskUpdated(TaskEvent, frozen=True, kw_only=True):
    """A task reached a final status."""

    topic = "task-updated"

    @property
    def key(self) -> str:
        """The job is settled in one place."""
        return self.job_id
