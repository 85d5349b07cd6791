"""Starts the backups that are due: one job per tick, however many runs of this there are."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from aws_lambda_powertools.metrics import MetricUnit

from ..backup.create_job import CreateBackup, CreateJob
from ..domain.errors import ActiveJob, Conflict, RequestError, Unavailable
from ..domain.principal import OWN_WORK
from ..domain.quota import OverQuota
from ..domain.schedule import Schedule, ScheduleError, arm, runs, tick_key
from ..ports.repositories import ScheduleRepository
from ..telemetry import count, logger

PAGE = 100
MISSED_AFTER = timedelta(minutes=15)
"""A backup that starts later than this after its time counts as missed and caught up."""


PUT_OFF = timedelta(minutes=15)
"""After an unexpected error, or over quota, the same tick is tried again. Until then it holds up no other."""


@dataclass(frozen=True)
class RunSchedule:
    """One pass. The job comes first, under the tick's key; only then the schedule moves on to its next tick."""

    schedules: ScheduleRepository
    create_job: CreateJob
    window: timedelta
    now: Callable[[], datetime]

    def __call__(self, deadline: datetime) -> int:
        """How many schedules were moved on before nothing was due or the time was up."""
        moved = 0
        while self.now() < deadline:
            due = self.schedules.due(self.now(), PAGE)
            moved_on = [schedule for schedule in due if self.now() < deadline and self._move_on(schedule)]
            moved += len(moved_on)
            if not moved_on:
                break
        count("SchedulesDue", moved)
        return moved

    def _move_on(self, schedule: Schedule) -> bool:
        """As `_run`. An error that nobody foresaw concerns its own schedule and no other one."""
        try:
            return self._run(schedule)
        except Unavailable:
            raise
        except Exception as error:  # noqa: BLE001 - told in full, and tried again later
            logger.exception("unexpected error", extra={"siteId": schedule.site_id})
            count("SchedulesSkipped")
            return self._put_off(schedule, f"Not started yet: an unexpected error ({type(error).__name__}).")

    def _put_off(self, schedule: Schedule, last_error: str) -> bool:
        """The tick waits."""
        now = self.now()
        later = schedule.replace(next_run_at=now + PUT_OFF, last_error=last_error, updated_at=now)
        return self.schedules.replace(schedule, later)

    def _run(self, schedule: Schedule) -> bool:
        """Whether this run, and no other, moved the schedule on."""
        now = self.now()
        job_id, last_error = schedule.last_job_id, None
        try:
            request = CreateBackup(
                user_id=schedule.user_id,
                site_id=schedule.site_id,
                providers=schedule.providers,
                expires_after_days=schedule.expires_after_days,
            )
            whoever_sees_it = OWN_WORK.narrowed(schedule.user_id, schedule.site_id)
            job_id = self.create_job.once(whoever_sees_it, request, tick_key(schedule)).id
        except ActiveJob as error:
            last_error = f"Skipped: {error}"
        except OverQuota as error:
            return self._put_off(schedule, f"Waits: {error}")
        except RequestError as error:
            last_error = f"Not started: {error}"
        except Conflict:
            return False
        ran = schedule.replace(last_tick=schedule.next_tick, last_job_id=job_id, last_error=last_error)
        try:
            after = arm(ran, now, self.window)
        except ScheduleError as error:
            # It was checked when it was set, so the time zone must be gone. It must not stop the others.
            last_error = f"Stopped until it is set again: {error}"
            after = ran.replace(next_tick=None, next_run_at=None, last_error=last_error, updated_at=now)
        if not self.schedules.replace(schedule, after):
            return False
        if after.next_run_at:
            self._report_lag(schedule, now)
        if last_error:
            count("SchedulesSkipped")
            logger.warning("no backup", extra={"siteId": schedule.site_id, "error": last_error})
        return True

    def _report_lag(self, schedule: Schedule, now: datetime) -> None:
        due_at = schedule.next_run_at or now
        count("ScheduleLag", (now - due_at).total_seconds(), MetricUnit.Seconds)
        if now - due_at > MISSED_AFTER:
            count("SchedulesMissed", self._missed(schedule, now))

    def _missed(self, schedule: Schedule, now: datetime) -> int:
        """Ticks whose time went by; this one is the only one that is caught up."""
        missed = 1
        for _, run_at in runs(schedule, schedule.next_tick or now, self.window):
            if run_at > now or missed == 1000:
                break
            missed += 1
        return missed
