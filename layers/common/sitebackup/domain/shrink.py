"""Whether a backup is much smaller than those before it: what a loss of data at its source looks like from here."""

from collections.abc import Iterator, Sequence

from .job import DeleteCause, Job, StoredObject, TaskWarning
from .policy import Policy

COMPARED = 5
"""An object is compared with the last so many of its provider."""
FEWEST = 3
"""With fewer there is no comparison: a single odd one would decide the median."""


def may_warn(job: Job, policy: Policy) -> bool:
    """Whether the job is compared with earlier ones.

    A safety backup is not: a restore makes it because the site is not as it should be.
    """
    return policy.shrink_percent > 0 and job.safety_for is None


def with_warnings(job: Job, earlier: Sequence[Job], policy: Policy) -> Job:
    """The job, whose tasks are all done, with a warning at each task that shrank.

    `earlier` has done jobs of the same site, newest first. Safety backups among them do not count, nor does what
    somebody asked to delete.
    """
    if not may_warn(job, policy):
        return job
    good = [
        other.tasks
        for other in earlier
        if other.safety_for is None and other.delete_cause is not DeleteCause.REQUESTED
    ]

    def last(provider: str) -> list[StoredObject]:
        found = (tasks.get(provider) for tasks in good)
        return [task.object for task in found if task and task.object and not task.is_damaged]

    compared = {
        name: task.replace(warning=shrunk(task.object, last(name), policy.shrink_percent))
        for name, task in job.tasks.items()
        if task.object
    }
    return job.replace(tasks=job.tasks | compared)


def shrunk(stored: StoredObject, last: Sequence[StoredObject], percent: int) -> TaskWarning | None:
    """The warning, if bytes or members fell by more than `percent` against the median of the last, newest first.

    Members are compared where they are known.
    """
    members = [each.members for each in last if each.members is not None]
    falls = [
        *_fall("byte", stored.size, [each.size for each in last], percent),
        *_fall("member", stored.members, members, percent),
    ]
    return TaskWarning(code="shrunk", message=" ".join(falls)) if falls else None


def _fall(unit: str, count: int | None, last: Sequence[int], percent: int) -> Iterator[str]:
    """A sentence, if there are so much fewer."""
    compared = sorted(last[:COMPARED])
    if count is None or len(compared) < FEWEST:
        return
    median = compared[(len(compared) - 1) // 2]  # of four the lower one of the middle two
    if (median - count) * 100 > median * percent:
        units = unit if count == 1 else f"{unit}s"
        yield f"{count:,} {units}, where the last {len(compared)} backups had a median of {median:,}."
