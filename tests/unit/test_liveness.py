"""Nobody waits for a sibling, nothing is sent that is not due, and every loop has an end (I8, I13, I17).

The service runs by the clock: a sweep every minute, and each provider moves so many records a minute.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from sitebackup.domain.errors import Transient
from sitebackup.domain.events import TaskEvent, UploadJobCreated, UploadPartCreated
from sitebackup.domain.job import UNFINISHED, PartWait, Status
from sitebackup.domain.policy import Policy
from sitebackup.domain.reason import Code
from tests.unit.simulation import PART_SIZE, World, small_world
from tests.unit.twins import MemoryExport, some_bytes

MINUTE = timedelta(minutes=1)
LATE = timedelta(seconds=90)
"""So long after its time at most a task or part whose provider is healthy is tried again."""
WINDOW = 8
SMALL = PART_SIZE - 1
MOST_TRANSFERS = 15
"""Of a part that nothing helps: five tries, each with three in place."""
MOST_DELIVERIES = 300


@pytest.fixture(autouse=True, scope="module")
def _small_world() -> Iterator[None]:
    with small_world():
        yield


@dataclass
class Clockwork:
    """Two providers of one job, each with a pace and outages of its own."""

    sites: dict[str, MemoryExport]
    pace: dict[str, int]
    """Records a minute."""
    outages: dict[str, tuple[int, int]] = field(default_factory=dict)
    """In minutes, from and until."""
    lost: frozenset[int] = frozenset()
    """By number, the records of the first emission that get lost."""

    def __post_init__(self) -> None:
        self.world = World(sites=self.sites, policy=Policy(parts_in_flight=WINDOW, lease_seconds=90))
        self.started = self.world.now
        self.opened = Counter[str]()
        self.parts_sent_by_sweeps: list[int] = []
        self.world.set_gate(self._gate)
        self.world.bus.bag[:] = [
            event for number, event in enumerate(self.world.bus.bag) if number not in self.lost
        ]

    def is_out(self, name: str) -> bool:
        begin, end = self.outages.get(name, (0, 0))
        return begin <= (self.world.now - self.started) / MINUTE < end

    def _gate[T](self, port: str, name: str, call: Callable[[], T]) -> T:
        if port == "exports" and name in ("probe", "open_range"):
            assert self.world.last is not None
            provider = self.world.last.provider
            if self.is_out(provider):
                raise Transient("503.")
            self.opened[provider] += 1
        return call()

    def run(self, minutes: int) -> None:
        """Until the job ends, or so long."""
        for _ in range(minutes):
            self.deliver()
            if self.world.job.status not in UNFINISHED:
                return
            self.pass_a_minute()

    def deliver(self) -> None:
        """What the providers' paces allow in a minute."""
        for name, pace in self.pace.items():
            for _ in range(pace):
                mine = [event for event in self.world.bus.bag if event.provider == name]
                if mine:
                    self.world.bus.bag.remove(mine[0])
                    self.world.deliver(mine[0])

    def pass_a_minute(self) -> None:
        """And the sweep comes."""
        self.world.pass_time(MINUTE)
        before = len(self.world.bus.bag)
        self.world.sweep()
        self._check_sent(self.world.bus.bag[before:])
        self._check_waits()

    def _check_sent(self, events: list[TaskEvent]) -> None:
        runs = Counter(event.provider for event in events if isinstance(event, UploadJobCreated))
        parts = [event for event in events if isinstance(event, UploadPartCreated)]
        assert all(count == 1 for count in runs.values()), "a run was sent twice by one sweep"
        per_task = Counter(event.provider for event in parts)
        assert all(count <= WINDOW for count in per_task.values()), "a sweep sent more than a window"
        self.parts_sent_by_sweeps += [event.number for event in parts]

    def _check_waits(self) -> None:
        late = self.world.now - LATE
        for name, task in self.world.job.tasks.items():
            if task.status not in UNFINISHED:
                continue
            assert task.next_check_at is not None
            assert task.next_check_at >= late, f"nobody looked at {name} in time"
            for (upload_id, number), record in self.world.repository.parts.items():
                if task.upload and upload_id == task.upload.upload_id and isinstance(record, PartWait):
                    wait = record.next_try_at
                    assert wait is None or wait >= late, f"part {number} of {name} was left waiting"


def export(name: str, size: int, *, ranged: bool = True) -> MemoryExport:
    return MemoryExport(some_bytes(name, size), ranged=ranged)


