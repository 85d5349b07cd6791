"""API Gateway's JWT authorizer.

API Gateway developer guide, "Control access to HTTP APIs with JWT authorizers". It takes RSA only; here it is RS256,
which every issuer has. No leeway is given for clocks that differ, as the guide names none.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Collection, Mapping
from threading import Lock
from typing import Any

import requests
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from joserfc.jws import extract_compact
from starlette.requests import Request

from .authorizers import Refused

log = logging.getLogger("http")

_ALGORITHMS = ["RS256"]
_KEYS_SECONDS = 2 * 3600.0  # for so long API Gateway may keep an issuer's keys
_FETCH_SECONDS = 5.0
_MAX_TOKEN_CHARACTERS = 16 * 1024


class _Invalid(Exception):
    """What is wrong with a token."""


class JwtAuthorizer:
    """Lets in whoever has a token of this issuer for one of the audiences."""

    def __init__(self, issuer: str, audiences: Collection[str], now: Callable[[], float] = time.time) -> None:
        self._issuer = issuer
        self._audiences = set(audiences)
        self._now = now
        self._lock = Lock()
        self._keys: tuple[float, KeySet] | None = None

    def __call__(self, request: Request) -> Mapping[str, Any]:
        """What the event tells of the caller. Raises Refused: 401."""
        token = request.headers.get("authorization", "")
        scheme, _, rest = token.partition(" ")
        if scheme.lower() == "bearer":
            token = rest.strip()
        if not token:
            raise Refused(401, "Unauthorized", {"www-authenticate": "Bearer"})
        try:
            claims = self._verified(token)
        except _Invalid as error:
            told = f'Bearer scope="" error="invalid_token" error_description="{error}"'
            raise Refused(401, "Unauthorized", {"www-authenticate": told}) from error
        texts = {name: _text(value) for name, value in claims.items()}
        return {"jwt": {"claims": texts, "scopes": None}}

    def _verified(self, token: str) -> Mapping[str, Any]:
        if len(token) > _MAX_TOKEN_CHARACTERS:
            raise _Invalid("the token is too long")
        try:
            key_id = extract_compact(token.encode()).headers().get("kid")
            keys = self._keys_with(key_id)
            if not isinstance(key_id, str) or key_id not in {key.kid for key in keys.keys}:
                raise _Invalid("unable to find the key that signed the token")
            claims = jwt.decode(token, keys, algorithms=_ALGORITHMS).claims
        except (JoseError, ValueError, TypeError) as error:
            raise _Invalid("the token has an invalid form, algorithm or signature") from error
        self._check(claims)
        return claims

    def _check(self, claims: Mapping[str, Any]) -> None:
        now = self._now()
        if claims.get("iss") != self._issuer:
            raise _Invalid("the token has an invalid issuer")
        named = claims.get("aud", claims.get("client_id"))
        if not self._audiences.intersection(named if isinstance(named, list) else [named]):
            raise _Invalid("the token has an invalid audience")
        if not _is_time(claims.get("exp")) or claims["exp"] <= now:
            raise _Invalid("the token has expired")
        for name in ("nbf", "iat"):
            if name in claims and (not _is_time(claims[name]) or claims[name] > now):
                raise _Invalid("the token is not valid yet")

    def _keys_with(self, key_id: object) -> KeySet:
        """The issuer's; fetched anew when they are old, or do not have this one. Raises Refused if there are none."""
        with self._lock:
            if self._keys is not None:
                fetched_at, keys = self._keys
                if self._now() < fetched_at + _KEYS_SECONDS and key_id in {key.kid for key in keys.keys}:
                    return keys
            try:
                keys = self._fetch()
            except (requests.RequestException, JoseError, ValueError, KeyError, TypeError) as error:
                log.warning("the keys of %s can't be fetched: %s", self._issuer, error)
                raise Refused(500, "Internal Server Error") from error
            self._keys = self._now(), keys
            return keys

    def _fetch(self) -> KeySet:
        discovery = f"{self._issuer.rstrip('/')}/.well-known/openid-configuration"
        return KeySet.import_key_set(_get(_get(discovery)["jwks_uri"]))


def _get(url: str) -> Any:
    answer = requests.get(url, timeout=_FETCH_SECONDS)
    answer.raise_for_status()
    return answer.json()


def _is_time(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _text(value: object) -> str:
    """Each claim arrives as text: an array as `[one two]`."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return f"[{' '.join(map(_text, value))}]"
    return json.dumps(value)
