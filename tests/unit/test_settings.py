"""A wrong deployment fails at start and names the setting."""

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from sitebackup.domain.plan import MIB
from sitebackup.domain.policy import Policy
from sitebackup.domain.provider import Provider
from sitebackup.settings import ObjectSource, ParameterSource, Settings, SettingsError

SITE = {"name": "site", "exportUrl": "https://site/{userId}/{siteId}?chunk={chunkSize}"}
DEFAULT_EXPORT_TIMEOUT = 30
"""Seconds."""
GOOD = {
    "PROVIDERS": json.dumps([SITE]),
    "BACKUP_BUCKET": "backups",
    "KAFKA_BOOTSTRAP_SERVERS": "one:9092,two:9092",
    "MONGO_URI": "mongodb://127.0.0.1",
}


def test_a_setting_that_is_absent_has_its_default() -> None:
    settings = Settings.from_env(GOOD)
    default = Policy()
    lease = default.lease_seconds + DEFAULT_EXPORT_TIMEOUT
    assert settings.policy == default.replace(lease_seconds=lease)
    assert (settings.part_size, settings.parts_at_once) == (16 * MIB, 4)
    assert (settings.max_bytes, settings.s3_endpoint_url, settings.kafka_auth) == (None, None, "none")
    assert (settings.download_time, settings.download_role_arn) == (timedelta(minutes=15), None)
    assert settings.providers == {"site": Provider(name="site", export_url=SITE["exportUrl"])}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("ssm:/providers", ParameterSource("/providers")),
        ("ssm:/site-backup/prod/providers_1.json", ParameterSource("/site-backup/prod/providers_1.json")),
        ("s3://backups/providers.json", ObjectSource("backups", "providers.json")),
        ("s3://my.settings-1/a/b=c/providers", ObjectSource("my.settings-1", "a/b=c/providers")),
    ],
)
def test_the_providers_may_be_in_a_parameter_or_in_an_object(
    source: str, expected: ParameterSource | ObjectSource
) -> None:
    env = GOOD | {"PROVIDERS": "", "PROVIDERS_SOURCE": source}
    assert Settings.from_env(env) == replace(Settings.from_env(GOOD), providers=expected)


@pytest.mark.parametrize(
    "source",
    [
        "/providers", "ssm:", "ssm:providers", "ssm:/providers/", "ssm:/pro viders", "ssm:/providers\n",
        "ssm://providers", "s3://backups", "s3://backups/", "s3://Backups/providers", "s3://b/providers",
        "s3://backups/pro*", "s3:/backups/providers", "arn:aws:s3:::backups/providers",
        "https://backups/providers",
    ],
)  # fmt: skip
def test_another_source_of_the_providers_is_refused(source: str) -> None:
    with pytest.raises(SettingsError) as raised:
        Settings.from_env(GOOD | {"PROVIDERS": "", "PROVIDERS_SOURCE": source})
    assert str(raised.value) == f"PROVIDERS_SOURCE must be ssm:/name or s3://bucket/key, not {source!r}"


def test_the_providers_and_a_source_of_them_can_not_both_be_set() -> None:
    with pytest.raises(SettingsError, match=r"^PROVIDERS and PROVIDERS_SOURCE are both set"):
        Settings.from_env(GOOD | {"PROVIDERS_SOURCE": "ssm:/providers"})


def test_an_empty_setting_counts_as_absent() -> None:
    assert Settings.from_env(GOOD | {"PART_SIZE_MIB": "", "S3_ENDPOINT_URL": "", "MAX_BYTES": ""}) == (
        Settings.from_env(GOOD)
    )


@pytest.mark.parametrize("name", [field.name for field in msgspec.structs.fields(Policy)])
def test_every_field_of_the_policy_can_be_set(name: str) -> None:
    value = "governance" if name == "lock_mode" else "7"
    env = GOOD | {name.upper(): value, "EXPORT_TIMEOUT_SECONDS": "20"}
    expected = "27" if name == "lease_seconds" else value
    assert str(getattr(Settings.from_env(env).policy, name)) == expected


@pytest.mark.parametrize("mebibytes", [5, 16, 64])
def test_any_part_size_of_the_template_can_be_set(mebibytes: int) -> None:
    settings = Settings.from_env(GOOD | {"PART_SIZE_MIB": str(mebibytes)})
    assert settings.part_size == mebibytes * MIB


