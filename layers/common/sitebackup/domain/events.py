"""What travels over Kafka. State is in MongoDB; an event says only where to look."""

from typing import Annotated

import msgspec

from .model import Model
from .plan import MAX_PARTS
from .task_ref import RestoreTaskRef, TaskRef

Redelivery = Annotated[int, msgspec.Meta(ge=0, le=1000)]
"""How often the sweep has sent this work again; 0 is the first emission."""
UploadId = Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]
PartNumber = Annotated[int, msgspec.Meta(ge=1, le=MAX_PARTS)]


class TaskEvent(Model, frozen=True, kw_only=True):
    """Any event belongs to one task of one attempt."""

    task: TaskRef


class UploadJobCreated(TaskEvent, frozen=True, kw_only=True):
    """A provider's export is to be moved."""

    redelivery: Redelivery = 0


class UploadPartCreated(TaskEvent, frozen=True, kw_only=True):
    """A part is to be moved."""

    upload_id: UploadId
    number: PartNumber
    redelivery: Redelivery = 0


class PartUpdated(TaskEvent, frozen=True, kw_only=True):
    """A part of this upload is done, or the size of its stream is known."""

    upload_id: UploadId
    redelivery: Redelivery = 0


class TaskUpdated(TaskEvent, frozen=True, kw_only=True):
    """A task reached a final status, or all tasks of its job are done."""


class DrillCreated(TaskEvent, frozen=True, kw_only=True):
    """A stored object is to be opened, or its drill to go on."""


class RestoreTaskCreated(Model, frozen=True, kw_only=True):
    """A provider's object is to be given back, or what its restore waited for has ended."""

    task: RestoreTaskRef
    redelivery: Redelivery = 0


type Event = TaskEvent | RestoreTaskCreated
