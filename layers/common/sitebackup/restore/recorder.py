"""Stores what becomes of restores: every transition goes through here, whoever asks for it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Concatenate

from aws_lambda_powertools.metrics import MetricUnit, single_metric

from ..domain.change import Moment
from ..domain.errors import BusUnavailable, Conflict
from ..domain.events import RestoreTaskCreated
from ..domain.job import Status
from ..domain.policy import Policy
from ..domain.restore import Restore, RestoreStatus
from ..domain.restoring import RestoreChange, RestoreTransition
from ..domain.task_ref import RestoreTaskRef
from ..ports.bus import EventBus
from ..ports.repositories import RestoreRepository
from ..telemetry import count, log_context, logger

MAX_CONFLICTS = 50


@dataclass(frozen=True)
class RestoreRecorder:
    """State first, event second (I8)."""

    restores: RestoreRepository
    policy: Policy
    now: Callable[[], datetime]
    bus: EventBus

    def create(self, restore: Restore) -> None:
        """Stores a new restore. Raises DuplicateJob, or RepositoryUnavailable."""
        self.restores.add(restore)
        count("RestoresCreated")
        context = {"restoreId": restore.id, "jobId": restore.job_id, "siteId": restore.site_id}
        logger.info("restore created", extra=context)

    def apply(
        self, restore_id: str, transition: RestoreTransition, known: Restore | None = None
    ) -> Restore | None:
        """Repeats the transition on what others have stored meanwhile, until its result is stored; then emits.

        `known` spares the first read. None: there is no such restore, or nothing to change.
        Raises RepositoryUnavailable, DuplicateJob if the restore becomes active while something else of the site is,
        or Conflict if others win every time.
        """
        before = known
        for _ in range(MAX_CONFLICTS):
            before = before or self.restores.get(restore_id)
            change = transition(before, self.moment()) if before else None
            if before is None or change is None:
                return None
            after = change.restore.replace(version=before.version + 1).with_next_check()
            if self.restores.replace(before, after):
                _count(before, after)
                self._emit(change.events)
                return after
            before = None
        raise Conflict(f"restore {restore_id} kept changing")

    def apply_to_task[**P](
        self,
        ref: RestoreTaskRef,
        transition: Callable[Concatenate[Restore, Moment, RestoreTaskRef, P], RestoreChange | None],
        *arguments: P.args,
        **more: P.kwargs,
    ) -> Restore | None:
        """As `apply`, for a transition of this task, which is called with the arguments."""
        return self.apply(
            ref.restore_id, lambda restore, moment: transition(restore, moment, ref, *arguments, **more)
        )

    def moment(self) -> Moment:
        """Now, and the policy."""
        return Moment(self.now(), self.policy)

    def _emit(self, events: Sequence[RestoreTaskCreated]) -> None:
        """If Kafka does not take the events, the sweep will send them (I8)."""
        if not events:
            return
        try:
            self.bus.emit(events)
        except BusUnavailable as error:
            count("EventsLost", len(events))
            context = {**log_context(events[0].task), "events": len(events), "error": str(error)}
            logger.warning("events left to the sweep", extra=context)


def _count(before: Restore, after: Restore) -> None:
    """Counts and logs what has just been stored."""
    for name, task in after.tasks.items():
        if task.status is Status.DONE and before.tasks[name].status is not Status.DONE:
            context = {**log_context(after.ref.task(name)), "bytes": task.object.size}
            count("BytesRestored", task.object.size, MetricUnit.Bytes)
            logger.info("restore task done", extra=context)
    if after.status is before.status:
        return
    context = {"restoreId": after.id, "attempt": after.attempt, "status": after.status}
    match after.status:
        case RestoreStatus.FAILED:
            _count_failed(after)
        case RestoreStatus.CANCELLED:
            count("RestoresCancelled")
        case RestoreStatus.DONE:
            seconds = (after.updated_at - after.created_at).total_seconds()
            count("RestoresDone")
            count("RestoreDuration", seconds, MetricUnit.Seconds)
            logger.info("restore done", extra={**context, "seconds": seconds})
        case _:
            logger.info("restore goes on", extra=context)


def _count_failed(restore: Restore) -> None:
    if restore.reason is None:
        return
    with single_metric("RestoresFailed", MetricUnit.Count, 1, namespace="SiteBackup") as metric:
        metric.add_dimension(name="reason", value=restore.reason.code)
    context = {"restoreId": restore.id, "attempt": restore.attempt, "reason": restore.reason.to_document()}
    logger.error("restore failed", extra=context)
