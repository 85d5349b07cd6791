"""When a site is backed up by itself. Cron and DST are cronsim's business; spreading and catching up are ours."""

import hashlib
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib import resources
from itertools import dropwhile, islice, pairwise
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from .model import Id, Model, ProviderName, to_milliseconds

NAMED = {"daily": "0 0 * * *", "weekly": "0 0 * * 0"}
CRON_FORM = "daily, weekly, or five fields: minute hour day month weekday"
_STEPS = {"minute": 59, "hour": 23, "day": 31, "month": 12, "weekday": 7}
"""The largest step of each field."""
_PREVIEWED = 5
"""How many runs a preview announces."""
_MINUTE = timedelta(minutes=1)
_DAY_MINUTES = 24 * 60


class ScheduleError(ValueError):
    """The schedule makes no sense; the message starts with the field."""


class Schedule(Model, frozen=True, kw_only=True):
    """The automatic backup of a user's site: one document."""

    site_id: Id
    user_id: Id
    cron: str
    time_zone: str = "UTC"
    expires_after_days: int
    providers: list[ProviderName] | None = None
    paused: bool = False
    slot: str | None = None
    """Of its user's schedules, if their number is limited."""
    version: int
    created_at: datetime
    updated_at: datetime
    next_tick: datetime | None = None
    """The tick of the expression that comes next; None while paused, or if there is none."""
    next_run_at: datetime | None = None
    """The tick plus the site's jitter: when it is due. What the index is on."""
    last_tick: datetime | None = None
    last_job_id: Id | None = None
    last_error: str | None = None
    """Why the last tick made no backup."""

    @property
    def id(self) -> str:
        """48 hex digits: schedules are in the order of users, and of sites."""
        return schedule_id(self.user_id, self.site_id)


def schedule_id(user_id: str, site_id: str) -> str:
    """Of the schedule that a user has for a site."""
    return user_id + site_id


def check(cron: str, time_zone: str, now: datetime, min_interval: timedelta = _MINUTE) -> None:
    """Raises ScheduleError if the expression or the zone is unknown, or if its ticks never come or too often."""
    if next(ticks(cron, time_zone, now), None) is None:
        raise ScheduleError("cron: there is no such time")
    apart = shortest_interval(cron)
    if apart < min_interval:
        least, minutes = (f"{span // _MINUTE} minutes" for span in (min_interval, apart))
        raise ScheduleError(
            f"cron: backups must be at least {least} apart; two of these are only {minutes} apart"
        )


def shortest_interval(cron: str) -> timedelta:
    """Between two ticks by the clock on the wall, as if all of them came every day. Raises ScheduleError."""
    simulated = _simulate(cron, datetime(2000, 1, 1, tzinfo=UTC))
    times = sorted(hour * 60 + minute for hour in simulated.hours for minute in simulated.minutes)
    return min(after - before for before, after in pairwise([*times, times[0] + _DAY_MINUTES])) * _MINUTE


@cache
def time_zones() -> frozenset[str]:
    """The names that IANA lists.

    What a machine keeps beside them is left out (`localtime`, `posixrules`, `right/UTC`), and so is `Factory`, which
    stands for a zone that nobody has set.
    """
    return frozenset((resources.files("tzdata") / "zones").read_text().split()) - {"Factory"}


def ticks(cron: str, time_zone: str, after: datetime) -> Iterator[datetime]:
    """The ticks after a moment, in UTC.

    As with Debian's cron, a tick that a clock change skips comes right after the gap, and one that it repeats comes
    once; only an expression for every hour follows the real hours. Raises ScheduleError.
    """
    if time_zone not in time_zones():
        raise ScheduleError(f"timeZone: no IANA time zone {time_zone!r}")
    simulated = _simulate(cron, after.astimezone(ZoneInfo(time_zone)))
    upcoming = map(to_milliseconds, simulated)
    # Within an hour that is repeated, cronsim also answers the ticks of the hour before.
    return dropwhile(lambda tick: tick <= after, upcoming)


def _simulate(cron: str, after: datetime) -> CronSim:
    try:
        return CronSim(_by_the_clock(NAMED.get(cron, cron)), after)
    except CronSimError as error:
        raise ScheduleError(f"cron: the {str(error).removeprefix('Bad ')} is not valid") from error


def _by_the_clock(cron: str) -> str:
    """The same expression, so written that cronsim goes by the clock on the wall unless the hour is `*`.

    It takes any star, also in `*/2`, to mean real hours: then a tick that a clock change skips never comes.
    """
    fields = cron.split()
    if len(fields) != 5 or not cron.isascii():  # its letters are read in capitals, and that of a long s is S
        raise ScheduleError(f"cron: must be {CRON_FORM}")
    for (name, most), field in zip(_STEPS.items(), fields, strict=True):
        if any(int(step) > most for step in re.findall(r"/(\d+)", field)):
            raise ScheduleError(f"cron: the step of the {name} can be {most} at most")
    minute, hour, *rest = fields
    if hour != "*":
        minute, hour = minute.replace("*", "0-59"), hour.replace("*", "0-23")
    return " ".join([minute, hour, *rest])


def jitter(site_id: str, gap: timedelta, window: timedelta) -> timedelta:
    """How long after its ticks a site runs: always the same part of the window, and less than half the gap."""
    digest = hashlib.sha256(site_id.encode()).digest()
    fraction = int.from_bytes(digest[:8]) / 2**64
    return timedelta(seconds=int(fraction * min(window, gap / 2).total_seconds()))


def runs(schedule: Schedule, after: datetime, window: timedelta) -> Iterator[tuple[datetime, datetime]]:
    """(tick, tick with jitter) of the ticks after a moment, without end."""
    for tick, following in pairwise(ticks(schedule.cron, schedule.time_zone, after)):
        yield tick, tick + jitter(schedule.site_id, following - tick, window)


def preview(schedule: Schedule, now: datetime, window: timedelta) -> list[datetime]:
    """When the next backups will start."""
    if schedule.paused:
        return []
    first = [schedule.next_run_at] if schedule.next_run_at else []
    after = schedule.next_tick or now
    coming = islice(runs(schedule, after, window), _PREVIEWED - len(first))
    return [*first, *(run_at for _, run_at in coming)]


def arm(schedule: Schedule, now: datetime, window: timedelta) -> Schedule:
    """The first run after `now` is the one to come: whatever was missed before is caught up once at most.

    The tick of that run may be past already, by up to the window; the tick that ran last never comes again.
    Raises ScheduleError.
    """
    if schedule.paused:
        return schedule.replace(next_tick=None, next_run_at=None, updated_at=now)
    after = max(now - window, schedule.last_tick or now - window)
    coming = ((tick, run_at) for tick, run_at in runs(schedule, after, window) if run_at > now)
    tick, run_at = next(coming, (None, None))
    return schedule.replace(next_tick=tick, next_run_at=run_at, updated_at=now)


def tick_key(schedule: Schedule) -> str:
    """The idempotency key of the backup of this tick: however often it is started, there is one job."""
    tick = schedule.next_tick
    if tick is None:
        raise ValueError("a schedule that is not armed has no tick")
    return f"schedule:{schedule.user_id}:{schedule.site_id}:{tick.isoformat()}"
