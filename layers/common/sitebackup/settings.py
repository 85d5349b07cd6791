"""What the functions read from their environment; each setting is a parameter of template.yaml."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

import msgspec

from .domain.lock import LockMode
from .domain.plan import MAX_OBJECT_SIZE, MIB, MIN_PART_SIZE, parts_at_once
from .domain.policy import Policy
from .domain.principal import Claims
from .domain.provider import Provider, ProvidersError, parse_providers
from .domain.quota import MAX_SLOTS, MAX_STORED_BYTES

MAX_PART_MIB = 64
"""A stream holds three parts in memory."""
MAX_SECONDS = 10**9
MAX_DAYS = 36_500
MAX_DOWNLOAD_SECONDS = 3600
"""The role that signs links can't be assumed for longer."""
DAY_SECONDS = 24 * 3600
DAY_MINUTES = 24 * 60
_PARAMETER = re.compile(r"ssm:((?:/[A-Za-z0-9_.-]+)+)")
_OBJECT = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])/([A-Za-z0-9_.=/-]{1,1024})")
"""As the template's pattern for it has them."""
_QUOTAS = frozenset({"quota_active_jobs", "quota_stored_bytes", "quota_restores_per_day", "quota_schedules"})
_MAY_BE_0 = _QUOTAS | frozenset(
    {"upload_grace_seconds", "delete_grace_seconds", "keep_newest", "shrink_percent", "drill_gib_per_day"}
)


class SettingsError(Exception):
    """A setting is missing or wrong; the message names it."""


@dataclass(frozen=True)
class ParameterSource:
    """An SSM parameter that holds the list of providers."""

    name: str


@dataclass(frozen=True)
class ObjectSource:
    """An object that holds the list of providers, in a bucket with versions."""

    bucket: str
    key: str


