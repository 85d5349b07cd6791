"""The client through which everything local reaches functions, be they served here or by SAM in Docker."""

from __future__ import annotations

import io
import json
import os
import time
from typing import Any

import boto3
from botocore.config import Config
from botocore.response import StreamingBody

from ..aws_account import ACCESS_KEY, REGION, SECRET_KEY

MAX_EVENT_BYTES = 6 * 1024 * 1024  # "Lambda quotas": 6 MB for a synchronous invocation


def lambda_client(endpoint_url: str, *, read_timeout: float, connections: int = 10) -> Any:
    """A boto3 lambda client for `endpoint_url` that waits `read_timeout` seconds and never retries by itself.

    Proxies and credentials of this shell are left out: the endpoint is on this machine and checks neither.
    """
    session = boto3.session.Session(
        aws_access_key_id=ACCESS_KEY, aws_secret_access_key=SECRET_KEY, region_name=REGION
    )
    client = session.client(  # type: ignore[call-overload, unused-ignore]
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
    client.meta.events.register("after-call.lambda.Invoke", _name_the_failure)
    return client


def _name_the_failure(parsed: dict[str, Any], **_: Any) -> None:
    """Set FunctionError where `sam local start-lambda` forgets to: it answers most errors as if they were results.

    Lambda, and the service here, always name the version that ran; sam never does.
    """
    if "Payload" not in parsed or "FunctionError" in parsed or "ExecutedVersion" in parsed:
        return
    payload = parsed["Payload"].read()
    parsed["Payload"] = StreamingBody(io.BytesIO(payload), len(payload))
    if payload and _is_failure(payload):
        parsed["FunctionError"] = "Unhandled"


def _is_failure(payload: bytes) -> bool:
    """Whether it is an error as the runtime client words it, or sam's bare sentence about a time-out."""
    try:
        answer = json.loads(payload)
    except ValueError:
        return True
    return isinstance(answer, dict) and {"errorMessage", "errorType", "requestId"} <= answer.keys()


def new_trace_id() -> str:
    """A trace header of the form X-Ray defines; nothing is sampled here."""
    return f"Root=1-{int(time.time()):08x}-{os.urandom(12).hex()};Parent={os.urandom(8).hex()};Sampled=0"
