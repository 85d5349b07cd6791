"""Saves what lives in MongoDB alone and can't be told from the backups: schedules and limits, once a day."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec

from ..domain.errors import ObjectExists
from ..domain.model import Model
from ..domain.principal import OWN_WORK
from ..ports.repositories import QuotaRepository, ScheduleRepository
from ..ports.runtime import Clock
from ..ports.storage import ObjectStorage
from ..telemetry import count
from .saved_settings import (
    LIMITS,
    SCHEDULES,
    LimitsPage,
    SchedulesPage,
    last_saved,
    mark_key,
    name_of,
    page_key,
)

PAGE = 1000
"""Schedules or users of a page: some 400 KB."""

type Read = Callable[[str | None], tuple[Model, list[str]]]
"""The next page past an id, and the ids of what is in it."""


@dataclass(frozen=True)
class SaveSettings:
    """One pass over what today's copy has not yet. The copy of a day is made once."""

    schedules: ScheduleRepository
    quotas: QuotaRepository
    storage: ObjectStorage
    clock: Clock
    day_seconds: int

    def __call__(self, deadline: datetime) -> int:
        """How many schedules and users were saved before all were, or the time was up: the next pass goes on.

        Raises RepositoryUnavailable, Transient or Permanent.
        """
        now = self.clock.now()
        begun = now.timestamp() // self.day_seconds * self.day_seconds
        name = name_of(datetime.fromtimestamp(begun, UTC))
        if self.storage.head(mark_key(name)):
            return 0
        schedules, all_schedules = self._save(SCHEDULES, name, self._schedules, deadline)
        limits, all_limits = self._save(LIMITS, name, self._limits, deadline)
        if all_schedules and all_limits:
            self._put(mark_key(name), b"{}", deadline)
        count("SchedulesSaved", schedules)
        return schedules + limits

    def _schedules(self, past: str | None) -> tuple[SchedulesPage, list[str]]:
        found = self.schedules.page_for(OWN_WORK, None, PAGE, past)
        return SchedulesPage(schedules=found), [one.id for one in found]

    def _limits(self, past: str | None) -> tuple[LimitsPage, list[str]]:
        found = self.quotas.page_of_limits(PAGE, past)
        return LimitsPage(limits=found), [one.user_id for one in found]

    def _save(self, folder: str, name: str, read: Read, deadline: datetime) -> tuple[int, bool]:
        """How many were saved, and whether these were all."""
        past, saved = last_saved(self.storage, folder, name), 0
        while self.clock.now() < deadline:
            page, ids = read(past)
            if ids:
                past = ids[-1]
                self._put(page_key(folder, name, past), msgspec.json.encode(page), deadline)
                saved += len(ids)
            if len(ids) < PAGE:
                return saved, True
        return saved, False

    def _put(self, key: str, data: bytes, deadline: datetime) -> None:
        """A page that is there already was saved by another pass."""
        try:
            self.storage.put_once(key, data, self.clock.left_until(deadline))
        except ObjectExists:
            return
