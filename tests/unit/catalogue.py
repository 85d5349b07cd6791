"""Records and a bucket in memory that agree, and the use cases that rebuild one from the other and compare both."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from sitebackup.catalog.check_catalog import Check, CheckCatalog, Checked
from sitebackup.catalog.rebuild_catalog import Rebuild, RebuildCatalog, Rebuilt
from sitebackup.catalog.save_settings import SaveSettings
from sitebackup.domain.catalog import Difference
from sitebackup.domain.change import Moment
from sitebackup.domain.job import Job, Status, Task
from sitebackup.domain.manifest import manifest_of
from sitebackup.domain.policy import Policy
from sitebackup.domain.progress import Progress
from sitebackup.domain.transitions.endings import finish_job
from tests.builders import NOW, a_job
from tests.fakes.clock import ManualClock
from tests.fakes.jobs import MemoryJobs, MemoryRestores
from tests.fakes.pool import InlinePool
from tests.fakes.quotas import MemoryQuotas
from tests.fakes.schedules import MemorySchedules
from tests.fakes.sites import MemorySites
from tests.fakes.storage import MemoryStorage

POLICY = Policy()
PASS = timedelta(minutes=1)


@dataclass
class Catalogue:
    """Both sides."""

    jobs: MemoryJobs = field(default_factory=MemoryJobs)
    schedules: MemorySchedules = field(default_factory=MemorySchedules)
    sites: MemorySites = field(default_factory=MemorySites)
    storage: MemoryStorage = field(default_factory=MemoryStorage)
    clock: ManualClock = field(default_factory=lambda: ManualClock(NOW))

    def __post_init__(self) -> None:
        self.storage.now = lambda: self.clock.now
        self._count_anew()

    def a_backup(self, **changes: Any) -> Job:
        """A done job of two providers; `changes` are made to it before it is sealed."""
        job = self.sealed(**changes)
        self.storage.put_once(job.manifest_key, manifest_of(job))
        done = finish_job(job, Moment(self.clock.now, POLICY), job.attempt)
        assert done is not None
        self.jobs.put(done.job)
        return done.job

    def sealed(self, **changes: Any) -> Job:
        """A job that is not finished yet. Its objects are in the bucket, its manifest is not."""
        job = a_job(status=Status.RUNNING, started_at=NOW, sealed_at=NOW, **changes)
        tasks = {name: self._done(job, name) for name in job.tasks}
        self.jobs.put(job.replace(tasks=tasks))
        return job.replace(tasks=tasks)

    def _done(self, job: Job, name: str) -> Task:
        stored = self.storage.put_object(job.key(name), memoryview(f"{job.id} {name}".encode()))
        stored = stored.replace(members=3, parts=2)
        size = stored.size
        progress = Progress(parts=2, bytes=size, watermark=2, watermark_bytes=size)
        return Task(status=Status.DONE, object=stored, progress=progress, runs=1, finished_at=NOW)

    def lose_database(self) -> None:
        """Nothing is left of it."""
        self.jobs, self.schedules, self.sites = MemoryJobs(), MemorySchedules(), MemorySites()
        self._count_anew()

    def _count_anew(self) -> None:
        self.quotas = MemoryQuotas(self.jobs, MemoryRestores(self.jobs), self.schedules)

    def rebuild(self, **request: Any) -> list[Rebuilt]:
        """Passes until all is done."""
        use = RebuildCatalog(
            self.jobs,
            self.schedules,
            self.quotas,
            self.sites,
            self.storage,
            POLICY,
            self.clock.as_port(),
            InlinePool,
        )
        fields = {"before": self.clock.now + timedelta(days=1), **request}
        return self._all(lambda marker: use(Rebuild(**fields | marker), self.clock.now + PASS))

    def check(self, **request: Any) -> list[Difference]:
        """What all passes name."""
        use = CheckCatalog(self.jobs, self.storage, self.clock.as_port(), InlinePool)
        passes = self._all(lambda marker: use(Check(**request | marker), self.clock.now + PASS))
        return [difference for checked in passes for difference in checked.differences]

    def save(self) -> int:
        """One pass."""
        use = SaveSettings(
            self.schedules, self.quotas, self.storage, self.clock.as_port(), POLICY.day_seconds
        )
        return use(self.clock.now + PASS)

    def _all[R: (Rebuilt, Checked)](self, one: Callable[[dict[str, str]], R]) -> list[R]:
        passes = [one({})]
        while (marker := passes[-1].marker) is not None:
            assert marker not in [before.marker for before in passes[:-1]], "it goes round and round"
            passes.append(one({"marker": marker}))
        return passes
