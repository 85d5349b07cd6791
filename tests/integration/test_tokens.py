"""The local issuer and the local HTTP API's authorizer: tokens are verified as API Gateway verifies them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest
import requests
from starlette.requests import Request

from local.asgi import serve
from local.http_api.authorizers import Refused
from local.http_api.jwt_authorizer import JwtAuthorizer
from local.issuer import Issuer
from local.services.processes import free_port
from local.settings import AUDIENCE
from tests.integration.lambda_harness import LoopThread
from tests.tokens import Tokens

USER = "a" * 24
ATTACKS = (
    "expired", "without an expiry", "not valid yet", "issued in the future", "of another issuer",
    "for another audience", "without an audience", "signed with a foreign key", "signed with an unknown key",
    "not signed (none)", "HS256 with the public key", "of a changed payload", "without its signature",
    "no token at all", "empty",
)  # fmt: skip


@dataclass
class Served:
    """An issuer on loopback, and an authorizer that trusts it; its clock can be moved."""

    tokens: Tokens
    offset: float = 0.0
    authorizer: JwtAuthorizer = field(init=False)

    def __post_init__(self) -> None:
        self.authorizer = JwtAuthorizer(self.tokens.url, [AUDIENCE], lambda: time.time() + self.offset)

    def claims(self, token: str, scheme: str = "Bearer ") -> dict[str, Any]:
        """What the event tells. Raises Refused."""
        headers = [(b"authorization", f"{scheme}{token}".encode())] if token or scheme else []
        context = self.authorizer(Request({"type": "http", "headers": headers}))
        assert context["jwt"]["scopes"] is None, "no route has scopes of its own"
        found: dict[str, Any] = context["jwt"]["claims"]
        return found


@pytest.fixture(scope="module")
def issuer() -> Iterator[Tokens]:
    loop, port, stack = LoopThread(), free_port(), AsyncExitStack()
    url = f"http://127.0.0.1:{port}"
    loop.run(stack.enter_async_context(serve(Issuer(url, AUDIENCE).app, port)))
    yield Tokens(url)
    loop.run(stack.aclose())
    loop.close()


@pytest.fixture
def served(issuer: Tokens) -> Served:
    return Served(issuer)


def test_the_issuer_says_where_its_keys_are_and_publishes_no_private_one(issuer: Tokens) -> None:
    discovery = requests.get(f"{issuer.url}/.well-known/openid-configuration", timeout=30).json()
    assert discovery["issuer"] == issuer.url
    keys = requests.get(discovery["jwks_uri"], timeout=30).json()["keys"]
    assert [key.keys() for key in keys] == [{"kty", "kid", "use", "alg", "n", "e"}] * len(keys)


@pytest.mark.parametrize("scheme", ["Bearer ", "bearer ", ""])
def test_a_good_token_is_let_in_with_every_claim_as_text(served: Served, scheme: str) -> None:
    token = served.tokens.of(USER, sites=["1" * 24, "2" * 24], admin=True, level=7)
    claims = served.claims(token, scheme)
    assert claims["sub"] == USER
    assert claims["sites"] == f"[{'1' * 24} {'2' * 24}]"
    assert (claims["admin"], claims["level"]) == ("true", "7")
    assert all(isinstance(value, str) for value in claims.values())


def test_one_right_audience_among_several_is_enough_and_a_client_id_stands_in_for_it(served: Served) -> None:
    served.claims(served.tokens.of(USER, aud=["another-service", AUDIENCE]))
    served.claims(served.tokens.of(USER, aud=None, client_id=AUDIENCE))
    with pytest.raises(Refused):
        served.claims(served.tokens.of(USER, aud="another-service", client_id=AUDIENCE))


def test_the_list_of_attacks_is_whole(issuer: Tokens) -> None:
    assert tuple(issuer.attacks(USER)) == ATTACKS


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_token_that_is_not_right_lets_nobody_in(served: Served, attack: str) -> None:
    with pytest.raises(Refused) as raised:
        served.claims(served.tokens.attacks(USER)[attack])
    assert (raised.value.status, str(raised.value)) == (401, "Unauthorized")
    assert raised.value.headers["www-authenticate"].startswith("Bearer")


def test_a_token_is_good_until_its_expiry_by_the_clock_of_the_gateway(served: Served) -> None:
    token = served.tokens.of(USER, exp=int(time.time()) + 600)
    served.offset = 590
    served.claims(token)
    served.offset = 601
    with pytest.raises(Refused):
        served.claims(token)


def test_after_a_rotation_tokens_of_the_old_and_of_the_new_key_are_good(served: Served) -> None:
    old = served.tokens.of(USER)
    served.claims(old)
    served.tokens.rotate()
    new = served.tokens.of(USER)
    for token in (new, old):
        assert served.claims(token)["sub"] == USER


def test_a_key_that_was_withdrawn_is_forgotten_when_the_keys_are_read_again(served: Served) -> None:
    old = served.tokens.of(USER, exp=int(time.time()) + 5 * 3600)
    served.claims(old)
    for _ in range(5):
        served.tokens.rotate()
    assert served.claims(old)["sub"] == USER, "they are kept for up to two hours"
    served.offset = 2 * 3600 + 1
    with pytest.raises(Refused):
        served.claims(old)


def test_without_an_issuer_that_answers_nobody_is_let_in(issuer: Tokens) -> None:
    token = issuer.of(USER)
    gone = Served(Tokens(f"http://127.0.0.1:{free_port()}"))
    with pytest.raises(Refused) as raised:
        gone.claims(token)
    assert raised.value.status == 500
