"""Several sweeps and clean-ups at once, and retries in the middle of them, on a real Mongo and a real S3."""

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier
from uuid import uuid4

import pytest

from local.services.s3 import BUCKET, s3_client
from local.services.service import Service
from sitebackup.adapters.s3.storage import S3Storage
from sitebackup.backup.accept_object import AcceptObject
from sitebackup.domain.errors import StateForbids, Transient
from sitebackup.domain.events import UploadJobCreated
from sitebackup.domain.job import Job, Status
from sitebackup.ports.storage import KeyContents
from tests.builders import BY_SERVICE
from tests.fakes.exports import MemoryExport
from tests.fakes.readers import some_bytes
from tests.integration.real_stack import DELETE_GRACE, GRACE, MIB, Stack, an_id

SOON = timedelta(hours=2)


class Watched(S3Storage):
    """Counts what is removed; before a chosen call it lets something else happen."""

    def __init__(self, s3: Service) -> None:
        super().__init__(s3_client(s3.address), BUCKET)
        self.aborted: Counter[str] = Counter()
        self.deleted: Counter[str] = Counter()
        self.listed: list[str] = []
        self.calls = 0
        self.hook: tuple[int, Callable[[], None]] | None = None

    def _called(self) -> None:
        self.calls += 1
        if self.hook and self.hook[0] == self.calls:
            action, self.hook = self.hook[1], None
            action()

    def at_key(self, key: str) -> KeyContents:
        self._called()
        self.listed.append(key)
        found = super().at_key(key)
        self._called()
        return found

    def abort(self, key: str, upload_id: str) -> None:
        self._called()
        self.aborted[upload_id] += 1
        super().abort(key, upload_id)

    def delete_version(self, key: str, version_id: str) -> None:
        self._called()
        self.deleted[version_id] += 1
        super().delete_version(key, version_id)


@pytest.fixture
def stacks(mongo: Service, s3: Service) -> Iterator[tuple[Stack, Stack]]:
    """Two execution environments of every function, on the same data."""
    database = f"sweeps-{uuid4().hex}"
    pair = Stack(mongo.address, s3.address, database), Stack(mongo.address, s3.address, database)
    for stack in pair:
        stack.real.storage = Watched(s3)
    pair[0].create_indexes()
    yield pair
    for stack in pair:
        stack.close()


def watched(stack: Stack) -> Watched:
    assert isinstance(stack.real.storage, Watched)
    return stack.real.storage


def at_once(*passes: Callable[[], int]) -> list[int]:
    """All begun at the same moment."""
    barrier = Barrier(len(passes))

    def run(one: Callable[[], int]) -> int:
        barrier.wait(30)
        return one()

    with ThreadPoolExecutor(len(passes)) as pool:
        return list(pool.map(run, passes))


def both(stacks: tuple[Stack, Stack]) -> list[int]:
    """Two of each schedule's function at once."""
    one, other = stacks
    return at_once(one.sweep, one.clean, other.sweep, other.clean)


def _wait(barrier: Barrier) -> None:
    barrier.wait(30)


def cancelled_with_an_upload(stack: Stack) -> Job:
    job = stack.a_backup()
    stack.deliver(1)
    stack.bag.bag.clear()
    assert stack.job(job.id).tasks["site"].upload is not None
    return stack.change_job().cancel(BY_SERVICE, job.id)


def test_two_of_each_at_once_do_each_thing_once(stacks: tuple[Stack, Stack]) -> None:
    one, other = stacks
    one.served.by_provider["site"] = MemoryExport(some_bytes("small", 6 * MIB))
    jobs = [cancelled_with_an_upload(one) for _ in range(25)]
    for stack in stacks:
        stack.pass_time(GRACE)
    stalled = [one.a_backup().id for _ in range(15)]
    one.bag.bag.clear()
    for stack in stacks:
        stack.pass_time(SOON)
    done = both(stacks)
    aborted = watched(one).aborted + watched(other).aborted
    assert len(aborted) == 25
    assert set(aborted.values()) == {1}, "an upload was aborted twice"
    for job in jobs:
        assert one.job(job.id).cleaned_at is not None
        assert one.at_key(job) == ([], [])
    pushed = Counter(event.task.job_id for stack in stacks for event in stack.bag.of_jobs)
    assert pushed == dict.fromkeys(stalled, 1), "a stalled job was sent twice, or not at all"
    assert all(isinstance(event, UploadJobCreated) for event in one.bag.bag + other.bag.bag)
    assert done[0] + done[2] == 15
    assert done[1] + done[3] == 50, "each is released, then looked at once more"
    assert both(stacks) == [0, 0, 0, 0], "there is nothing left to do"


