"""`make catalog-rebuild` and `make catalog-check`: invoke the function again and again, until it is through.

Here through the Invoke API of `make up`, or on AWS the functions of a stack, with the credentials of this shell.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, EndpointConnectionError

from .lambda_runtime.client import lambda_client

DIFFERS, NOT_THROUGH = 1, 3
"""Exit codes. 0: all was done, and nothing differs."""
_ATTEMPTS = 6
_PAUSE_SECONDS = 5.0
_FUNCTION_SECONDS = 90.0
"""The time-out of both functions."""

type Json = dict[str, Any]
type Invoke = Callable[[Json], Json]
"""Invokes the function once. Raises NotThrough if it has failed, or BotoCoreError."""


class NotThrough(Exception):
    """It could not be carried out; the message is a sentence."""


def local_function(address: str, name: str) -> Invoke:
    """A function of the local run, by its name in template.yaml; `address` is that of its Invoke API."""
    client = lambda_client(address, read_timeout=_FUNCTION_SECONDS + 10)

    def invoke(event: Json) -> Json:
        try:
            return _invoke(client, name, event)
        except EndpointConnectionError as error:
            raise NotThrough(f"{error}. Is it up? `make up` starts it.") from error

    return invoke


def deployed_function(stack: str, name: str) -> Invoke:
    """A function of a stack on AWS, by its name in template.yaml. Raises NotThrough."""
    try:
        resource = boto3.client("cloudformation").describe_stack_resource(
            StackName=stack, LogicalResourceId=name
        )
        client = boto3.client("lambda", config=Config(read_timeout=_FUNCTION_SECONDS + 10))
    except (BotoCoreError, ClientError) as error:
        raise NotThrough(f"{name} of the stack {stack} is not found: {error}") from error
    function = resource["StackResourceDetail"]["PhysicalResourceId"]
    return lambda event: _invoke(client, function, event)


def rebuild(
    invoke: Invoke, before: str, marker: str, prefix: str = "", sleep: Callable[[float], None] = time.sleep
) -> int:
    """Rebuilds what is missing, from the marker on; the exit code. Raises NotThrough."""
    kinds = ("jobs", "schedules", "limits")
    total = dict.fromkeys([*kinds, *(f"{kind}Present" for kind in kinds)], 0)
    left_out = 0
    for answer in _passes(invoke, {"before": before, "prefix": prefix}, marker, sleep):
        for name in total:
            total[name] += answer[name]
        for one in answer["leftOut"]:
            _show(one)
        for key in answer["pagesLeftOut"]:
            print(f"page of schedules or limits that can't be read: {key}")
        left_out += len(answer["leftOut"]) + len(answer["pagesLeftOut"])
        jobs = f"{total['jobs']} records made, {total['jobsPresent']} were there"
        schedules = f"{total['schedules']} schedules made, {total['schedulesPresent']} were there"
        limits = f"limits of {total['limits']} users made, {total['limitsPresent']} were there"
        print(f"{jobs}; {schedules}; {limits}; {left_out} left out", flush=True)
    return DIFFERS if left_out else 0


def check(invoke: Invoke, marker: str, prefix: str = "", sleep: Callable[[float], None] = time.sleep) -> int:
    """Compares the records with the bucket, from the marker on; the exit code. Raises NotThrough."""
    folders = objects = differences = 0
    for answer in _passes(invoke, {"prefix": prefix}, marker, sleep):
        for one in answer["differences"]:
            _show(one)
        folders += answer["folders"]
        objects += answer["objects"]
        differences += len(answer["differences"])
        print(
            f"{folders} folders and {objects} recorded objects compared: {differences} differences",
            flush=True,
        )
    return DIFFERS if differences else 0


def run(work: Callable[[], int]) -> int:
    """The exit code of `rebuild` or `check`, with a sentence if it could not be carried out."""
    try:
        return work()
    except NotThrough as error:
        print(error, file=sys.stderr)
        return NOT_THROUGH


def _passes(invoke: Invoke, event: Json, marker: str, sleep: Callable[[float], None]) -> Any:
    """The answers, until one has no marker."""
    while True:
        answer = _patiently(invoke, {**event, "marker": marker} if marker else event, sleep)
        yield answer
        if answer["marker"] is None:
            return
        if answer["marker"] == marker:
            raise NotThrough(f"It does not get on; it stands at MARKER='{marker}'.")
        marker = answer["marker"]
        print(f"should this break off, it goes on with MARKER='{marker}'", flush=True)


def _patiently(invoke: Invoke, event: Json, sleep: Callable[[float], None]) -> Json:
    """The answer, of another invocation if S3, MongoDB or Lambda does not answer the first."""
    trouble = ""
    for attempt in range(_ATTEMPTS):
        if attempt:
            print(f"{trouble} Tried again.", file=sys.stderr, flush=True)
            sleep(_PAUSE_SECONDS * attempt)
        try:
            answer = invoke(event)
        except BotoCoreError as error:
            trouble = f"Lambda does not answer: {error}."
            continue
        if answer.get("status") != 503:
            break
        trouble = answer["detail"]
    else:
        raise NotThrough(f"{trouble} Given up after {_ATTEMPTS} attempts.")
    if "status" in answer:
        raise NotThrough(f"It was refused: {answer['detail']}")
    return answer


def _invoke(client: Any, function: str, event: Json) -> Json:
    try:
        answer = client.invoke(FunctionName=function, Payload=json.dumps(event).encode())
    except ClientError as error:
        raise NotThrough(f"{function} can't be invoked: {error}") from error
    result: Json = json.load(answer["Payload"])
    if "FunctionError" in answer:
        raise NotThrough(f"{function} failed: {result.get('errorMessage')}")
    return result


def _show(difference: Json) -> None:
    print(f"{difference['code']}: {difference['key']}: {difference['detail']}")
