"""Retries in place, without waiting for them: what is tried again, how often, and how long it would wait."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from sitebackup.domain.errors import ExportChanged, NoSuchUpload, Permanent, RepositoryUnavailable, Transient
from sitebackup.domain.events import UploadJobCreated
from sitebackup.domain.reason import Code
from sitebackup.services import retrying
from sitebackup.services.retrying import ATTEMPTS, LONGEST_WAIT, in_place

NOW = datetime(2030, 1, 31, 12, tzinfo=UTC)
LATER = NOW + timedelta(minutes=5)
EVENT = UploadJobCreated(job_id="a" * 24, attempt=1, provider="site")


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    found: list[float] = []
    monkeypatch.setattr("time.sleep", found.append)
    return found


def failing(*errors: Exception) -> Callable[[], str]:
    left = list(errors)

    def call() -> str:
        if left:
            raise left.pop(0)
        return "done"

    return call


def test_what_works_is_not_repeated(waits: list[float]) -> None:
    assert in_place(failing(), EVENT, LATER, lambda: NOW) == "done"
    assert waits == []


def test_transient_errors_are_tried_again_after_a_wait(waits: list[float]) -> None:
    assert in_place(failing(Transient("1"), Transient("2")), EVENT, LATER, lambda: NOW) == "done"
    assert len(waits) == 2
    assert all(0 <= wait <= LONGEST_WAIT.total_seconds() for wait in waits)


def test_the_last_error_is_raised_when_tries_are_used_up(waits: list[float]) -> None:
    errors = [Transient(str(number)) for number in range(1, ATTEMPTS + 2)]
    with pytest.raises(Transient, match=rf"^{ATTEMPTS}$"):
        in_place(failing(*errors), EVENT, LATER, lambda: NOW)
    assert len(waits) == ATTEMPTS - 1


def test_a_wait_that_was_asked_for_is_kept(waits: list[float]) -> None:
    assert in_place(failing(Transient("1", timedelta(seconds=7))), EVENT, LATER, lambda: NOW) == "done"
    assert waits == [7]


def test_a_wait_too_long_for_an_invocation_is_left_to_the_sweep(waits: list[float]) -> None:
    with pytest.raises(Transient) as raised:
        in_place(failing(Transient("1", LONGEST_WAIT + timedelta(seconds=1))), EVENT, LATER, lambda: NOW)
    assert raised.value.retry_after == timedelta(seconds=11)
    assert waits == []


def test_nothing_is_tried_again_when_the_time_is_nearly_over(waits: list[float]) -> None:
    with pytest.raises(Transient):
        in_place(failing(Transient("1")), EVENT, NOW + LONGEST_WAIT - timedelta(seconds=1), lambda: NOW)
    assert waits == []


@pytest.mark.parametrize(
    "error",
    [
        Permanent(Code.EXPORT_NOT_FOUND, "404"),
        ExportChanged(),
        NoSuchUpload(),
        RepositoryUnavailable("down"),
        ValueError(),
    ],
)
def test_other_errors_are_raised_at_once(waits: list[float], error: Exception) -> None:
    with pytest.raises(type(error)):
        in_place(failing(error), EVENT, LATER, lambda: NOW)
    assert waits == []


def test_each_retry_in_place_is_counted(waits: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[str] = []
    monkeypatch.setattr(retrying, "count", counted.append)
    in_place(failing(Transient("1"), Transient("2")), EVENT, LATER, lambda: NOW)
    assert counted == ["RetriesInPlace"] * len(waits) == ["RetriesInPlace"] * 2
