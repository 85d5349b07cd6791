"""Who calls, from what API Gateway's authorizer has verified, and from nothing else.

Events: https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html
"""

import re
from collections.abc import Mapping
from typing import Any

from ..domain.errors import NoCaller, NoUser
from ..domain.principal import Claims, Principal, Service, User

_USER = re.compile(r"[0-9a-f]{24}")


def principal_of(request_context: Mapping[str, Any], claims: Claims) -> Principal:
    """`iam` is a service, `jwt` a user. Raises NoUser, or NoCaller if there is neither: that is closed."""
    match request_context.get("authorizer"):
        case {"iam": {"userArn": str(arn)}, **others} if arn and not others:
            return Service(arn)
        case {"jwt": {"claims": dict(told)}, **others} if not others:
            return _user(told, claims)
        case _:
            raise NoCaller("API Gateway names no caller that it has verified.")


def _user(told: Mapping[str, Any], claims: Claims) -> User:
    user_id = told.get(claims.user)
    if not isinstance(user_id, str) or not _USER.fullmatch(user_id):
        raise NoUser(f"The token's claim {claims.user!r} is not the id of a user.")
    sites = None if claims.sites is None else _items(told.get(claims.sites))
    return User(user_id, sites, _items(told.get("scope") or told.get("scp")))


def _items(claim: object) -> frozenset[str]:
    """The items of a list. API Gateway gives every claim as text: an array as `[one two]`."""
    return (
        frozenset(re.split(r"[\s,]+", claim.strip("[] "))) - {""} if isinstance(claim, str) else frozenset()
    )
