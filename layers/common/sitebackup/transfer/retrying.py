"""Retries within an invocation. What outlives them waits in the task's `nextTryAt`."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from ..domain.errors import Transient
from ..domain.task_ref import AnyTaskRef
from ..ports.runtime import Clock
from ..telemetry import count, log_context, logger

ATTEMPTS = 3
LONGEST_WAIT = timedelta(seconds=10)

_jittered = wait_random_exponential(multiplier=0.5, max=LONGEST_WAIT.total_seconds())


@dataclass(frozen=True)
class RetryInProcess:
    """Calls up to three times; waits as long as a `Retry-After` asks, up to 10 s."""

    clock: Clock

    def __call__[T](self, call: Callable[[], T], ref: AnyTaskRef, deadline: datetime) -> T:
        """The call's result. Each retry is logged and counted; the task records only what outlives them.

        Raises the last Transient, and whatever else the call raises at once.
        """

        def is_worth_it(error: BaseException) -> bool:
            if not isinstance(error, Transient) or self.clock.now() + LONGEST_WAIT > deadline:
                return False
            return error.retry_after is None or error.retry_after <= LONGEST_WAIT

        def report(state: RetryCallState) -> None:
            error = state.outcome.exception() if state.outcome else None
            count("RetriesInProcess")
            logger.warning(
                "tried again within the invocation", extra={**log_context(ref), "error": str(error)}
            )

        retrying = Retrying(
            retry=retry_if_exception(is_worth_it),
            stop=stop_after_attempt(ATTEMPTS),
            wait=_wait,
            sleep=self.clock.sleep,
            before_sleep=report,
            reraise=True,
        )
        return retrying(call)


def _wait(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, Transient) and error.retry_after is not None:
        return error.retry_after.total_seconds()
    return _jittered(state)
