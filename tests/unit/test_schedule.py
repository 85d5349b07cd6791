"""When schedules run: a year of ticks in zones that change their clocks, spreading, and catching up."""

import hashlib
from collections import Counter
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from itertools import islice, pairwise, takewhile
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sitebackup.domain.schedule import (
    Schedule,
    ScheduleError,
    arm,
    check,
    jitter,
    preview,
    runs,
    shortest_interval,
    tick_key,
    ticks,
    time_zones,
)

HOUR = timedelta(hours=1)
HALF = timedelta(minutes=30)
MINUTE = timedelta(minutes=1)
YEARS = {
    "Europe/Berlin": 2026,
    "America/New_York": 2026,
    "Australia/Lord_Howe": 2026,  # by half an hour
    "Africa/Cairo": 2026,  # at midnight, and back into the day before
    "Pacific/Auckland": 2026,
    "America/Sao_Paulo": 2018,  # at midnight; the last year that it changed
}
ZONES = sorted(YEARS)
CRONS = [
    "daily",
    "weekly",
    "30 2 * * *",
    "0 */2 * * *",
    "*/30 2 * * *",
    "15 1,2,3 * * *",
    "0 * * * *",
    "*/10 * * * *",
    "0 3 1,15 * *",
    "0 2 * * SUN#1",
]


