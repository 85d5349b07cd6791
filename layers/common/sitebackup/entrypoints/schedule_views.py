"""Schedules as the API shows them."""

from datetime import datetime
from typing import Annotated

import msgspec

from ..domain.model import Id, Model, ProviderName
from ..domain.schedule import Schedule
from .views import Time, time_text

ScheduleId = Annotated[
    str, msgspec.Meta(pattern=r"^[0-9a-f]{48}\Z", description="48 hex digits in lower case")
]


class ScheduleView(Model, frozen=True, kw_only=True):
    """A site's automatic backup, with a preview of the next runs."""

    site_id: Id
    user_id: Id
    cron: str
    time_zone: str
    expires_after_days: int
    providers: list[ProviderName] | None = None
    paused: bool
    next_runs: list[Time]
    last_tick: Time | None = None
    last_job_id: Id | None = None
    last_error: str | None = None
    created_at: Time
    updated_at: Time


class SchedulesView(Model, frozen=True, kw_only=True):
    """A page of schedules, by user and site; `cursor` leads to the next one."""

    schedules: list[ScheduleView]
    cursor: ScheduleId | None = None


def schedule_view(schedule: Schedule, next_runs: list[datetime]) -> ScheduleView:
    """With a preview of the next runs."""
    return ScheduleView(
        site_id=schedule.site_id,
        user_id=schedule.user_id,
        cron=schedule.cron,
        time_zone=schedule.time_zone,
        expires_after_days=schedule.expires_after_days,
        providers=schedule.providers,
        paused=schedule.paused,
        next_runs=[time_text(run) for run in next_runs],
        last_tick=time_text(schedule.last_tick),
        last_job_id=schedule.last_job_id,
        last_error=schedule.last_error,
        created_at=time_text(schedule.created_at),
        updated_at=time_text(schedule.updated_at),
    )
