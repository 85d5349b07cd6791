"""The one place that builds adapters and use cases; each function builds its own, once, when it starts.

Client libraries are imported where they are needed: a function does not pay for one that it does not use.
"""

import os
import random
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

from .domain.model import to_milliseconds
from .settings import Settings, SettingsError

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext
    from pymongo import MongoClient

    from .adapters.bus import Bus
    from .adapters.exports import Exports
    from .adapters.repository import Repository
    from .adapters.schedules import Schedules
    from .adapters.secrets import Secrets
    from .adapters.storage import Storage
    from .services.change_job import ChangeJob
    from .services.clean_up import CleanUp
    from .services.create_job import CreateJob
    from .services.finish_job import FinishJob
    from .services.finish_task import FinishTask
    from .services.get_job import GetJob
    from .services.get_retention import GetRetention
    from .services.manage_schedule import ManageSchedule
    from .services.outcomes import Outcomes
    from .services.process_provider import ProcessProvider
    from .services.run_schedule import RunSchedule
    from .services.sweep_jobs import SweepJobs
    from .services.upload_part import UploadPart

SPARE = timedelta(seconds=25)
"""Kept of an invocation for a last call of S3 that began in time, 13 s at most, and for storing its outcome."""


def now() -> datetime:
    """UTC, in milliseconds."""
    return to_milliseconds(datetime.now(UTC))


def deadline(context: "LambdaContext") -> datetime:
    """When the work of this invocation must be over."""
    return now() + timedelta(milliseconds=context.get_remaining_time_in_millis()) - SPARE