def site(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()[:24]


def a_schedule(cron: str = "daily", zone: str = "UTC", number: int = 1) -> Schedule:
    moment = datetime(2020, 1, 1, tzinfo=UTC)
    return Schedule(
        site_id=site(number),
        user_id="1" * 24,
        cron=cron,
        time_zone=zone,
        expires_after_days=60,
        version=1,
        created_at=moment,
        updated_at=moment,
    )


@cache
def half_hours(zone: str) -> list[tuple[datetime, datetime]]:
    """Every half hour of the zone's year and a bit of its neighbours: (UTC, what the clock on the wall says)."""
    start = datetime(YEARS[zone], 1, 1, tzinfo=UTC) - timedelta(days=2)
    info = ZoneInfo(zone)
    moments = (start + HALF * number for number in range(370 * 48))
    return [(moment, moment.astimezone(info).replace(tzinfo=None)) for moment in moments]


def changes(zone: str) -> list[datetime]:
    """When the zone changes its clocks."""
    pairs = half_hours(zone)
    return [after for (_, old), (after, new) in pairwise(pairs) if new - old != HALF]


@cache
def expected(zone: str, at: time) -> list[datetime]:
    """By brute force: each local day's first moment at which the clock on the wall has reached `at`."""
    first: dict[date, datetime] = {}
    for moment, local in half_hours(zone):
        if local.time() >= at:
            first.setdefault(local.date(), moment)
    return [moment for day, moment in first.items() if day.year == YEARS[zone]]


TIMES = [time(0, 0), time(0, 30), time(1, 30), time(2, 0), time(2, 30), time(3, 0), time(23, 0), time(23, 30)]


@pytest.mark.parametrize("zone", ZONES)
def test_the_zone_changes_its_clocks_twice_in_that_year(zone: str) -> None:
    assert len(changes(zone)) == 2


@pytest.mark.parametrize("at", TIMES, ids=str)
@pytest.mark.parametrize("zone", ZONES)
def test_one_tick_a_local_day_right_after_a_gap_and_once_where_the_clock_repeats(zone: str, at: time) -> None:
    wanted = expected(zone, at)
    cron = f"{at.minute} {at.hour} * * *"
    got = list(
        takewhile(lambda tick: tick <= wanted[-1], ticks(cron, zone, wanted[0] - timedelta(seconds=1)))
    )
    assert got == wanted
    assert len(got) == 365


@pytest.mark.parametrize("at", TIMES, ids=str)
@pytest.mark.parametrize("zone", ZONES)
def test_wherever_counting_starts_the_next_tick_is_the_same(zone: str, at: time) -> None:
    """Also within the hour that is repeated, where local time alone says too little."""
    cron = f"{at.minute} {at.hour} * * *"
    for change in changes(zone):
        for minutes in range(-180, 181, 7):
            for odd in (timedelta(), timedelta(seconds=59, milliseconds=500)):
                after = change + minutes * MINUTE + odd
                wanted = next(tick for tick in expected(zone, at) if tick > after)
                assert next(ticks(cron, zone, after)) == wanted, after


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize(("cron", "weekday"), [("weekly", 6), ("0 0 * * MON", 0), ("0 0 * * 5", 4)])
def test_one_tick_a_week(zone: str, cron: str, weekday: int) -> None:
    midnights = expected(zone, time())
    wanted = [tick for tick in midnights if tick.astimezone(ZoneInfo(zone)).weekday() == weekday]
    got = list(takewhile(lambda tick: tick <= midnights[-1], ticks(cron, zone, midnights[0] - MINUTE)))
    assert got == wanted


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize(
    ("cron", "steps"),
    [
        ("0 */2 * * *", [time(hour) for hour in range(0, 24, 2)]),
        ("*/30 2 * * *", [time(2), time(2, 30)]),
        ("* 2 * * *", [time(2), time(2, 30)]),
        ("0,30 2-3 * * *", [time(2), time(2, 30), time(3), time(3, 30)]),
    ],
)
def test_steps_and_stars_go_by_the_clock_too(zone: str, cron: str, steps: list[time]) -> None:
    wanted = sorted({tick for at in steps for tick in expected(zone, at)})
    got = list(takewhile(lambda tick: tick <= wanted[-1], ticks(cron, zone, wanted[0] - MINUTE)))
    assert [tick for tick in got if tick.minute in (0, 30)] == wanted


@pytest.mark.parametrize("zone", ZONES)
def test_every_hour_means_real_hours(zone: str) -> None:
    for change in changes(zone):
        around = list(takewhile(lambda t: t < change + 5 * HOUR, ticks("0 * * * *", zone, change - 5 * HOUR)))  # noqa: B023
        gaps = [after - before for before, after in pairwise(around)]
        odd = [gap for gap in gaps if gap != HOUR]
        assert odd in ([], [HOUR + HALF], [HALF]), "only a change by half an hour moves the full hours"


def test_cron_is_case_blind_and_daily_is_midnight() -> None:
    now = datetime(2026, 5, 5, 5, tzinfo=UTC)
    assert next(ticks("daily", "UTC", now)) == datetime(2026, 5, 6, tzinfo=UTC)
    assert next(ticks("0 4 * * mon", "UTC", now)) == next(ticks("0  4 * * MON", "UTC", now))


@pytest.mark.parametrize(
    ("cron", "zone", "message"),
    [
        ("hourly", "UTC", "cron: must be daily, weekly, or five fields"),
        ("", "UTC", "cron: must be daily"),
        ("0 0 * *", "UTC", "five fields"),
        ("0 0 0 * * *", "UTC", "five fields"),
        ("60 0 * * *", "UTC", "cron: the minute is not valid"),
        ("0 24 * * *", "UTC", "cron: the hour is not valid"),
        ("0 x * * *", "UTC", "cron: the hour is not valid"),
        ("0 0 31 2 *", "UTC", "cron: the day-of-month is not valid"),
        ("0 0 * * 9", "UTC", "cron: the day-of-week is not valid"),
        ("*/0 * * * *", "UTC", "cron: the minute is not valid"),
        ("**", "UTC", "five fields"),
        ("0 ** * * *", "UTC", "cron: the hour is not valid"),
        ("*/60 * * * *", "UTC", "cron: the step of the minute can be 59 at most"),
        ("*/99999999999999999999 * * * *", "UTC", "cron: the step of the minute can be 59 at most"),
        ("0 0/24 * * *", "UTC", "cron: the step of the hour can be 23 at most"),
        ("0 0 1-5/2,*/32 * *", "UTC", "cron: the step of the day can be 31 at most"),
        ("0 0 * */13 *", "UTC", "cron: the step of the month can be 12 at most"),
        ("0 0 * * */8", "UTC", "cron: the step of the weekday can be 7 at most"),
        ("0 0 * * \u017fun", "UTC", "five fields"),
        ("\u0660 0 * * *", "UTC", "five fields"),
        ("daily", "localtime", "timeZone: no IANA time zone 'localtime'"),
        ("daily", "posixrules", "timeZone"),
        ("daily", "Factory", "timeZone"),
        ("daily", "right/UTC", "timeZone"),
        ("daily", "Europe/Nowhere", "timeZone: no IANA time zone 'Europe/Nowhere'"),
        ("daily", "../etc/passwd", "timeZone"),
        ("daily", "/etc/localtime", "timeZone"),
        ("daily", "Europe", "timeZone"),
        ("daily", "zone.tab", "timeZone"),
        ("daily", "\0", "timeZone"),
        ("daily", "\ud800", "timeZone"),
        ("daily", "", "timeZone"),
    ],
)
def test_nonsense_is_told_by_its_field(cron: str, zone: str, message: str) -> None:
    with pytest.raises(ScheduleError, match=message):
        check(cron, zone, datetime(2026, 1, 1, tzinfo=UTC))


def test_a_field_may_have_the_largest_step_that_it_has_a_value_for() -> None:
    check("*/59 */23 */31 */12 */7", "UTC", datetime(2026, 1, 1, tzinfo=UTC))


def test_an_expression_that_never_comes_true_is_refused_and_has_no_runs() -> None:
    """The fourth Monday of a month is neither its first day nor its thirtieth."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    with pytest.raises(ScheduleError, match=r"^cron: there is no such time$"):
        check("0 0 */29 * 1#4", "UTC", now)
    armed = arm(a_schedule("0 0 */29 * 1#4"), now, HOUR)
    assert (armed.next_tick, armed.next_run_at) == (None, None)
    assert preview(armed, now, HOUR) == []


def test_every_zone_that_iana_lists_has_ticks() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert len(time_zones()) > 400
    for zone in time_zones():
        check("daily", zone, now)


# --- how often

AT_LEAST = 60 * MINUTE


@pytest.mark.parametrize(
    "cron", ["daily", "weekly", "0 * * * *", "59 * * * *", "30 0,23 * * *", "0 0,1 * * *"]
)
def test_once_an_hour_is_often_enough(cron: str) -> None:
    check(cron, "UTC", datetime(2026, 1, 1, tzinfo=UTC), AT_LEAST)


@pytest.mark.parametrize(
    ("cron", "minutes"),
    [
        ("* * * * *", 1),
        ("*/30 * * * *", 30),
        ("0,59 0 1 1 *", 59),
        ("0,59 0,23 * * *", 1),
        ("15,45 2 * * *", 30),
    ],
)
def test_ticks_too_close_are_refused_with_both_spans(cron: str, minutes: int) -> None:
    wanted = f"cron: backups must be at least 60 minutes apart; two of these are only {minutes} minutes apart"
    with pytest.raises(ScheduleError, match=f"^{wanted}$"):
        check(cron, "UTC", datetime(2026, 1, 1, tzinfo=UTC), AT_LEAST)
    check(cron, "UTC", datetime(2026, 1, 1, tzinfo=UTC), minutes * MINUTE)


@given(
    minutes=st.sets(st.integers(0, 59), min_size=1, max_size=4),
    hours=st.sets(st.integers(0, 23), min_size=1, max_size=4),
)
def test_the_shortest_interval_is_that_of_the_ticks(minutes: set[int], hours: set[int]) -> None:
    cron = f"{','.join(map(str, minutes))} {','.join(map(str, hours))} * * *"
    upcoming = ticks(cron, "UTC", datetime(2026, 1, 1, tzinfo=UTC))
    two_days = list(islice(upcoming, 2 * len(minutes) * len(hours) + 1))
    assert shortest_interval(cron) == min(after - before for before, after in pairwise(two_days))


# --- spreading


@given(number=st.integers(0, 10**6), gap=st.integers(60, 10**7), window=st.integers(0, 10**5))
def test_jitter_is_stable_and_less_than_half_the_gap(number: int, gap: int, window: int) -> None:
    late = jitter(site(number), timedelta(seconds=gap), timedelta(seconds=window))
    assert late == jitter(site(number), timedelta(seconds=gap), timedelta(seconds=window))
    assert timedelta() <= late < timedelta(seconds=gap) / 2
    assert late <= timedelta(seconds=window)


def test_a_window_that_is_longer_than_half_the_gap_is_filled_up_to_that() -> None:
    lates = [jitter(site(number), 2 * HOUR, 10 * HOUR) for number in range(200)]
    assert 55 * MINUTE < max(lates) < HOUR


def test_sites_are_spread_evenly_over_the_window() -> None:
    minutes = Counter(jitter(site(number), 24 * HOUR, HOUR) // MINUTE for number in range(60_000))
    assert set(minutes) == set(range(60))
    assert min(minutes.values()) > 850
    assert max(minutes.values()) < 1150


def test_consecutive_ids_are_spread_as_well() -> None:
    minutes = Counter(jitter(f"{number:024x}", 24 * HOUR, HOUR) // MINUTE for number in range(60_000))
    assert min(minutes.values()) > 850


# --- what runs


def test_a_preview_announces_five_runs_and_the_one_that_is_armed_is_the_first() -> None:
    midnight = datetime(2026, 1, 1, tzinfo=UTC)
    late = jitter(site(1), 24 * HOUR, HOUR)
    daily = [midnight + days * 24 * HOUR + late for days in range(1, 7)]
    assert preview(a_schedule(), midnight, HOUR) == daily[:5]
    armed = a_schedule().replace(next_tick=midnight + 24 * HOUR, next_run_at=midnight + 25 * HOUR)
    assert preview(armed, midnight, HOUR) == [midnight + 25 * HOUR, *daily[1:5]]


moments = st.builds(
    lambda zone, change, offset: (zone, changes(zone)[change] + timedelta(seconds=offset)),
    st.sampled_from(ZONES),
    st.sampled_from([0, 1]),
    st.integers(-4 * 86400, 4 * 86400),
)
windows = st.sampled_from([timedelta(), 10 * MINUTE, HOUR, 3 * HOUR])


def run_due(schedule: Schedule, now: datetime, window: timedelta) -> tuple[list[datetime], Schedule]:
    """One pass of the scheduler: the ticks it runs, and the schedule afterwards."""
    ran: list[datetime] = []
    while schedule.next_run_at is not None and schedule.next_run_at <= now:
        assert schedule.next_tick is not None
        ran.append(schedule.next_tick)
        assert len(ran) < 5, "a pass must come to its end"
        schedule = arm(schedule.replace(last_tick=schedule.next_tick), now, window)
    return ran, schedule


@settings(max_examples=150, deadline=None)
@given(
    start=moments,
    cron=st.sampled_from(CRONS),
    window=windows,
    number=st.integers(0, 50),
    waits=st.lists(st.one_of(st.integers(1, 3600), st.integers(1, 5 * 86400)), max_size=15),
)
def test_each_pass_runs_what_came_due_since_the_last_once(
    start: tuple[str, datetime], cron: str, window: timedelta, number: int, waits: list[int]
) -> None:
    """Nothing that came due is passed over, nothing runs twice, and an outage is caught up by one run."""
    zone, now = start
    schedule = arm(a_schedule(cron, zone, number), now, window)
    planned = list(
        takewhile(
            lambda run: run[1] <= now + timedelta(seconds=sum(waits)), runs(schedule, now - window, window)
        )
    )
    done: list[datetime] = []
    for wait in waits:
        before, now = now, now + timedelta(seconds=wait)
        ran, schedule = run_due(schedule, now, window)
        came_due = [tick for tick, run_at in planned if before < run_at <= now]
        assert ran == came_due[:1]
        done += ran
    assert done == sorted(set(done))


@settings(max_examples=100, deadline=None)
@given(start=moments, cron=st.sampled_from(CRONS), window=windows, number=st.integers(0, 50))
def test_the_preview_is_what_then_runs(
    start: tuple[str, datetime], cron: str, window: timedelta, number: int
) -> None:
    zone, now = start
    schedule = arm(a_schedule(cron, zone, number), now, window)
    announced = preview(schedule, now, window)
    assert len(announced) == 5
    assert announced[0] > now
    for run_at in announced:
        assert schedule.next_run_at == run_at
        assert run_due(schedule, run_at - timedelta(milliseconds=1), window) == ([], schedule)
        ran, schedule = run_due(schedule, run_at, window)
        assert len(ran) == 1
        assert preview(schedule, run_at, window)[0] > run_at


def test_a_run_in_the_repeated_hour_does_not_bring_its_tick_back() -> None:
    """02:30 comes at 00:30 and at 01:30 UTC; the site's jitter lies between the two."""
    number = next(n for n in range(100) if 35 * MINUTE < jitter(site(n), 24 * HOUR, HOUR) < 45 * MINUTE)
    before = datetime(2026, 10, 24, 12, tzinfo=UTC)
    schedule = arm(a_schedule("30 2 * * *", "Europe/Berlin", number), before, HOUR)
    assert schedule.next_tick == datetime(2026, 10, 25, 0, 30, tzinfo=UTC)
    assert schedule.next_run_at is not None
    ran, schedule = run_due(schedule, schedule.next_run_at + MINUTE, HOUR)
    assert ran == [datetime(2026, 10, 25, 0, 30, tzinfo=UTC)]
    assert schedule.next_tick == datetime(2026, 10, 26, 1, 30, tzinfo=UTC)


def test_setting_a_schedule_again_between_its_tick_and_its_run_loses_no_backup() -> None:
    number = next(n for n in range(100) if jitter(site(n), 24 * HOUR, HOUR) > 30 * MINUTE)
    schedule = arm(a_schedule(number=number), datetime(2026, 5, 4, 12, tzinfo=UTC), HOUR)
    midnight = datetime(2026, 5, 5, tzinfo=UTC)
    again = arm(a_schedule(number=number), midnight + 10 * MINUTE, HOUR)
    assert (again.next_tick, again.next_run_at) == (schedule.next_tick, schedule.next_run_at)
    ran = again.replace(last_tick=midnight)
    assert arm(ran, midnight + 10 * MINUTE, HOUR).next_tick == midnight + 24 * HOUR, (
        "but it runs no tick twice"
    )


def test_after_a_year_without_the_scheduler_there_is_one_run() -> None:
    now = datetime(2026, 5, 5, 12, tzinfo=UTC)
    schedule = arm(a_schedule("0 * * * *"), now, HOUR)
    ran, schedule = run_due(schedule, now + timedelta(days=365), HOUR)
    assert len(ran) == 1
    assert schedule.next_run_at is not None
    assert schedule.next_run_at > now + timedelta(days=365)


def test_a_paused_schedule_has_no_next_run() -> None:
    now = datetime(2026, 5, 5, 12, tzinfo=UTC)
    schedule = arm(arm(a_schedule(), now, HOUR).replace(paused=True), now + MINUTE, HOUR)
    assert (schedule.next_tick, schedule.next_run_at) == (None, None)
    assert schedule.updated_at == now + MINUTE
    assert preview(schedule, now, HOUR) == []
    with pytest.raises(ValueError, match=r"^a schedule that is not armed has no tick$"):
        tick_key(schedule)
    assert arm(schedule.replace(paused=False), now, HOUR).next_run_at is not None


def test_a_run_that_is_due_at_this_very_moment_is_not_one_to_come() -> None:
    first = arm(a_schedule(), datetime(2026, 5, 5, 12, tzinfo=UTC), HOUR)
    assert first.next_run_at is not None
    assert first.updated_at == datetime(2026, 5, 5, 12, tzinfo=UTC)
    second = arm(a_schedule(), first.next_run_at, HOUR)
    assert second.next_run_at == first.next_run_at + 24 * HOUR


def test_the_key_of_a_tick_is_of_its_site_and_time_alone() -> None:
    now = datetime(2026, 5, 5, 12, tzinfo=UTC)
    schedule = arm(a_schedule(), now, HOUR)
    other_zone = arm(a_schedule(zone="Etc/UTC"), now, HOUR)
    assert tick_key(schedule) == tick_key(other_zone)
    keys = {
        tick_key(schedule),
        tick_key(arm(a_schedule(number=2), now, HOUR)),
        tick_key(arm(schedule, now + 24 * HOUR, HOUR)),
    }
    assert len(keys) == 3
