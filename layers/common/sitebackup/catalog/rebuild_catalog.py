"""Makes the records that the bucket knows of and the database does not: done jobs, schedules, limits of users."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated

import msgspec

from ..domain.catalog import (
    Difference,
    Folder,
    KeyPrefix,
    described,
    folder_differences,
    gone,
    job_of,
    unreadable_manifest,
)
from ..domain.errors import Conflict, DuplicateJob, Permanent
from ..domain.job import FoundVersion, Job
from ..domain.lock import HeldVersion, LegalHold
from ..domain.model import Model
from ..domain.policy import Policy
from ..domain.principal import OWN_WORK
from ..domain.schedule import Schedule
from ..ports.repositories import JobRepository, QuotaRepository, ScheduleRepository, SiteRepository
from ..ports.runtime import Clock, Pool
from ..ports.storage import ObjectStorage
from ..telemetry import count, logger
from . import saved_settings
from .folders import read_folders, read_whole
from .passes import work_through
from .saved_settings import LimitsPage, SchedulesPage, last_of, newest_saved, pages_past, read_page

AT_ONCE = 16
"""Folders in the hands of one pass: nearly all of their time goes by waiting for S3."""
MAX_LEFT_OUT = 100
"""An answer that names so many ends there."""
JOBS, SCHEDULES, LIMITS = "jobs:", "schedules:", "limits:"


class Rebuild(Model, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the function is asked. An error about a field quotes its description."""

    before: Annotated[
        datetime,
        msgspec.Meta(tz=True, description="the time when the database was lost, like 2030-01-31T12:00:00Z"),
    ]
    """Schedules and limits are taken as they were saved before that: later a half-empty database may have been."""
    marker: Annotated[
        str,
        msgspec.Meta(
            pattern=rf"^({JOBS}|{SCHEDULES}|{LIMITS})[ -~]{{0,1000}}\Z",
            description="left out, or as the last answer had it",
        ),
    ] = JOBS
    prefix: KeyPrefix = ""
    """With one, the jobs of these users are rebuilt, and neither schedules nor limits."""


class Rebuilt(Model, frozen=True, kw_only=True, omit_defaults=False):
    """What one pass did."""

    jobs: int
    """Records that were made."""
    jobs_present: int
    """Those that were there already, in whatever state: they stay as they are."""
    schedules: int
    schedules_present: int
    limits: int
    """Users whose exceptions are back."""
    limits_present: int
    left_out: list[Difference]
    """Folders of which no record could be made, and why."""
    pages_left_out: list[str]
    """Keys of pages of schedules or limits that can't be read."""
    marker: str | None
    """To go on with; None: all is done."""


