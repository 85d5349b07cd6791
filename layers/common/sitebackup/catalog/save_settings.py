"""Saves what lives in MongoDB alone and can't be told from the backups: the schedules, once a day."""

from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec

from ..domain.errors import ObjectExists
from ..domain.principal import OWN_WORK
from ..ports.repositories import ScheduleRepository
from ..ports.runtime import Clock
from ..ports.storage import ObjectStorage
from ..telemetry import count
from .saved_schedules import Page, last_saved, mark_key, name_of, page_key

PAGE = 1000
"""Schedules of a page: some 400 KB."""


@dataclass(frozen=True)
class SaveSettings:
    """One pass over the schedules of which today's copy has none yet. The copy of a day is made once."""

    schedules: ScheduleRepository
    storage: ObjectStorage
    clock: Clock
    day_seconds: int

    def __call__(self, deadline: datetime) -> int:
        """How many were saved before all were, or the time was up: the next pass goes on.

        Raises RepositoryUnavailable, Transient or Permanent.
        """
        now = self.clock.now()
        begun = now.timestamp() // self.day_seconds * self.day_seconds
        name = name_of(datetime.fromtimestamp(begun, UTC))
        if self.storage.head(mark_key(name)):
            return 0
        past, saved = last_saved(self.storage, name), 0
        while self.clock.now() < deadline:
            page = Page(schedules=self.schedules.page_for(OWN_WORK, None, PAGE, past))
            if page.schedules:
                self._put(page_key(name, page), msgspec.json.encode(page), deadline)
                past = page.schedules[-1].id
                saved += len(page.schedules)
            if len(page.schedules) < PAGE:
                self._put(mark_key(name), b"{}", deadline)
                break
        count("SchedulesSaved", saved)
        return saved

    def _put(self, key: str, data: bytes, deadline: datetime) -> None:
        """A page that is there already was saved by another pass."""
        try:
            self.storage.put_once(key, data, self.clock.left_until(deadline))
        except ObjectExists:
            return
