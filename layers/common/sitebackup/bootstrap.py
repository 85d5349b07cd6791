"""The one place that wires adapters and use cases; each function wires its own, once, when it starts.

Use cases are imported where they are needed: a function does not pay for one that it does not use.
"""

import os
import random
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from .adapters.production import ProductionAdapters
from .domain.model import to_milliseconds
from .domain.provider import Provider
from .ports.bus import EventBus
from .ports.providers import ExportApi, ImportApi
from .ports.repositories import (
    JobRepository,
    PartRepository,
    QuotaRepository,
    RestoreRepository,
    ScheduleRepository,
    SiteRepository,
)
from .ports.runtime import Clock, Pool
from .ports.storage import DownloadLinks, ObjectStorage
from .settings import Settings

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

    from .backup.accept_object import AcceptObject
    from .backup.change_job import ChangeJob
    from .backup.create_job import CreateJob
    from .backup.finish_job import FinishJob
    from .backup.finish_task import FinishTask
    from .backup.get_job import GetDocument
    from .backup.manage_limits import ManageLimits
    from .backup.process_provider import ProcessProvider
    from .backup.quotas import Quotas
    from .backup.recorder import JobStore, Recorder
    from .backup.task_recorder import TaskRecorder
    from .backup.upload_part import UploadPart
    from .catalog.check_catalog import CheckCatalog
    from .catalog.rebuild_catalog import RebuildCatalog
    from .catalog.save_settings import SaveSettings
    from .domain.job import Job
    from .domain.restore import Restore
    from .drills.drill_backup import DrillBackup
    from .drills.get_drills import GetDrills
    from .drills.run_drills import RunDrills
    from .drills.settle_site import SettleSite
    from .drills.verify_backup import VerifyBackup
    from .restore.advance_restore import AdvanceRestore
    from .restore.change_restore import ChangeRestore
    from .restore.create_download import CreateDownload
    from .restore.create_restore import CreateRestore
    from .restore.recorder import RestoreRecorder
    from .restore.rehearse_restore import RehearseRestore
    from .restore.restore_provider import RestoreProvider
    from .schedules.manage_schedule import ManageSchedule
    from .schedules.run_schedule import RunSchedule
    from .transfer.retrying import RetryInProcess
    from .upkeep.clean_up import CleanUp
    from .upkeep.get_retention import GetRetention
    from .upkeep.sweep_jobs import SweepJobs
    from .upkeep.sweep_restores import SweepRestores

SPARE = timedelta(seconds=25)
"""Kept of an invocation for a last call of S3 that began in time, 13 s at most, and for storing its outcome."""


def now() -> datetime:
    """UTC, in milliseconds."""
    return to_milliseconds(datetime.now(UTC))


CLOCK = Clock(now=now, monotonic=time.monotonic, sleep=time.sleep)


def deadline(context: "LambdaContext") -> datetime:
    """When the work of this invocation must be over."""
    return now() + timedelta(milliseconds=context.get_remaining_time_in_millis()) - SPARE


def new_id() -> str:
    """24 hex digits; later ones sort behind earlier ones."""
    from bson import ObjectId

    return str(ObjectId())


class Adapters(Protocol):
    """What the service works with; each may be built when it is first asked for."""

    @property
    def providers(self) -> Mapping[str, Provider]: ...
    @property
    def jobs(self) -> JobRepository: ...
    @property
    def parts(self) -> PartRepository: ...
    @property
    def schedules(self) -> ScheduleRepository: ...
    @property
    def exports(self) -> ExportApi: ...
    @property
    def imports(self) -> ImportApi: ...
    @property
    def storage(self) -> ObjectStorage: ...
    @property
    def links(self) -> DownloadLinks: ...
    @property
    def bus(self) -> EventBus: ...
    @property
    def restores(self) -> RestoreRepository: ...
    @property
    def sites(self) -> SiteRepository: ...
    @property
    def quotas(self) -> QuotaRepository: ...


