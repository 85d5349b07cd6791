"""Opens one stored object, as far as one invocation comes, and stores what it finds."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from threading import Lock

from aws_lambda_powertools.metrics import MetricUnit

from ..backup.recorder import MAX_CONFLICTS, Recorded, Recorder
from ..domain import drilling
from ..domain.backoff import pause
from ..domain.drill import Drill, DrillState, Place
from ..domain.errors import Conflict, Permanent, TaskEnded, Transient
from ..domain.events import DrillCreated
from ..domain.job import Job, StoredObject
from ..domain.task_ref import TaskRef
from ..domain.transitions.postponing import Postponed
from ..ports.repositories import SiteRepository
from ..ports.runtime import Clock, Pool
from ..ports.storage import ObjectStorage
from ..telemetry import count, log_context, logger
from ..transfer.retrying import RetryInProcess
from .open_object import DIRECTORY_BYTES, SLICE_BYTES, Found, OpenObject, TimeIsUp
from .settle_site import SettleSite

STORED_EVERY = timedelta(seconds=10)
"""How often an invocation stores its place, which renews its lease."""
STOPS_BEFORE_DEADLINE = timedelta(seconds=30)


@dataclass(frozen=True)
class DrillBackup:
    """One record: an object is to be opened, or its drill to go on."""

    recorder: Recorder
    settle: SettleSite
    sites: SiteRepository
    storage: ObjectStorage
    retry: RetryInProcess
    clock: Clock
    pool: Pool
    random: Callable[[], float]
    """Uniform in [0, 1)."""
    slice_bytes: int = SLICE_BYTES
    directory_bytes: int = DIRECTORY_BYTES

    def __call__(self, event: DrillCreated, owner: str, deadline: datetime) -> None:
        """Stores an outcome for whatever happens; `owner` names this invocation.

        Raises RepositoryUnavailable (or Conflict) if no outcome can be stored.
        """
        ref = event.task
        started = self.recorder.apply_to_task(ref, drilling.start, owner)
        if started is None:
            return
        found = started.after.live_drill(ref, owner)
        stored = started.after.tasks[ref.provider].object
        if found is None or stored is None:
            self._ended(started, ref)
            return
        began, place = self.clock.monotonic(), found[1].place
        reading = _Reading(self, ref, owner, deadline, place)
        try:
            result = self._open(stored, reading, deadline)
        except TaskEnded:
            logger.info("another invocation has the drill, or it has ended", extra=log_context(ref))
        except (Transient, Permanent) as error:
            self._postpone(ref, owner, error, found[1].tries)
        else:
            self._store(started.after, ref, owner, result)
        seconds = self.clock.monotonic() - began
        count("BytesDrilled", reading.bytes_read, MetricUnit.Bytes)
        self.sites.add_work(self.recorder.now(), reading.bytes_read, seconds)

    def _open(self, stored: StoredObject, reading: "_Reading", deadline: datetime) -> Found:
        """An object of another size is damage at once: S3 would only refuse the ranges behind its end."""
        shown = self.retry(lambda: self.storage.head(stored.key, stored.version_id), reading.ref, deadline)
        if shown is not None and shown.size != stored.size:
            message = f"It has {shown.size} bytes and not {stored.size}."
            damage = Drill(state=DrillState.DAMAGED, at=self.clock.now(), message=message)
            return Found(reading.place, damage)

        def read(start: int, length: int) -> bytes:
            data = self.retry(lambda: self.storage.read(stored, start, length), reading.ref, deadline)
            reading.has_read(len(data))
            return data

        with self.pool(1) as pool:
            opening = OpenObject(
                stored=stored,
                place=reading.place,
                read=read,
                pool=pool,
                keep=reading.keep,
                clock=self.clock,
                slice_bytes=self.slice_bytes,
                directory_bytes=self.directory_bytes,
            )
            return opening()

    def _store(self, job: Job, ref: TaskRef, owner: str, result: Found) -> None:
        drill = result.drill
        if drill is None:
            self.recorder.apply_to_task(ref, drilling.hand_over, owner, result.place)
            return
        under_way = job.tasks[ref.provider].drilling
        if drill.state is DrillState.DAMAGED and under_way and under_way.suspicion and under_way.of_newest:
            self._take_proof(job)
        ended = self.recorder.apply_to_task(ref, drilling.finish, owner, drill)
        if ended is not None:
            self._ended(ended, ref)
        elif drill.state is DrillState.DAMAGED:
            count("DamageSuspected")
            logger.warning("damage suspected, all is read again", extra=log_context(ref))
            self.recorder.apply_to_task(ref, drilling.suspect, owner, drill.message or "")

    def _postpone(self, ref: TaskRef, owner: str, error: Transient | Permanent, tries: int) -> None:
        wait = pause(tries, self.random())
        if isinstance(error, Transient) and error.retry_after is not None:
            wait = error.retry_after
        count("TransientErrors")
        context = {**log_context(ref), "error": str(error), "seconds": wait.total_seconds()}
        logger.warning("drill waits", extra=context)
        postponed = Postponed(str(error), self.clock.now() + wait)
        stored = self.recorder.apply_to_task(ref, drilling.postpone, owner, postponed)
        if stored is not None and stored.after.live_drill(ref) is None:
            self._ended(stored, ref)

    def _ended(self, recorded: Recorded, ref: TaskRef) -> None:
        """Counts and tells what was found; the name of a member is the tenant's, and stands in no log."""
        drill = recorded.after.tasks[ref.provider].drill
        if drill is None:
            return
        context = {**log_context(ref), "state": drill.state, "members": drill.members}
        count("DrillsDone")
        match drill.state:
            case DrillState.OK:
                logger.info("drill done", extra=context)
            case DrillState.UNREAD:
                count("DrillsUnread")
                logger.warning("drill could not judge", extra={**context, "found": drill.message})
            case DrillState.DAMAGED:
                logger.error("backup damaged", extra={**context, "found": drill.message})
                self._drill_next(recorded.after, ref.provider)
        job = recorded.after
        if site := self.sites.get(job.user_id, job.site_id):
            self.settle(site)

    def _take_proof(self, job: Job) -> None:
        """Before the damage is stored: whatever is lost then, the next run of the drills finds the site due."""
        for _ in range(MAX_CONFLICTS):
            site = self.sites.get(job.user_id, job.site_id)
            if site is None or self.sites.replace(site, site.unproven(self.recorder.now())):
                return
        raise Conflict(f"site {job.site_id} kept changing")

    def _drill_next(self, damaged: Job, provider: str) -> None:
        """The backup that takes the place of the damaged one is opened at once, unless it was already."""
        found = self.settle.newest(damaged).get(provider)
        if found is not None and found.task.drill is None:
            request = partial(drilling.request, providers=[provider], newest=[provider])
            self.recorder.apply(found.job.id, request, known=found.job)


@dataclass
class _Reading:
    """What one invocation has of a drill."""

    use: DrillBackup
    ref: TaskRef
    owner: str
    deadline: datetime
    place: Place
    bytes_read: int = 0

    def __post_init__(self) -> None:
        now = self.use.clock.now()
        lease = timedelta(seconds=self.use.recorder.policy.lease_seconds)
        self._store_every = min(STORED_EVERY, lease / 3)  # a short lease is renewed sooner
        self._store_at = now + self._store_every
        self._counting = Lock()

    def has_read(self, length: int) -> None:
        """So many bytes more; slices are read ahead by another thread."""
        with self._counting:
            self.bytes_read += length

    def keep(self, place: Place) -> None:
        """Stores the place when it is time to. Raises TimeIsUp, or TaskEnded if the drill is no longer its own."""
        now = self.use.clock.now()
        if now >= self.deadline - STOPS_BEFORE_DEADLINE:
            raise TimeIsUp
        if now < self._store_at:
            return
        if self.use.recorder.apply_to_task(self.ref, drilling.keep, self.owner, place) is None:
            raise TaskEnded
        self._store_at = self.use.clock.now() + self._store_every
