"""Where the providers' settings are kept: an SSM parameter or an object, each with its versions, behind one protocol.

SSM is moto's, as a text and as a secret. S3 is SeaweedFS and moto.
"""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import boto3
import pytest
from botocore.config import Config
from moto import mock_aws

from local.aws_account import ACCESS_KEY, REGION, SECRET_KEY
from local.services.s3 import BUCKET, s3_client
from local.services.service import Service
from sitebackup.adapters.production import ProductionAdapters
from sitebackup.adapters.provider_settings import (
    MAX_BYTES,
    ObjectVersions,
    ParameterVersions,
    ProviderSettings,
    VersionedText,
)
from sitebackup.bootstrap import now
from sitebackup.domain.errors import SettingsUnavailable
from sitebackup.domain.provider import Provider
from sitebackup.settings import Settings
from tests.contract import wire

NOBODY = "http://127.0.0.1:1"
CREDENTIALS: dict[str, Any] = {
    "region_name": REGION,
    "aws_access_key_id": ACCESS_KEY,
    "aws_secret_access_key": SECRET_KEY,
}


@dataclass(frozen=True)
class Kept:
    """A text that is not there yet. `put` makes its next version, whose id it answers."""

    text: VersionedText
    put: Callable[[str], str]
    away: VersionedText
    """The same where nobody answers."""
    endpoint: str = ""
    """If it is not AWS's."""


def in_parameter(kind: str) -> Kept:
    client = boto3.client("ssm", **CREDENTIALS)
    name = f"/settings/{uuid4().hex}"

    def put(value: str) -> str:
        return str(client.put_parameter(Name=name, Value=value, Type=kind, Overwrite=True)["Version"])

    put_to_others(lambda other: client.put_parameter(Name=name + other, Value="[]", Type="String"))
    once = Config(retries={"total_max_attempts": 1})
    away = boto3.client("ssm", endpoint_url=NOBODY, config=once, **CREDENTIALS)
    return Kept(ParameterVersions(client, name), put, ParameterVersions(away, name))


def in_object(client: Any, endpoint: str = "") -> Kept:
    key = f"settings/{uuid4().hex}"

    def put(value: str) -> str:
        return str(client.put_object(Bucket=BUCKET, Key=key, Body=value.encode())["VersionId"])

    put_to_others(lambda other: client.put_object(Bucket=BUCKET, Key=key + other, Body=b"[]"))
    return Kept(
        ObjectVersions(client, BUCKET, key), put, ObjectVersions(s3_client(NOBODY), BUCKET, key), endpoint
    )


def put_to_others(put: Callable[[str], object]) -> None:
    """Names that begin alike are others."""
    for other in (".bak", "2"):
        put(other)


@pytest.fixture(params=["String", "SecureString", "SeaweedFS", "moto"])
def kept(request: pytest.FixtureRequest) -> Iterator[Kept]:
    if request.param == "SeaweedFS":
        s3: Service = request.getfixturevalue("s3")
        yield in_object(s3_client(s3.address), s3.address)
        return
    with mock_aws():
        if request.param == "moto":
            client = boto3.client("s3", **CREDENTIALS)
            client.create_bucket(Bucket=BUCKET)
            client.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
            yield in_object(client)
        else:
            yield in_parameter(request.param)


def test_the_newest_version_and_the_earlier_ones_are_read_newest_first(kept: Kept) -> None:
    put = [(kept.put(value), value.encode()) for value in ("one", "two", "żółw", "four")]
    newest = kept.text.newest()
    assert (newest.id, newest.text) == put[-1]
    assert [(version.id, version.text) for version in kept.text.earlier(newest)] == put[-2::-1]
    put.append((kept.put("five"), b"five"))
    assert (kept.text.newest().id, kept.text.newest().text) == put[-1]


def test_the_version_that_was_read_is_none_of_the_others_though_a_newer_one_has_come(kept: Kept) -> None:
    first = kept.put("one")
    newest = kept.text.newest()
    kept.put("two")
    assert first not in [version.id for version in kept.text.earlier(newest)]


