"""Nobody waits for a sibling, nothing is sent that is not due, and every loop has an end (I8, I13, I17).

The service runs by the clock: a sweep every minute, and each provider moves so many records a minute.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from sitebackup.domain.errors import SettingsUnavailable, Transient
from sitebackup.domain.events import TaskEvent, UploadJobCreated, UploadPartCreated
from sitebackup.domain.job import UNFINISHED, Status
from sitebackup.domain.policy import Policy
from sitebackup.domain.provider import Provider
from sitebackup.domain.reason import Code
from tests.fakes.exports import MemoryExport
from tests.fakes.readers import some_bytes
from tests.simulation.service import PART_SIZE, SimulatedService

MINUTE = timedelta(minutes=1)
LATE = timedelta(seconds=90)
"""So long after its time at most a task or part whose provider is healthy is tried again."""
WINDOW = 8
LEASE_SECONDS = 90
SMALL = PART_SIZE - 1
MOST_TRANSFERS = 15
"""Of a part that nothing helps: five tries, each with three in one process."""
MOST_DELIVERIES = 300
FEW_MINUTES, SHORT = 4, 20
"""Minutes: far too few for the long export, and enough for those of nine parts."""
LONG = 60
"""Parts of an export that takes an hour at one part a minute."""
TO_THE_END = 300
"""Minutes, in which any of these jobs ends."""


@dataclass
class Clockwork:
    """Two providers of one job, each with a pace and outages of its own."""

    served: dict[str, MemoryExport]
    pace: dict[str, int]
    """Records a minute."""
    outages: dict[str, tuple[int, int]] = field(default_factory=dict)
    """In minutes, from and until."""
    lost: frozenset[int] = frozenset()
    """By number, the records of the first emission that get lost."""

    def __post_init__(self) -> None:
        policy = Policy(parts_in_flight=WINDOW, lease_seconds=LEASE_SECONDS)
        self.service = SimulatedService(self.served, policy=policy)
        self.started = self.service.now
        self.opened = Counter[str]()
        self.parts_sent_by_sweeps: list[int] = []
        self.service.injector = self._inject
        self.service.bus.bag[:] = [
            event for number, event in enumerate(self.service.bus.bag) if number not in self.lost
        ]

    def is_out(self, name: str) -> bool:
        begin, end = self.outages.get(name, (0, 0))
        return begin <= (self.service.now - self.started) / MINUTE < end

    def _inject[T](self, port: str, name: str, call: Callable[[], T]) -> T:
        if port == "exports" and name in ("probe", "open_range"):
            assert self.service.last is not None
            provider = self.service.last.task.provider
            if self.is_out(provider):
                raise Transient("503.")
            self.opened[provider] += 1
        return call()

    def run(self, minutes: int) -> None:
        """Until the job ends, or so long."""
        for _ in range(minutes):
            self.deliver()
            if self.service.job.status not in UNFINISHED:
                return
            self.pass_a_minute()

    def deliver(self) -> None:
        """What the providers' paces allow in a minute."""
        for name, pace in self.pace.items():
            for _ in range(pace):
                self.service.deliver(self.service.take_of(provider=name))

    def pass_a_minute(self) -> None:
        """And the sweep comes."""
        self.service.pass_time(MINUTE)
        before = len(self.service.bus.of_jobs)
        self.service.sweep()
        self._check_sent(self.service.bus.of_jobs[before:])
        self._check_waits()

    def _check_sent(self, events: list[TaskEvent]) -> None:
        runs = Counter(event.task.provider for event in events if isinstance(event, UploadJobCreated))
        parts = [event for event in events if isinstance(event, UploadPartCreated)]
        assert all(count == 1 for count in runs.values()), "a run was sent twice by one sweep"
        per_task = Counter(event.task.provider for event in parts)
        assert all(count <= WINDOW for count in per_task.values()), "a sweep sent more than a window"
        self.parts_sent_by_sweeps += [event.number for event in parts]

    def _check_waits(self) -> None:
        late = self.service.now - LATE
        for name, task in self.service.job.tasks.items():
            if task.status not in UNFINISHED:
                continue
            assert task.next_check_at is not None
            assert task.next_check_at >= late, f"nobody looked at {name} in time"
            waits = self.service.parts.waits(task.upload.upload_id) if task.upload else {}
            for number, wait in waits.items():
                assert wait.next_try_at is None or wait.next_try_at >= late, (
                    f"part {number} of {name} was left waiting"
                )


