"""What API Gateway's authorizers add to the event of a request, or answer in the place of a function."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from starlette.requests import Request

from ..aws_account import ACCESS_KEY, ACCOUNT_ID

_CALLER = "AIDALOCALCALLER"
IAM_CONTEXT = {
    "iam": {
        "accessKey": ACCESS_KEY,
        "accountId": ACCOUNT_ID,
        "callerId": _CALLER,
        "cognitoIdentity": None,
        "principalOrgId": None,
        "userArn": f"arn:aws:iam::{ACCOUNT_ID}:user/local",
        "userId": _CALLER,
    }
}


class Refused(Exception):
    """The authorizer lets nobody through; the gateway answers with this status."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.headers = dict(headers or {})


type Authorizer = Callable[[Request], Mapping[str, Any]]
"""Gives `requestContext.authorizer` of an event. Raises Refused."""


def by_iam(request: Request) -> Mapping[str, Any]:
    """As if the request were signed: the local run checks no signature, and listens on loopback only."""
    return IAM_CONTEXT
