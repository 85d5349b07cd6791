"""Who signs download links, for which address, and until when."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import boto3
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from moto import mock_aws

from sitebackup import bootstrap
from sitebackup.adapters.production import ProductionAdapters
from sitebackup.adapters.s3.links import SESSION_SECONDS, S3Links, assumed, signer
from sitebackup.domain.errors import Unavailable
from sitebackup.domain.job import StoredObject
from sitebackup.settings import Settings

BUCKET, REGION = "backups", "eu-central-1"
ROLE = "arn:aws:iam::123456789012:role/download"
STORED = StoredObject(
    bucket=BUCKET, key="u/s/j/site.zip", size=1, checksum_crc64nvme="AAAAAAAAAAA=", version_id="v1"
)
QUARTER_HOUR = timedelta(minutes=15)
HOUR = timedelta(hours=1)


@pytest.fixture(autouse=True)
def _account(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The function's own credentials, as Lambda sets them."""
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "own")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    with mock_aws(config={"core": {"mock_credentials": False}}):
        yield


class Sts:
    """STS that gives one session after another, each until another time."""

    def __init__(self, *ends: datetime | Exception) -> None:
        self._ends = iter(ends)
        self.asked: list[dict[str, Any]] = []

    def assume_role(self, **asked: Any) -> dict[str, Any]:
        self.asked.append(asked)
        end = next(self._ends)
        if isinstance(end, Exception):
            raise end
        number = len(self.asked)
        given = {"AccessKeyId": f"key{number}", "SecretAccessKey": "secret", "SessionToken": "token"}
        return {"Credentials": {**given, "Expiration": end}}


class Clock:
    def __init__(self) -> None:
        self.now = bootstrap.now()

    def __call__(self) -> datetime:
        return self.now


def links_of(sts: Any, clock: Clock) -> S3Links:
    return S3Links(lambda: assumed(sts, ROLE, BUCKET, None), BUCKET, clock)


def query(url: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}


def signed_by(url: str) -> str:
    """The id of the key."""
    return query(url)["X-Amz-Credential"].partition("/")[0]