def export(name: str, size: int, *, ranged: bool = True) -> MemoryExport:
    return MemoryExport(some_bytes(name, size), ranged=ranged)


def test_a_task_after_a_short_outage_does_not_wait_for_its_slow_sibling() -> None:
    """`db` is out for the first minute; `site` moves a part a minute for an hour."""
    clockwork = Clockwork(
        {"site": export("site", LONG * PART_SIZE), "db": export("db", SMALL)},
        pace={"db": 5, "site": 1},
        outages={"db": (0, 1)},
    )
    clockwork.run(FEW_MINUTES)
    assert clockwork.service.job.tasks["db"].status is Status.DONE
    assert clockwork.service.job.tasks["site"].status is Status.RUNNING


def test_a_lost_first_record_is_made_up_for_while_the_sibling_moves() -> None:
    clockwork = Clockwork(
        {"site": export("site", LONG * PART_SIZE), "db": export("db", SMALL)},
        pace={"site": 1, "db": 5},
        lost=frozenset({1}),
    )
    clockwork.run(FEW_MINUTES)
    assert clockwork.service.job.tasks["db"].status is Status.DONE


def test_errors_of_one_task_neither_reopen_nor_fail_its_healthy_sibling() -> None:
    """The small export of `db` trickles for minutes, while `site` is out and the sweep comes by each minute."""
    slow = MemoryExport(some_bytes("db", PART_SIZE), trickle=1)
    clockwork = Clockwork(
        {"site": export("site", SMALL), "db": slow}, pace={"site": 5, "db": 5}, outages={"site": (0, 3)}
    )
    service = clockwork.service
    run = service.take_of(provider="db")
    assert run is not None
    inner = service.injector

    def trickling[T](port: str, name: str, call: Callable[[], T]) -> T:
        assert service.last is not None
        if (port, name, service.last) == ("exports", "read", run):
            clockwork.pass_a_minute()
            clockwork.deliver()
            service.last = run
        return inner(port, name, call)

    service.injector = trickling
    service.deliver(run)
    assert clockwork.opened["db"] == 1, "the export was opened again while it was read"
    assert service.job.tasks["db"].status is Status.DONE


def test_a_part_that_fails_is_sent_again_alone() -> None:
    clockwork = Clockwork({"site": export("site", 40 * PART_SIZE)}, pace={"site": 2})
    service = clockwork.service
    failed: list[int] = []

    def one_fails() -> None:
        if isinstance(service.last, UploadPartCreated) and not failed:
            failed.append(service.last.number)
            raise Transient("503.", retry_after=timedelta(seconds=30))

    service.before("exports.open_range", one_fails)
    clockwork.run(TO_THE_END)
    assert service.job.status is Status.DONE
    assert clockwork.parts_sent_by_sweeps == failed


def test_an_upload_that_s3_lost_while_parts_are_missing_is_replaced_in_the_same_attempt() -> None:
    clockwork = Clockwork({"site": export("site", 9 * PART_SIZE)}, pace={"site": 3})
    service = clockwork.service
    service.before("exports.open_range", service.storage.uploads.clear, times=1)
    clockwork.run(SHORT)
    job = service.job
    assert (job.status, job.attempt, job.tasks["site"].losses) == (Status.DONE, 1, 1)


def test_a_retry_replaces_an_upload_that_s3_has_lost_since() -> None:
    clockwork = Clockwork({"site": export("site", 9 * PART_SIZE)}, pace={"site": 3})
    service = clockwork.service
    clockwork.run(2)
    service.cancel()
    service.bus.bag.clear()
    service.storage.uploads.clear()
    service.retry()
    clockwork.run(SHORT)
    assert (service.job.status, service.job.attempt) == (Status.DONE, 2)