def test_a_task_with_one_short_trouble_does_not_wait_for_its_slow_sibling() -> None:
    """`db` is out for the first minute; `site` moves a part a minute for an hour."""
    clockwork = Clockwork(
        {"site": export("site", 60 * PART_SIZE), "db": export("db", SMALL)},
        pace={"db": 5, "site": 1},
        outages={"db": (0, 1)},
    )
    clockwork.run(4)
    assert clockwork.world.job.tasks["db"].status is Status.DONE
    assert clockwork.world.job.tasks["site"].status is Status.RUNNING


def test_a_lost_first_record_is_made_up_for_while_the_sibling_moves() -> None:
    clockwork = Clockwork(
        {"site": export("site", 60 * PART_SIZE), "db": export("db", SMALL)},
        pace={"site": 1, "db": 5},
        lost=frozenset({1}),
    )
    clockwork.run(4)
    assert clockwork.world.job.tasks["db"].status is Status.DONE


def test_trouble_of_one_task_neither_opens_nor_fails_its_healthy_sibling() -> None:
    """The small export of `db` trickles for minutes, while `site` is out and the sweep comes by each minute."""
    slow = MemoryExport(some_bytes("db", PART_SIZE), trickle=1)
    clockwork = Clockwork(
        {"site": export("site", SMALL), "db": slow}, pace={"site": 5, "db": 5}, outages={"site": (0, 3)}
    )
    world = clockwork.world
    run = next(event for event in world.bus.bag if event.provider == "db")
    world.bus.bag.remove(run)
    gate = world.repository.gate

    def trickling[T](port: str, name: str, call: Callable[[], T]) -> T:
        assert world.last is not None
        if (port, name, world.last) == ("exports", "read", run):
            clockwork.pass_a_minute()
            clockwork.deliver()
            world.last = run
        return gate(port, name, call)

    world.set_gate(trickling)
    world.deliver(run)
    assert clockwork.opened["db"] == 1, "the export was opened again while it was read"
    assert world.job.tasks["db"].status is Status.DONE


def test_one_troubled_part_is_sent_again_alone() -> None:
    clockwork = Clockwork({"site": export("site", 40 * PART_SIZE)}, pace={"site": 2})
    world = clockwork.world
    troubled: list[int] = []
    gate = world.repository.gate

    def one_fails[T](port: str, name: str, call: Callable[[], T]) -> T:
        last = world.last
        if (port, name) == ("exports", "open_range") and isinstance(last, UploadPartCreated) and not troubled:
            troubled.append(last.number)
            raise Transient("503.", retry_after=timedelta(seconds=30))
        return gate(port, name, call)

    world.set_gate(one_fails)
    clockwork.run(90)
    assert world.job.status is Status.DONE
    assert clockwork.parts_sent_by_sweeps == troubled


def lose_uploads_once(world: World, port: str, name: str) -> None:
    """Just before the next such call."""
    gate = world.repository.gate
    lost: list[bool] = []

    def losing[T](port_called: str, name_called: str, call: Callable[[], T]) -> T:
        if (port_called, name_called) == (port, name) and not lost:
            lost.append(True)
            world.storage.uploads.clear()
        return gate(port_called, name_called, call)

    world.set_gate(losing)


def test_an_upload_that_s3_lost_while_parts_are_missing_is_replaced_in_the_same_attempt() -> None:
    clockwork = Clockwork({"site": export("site", 9 * PART_SIZE)}, pace={"site": 3})
    lose_uploads_once(clockwork.world, "exports", "open_range")
    clockwork.run(20)
    job = clockwork.world.job
    assert (job.status, job.attempt, job.tasks["site"].losses) == (Status.DONE, 1, 1)


def test_a_retry_replaces_an_upload_that_s3_has_lost_since() -> None:
    clockwork = Clockwork({"site": export("site", 9 * PART_SIZE)}, pace={"site": 3})
    world = clockwork.world
    clockwork.run(2)
    world.cancel()
    world.bus.bag.clear()
    world.storage.uploads.clear()
    world.retry()
    clockwork.run(20)
    assert (world.job.status, world.job.attempt) == (Status.DONE, 2)


def test_a_job_whose_last_task_was_done_in_time_gets_done_however_late_it_is_finished() -> None:
    clockwork = Clockwork(
        {"site": export("site", SMALL), "db": export("db", SMALL)}, pace={"site": 5, "db": 5}
    )
    world = clockwork.world
    world.pass_time(timedelta(seconds=world.policy.attempt_seconds) - 10 * MINUTE)
    for _ in range(2):
        world.deliver(world.take(0))
    world.bus.bag.clear()
    world.pass_time(20 * MINUTE)
    world.sweep()
    world.cancel()
    clockwork.run(2)
    assert world.job.status is Status.DONE
    assert (
        world.job.finished_at
        == clockwork.started + timedelta(seconds=world.policy.attempt_seconds) - 10 * MINUTE
    )


