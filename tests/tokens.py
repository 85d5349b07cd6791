"""Tokens that a caller should not get in with, and those of the local run's issuer."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import requests
from joserfc import jwt
from joserfc.jwk import RSAKey

from local.settings import AUDIENCE

LIMIT_SECONDS = 30
SCOPES = ("backup:read", "backup:write", "backup:restore", "backup:delete")


@dataclass(frozen=True)
class Tokens:
    """The issuer at `url`, and whoever imitates it."""

    url: str

    def of(self, user_id: str, **claims: Any) -> str:
        """A good one with all scopes; a claim that is None is left out."""
        return self.ask({"sub": user_id, "scope": " ".join(SCOPES), **claims})

    def ask(self, claims: Mapping[str, Any]) -> str:
        answer = requests.post(f"{self.url}/token", json=claims, timeout=LIMIT_SECONDS)
        answer.raise_for_status()
        token: str = answer.json()["access_token"]
        return token

    def rotate(self) -> None:
        requests.post(f"{self.url}/rotate", timeout=LIMIT_SECONDS).raise_for_status()

    def keys(self) -> list[dict[str, str]]:
        """As the issuer publishes them, the newest first."""
        found: list[dict[str, str]] = requests.get(f"{self.url}/keys", timeout=LIMIT_SECONDS).json()["keys"]
        return found

    def claims(self, user_id: str) -> dict[str, Any]:
        """All that a good token has."""
        now = int(time.time())
        usual = {"iss": self.url, "aud": AUDIENCE, "iat": now, "nbf": now, "exp": now + 3600}
        return {**usual, "sub": user_id, "scope": " ".join(SCOPES)}

    def attacks(self, user_id: str) -> dict[str, str]:
        """Tokens for this user that no authorizer may take, each named by what is wrong with it."""
        now = int(time.time())
        good = self.of(user_id)
        published = self.keys()[0]
        header, payload, signature = good.split(".")
        another_user = encode({**self.claims(user_id), "sub": "e" * 24})
        return {
            "expired": self.of(user_id, exp=now - 1),
            "without an expiry": self.of(user_id, exp=None),
            "not valid yet": self.of(user_id, nbf=now + 3600),
            "issued in the future": self.of(user_id, iat=now + 3600),
            "of another issuer": self.of(user_id, iss="https://login.example.com"),
            "for another audience": self.of(user_id, aud="another-service"),
            "without an audience": self.of(user_id, aud=None),
            "signed with a foreign key": self.foreign(user_id, published["kid"]),
            "signed with an unknown key": self.foreign(user_id, "unknown"),
            "not signed (none)": unsigned({"alg": "none", "kid": published["kid"]}, self.claims(user_id)),
            "HS256 with the public key": self.hs256(user_id, published),
            "of a changed payload": f"{header}.{another_user}.{signature}",
            "without its signature": f"{header}.{payload}.",
            "no token at all": "opensesame",
            "empty": "",
        }

    def foreign(self, user_id: str, key_id: str) -> str:
        """All as it should be, but for the key."""
        key = RSAKey.generate_key(2048)
        return jwt.encode({"alg": "RS256", "kid": key_id}, self.claims(user_id), key, algorithms=["RS256"])

    def hs256(self, user_id: str, published: dict[str, str]) -> str:
        """Signed with what everybody knows, for a verifier that lets the token choose its algorithm."""
        secret = RSAKey.import_key({**published}).as_pem(private=False)
        token = unsigned({"alg": "HS256", "kid": published["kid"]}, self.claims(user_id))[:-1]
        digest = hmac.new(secret, token.encode(), hashlib.sha256).digest()
        return f"{token}.{_base64(digest)}"


def unsigned(header: Mapping[str, Any], claims: Mapping[str, Any]) -> str:
    return f"{encode(header)}.{encode(claims)}."


def encode(part: Mapping[str, Any]) -> str:
    return _base64(json.dumps(part).encode())


def _base64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
