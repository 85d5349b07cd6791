"""Secrets by reference: what is read, kept and refused."""

from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from sitebackup.adapters.secrets import KEPT_SECONDS, Secrets
from sitebackup.domain.errors import Permanent, Transient


class Manager:
    """Secrets Manager with one answer."""

    def __init__(self, answer: dict[str, Any] | Exception) -> None:
        self.answer = answer
        self.calls = 0

    def get_secret_value(self, **_: Any) -> dict[str, Any]:
        self.calls += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def secrets(answer: dict[str, Any] | Exception) -> tuple[Secrets, Manager]:
    manager = Manager(answer)
    return Secrets(manager), manager  # type: ignore[arg-type]


def test_a_secret_is_read_once_and_without_the_line_end_of_an_editor() -> None:
    read, manager = secrets({"SecretString": "token\n"})
    assert [read("arn"), read("arn")] == ["token", "token"]
    assert manager.calls == 1


def test_a_caller_that_needs_a_newer_text_gets_one_read_since_then(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: clock)
    read, manager = secrets({"SecretString": "old"})
    read("arn")
    clock, manager.answer = 1010.0, {"SecretString": "new"}
    assert [read("arn", 1000.0), read("arn"), manager.calls] == ["old", "old", 1]
    assert [read("arn", 1005.0), read("arn", 1005.0), read("arn"), manager.calls] == ["new", "new", "new", 2]
    clock = 1010.0 + KEPT_SECONDS + 1
    assert (read("arn"), manager.calls) == ("new", 3)


@pytest.mark.parametrize("answer", [{"SecretBinary": b"x"}, {"SecretString": " \n"}])
def test_a_secret_without_text_is_refused(answer: dict[str, Any]) -> None:
    with pytest.raises(Permanent, match="holds no text"):
        secrets(answer)[0]("arn")


@pytest.mark.parametrize(
    ("code", "kind"), [("AccessDeniedException", Permanent), ("ResourceNotFoundException", Permanent),
                       ("InternalServiceError", Transient)],
)  # fmt: skip
def test_a_secret_that_is_missing_or_forbidden_is_permanent_and_a_failing_service_transient(
    code: str, kind: type[Exception]
) -> None:
    error = ClientError({"Error": {"Code": code, "Message": ""}}, "GetSecretValue")
    with pytest.raises(kind, match=code):
        secrets(error)[0]("arn")


def test_a_secrets_manager_that_does_not_answer_is_transient() -> None:
    with pytest.raises(Transient):
        secrets(EndpointConnectionError(endpoint_url="http://127.0.0.1:1"))[0]("arn")
