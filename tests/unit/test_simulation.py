"""Any order, any duplication, any crash: a job ends done with the export's bytes, or failed with a reason, and
leaves nothing behind (I1 to I13)."""

import os
from collections.abc import Iterator
from datetime import timedelta
from itertools import count

import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from sitebackup.domain.job import Job, Status
from sitebackup.domain.reason import Code
from tests.unit.simulation import HARMLESS, PART_SIZE, Fault, World, small_world, unexpected
from tests.unit.twins import MemoryExport, some_bytes

EMPTY_ZIP = b"PK\x05\x06" + bytes(18)
GIVEN_UP = {Code.RETRIES_EXHAUSTED, Code.STREAM_TOO_LONG, Code.TIMED_OUT}


@pytest.fixture(autouse=True, scope="module")
def _small_world() -> Iterator[None]:
    with small_world():
        yield


@st.composite
def sites(draw: st.DrawFn) -> dict[str, MemoryExport]:
    def site(name: str) -> MemoryExport:
        size = draw(st.sampled_from([0, 1, PART_SIZE, PART_SIZE + 1, 3 * PART_SIZE, 7 * PART_SIZE + 2]))
        ranged = draw(st.booleans())
        says_size = ranged or draw(st.booleans())
        return MemoryExport(some_bytes(name, size), ranged=ranged, says_size=says_size)

    return {name: site(name) for name in ["site", "db", "mail"][: draw(st.integers(1, 3))]}


def steps(*kinds: str) -> st.SearchStrategy[list[tuple[str, int]]]:
    kind = st.sampled_from([*["deliver"] * 8, "twice", "lose", "sweep", "clean_up", "minutes", *kinds])
    return st.lists(st.tuples(kind, st.integers(0, 7)), max_size=40)


def worlds(faults: list[Fault], most: int) -> st.SearchStrategy[World]:
    return st.builds(
        World,
        sites=sites(),
        faults=st.dictionaries(st.integers(0, 120), st.sampled_from(faults), max_size=most),
        condition_first=st.booleans(),
    )


def play(world: World, steps: list[tuple[str, int]]) -> None:
    for step, choice in steps:
        match step:
            case "deliver":
                world.deliver(world.take(choice))
            case "twice":
                event = world.take(choice)
                world.deliver(event)
                world.deliver(event)
            case "lose":
                world.take(choice)
            case "sweep":
                world.sweep()
            case "clean_up":
                world.clean_up()
            case "cancel":
                world.cancel()
            case "retry":
                world.retry()
            case "minutes":
                world.pass_time(timedelta(seconds=61))


def check_end(world: World) -> Job:
    """The job has ended as it must; then time passes, and S3 holds what it must and nothing else."""
    assert not unexpected, unexpected[0]
    job = world.job
    assert job.status in (Status.DONE, Status.FAILED, Status.CANCELLED)
    world.grow_old()
    assert not unexpected, unexpected[0]
    left = world.job
    assert left.status is job.status
    assert not world.storage.uploads, "an upload stayed open"
    for name, task in left.tasks.items():
        versions = world.storage.versions.get(left.key(name), [])
        if left.status is Status.DONE:
            assert task.object is not None
            assert [version_id for version_id, _ in versions] == [task.object.version_id]
            assert versions[0][1] in world.history[name], "the object is no export"
            assert task.object.size == len(versions[0][1])
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
@given(world=worlds([*HARMLESS], 6), steps=steps())
def test_any_order_any_duplication(world: World, steps: list[tuple[str, int]]) -> None:
    play(world, steps)
    note(f"happened: {world.happened}")
    world.finish()
    note(f"job: {world.job}")
    assert check_end(world).status is Status.DONE


CRASHES = [
    *(Fault.CRASH_BEFORE, Fault.CRASH_AFTER, Fault.OTHERS, Fault.LAST, Fault.AGAIN),
    *(Fault.SWEEP, Fault.CLEAN_UP),
]


@BUSY
@given(world=worlds(CRASHES, 3), steps=steps())
def test_any_crash(world: World, steps: list[tuple[str, int]]) -> None:
    play(world, steps)
    note(f"happened: {world.happened}")
    world.finish()
    note(f"job: {world.job}")
    job = check_end(world)
    if job.status is not Status.DONE:
        assert job.reason is not None
        assert job.reason.code in GIVEN_UP


@BUSY
@given(world=worlds(list(Fault), 6), steps=steps("cancel", "retry"))
def test_anything_at_once(world: World, steps: list[tuple[str, int]]) -> None:
    play(world, steps)
    note(f"happened: {world.happened}")
    world.finish()
    note(f"job: {world.job}")
    job = check_end(world)
    if job.status is Status.FAILED:
        assert job.reason is not None
        assert job.reason.code in GIVEN_UP


@pytest.mark.parametrize("fault", [Fault.CRASH_BEFORE, Fault.CRASH_AFTER, Fault.FAILS, Fault.ANSWER_LOST])
@pytest.mark.parametrize("kind", ["small", "ranged", "zip", "stream", "stream of unknown length"])
def test_one_fault_at_every_call(fault: Fault, kind: str) -> None:
    """Each call of a port in turn fails once, and the job gets done."""
    size = PART_SIZE - 1 if kind == "small" else 4 * PART_SIZE + 1
    for number in count():
        site = MemoryExport(
            EMPTY_ZIP if kind == "zip" else some_bytes(kind, size),
            ranged=not kind.startswith("stream"),
            says_size=kind != "stream of unknown length",
        )
        world = World(sites={"site": site}, faults={number: fault}, format="zip" if kind == "zip" else "any")
        for _ in range(60):
            world.deliver(world.take(0))
        if not world.happened:
            break
        world.finish()
        assert check_end(world).status is Status.DONE, world.happened
    assert number > 10
