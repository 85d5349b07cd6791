"""Quotas under crashes, repeats and lost answers: never over, nothing leaks, and who fits gets done.

After every stored change the simulated service compares what there is with the limits.
"""

import os
from itertools import count

import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from sitebackup.backup.create_job import CreateBackup
from sitebackup.domain.errors import ActiveJob
from sitebackup.domain.job import Job, Status
from sitebackup.domain.policy import Policy
from sitebackup.domain.quota import Limits, OverQuota, Quota
from sitebackup.domain.reason import Code
from sitebackup.domain.restore import RestoreStatus
from sitebackup.restore.create_restore import RestoreRequest
from tests.builders import BY_SERVICE
from tests.fakes.exports import MemoryExport
from tests.fakes.readers import some_bytes
from tests.simulation.restore_service import SimulatedRestore
from tests.simulation.service import PART_SIZE, SITE_ID, USER_ID, Fault, SimulatedService
from tests.simulation.test_simulation import DELIVERIES, GIVEN_UP, check_end

EXAMPLES = int(os.environ.get("SIMULATION_EXAMPLES", "150"))
OUTAGES = [Fault.CRASH_BEFORE, Fault.CRASH_AFTER, Fault.FAILS, Fault.ANSWER_LOST]
KINDS = ["small", "ranged", "stream", "stream of unknown length"]
SITES = [SITE_ID, "c" * 24, "d" * 24]
LATEST_FAULT = 150


def an_export(kind: str, size: int | None = None) -> MemoryExport:
    size = size if size is not None else PART_SIZE - 1 if kind == "small" else 4 * PART_SIZE + 1
    return MemoryExport(
        some_bytes(kind, size),
        ranged=not kind.startswith("stream"),
        says_size=kind != "stream of unknown length",
    )


def limited(active_jobs: int = 0, stored_bytes: int = 0, restores_per_day: int = 0) -> Policy:
    return Policy(
        parts_in_flight=3,
        quota_active_jobs=active_jobs,
        quota_stored_bytes=stored_bytes,
        quota_restores_per_day=restores_per_day,
    )


def begin(service: SimulatedService, site_id: str, user_id: str = USER_ID) -> Job:
    return service.create(CreateBackup(user_id=user_id, site_id=site_id))


def held(service: SimulatedService) -> int:
    return service.quotas.held_bytes(USER_ID)


