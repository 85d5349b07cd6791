"""The adapters of a deployment, each built when it is first used.

Client libraries are imported where they are needed: a function does not pay for one that it does not use.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ..settings import ObjectSource, Settings, SettingsError

if TYPE_CHECKING:
    from botocore.config import Config
    from mypy_boto3_s3 import S3Client
    from pymongo import MongoClient

    from ..domain.provider import Provider
    from ..ports.bus import EventBus
    from ..ports.providers import ExportApi, ImportApi
    from ..ports.repositories import (
        JobRepository,
        PartRepository,
        QuotaRepository,
        RestoreRepository,
        ScheduleRepository,
        SiteRepository,
    )
    from ..ports.storage import DownloadLinks, ObjectStorage
    from .secrets import Secrets


class ProductionAdapters:
    """MongoDB, S3, Kafka, Secrets Manager, and the export and import APIs that the settings name."""

    def __init__(self, settings: Settings, now: Callable[[], datetime]) -> None:
        self._settings = settings
        self._now = now

    @cached_property
    def providers(self) -> "Mapping[str, Provider]":
        """Those of the settings, or of where these say that they are; the latter are read when they are needed."""
        source = self._settings.providers
        if isinstance(source, dict):
            return source
        from .provider_settings import ObjectVersions, ParameterVersions, ProviderSettings

        if isinstance(source, ObjectSource):
            client = self._s3_client(connect_timeout=2, read_timeout=3, attempts=2)
            return ProviderSettings(ObjectVersions(client, source.bucket, source.key))
        import boto3

        return ProviderSettings(ParameterVersions(boto3.client("ssm", config=_quick()), source.name))

    @cached_property
    def jobs(self) -> "JobRepository":
        """Jobs, in MongoDB."""
        from .mongo.jobs import MongoJobs

        return MongoJobs(self._mongo, self._settings.mongo_database)

    @cached_property
    def restores(self) -> "RestoreRepository":
        """Restores, in MongoDB."""
        from .mongo.restores import MongoRestores

        return MongoRestores(self._mongo, self._settings.mongo_database)

    @cached_property
    def parts(self) -> "PartRepository":
        """What is known of parts, in MongoDB."""
        from .mongo.parts import MongoParts

        return MongoParts(self._mongo, self._settings.mongo_database)

    @cached_property
    def schedules(self) -> "ScheduleRepository":
        """Schedules, in MongoDB."""
        from .mongo.schedules import MongoSchedules

        return MongoSchedules(self._mongo, self._settings.mongo_database)

    @cached_property
    def sites(self) -> "SiteRepository":
        """What drills know of sites, in MongoDB."""
        from .mongo.sites import MongoSites

        return MongoSites(self._mongo, self._settings.mongo_database)

    @cached_property
    def quotas(self) -> "QuotaRepository":
        """Quotas, in MongoDB."""
        from .mongo.quotas import MongoQuotas

        return MongoQuotas(self._mongo, self._settings.mongo_database)

    @cached_property
    def exports(self) -> "ExportApi":
        """The export APIs."""
        from .http_exports.exports import HttpExports

        return HttpExports(
            self._settings.part_size,
            self._settings.export_timeout,
            lambda arn, since: self._secrets(arn, since),
            self._now,
        )

    @cached_property
    def imports(self) -> "ImportApi":
        """The import APIs."""
        from .tus_imports.imports import TusImports

        return TusImports(
            self._settings.export_timeout,
            lambda arn, since: self._secrets(arn, since),
            self._now,
        )

    @cached_property
    def storage(self) -> "ObjectStorage":
        """The bucket."""
        from .s3.storage import S3Storage

        # Who calls repeats what may be repeated.
        client = self._s3_client(connect_timeout=3, read_timeout=10, attempts=1)
        return S3Storage(client, self._settings.bucket)

    @cached_property
    def links(self) -> "DownloadLinks":
        """Links to what is in the bucket."""
        import boto3
        from botocore.config import Config

        from .s3.links import S3Links, assumed, signer

        bucket, endpoint_url = self._settings.bucket, self._settings.s3_endpoint_url
        role_arn = self._settings.download_role_arn
        if role_arn is None:
            return S3Links(lambda: signer(bucket, endpoint_url), bucket, self._now)
        config = Config(connect_timeout=2, read_timeout=3, retries={"total_max_attempts": 2})
        sts = boto3.client("sts", config=config)
        return S3Links(lambda: assumed(sts, role_arn, bucket, endpoint_url), bucket, self._now)

    @cached_property
    def bus(self) -> "EventBus":
        """Kafka."""
        from .kafka import KafkaBus, msk_iam

        security = msk_iam() if self._settings.kafka_auth == "iam" else {}
        return KafkaBus(self._settings.kafka_bootstrap_servers, security)

    @cached_property
    def _mongo(self) -> "MongoClient[dict[str, Any]]":
        from .mongo.connection import connect

        settings = self._settings
        uri = self._secrets(settings.mongo_secret_arn) if settings.mongo_secret_arn else settings.mongo_uri
        try:
            return connect(uri)
        except OSError as error:
            message = f"the connection string of MongoDB names a file that can't be read: {error}"
            raise SettingsError(message) from error

    @cached_property
    def _secrets(self) -> "Secrets":
        import boto3

        from .secrets import Secrets

        return Secrets(boto3.client("secretsmanager", config=_quick()))

    def _s3_client(self, connect_timeout: int, read_timeout: int, attempts: int) -> "S3Client":
        """Time-outs in seconds."""
        import boto3
        from botocore.config import Config

        endpoint = self._settings.s3_endpoint_url
        return boto3.client(
            "s3",
            endpoint_url=endpoint,
            config=Config(
                s3={"addressing_style": "path" if endpoint else "auto"},
                connect_timeout=connect_timeout,
                read_timeout=read_timeout,
                max_pool_connections=32,
                retries={"total_max_attempts": attempts},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )


def _quick() -> "Config":
    """For a small read that somebody waits for."""
    from botocore.config import Config

    return Config(connect_timeout=2, read_timeout=3, retries={"total_max_attempts": 2})