@dataclass(frozen=True)
class Settings:
    """Typed and checked at start, so that a wrong deployment fails at once and says why."""

    providers: dict[str, Provider] | ParameterSource | ObjectSource
    """The list, or where it is."""
    bucket: str
    kafka_bootstrap_servers: str
    kafka_auth: str
    mongo_uri: str
    mongo_secret_arn: str
    mongo_database: str
    s3_endpoint_url: str | None
    part_size: int
    parts_at_once: int
    """Parts that one invocation moves at once."""
    max_bytes: int | None
    export_timeout: int
    download_time: timedelta
    """How long a link to a backup is valid."""
    download_role_arn: str | None
    """Of the role that signs links; None: the function's own."""
    schedule_window: timedelta
    schedule_min_interval: timedelta
    claims: Claims
    """Of the tokens that users send."""
    policy: Policy

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> "Settings":
        """Raises SettingsError."""
        if not env.get("MONGO_URI") and not env.get("MONGO_SECRET_ARN"):
            raise SettingsError("MONGO_URI or MONGO_SECRET_ARN must be set")
        part_size = _number(env, "PART_SIZE_MIB", 16, low=MIN_PART_SIZE // MIB, high=MAX_PART_MIB) * MIB
        kafka_auth = env.get("KAFKA_AUTH") or "none"
        if kafka_auth not in ("none", "iam"):
            raise SettingsError("KAFKA_AUTH must be none or iam")
        export_timeout = _number(env, "EXPORT_TIMEOUT_SECONDS", 30, low=1, high=MAX_SECONDS)
        return cls(
            providers=_providers(env.get("PROVIDERS", ""), env.get("PROVIDERS_SOURCE", "")),
            bucket=_text(env, "BACKUP_BUCKET"),
            kafka_bootstrap_servers=_text(env, "KAFKA_BOOTSTRAP_SERVERS"),
            kafka_auth=kafka_auth,
            mongo_uri=env.get("MONGO_URI", ""),
            mongo_secret_arn=env.get("MONGO_SECRET_ARN", ""),
            mongo_database=env.get("MONGO_DATABASE") or "sitebackup",
            s3_endpoint_url=env.get("S3_ENDPOINT_URL") or None,
            part_size=part_size,
            parts_at_once=parts_at_once(
                _number(env, "AWS_LAMBDA_FUNCTION_MEMORY_SIZE", 512) * MIB,
                _number(env, "PARTS_PER_INVOCATION", 4, low=1, high=64),
            ),
            max_bytes=_number(env, "MAX_BYTES", 0) or None,
            export_timeout=export_timeout,
            download_time=timedelta(
                seconds=_number(env, "DOWNLOAD_SECONDS", 900, low=60, high=MAX_DOWNLOAD_SECONDS)
            ),
            download_role_arn=env.get("DOWNLOAD_ROLE_ARN") or None,
            schedule_window=timedelta(
                seconds=_number(env, "SCHEDULE_WINDOW_SECONDS", 3600, high=MAX_SECONDS)
            ),
            schedule_min_interval=timedelta(
                minutes=_number(env, "SCHEDULE_MIN_INTERVAL_MINUTES", 60, low=1, high=DAY_MINUTES)
            ),
            claims=Claims(env.get("JWT_USER_CLAIM") or "sub", env.get("JWT_SITES_CLAIM") or None),
            policy=_policy(env, export_timeout),
        )


def _policy(env: Mapping[str, str], export_timeout: int) -> Policy:
    """Each field of the policy is a setting of the same name in capitals.

    A lease outlives the longest silence of an export, or a run that only waits would lose it.
    """
    default = Policy()
    names = [field.name for field in msgspec.structs.fields(Policy)]
    policy = Policy(
        lock_mode=_lock_mode(env),
        **{
            name: _number(
                env,
                name.upper(),
                getattr(default, name),
                low=0 if name in _MAY_BE_0 else 1,
                high=_most(name),
            )
            for name in names
            if name != "lock_mode"
        },
    )
    return policy.replace(lease_seconds=policy.lease_seconds + export_timeout)


def _lock_mode(env: Mapping[str, str]) -> LockMode:
    mode = env.get("LOCK_MODE") or LockMode.OFF
    if mode not in list(LockMode):
        raise SettingsError(f"LOCK_MODE must be one of {', '.join(LockMode)}, not {mode!r}")
    return LockMode(mode)


def _most(name: str) -> int:
    """Such that no time of a job can go beyond the calendar."""
    if name == "shrink_percent":
        return 99  # nothing falls by more than 100 %
    if name in _QUOTAS:
        return MAX_STORED_BYTES if name == "quota_stored_bytes" else MAX_SLOTS
    if name == "day_seconds":
        return DAY_SECONDS
    return MAX_DAYS if name.endswith("_days") else MAX_SECONDS


def _providers(listed: str, source: str) -> dict[str, Provider] | ParameterSource | ObjectSource:
    if not listed and not source:
        raise SettingsError("PROVIDERS or PROVIDERS_SOURCE must be set")
    if listed and source:
        raise SettingsError("PROVIDERS and PROVIDERS_SOURCE are both set, and only one may be")
    if parameter := _PARAMETER.fullmatch(source):
        return ParameterSource(*parameter.groups())
    if stored := _OBJECT.fullmatch(source):
        return ObjectSource(*stored.groups())
    if source:
        raise SettingsError(f"PROVIDERS_SOURCE must be ssm:/name or s3://bucket/key, not {source!r}")
    try:
        return parse_providers(listed)
    except ProvidersError as error:
        raise SettingsError(f"PROVIDERS: {error}") from error


def _text(env: Mapping[str, str], name: str) -> str:
    value = env.get(name)
    if not value:
        raise SettingsError(f"{name} must be set")
    return value


def _number(
    env: Mapping[str, str], name: str, default: int, low: int = 0, high: int = MAX_OBJECT_SIZE
) -> int:
    value = env.get(name) or str(default)
    if not value.isdecimal() or len(value) > len(str(high)) or not low <= int(value) <= high:
        raise SettingsError(f"{name} must be a whole number from {low} to {high}, not {value!r}")
    return int(value)
