"""Retries in place, within an invocation. What outlives them waits in the job's `nextCheckAt`."""

from collections.abc import Callable
from datetime import datetime, timedelta

from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from ..domain.errors import Transient
from ..domain.events import TaskEvent
from ..telemetry import about, count, logger

ATTEMPTS = 3
LONGEST_WAIT = timedelta(seconds=10)

_jittered = wait_random_exponential(multiplier=0.5, max=LONGEST_WAIT.total_seconds())


def in_place[T](
    call: Callable[[], T], event: TaskEvent, deadline: datetime, now: Callable[[], datetime]
) -> T:
    """The call's result, after up to three tries; waits as long as a `Retry-After` asks, up to 10 s.

    Each retry is logged and counted; the task records only what outlives them.

    Raises the last Transient, and whatever else the call raises at once.
    """

    def worth_it(error: BaseException) -> bool:
        if not isinstance(error, Transient) or now() + LONGEST_WAIT > deadline:
            return False
        return error.retry_after is None or error.retry_after <= LONGEST_WAIT

    def tell(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        count("RetriesInPlace")
        logger.warning("tried again in place", extra={**about(event), "error": str(error)})

    retrying = Retrying(
        retry=retry_if_exception(worth_it),
        stop=stop_after_attempt(ATTEMPTS),
        wait=_wait,
        before_sleep=tell,
        reraise=True,
    )
    return retrying(call)


def _wait(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, Transient) and error.retry_after is not None:
        return error.retry_after.total_seconds()
    return _jittered(state)
