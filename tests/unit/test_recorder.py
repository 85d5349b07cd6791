"""The recorder: what a transition makes of a job is stored once, counted, and then told."""

from collections.abc import Callable, Sequence

import pytest

from sitebackup.backup.recorder import MAX_CONFLICTS, JobStore, Recorder
from sitebackup.domain.change import Change, Moment
from sitebackup.domain.errors import BusUnavailable, Conflict
from sitebackup.domain.events import Event, TaskEvent, TaskUpdated
from sitebackup.domain.job import Job
from sitebackup.domain.policy import Policy
from tests.builders import BY_SERVICE, NOW, a_job, a_task, an_id, touch, touched, touches
from tests.fakes.bus import MemoryBus
from tests.fakes.jobs import MemoryJobs

POLICY = Policy()


@pytest.fixture
def jobs() -> MemoryJobs:
    return MemoryJobs()


@pytest.fixture
def bus() -> MemoryBus:
    return MemoryBus()


@pytest.fixture
def recorder(jobs: MemoryJobs, bus: MemoryBus) -> Recorder:
    return Recorder(jobs, POLICY, lambda: NOW, bus)


@pytest.fixture
def job(jobs: MemoryJobs) -> Job:
    """A job that is stored."""
    one = a_job()
    jobs.add(one)
    return one


def updated(job: Job) -> TaskEvent:
    return TaskUpdated(task=job.ref("site"))


def touch_and_tell(job: Job, moment: Moment) -> Change:
    return Change(touched(job), [updated(job)])


def test_a_change_is_stored_with_the_next_version(recorder: Recorder, jobs: MemoryJobs, job: Job) -> None:
    changed = recorder.apply(job.id, touch)
    assert changed is not None
    assert changed.before == job
    assert changed.after == touched(job).replace(version=2) == jobs.get(job.id)
    assert jobs.version_for(BY_SERVICE, job.id) == 2


def test_a_transition_is_told_when_it_happens(recorder: Recorder, job: Job) -> None:
    moments: list[Moment] = []

    def note(job: Job, moment: Moment) -> None:
        moments.append(moment)

    assert recorder.apply(job.id, note) is None
    assert moments == [Moment(NOW, POLICY)]


def test_nothing_to_change_stores_and_tells_nothing(
    recorder: Recorder, jobs: MemoryJobs, bus: MemoryBus, job: Job
) -> None:
    assert recorder.apply(job.id, lambda job, moment: None) is None
    assert jobs.get(job.id) == job
    assert bus.bag == []


def test_a_transition_that_is_content_with_the_job_writes_nothing_and_is_no_refusal(
    recorder: Recorder, jobs: MemoryJobs, job: Job
) -> None:
    content = recorder.apply(job.id, lambda job, moment: Change(job))
    assert content is not None
    assert (content.before, content.after) == (job, job)
    assert jobs.version_for(BY_SERVICE, job.id) == job.version


def test_a_job_that_is_not_there_is_not_changed(recorder: Recorder) -> None:
    assert recorder.apply(an_id(), touch) is None


def test_a_job_that_is_known_is_not_read() -> None:
    calls: list[str] = []

    def note[T](port: str, name: str, call: Callable[[], T]) -> T:
        calls.append(name)
        return call()

    jobs, job = MemoryJobs(note), a_job()
    jobs.add(job)
    calls.clear()
    assert Recorder(jobs, POLICY, lambda: NOW, MemoryBus()).apply(job.id, touch, known=job)
    assert calls == ["replace"]


def test_a_job_that_is_known_but_old_is_read_anew(recorder: Recorder, job: Job) -> None:
    recorder.apply(job.id, touch)
    changed = recorder.apply(job.id, touch, known=job)
    assert changed is not None
    assert (changed.before.version, touches(changed.after)) == (2, 2)


