"""Works off what is due, however many passes are at it: each job is claimed before anything else is done."""

from collections.abc import Callable, Iterable
from datetime import datetime

from ..domain.errors import Unavailable
from ..domain.job import Job
from ..telemetry import logger

PAGE = 100

type Each = Callable[[Callable[[Job], bool], Iterable[Job]], Iterable[bool]]


def work_off(
    due: Callable[[datetime, int], list[Job]],
    work: Callable[[Job], bool],
    deadline: datetime,
    now: Callable[[], datetime],
    each: Each = map,
) -> int:
    """How many jobs `work` took on before nothing was due or the time was up.

    `work` claims a job first, so that it is no longer due, and answers False at once if another pass was quicker.
    What is wrong with one job then neither stops nor displaces the others. `each` may use threads.
    Raises Unavailable.
    """

    def taken(job: Job) -> bool:
        if now() >= deadline:
            return False
        try:
            return work(job)
        except Unavailable:
            raise
        except Exception:  # noqa: BLE001 - told in full, and tried again when the claim is over
            logger.exception("job left", extra={"jobId": job.id, "attempt": job.attempt})
            return True

    count = 0
    while now() < deadline and (page := due(now(), PAGE)):
        count += sum(each(taken, page))
    return count
