"""The whole service in one process, wired as the functions wire it, under an order and faults of choice.

Kafka is a bag: any event in it may be delivered next, twice, or be lost. At any call of a port the worker may crash,
the call may fail or its answer get lost, and other events and sweeps may run meanwhile, as in other processes.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import count
from typing import Literal

from sitebackup.backup.create_job import CreateBackup
from sitebackup.bootstrap import Bootstrap, Runtime
from sitebackup.catalog.check_catalog import Check
from sitebackup.catalog.rebuild_catalog import Rebuild
from sitebackup.domain.catalog import Difference
from sitebackup.domain.errors import (
    BusUnavailable,
    Conflict,
    RepositoryUnavailable,
    RequestError,
    Transient,
    Unavailable,
)
from sitebackup.domain.events import (
    DrillCreated,
    Event,
    PartUpdated,
    RestoreTaskCreated,
    TaskEvent,
    TaskUpdated,
    UploadJobCreated,
    UploadPartCreated,
)
from sitebackup.domain.job import UNFINISHED, Job, Status
from sitebackup.domain.manifest import manifest_of
from sitebackup.domain.policy import Policy
from sitebackup.domain.principal import Claims
from sitebackup.domain.provider import Provider
from sitebackup.domain.quota import Limits, Quota
from sitebackup.domain.restore import Restore, RestoreStatus
from sitebackup.domain.retention import pinned_until
from sitebackup.ports.bus import EventBus
from sitebackup.ports.providers import ExportApi, ImportApi, ImportTarget
from sitebackup.ports.repositories import (
    JobRepository,
    PartRepository,
    QuotaRepository,
    RestoreRepository,
    ScheduleRepository,
    SiteRepository,
)
from sitebackup.ports.storage import DownloadLinks, ObjectStorage
from sitebackup.settings import Settings
from sitebackup.telemetry import logger
from sitebackup.upkeep import sweep_jobs
from tests.builders import BY_SERVICE, LOOPBACK
from tests.fakes.bus import MemoryBus
from tests.fakes.clock import ManualClock
from tests.fakes.exports import MemoryExport, MemoryExports
from tests.fakes.faults import FaultInjector
from tests.fakes.imports import MemoryImportApi, MemoryImports, MemoryUpload
from tests.fakes.jobs import MemoryJobs, MemoryRestores
from tests.fakes.links import MemoryLinks
from tests.fakes.parts import MemoryParts
from tests.fakes.pool import InlinePool
from tests.fakes.quotas import MemoryQuotas
from tests.fakes.schedules import MemorySchedules
from tests.fakes.sites import MemorySites
from tests.fakes.storage import BUCKET, MemoryStorage
from tests.simulation.invariants import check_change, check_restore_change

PART_SIZE = 4
"""Bytes. S3's limits don't count in memory."""
SLICE = 2
"""Bytes that are sent to an import API at once."""
DRILL_SLICE = 64
"""Bytes of an object that a drill reads at once."""
START = datetime(2030, 1, 31, 12, tzinfo=UTC)
USER_ID, SITE_ID = "a" * 24, "b" * 24
INVOCATION = timedelta(minutes=14)
PASS = timedelta(seconds=50)
"""Of a sweep or a clean-up."""
JITTER = 0.5
"""What every random number is."""
MAX_DEPTH = 3
"""So many invocations at most stand still in one another."""
MAX_SWEEPS = 200
MAX_DELIVERIES = 1000
"""Without a sweep between them; far more than any job of the simulation needs."""
CLEAN_UPS = 20
CLEAN_UP_INTERVAL = timedelta(minutes=11)
"""Longer than the claim of a pass that crashed."""
SHORTLY = timedelta(seconds=61)
STANDS_FOR = 30
"""Events that others work off at most while a worker stands still: more than a restore has."""


class Crash(BaseException):
    """The process is gone: nothing in it runs on."""


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
    STILL_BEFORE = (
        "the worker stands still before the call until its lease is over; others take over, then it goes on"
    )
    STILL_AFTER = (
        "the worker stands still after the call until its lease is over; others take over, then it goes on"
    )
    FORGET = "the import APIs forget all uploads"
    FALL_BACK = "the import APIs lose the last bytes of all uploads"
    BREAK = "the connection of the next slice breaks in its middle"
    IMPORT_LONG = "the next imports take a while"
    IMPORT_FAILS = "imports fail"
    OFFSET_HIGH = "the import APIs tell more bytes than were sent"
    EXPORT_GONE = "the exports are gone"
    DELETE = "somebody deletes the backup, a minute passes, and the clean-up runs meanwhile"
    CANCEL_RESTORE = "somebody cancels the restore meanwhile"
    RETRY_RESTORE = "somebody retries the restore meanwhile"
    BEGIN_ANEW = "somebody cancels the restore and retries it meanwhile"
    VERIFY = "somebody asks meanwhile whether the backup opens"
    DRILLS = "a run of the drills meanwhile chooses whose backups are opened"
    CANCEL_SAFETY = "somebody cancels the safety backup meanwhile"


OF_RESTORES = frozenset(
    {
        *(
            Fault.FORGET,
            Fault.FALL_BACK,
            Fault.BREAK,
            Fault.IMPORT_LONG,
            Fault.IMPORT_FAILS,
            Fault.OFFSET_HIGH,
        ),
        *(Fault.CANCEL_RESTORE, Fault.RETRY_RESTORE, Fault.BEGIN_ANEW, Fault.CANCEL_SAFETY),
    }
)
"""These change nothing where nothing is restored."""
OUTAGES = frozenset({Fault.CRASH_BEFORE, Fault.CRASH_AFTER, Fault.FAILS, Fault.ANSWER_LOST})
"""After these nobody may be left to tidy up."""
HARMLESS = frozenset({Fault.OTHERS, Fault.LAST, Fault.AGAIN})
"""These may happen any number of times, and the job gets done all the same."""


class UnexpectedErrors(logging.Filter):
    """Keeps the tracebacks of errors that nobody foresaw, and drops what else is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info:
            self.found.append(logging.Formatter().formatException(record.exc_info))
        return False

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Instead of every other outlet of the service's log."""
        log = logging.getLogger(logger.service)
        if self in log.filters:  # an invocation within another
            yield
            return
        log.addFilter(self)
        try:
            yield
        finally:
            log.removeFilter(self)


