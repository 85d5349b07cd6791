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
from .ports import (
    Clock,
    EventBus,
    ExportApi,
    JobRepository,
    ObjectStorage,
    PartRepository,
    Pool,
    ScheduleRepository,
)
from .settings import Settings

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

    from .backup.accept_object import AcceptObject
    from .backup.change_job import ChangeJob
    from .backup.create_job import CreateJob
    from .backup.finish_job import FinishJob
    from .backup.finish_task import FinishTask
    from .backup.get_job import GetJob
    from .backup.process_provider import ProcessProvider
    from .backup.recorder import JobStore, Recorder
    from .backup.task_recorder import TaskRecorder
    from .backup.upload_part import UploadPart
    from .schedules.manage_schedule import ManageSchedule
    from .schedules.run_schedule import RunSchedule
    from .transfer.retrying import RetryInProcess
    from .upkeep.clean_up import CleanUp
    from .upkeep.get_retention import GetRetention
    from .upkeep.sweep_jobs import SweepJobs

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
    def storage(self) -> ObjectStorage: ...
    @property
    def bus(self) -> EventBus: ...


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

        return CreateJob(self.recorder, self.adapters.providers, self.runtime.new_id)

    def change_job(self) -> "ChangeJob":
        """For `functions/change_job`."""
        from .backup.change_job import ChangeJob

        return ChangeJob(self.recorder)

    def get_job(self) -> "GetJob":
        """For `functions/get_job`."""
        from .backup.get_job import GetJob

        return GetJob(self.adapters.jobs, self.runtime.clock)

    def process_provider(self) -> "ProcessProvider":
        """For `functions/process_provider`."""
        from .backup.process_provider import ProcessProvider
        from .backup.stream import MoveStream

        adapters, settings, clock = self.adapters, self.settings, self.runtime.clock
        return ProcessProvider(
            tasks=self.task_recorder,
            accept=self._accept_object,
            move_stream=MoveStream(
                tasks=self.task_recorder,
                accept=self._accept_object,
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

        return FinishJob(self.job_store, self.adapters.storage, self._retry, self.runtime.clock)

    # --- schedules

    def manage_schedule(self) -> "ManageSchedule":
        """For `functions/manage_schedule`."""
        from .schedules.manage_schedule import ManageSchedule

        return ManageSchedule(
            schedules=self.adapters.schedules,
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

    # --- upkeep

    def sweep_jobs(self) -> "SweepJobs":
        """For `functions/sweep_jobs`."""
        from .upkeep.sweep_jobs import SweepJobs

        return SweepJobs(self.recorder, self.adapters.parts)

    def clean_up(self) -> "CleanUp":
        """For `functions/clean_up`."""
        from .upkeep.clean_up import CleanUp

        return CleanUp(self.job_store, self.adapters.storage, self.runtime.pool)

    def get_retention(self) -> "GetRetention":
        """For `functions/get_retention`."""
        from .upkeep.get_retention import GetRetention

        return GetRetention(self.job_store)
