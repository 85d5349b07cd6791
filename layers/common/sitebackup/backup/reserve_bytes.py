"""Reserves what an export will take of its user's quota, before any of it is stored."""

from dataclasses import dataclass

from ..domain.errors import Permanent, TaskEnded
from ..domain.job import Job
from ..domain.reason import Code
from ..domain.task_ref import TaskRef
from ..domain.transitions import runs
from ..ports.repositories import QuotaRepository
from .recorder import Recorder


@dataclass(frozen=True)
class ReserveBytes:
    """First the reservation is stored, then all are summed up, its own among them.

    So what was let through is never more than the limit, however many reserve at once, and a run that is repeated
    reserves the same again. Of two that do not fit together both may be refused.
    """

    recorder: Recorder
    quotas: QuotaRepository

    def room(self, job: Job, provider: str) -> int | None:
        """Bytes that an export of unknown size may have now; None: any number.

        It reserves nothing: `__call__` does once the size is known.
        """
        if job.byte_limit is None:
            return None
        others = self.quotas.held_bytes(job.user_id) - job.tasks[provider].held_bytes
        return max(0, job.byte_limit - others)

    def __call__(self, job: Job, ref: TaskRef, owner: str, size: int) -> None:
        """`owner` is the run that has the export open.

        Raises Permanent if it is too much, TaskEnded if the run lost its export, RepositoryUnavailable or Conflict.
        """
        limit = job.byte_limit
        if limit is None:
            return
        reserved = self.recorder.apply(
            job.id, lambda job, moment: runs.reserve(job, moment, ref, owner, size), known=job
        )
        if reserved is None:
            raise TaskEnded
        used = self.quotas.held_bytes(job.user_id)
        if used > limit:
            raise Permanent(
                Code.QUOTA_EXCEEDED,
                f"The export has {size} bytes, but only {max(0, limit - used + size)} of the {limit} bytes that "
                "the user's backups may have were left.",
            )
