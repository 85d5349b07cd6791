"""A site's automatic backup: set, read, pause, resume, delete."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated

import msgspec

from ..backup.create_job import Days, check_providers
from ..backup.quotas import MAX_COLLISIONS, Quotas
from ..domain.errors import BadRequest, Conflict, NotFound
from ..domain.model import Id, Model, ProviderNames
from ..domain.principal import Access
from ..domain.schedule import CRON_FORM, Schedule, ScheduleError, arm, check, preview
from ..ports.repositories import ScheduleRepository


class PutSchedule(Model, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of `PUT /sites/{siteId}/schedule`. An error about a field quotes its description."""

    user_id: Id
    cron: Annotated[str, msgspec.Meta(min_length=1, max_length=100, description=CRON_FORM)] = "daily"
    time_zone: Annotated[
        str, msgspec.Meta(min_length=1, max_length=64, description="the name of an IANA time zone")
    ] = "UTC"
    expires_after_days: Days = 60
    providers: ProviderNames | None = None
    paused: Annotated[bool, msgspec.Meta(description="true or false")] = False


@dataclass(frozen=True)
class ManageSchedule:
    """Each call raises RepositoryUnavailable, or Conflict if others change the same schedule."""

    schedules: ScheduleRepository
    quotas: Quotas
    providers: Collection[str]
    window: timedelta
    min_interval: timedelta
    """Backups of a schedule are at least so far apart; one that is set already stays as it is."""
    now: Callable[[], datetime]

    def put(self, access: Access, site_id: str, request: PutSchedule) -> Schedule:
        """Creates or replaces it; the next run is counted from now.

        Raises NotYourUser, NotFound, BadRequest, or OverQuota for one too many.
        """
        access.check(request.user_id, site_id)
        now = self.now()
        try:
            check(request.cron, request.time_zone, now, self.min_interval)
        except ScheduleError as error:
            raise BadRequest(str(error)) from error
        if request.providers:
            check_providers(request.providers, self.providers)
        seen = self.schedules.get_for(access, request.user_id, site_id)
        schedule = Schedule(
            site_id=site_id,
            user_id=request.user_id,
            cron=request.cron,
            time_zone=request.time_zone,
            expires_after_days=request.expires_after_days,
            providers=request.providers,
            paused=request.paused,
            version=seen.version if seen else 1,
            created_at=seen.created_at if seen else now,
            updated_at=now,
            last_tick=seen.last_tick if seen else None,
            last_job_id=seen.last_job_id if seen else None,
            slot=seen.slot if seen else None,
        )
        schedule = arm(schedule, now, self.window)
        return self._store(seen, schedule) if seen else self._add(access, schedule)

    def _add(self, access: Access, schedule: Schedule) -> Schedule:
        """A new one, in a slot of its user."""
        for _ in range(MAX_COLLISIONS):
            slot = self.quotas.schedule_slot(schedule.user_id, schedule.site_id)
            try:
                self.schedules.add(schedule.replace(slot=slot))
            except Conflict:
                if slot is None or self.schedules.get_for(access, schedule.user_id, schedule.site_id):
                    raise
            else:
                return schedule.replace(slot=slot)
        raise Conflict("others kept taking the slots that were free")

    def get(self, access: Access, user_id: str | None, site_id: str) -> Schedule:
        """Raises NotYourUser, NotFound, or BadRequest if a service names no user."""
        schedule = self.schedules.get_for(access, access.one_user(user_id), site_id)
        if schedule is None:
            raise NotFound(f"Site {site_id} has no schedule.")
        return schedule

    def page(
        self, access: Access, user_id: str | None, limit: int, past: str | None
    ) -> tuple[list[Schedule], str | None]:
        """Schedules by user and site, and the cursor of the next page. Raises NotYourUser."""
        found = self.schedules.page_for(access, access.any_user(user_id), limit + 1, past)
        return found[:limit], found[limit - 1].id if len(found) > limit else None

    def delete(self, access: Access, user_id: str | None, site_id: str) -> None:
        """Raises as `get` does."""
        if not self.schedules.delete_for(access, access.one_user(user_id), site_id):
            raise NotFound(f"Site {site_id} has no schedule.")

    def pause(self, access: Access, user_id: str | None, site_id: str, paused: bool) -> Schedule:
        """Pauses it, or resumes it from now on. Raises as `get` does."""
        seen = self.get(access, user_id, site_id)
        if seen.paused == paused:
            return seen
        return self._store(seen, arm(seen.replace(paused=paused), self.now(), self.window))

    def next_runs(self, schedule: Schedule) -> list[datetime]:
        """A preview; empty if it is paused or was stopped."""
        try:
            return preview(schedule, self.now(), self.window)
        except ScheduleError:
            return []

    def _store(self, seen: Schedule, schedule: Schedule) -> Schedule:
        if not self.schedules.replace(seen, schedule):
            raise Conflict("the schedule was just changed")
        return schedule
