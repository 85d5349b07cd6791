"""Starts the backups that are due: one job per tick, however many runs of this there are."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from aws_lambda_powertools.metrics import MetricUnit

from ..adapters.schedules import Schedules
from ..domain.errors import Conflict
from ..domain.schedule import Schedule, arm, runs, tick_key
from ..errors import ActiveJob, RequestError
from ..telemetry import count, logger
from .create_job import CreateBackup, CreateJob

PAGE = 100
MISSED_AFTER = timedelta(minutes=15)
"""A backup that starts later than this after its time counts as missed and caught up."""


@dataclass(frozen=True)
class RunSchedule:
    """One pass. The job comes first, under the tick's key; only then the schedule moves on to its next tick."""

    schedules: Schedules
    create_job: CreateJob
    window: timedelta
    now: Callable[[], datetime]

    def __call__(self, deadline: datetime) -> int:
        """How many schedules were moved on before nothing was due or the time was up."""
        moved = 0
        while self.now() < deadline:
            due = self.schedules.due(self.now(), PAGE)
            moved_on = [schedule for schedule in due if self.now() < deadline and self._run(schedule)]
            moved += len(moved_on)
            if not moved_on:
                break
        count("SchedulesDue", moved)
        return moved

    def _run(self, schedule: Schedule) -> bool:
        """Whether this run, and no other, moved the schedule on."""
        now = self.now()
        job_id, trouble = schedule.last_job_id, None
        try:
            request = CreateBackup(
                user_id=schedule.user_id,
                site_id=schedule.site_id,
                providers=schedule.providers,
                expires_after_days=schedule.expires_after_days,
            )
            job_id = self.create_job.once(request, tick_key(schedule)).id
        except ActiveJob as error:
            trouble = f"Skipped: {error}"
        except RequestError as error:
            trouble = f"Not started: {error}"
        except Conflict:
            return False
        moved = self.schedules.replace(
            schedule,
            arm(schedule, now, self.window).replace(
                last_tick=schedule.next_tick, last_job_id=job_id, last_error=trouble
            ),
        )
        if moved:
            self._report(schedule, trouble, now)
        return moved

    def _report(self, schedule: Schedule, trouble: str | None, now: datetime) -> None:
        due_at = schedule.next_run_at or now
        count("ScheduleLag", (now - due_at).total_seconds(), MetricUnit.Seconds)
        if now - due_at > MISSED_AFTER:
            count("SchedulesMissed", self._missed(schedule, now))
        if trouble:
            count("SchedulesSkipped")
            logger.warning("no backup", extra={"siteId": schedule.site_id, "error": trouble})

    def _missed(self, schedule: Schedule, now: datetime) -> int:
        """Ticks whose time went by; this one is the only one that is caught up."""
        count = 1
        for _, run_at in runs(schedule, schedule.next_tick or now, self.window):
            if run_at > now or count == 1000:
                break
            count += 1
        return count