def test_a_job_whose_last_task_was_done_in_time_gets_done_however_late_it_is_finished() -> None:
    clockwork = Clockwork(
        {"site": export("site", SMALL), "db": export("db", SMALL)}, pace={"site": 5, "db": 5}
    )
    service = clockwork.service
    service.pass_time(timedelta(seconds=service.policy.attempt_seconds) - 10 * MINUTE)
    service.deliver_next(2)
    service.bus.bag.clear()
    service.pass_time(20 * MINUTE)
    service.sweep()
    service.cancel()
    clockwork.run(2)
    assert service.job.status is Status.DONE
    assert (
        service.job.finished_at
        == clockwork.started + timedelta(seconds=service.policy.attempt_seconds) - 10 * MINUTE
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
    clockwork.run(TO_THE_END)
    job = clockwork.service.job
    note(f"opened: {clockwork.opened}, job: {job}")
    assert job.status in (Status.DONE, Status.FAILED)
    for name, fate in both.items():
        if job.tasks[name].status is Status.FAILED:
            assert fate["outage"], f"{name} failed although its provider was healthy"
        if fate["outage"] is None and fate["size"] == SMALL:
            assert clockwork.opened[name] <= 1, f"{name} was opened again although it was healthy"


Trouble = Callable[[SimulatedService, str], None]
ENDLESS: dict[str, Trouble] = {}
"""What goes wrong for ever, by name. Each is asked before each call of a port."""


def endless(trouble: Trouble) -> Trouble:
    ENDLESS[trouble.__name__] = trouble
    return trouble


@endless
def s3_loses_every_upload_before_it_is_completed(service: SimulatedService, call: str) -> None:
    if call == "storage.complete":
        service.storage.uploads.clear()


@endless
def s3_loses_every_upload_while_parts_are_missing(service: SimulatedService, call: str) -> None:
    if call == "exports.open_range":
        service.storage.uploads.clear()


@endless
def s3_loses_a_part_before_every_completion(service: SimulatedService, call: str) -> None:
    if call == "storage.complete":
        for upload in service.storage.uploads.values():
            upload.lose_first_part()


@endless
def s3_answers_200_and_makes_nothing(service: SimulatedService, call: str) -> None:
    service.storage.lies = 1


@endless
def the_export_changes_at_every_request(service: SimulatedService, call: str) -> None:
    if call in ("exports.probe", "exports.open_range"):
        service.served["site"].change()


@endless
def the_export_is_never_reached(service: SimulatedService, call: str) -> None:
    if call in ("exports.probe", "exports.open_range"):
        raise Transient("503.")


@endless
def s3_takes_no_part(service: SimulatedService, call: str) -> None:
    if call == "storage.put_part":
        raise Transient("S3 answered SlowDown.")


@pytest.mark.parametrize("ranged", [True, False])
@pytest.mark.parametrize("trouble", list(ENDLESS))
def test_what_goes_wrong_for_ever_ends_with_pauses_after_a_bounded_number_of_transfers(
    trouble: str, ranged: bool
) -> None:
    parts = 6
    service = SimulatedService({"site": export("site", parts * PART_SIZE, ranged=ranged)})
    moved_parts = deliveries = 0

    def spoilt[T](port: str, name: str, call: Callable[[], T]) -> T:
        nonlocal moved_parts
        moved_parts += (port, name) == ("storage", "put_part")
        ENDLESS[trouble](service, f"{port}.{name}")
        return call()

    service.injector = spoilt
    while service.job.status in UNFINISHED:
        while service.bus.bag:
            service.deliver(service.take(0))
            deliveries += 1
            assert deliveries < MOST_DELIVERIES, "it goes round without a pause"
        service.pass_time(MINUTE)
        service.sweep()
    job = service.job
    assert moved_parts <= parts * MOST_TRANSFERS, f"{moved_parts} parts were moved of {parts}"
    if job.status is not Status.DONE:
        assert job.reason is not None
        assert job.reason.code is Code.RETRIES_EXHAUSTED
        assert service.now < job.deadline_at, "it went on until its time was up"


class Unread(Mapping[str, Provider]):
    """Settings of which there is no version yet."""

    def __getitem__(self, name: str) -> Provider:
        raise SettingsUnavailable("not yet")

    def __iter__(self) -> Iterator[str]:
        raise SettingsUnavailable("not yet")

    def __len__(self) -> int:
        raise SettingsUnavailable("not yet")


@pytest.mark.parametrize("size", [SMALL, 3 * PART_SIZE], ids=["small", "ranged"])
def test_a_run_whose_providers_can_not_be_read_yet_costs_no_try_and_is_delivered_again(size: int) -> None:
    service = SimulatedService({"site": MemoryExport(some_bytes("site", size))})
    before, can_read = service.job, service.process_provider
    service.process_provider = replace(can_read, providers=Unread())
    for _ in range(10):
        service.deliver_next(1)
    assert (service.job, len(service.bus.bag)) == (before, 1)
    service.process_provider = can_read
    service.finish()
    assert (service.job.status, service.job.tasks["site"].runs) == (Status.DONE, 1)
