"""Restores under faults at every call of a port: what providers are given, and what is kept (I10, I19, I20)."""

import os
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from sitebackup.domain import restoring
from sitebackup.domain.job import Status
from sitebackup.domain.reason import Code
from sitebackup.domain.restore import Restore, RestoreStatus, RestoreTask
from tests.fakes.exports import MemoryExport
from tests.fakes.readers import some_bytes
from tests.simulation.restore_service import SimulatedRestore
from tests.simulation.service import HARMLESS, SHORTLY, SITE_ID, SLICE, Fault

ANOTHER_SITE = "c" * 24
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
        if service.is_refused:
            assert service.job.removing_at is not None
            continue
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


@pytest.mark.parametrize("fault", [Fault.BREAK, Fault.IMPORT_LONG])
@pytest.mark.parametrize("kind", ["without a safety backup", "of two providers that tell"])
def test_a_provider_that_is_slow_or_breaks_off_is_sent_every_byte_once(kind: str, fault: Fault) -> None:
    for service in at_every_call(kind, fault):
        check_done_once(service)


@pytest.mark.parametrize("kind", ["without a safety backup", "of two providers that tell"])
def test_a_provider_that_loses_bytes_is_sent_them_again(kind: str) -> None:
    for service in at_every_call(kind, Fault.FALL_BACK):
        assert service.check_end().status is RestoreStatus.DONE, service.happened


@pytest.mark.parametrize("fault", [Fault.IMPORT_FAILS, Fault.OFFSET_HIGH])
def test_an_import_that_can_not_succeed_fails_with_the_providers_reason(fault: Fault) -> None:
    reason = {Fault.IMPORT_FAILS: Code.IMPORT_FAILED, Fault.OFFSET_HIGH: Code.IMPORT_INVALID}[fault]
    for service in at_every_call("of two providers that tell", fault):
        restore = service.check_end()
        for task in restore.tasks.values():
            assert task.status is Status.DONE or code_of(task) is reason, service.happened
        if fault is Fault.OFFSET_HIGH:
            assert all(upload.state == "done" for upload in service.imports.uploads.values()), "left there"


def test_nothing_is_sent_if_the_site_can_not_be_backed_up_first() -> None:
    for service in at_every_call("with a safety backup", Fault.EXPORT_GONE):
        restore = service.check_end()
        if restore.status is not RestoreStatus.DONE:
            assert code_of(restore) is Code.SAFETY_BACKUP_FAILED
            assert not service.imports.uploads
            assert not service.imports.imported


@pytest.mark.parametrize("kind", ["with a safety backup", "without a safety backup"])
def test_a_backup_that_is_deleted_meanwhile_is_given_back_whole_or_not_at_all(kind: str) -> None:
    for service in at_every_call(kind, Fault.DELETE):
        restore = service.check_end()
        if restore.status is not RestoreStatus.DONE:
            assert code_of(restore) is Code.BACKUP_GONE, service.happened
            assert not service.imports.uploads


# --- several faults at once

LATEST_FAULT = 110
"""The number of the last call of a port that a fault may hit; few restores take more."""
MAX_FAULTS = 5
MAX_STEPS = 40
EVERY_FAULT = sorted({*Fault} - {Fault.RANGES, Fault.CANCEL, Fault.RETRY})
ENDS = {
    *(Code.BACKUP_GONE, Code.CANCELLED, Code.IMPORT_FAILED, Code.IMPORT_INVALID, Code.IMPORT_UNKNOWN),
    *(Code.RETRIES_EXHAUSTED, Code.SAFETY_BACKUP_FAILED),
}
"""All reasons for which these restores may end otherwise than done."""
sizes = st.sampled_from([0, 1, SLICE, SLICE + 1, 3 * SLICE])


@st.composite
def disturbed(draw: st.DrawFn, faults: Sequence[Fault]) -> SimulatedRestore:
    """A restore of one or two providers, with faults to come."""
    names = ["site", "db"][: draw(st.integers(1, 2))]
    return SimulatedRestore(
        {name: MemoryExport(some_bytes(name, draw(sizes))) for name in names},
        faults=draw(
            st.dictionaries(st.integers(0, LATEST_FAULT), st.sampled_from(faults), max_size=MAX_FAULTS)
        ),
        import_status=True,
        safety_backup=draw(st.booleans()),
        target_site_id=draw(st.sampled_from([SITE_ID, ANOTHER_SITE])),
    )


STEPS: dict[str, Callable[[SimulatedRestore], None]] = {
    "cancel": SimulatedRestore.cancel_restore,
    "retry": SimulatedRestore.retry_restore,
    "sweep": SimulatedRestore.sweep,
    "clean up": SimulatedRestore.clean_up,
    "minute": lambda service: service.pass_time(SHORTLY),
}


def steps(*kinds: str) -> st.SearchStrategy[list[tuple[str, int]]]:
    kind = st.sampled_from([*["deliver"] * 8, "twice", "lose", "sweep", "clean up", "minute", *kinds])
    return st.lists(st.tuples(kind, st.integers(0, 7)), max_size=MAX_STEPS)


def play(service: SimulatedRestore, steps: list[tuple[str, int]]) -> None:
    for step, choice in steps:
        if step in STEPS:
            STEPS[step](service)
            continue
        event = service.take(choice)
        for _ in range({"lose": 0, "deliver": 1, "twice": 2}[step]):
            service.deliver(event)


BUSY = settings(
    deadline=None,
    max_examples=int(os.environ.get("SIMULATION_EXAMPLES", "150")),
    suppress_health_check=[HealthCheck.too_slow],
)


@BUSY
@given(service=disturbed(sorted(HARMLESS)), steps=steps())
def test_a_restore_gets_done_under_any_order_and_any_duplication_of_events(
    service: SimulatedRestore, steps: list[tuple[str, int]]
) -> None:
    play(service, steps)
    note(f"happened: {service.happened}")
    service.finish_restore()
    assert service.check_end().status is RestoreStatus.DONE


@BUSY
@given(service=disturbed(EVERY_FAULT), steps=steps("cancel", "retry"))
def test_a_restore_ends_with_a_reason_whatever_happens_at_once(
    service: SimulatedRestore, steps: list[tuple[str, int]]
) -> None:
    if service.is_refused:
        return
    play(service, steps)
    note(f"happened: {service.happened}")
    service.finish_restore()
    restore = service.check_end()
    assert restore.status is RestoreStatus.DONE or code_of(restore) in ENDS
