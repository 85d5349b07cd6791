"""An OpenID Connect issuer for local runs: discovery, keys, their rotation, and tokens for whoever asks.

It stands for the identity provider of a platform, and has no users, no log-in and no secrets: it listens on loopback.
Discovery: https://openid.net/specs/openid-connect-discovery-1_0.html, keys: RFC 7517, tokens: RFC 7519 and RFC 9068.
"""

from __future__ import annotations

import json
import time
import uuid
from typing import Any

from joserfc import jwt
from joserfc.jwk import KeySet, RSAKey
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from .asgi import read_body

_MAX_BODY_BYTES = 64 * 1024
_MAX_KEYS = 5  # those of the last rotations; older ones are withdrawn
_LIFETIME_SECONDS = 3600


class Issuer:
    """Signs with the newest of its keys, and publishes them all."""

    def __init__(self, url: str, audience: str) -> None:
        self._url = url
        self._audience = audience
        self._keys: list[RSAKey] = []
        self.rotate()
        self.app = Starlette(
            routes=[
                Route("/.well-known/openid-configuration", self._discovery),
                Route("/keys", self._jwks),
                Route("/token", self._token, methods=["POST"]),
                Route("/rotate", self._rotate, methods=["POST"]),
            ]
        )

    def rotate(self) -> None:
        """From now on tokens are signed with a new key; those of before stay good."""
        self._keys = [RSAKey.generate_key(2048, {"use": "sig", "alg": "RS256"}, auto_kid=True), *self._keys]
        del self._keys[_MAX_KEYS:]

    def token(self, claims: dict[str, Any]) -> str:
        """With these claims beside those that every token has; one that is None is left out."""
        now = int(time.time())
        usual = {
            "iss": self._url,
            "aud": self._audience,
            "iat": now,
            "nbf": now,
            "exp": now + _LIFETIME_SECONDS,
            "jti": str(uuid.uuid4()),
        }
        told = {name: value for name, value in (usual | claims).items() if value is not None}
        key = self._keys[0]
        return jwt.encode({"alg": "RS256", "typ": "at+jwt", "kid": key.kid}, told, key, algorithms=["RS256"])

    async def _discovery(self, request: Request) -> JSONResponse:
        return JSONResponse(
            {
                "issuer": self._url,
                "jwks_uri": f"{self._url}/keys",
                "token_endpoint": f"{self._url}/token",
                "response_types_supported": ["token"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["RS256"],
            }
        )

    async def _jwks(self, request: Request) -> JSONResponse:
        return JSONResponse(KeySet(list(self._keys)).as_dict(private=False))

    async def _token(self, request: Request) -> JSONResponse:
        """The body is an object of claims."""
        body = await read_body(request, _MAX_BODY_BYTES)
        try:
            claims = json.loads(body or b"")
        except ValueError:
            claims = None
        if not isinstance(claims, dict):
            return JSONResponse({"error": "invalid_request"}, status_code=400)
        return JSONResponse(
            {"access_token": self.token(claims), "token_type": "Bearer", "expires_in": _LIFETIME_SECONDS}
        )

    async def _rotate(self, request: Request) -> JSONResponse:
        self.rotate()
        return await self._jwks(request)
