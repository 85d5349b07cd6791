"""Stores what becomes of jobs: every transition goes through here, whoever asks for it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Concatenate, NamedTuple

from aws_lambda_powertools.metrics import MetricUnit, single_metric

from ..domain.change import Change, Moment, Transition
from ..domain.errors import BusUnavailable, Conflict
from ..domain.events import Event
from ..domain.job import Job, Status
from ..domain.policy import Policy
from ..domain.task_ref import TaskRef
from ..ports.bus import EventBus
from ..ports.repositories import JobRepository
from ..telemetry import count, log_context, logger

MAX_CONFLICTS = 50


class Recorded(NamedTuple):
    """What a transition found, and what it left."""

    before: Job
    after: Job


type BeforeEvents = Callable[[Sequence[Event]], None]
"""Called once a change is stored, with the events that are then emitted."""


@dataclass(frozen=True)
class JobStore:
    """Stores what transitions make of jobs (I2), and counts it.

    For use cases that need no Kafka: no event may follow from their transitions.
    """

    jobs: JobRepository
    policy: Policy
    now: Callable[[], datetime]

    def apply(
        self,
        job_id: str,
        transition: Transition,
        known: Job | None = None,
        before_events: BeforeEvents = lambda events: None,
    ) -> Recorded | None:
        """Repeats the transition on what others have stored meanwhile, until its result is stored; then emits.

        A transition that gives the very job back is content with it as it is, and nothing is written.
        `known` spares the first read. None: there is no such job, or nothing to change.
        Raises RepositoryUnavailable, DuplicateJob if the job becomes active while another one of the site is, or
        Conflict if others win every time.
        """
        before = known
        for _ in range(MAX_CONFLICTS):
            before = before or self.jobs.get(job_id)
            change = transition(before, self.moment()) if before else None
            if before is None or change is None:
                return None
            if change.job is before:
                return Recorded(before, before)
            after = change.job.replace(version=before.version + 1).with_next_check()
            if self.jobs.replace(before, after):
                _count(before, after)
                before_events(change.events)
                self.emit(change.events)
                return Recorded(before, after)
            before = None
        raise Conflict(f"job {job_id} kept changing")

    def apply_seen(
        self, seen: Job, transition: Transition, before_events: BeforeEvents = lambda events: None
    ) -> Recorded | None:
        """As `apply`, but None if the job has changed since it was `seen`: a decision holds for one version only."""
        return self.apply(
            seen.id,
            lambda job, moment: transition(job, moment) if job.version == seen.version else None,
            known=seen,
            before_events=before_events,
        )

    def emit(self, events: Sequence[Event]) -> None:
        """There is nothing to emit them to: if there are any, the code is wrong."""
        assert not events, f"nobody is told of {events}: this takes a Recorder"

    def moment(self) -> Moment:
        """Now, and the policy."""
        return Moment(self.now(), self.policy)


@dataclass(frozen=True)
class Recorder(JobStore):
    """State first, event second (I8): emits the events that follow."""

    bus: EventBus

    def create(self, job: Job, events: Sequence[Event]) -> None:
        """Stores a new job. Raises DuplicateJob, or RepositoryUnavailable."""
        self.jobs.add(job)
        count("JobsCreated")
        logger.info("job created", extra={"jobId": job.id, "attempt": job.attempt, "siteId": job.site_id})
        self.emit(events)

    def apply_to_task[**P](
        self,
        ref: TaskRef,
        transition: Callable[Concatenate[Job, Moment, TaskRef, P], Change | None],
        *arguments: P.args,
        **more: P.kwargs,
    ) -> Recorded | None:
        """As `apply`, for a transition of this task, which is called with the arguments."""
        return self.apply(ref.job_id, lambda job, moment: transition(job, moment, ref, *arguments, **more))

    def emit(self, events: Sequence[Event]) -> None:
        """Emits; if Kafka does not take the events, the sweep will send them (I8)."""
        if not events:
            return
        try:
            self.bus.emit(events)
        except BusUnavailable as error:
            count("EventsLost", len(events))
            context = {**log_context(events[0].task), "events": len(events), "error": str(error)}
            logger.warning("events left to the sweep", extra=context)


def _count(before: Job, after: Job) -> None:
    """Counts and logs what has just been stored."""
    for name, task in after.tasks.items():
        if task.status is Status.DONE and before.tasks[name].status is not Status.DONE and task.object:
            context = {
                **log_context(after.ref(name)),
                "bytes": task.object.size,
                "parts": task.progress.parts,
            }
            count("BytesStored", task.object.size, MetricUnit.Bytes)
            logger.info("task done", extra=context)
    if after.attempt > before.attempt:
        count("JobsRetried")
    if after.status is before.status:
        return
    match after.status:
        case Status.FAILED:
            _count_failed(after)
        case Status.CANCELLED:
            count("JobsCancelled")
        case Status.DONE:
            seconds = (after.updated_at - after.created_at).total_seconds()
            count("JobsDone")
            count("JobDuration", seconds, MetricUnit.Seconds)
            logger.info("job done", extra={"jobId": after.id, "attempt": after.attempt, "seconds": seconds})
            _count_shrunk(after)


def _count_failed(job: Job) -> None:
    """Counts a job that has just failed, by its reason."""
    if job.reason is None:
        return
    with single_metric("JobsFailed", MetricUnit.Count, 1, namespace="SiteBackup") as metric:
        metric.add_dimension(name="reason", value=job.reason.code)
    logger.error(
        "job failed", extra={"jobId": job.id, "attempt": job.attempt, "reason": job.reason.to_document()}
    )


def _count_shrunk(job: Job) -> None:
    """Counts and logs the tasks of a job that has just got done and is smaller than it was."""
    for name, task in job.tasks.items():
        if task.warning:
            count("BackupsShrunk")
            context = {**log_context(job.ref(name)), "warning": task.warning.to_document()}
            logger.warning("backup shrunk", extra=context)
