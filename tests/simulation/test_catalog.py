"""Whatever happens to a backup, the bucket and the records agree at any moment, and the one gives the other back."""

from datetime import timedelta

import pytest
from hypothesis import given, note

from sitebackup.domain.job import Job, Status
from tests.fakes.exports import MemoryExport
from tests.fakes.readers import some_bytes
from tests.simulation.service import PART_SIZE, Fault, SimulatedService
from tests.simulation.test_simulation import BUSY, OF_BACKUPS, play, services, steps


def kept(job: Job) -> Job:
    """As far as its manifest tells."""
    tasks = {
        name: task.replace(
            warning=None, last_error=None, losses=0, stream_only=False, stream_stops=0, tries=0, stall_delay=0
        )
        for name, task in sorted(job.tasks.items())
    }
    return job.replace(
        version=1, tasks=tasks, updated_at=job.sealed_at, deadline_at=job.sealed_at, clean_up_at=None,
        cleaned_at=None, next_check_at=None, pins={},
    )  # fmt: skip


@BUSY
@given(service=services(OF_BACKUPS, 6), steps=steps("cancel", "retry"))
def test_the_records_and_the_bucket_agree_at_any_moment_whatever_happens(
    service: SimulatedService, steps: list[tuple[str, int]]
) -> None:
    for step in steps:
        play(service, [step])
        note(f"happened: {service.happened}, job: {service.job}")
        assert service.check_differences() == []
    service.finish()
    service.grow_old()
    assert service.check_differences() == []
    job = service.job
    made = service.rebuild()
    if job.status is Status.DONE:
        assert made is not None
        assert kept(made) == kept(job)
    else:
        assert made is None
    assert service.check_differences() == []


def done() -> SimulatedService:
    """With a job of two providers, which is done."""
    service = SimulatedService(
        {name: MemoryExport(some_bytes(name, 2 * PART_SIZE + 1), ranged=True) for name in ("site", "db")}
    )
    service.finish()
    return service


@pytest.mark.parametrize("fault", [Fault.CRASH_BEFORE, Fault.CRASH_AFTER])
def test_a_job_whose_removal_broke_off_anywhere_is_not_made_again_with_half_of_its_data(fault: Fault) -> None:
    left: list[tuple[int, bool]] = []
    for number in range(100):
        service = done()
        service.delete()
        service.pass_time(timedelta(seconds=service.policy.delete_grace_seconds + 1))
        service.faults = {number: fault}
        service._all_is_well = False
        service.calls.clear()
        service.clean_up()
        if not service.happened:
            break
        assert service.check_differences() == []
        versions = sum(len(versions) for versions in service.storage.versions.values())
        made = service.rebuild()
        left.append((versions, made is not None))
        assert made is None or (versions == 3 and made.delete_cause is None)
        assert all(one.code == "object_unrecorded" for one in service.check_differences())
    assert {3, 2, 1, 0} <= {versions for versions, _ in left}
    assert (3, True) in left
