"""One pass of the sweep: what is due is decided at one moment, however long its reads take."""

from datetime import timedelta

from sitebackup.backup.recorder import Recorder
from sitebackup.domain.events import UploadPartCreated
from sitebackup.domain.job import PartWait, Upload
from sitebackup.domain.transitions import runs
from sitebackup.upkeep.sweep_jobs import SweepJobs
from tests.fakes.bus import MemoryBus
from tests.fakes.clock import ManualClock
from tests.fakes.jobs import MemoryJobs
from tests.fakes.parts import MemoryParts
from tests.unit.jobs import (
    DB,
    FIVE_PARTS,
    ME,
    MOMENT,
    POLICY,
    SITE,
    START,
    UPLOAD_ID,
    WINDOW,
    at,
    changed,
    planned,
)

SECOND = timedelta(seconds=1)
STALL = timedelta(seconds=POLICY.stall_seconds)
PASS = timedelta(seconds=50)


class SlowParts(MemoryParts):
    """Each look at what is missing takes a few seconds."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__()
        self._clock = clock

    def missing(self, upload_id: str, numbers: range) -> dict[int, PartWait]:
        self._clock.advance(2 * SECOND)
        return super().missing(upload_id, numbers)


def test_a_task_that_comes_due_while_another_is_looked_at_has_its_own_missing_parts_sent() -> None:
    """A check that had not read which of them are missing would have the upload completed."""
    other = Upload(upload_id="u2", plan=FIVE_PARTS, attempt=1, dispatched=WINDOW, window=WINDOW)
    job = changed(runs.start_task(planned(), MOMENT, DB, 0, ME))
    job = changed(runs.adopt_upload(job, at(START + SECOND), DB, ME, other))
    clock, jobs, bus = ManualClock(START + STALL), MemoryJobs(), MemoryBus()
    jobs.put(job.with_next_check())
    sweep = SweepJobs(Recorder(jobs, POLICY, clock.as_port().now, bus), SlowParts(clock))
    sweep(clock.now + PASS)
    assert bus.bag == [
        UploadPartCreated(task=task, upload_id=upload_id, number=number, redelivery=1)
        for task, upload_id in ((SITE, UPLOAD_ID), (DB, other.upload_id))
        for number in range(1, WINDOW + 1)
    ]