@dataclass(frozen=True)
class Runtime:
    """What a process gives: time, chance, threads."""

    clock: Clock = CLOCK
    random: Callable[[], float] = random.random
    new_id: Callable[[], str] = new_id
    pool: Pool = ThreadPoolExecutor


class Bootstrap:
    """Wires each use case from the settings, the adapters and the runtime."""

    def __init__(self, settings: Settings, adapters: Adapters, runtime: Runtime | None = None) -> None:
        self.settings = settings
        self.adapters = adapters
        self.runtime = runtime or Runtime()

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> "Bootstrap":
        """For a function of a deployment. Raises SettingsError."""
        settings = Settings.from_env(env)
        return cls(settings, ProductionAdapters(settings, now))

    # --- what use cases share

    @cached_property
    def job_store(self) -> "JobStore":
        """Stores what becomes of jobs, for functions that need no Kafka."""
        from .backup.recorder import JobStore

        return JobStore(self.adapters.jobs, self.settings.policy, self.runtime.clock.now)

    @cached_property
    def recorder(self) -> "Recorder":
        """Stores what becomes of jobs, and emits the events that follow."""
        from .backup.recorder import Recorder

        return Recorder(
            jobs=self.adapters.jobs,
            bus=self.adapters.bus,
            policy=self.settings.policy,
            now=self.runtime.clock.now,
        )

    @cached_property
    def task_recorder(self) -> "TaskRecorder":
        """Stores what becomes of the task that a worker is at."""
        from .backup.task_recorder import TaskRecorder

        return TaskRecorder(
            recorder=self.recorder,
            parts=self.adapters.parts,
            storage=self.adapters.storage,
            random=self.runtime.random,
        )

    @cached_property
    def quotas(self) -> "Quotas":
        """What users may still have or do."""
        from .backup.quotas import Quotas

        return Quotas(self.adapters.quotas, self.settings.policy, self.runtime.clock.now)

    @cached_property
    def _accept_object(self) -> "AcceptObject":
        from .backup.accept_object import AcceptObject

        return AcceptObject(self.recorder, self.adapters.storage, self.adapters.providers)

    @cached_property
    def _retry(self) -> "RetryInProcess":
        from .transfer.retrying import RetryInProcess

        return RetryInProcess(self.runtime.clock)

    # --- backups

    def create_job(self) -> "CreateJob":
        """For `functions/create_job`."""
        from .backup.create_job import CreateJob

        return CreateJob(self.recorder, self.quotas, self.adapters.providers, self.runtime.new_id)

    def change_job(self) -> "ChangeJob":
        """For `functions/change_job`."""
        from .backup.change_job import ChangeJob

        return ChangeJob(self.recorder, self.quotas)

    def get_job(self) -> "GetDocument[Job]":
        """For `functions/get_job`."""
        from .backup.get_job import GetDocument

        return GetDocument(self.adapters.jobs, "backup", self.runtime.clock)

    def process_provider(self) -> "ProcessProvider":
        """For `functions/process_provider`."""
        from .backup.process_provider import ProcessProvider
        from .backup.reserve_bytes import ReserveBytes
        from .backup.stream import MoveStream

        adapters, settings, clock = self.adapters, self.settings, self.runtime.clock
        reserve = ReserveBytes(self.recorder, adapters.quotas)
        return ProcessProvider(
            tasks=self.task_recorder,
            accept=self._accept_object,
            reserve=reserve,
            move_stream=MoveStream(
                tasks=self.task_recorder,
                accept=self._accept_object,
                reserve=reserve,
                parts=adapters.parts,
                storage=adapters.storage,
                retry=self._retry,
                part_size=settings.part_size,
                clock=clock,
                pool=self.runtime.pool,
            ),
            exports=adapters.exports,
            parts=adapters.parts,
            storage=adapters.storage,
            retry=self._retry,
            providers=adapters.providers,
            part_size=settings.part_size,
            max_bytes=settings.max_bytes,
            clock=clock,
        )

    def upload_part(self) -> "UploadPart":
        """For `functions/upload_part`."""
        from .backup.upload_part import UploadPart

        return UploadPart(
            tasks=self.task_recorder,
            exports=self.adapters.exports,
            parts=self.adapters.parts,
            storage=self.adapters.storage,
            retry=self._retry,
            providers=self.adapters.providers,
            at_once=self.settings.parts_at_once,
            clock=self.runtime.clock,
            pool=self.runtime.pool,
        )

    def finish_task(self) -> "FinishTask":
        """For `functions/finish_task`."""
        from .backup.complete_upload import CompleteUpload
        from .backup.finish_task import FinishTask

        adapters = self.adapters
        return FinishTask(
            tasks=self.task_recorder,
            accept=self._accept_object,
            complete=CompleteUpload(adapters.jobs, adapters.storage, self.runtime.clock),
            parts=adapters.parts,
            retry=self._retry,
        )

    def finish_job(self) -> "FinishJob":
        """For `functions/finish_job`."""
        from .backup.finish_job import FinishJob

        adapters = self.adapters
        return FinishJob(self.recorder, adapters.sites, adapters.storage, self._retry, self.runtime.clock)

    def manage_limits(self) -> "ManageLimits":
        """For `functions/manage_schedule`."""
        from .backup.manage_limits import ManageLimits

        return ManageLimits(self.quotas)

    # --- restores

    @cached_property
    def restore_recorder(self) -> "RestoreRecorder":
        """Stores what becomes of restores, and emits the events that follow."""
        from .restore.recorder import RestoreRecorder

        return RestoreRecorder(
            restores=self.adapters.restores,
            policy=self.settings.policy,
            now=self.runtime.clock.now,
            bus=self.adapters.bus,
        )

    @cached_property
    def advance_restore(self) -> "AdvanceRestore":
        """Takes restores from step to step."""
        from .restore.advance_restore import AdvanceRestore

        return AdvanceRestore(self.restore_recorder, self.recorder, self.runtime.new_id)

    def create_restore(self) -> "CreateRestore":
        """For `functions/create_restore`."""
        from .restore.create_restore import CreateRestore

        return CreateRestore(
            recorder=self.restore_recorder,
            jobs=self.adapters.jobs,
            quotas=self.quotas,
            advance=self.advance_restore,
            providers=self.adapters.providers,
            new_id=self.runtime.new_id,
        )

    def rehearse_restore(self) -> "RehearseRestore":
        """For `functions/create_restore`."""
        from .restore.rehearse_restore import RehearseRestore

        return RehearseRestore(
            create_restore=self.create_restore(),
            storage=self.adapters.storage,
            imports=self.adapters.imports,
            providers=self.adapters.providers,
            clock=self.runtime.clock,
            pool=self.runtime.pool,
        )

    def change_restore(self) -> "ChangeRestore":
        """For `functions/change_restore`."""
        from .restore.change_restore import ChangeRestore

        return ChangeRestore(self.restore_recorder, self.advance_restore)

    def get_restore(self) -> "GetDocument[Restore]":
        """For `functions/get_restore`."""
        from .backup.get_job import GetDocument

        return GetDocument(self.adapters.restores, "restore", self.runtime.clock)

    def restore_provider(self) -> "RestoreProvider":
        """For `functions/restore_provider`."""
        from .restore.restore_provider import RestoreProvider

        return RestoreProvider(
            recorder=self.restore_recorder,
            advance=self.advance_restore,
            imports=self.adapters.imports,
            storage=self.adapters.storage,
            providers=self.adapters.providers,
            retry=self._retry,
            clock=self.runtime.clock,
            pool=self.runtime.pool,
            random=self.runtime.random,
        )

    # --- the way back

    def create_download(self) -> "CreateDownload":
        """For `functions/create_download`."""
        from .restore.create_download import CreateDownload

        return CreateDownload(self.job_store, self.adapters.links, self.settings.download_time)

    # --- drills

    @cached_property
    def _settle_site(self) -> "SettleSite":
        from .drills.settle_site import SettleSite

        return SettleSite(self.adapters.sites, self.adapters.jobs)

    def run_drills(self) -> "RunDrills":
        """For `functions/run_drills`."""
        from .drills.run_drills import RunDrills

        return RunDrills(self.recorder, self._settle_site, self.adapters.sites)

    def drill_backup(self) -> "DrillBackup":
        """For `functions/drill_backup`."""
        from .drills.drill_backup import DrillBackup

        return DrillBackup(
            recorder=self.recorder,
            settle=self._settle_site,
            sites=self.adapters.sites,
            storage=self.adapters.storage,
            retry=self._retry,
            clock=self.runtime.clock,
            pool=self.runtime.pool,
            random=self.runtime.random,
        )

    def get_drills(self) -> "GetDrills":
        """For `functions/get_drills`."""
        from .drills.get_drills import GetDrills

        return GetDrills(self.adapters.sites, self.settings.policy, self.runtime.clock.now)

    def verify_backup(self) -> "VerifyBackup":
        """For `functions/change_job`."""
        from .drills.verify_backup import VerifyBackup

        return VerifyBackup(self.recorder, self._settle_site)

    # --- schedules

    def manage_schedule(self) -> "ManageSchedule":
        """For `functions/manage_schedule`."""
        from .schedules.manage_schedule import ManageSchedule

        return ManageSchedule(
            schedules=self.adapters.schedules,
            quotas=self.quotas,
            providers=self.adapters.providers,
            window=self.settings.schedule_window,
            min_interval=self.settings.schedule_min_interval,
            now=self.runtime.clock.now,
        )

    def run_schedule(self) -> "RunSchedule":
        """For `functions/run_schedule`."""
        from .schedules.run_schedule import RunSchedule

        return RunSchedule(
            schedules=self.adapters.schedules,
            create_job=self.create_job(),
            window=self.settings.schedule_window,
            now=self.runtime.clock.now,
        )

    # --- the catalogue

    def rebuild_catalog(self) -> "RebuildCatalog":
        """For `functions/rebuild_catalog`."""
        from .catalog.rebuild_catalog import RebuildCatalog

        return RebuildCatalog(
            jobs=self.adapters.jobs,
            schedules=self.adapters.schedules,
            quotas=self.adapters.quotas,
            sites=self.adapters.sites,
            storage=self.adapters.storage,
            policy=self.settings.policy,
            clock=self.runtime.clock,
            pool=self.runtime.pool,
        )

    def check_catalog(self) -> "CheckCatalog":
        """For `functions/check_catalog`."""
        from .catalog.check_catalog import CheckCatalog

        adapters, runtime = self.adapters, self.runtime
        return CheckCatalog(adapters.jobs, adapters.storage, runtime.clock, runtime.pool)

    def save_settings(self) -> "SaveSettings":
        """For `functions/save_settings`."""
        from .catalog.save_settings import SaveSettings

        return SaveSettings(
            schedules=self.adapters.schedules,
            quotas=self.adapters.quotas,
            storage=self.adapters.storage,
            clock=self.runtime.clock,
            day_seconds=self.settings.policy.day_seconds,
        )

    # --- upkeep

    def sweep_jobs(self) -> "SweepJobs":
        """For `functions/sweep_jobs`."""
        from .upkeep.sweep_jobs import SweepJobs

        return SweepJobs(self.recorder, self.adapters.parts)

    def sweep_restores(self) -> "SweepRestores":
        """For `functions/sweep_jobs`."""
        from .upkeep.sweep_restores import SweepRestores

        return SweepRestores(self.restore_recorder, self.advance_restore)

    def clean_up(self) -> "CleanUp":
        """For `functions/clean_up`."""
        from .upkeep.clean_up import CleanUp

        return CleanUp(self.job_store, self.adapters.storage, self.runtime.pool)

    def get_retention(self) -> "GetRetention":
        """For `functions/get_retention`."""
        from .upkeep.get_retention import GetRetention

        return GetRetention(self.job_store)