def test_two_clean_ups_that_read_the_same_page_share_it(stacks: tuple[Stack, Stack]) -> None:
    """Nothing is asked of S3 twice, and both have a part in it."""
    one, other = stacks
    one.served.by_provider["site"] = MemoryExport(some_bytes("small", 6 * MIB))
    jobs = [cancelled_with_an_upload(one) for _ in range(40)]
    both_read = Barrier(2)
    for stack in stacks:
        stack.pass_time(GRACE)
        watched(stack).hook = (1, lambda: _wait(both_read))
    assert sum(at_once(one.clean, other.clean)) == 80
    listed = [Counter(watched(stack).listed) for stack in stacks]
    assert all(listed), "one of them had nothing to do"
    assert listed[0] + listed[1] == Counter(job.key("site") for job in jobs)


def test_three_thousand_removals_that_are_due_do_not_delay_the_check_of_a_stalled_job(
    stacks: tuple[Stack, Stack],
) -> None:
    one, _ = stacks
    done = one.a_backup()
    one.deliver()
    marked = one.change_job().delete(BY_SERVICE, done.id, None)
    one.insert_jobs(
        marked.replace(id=an_id(("removal", number)), site_id=an_id(("site", number)))
        for number in range(3000)
    )
    one.pass_time(DELETE_GRACE)
    stalled = one.a_backup()
    one.bag.bag.clear()
    one.pass_time(SOON)
    assert one.sweep() == 1
    assert [event.task.job_id for event in one.bag.of_jobs] == [stalled.id]
    assert watched(one).calls == 0, "the sweep removes"


def test_two_clean_ups_and_a_retry_of_every_job(stacks: tuple[Stack, Stack]) -> None:
    """Whatever the order: what a retried job keeps was not aborted, and it gets done."""
    one, other = stacks
    jobs = [cancelled_with_an_upload(one) for _ in range(16)]
    for stack in stacks:
        stack.pass_time(GRACE)
    change_job = one.change_job()

    def retry(job: Job) -> bool:
        try:
            change_job.retry(BY_SERVICE, job.id)
        except StateForbids:
            return False
        return True

    with ThreadPoolExecutor(2) as pool:
        retries = pool.submit(lambda: [retry(job) for job in jobs])
        at_once(one.clean, other.clean)
        answers = retries.result(60)
    for job, retried in zip(jobs, answers, strict=True):
        now = one.job(job.id)
        uploads, _ = one.at_key(job)
        if not retried:
            assert now.cleaned_at is not None
            assert uploads == []
            continue
        assert now.status is Status.PENDING
        kept = now.tasks["site"].upload
        assert uploads == ([kept.upload_id] if kept else [])


@pytest.mark.parametrize("left", ["an upload", "a completed object"])
@pytest.mark.parametrize("call", range(1, 6))
def test_a_retry_at_any_call_of_a_release_loses_nothing(
    stacks: tuple[Stack, Stack], left: str, call: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The retry is made, and its attempt run to the end, in the middle of the clean-up."""
    one, other = stacks
    job = one.a_backup()
    one.deliver(2)
    if left == "a completed object":
        with monkeypatch.context() as patch:
            patch.setattr(
                AcceptObject, "__call__", lambda *arguments, **named: None
            )  # the worker died just before
            one.deliver()
        assert one.at_key(job)[1]
    one.change_job().cancel(BY_SERVICE, job.id)
    one.bag.bag.clear()
    assert sum(map(len, one.at_key(job))) == 1
    for stack in stacks:
        stack.pass_time(GRACE)

    def retry_and_run() -> None:
        try:
            other.change_job().retry(BY_SERVICE, job.id)
        except StateForbids:
            return
        other.deliver()

    watched(one).hook = (call, retry_and_run)
    one.clean()
    if one.job(job.id).status is Status.CANCELLED:
        other.change_job().retry(BY_SERVICE, job.id)
    other.deliver()
    one.check_backup(job.id)


def test_jobs_whose_clean_up_fails_do_not_hold_the_others_up(
    stacks: tuple[Stack, Stack], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hundreds of them have been due for longer: the others are removed all the same."""
    one, _ = stacks
    template = one.change_job().cancel(BY_SERVICE, one.a_backup().id)
    one.insert_jobs(
        template.replace(id=an_id(("cleanup", number)), site_id=an_id(("site", number)))
        for number in range(250)
    )
    one.pass_time(timedelta(seconds=1))
    last = one.change_job().cancel(BY_SERVICE, one.a_backup().id)
    one.pass_time(GRACE)
    at_key = one.real.storage.at_key

    def unreachable(key: str) -> KeyContents:
        if key == last.key("site"):
            return at_key(key)
        raise Transient("S3 can't be reached.")

    monkeypatch.setattr(one.real.storage, "at_key", unreachable)
    assert one.clean() == 253, "each once, and the last one again when it was cleared"
    assert one.job(last.id).cleaned_at is not None
    assert one.clean() == 0, "what failed waits for its turn"
