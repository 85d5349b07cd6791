"""What became of a task, stored first and told second: shared by every use case that moves one on."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from aws_lambda_powertools.metrics import MetricUnit

from ..adapters.bus import Bus
from ..adapters.repository import Repository
from ..adapters.storage import Storage
from ..domain import transitions, zip_end
from ..domain.errors import Permanent, Transient, Unavailable
from ..domain.events import PartUpdated, TaskEvent, TaskUpdated, UploadJobCreated, UploadPartCreated
from ..domain.job import Job, PartWait, Status, StoredObject, Upload
from ..domain.policy import Policy
from ..domain.provider import Provider
from ..domain.reason import Code, Reason
from ..telemetry import about, count, job_failed, logger
from .emit import emit

LONGEST_BACKOFF_SECONDS = 900.0


@dataclass(frozen=True)
class Outcomes:
    """Stores outcomes and emits what follows from them."""

    repository: Repository
    storage: Storage
    bus: Bus
    providers: Mapping[str, Provider]
    policy: Policy
    now: Callable[[], datetime]
    random: Callable[[], float]
    """Uniform in [0, 1)."""

    def emit(self, events: Sequence[TaskEvent]) -> None:
        """Emits; what Kafka does not take is left to the sweep."""
        emit(self.bus, events)

    def done(self, event: TaskEvent, stored: StoredObject, parts: int) -> None:
        """The task's object is verified, and looked into if it must be a zip (I15).

        Raises Permanent if it is no whole zip, Transient if S3 does not show it.
        """
        stored = self._looked_into(event, stored)
        changed = self.repository.change(
            event.job_id,
            lambda job: transitions.finish_task(
                job, event.attempt, event.provider, stored, parts, self.now(), self.policy
            ),
        )
        if changed is None:
            self._give_up(event, stored)
            return
        count("BytesStored", stored.size, MetricUnit.Bytes)
        logger.info("task done", extra={**about(event), "bytes": stored.size, "parts": parts})
        self.emit([event.follow(TaskUpdated)])
        if changed.after.tasks[event.provider].runs > 1:
            self._clear(event, stored)

    def fail(self, event: TaskEvent, reason: Reason) -> None:
        """The task can't succeed in this attempt."""
        changed = self.repository.change(
            event.job_id,
            lambda job: transitions.fail_task(
                job, event.attempt, event.provider, reason, self.now(), self.policy
            ),
        )
        if changed:
            self.failed(event, changed.after)

    def failed(self, event: TaskEvent, job: Job) -> None:
        """Tells of a failure that has just been stored."""
        job_failed(job)
        self.emit([event.follow(TaskUpdated)])

    def trouble(self, event: TaskEvent, error: Transient, tried: int, owner: str | None = None) -> None:
        """A transient error of a run or a completion: the sweep tries again when its wait is over.

        `owner` as for `note_trouble`.
        """
        next_try_at = self._next_try(event, error, tried)
        self.repository.change(
            event.job_id,
            lambda job: transitions.note_trouble(
                job, event.attempt, event.provider, str(error), next_try_at, owner, self.now()
            ),
        )

    def part_trouble(self, event: UploadPartCreated, error: Transient) -> None:
        """A transient error of one part: only that part waits."""
        next_try_at = self._next_try(event, error, event.tried)
        wait = PartWait(attempt=event.attempt, tried=event.tried, next_try_at=next_try_at)
        self.repository.save_wait(event.upload_id, event.number, wait, self.now())
        self.repository.change(
            event.job_id,
            lambda job: transitions.note_part_trouble(
                job, event.attempt, event.provider, event.upload_id, str(error), next_try_at, self.now()
            ),
        )

    def _next_try(self, event: TaskEvent, error: Transient, tried: int) -> datetime:
        wait = error.retry_after or self._pause(tried)
        count("TransientErrors")
        logger.warning(
            "task waits", extra={**about(event), "error": str(error), "seconds": wait.total_seconds()}
        )
        return self.now() + wait

    def _pause(self, tried: int) -> timedelta:
        """Doubles with each try, up to 15 minutes, with jitter."""
        longest = min(2.0 ** (tried + 1), LONGEST_BACKOFF_SECONDS)
        return timedelta(seconds=longest * (0.5 + self.random() / 2))

    def replan_changed(self, event: TaskEvent, upload_id: str) -> None:
        """The export changed under the upload: it is planned anew at once."""
        changed = self.repository.change(
            event.job_id,
            lambda job: transitions.replan_changed(
                job, event.attempt, event.provider, upload_id, self.now(), self.policy
            ),
        )
        if changed is None:
            return
        logger.warning("task is planned anew: its export changed", extra=about(event))
        self.abort(event, changed.after.key(event.provider), upload_id)
        self.emit([event.follow(UploadJobCreated, tried=changed.after.tasks[event.provider].tried)])

    def replan_lost(self, event: TaskEvent, upload_id: str) -> None:
        """S3 lost the upload: it is planned anew after a pause, or the task fails."""
        changed = self.repository.change(
            event.job_id,
            lambda job: transitions.replan_lost(
                job,
                event.attempt,
                event.provider,
                upload_id,
                self._after_loss(job, event),
                self.now(),
                self.policy,
            ),
        )
        if changed is None:
            return
        logger.warning("task is planned anew: S3 lost its upload", extra=about(event))
        self.abort(event, changed.after.key(event.provider), upload_id)
        self._tell_if_failed(event, changed.after)

    def redo_parts(self, event: PartUpdated, numbers: Sequence[int]) -> None:
        """S3 lost these parts: they are moved again after a pause, or the task fails."""
        job = self.repository.get(event.job_id)
        if job is None:
            return
        next_try_at = self._after_loss(job, event)
        wait = PartWait(attempt=event.attempt, next_try_at=next_try_at)
        for number in numbers:
            self.repository.lose_part(event.upload_id, number, wait, self.now())
        changed = self.repository.change(
            event.job_id,
            lambda job: transitions.redo_parts(
                job, event.attempt, event.provider, event.upload_id, next_try_at, self.now(), self.policy
            ),
        )
        if changed is None:
            return
        logger.warning("parts are moved again", extra={**about(event), "parts": list(numbers)})
        self._tell_if_failed(event, changed.after)

    def _after_loss(self, job: Job, event: TaskEvent) -> datetime:
        task = job.tasks.get(event.provider)
        return self.now() + self._pause(task.losses if task else 0)

    def _tell_if_failed(self, event: TaskEvent, job: Job) -> None:
        if job.tasks[event.provider].status is Status.FAILED:
            self.failed(event, job)

    def is_live(self, event: TaskEvent) -> bool:
        """Whether the task still goes on; while MongoDB does not answer, it is taken to."""
        try:
            job = self.repository.get(event.job_id)
        except Unavailable:
            return True
        return job is not None and job.live_task(event.attempt, event.provider) is not None

    def missing_parts(self, event: TaskEvent, upload: Upload, through: int) -> list[TaskEvent]:
        """What to emit so that a planned upload goes on: its missing parts, or its completion."""
        handed_out = range(through + 1, upload.dispatched + 1)
        numbers = self.repository.missing_parts(upload.upload_id, handed_out)
        return [
            event.follow(UploadPartCreated, upload_id=upload.upload_id, number=number) for number in numbers
        ] or [event.follow(PartUpdated, upload_id=upload.upload_id)]

    def abort(self, event: TaskEvent, key: str, upload_id: str) -> None:
        """Aborts an upload that nobody uses; if S3 is in trouble, clearing the key later gets it."""
        try:
            self.storage.abort(key, upload_id)
        except (Transient, Permanent) as error:
            logger.warning("upload left behind", extra={**about(event), "error": str(error)})

    def _looked_into(self, event: TaskEvent, stored: StoredObject) -> StoredObject:
        """The object with its number of members. Raises Permanent or Transient."""
        provider = self.providers.get(event.provider)
        if provider is None:
            raise Permanent(Code.PROVIDER_UNKNOWN, f"No provider {event.provider} is configured.")
        if provider.format == "any":
            return stored
        length = min(stored.size, zip_end.TAIL_BYTES)
        tail = self.storage.read(stored, stored.size - length, length) if length else b""
        head = tail if length == stored.size else self.storage.read(stored, 0, zip_end.HEAD_BYTES)
        return stored.replace(members=zip_end.count_members(stored.size, head, tail))

    def _give_up(self, event: TaskEvent, stored: StoredObject) -> None:
        """The task was ended by somebody else.

        If it is done with another version, this one is nobody's. In any other state a retry may still adopt it,
        and what nobody adopts is removed when the failed attempt is cleaned up.
        """
        job = self.repository.get(event.job_id)
        recorded = job.tasks[event.provider].object if job else None
        if recorded and stored.version_id and recorded.version_id != stored.version_id:
            try:
                self.storage.delete_version(stored.key, stored.version_id)
            except (Transient, Permanent) as error:
                logger.warning("object left behind", extra={**about(event), "error": str(error)})

    def _clear(self, event: TaskEvent, stored: StoredObject) -> None:
        """A task that ran more than once may have left uploads or versions behind, all at its own key (I9)."""
        try:
            found = self.storage.at_key(stored.key)
            for upload_id in found.uploads:
                self.storage.abort(stored.key, upload_id)
            for version_id in found.versions:
                if stored.version_id and version_id != stored.version_id:
                    self.storage.delete_version(stored.key, version_id)
        except (Transient, Permanent) as error:
            logger.warning("key not cleared", extra={**about(event), "error": str(error)})
