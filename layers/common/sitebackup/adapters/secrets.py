"""Secrets by reference: read from AWS Secrets Manager, kept for a few minutes."""

import math
import time
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from ..domain.errors import Permanent, Transient
from ..domain.reason import Code

if TYPE_CHECKING:
    from mypy_boto3_secretsmanager import SecretsManagerClient

KEPT_SECONDS = 300


class Secrets:
    """A cache in front of Secrets Manager: a rotated secret is seen within minutes, at once if it was refused."""

    def __init__(self, client: "SecretsManagerClient") -> None:
        self._client = client
        self._kept: dict[str, tuple[float, str]] = {}
        """Texts, and when (time.monotonic, seconds) their reading began."""

    def __call__(self, arn: str, since: float = 0.0) -> str:
        """The secret's text, read at `since` (time.monotonic, seconds) or later, and in the last few minutes.

        Raises Transient, or Permanent if there is no such secret or no right to read it.
        """
        started = time.monotonic()
        at, text = self._kept.get(arn, (-math.inf, ""))
        if at >= max(since, started - KEPT_SECONDS):
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
        self._kept[arn] = (started, text)
        return text
