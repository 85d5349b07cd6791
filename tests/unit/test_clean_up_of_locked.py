"""Versions that S3 lets nobody remove, and of whose lock no job knows: the clean-up waits for them, and ends."""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest

from sitebackup.backup.recorder import JobStore
from sitebackup.domain.job import DeleteCause, Job, Status, Task
from sitebackup.domain.lock import Lock, LockMode
from sitebackup.domain.policy import Policy
from sitebackup.upkeep.clean_up import LOOK_AT_A_HOLD, CleanUp
from tests.builders import NOW, a_job
from tests.fakes.clock import ManualClock
from tests.fakes.jobs import MemoryJobs
from tests.fakes.pool import InlinePool
from tests.fakes.storage import MemoryStorage

POLICY = Policy()
OVER = timedelta(seconds=max(POLICY.delete_grace_seconds, POLICY.upload_grace_seconds))
LOCKED = timedelta(days=20)


@dataclass
class Kept:
    """A job with an object and its manifest, and beside them a version that is none of its own."""

    status: Status
    changes: dict[str, Any]
    jobs: MemoryJobs = field(default_factory=MemoryJobs)
    storage: MemoryStorage = field(default_factory=MemoryStorage)
    clock: ManualClock = field(default_factory=lambda: ManualClock(NOW))

    def __post_init__(self) -> None:
        self.storage.now = lambda: self.clock.now
        job = a_job(status=self.status, finished_at=NOW, clean_up_at=NOW + OVER, **self.changes)
        self.left = self.storage.add_version(job.key("site"), b"of an earlier run")
        stored = self.storage.put_object(job.key("site"), memoryview(b"some"))
        self.storage.put_once(job.manifest_key, b"{}")
        task = Task(status=self.status, object=stored, finished_at=NOW, runs=2)
        self.job_id = job.id
        self.jobs.put(job.replace(tasks={"site": task}))

    @property
    def job(self) -> Job:
        (job,) = self.jobs.all()
        return job

    def versions(self) -> list[str]:
        """All that there are of the job."""
        return [version for versions in self.storage.versions.values() for version in versions]

    def clean_up(self) -> None:
        """Each step that is due now."""
        clean = CleanUp(JobStore(self.jobs, POLICY, lambda: self.clock.now), self.storage, InlinePool)
        clean(self.clock.now + timedelta(minutes=1))


DONE = {"sealed_at": NOW}
MARKED = {**DONE, "delete_at": NOW, "delete_cause": DeleteCause.REQUESTED}


def is_over(job: Job) -> bool:
    return job.status is Status.DELETED or job.cleaned_at is not None


@pytest.mark.parametrize(
    ("status", "changes", "stays"),
    [(Status.DONE, MARKED, 1), (Status.DONE, DONE, 3), (Status.FAILED, {}, 2)],
    ids=["a deletion", "what earlier runs left", "a failed attempt"],
)
@pytest.mark.parametrize("hold", [False, True])
def test_a_version_of_whose_lock_no_job_knows_is_waited_for_and_keeps_nothing_else(
    status: Status, changes: dict[str, Any], stays: int, hold: bool
) -> None:
    """The manifest of a failed job is nobody's, and stays."""
    kept = Kept(status, changes)
    key, until = kept.job.key("site"), NOW + LOCKED
    if hold:
        kept.storage.set_legal_hold(key, kept.left, True)
    else:
        kept.storage.lock(key, kept.left, Lock(mode=LockMode.COMPLIANCE, until=until))
    kept.clock.advance(OVER)
    kept.clean_up()
    assert kept.left in kept.versions()
    assert len(kept.versions()) == stays
    assert not is_over(kept.job)
    next_look = kept.job.clean_up_at
    assert next_look == (kept.clock.now + LOOK_AT_A_HOLD if hold else until)
    if hold:
        kept.storage.set_legal_hold(key, kept.left, False)
    kept.clock.advance_to(next_look)
    kept.clean_up()
    assert kept.left not in kept.versions()
    assert is_over(kept.job)
