"""Secrets by reference: read from AWS Secrets Manager, kept for a few minutes."""

import time
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from ..domain.errors import Permanent, Transient
from ..domain.reason import Code

if TYPE_CHECKING:
    from mypy_boto3_secretsmanager import SecretsManagerClient

KEPT_SECONDS = 300


class Secrets:
    """A cache in front of Secrets Manager, so that a rotated secret is seen within minutes."""

    def __init__(self, client: "SecretsManagerClient") -> None:
        self._client = client
        self._kept: dict[str, tuple[float, str]] = {}

    def __call__(self, arn: str) -> str:
        """The secret's text. Raises Transient, or Permanent if there is no such secret or no right to read it."""
        until, text = self._kept.get(arn, (0.0, ""))
        if time.monotonic() < until:
            return text
        try:
            text = self._client.get_secret_value(SecretId=arn).get("SecretString", "").strip()
        except ClientError as error:
            code = error.response["Error"]["Code"]
            if code in ("ResourceNotFoundException", "AccessDeniedException"):
                raise Permanent(Code.EXPORT_FORBIDDEN, f"The secret can't be read: {code}.") from error
            raise Transient(f"Secrets Manager answered {code}.") from error
        except BotoCoreError as error:
            raise Transient("Secrets Manager can't be reached.") from error
        if not text:
            raise Permanent(Code.EXPORT_FORBIDDEN, "The secret holds no text.")
        self._kept[arn] = (time.monotonic() + KEPT_SECONDS, text)
        return text