@dataclass(frozen=True)
class RebuildCatalog:
    """One pass. It only ever adds what is missing, so it may be repeated, and run beside backups.

    Jobs come first: by their idempotency keys a schedule then knows which of its ticks have run.
    """

    jobs: JobRepository
    schedules: ScheduleRepository
    quotas: QuotaRepository
    sites: SiteRepository
    storage: ObjectStorage
    policy: Policy
    clock: Clock
    pool: Pool

    def __call__(self, request: Rebuild, deadline: datetime) -> Rebuilt:
        """Raises Transient or Unavailable if nothing could be done, or Permanent."""
        done = _Done()

        def step(marker: str) -> str | None:
            if marker == JOBS:
                self._create_indexes()
            if marker.startswith(JOBS):
                after = self._folders(request.prefix, marker.removeprefix(JOBS), done)
                last = None if request.prefix else SCHEDULES
                return last if after is None else JOBS + after
            if marker.startswith(SCHEDULES):
                after = self._schedules(request.before, marker.removeprefix(SCHEDULES), done)
                return LIMITS if after is None else SCHEDULES + after
            after = self._limits(request.before, marker.removeprefix(LIMITS), done)
            return None if after is None else LIMITS + after

        marker = work_through(
            step, request.marker, deadline, self.clock.now, lambda: len(done.left_out) >= MAX_LEFT_OUT
        )
        count("JobsRebuilt", done.counts["jobs"])
        return Rebuilt(
            jobs=done.counts["jobs"],
            jobs_present=done.counts["jobs_present"],
            schedules=done.counts["schedules"],
            schedules_present=done.counts["schedules_present"],
            limits=done.counts["limits"],
            limits_present=done.counts["limits_present"],
            left_out=done.left_out,
            pages_left_out=done.pages_left_out,
            marker=marker,
        )

    def _create_indexes(self) -> None:
        """Functions that run already did so in the database that is lost, and won't again."""
        self.jobs.create_indexes()
        self.schedules.create_indexes()
        self.sites.create_indexes()

    def _folders(self, prefix: str, after: str, done: "_Done") -> str | None:
        """Makes the records of the next folders."""
        found = read_folders(self.storage, prefix, after)
        with self.pool(AT_ONCE) as pool:
            for made in pool.map(self._make, found.folders):
                if isinstance(made, Difference):
                    logger.error("not rebuilt", extra=made.to_document())
                    done.left_out.append(made)
                elif made:
                    done.counts[made] += 1
        return found.after

    def _make(self, folder: Folder) -> Difference | str | None:
        """What was counted; None: it is no folder of a done job."""
        if not folder.is_whole:
            return folder_differences(folder, None)[0]
        if folder.manifest is None:
            return None
        if self.jobs.version_for(OWN_WORK, folder.job_id) is not None:
            return "jobs_present"
        try:
            manifest = described(folder, read_whole(self.storage, folder.manifest))
            if isinstance(manifest, Difference):
                return manifest
            if missing := gone(folder, manifest):
                return missing
            job = self._held(job_of(manifest, self.policy), folder.manifest)
        except (Permanent, OverflowError) as error:  # one that S3 refuses for good stops no other
            return unreadable_manifest(folder, error)
        return "jobs" if self._add(job) else "jobs_present"

    def _held(self, job: Job, manifest: FoundVersion) -> Job:
        """With the legal hold that S3 knows of, as the manifest tells of none, and with no lock that S3 never got.

        The manifest is written before the locks are set, and locked as the last.
        """
        held = self.storage.held(manifest.key, manifest.version_id) or HeldVersion(None, legal_hold=False)
        if held.legal_hold:
            job = job.replace(legal_hold=LegalHold(on=True, settled=True))
        if job.lock and job.lock.until > self.clock.now() and not held.is_locked_until(job.lock.until):
            job = job.replace(lock=None)
        return job

    def _add(self, job: Job) -> bool:
        """Whether the record was missing. Its key may have been used anew since the database was lost.

        Its site first, as when it was made: drills open what stands there.
        """
        self.sites.backed_up(job.user_id, job.site_id, self.clock.now())
        for same in (job, job.replace(idempotency_key=None, request_digest=None)):
            try:
                self.jobs.add(same)
            except DuplicateJob:
                if self.jobs.version_for(OWN_WORK, job.id) is not None:
                    return False
            else:
                return True
        return False

    def _schedules(self, before: datetime, place: str, done: "_Done") -> str | None:
        """Adds the schedules of the next pages; `place` is `{name of the copy}/{schedule}`, empty at first."""

        def add(found: FoundVersion) -> None:
            with self.pool(AT_ONCE) as pool:
                page = read_page(self.storage, found, SchedulesPage)
                for made in pool.map(self._add_schedule, page.schedules):
                    done.counts["schedules" if made else "schedules_present"] += 1

        return self._pages(saved_settings.SCHEDULES, before, place, add, done)

    def _limits(self, before: datetime, place: str, done: "_Done") -> str | None:
        """Adds the exceptions of the users of the next pages; `place` is `{name of the copy}/{user}`."""

        def add(found: FoundVersion) -> None:
            for user in read_page(self.storage, found, LimitsPage).limits:
                done.counts["limits" if self.quotas.add_limits(user) else "limits_present"] += 1

        return self._pages(saved_settings.LIMITS, before, place, add, done)

    def _pages(
        self,
        folder: str,
        before: datetime,
        place: str,
        add: Callable[[FoundVersion], None],
        done: "_Done",
    ) -> str | None:
        """Adds what is in the next pages of the copy, and says where to go on."""
        name, _, past = place.partition("/")
        name = name or newest_saved(self.storage, before) or ""
        pages = pages_past(self.storage, folder, name, past) if name else []
        if not pages:
            return None
        for found in pages:
            try:
                add(found)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                logger.error("settings not rebuilt", extra={"key": found.key, "error": str(error)})
                done.pages_left_out.append(found.key)
        return f"{name}/{last_of(pages[-1])}"

    def _add_schedule(self, schedule: Schedule) -> bool:
        """Whether the site had none. It stands where it stood: what has become due since then is caught up once.

        Its slot may be another's by now. Without one it counts all the same.
        """
        try:
            self.schedules.add(schedule.replace(slot=None))
        except Conflict:
            return False
        return True


@dataclass
class _Done:
    """Of one pass."""

    counts: Counter[str] = field(default_factory=Counter)
    left_out: list[Difference] = field(default_factory=list)
    pages_left_out: list[str] = field(default_factory=list)