fates = st.fixed_dictionaries(
    {
        "size": st.sampled_from([SMALL, PART_SIZE + 1, 12 * PART_SIZE, 30 * PART_SIZE]),
        "ranged": st.booleans(),
        "pace": st.integers(1, 6),
        "outage": st.none() | st.tuples(st.integers(0, 20), st.integers(1, 40)),
    }
)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(site=fates, db=fates, lost=st.frozensets(st.integers(0, 1)))
def test_each_task_has_a_fate_of_its_own(
    site: dict[str, Any], db: dict[str, Any], lost: frozenset[int]
) -> None:
    both = {"site": site, "db": db}
    clockwork = Clockwork(
        {name: export(name, fate["size"], ranged=fate["ranged"]) for name, fate in both.items()},
        pace={name: fate["pace"] for name, fate in both.items()},
        outages={
            name: (fate["outage"][0], sum(fate["outage"])) for name, fate in both.items() if fate["outage"]
        },
        lost=lost,
    )
    clockwork.run(300)
    job = clockwork.world.job
    note(f"opened: {clockwork.opened}, job: {job}")
    assert job.status in (Status.DONE, Status.FAILED)
    for name, fate in both.items():
        if job.tasks[name].status is Status.FAILED:
            assert fate["outage"], f"{name} failed although its provider was healthy"
        if fate["outage"] is None and fate["size"] == SMALL:
            assert clockwork.opened[name] <= 1, f"{name} was opened again although it was healthy"


Trouble = Callable[[World, str], None]
ENDLESS: dict[str, Trouble] = {}
"""What goes wrong for ever, by name. Each is asked before each call of a port."""


def endless(trouble: Trouble) -> Trouble:
    ENDLESS[trouble.__name__] = trouble
    return trouble


@endless
def s3_loses_every_upload_before_it_is_completed(world: World, call: str) -> None:
    if call == "storage.complete":
        world.storage.uploads.clear()


@endless
def s3_loses_every_upload_while_parts_are_missing(world: World, call: str) -> None:
    if call == "exports.open_range":
        world.storage.uploads.clear()


@endless
def s3_loses_a_part_before_every_completion(world: World, call: str) -> None:
    if call == "storage.complete":
        for upload in world.storage.uploads.values():
            upload.parts.pop(min(upload.parts, default=0), None)


@endless
def s3_answers_200_and_makes_nothing(world: World, call: str) -> None:
    world.storage.lies = 1


@endless
def the_export_changes_at_every_request(world: World, call: str) -> None:
    if call in ("exports.probe", "exports.open_range"):
        world.sites["site"].change()


@endless
def the_export_is_never_reached(world: World, call: str) -> None:
    if call in ("exports.probe", "exports.open_range"):
        raise Transient("503.")


@endless
def s3_takes_no_part(world: World, call: str) -> None:
    if call == "storage.put_part":
        raise Transient("S3 answered SlowDown.")


@pytest.mark.parametrize("ranged", [True, False])
@pytest.mark.parametrize("trouble", list(ENDLESS))
def test_what_goes_wrong_for_ever_ends_with_pauses_after_a_bounded_number_of_transfers(
    trouble: str, ranged: bool
) -> None:
    parts = 6
    world = World(sites={"site": export("site", parts * PART_SIZE, ranged=ranged)})
    moved = deliveries = 0

    def spoilt[T](port: str, name: str, call: Callable[[], T]) -> T:
        nonlocal moved
        moved += (port, name) == ("storage", "put_part")
        ENDLESS[trouble](world, f"{port}.{name}")
        return call()

    world.set_gate(spoilt)
    while world.job.status in UNFINISHED:
        while world.bus.bag:
            world.deliver(world.take(0))
            deliveries += 1
            assert deliveries < MOST_DELIVERIES, "it goes round without a pause"
        world.pass_time(MINUTE)
        world.sweep()
    job = world.job
    assert moved <= parts * MOST_TRANSFERS, f"{moved} parts were moved of {parts}"
    if job.status is not Status.DONE:
        assert job.reason is not None
        assert job.reason.code is Code.RETRIES_EXHAUSTED
        assert world.now < job.deadline_at, "it went on until its time was up"