def test_a_store_that_nobody_reaches_is_unavailable(kept: Kept) -> None:
    kept.put("one")
    newest = kept.text.newest()
    with pytest.raises(SettingsUnavailable, match=r"can't be reached"):
        kept.away.newest()
    with pytest.raises(SettingsUnavailable, match=r"can't be reached"):
        list(kept.away.earlier(newest))


def test_settings_that_were_never_stored_are_unavailable(kept: Kept) -> None:
    with pytest.raises(SettingsUnavailable):
        list(ProviderSettings(kept.text))


def test_who_starts_while_the_newest_version_is_wrong_gets_the_last_good_one(kept: Kept) -> None:
    for value in ("older", "site"):
        kept.put(json.dumps([{"name": value, "exportUrl": "http://site"}]))
    for _ in range(4):
        kept.put("{}")
    assert list(ProviderSettings(kept.text)) == ["site"]
    kept.put("[]")
    with pytest.raises(SettingsUnavailable):
        list(ProviderSettings(kept.text))


@pytest.fixture
def bucket(s3: Service) -> Any:
    return s3_client(s3.address)


def test_an_object_that_was_deleted_is_refused_and_its_last_version_can_be_used(bucket: Any) -> None:
    kept = in_object(bucket)
    kept.put(json.dumps([{"name": "site", "exportUrl": "http://site"}]))
    bucket.delete_object(Bucket=BUCKET, Key=kept.text.source.split("/", 3)[3])
    assert kept.text.newest().unreadable == "S3 answered NoSuchKey"
    assert list(ProviderSettings(kept.text)) == ["site"]


def test_an_object_of_more_than_a_mebibyte_is_refused_unread(bucket: Any) -> None:
    kept = in_object(bucket)
    largest = kept.put("x" * MAX_BYTES)
    assert len(kept.text.newest().text) == MAX_BYTES
    kept.put("x" * (MAX_BYTES + 1))
    newest = kept.text.newest()
    assert (newest.text, newest.unreadable) == (b"", f"the object is larger than {MAX_BYTES} bytes")
    assert [version.id for version in kept.text.earlier(newest)] == [largest]


def test_a_bucket_that_is_not_there_is_unavailable(bucket: Any) -> None:
    with pytest.raises(SettingsUnavailable, match="NoSuchBucket"):
        ObjectVersions(bucket, "another-bucket", "providers.json").newest()


def test_an_answer_that_breaks_off_is_no_wrong_version() -> None:
    cut = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\nx-amz-version-id: 1\r\n\r\n[]"
    with wire.script(cut, read_first=1, until=b"\r\n\r\n") as server:
        client = s3_client(f"http://127.0.0.1:{server.port}")
        with pytest.raises(SettingsUnavailable, match=r"can't be reached"):
            ObjectVersions(client, BUCKET, "providers.json").newest()


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Lambda gives them to a function."""
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)


def of_a_deployment(source: str, s3: str = "") -> Mapping[str, Provider]:
    environment = {
        "PROVIDERS_SOURCE": source,
        "S3_ENDPOINT_URL": s3,
        "BACKUP_BUCKET": BUCKET,
        "KAFKA_BOOTSTRAP_SERVERS": NOBODY,
        "MONGO_URI": NOBODY,
    }
    return ProductionAdapters(Settings.from_env(environment), now).providers


@pytest.mark.usefixtures("credentials")
def test_a_deployment_reads_the_source_that_its_settings_name(kept: Kept) -> None:
    kept.put(json.dumps([{"name": "site", "exportUrl": "http://site"}]))
    providers = of_a_deployment(kept.text.source, kept.endpoint)
    assert dict(providers) == {"site": Provider(name="site", export_url="http://site")}


@pytest.mark.usefixtures("credentials")
@pytest.mark.parametrize("source", ["ssm:/providers", "s3://backups/providers.json"])
def test_a_store_that_takes_connections_and_says_nothing_is_given_up_after_two(
    source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = threading.Event()
    with wire.serving(lambda _: over.wait(wire.LIMIT_SECONDS)) as server:
        address = f"http://127.0.0.1:{server.port}"
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        with pytest.raises(SettingsUnavailable):
            len(of_a_deployment(source, address))
        assert server.accepted == 2
        over.set()
