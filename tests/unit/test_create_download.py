"""A link to a backup: who gets one, for how long, and what it does to the backup."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from sitebackup.backup.recorder import JobStore
from sitebackup.domain import lifecycle
from sitebackup.domain.download import Download, downloadable, file_name
from sitebackup.domain.drill import Drill, DrillState
from sitebackup.domain.errors import NotFound, StateForbids, Unavailable
from sitebackup.domain.job import DeleteCause, Job, Status, StoredObject, Task
from sitebackup.domain.policy import Policy
from sitebackup.restore.create_download import CreateDownload
from tests.builders import BY_SERVICE, a_job
from tests.fakes.clock import ManualClock
from tests.fakes.jobs import MemoryJobs
from tests.fakes.links import MemoryLinks

POLICY = Policy()
NOW = datetime(2030, 1, 31, 12, 0, 20, 500_000, tzinfo=UTC)
QUARTER_HOUR, MINUTE, SECOND = timedelta(minutes=15), timedelta(minutes=1), timedelta(seconds=1)
GRACE = timedelta(seconds=POLICY.delete_grace_seconds)
ID, SITE = "a" * 24, "b" * 24
STORED = StoredObject(
    bucket="b", key="k/site.zip", size=7, checksum_crc64nvme="AAAAAAAAAAA=", version_id="v1", members=1
)
DB = STORED.replace(key="k/db.zip", version_id="v2", format="any", members=None)
READ_AT = datetime(2030, 1, 30, 2, 30, 5, tzinfo=UTC)
TASKS = {
    "site": Task(status=Status.DONE, object=STORED, finished_at=READ_AT),
    "db": Task(status=Status.DONE, object=DB, finished_at=READ_AT + SECOND),
}
MARKED = {"delete_at": NOW, "delete_cause": DeleteCause.REQUESTED}
OVERDUE = {"delete_at": NOW - GRACE, "delete_cause": DeleteCause.REQUESTED}


def a_backup(**changes: Any) -> Job:
    """A done one of two providers."""
    fields = {"id": ID, "site_id": SITE, "status": Status.DONE, "tasks": TASKS, "finished_at": READ_AT}
    return a_job(**fields | changes)


class World:
    """One job, and a clock that a test sets."""

    def __init__(self, **changes: Any) -> None:
        self.clock = ManualClock(NOW)
        self.before_replace: Callable[[], None] = lambda: None
        self.can_sign = True
        self.jobs = MemoryJobs(self._inject)
        self.jobs.put(a_backup(**changes))
        self.links = MemoryLinks(lambda: self.clock.now, self._inject)
        self.store = JobStore(self.jobs, POLICY, lambda: self.clock.now)
        self.calls: list[str] = []

    def _inject[T](self, port: str, name: str, call: Callable[[], T]) -> T:
        self.calls.append(name)
        if name == "replace":
            action, self.before_replace = self.before_replace, lambda: None
            action()
        if name == "link" and not self.can_sign:
            raise Unavailable("STS can't be reached.")
        return call()

    def download(self, provider: str = "site") -> Download:
        return CreateDownload(self.store, self.links, QUARTER_HOUR)(BY_SERVICE, ID, provider)

    @property
    def job(self) -> Job:
        (job,) = self.jobs.all()
        return job


def test_a_download_is_of_the_version_that_was_verified_and_says_what_to_compare_it_with() -> None:
    world = World()
    download = world.download()
    assert download.stored == STORED
    assert download.file_name == f"{SITE}-site-20300130T023005Z.zip"
    assert world.links.given == [(STORED, download.link)]
    assert download.link.expires_at == NOW.replace(microsecond=0) + QUARTER_HOUR
    assert world.download("db").stored == DB


def test_a_file_of_no_known_format_is_not_called_a_zip() -> None:
    assert file_name(a_backup(), "db", DB) == f"{SITE}-db-20300130T023006Z.bin"


def test_what_a_drill_found_damaged_is_given_to_whoever_says_so_alone() -> None:
    damaged = TASKS["site"].replace(drill=Drill(state=DrillState.DAMAGED, at=NOW, message="It is odd."))
    job = a_backup(tasks={**TASKS, "site": damaged})
    says = f"Backup {ID} can't be downloaded: a drill found it damaged; damaged=allow gives it all the same."
    for allowed in ({}, {"allow_damaged": False}):
        with pytest.raises(StateForbids) as refused:
            downloadable(job, "site", NOW, POLICY, **allowed)
        assert (str(refused.value), refused.value.members) == (says, {"jobId": ID})
    assert downloadable(job, "site", NOW, POLICY, allow_damaged=True) == STORED
    assert downloadable(job, "db", NOW, POLICY) == DB


def test_the_job_is_pinned_before_a_link_is_signed_and_until_that_is_over_by_any_clock() -> None:
    world = World()
    expires_at = world.download().link.expires_at
    assert world.calls == ["get_for", "replace", "link"]
    (pin,) = world.job.pins.values()
    assert MINUTE <= pin - expires_at <= 2 * MINUTE


def test_the_links_of_one_minute_cost_one_write_and_never_shorten_a_pin() -> None:
    world = World()
    world.download()
    version, pins = world.job.version, world.job.pins
    world.clock.advance(39 * SECOND)
    for provider in ("site", "db"):
        world.download(provider)
    assert (world.job.version, world.job.pins) == (version, pins)
    world.clock.advance(SECOND)
    later = world.download()
    assert (world.job.version, len(world.job.pins)) == (version + 1, 1)
    assert min(world.job.pins.values()) >= later.link.expires_at + MINUTE


REFUSALS: list[tuple[Status, dict[str, object], str]] = [
    *[
        (status, {}, f"it is {status}")
        for status in (Status.PENDING, Status.RUNNING, Status.FAILED, Status.CANCELLED)
    ],
    (Status.RUNNING, {"sealed_at": NOW}, "it is running"),
    (Status.FAILED, MARKED, "it is failed"),
    (Status.DONE, MARKED | {"removing_at": NOW}, "its data is being removed"),
    (Status.DONE, OVERDUE, "its data is being removed"),
    (Status.DELETED, OVERDUE | {"removing_at": NOW, "deleted_at": NOW}, "its data is gone"),
]


@pytest.mark.parametrize(("status", "changes", "why"), REFUSALS)
def test_what_is_not_there_can_not_be_downloaded(
    status: Status, changes: dict[str, object], why: str
) -> None:
    world = World(status=status, **changes)
    before = world.job
    with pytest.raises(StateForbids) as raised:
        world.download()
    assert str(raised.value) == f"Backup {ID} can't be downloaded: {why}."
    assert raised.value.members == {"jobId": ID}
    assert (world.job, world.links.given) == (before, [])


def test_there_is_nothing_to_download_of_an_unknown_backup_or_provider() -> None:
    with pytest.raises(NotFound, match=f"^Backup {ID} has nothing of a provider mail.$"):
        World().download("mail")
    with pytest.raises(NotFound, match=f"^There is no backup {ID}.$"):
        World(id="c" * 24).download()


def test_a_marked_backup_is_downloaded_in_its_grace_and_waits_for_the_link_with_its_removal() -> None:
    world = World(**MARKED)
    world.clock.advance(GRACE - SECOND)
    link = world.download().link
    for moment in (world.clock.now + SECOND, link.expires_at):
        world.clock.advance_to(moment)
        assert world.store.apply(ID, lifecycle.begin_removal) is None
    world.clock.advance_to(max(world.job.pins.values()))
    assert world.store.apply(ID, lifecycle.begin_removal)


def test_nobody_puts_off_a_requested_deletion_for_ever_by_one_link_after_another() -> None:
    world = World(**MARKED)
    world.clock.advance(GRACE - SECOND)
    world.download()
    world.clock.advance(SECOND)
    with pytest.raises(StateForbids, match="its data is being removed"):
        world.download()


def test_a_backup_that_expired_and_is_kept_as_the_newest_good_one_can_be_downloaded() -> None:
    expired = a_backup(delete_at=NOW - 2 * GRACE, delete_cause=DeleteCause.EXPIRED)
    assert downloadable(expired, "site", NOW, POLICY) == STORED


def test_a_removal_that_begins_before_the_pin_wins_and_no_link_is_signed() -> None:
    world = World(delete_at=NOW - GRACE, delete_cause=DeleteCause.EXPIRED)

    def begin_removal() -> None:
        assert world.store.apply(ID, lifecycle.begin_removal)

    world.before_replace = begin_removal
    with pytest.raises(StateForbids, match="its data is being removed"):
        world.download()
    assert world.links.given == []
    assert world.job.pins == {}


def test_a_pin_that_others_delay_is_set_all_the_same() -> None:
    world = World()
    world.before_replace = lambda: world.jobs.put(world.job.replace(version=2, **MARKED))
    world.download()
    assert (world.job.version, world.job.delete_at, len(world.job.pins)) == (3, NOW, 1)


def test_signing_that_fails_is_told_and_leaves_a_pin_that_ends_by_itself() -> None:
    world = World(**MARKED)
    world.can_sign = False
    with pytest.raises(Unavailable):
        world.download()
    world.clock.advance(GRACE)
    assert world.store.apply(ID, lifecycle.begin_removal)
