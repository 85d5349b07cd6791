"""Restores under faults at every call of a port: what providers are given, and what is kept (I10, I19, I20)."""

from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest

from sitebackup.domain import restoring
from sitebackup.domain.job import Status
from sitebackup.domain.reason import Code
from sitebackup.domain.restore import Restore, RestoreStatus, RestoreTask
from tests.fakes.exports import MemoryExport
from tests.fakes.readers import some_bytes
from tests.simulation.restore_service import SimulatedRestore
from tests.simulation.service import SLICE, Fault

DELIVERIES = 60
"""More than any of these restores needs, with one fault."""
FEWEST_CALLS = 30
"""Of ports, that any restore takes."""
KINDS: dict[str, tuple[dict[str, int], dict[str, Any]]] = {
    "with a safety backup": ({"site": 2 * SLICE}, {}),
    "without a safety backup": ({"site": 3 * SLICE}, {"safety_backup": False}),
    "of two providers that tell": (
        {"site": SLICE + 1, "db": SLICE - 1},
        {"import_status": True, "safety_backup": False},
    ),
}
"""Bytes of each provider's export, and how it is restored."""


def restored(
    kind: str = "without a safety backup", faults: dict[int, Fault] | None = None, **changes: Any
) -> SimulatedRestore:
    sizes, how = KINDS[kind]
    served = {name: MemoryExport(some_bytes(name, size)) for name, size in sizes.items()}
    return SimulatedRestore(served, faults=faults or {}, **how | changes)


def at_every_call(kind: str, fault: Fault, **changes: Any) -> Iterator[SimulatedRestore]:
    """The restore after the fault at each call of a port in turn, and after its end."""
    for number in count():
        service = restored(kind, {number: fault}, **changes)
        service.deliver_next(DELIVERIES)
        if not service.happened:
            break
        service.finish_restore()
        yield service
    assert number > FEWEST_CALLS


def check_done_once(service: SimulatedRestore) -> None:
    """Every provider has got every byte once."""
    restore = service.check_end()
    assert restore.status is RestoreStatus.DONE, service.happened
    for name, content in service.source_content.items():
        assert service.imports.carried_out[restore.id, name] == 1, service.happened
        received = sum(
            service.imports.received[url]
            for url, upload in service.imports.uploads.items()
            if upload.provider == name
        )
        assert received == len(content), f"bytes were sent again: {service.happened}"


def code_of(ended: Restore | RestoreTask) -> Code | None:
    return ended.reason.code if ended.reason else None


@pytest.mark.parametrize("fault", [Fault.CRASH_BEFORE, Fault.CRASH_AFTER, Fault.FAILS, Fault.ANSWER_LOST])
@pytest.mark.parametrize("kind", KINDS)
def test_a_restore_gets_done_whichever_call_of_a_port_fails_once(kind: str, fault: Fault) -> None:
    for service in at_every_call(kind, fault):
        check_done_once(service)


@pytest.mark.parametrize(
    "fault",
    [Fault.OTHERS, Fault.AGAIN, Fault.SWEEP, Fault.CLEAN_UP, Fault.STILL_BEFORE, Fault.STILL_AFTER],
)
@pytest.mark.parametrize("kind", ["with a safety backup", "without a safety backup"])
def test_a_restore_gets_done_whoever_is_overtaken_at_whichever_call_of_a_port(
    kind: str, fault: Fault
) -> None:
    for service in at_every_call(kind, fault):
        check_done_once(service)


@pytest.mark.parametrize("kind", KINDS)
def test_a_cancel_at_any_call_of_a_port_stops_what_no_provider_has_whole(kind: str) -> None:
    for service in at_every_call(kind, Fault.CANCEL_RESTORE):
        restore = service.check_end()
        for name, task in restore.tasks.items():
            assert task.status in (Status.DONE, Status.CANCELLED)
            imported = service.imports.carried_out[restore.id, name]
            assert imported == (task.status is Status.DONE), service.happened


@pytest.mark.parametrize("kind", ["with a safety backup", "without a safety backup"])
def test_a_cancel_and_a_retry_at_any_call_of_a_port_give_the_retry_a_safety_backup_and_a_pin_of_its_own(
    kind: str,
) -> None:
    for service in at_every_call(kind, Fault.BEGIN_ANEW):
        restore = service.check_end()
        assert restore.status is RestoreStatus.DONE
        assert restore.attempt <= 2


def test_a_retry_first_ends_what_a_crashed_cancel_has_left() -> None:
    service = restored("with a safety backup")
    (safety,) = service.active
    cancelled = service.change_restore.recorder.apply(service.restore.id, restoring.cancel)
    assert cancelled is not None
    service.retry_restore()
    assert service.restore.attempt == 2
    assert service.stored(safety.id).status is Status.CANCELLED
    assert service.job.pins.keys() == {service.restore.pin_owner}
    service.finish_restore()
    assert service.check_end().status is RestoreStatus.DONE


@pytest.mark.parametrize("kind", ["without a safety backup", "of two providers that tell"])
def test_a_provider_that_forgets_uploads_is_sent_them_anew_unless_it_may_have_imported_them(
    kind: str,
) -> None:
    for service in at_every_call(kind, Fault.FORGET):
        restore = service.check_end()
        for name, task in restore.tasks.items():
            imported = service.imports.carried_out[restore.id, name]
            assert imported == 1, service.happened
            assert task.status is Status.DONE or code_of(task) is Code.IMPORT_UNKNOWN
