"""An executor without threads."""

from collections.abc import Callable
from concurrent.futures import Executor, Future


class InlinePool(Executor):
    """Does the work where it is submitted, so that every run is the same and a crash ends everything."""

    def __init__(self, workers: int) -> None:
        self.workers = workers

    def submit[**P, T](self, work: Callable[P, T], /, *arguments: P.args, **named: P.kwargs) -> Future[T]:
        future: Future[T] = Future()
        try:
            future.set_result(work(*arguments, **named))
        except Exception as error:  # noqa: BLE001 - kept for whoever asks for the result; a crash is no Exception
            future.set_exception(error)
        return future