def test_a_change_that_always_loses_is_a_conflict(
    recorder: Recorder, jobs: MemoryJobs, bus: MemoryBus, job: Job
) -> None:
    tries: list[int] = []

    def slow(seen: Job, moment: Moment) -> Change:
        tries.append(seen.version)
        recorder.apply(job.id, touch)
        return Change(seen.replace(max_bytes=1), [updated(seen)])

    with pytest.raises(Conflict):
        recorder.apply(job.id, slow)
    assert len(tries) == MAX_CONFLICTS
    found = jobs.get(job.id)
    assert found is not None
    assert found.max_bytes is None
    assert bus.bag == []


def test_the_next_check_follows_the_tasks_whatever_the_transition_says(
    recorder: Recorder, jobs: MemoryJobs, job: Job
) -> None:
    changed = recorder.apply(
        job.id,
        lambda job, moment: Change(
            job.replace(tasks={"site": a_task(8), "db": a_task(4)}, next_check_at=NOW)
        ),
    )
    assert changed is not None
    assert changed.after.next_check_at == a_task(4).next_check_at
    assert jobs.get(job.id) == changed.after


def test_what_was_decided_on_a_job_as_it_was_seen_holds_for_no_other_version(
    recorder: Recorder, jobs: MemoryJobs, job: Job
) -> None:
    changed = recorder.apply(job.id, touch)
    assert changed is not None
    assert recorder.apply_seen(job, touch) is None
    assert jobs.get(job.id) == changed.after
    assert recorder.apply_seen(changed.after, touch)


def test_the_events_that_follow_are_emitted_once_the_change_is_stored(jobs: MemoryJobs, job: Job) -> None:
    versions: list[int | None] = []

    def note_what_is_stored[T](port: str, name: str, call: Callable[[], T]) -> T:
        versions.append(jobs.version_for(BY_SERVICE, job.id))
        return call()

    bus = MemoryBus(note_what_is_stored)
    assert Recorder(jobs, POLICY, lambda: NOW, bus).apply(job.id, touch_and_tell)
    assert bus.bag == [updated(job)]
    assert versions == [2]


def test_what_must_come_before_the_events_finds_the_change_stored_and_no_event_emitted(
    recorder: Recorder, jobs: MemoryJobs, bus: MemoryBus, job: Job
) -> None:
    found: list[object] = []

    def look(events: Sequence[Event]) -> None:
        found.extend([events, jobs.version_for(BY_SERVICE, job.id), list(bus.bag)])

    assert recorder.apply_seen(job, touch_and_tell, look)
    assert found == [[updated(job)], 2, []]
    assert bus.bag == [updated(job)]
    assert recorder.apply_seen(job, touch_and_tell, look) is None
    assert len(found) == 3, "nothing was stored, and yet it was told of events"


@pytest.mark.parametrize(
    "ask",
    [
        lambda store, job: store.apply(job.id, touch_and_tell),
        lambda store, job: store.apply_seen(job, touch_and_tell),
    ],
    ids=["apply", "apply_seen"],
)
def test_a_store_without_a_bus_drops_no_event_in_silence(
    jobs: MemoryJobs, job: Job, ask: Callable[[JobStore, Job], object]
) -> None:
    store = JobStore(jobs, POLICY, lambda: NOW)
    changed = store.apply(job.id, touch)
    assert changed is not None
    with pytest.raises(AssertionError, match="TaskUpdated"):
        ask(store, changed.after)


def test_events_that_kafka_does_not_take_are_left_to_the_sweep(jobs: MemoryJobs, job: Job) -> None:
    def down[T](port: str, name: str, call: Callable[[], T]) -> T:
        raise BusUnavailable("Kafka does not answer.")

    bus = MemoryBus(down)
    changed = Recorder(jobs, POLICY, lambda: NOW, bus).apply(job.id, touch_and_tell)
    assert changed is not None
    assert jobs.get(job.id) == changed.after
    assert bus.bag == []


def test_a_new_job_is_stored_before_its_events_are_emitted(
    recorder: Recorder, jobs: MemoryJobs, bus: MemoryBus
) -> None:
    job = a_job()
    recorder.create(job, [updated(job)])
    assert jobs.get(job.id) == job
    assert bus.bag == [updated(job)]