def end_of(url: str) -> datetime:
    """When S3 begins to refuse it."""
    signed_at = datetime.strptime(query(url)["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    return signed_at + timedelta(seconds=int(query(url)["X-Amz-Expires"]))


@pytest.mark.parametrize("region", ["us-east-1", "eu-central-1", "ap-southeast-4"])
@pytest.mark.parametrize(
    ("bucket", "endpoint", "address"),
    [
        ("backups", None, "https://backups.s3.{}.amazonaws.com/u/s/j/site.zip"),
        ("backups.example", None, "https://s3.{}.amazonaws.com/backups.example/u/s/j/site.zip"),
        ("backups", "http://127.0.0.1:9000", "http://127.0.0.1:9000/backups/u/s/j/site.zip"),
    ],
)
def test_a_link_leads_to_the_address_at_which_callers_reach_the_bucket(
    region: str, bucket: str, endpoint: str | None, address: str
) -> None:
    """Not to the global one, which sends callers elsewhere, where the signature is wrong."""
    links = S3Links(lambda: signer(bucket, endpoint, region_name=region), bucket, bootstrap.now)
    url = links.link(STORED, "a.zip", bootstrap.now() + QUARTER_HOUR).url
    assert url.partition("?")[0] == address.format(region)
    assert query(url)["X-Amz-Algorithm"] == "AWS4-HMAC-SHA256"
    assert query(url)["X-Amz-Credential"].split("/")[2] == region
    assert query(url)["versionId"] == "v1"


def test_the_end_that_is_told_is_the_end_of_the_link_but_for_the_second_in_which_it_is_signed() -> None:
    links = S3Links(lambda: signer(BUCKET, None), BUCKET, bootstrap.now)
    until = bootstrap.now() + QUARTER_HOUR
    link = links.link(STORED, "a.zip", until)
    assert link.expires_at <= end_of(link.url) < until + timedelta(seconds=1)


def test_the_role_is_assumed_for_as_long_as_one_role_may_assume_another() -> None:
    clock = Clock()
    link = links_of(boto3.client("sts"), clock).link(STORED, "a.zip", clock.now + QUARTER_HOUR)
    assert signed_by(link.url) != "own"
    assert query(link.url)["X-Amz-Security-Token"]
    sts = Sts(clock.now + HOUR)
    links_of(sts, clock).link(STORED, "a.zip", clock.now + QUARTER_HOUR)
    (asked,) = sts.asked
    assert (asked["RoleArn"], asked["DurationSeconds"]) == (ROLE, SESSION_SECONDS)


def test_a_session_is_used_as_long_as_it_outlasts_the_links() -> None:
    clock = Clock()
    sts = Sts(clock.now + HOUR, clock.now + 2 * HOUR)
    links = links_of(sts, clock)
    keys = []
    for passed in (timedelta(0), 3 * QUARTER_HOUR, timedelta(milliseconds=1)):
        clock.now += passed
        keys.append(signed_by(links.link(STORED, "a.zip", clock.now + QUARTER_HOUR).url))
    assert keys == ["key1", "key1", "key2"]


def test_a_link_ends_with_the_session_that_signed_it() -> None:
    clock = Clock()
    end = clock.now.replace(microsecond=0) + timedelta(minutes=59)
    links = links_of(Sts(end, end), clock)
    link = links.link(STORED, "a.zip", clock.now + HOUR)
    assert end - timedelta(seconds=1) <= link.expires_at <= end
    assert int(query(link.url)["X-Amz-Expires"]) in (58 * 60 + 59, 59 * 60)


DENIED = ClientError({"Error": {"Code": "AccessDenied", "Message": "not authorized"}}, "AssumeRole")
UNREACHABLE = EndpointConnectionError(endpoint_url="https://sts")


@pytest.mark.parametrize(
    ("error", "message"), [(DENIED, "STS answered AccessDenied."), (UNREACHABLE, "STS can't be reached.")]
)
def test_sts_that_gives_no_session_is_unavailable_and_asked_again_for_the_next_link(
    error: Exception, message: str
) -> None:
    clock = Clock()
    links = links_of(Sts(error, clock.now + HOUR), clock)
    with pytest.raises(Unavailable) as raised:
        links.link(STORED, "a.zip", clock.now + QUARTER_HOUR)
    assert str(raised.value) == message
    assert signed_by(links.link(STORED, "a.zip", clock.now + QUARTER_HOUR).url) == "key2"


def settings(**more: str) -> Settings:
    return Settings.from_env(
        {
            "PROVIDERS": '[{"name": "site", "exportUrl": "https://site"}]',
            "BACKUP_BUCKET": BUCKET,
            "KAFKA_BOOTSTRAP_SERVERS": "one:9092",
            "MONGO_URI": "mongodb://127.0.0.1",
            **more,
        }
    )


def test_a_deployment_signs_as_the_role_and_a_local_run_as_itself() -> None:
    until = bootstrap.now() + QUARTER_HOUR
    of_role = ProductionAdapters(settings(DOWNLOAD_ROLE_ARN=ROLE), bootstrap.now)
    assert signed_by(of_role.links.link(STORED, "a.zip", until).url) != "own"
    own = ProductionAdapters(settings(S3_ENDPOINT_URL="http://127.0.0.1:9000"), bootstrap.now)
    assert signed_by(own.links.link(STORED, "a.zip", until).url) == "own"


def test_without_any_credentials_signing_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    links = S3Links(lambda: signer(BUCKET, None), BUCKET, bootstrap.now)
    with pytest.raises(Unavailable, match=r"^The link can't be signed: NoCredentialsError\.$"):
        links.link(STORED, "a.zip", bootstrap.now() + QUARTER_HOUR)
