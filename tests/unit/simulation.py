"""The whole service in one process: the real use cases on twins of the ports, under an order and faults of choice.

Kafka is a bag: any event in it may be delivered next, twice, or be lost. At any call of a port the worker may crash,
the call may fail or its answer get lost, and other events and sweeps may run meanwhile, as in other processes.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from traceback import format_exc
from typing import Any, Literal, Self

import pytest

from sitebackup.domain import plan
from sitebackup.domain.errors import BusUnavailable, Conflict, RepositoryUnavailable, Transient, Unavailable
from sitebackup.domain.events import PartUpdated, TaskEvent, TaskUpdated, UploadJobCreated, UploadPartCreated
from sitebackup.domain.job import UNFINISHED, Job
from sitebackup.domain.policy import Policy
from sitebackup.domain.provider import Provider
from sitebackup.errors import RequestError
from sitebackup.services import clean_up, retrying, sources, stream, sweep_jobs, upload_part
from sitebackup.services.change_job import ChangeJob
from sitebackup.services.clean_up import CleanUp
from sitebackup.services.create_job import CreateBackup, CreateJob
from sitebackup.services.finish_job import FinishJob
from sitebackup.services.finish_task import FinishTask
from sitebackup.services.outcomes import Outcomes
from sitebackup.services.process_provider import ProcessProvider
from sitebackup.services.stream import MoveStream
from sitebackup.services.sweep_jobs import SweepJobs
from sitebackup.services.upload_part import UploadPart
from sitebackup.telemetry import logger
from tests.unit.invariants import check_change
from tests.unit.twins import Gate, MemoryBus, MemoryExport, MemoryExports, MemoryRepository, MemoryStorage

PART_SIZE = 4
"""Bytes. S3's limits don't count in memory."""
INVOCATION = timedelta(minutes=14)
START = datetime(2030, 1, 31, 12, tzinfo=UTC)
CLAIM = timedelta(seconds=sweep_jobs.CLAIM_SECONDS)
DEEPEST = 3
"""So many invocations at most stand still in one another."""


class Crash(BaseException):
    """The process is gone: nothing in it runs any more."""


class Fault(StrEnum):
    """What may happen at a call of a port."""

    CRASH_BEFORE = "crash before the call"
    CRASH_AFTER = "crash after the call"
    FAILS = "the call fails"
    ANSWER_LOST = "the call works, its answer is lost"
    OTHERS = "the next two events are delivered meanwhile"
    LAST = "the newest event is delivered meanwhile"
    AGAIN = "the last event is delivered again meanwhile"
    SWEEP = "a minute passes, and the sweep runs meanwhile"
    CLEAN_UP = "a minute passes, and the clean-up runs meanwhile"
    CANCEL = "somebody cancels the job meanwhile"
    RETRY = "somebody retries the job meanwhile"
    EXPORT_CHANGES = "the export changes"
    RANGES = "the export stops, or begins, to answer ranges"
    LOSE_UPLOADS = "S3 loses all uploads"
    LOSE_PART = "S3 loses a part of each upload"
    LIE = "S3 answers 200 to the next Complete and makes nothing"


HARMLESS = frozenset({Fault.OTHERS, Fault.LAST, Fault.AGAIN})
"""These may happen any number of times, and the job gets done all the same."""


unexpected: list[str] = []
"""Tracebacks of errors that nobody foresaw: the functions log them and fail the record."""


class InlinePool:
    """An executor without threads, so that a crash ends everything and each run is the same."""

    def __init__(self, workers: int) -> None:
        self.workers = workers

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        return

    def submit[T](self, call: Callable[..., T], *arguments: Any) -> Future[T]:
        future: Future[T] = Future()
        try:
            future.set_result(call(*arguments))
        except Exception as error:  # noqa: BLE001 - kept for whoever asks for the result; a Crash is no Exception
            future.set_exception(error)
        return future

    def map[A, T](self, call: Callable[[A], T], arguments: Iterable[A]) -> Iterator[T]:
        return iter([call(argument) for argument in arguments])


@contextmanager
def small_world() -> Iterator[None]:
    """Parts of a few bytes, no threads, no waits."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "MIN_PART_SIZE", 1)
        patch.setattr(stream, "ThreadPoolExecutor", InlinePool)
        patch.setattr(upload_part, "ThreadPoolExecutor", InlinePool)
        patch.setattr(clean_up, "ThreadPoolExecutor", InlinePool)
        patch.setattr(retrying, "_wait", lambda state: 0.0)
        patch.setattr(sources, "PAUSES", (0.0, 0.0))
        patch.setattr(logger._logger, "disabled", True)
        patch.setattr(logger, "exception", lambda *_, **__: unexpected.append(format_exc()))
        yield