@dataclass(frozen=True)
class FakeAdapters:
    """What Bootstrap is given. The type checker holds the fakes to the ports here."""

    providers: Mapping[str, Provider]
    jobs: JobRepository
    parts: PartRepository
    schedules: ScheduleRepository
    exports: ExportApi
    imports: ImportApi
    restores: RestoreRepository
    sites: SiteRepository
    quotas: QuotaRepository
    storage: ObjectStorage
    links: DownloadLinks
    bus: EventBus


@dataclass
class SimulatedService:
    """The service with one job, which is just created."""

    served: Mapping[str, MemoryExport]
    """What each provider serves, by its name."""
    faults: Mapping[int, Fault] = field(default_factory=dict)
    """By the number of the call of a port, once the job is created."""
    condition_first: bool = False
    policy: Policy = field(default_factory=lambda: Policy(parts_in_flight=3))
    format: Literal["zip", "any"] = "any"
    """Of all providers."""
    import_status: bool = False
    """Of all providers."""
    export_api: ExportApi | None = None
    """In place of the fake, which then serves nothing."""
    export_url: str = "http://provider"

    def __post_init__(self) -> None:
        self.clock = ManualClock(START)
        self.calls: list[str] = []
        """Every call of a port so far, as `port.name`."""
        self.happened: list[tuple[int, str, Fault]] = []
        self.last: Event | None = None
        self.history = {name: [export.content] for name, export in self.served.items()}
        self.invocations = 0
        self._depth = 0
        self._unexpected = UnexpectedErrors()
        self._all_is_well = True
        self.injector: FaultInjector = self._inject_chosen
        self.jobs = MemoryJobs(self._inject)
        self.jobs.on_stored = self._check_stored
        self.jobs.on_added = self._check_added
        self.parts = MemoryParts(self._inject)
        self.schedules = MemorySchedules(self._inject)
        self.sites = MemorySites(self._inject)
        self.exports = MemoryExports(self._inject)
        self.exports.by_provider = dict(self.served)
        self.imports = MemoryImports(self._inject)
        self.imports.by_provider = {name: MemoryImportApi() for name in self.served}
        self.imports.on_created = self._check_created
        self.imports.on_received = self._check_received
        self.imports.wait = lambda seconds: self.pass_time(timedelta(seconds=seconds))
        self.restores = MemoryRestores(self.jobs, self._inject)
        self.restores.on_stored = self._check_restore_stored
        self.quotas = MemoryQuotas(self.jobs, self.restores, self.schedules, self._inject)
        self.began_sending: set[tuple[str, int]] = set()
        """The (restoreId, attempt) that did, as each has to be allowed to (I20)."""
        self.stored_sent_to: dict[str, int] = {}
        """By the URL of an upload, how far it may have been sent, as far as it was ever stored."""
        self.safety_in_vain: set[str] = set()
        """Safety backups that were made when nobody waited for them any longer."""
        self.late = Counter[tuple[str, int]]()
        """Slices that arrived though their task was cancelled by then, by (URL, attempt)."""
        self.storage = MemoryStorage(self._inject, condition_first=self.condition_first)
        self.storage.on_removal = self._check_removal
        self.storage.now = lambda: self.now
        self.links = MemoryLinks(lambda: self.now, self._inject)
        self.bus = MemoryBus(self._inject)
        self._wire()
        self.job_id = self.create(CreateBackup(user_id=USER_ID, site_id=SITE_ID)).id
        self._all_is_well = False
        self.calls.clear()

    def _wire(self) -> None:
        ids = count(1)
        providers = {
            name: Provider(
                name=name,
                export_url=self.export_url,
                allow_networks=LOOPBACK,
                format=self.format,
                import_url="http://provider/imports",
                import_status=self.import_status,
            )
            for name in self.served
        }
        adapters = FakeAdapters(
            providers=providers,
            jobs=self.jobs,
            parts=self.parts,
            schedules=self.schedules,
            exports=self.export_api or self.exports,
            imports=self.imports,
            restores=self.restores,
            sites=self.sites,
            quotas=self.quotas,
            storage=self.storage,
            links=self.links,
            bus=self.bus,
        )
        runtime = Runtime(
            clock=self.clock.as_port(),
            random=lambda: JITTER,
            new_id=lambda: f"{next(ids):024x}",
            pool=InlinePool,
        )
        bootstrap = Bootstrap(self._settings(providers), adapters, runtime)
        self.recorder = bootstrap.recorder
        self.task_recorder = bootstrap.task_recorder
        self.create_job = bootstrap.create_job()
        self.change_job = bootstrap.change_job()
        self.process_provider = bootstrap.process_provider()
        self.upload_part = bootstrap.upload_part()
        self.finish_task = bootstrap.finish_task()
        self.finish_job = bootstrap.finish_job()
        self.create_restore = bootstrap.create_restore()
        self.change_restore = bootstrap.change_restore()
        self.restore_provider = replace(bootstrap.restore_provider(), slice_bytes=SLICE)
        self.sweep_restores = bootstrap.sweep_restores()
        self.run_drills = bootstrap.run_drills()
        self.drill_backup = replace(
            bootstrap.drill_backup(), slice_bytes=DRILL_SLICE, directory_bytes=DRILL_SLICE
        )
        self.verify_backup = bootstrap.verify_backup()
        self.create_download = bootstrap.create_download()
        self.sweep_jobs = bootstrap.sweep_jobs()
        self.clean_up_jobs = bootstrap.clean_up()
        self.check_catalog = bootstrap.check_catalog()
        self.rebuild_catalog = bootstrap.rebuild_catalog()

    def _settings(self, providers: dict[str, Provider]) -> Settings:
        return Settings(
            providers=providers,
            bucket=BUCKET,
            kafka_bootstrap_servers="",
            kafka_auth="none",
            mongo_uri="",
            mongo_secret_arn="",
            mongo_database="",
            s3_endpoint_url=None,
            part_size=PART_SIZE,
            parts_at_once=4,
            max_bytes=None,
            export_timeout=30,
            download_time=timedelta(minutes=15),
            download_role_arn=None,
            schedule_window=timedelta(hours=1),
            schedule_min_interval=timedelta(hours=1),
            claims=Claims(),
            policy=self.policy,
        )

    def _check_stored(self, before: Job, after: Job) -> None:
        check_change(before, after, self.now)
        self._check_quotas()
        assert after.next_check_at == after.earliest_check, "the sweep's index was forgotten"
        if after.status is Status.DONE and before.status is not Status.DONE:
            described = list(self.storage.versions.get(after.manifest_key, {}).values())
            assert described == [manifest_of(after)], "a job got done without its manifest (I18)"
            self._check_locked(after)
        if after.removing_at is not None and before.removing_at is None:
            assert pinned_until(before, self.now) is None, "a pinned backup is removed (I19)"

    def _check_quotas(self) -> None:
        """The user has never more than they may: active backups, and bytes of verified objects."""
        limits = self.quotas.exceptions.get(USER_ID, Limits())
        counted = [job for job in self.jobs.all() if job.safety_for is None and job.user_id == USER_ID]
        active = sum(job.is_active for job in counted)
        most = limits.limit(Quota.ACTIVE_JOBS, self.policy)
        assert most is None or active <= most
        kept = [job for job in counted if job.is_active or job.status is Status.DONE]
        stored = sum(task.object.size for job in kept for task in job.tasks.values() if task.object)
        most = limits.limit(Quota.STORED_BYTES, self.policy)
        assert most is None or stored <= most

    def _check_locked(self, job: Job) -> None:
        """A job that got done has the locks that it was sealed with."""
        kept = {(task.object.key, task.object.version_id or "") for task in job.tasks.values() if task.object}
        kept |= {(job.manifest_key, version) for version in self.storage.versions[job.manifest_key]}
        until = job.lock.until if job.lock else None
        for one in kept:
            held = self.storage.held_versions.get(one)
            assert (held.until if held else None) == until, "a version is not locked as its job says"

    def _check_added(self, job: Job) -> None:
        """A safety backup runs under its restore's claim (I10), unless that ends while it is made."""
        self._check_quotas()
        if job.safety_for is None:
            return
        restore = self.stored_restore(job.safety_for.restore_id)
        assert job.safety_for.attempt <= restore.attempt
        if (restore.status, restore.safety_job_id) != (RestoreStatus.BACKING_UP, job.id):
            self.safety_in_vain.add(job.id)

    def _check_removal(self, key: str, version_id: str) -> None:
        """No removal touches what is pinned (I19)."""
        for job in self.jobs.all():
            if pinned_until(job, self.now) is None:
                continue
            assert key != job.manifest_key, "the manifest of a pinned backup is removed (I19)"
            kept = {(task.object.key, task.object.version_id) for task in job.tasks.values() if task.object}
            assert (key, version_id) not in kept, "an object of a pinned backup is removed (I19)"

    def _check_restore_stored(self, before: Restore, after: Restore) -> None:
        check_restore_change(before, after, self.now)
        assert after.next_check_at == after.earliest_check, "the sweep's index was forgotten"
        if after.status is RestoreStatus.RUNNING:
            if before.status is not RestoreStatus.RUNNING:
                self._check_begins(after)
            self.check_source(after)
        for name, task in after.tasks.items():
            if task.upload:
                url, sent_to = task.upload.url, task.upload.sent_to
                self.stored_sent_to[url] = max(sent_to, self.stored_sent_to.get(url, 0))
            if task.status is Status.DONE and before.tasks[name].status is not Status.DONE:
                self._check_imported(after, name)

    def _check_begins(self, restore: Restore) -> None:
        """Nothing is sent before the safety backup is done, unless nobody wants one (I20)."""
        self.began_sending.add((restore.id, restore.attempt))
        if restore.safety_backup:
            assert restore.safety_job_id is not None
            safety = self.stored(restore.safety_job_id)
            assert (safety.status, safety.safety_for) == (Status.DONE, restore.ref), "I20"
            needed = {name for name, task in restore.tasks.items() if task.status in UNFINISHED}
            assert safety.tasks.keys() == needed
            assert (safety.user_id, safety.site_id) == (restore.user_id, restore.site_id)

    def check_source(self, restore: Restore) -> None:
        """What a restore needs is pinned and there (I19)."""
        assert restore.deadline_at is not None
        job = self.stored(restore.job_id)
        assert (job.status, job.removing_at) == (Status.DONE, None)
        assert job.pins[restore.pin_owner] >= restore.deadline_at
        for name, task in restore.tasks.items():
            assert task.object == job.tasks[name].object
            assert task.object.version_id in self.storage.versions[task.object.key]

    def _check_imported(self, restore: Restore, name: str) -> None:
        """A task is done only if the provider has taken the very bytes, once (I20)."""
        stored = restore.tasks[name].object
        content = self.storage.versions[stored.key][stored.version_id or ""]
        assert self.imports.imported.get((name, restore.user_id, restore.site_id)) == content
        assert self.imports.carried_out[restore.id, name] == 1

    def _check_created(self, target: ImportTarget, url: str) -> None:
        restore = self.stored_restore(target.restore_id)
        assert restore.id in {restore_id for restore_id, _ in self.began_sending}, "I20"
        task = restore.tasks[self.imports.uploads[url].provider]
        assert target == ImportTarget(
            user_id=restore.user_id,
            site_id=restore.site_id,
            job_id=restore.job_id,
            restore_id=restore.id,
            crc64nvme=task.object.checksum_crc64nvme,
        )

    def _check_received(self, url: str, upload: MemoryUpload) -> None:
        """What may have been sent is stored before it is; after a cancel arrives what was on its way at most."""
        assert len(upload.data) <= self.stored_sent_to.get(url, 0), "more was sent than was stored before"
        restore = self.stored_restore(upload.target.restore_id)
        task = restore.tasks[upload.provider]
        if task.upload and task.upload.url == url and task.status is Status.CANCELLED:
            self.late[url, restore.attempt] += 1
            assert self.late[url, restore.attempt] == 1, "it was sent on after a cancel"

    # --- what a test sees

    @property
    def now(self) -> datetime:
        return self.clock.now

    @property
    def job(self) -> Job:
        """The first job, as it is stored; no call of a port."""
        return self.stored(self.job_id)

    def stored(self, job_id: str) -> Job:
        """A job as it is stored; no call of a port."""
        return next(job for job in self.jobs.all() if job.id == job_id)

    def stored_restore(self, restore_id: str) -> Restore:
        """A restore as it is stored; no call of a port."""
        return next(restore for restore in self.restores.all() if restore.id == restore_id)

    @property
    def unexpected(self) -> list[str]:
        """Tracebacks of errors that nobody foresaw: the functions log them and fail the record."""
        return self._unexpected.found

    # --- what a test does

    def create(self, request: CreateBackup) -> Job:
        """A call of the API that nothing disturbs. Raises what CreateJob does."""
        with self._unexpected.watching():
            return self.create_job(BY_SERVICE, request, None)

    def take(self, choice: int) -> Event | None:
        """Takes an event out of the bag."""
        return self.bus.bag.pop(choice % len(self.bus.bag)) if self.bus.bag else None

    def take_of(self, *kinds: type[TaskEvent], provider: str | None = None) -> TaskEvent | None:
        """Takes the oldest event of these kinds, and of this provider, out of the bag."""
        for event in self.bus.bag:
            if isinstance(event, kinds or TaskEvent) and provider in (None, event.task.provider):
                self.bus.bag.remove(event)
                return event
        return None

    def deliver(self, event: Event | None) -> None:
        """One invocation for one event; what it does not acknowledge is delivered again."""
        if event is None:
            return
        self.last = event
        with self.invocation() as acknowledged:
            deadline = self.now + INVOCATION
            match event:
                case DrillCreated():
                    self.drill_backup(event, f"run {self.invocations}", deadline)
                case UploadJobCreated():
                    self.process_provider(event, f"run {self.invocations}", deadline)
                case UploadPartCreated():
                    if self.upload_part([event], deadline):
                        return
                case PartUpdated():
                    self.finish_task(event, deadline)
                case TaskUpdated():
                    self.finish_job(event, deadline)
                case RestoreTaskCreated():
                    self.restore_provider(event, f"run {self.invocations}", deadline)
            acknowledged.append(True)
        if not acknowledged:
            self.bus.bag.append(event)

    def deliver_next(self, count: int) -> None:
        """So many events, oldest first."""
        for _ in range(count):
            self.deliver(self.take(0))

    def deliver_all(self, *kinds: type[TaskEvent], provider: str | None = None) -> None:
        """Every event of these kinds, and of this provider, and those that come meanwhile; or every one there is."""
        for _ in range(MAX_DELIVERIES):
            event = self.take_of(*kinds, provider=provider) if kinds or provider else self.take(0)
            if event is None:
                return
            self.deliver(event)
        raise AssertionError(f"events go round and round: {self.bus.bag}")

    def sweep(self) -> None:
        """The schedule has come."""
        with self.invocation():
            self.sweep_restores(self.now + PASS)
            self.sweep_jobs(self.now + PASS)

    def clean_up(self) -> None:
        """The schedule has come."""
        with self.invocation():
            self.clean_up_jobs(self.now + PASS)

    def cancel(self) -> None:
        """A call of the API."""
        with self.invocation():
            self.change_job.cancel(BY_SERVICE, self.job_id)

    def retry(self) -> None:
        """A call of the API."""
        with self.invocation():
            self.change_job.retry(BY_SERVICE, self.job_id)

    def cancel_restore(self) -> None:
        """A call of the API, about the newest restore."""
        for restore in self.restores.all()[-1:]:
            with self.invocation():
                self.change_restore.cancel(BY_SERVICE, restore.id)

    def retry_restore(self) -> None:
        """A call of the API, about the newest restore."""
        for restore in self.restores.all()[-1:]:
            with self.invocation():
                self.change_restore.retry(BY_SERVICE, restore.id)

    def cancel_safety_backup(self) -> None:
        """A call of the API, about the newest restore's."""
        for restore in self.restores.all()[-1:]:
            with self.invocation():
                self.change_job.cancel(BY_SERVICE, restore.safety_job_id or "")

    def delete(self) -> None:
        """A call of the API: the job's data may go."""
        with self.invocation():
            self.change_job.delete(BY_SERVICE, self.job_id, None)

    def verify(self) -> None:
        """A call of the API: somebody asks whether the job's backup opens."""
        with self.invocation():
            self.verify_backup(BY_SERVICE, self.job_id)

    def begin_drills(self) -> None:
        """The schedule has come."""
        with self.invocation():
            self.run_drills(self.now + PASS)

    def stand_still(self) -> None:
        """Whoever is at work stands still until others have taken over and come as far as they can."""
        self.pass_time(timedelta(seconds=self.policy.lease_seconds + 1))
        self.sweep()
        self.deliver_next(STANDS_FOR)

    def check_differences(self) -> list[Difference]:
        """Between the records and the bucket as they stand, however things go otherwise."""
        well, self._all_is_well = self._all_is_well, True
        calls = len(self.calls)
        try:
            checked = self.check_catalog(Check(), self.now + PASS)
        finally:
            self._all_is_well = well
            del self.calls[calls:]
        assert checked.marker is None
        return checked.differences

    def rebuild(self) -> Job | None:
        """The job, from the bucket alone; all is well from here on."""
        self._all_is_well = True
        self.jobs.documents.clear()
        self.jobs.claimed.clear()
        rebuilt = self.rebuild_catalog(Rebuild(before=self.now), self.now + PASS)
        assert (rebuilt.left_out, rebuilt.marker) == ([], None)
        return next((job for job in self.jobs.all() if job.id == self.job_id), None)

    def download(self, job_id: str, provider: str) -> None:
        """A call of the API."""
        with self.invocation():
            self.create_download(BY_SERVICE, job_id, provider)

    def pass_time(self, span: timedelta) -> None:
        """Time moves on."""
        self.clock.advance(span)

    def change_exports(self) -> None:
        """The sites go on living."""
        for name, export in self.served.items():
            export.change()
            self.history[name].append(export.content)

    def finish(self) -> None:
        """From here on all goes well; the sweep finds what got lost. Every job ends within its attempt's time."""
        self._all_is_well = True
        for _ in range(MAX_SWEEPS):
            self.deliver_all()
            assert not self.unexpected, self.unexpected[0]
            job = self.job
            if job.status not in UNFINISHED:
                return
            assert job.next_check_at is not None
            assert job.earliest_check is not None
            # A sweep that crashed may have claimed it.
            assert job.next_check_at == job.earliest_check or job.next_check_at <= self.now + sweep_jobs.CLAIM
            self.clock.advance_to(job.next_check_at)
            self.sweep()
        raise AssertionError(f"the job does not end: {self.job}")

    def grow_old(self) -> None:
        """The time for a retry is over, and what was left is removed."""
        self._all_is_well = True
        self.pass_time(timedelta(seconds=self.policy.upload_grace_seconds + 1))
        for _ in range(CLEAN_UPS):
            self.clean_up()
            self.pass_time(CLEAN_UP_INTERVAL)

    @contextmanager
    def invocation(self) -> Iterator[list[bool]]:
        """A process of its own: its crash is its alone, and an outage is an answer."""
        acknowledged: list[bool] = []
        self.invocations += 1
        self._depth += 1
        try:
            with self._unexpected.watching():
                yield acknowledged
        except Crash:
            assert not acknowledged
        except (Unavailable, Conflict, RequestError):
            assert not acknowledged
        finally:
            self._depth -= 1

    # --- what happens at calls of ports

    def before(self, call: str, action: Callable[[], object], *, times: int | None = None) -> None:
        """Does something just before each such call (`port.name`) from here on, or before the first so many."""
        inner, left = self.injector, times

        def spoilt[T](port: str, name: str, work: Callable[[], T]) -> T:
            nonlocal left
            if f"{port}.{name}" == call and left != 0:
                left = left and left - 1
                action()
            return inner(port, name, work)

        self.injector = spoilt

    def after(self, call: str, action: Callable[[], object]) -> None:
        """Does something just after each such call from here on."""
        inner = self.injector

        def followed[T](port: str, name: str, work: Callable[[], T]) -> T:
            answer = inner(port, name, work)
            if f"{port}.{name}" == call:
                action()
            return answer

        self.injector = followed

    def _inject[T](self, port: str, name: str, call: Callable[[], T]) -> T:
        return self.injector(port, name, call)

    def _inject_chosen[T](self, port: str, name: str, call: Callable[[], T]) -> T:
        number = len(self.calls)
        self.calls.append(f"{port}.{name}")
        fault = None if self._all_is_well else self.faults.get(number)
        if fault is None:
            return call()
        self.happened.append((number, f"{port}.{name}", fault))
        if fault is Fault.CRASH_BEFORE:
            raise Crash
        if fault is Fault.FAILS:
            raise _outage(port)
        self._spoil(fault)
        if self._depth <= MAX_DEPTH:
            self._run_others(fault)
        result = call()
        if fault is Fault.STILL_AFTER and self._depth <= MAX_DEPTH:
            self.stand_still()
        if fault is Fault.CRASH_AFTER:
            raise Crash
        if fault is Fault.ANSWER_LOST:
            raise _outage(port)
        return result

    def _spoil(self, fault: Fault) -> None:
        """Something changes outside of the service."""
        match fault:
            case Fault.EXPORT_CHANGES:
                self.change_exports()
            case Fault.RANGES:
                for export in self.served.values():
                    export.ranged = not export.ranged
            case Fault.LOSE_UPLOADS:
                self.storage.uploads.clear()
            case Fault.LOSE_PART:
                for upload in self.storage.uploads.values():
                    upload.lose_first_part()
            case Fault.LIE:
                self.storage.lies += 1
            case Fault.EXPORT_GONE:
                self.exports.by_provider.clear()
            case _:
                self._spoil_imports(fault)

    def _spoil_imports(self, fault: Fault) -> None:
        """The import APIs have a mind of their own."""
        uploads = self.imports.uploads
        if fault is Fault.FORGET:
            uploads.clear()
        if fault is Fault.FALL_BACK:
            for url in [url for url, upload in uploads.items() if upload.state == "receiving"]:
                self.imports.lose_bytes(url, SLICE - 1)
        for api in self.imports.by_provider.values():
            match fault:
                case Fault.BREAK:
                    api.takes = SLICE // 2
                case Fault.IMPORT_LONG:
                    api.processing = 5
                case Fault.IMPORT_FAILS:
                    api.fails = "there is no room left"
                case Fault.OFFSET_HIGH:
                    api.off_by = SLICE + 1

    def _run_others(self, fault: Fault) -> None:
        """Other invocations begin and end."""
        match fault:
            case Fault.OTHERS:
                self.deliver_next(2)
            case Fault.LAST:
                self.deliver(self.take(-1))
            case Fault.AGAIN:
                self.deliver(self.last)
            case Fault.SWEEP:
                self.pass_time(SHORTLY)
                self.sweep()
            case Fault.CLEAN_UP:
                self.pass_time(SHORTLY)
                self.clean_up()
            case Fault.VERIFY:
                self.verify()
            case Fault.DRILLS:
                self.begin_drills()
            case Fault.CANCEL:
                self.cancel()
            case Fault.RETRY:
                self.retry()
            case Fault.STILL_BEFORE:
                self.stand_still()
            case Fault.DELETE:
                self.delete()
                self.pass_time(SHORTLY)
                self.clean_up()
            case Fault.CANCEL_RESTORE:
                self.cancel_restore()
            case Fault.RETRY_RESTORE:
                self.retry_restore()
            case Fault.BEGIN_ANEW:
                self.cancel_restore()
                self.retry_restore()
            case Fault.CANCEL_SAFETY:
                self.cancel_safety_backup()


def _outage(port: str) -> Exception:
    if port in ("jobs", "parts", "schedules", "restores", "sites", "quotas"):
        return RepositoryUnavailable("MongoDB does not answer.")
    if port == "bus":
        return BusUnavailable("Kafka does not take events.")
    if port == "links":
        return Unavailable("STS can't be reached.")
    return Transient("A fault on purpose.")
