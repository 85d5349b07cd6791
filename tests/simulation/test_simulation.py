"""Any order, duplication or crash: a job ends done with the export's bytes, or failed with a reason (I1 to I13).

It leaves nothing behind.
"""

import os
from itertools import count

import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from sitebackup.domain.job import Job, Status
from sitebackup.domain.manifest import manifest_of
from sitebackup.domain.reason import Code
from tests.fakes.exports import MemoryExport
from tests.fakes.readers import some_bytes
from tests.simulation.service import HARMLESS, OF_RESTORES, PART_SIZE, SHORTLY, Fault, SimulatedService

EMPTY_ZIP = b"PK\x05\x06" + bytes(18)
PROVIDERS = ["site", "db", "mail"]
MAX_STEPS = 40
MAX_FAULTS = 6
MAX_CRASHES = 3
LATEST_FAULT = 120
"""The number of the last call of a port that a fault may hit; few jobs take more."""
sizes = st.sampled_from([0, 1, PART_SIZE, PART_SIZE + 1, 3 * PART_SIZE, 7 * PART_SIZE + 2])
"""Bytes: nothing, one part or less, and parts that are full or not."""
choices = st.integers(0, 7)
"""Which event of the bag."""
GIVEN_UP = {Code.RETRIES_EXHAUSTED, Code.STREAM_TOO_LONG, Code.TIMED_OUT}


@st.composite
def exports(draw: st.DrawFn) -> dict[str, MemoryExport]:
    """Of one to three providers."""

    def export(name: str) -> MemoryExport:
        ranged = draw(st.booleans())
        says_size = ranged or draw(st.booleans())
        return MemoryExport(some_bytes(name, draw(sizes)), ranged=ranged, says_size=says_size)

    return {name: export(name) for name in PROVIDERS[: draw(st.integers(1, len(PROVIDERS)))]}


def steps(*kinds: str) -> st.SearchStrategy[list[tuple[str, int]]]:
    kind = st.sampled_from([*["deliver"] * 8, "twice", "lose", "sweep", "clean_up", "minutes", *kinds])
    return st.lists(st.tuples(kind, choices), max_size=MAX_STEPS)


def services(faults: list[Fault], most: int) -> st.SearchStrategy[SimulatedService]:
    return st.builds(
        SimulatedService,
        served=exports(),
        faults=st.dictionaries(st.integers(0, LATEST_FAULT), st.sampled_from(faults), max_size=most),
        condition_first=st.booleans(),
    )


def play(service: SimulatedService, steps: list[tuple[str, int]]) -> None:
    for step, choice in steps:
        match step:
            case "deliver":
                service.deliver(service.take(choice))
            case "twice":
                event = service.take(choice)
                service.deliver(event)
                service.deliver(event)
            case "lose":
                service.take(choice)
            case "sweep":
                service.sweep()
            case "clean_up":
                service.clean_up()
            case "cancel":
                service.cancel()
            case "retry":
                service.retry()
            case "minutes":
                service.pass_time(SHORTLY)


def check_end(service: SimulatedService) -> Job:
    """The job has ended as it must; then time passes, and S3 holds what it must and nothing else."""
    assert not service.unexpected, service.unexpected[0]
    job = service.job
    assert job.status in (Status.DONE, Status.FAILED, Status.CANCELLED)
    service.grow_old()
    assert not service.unexpected, service.unexpected[0]
    left = service.job
    assert left.status is job.status
    assert not service.storage.mistakes, service.storage.mistakes
    assert not service.storage.uploads, "an upload stayed open"
    described = list(service.storage.versions.get(left.manifest_key, {}).values())
    assert described == ([manifest_of(left)] if left.status is Status.DONE else []), "I18"
    for name, task in left.tasks.items():
        versions = service.storage.versions.get(left.key(name), {})
        if left.status is Status.DONE:
            assert task.object is not None
            assert list(versions) == [task.object.version_id]
            (content,) = versions.values()
            assert content in service.history[name], "the object is no export"
            assert task.object.size == len(content)
        else:
            assert not versions, "an object stayed, though its job did not get done"
    return job


EXAMPLES = int(os.environ.get("SIMULATION_EXAMPLES", "150"))
"""Of each property; raise it for a long search."""

BUSY = settings(
    deadline=None,
    max_examples=EXAMPLES,
    suppress_health_check=[HealthCheck.too_slow],
)


@BUSY
@given(service=services([*HARMLESS], MAX_FAULTS), steps=steps())
def test_a_job_gets_done_under_any_order_and_any_duplication_of_events(
    service: SimulatedService, steps: list[tuple[str, int]]
) -> None:
    play(service, steps)
    note(f"happened: {service.happened}")
    service.finish()
    note(f"job: {service.job}")
    assert check_end(service).status is Status.DONE


CRASHES = [
    *(Fault.CRASH_BEFORE, Fault.CRASH_AFTER, Fault.OTHERS, Fault.LAST, Fault.AGAIN),
    *(Fault.SWEEP, Fault.CLEAN_UP),
]


@BUSY
@given(service=services(CRASHES, MAX_CRASHES), steps=steps())
def test_a_job_ends_done_or_given_up_whatever_crashes(
    service: SimulatedService, steps: list[tuple[str, int]]
) -> None:
    play(service, steps)
    note(f"happened: {service.happened}")
    service.finish()
    note(f"job: {service.job}")
    job = check_end(service)
    if job.status is not Status.DONE:
        assert job.reason is not None
        assert job.reason.code in GIVEN_UP


OF_BACKUPS = [fault for fault in Fault if fault not in OF_RESTORES | {Fault.EXPORT_GONE, Fault.DELETE}]


@BUSY
@given(service=services(OF_BACKUPS, MAX_FAULTS), steps=steps("cancel", "retry"))
def test_a_job_ends_with_a_reason_whatever_happens_at_once(
    service: SimulatedService, steps: list[tuple[str, int]]
) -> None:
    play(service, steps)
    note(f"happened: {service.happened}")
    service.finish()
    note(f"job: {service.job}")
    job = check_end(service)
    if job.status is Status.FAILED:
        assert job.reason is not None
        assert job.reason.code in GIVEN_UP


DELIVERIES = 60
"""More than any of these jobs needs, with one fault."""
FEWEST_CALLS = 10
"""Of ports, that any backup takes."""


@pytest.mark.parametrize("fault", [Fault.CRASH_BEFORE, Fault.CRASH_AFTER, Fault.FAILS, Fault.ANSWER_LOST])
@pytest.mark.parametrize("kind", ["small", "ranged", "zip", "stream", "stream of unknown length"])
def test_a_job_gets_done_whichever_call_of_a_port_fails_once(fault: Fault, kind: str) -> None:
    size = PART_SIZE - 1 if kind == "small" else 4 * PART_SIZE + 1
    for number in count():
        site = MemoryExport(
            EMPTY_ZIP if kind == "zip" else some_bytes(kind, size),
            ranged=not kind.startswith("stream"),
            says_size=kind != "stream of unknown length",
        )
        service = SimulatedService(
            {"site": site}, faults={number: fault}, format="zip" if kind == "zip" else "any"
        )
        service.deliver_next(DELIVERIES)
        if not service.happened:
            break
        service.finish()
        assert check_end(service).status is Status.DONE, service.happened
    assert number > FEWEST_CALLS