@dataclass
class World:
    """One job's world."""

    sites: Mapping[str, MemoryExport]
    faults: Mapping[int, Fault] = field(default_factory=dict)
    """By the number of the call of a port."""
    condition_first: bool = False
    policy: Policy = field(default_factory=lambda: Policy(parts_in_flight=3))
    format: Literal["zip", "any"] = "any"
    """Of all providers."""

    def __post_init__(self) -> None:
        unexpected.clear()
        self.now = START
        self.calls = 0
        self.depth = 0
        self.quiet = False
        self.happened: list[tuple[int, str, Fault]] = []
        self.last: TaskEvent | None = None
        self.history = {name: [site.content] for name, site in self.sites.items()}
        self.invocations = 0
        gate = self._gate
        self.repository = MemoryRepository(gate)
        self.repository.stored = lambda before, after: check_change(before, after, self.now)
        self.exports = MemoryExports(gate)
        self.exports.sites = dict(self.sites)
        self.storage = MemoryStorage(gate, condition_first=self.condition_first)
        self.bus = MemoryBus(gate)
        self._build()
        self.quiet = True
        request = CreateBackup(user_id="a" * 24, site_id="b" * 24, providers=list(self.sites))
        self.job_id = self.create_job(request, None).id
        self.quiet, self.calls = False, 0

    def _build(self) -> None:
        def clock() -> datetime:
            return self.now

        repository, storage, policy = self.repository, self.storage, self.policy
        providers = {
            name: Provider(name=name, export_url=f"http://{name}", format=self.format) for name in self.sites
        }
        outcomes = Outcomes(
            repository=repository,
            storage=storage,
            bus=self.bus,
            providers=providers,
            policy=policy,
            now=clock,
            random=lambda: 0.5,
        )
        self.create_job = CreateJob(
            repository=repository,
            bus=self.bus,
            providers=providers,
            policy=policy,
            now=clock,
            new_id=lambda: "c" * 24,
        )
        self.change_job = ChangeJob(repository=repository, bus=self.bus, policy=policy, now=clock)
        self.process_provider = ProcessProvider(
            repository=repository,
            exports=self.exports,
            storage=storage,
            outcomes=outcomes,
            stream=MoveStream(
                repository=repository, storage=storage, outcomes=outcomes, part_size=PART_SIZE, now=clock
            ),
            providers=providers,
            part_size=PART_SIZE,
            max_bytes=None,
            now=clock,
        )
        self.upload_part = UploadPart(
            repository=repository,
            exports=self.exports,
            storage=storage,
            outcomes=outcomes,
            providers=providers,
            at_once=4,
            now=clock,
        )
        self.finish_task = FinishTask(repository=repository, storage=storage, outcomes=outcomes, now=clock)
        self.finish_job = FinishJob(repository=repository, policy=policy, now=clock)
        self.sweep_jobs = SweepJobs(repository=repository, bus=self.bus, policy=policy, now=clock)
        self.clean_up_jobs = CleanUp(repository=repository, storage=storage, policy=policy, now=clock)

    def set_gate(self, gate: Gate) -> None:
        """Puts a gate of the test before all ports."""
        self.repository.gate = self.storage.gate = self.exports.gate = self.bus.gate = gate

    # --- what a test does

    @property
    def job(self) -> Job:
        """As it is stored; no call of a port."""
        return Job.from_document(self.repository.jobs[self.job_id])

    def take(self, choice: int) -> TaskEvent | None:
        """Takes an event out of the bag."""
        return self.bus.bag.pop(choice % len(self.bus.bag)) if self.bus.bag else None

    def deliver(self, event: TaskEvent | None) -> None:
        """One invocation for one event; what it does not acknowledge is delivered again."""
        if event is None:
            return
        self.last = event
        with self._invocation() as acknowledged:
            deadline = self.now + INVOCATION
            match event:
                case UploadJobCreated():
                    self.process_provider(event, f"run {self.invocations}", deadline)
                case UploadPartCreated():
                    if self.upload_part([event], deadline):
                        return
                case PartUpdated():
                    self.finish_task(event, deadline)
                case TaskUpdated():
                    self.finish_job(event)
            acknowledged.append(True)
        if not acknowledged:
            self.bus.bag.append(event)

    def sweep(self) -> None:
        """The schedule has come."""
        with self._invocation():
            self.sweep_jobs(self.now + timedelta(seconds=50))

    def clean_up(self) -> None:
        """The schedule has come."""
        with self._invocation():
            self.clean_up_jobs(self.now + timedelta(seconds=50))

    def cancel(self) -> None:
        """A call of the API."""
        with self._invocation():
            self.change_job.cancel(self.job_id)

    def retry(self) -> None:
        """A call of the API."""
        with self._invocation():
            self.change_job.retry(self.job_id)

    def pass_time(self, span: timedelta) -> None:
        """Time moves on."""
        self.now += span

    def finish(self) -> None:
        """From here on all goes well; the sweep finds what got lost. Every job ends within its attempt's time."""
        self.quiet = True
        for _ in range(200):
            while self.bus.bag:
                self.deliver(self.take(0))
                assert not unexpected, unexpected[0]
            job = self.job
            if job.status not in UNFINISHED:
                return
            assert job.next_check_at is not None
            assert job.earliest_check is not None
            # A sweep that crashed may have claimed it.
            assert job.next_check_at == job.earliest_check or job.next_check_at <= self.now + CLAIM
            self.now = max(self.now, job.next_check_at)
            self.sweep()
        raise AssertionError(f"the job does not end: {self.job}")

    def grow_old(self) -> None:
        """The time for a retry is over, and what was left is removed."""
        self.quiet = True
        self.now += timedelta(seconds=self.policy.upload_grace_seconds + 1)
        for _ in range(20):
            self.clean_up()
            self.now += timedelta(minutes=11)

    # --- what happens at calls of ports

    @contextmanager
    def _invocation(self) -> Iterator[list[bool]]:
        """A process of its own: its crash is its alone, and an outage is an answer."""
        acknowledged: list[bool] = []
        self.invocations += 1
        self.depth += 1
        try:
            yield acknowledged
        except Crash:
            assert not acknowledged
        except (Unavailable, Conflict, RequestError):
            assert not acknowledged
        finally:
            self.depth -= 1

    def _gate[T](self, port: str, name: str, call: Callable[[], T]) -> T:
        number = self.calls
        self.calls += 1
        fault = None if self.quiet else self.faults.get(number)
        if fault is None:
            return call()
        self.happened.append((number, f"{port}.{name}", fault))
        if fault is Fault.CRASH_BEFORE:
            raise Crash
        if fault is Fault.FAILS:
            raise _outage(port)
        self._meanwhile(fault)
        result = call()
        if fault is Fault.CRASH_AFTER:
            raise Crash
        if fault is Fault.ANSWER_LOST:
            raise _outage(port)
        return result

    def _meanwhile(self, fault: Fault) -> None:
        match fault:
            case Fault.EXPORT_CHANGES:
                for name, site in self.sites.items():
                    site.change()
                    self.history[name].append(site.content)
            case Fault.RANGES:
                for site in self.sites.values():
                    site.ranged = not site.ranged
            case Fault.LOSE_UPLOADS:
                self.storage.uploads.clear()
            case Fault.LOSE_PART:
                for upload in self.storage.uploads.values():
                    upload.parts.pop(min(upload.parts, default=0), None)
            case Fault.LIE:
                self.storage.lies += 1
        if self.depth > DEEPEST:
            return
        match fault:
            case Fault.OTHERS:
                self.deliver(self.take(0))
                self.deliver(self.take(0))
            case Fault.LAST:
                self.deliver(self.take(-1))
            case Fault.AGAIN:
                self.deliver(self.last)
            case Fault.SWEEP:
                self.pass_time(timedelta(seconds=61))
                self.sweep()
            case Fault.CLEAN_UP:
                self.pass_time(timedelta(seconds=61))
                self.clean_up()
            case Fault.CANCEL:
                self.cancel()
            case Fault.RETRY:
                self.retry()


def _outage(port: str) -> Exception:
    if port == "repository":
        return RepositoryUnavailable("MongoDB does not answer.")
    if port == "bus":
        return BusUnavailable("Kafka does not take events.")
    return Transient("A fault on purpose.")