@pytest.mark.parametrize(("memory", "at_once"), [(128, 1), (168, 2), (512, 8)])
def test_an_invocation_moves_no_more_parts_at_once_than_its_memory_holds(memory: int, at_once: int) -> None:
    wanted = {"PARTS_PER_INVOCATION": "8", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(memory)}
    assert Settings.from_env(GOOD | wanted).parts_at_once == at_once


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        *[(name, None, f"{name} must be set") for name in ("BACKUP_BUCKET", "KAFKA_BOOTSTRAP_SERVERS")],
        ("PROVIDERS", None, "PROVIDERS or PROVIDERS_SOURCE must be set"),
        ("PROVIDERS", "", "PROVIDERS or PROVIDERS_SOURCE must be set"),
        ("MONGO_URI", None, "MONGO_URI or MONGO_SECRET_ARN must be set"),
        ("KAFKA_AUTH", "password", "KAFKA_AUTH must be none or iam"),
        ("PART_SIZE_MIB", "4", "PART_SIZE_MIB must be a whole number from 5 to 64, not '4'"),
        ("PART_SIZE_MIB", "65", "PART_SIZE_MIB must be a whole number from 5 to 64, not '65'"),
        *[
            ("PART_SIZE_MIB", value, "PART_SIZE_MIB must be a whole number")
            for value in ("many", "-1", "1.5", "²")
        ],
        ("PART_SIZE_MIB", "9" * 5000, "PART_SIZE_MIB must be a whole number"),
        ("PARTS_PER_INVOCATION", "0", "PARTS_PER_INVOCATION must be a whole number from 1"),
        ("PARTS_IN_FLIGHT", "0", "PARTS_IN_FLIGHT must be a whole number from 1"),
        ("DOWNLOAD_SECONDS", "59", "DOWNLOAD_SECONDS must be a whole number from 60 to 3600, not '59'"),
        ("DOWNLOAD_SECONDS", "3601", "DOWNLOAD_SECONDS must be a whole number from 60 to 3600"),
        ("EXPORT_TIMEOUT_SECONDS", "0", "EXPORT_TIMEOUT_SECONDS must be a whole number from 1"),
        ("ATTEMPT_SECONDS", "10" * 8, "ATTEMPT_SECONDS must be a whole number from 1 to 1000000000"),
        ("FAILED_RECORD_DAYS", "36501", "FAILED_RECORD_DAYS must be a whole number from 1 to 36500"),
        ("SHRINK_PERCENT", "100", "SHRINK_PERCENT must be a whole number from 0 to 99"),
        ("LOCK_MODE", "forever", "LOCK_MODE must be one of off, governance, compliance, not 'forever'"),
        ("LOCK_DAYS", "0", "LOCK_DAYS must be a whole number from 1 to 36500"),
        ("DAY_SECONDS", "86401", "DAY_SECONDS must be a whole number from 1 to 86400"),
        ("SCHEDULE_MIN_INTERVAL_MINUTES", "0", "SCHEDULE_MIN_INTERVAL_MINUTES must be a whole number from 1"),
        (
            "SCHEDULE_MIN_INTERVAL_MINUTES",
            "1441",
            "SCHEDULE_MIN_INTERVAL_MINUTES must be a whole number from 1",
        ),
        ("PROVIDERS", "[]", "PROVIDERS: providers: must list at least one"),
        (
            "PROVIDERS",
            json.dumps([SITE, SITE | {"exportUrl": "site"}]),
            "PROVIDERS: providers[1].exportUrl: must be a URL",
        ),
    ],
)
def test_a_wrong_setting_is_refused_by_name(name: str, value: str | None, message: str) -> None:
    env = {key: text for key, text in (GOOD | {name: value}).items() if text is not None}
    with pytest.raises(SettingsError) as raised:
        Settings.from_env(env)
    assert str(raised.value).startswith(message)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"name": "Site"}, "name"),
        ({"name": "site\n"}, "name"),
        ({"exportUrl": "ftp://site"}, "exportUrl"),
        ({"importUrl": "ftp://site"}, "importUrl"),
        ({"importUrl": "https://{siteId}.example.com/import"}, "importUrl"),
        ({"maxBytes": 0}, "maxBytes"),
        ({"partsInFlight": 1001}, "partsInFlight"),
        ({"format": "tar"}, "format"),
        ({"redirectHosts": "files"}, "redirectHosts"),
        ({"redirectHosts": ["files:443"]}, "redirectHosts"),
        ({"redirectHosts": ["https://files"]}, "redirectHosts"),
        ({"color": "red"}, "color"),
    ],
)
def test_a_wrong_field_of_a_provider_is_refused_by_name(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(SettingsError, match=rf"PROVIDERS: .*{field}"):
        Settings.from_env(GOOD | {"PROVIDERS": json.dumps([SITE | changes])})
