"""The client through which everything local reaches functions, be they served here or by SAM in Docker."""

from __future__ import annotations

from typing import Any

import boto3
from botocore.config import Config

from local.intrinsics import REGION


def lambda_client(endpoint_url: str, *, read_timeout: float, connections: int = 10) -> Any:
    """A boto3 lambda client for `endpoint_url` that waits `read_timeout` seconds and never retries by itself.

    Proxies and credentials of this shell are left out: the endpoint is on this machine and checks neither.
    """
    session = boto3.session.Session(
        aws_access_key_id="local", aws_secret_access_key="localsecret", region_name=REGION
    )
    return session.client(  # type: ignore[call-overload, unused-ignore]
        "lambda",
        endpoint_url=endpoint_url,
        config=Config(
            connect_timeout=5,
            read_timeout=read_timeout,
            max_pool_connections=connections,
            retries={"total_max_attempts": 1},
            proxies={},
        ),
    )
