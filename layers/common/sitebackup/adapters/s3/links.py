"""Links to objects: GETs of one version that are signed in advance, and end.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/using-presigned-url.html
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from ...domain.download import DownloadLink
from ...domain.errors import Unavailable
from ...domain.job import StoredObject

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

SESSION_SECONDS = 3600
"""The longest that a role lasts which was assumed by another role, as the function's is.

https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles.html#iam-term-role-chaining
"""
_CONTENT_TYPES = {"zip": "application/zip", "any": "application/octet-stream"}
_NEVER = datetime.max.replace(tzinfo=UTC)


class Signer(NamedTuple):
    """A client that signs, and when its credentials end: links that it has signed end then, too."""

    client: "S3Client"
    ends_at: datetime


class S3Links:
    """Links to one bucket. A signer is kept for as long as its credentials outlast the links."""

    def __init__(self, signer: Callable[[], Signer], bucket: str, now: Callable[[], datetime]) -> None:
        """`signer` raises Unavailable."""
        self._new_signer = signer
        self._bucket = bucket
        self._now = now
        self._signer: Signer | None = None

    def link(self, stored: StoredObject, file_name: str, until: datetime) -> DownloadLink:
        """Signs a GET of this very version. Raises Unavailable."""
        signer = self._signer
        if signer is None or signer.ends_at < until:
            signer = self._signer = self._new_signer()
        now = self._now()
        seconds = int((min(until, signer.ends_at) - now).total_seconds())
        version = {"VersionId": stored.version_id} if stored.version_id else {}
        try:
            url = signer.client.generate_presigned_url(
                "get_object",
                Params={
                    "Bucket": self._bucket,
                    "Key": stored.key,
                    **version,
                    "ResponseContentDisposition": f'attachment; filename="{file_name}"',
                    "ResponseContentType": _CONTENT_TYPES[stored.format],
                    "ResponseCacheControl": "no-store",
                },
                ExpiresIn=seconds,
            )
        except BotoCoreError as error:
            raise Unavailable(f"The link can't be signed: {type(error).__name__}.") from error
        # The signature counts from the whole second in which it is made, which is this one or a later one.
        return DownloadLink(url, now.replace(microsecond=0) + timedelta(seconds=seconds))


def signer(bucket: str, endpoint_url: str | None, ends_at: datetime = _NEVER, **credentials: Any) -> Signer:
    """Signs for the address at which callers reach the bucket, with these credentials or else with its own.

    boto3's defaults would sign for the global endpoint, which does not serve every bucket of every region.
    """
    client = boto3.client(
        "s3",
        endpoint_url=endpoint_url,
        config=Config(
            signature_version="s3v4",
            s3={
                # No certificate fits a bucket's own host if its name has dots.
                "addressing_style": "path" if endpoint_url or "." in bucket else "virtual",
                "us_east_1_regional_endpoint": "regional",
            },
        ),
        **credentials,
    )
    return Signer(client, ends_at)


def assumed(sts: Any, role_arn: str, bucket: str, endpoint_url: str | None) -> Signer:
    """Signs as this role, whose end STS tells. Raises Unavailable."""
    try:
        answer = sts.assume_role(
            RoleArn=role_arn, RoleSessionName="site-backup-download", DurationSeconds=SESSION_SECONDS
        )
    except ClientError as error:
        raise Unavailable(f"STS answered {error.response['Error']['Code']}.") from error
    except BotoCoreError as error:
        raise Unavailable("STS can't be reached.") from error
    given = answer["Credentials"]
    return signer(
        bucket,
        endpoint_url,
        given["Expiration"],
        aws_access_key_id=given["AccessKeyId"],
        aws_secret_access_key=given["SecretAccessKey"],
        aws_session_token=given["SessionToken"],
    )
