"""Works off what is due, however many passes are at it: each document is claimed before anything else is done."""

from collections.abc import Callable, Iterable
from datetime import datetime

from ..domain.errors import Unavailable
from ..domain.job import Job
from ..domain.restore import Restore
from ..ports.repositories import ID_NAMES
from ..telemetry import logger

PAGE = 100

type Each[D] = Callable[[Callable[[D], bool], Iterable[D]], Iterable[bool]]


def work_off[D: (Job, Restore)](
    due: Callable[[datetime, int], list[D]],
    work: Callable[[D], bool],
    deadline: datetime,
    now: Callable[[], datetime],
    each: Each[D] = map,
) -> int:
    """How many backups or restores `work` took on before nothing was due or the time was up.

    `work` claims one first, so that it is no longer due, and answers False at once if another pass was quicker.
    What is wrong with one then neither stops nor displaces the others. `each` may use threads.
    Raises Unavailable.
    """

    def taken(found: D) -> bool:
        if now() >= deadline:
            return False
        try:
            return work(found)
        except Unavailable:
            raise
        except Exception:  # noqa: BLE001 - told in full, and tried again when the claim is over
            logger.exception(
                f"{found.kind} left", extra={ID_NAMES[found.kind]: found.id, "attempt": found.attempt}
            )
            return True

    count = 0
    while now() < deadline and (page := due(now(), PAGE)):
        count += sum(each(taken, page))
    return count