class Bootstrap:
    """Builds each thing at most once."""

    def __init__(self, env: Mapping[str, str] = os.environ) -> None:
        self.settings = Settings.from_env(env)
        self.now: Callable[[], datetime] = now

    # --- adapters

    @cached_property
    def mongo(self) -> "MongoClient[dict[str, Any]]":
        from .adapters.repository import connect

        settings = self.settings
        uri = self.secrets(settings.mongo_secret_arn) if settings.mongo_secret_arn else settings.mongo_uri
        try:
            return connect(uri)
        except OSError as error:
            message = f"the connection string of MongoDB names a file that can't be read: {error}"
            raise SettingsError(message) from error

    @cached_property
    def schedules(self) -> "Schedules":
        from .adapters.schedules import Schedules

        return Schedules(self.mongo, self.settings.mongo_database)

    @cached_property
    def repository(self) -> "Repository":
        from .adapters.repository import Repository

        return Repository(self.mongo, self.settings.mongo_database)

    @cached_property
    def secrets(self) -> "Secrets":
        import boto3
        from botocore.config import Config

        from .adapters.secrets import Secrets

        config = Config(connect_timeout=2, read_timeout=3, retries={"total_max_attempts": 2})
        return Secrets(boto3.client("secretsmanager", config=config))

    @cached_property
    def exports(self) -> "Exports":
        from .adapters.exports import Exports

        return Exports(
            self.settings.part_size,
            self.settings.export_timeout,
            lambda arn, since: self.secrets(arn, since),
            self.now,
        )

    @cached_property
    def storage(self) -> "Storage":
        import boto3
        from botocore.config import Config

        from .adapters.storage import Storage

        client = boto3.client(
            "s3",
            endpoint_url=self.settings.s3_endpoint_url,
            config=Config(
                s3={"addressing_style": "path" if self.settings.s3_endpoint_url else "auto"},
                connect_timeout=3,
                read_timeout=10,
                max_pool_connections=32,
                retries={"total_max_attempts": 1},  # who calls repeats what may be repeated
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )
        return Storage(client, self.settings.bucket)

    @cached_property
    def bus(self) -> "Bus":
        from .adapters.bus import KafkaBus, msk_iam

        security = msk_iam() if self.settings.kafka_auth == "iam" else {}
        return KafkaBus(self.settings.kafka_bootstrap_servers, security)

    @cached_property
    def outcomes(self) -> "Outcomes":
        from .services.outcomes import Outcomes

        return Outcomes(
            repository=self.repository,
            storage=self.storage,
            bus=self.bus,
            providers=self.settings.providers,
            policy=self.settings.policy,
            now=self.now,
            random=random.random,
        )

    # --- use cases

    def create_job(self) -> "CreateJob":
        """For `functions/create_job`."""
        from bson import ObjectId

        from .services.create_job import CreateJob

        return CreateJob(
            repository=self.repository,
            bus=self.bus,
            providers=self.settings.providers,
            policy=self.settings.policy,
            now=self.now,
            new_id=lambda: str(ObjectId()),
        )

    def change_job(self) -> "ChangeJob":
        """For `functions/change_job`."""
        from .services.change_job import ChangeJob

        return ChangeJob(repository=self.repository, bus=self.bus, policy=self.settings.policy, now=self.now)

    def manage_schedule(self) -> "ManageSchedule":
        """For `functions/manage_schedule`."""
        from .services.manage_schedule import ManageSchedule

        return ManageSchedule(
            schedules=self.schedules,
            providers=self.settings.providers,
            window=self.settings.schedule_window,
            min_interval=self.settings.schedule_min_interval,
            now=self.now,
        )

    def run_schedule(self) -> "RunSchedule":
        """For `functions/run_schedule`."""
        from .services.run_schedule import RunSchedule

        return RunSchedule(
            schedules=self.schedules,
            create_job=self.create_job(),
            window=self.settings.schedule_window,
            now=self.now,
        )

    def get_retention(self) -> "GetRetention":
        """For `functions/get_retention`."""
        from .services.get_retention import GetRetention

        return GetRetention(repository=self.repository, policy=self.settings.policy, now=self.now)

    def get_job(self) -> "GetJob":
        """For `functions/get_job`."""
        from .services.get_job import GetJob

        return GetJob(repository=self.repository, monotonic=time.monotonic, sleep=time.sleep)

    def process_provider(self) -> "ProcessProvider":
        """For `functions/process_provider`."""
        from .services.process_provider import ProcessProvider
        from .services.stream import MoveStream

        return ProcessProvider(
            repository=self.repository,
            exports=self.exports,
            storage=self.storage,
            outcomes=self.outcomes,
            stream=MoveStream(
                repository=self.repository,
                storage=self.storage,
                outcomes=self.outcomes,
                part_size=self.settings.part_size,
                now=self.now,
            ),
            providers=self.settings.providers,
            part_size=self.settings.part_size,
            max_bytes=self.settings.max_bytes,
            now=self.now,
        )

    def upload_part(self) -> "UploadPart":
        """For `functions/upload_part`."""
        from .domain.plan import MIB, parts_at_once
        from .services.upload_part import UploadPart

        memory = int(os.environ.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "512")) * MIB
        return UploadPart(
            repository=self.repository,
            exports=self.exports,
            storage=self.storage,
            outcomes=self.outcomes,
            providers=self.settings.providers,
            at_once=parts_at_once(memory, self.settings.parts_per_invocation),
            now=self.now,
        )

    def finish_task(self) -> "FinishTask":
        """For `functions/finish_task`."""
        from .services.finish_task import FinishTask

        return FinishTask(
            repository=self.repository, storage=self.storage, outcomes=self.outcomes, now=self.now
        )

    def finish_job(self) -> "FinishJob":
        """For `functions/finish_job`."""
        from .services.finish_job import FinishJob

        return FinishJob(repository=self.repository, policy=self.settings.policy, now=self.now)

    def sweep_jobs(self) -> "SweepJobs":
        """For `functions/sweep_jobs`."""
        from .services.sweep_jobs import SweepJobs

        return SweepJobs(repository=self.repository, bus=self.bus, policy=self.settings.policy, now=self.now)

    def clean_up(self) -> "CleanUp":
        """For `functions/clean_up`."""
        from .services.clean_up import CleanUp

        return CleanUp(
            repository=self.repository, storage=self.storage, policy=self.settings.policy, now=self.now
        )


__all__ = ["Bootstrap", "SettingsError", "deadline", "now"]
