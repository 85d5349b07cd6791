"""A drill opens a stored backup completely, to prove that it could be restored: how far it is, and what it found."""

from datetime import datetime
from enum import StrEnum

from .checksum import CRC_OF_NOTHING
from .model import Model


class DrillState(StrEnum):
    """What a drill found."""

    OK = "ok"
    """All bytes are those that were stored, and every member of the zip was opened."""
    DAMAGED = "damaged"
    """Two reads found that it can't be opened, or has other bytes."""
    UNREAD = "unread"
    """Some or all of it could not be judged; the message says why."""


class Drill(Model, frozen=True, kw_only=True):
    """The result of the last drill of a task."""

    state: DrillState
    at: datetime
    members: int = 0
    """So many of the zip were opened, each against its CRC-32."""
    member: str | None = None
    """The first one that is damaged, or could not be opened."""
    message: str | None = None
    compared: bool = False
    """All bytes were read, and have the checksum of the backup."""
    of_newest: bool = False
    """When it was asked for, this was the newest good backup of its provider."""

    @property
    def is_proof(self) -> bool:
        """Whether it says of a site that its newest backup was opened, as far as it can be."""
        return self.compared and self.of_newest and self.state is not DrillState.DAMAGED


class Place(Model, frozen=True, kw_only=True):
    """How far an object was read, so that the next invocation goes on there."""

    offset: int = 0
    crc64nvme: str = CRC_OF_NOTHING
    """Of all bytes before."""
    entry: int = 0
    """So many members were passed, of which `unread` could not be opened."""
    directory_at: int = 0
    """Bytes of the directory that tell of them."""
    unread: int = 0
    unread_member: str | None = None
    """The first of them."""
    unread_because: str | None = None


class Drilling(Model, frozen=True, kw_only=True):
    """A drill that is under way."""

    place: Place = Place()
    of_newest: bool = False
    suspicion: str | None = None
    """What the first read found: only a second one that finds damage as well makes the backup damaged."""
    tries: int = 0
    """Begun without progress since."""
    checks: int = 0
    """So often the sweep has sent it again without progress; each pause is longer."""
    owner: str | None = None
    """The invocation that is at it."""
    leased_until: datetime | None = None
    last_error: str | None = None
    next_check_at: datetime
    """When the sweep sends it again."""