@pytest.mark.parametrize("fault", OUTAGES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_backup_that_just_fits_gets_done_whichever_call_of_a_port_fails_once(
    fault: Fault, kind: str
) -> None:
    """A reservation that is repeated counts once, and the last byte of the limit can be used."""
    export = an_export(kind)
    size = len(export.content)
    for number in count():
        service = SimulatedService(
            {"site": export}, faults={number: fault}, policy=limited(active_jobs=1, stored_bytes=size)
        )
        service.deliver_next(DELIVERIES)
        if not service.happened:
            break
        service.finish()
        assert check_end(service).status is Status.DONE, service.happened
        assert held(service) == size
        assert service.quotas.slots(USER_ID, Quota.ACTIVE_JOBS, None, 9) == []
    assert any(call == "quotas.held_bytes" for call in service.calls)


@pytest.mark.parametrize("kind", KINDS)
def test_an_export_that_is_a_byte_too_much_fails_and_says_so_and_leaves_nothing_that_counts(
    kind: str,
) -> None:
    export = an_export(kind)
    service = SimulatedService({"site": export}, policy=limited(stored_bytes=len(export.content) - 1))
    service.finish()
    job = check_end(service)
    assert (job.status, job.reason and job.reason.code) == (Status.FAILED, Code.QUOTA_EXCEEDED)
    assert job.reason is not None
    assert f" {len(export.content) - 1} " in job.reason.message
    assert held(service) == 0
    assert not service.storage.versions.get(job.key("site"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_backup_that_failed_over_quota_gets_done_by_a_retry_once_there_is_room(kind: str) -> None:
    export = an_export(kind)
    service = SimulatedService({"site": export}, policy=limited(stored_bytes=1))
    service.finish()
    assert service.job.reason is not None
    service.quotas.exceptions[USER_ID] = Limits(stored_bytes=len(export.content))
    service.retry()
    service.finish()
    assert service.job.status is Status.DONE
    assert held(service) == len(export.content)


@pytest.mark.parametrize("fault", OUTAGES)
def test_a_creation_that_crashes_keeps_no_slot_but_that_of_the_backup_that_it_stored(fault: Fault) -> None:
    for number in count():
        service = SimulatedService({"site": an_export("small")}, policy=limited(active_jobs=2))
        service.cancel()
        service.calls.clear()
        service.faults = {number: fault}
        with service.invocation():
            begin(service, SITES[1])
        if not service.happened:
            break
        service.faults = {}
        there = [job for job in service.jobs.all() if job.is_active]
        assert len(there) <= 1
        for number_left in range(2 - len(there)):
            begin(service, f"{number_left:024x}")
        with pytest.raises(OverQuota):
            begin(service, "e" * 24)
    assert number > 2


@pytest.mark.parametrize("fault", OUTAGES)
def test_a_retry_that_crashes_keeps_no_slot_but_that_of_the_attempt_that_it_opened(fault: Fault) -> None:
    for number in count():
        service = SimulatedService({"site": an_export("small")}, policy=limited(active_jobs=1))
        service.cancel()
        service.calls.clear()
        service.faults = {number: fault}
        service.retry()
        if not service.happened:
            break
        service.faults = {}
        if service.job.is_active:
            with pytest.raises(OverQuota):
                begin(service, SITES[1])
        else:
            begin(service, SITES[1])
    assert number > 2


def test_a_retry_takes_a_slot_again_and_is_refused_without_one() -> None:
    service = SimulatedService({"site": an_export("small")}, policy=limited(active_jobs=1))
    service.cancel()
    other = begin(service, SITES[1])
    with pytest.raises(OverQuota):
        service.change_job.retry(BY_SERVICE, service.job_id)
    service.change_job.cancel(BY_SERVICE, other.id)
    assert service.change_job.retry(BY_SERVICE, service.job_id).slot is not None


def test_a_site_that_is_active_is_told_so_as_long_as_there_are_slots() -> None:
    service = SimulatedService({"site": an_export("small")}, policy=limited(active_jobs=2))
    with pytest.raises(ActiveJob):
        begin(service, SITE_ID)


@settings(deadline=None, max_examples=EXAMPLES, suppress_health_check=[HealthCheck.too_slow])
@given(
    kind=st.sampled_from(KINDS),
    limit=st.integers(0, 2),
    faults=st.dictionaries(
        st.integers(0, LATEST_FAULT),
        st.sampled_from([*OUTAGES, Fault.OTHERS, Fault.LAST, Fault.AGAIN, Fault.SWEEP, Fault.RETRY]),
        max_size=6,
    ),
    order=st.lists(st.integers(0, 30), max_size=60),
)
def test_of_backups_that_run_at_once_only_what_fits_gets_done_whatever_crashes(
    kind: str, limit: int, faults: dict[int, Fault], order: list[int]
) -> None:
    """Three of one user, of which the limit lets none, one or two be stored."""
    size = len(an_export(kind).content)
    service = SimulatedService({"site": an_export(kind)}, policy=limited(stored_bytes=limit * size or 1))
    for site_id in SITES[1:]:
        begin(service, site_id)
    service.calls.clear()
    service.faults = faults
    for choice in order:
        service.deliver(service.take(choice))
    note(f"happened: {service.happened}")
    for job in service.jobs.all():
        service.job_id = job.id
        service.finish()
    done = [job for job in service.jobs.all() if job.status is Status.DONE]
    assert len(done) <= limit
    assert held(service) == len(done) * size
    for job in service.jobs.all():
        assert job in done or (job.reason and job.reason.code in {*GIVEN_UP, Code.QUOTA_EXCEEDED})


def test_a_restore_and_its_safety_backup_need_no_room_for_backups() -> None:
    export = an_export("small")
    policy = Policy(delete_grace_seconds=60, quota_active_jobs=1, quota_stored_bytes=len(export.content))
    service = SimulatedRestore({"site": export}, policy=policy)
    with pytest.raises(OverQuota, match=r"^storedBytes: "):
        begin(service, SITES[1])
    service.finish_restore()
    assert service.restore.status is RestoreStatus.DONE
    assert len(service.jobs.all()) == 2, "the safety backup was made"
    assert held(service) == len(export.content)


def test_a_restore_takes_a_slot_of_its_day_and_its_retry_takes_none() -> None:
    service = SimulatedService({"site": an_export("small")}, policy=limited(restores_per_day=1))
    service.finish()
    request = RestoreRequest(
        user_id=USER_ID, site_id=SITE_ID, job_id=service.job_id, providers="all", safety_backup=False
    )
    restore = service.create_restore(BY_SERVICE, request, None, None)
    service.change_restore.cancel(BY_SERVICE, restore.id)
    with pytest.raises(OverQuota, match=r"^restoresPerDay: the limit is 1, and 1 are used\.$") as raised:
        service.create_restore(BY_SERVICE, request, None, None)
    assert raised.value.retry_after == 12 * 3600
    assert service.change_restore.retry(BY_SERVICE, restore.id).is_active
