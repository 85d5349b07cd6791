"""Retries within an invocation: what is tried again, how often, and how long it waits."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from sitebackup.domain.errors import ExportChanged, NoSuchUpload, Permanent, RepositoryUnavailable, Transient
from sitebackup.domain.reason import Code
from sitebackup.domain.task_ref import TaskRef
from sitebackup.transfer import retrying
from sitebackup.transfer.retrying import ATTEMPTS, LONGEST_WAIT, RetryInProcess
from tests.fakes.clock import ManualClock

NOW = datetime(2030, 1, 31, 12, tzinfo=UTC)
LATER = NOW + timedelta(minutes=5)
SECOND = timedelta(seconds=1)
SITE = TaskRef(job_id="a" * 24, attempt=1, provider="site")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW)


@pytest.fixture
def retry(clock: ManualClock) -> RetryInProcess:
    return RetryInProcess(clock.as_port())


def failing(*errors: Exception) -> Callable[[], str]:
    """Raises one error a call, then works."""
    left = list(errors)

    def call() -> str:
        if left:
            raise left.pop(0)
        return "done"

    return call


def test_a_call_that_works_is_not_repeated(retry: RetryInProcess, clock: ManualClock) -> None:
    assert retry(failing(), SITE, LATER) == "done"
    assert clock.slept == []


def test_a_transient_error_is_tried_again_after_a_wait(retry: RetryInProcess, clock: ManualClock) -> None:
    assert retry(failing(Transient("1"), Transient("2")), SITE, LATER) == "done"
    assert len(clock.slept) == 2
    assert all(0 <= wait <= LONGEST_WAIT.total_seconds() for wait in clock.slept)


def test_the_last_error_is_raised_when_tries_are_used_up(retry: RetryInProcess, clock: ManualClock) -> None:
    errors = [Transient(str(number)) for number in range(1, ATTEMPTS + 2)]
    with pytest.raises(Transient, match=rf"^{ATTEMPTS}$"):
        retry(failing(*errors), SITE, LATER)
    assert len(clock.slept) == ATTEMPTS - 1


def test_a_wait_that_the_other_side_asks_for_is_kept(retry: RetryInProcess, clock: ManualClock) -> None:
    asked = timedelta(seconds=7)
    assert retry(failing(Transient("1", asked)), SITE, LATER) == "done"
    assert clock.slept == [asked.total_seconds()]


def test_a_wait_too_long_for_an_invocation_is_left_to_the_sweep(
    retry: RetryInProcess, clock: ManualClock
) -> None:
    too_long = LONGEST_WAIT + SECOND
    with pytest.raises(Transient) as raised:
        retry(failing(Transient("1", too_long)), SITE, LATER)
    assert raised.value.retry_after == too_long
    assert clock.slept == []


def test_nothing_is_tried_again_when_the_time_is_nearly_over(
    retry: RetryInProcess, clock: ManualClock
) -> None:
    with pytest.raises(Transient):
        retry(failing(Transient("1")), SITE, NOW + LONGEST_WAIT - SECOND)
    assert clock.slept == []


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
def test_an_error_that_is_not_transient_is_raised_at_once(
    retry: RetryInProcess, clock: ManualClock, error: Exception
) -> None:
    with pytest.raises(type(error)):
        retry(failing(error), SITE, LATER)
    assert clock.slept == []


def test_each_retry_is_counted(
    retry: RetryInProcess, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[str] = []
    monkeypatch.setattr(retrying, "count", counted.append)
    retry(failing(Transient("1"), Transient("2")), SITE, LATER)
    assert counted == ["RetriesInProcess"] * len(clock.slept) == ["RetriesInProcess"] * 2
