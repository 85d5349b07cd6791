"""Restores one by one: slow, broken and forgetful providers, and workers whose time is over."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from sitebackup.backup.create_job import CreateBackup
from sitebackup.domain.errors import ActiveJob, Permanent, RepositoryUnavailable, Transient
from sitebackup.domain.events import RestoreTaskCreated
from sitebackup.domain.job import Status
from sitebackup.domain.policy import Policy
from sitebackup.domain.reason import Code
from sitebackup.domain.restore import RestoreStatus, RestoreTask
from sitebackup.restore.restore_lease import LOOK_EVERY
from tests.fakes.exports import MemoryExport
from tests.fakes.imports import MemoryImportApi
from tests.fakes.readers import some_bytes
from tests.simulation.restore_service import DELETE_GRACE_SECONDS, SimulatedRestore
from tests.simulation.service import INVOCATION, SITE_ID, SLICE, USER_ID, Crash

SLICES = 6
SLICE_SECONDS = 205
"""Four slices of that length leave an invocation too little time for a fifth."""
BACKUP = CreateBackup(user_id=USER_ID, site_id=SITE_ID)
AN_HOUR = timedelta(hours=1)


def restored(slices: int = SLICES, providers: int = 1, **changes: Any) -> SimulatedRestore:
    """The service with a restore that has just begun to send."""
    names = ["site", "db"][:providers]
    served = {name: MemoryExport(some_bytes(name, slices * SLICE)) for name in names}
    how: dict[str, Any] = {"safety_backup": False, "policy": policy(), **changes}
    return SimulatedRestore(served, **how)


def policy(restore_seconds: int = 3600) -> Policy:
    return Policy(delete_grace_seconds=DELETE_GRACE_SECONDS, restore_seconds=restore_seconds)


def api(service: SimulatedRestore, name: str = "site") -> MemoryImportApi:
    return service.imports.by_provider[name]


def received(service: SimulatedRestore, name: str = "site") -> int:
    """Bytes that the provider has got, over all uploads that it knows."""
    imports = service.imports
    return sum(imports.received[url] for url, upload in imports.uploads.items() if upload.provider == name)


def task(service: SimulatedRestore, name: str = "site") -> RestoreTask:
    return service.restore.tasks[name]


def ends_done(service: SimulatedRestore) -> None:
    service.finish_restore()
    assert service.check_end().status is RestoreStatus.DONE


def ends(service: SimulatedRestore) -> Code:
    """Otherwise than done: why."""
    service.finish_restore()
    restore = service.check_end()
    assert restore.status is not RestoreStatus.DONE
    assert restore.reason is not None
    return restore.reason.code


def crash() -> None:
    raise Crash


# --- time


def test_an_invocation_whose_time_is_up_hands_over_and_the_next_one_goes_on() -> None:
    service = restored()
    api(service).seconds = SLICE_SECONDS
    began = service.now
    service.deliver(service.take(0))
    assert service.now - began < INVOCATION
    assert (task(service).status, task(service).lease) == (Status.RUNNING, None)
    assert service.bus.bag == [RestoreTaskCreated(task=service.restore.ref.task("site"))]
    assert received(service) == 4 * SLICE
    service.deliver(service.take(0))
    assert task(service).status is Status.DONE
    assert received(service) == SLICES * SLICE, "bytes were sent again"
    ends_done(service)


def test_a_cancel_stops_a_slice_that_is_under_way_within_seconds() -> None:
    service = restored()
    api(service).seconds = SLICE_SECONDS
    waited: list[int] = []

    def wait(seconds: int) -> None:
        waited.append(seconds)
        service.pass_time(timedelta(seconds=seconds))
        if len(waited) == SLICE_SECONDS + 7:  # in the second slice
            service.cancel_restore()

    service.imports.wait = wait
    service.deliver(service.take(0))
    assert len(waited) <= SLICE_SECONDS + 7 + LOOK_EVERY.total_seconds()
    assert SLICE <= received(service) < 2 * SLICE
    assert ends(service) is Code.CANCELLED


def test_a_worker_that_can_not_renew_its_lease_stops_sending_before_it_ends() -> None:
    service = restored(slices=1)
    api(service).seconds = SLICE_SECONDS
    began, undisturbed = service.now, service.injector

    def mongo_is_down() -> None:
        if service.now > began:
            raise RepositoryUnavailable("MongoDB does not answer.")

    for call in ("restores.get", "restores.replace"):
        service.before(call, mongo_is_down)
    service.deliver(service.take(0))
    assert service.now < began + timedelta(seconds=service.policy.lease_seconds)
    assert received(service) == 0
    assert service.bus.bag, "the record is not delivered again"
    service.injector = undisturbed
    api(service).seconds = 0
    ends_done(service)


def test_a_restore_that_is_not_over_at_its_deadline_fails_and_a_retry_goes_on_with_the_upload() -> None:
    service = restored()
    service.before("imports.send", lambda: service.pass_time(AN_HOUR), times=1)
    service.deliver(service.take(0))
    sent_before = received(service)
    assert ends_in(service) is Code.TIMED_OUT
    service.retry_restore()
    service.finish_restore()
    assert service.restore.status is RestoreStatus.DONE
    assert len(service.imports.uploads) == 1
    assert received(service) == SLICES * SLICE > sent_before > 0


def ends_in(service: SimulatedRestore) -> Code:
    """As `ends`, and the backup is kept."""
    service.finish_restore()
    assert service.restore.reason is not None
    return service.restore.reason.code


# --- providers


def test_an_import_that_never_ends_is_unknown_at_the_deadline_and_a_retry_imports_nothing_twice() -> None:
    service = restored(import_status=True, policy=policy(restore_seconds=1200))
    api(service).processing = 10**6
    assert ends_in(service) is Code.IMPORT_UNKNOWN
    api(service).processing = 0
    service.retry_restore()
    ends_done(service)
    assert service.imports.carried_out[service.restore.id, "site"] == 1


@pytest.mark.parametrize("fails", [None, "there is no room left"])
def test_an_import_whose_upload_is_gone_is_settled_by_what_the_provider_tells(fails: str | None) -> None:
    """The worker crashed behind the last slice, and an import that is over takes its upload with it."""
    service = restored(slices=1, import_status=True)
    api(service).fails = fails
    service.after("imports.send", crash)
    service.deliver(service.take(0))
    for url in list(service.imports.uploads):
        service.imports.forget(url, tells_outcome=True)
    service.finish_restore()
    assert service.check_end().status is (RestoreStatus.FAILED if fails else RestoreStatus.DONE)
    assert service.calls.count("imports.create") == 1


def test_a_sibling_of_a_failed_task_is_restored_and_a_retry_sends_what_is_missing_alone() -> None:
    service = restored(providers=2, safety_backup=True)
    api(service, "db").refuses = Permanent(Code.IMPORT_REFUSED, "db answered 400.")
    assert ends_in(service) is Code.IMPORT_REFUSED
    assert task(service).status is Status.DONE
    api(service, "db").refuses = None
    service.retry_restore()
    ends_done(service)
    assert service.restore.safety_job_id is not None
    assert service.stored(service.restore.safety_job_id).tasks.keys() == {"db"}
    assert received(service) == SLICES * SLICE
    assert service.imports.whole == {(service.restore.id, name): 1 for name in ("site", "db")}


def test_trouble_of_one_provider_neither_delays_nor_repeats_its_sibling() -> None:
    service = restored(providers=2)
    api(service, "db").refuses = Transient("db answered 503.", timedelta(minutes=10))
    service.deliver_all()
    began = service.now
    assert task(service).status is Status.DONE
    assert task(service, "db").next_check_at == began + timedelta(minutes=10)
    api(service, "db").refuses = None
    ends_done(service)
    assert received(service) == SLICES * SLICE


def refuse(service: SimulatedRestore) -> None:
    raise Transient("site answered 503.")


def forget(service: SimulatedRestore) -> None:
    for url in [url for url, upload in service.imports.uploads.items() if upload.data]:
        service.imports.forget(url)


def fall_back(service: SimulatedRestore) -> None:
    for url, upload in list(service.imports.uploads.items()):
        if upload.state == "receiving":
            service.imports.lose_bytes(url, 1)


def take_nothing(service: SimulatedRestore) -> None:
    api(service).takes = 0


@pytest.mark.parametrize("trouble", [refuse, forget, fall_back, take_nothing])
def test_what_goes_wrong_for_ever_ends_with_pauses_after_few_tries(
    trouble: Callable[[SimulatedRestore], None],
) -> None:
    service = restored()
    service.before("imports.send", lambda: trouble(service))
    assert ends(service) is Code.RETRIES_EXHAUSTED
    assert service.calls.count("imports.create") <= service.policy.max_tries
    assert service.calls.count("imports.send") <= service.policy.max_tries * SLICES * 3


def test_a_provider_that_breaks_off_in_every_slice_gets_each_byte_once() -> None:
    service = restored()

    def take_one() -> None:
        api(service).takes = 1

    service.before("imports.send", take_one)
    ends_done(service)
    assert received(service) == SLICES * SLICE


def test_of_a_backup_that_is_damaged_the_last_slice_is_never_sent() -> None:
    service = restored()
    stored = task(service).object
    versions = service.storage.versions[stored.key]
    versions[stored.version_id or ""] = b"X" + versions[stored.version_id or ""][1:]
    assert ends(service) is Code.BACKUP_DAMAGED
    assert not service.imports.whole
    assert not service.imports.uploads, "an upload that is of no use was left there"


# --- who stands in the way


@pytest.mark.parametrize("safety_backup", [True, False])
def test_a_site_that_is_restored_is_not_backed_up_beside_it(safety_backup: bool) -> None:
    service = restored(safety_backup=safety_backup)
    with pytest.raises(ActiveJob) as refused:
        service.create(BACKUP)
    assert refused.value.members == {"restoreId": service.restore.id}
    ends_done(service)
    assert service.create(BACKUP).is_active
