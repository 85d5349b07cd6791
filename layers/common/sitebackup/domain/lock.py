"""What keeps the versions of a backup from being removed by anybody: S3 Object Lock.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-lock.html
"""

from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from .model import Model


class LockMode(StrEnum):
    """Who may shorten a lock: with `governance` those who have the right to bypass it, with `compliance` nobody."""

    OFF = "off"
    GOVERNANCE = "governance"
    COMPLIANCE = "compliance"


class Lock(Model, frozen=True, kw_only=True):
    """How a backup is locked, in a mode that is not off.

    It is fixed when the job is sealed (I16); each verified version and the manifest get it before the job is done.
    """

    mode: LockMode
    until: datetime


class LegalHold(Model, frozen=True, kw_only=True):
    """Keeps the data until somebody releases it. What was asked for is stored first, S3 is told next."""

    on: bool
    settled: bool = False
    """Whether S3 has been told for every version."""


class HeldVersion(NamedTuple):
    """How long S3 refuses to remove a version."""

    until: datetime | None
    """None: it is not locked."""
    legal_hold: bool

    def is_locked_until(self, time: datetime) -> bool:
        """Until then, or longer."""
        return self.until is not None and self.until >= time
