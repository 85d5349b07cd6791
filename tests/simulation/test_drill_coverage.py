"""500 sites over months, on a compressed clock: who is opened when, within a budget, and what the figures say."""

from collections import defaultdict
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from sitebackup.backup.recorder import Recorder
from sitebackup.domain import drilling
from sitebackup.domain.drill import Drill, DrillState
from sitebackup.domain.events import DrillCreated
from sitebackup.domain.job import DeleteCause, Job, Status, StoredObject, Task
from sitebackup.domain.policy import Policy
from sitebackup.domain.task_ref import RestoreRef
from sitebackup.drills.run_drills import RunDrills
from sitebackup.drills.settle_site import BACKUPS_READ, SettleSite
from sitebackup.telemetry import metrics
from tests.builders import NOW, a_job, an_id
from tests.fakes.bus import MemoryBus
from tests.fakes.clock import ManualClock
from tests.fakes.jobs import MemoryJobs
from tests.fakes.sites import MemorySites

SITES = 500
GIB = 1 << 30
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
USER = "a" * 24


class Fleet:
    """Sites with a backup of a GiB each; a drill of one takes no time, and finds it whole."""

    def __init__(self, gib_per_day: int, sites: int = SITES) -> None:
        self.clock = ManualClock(NOW)
        self.policy = Policy(drill_gib_per_day=gib_per_day)
        self.jobs, self.sites, self.bus = MemoryJobs(), MemorySites(), MemoryBus()
        self.recorder = Recorder(self.jobs, self.policy, lambda: self.clock.now, self.bus)
        self.settle = SettleSite(self.sites, self.jobs)
        self.run_drills = RunDrills(self.recorder, self.settle, self.sites)
        self.opened: dict[str, list[datetime]] = defaultdict(list)
        self.refused: set[str] = set()
        """Sites whose objects S3 does not give."""
        self.order: list[tuple[datetime, datetime]] = []
        """Of each drill: since when its site was unproven, and when it was opened."""
        for _ in range(sites):
            self.back_up(an_id())
        self.clock.advance(timedelta(minutes=1))

    def back_up(self, site_id: str, **changes: Any) -> Job:
        now = self.clock.now
        stored = StoredObject(
            bucket="b", key="k", size=GIB, checksum_crc64nvme="AAAAAAAAAAA=", version_id="v", members=1
        )
        job = a_job(
            user_id=USER,
            site_id=site_id,
            status=Status.DONE,
            tasks={"site": Task(status=Status.DONE, object=stored, finished_at=now)},
            finished_at=now,
            sealed_at=now,
            **changes,
        )
        self.jobs.put(job)
        self.sites.backed_up(USER, site_id, now)
        return job

    def live(self, span: timedelta, step: timedelta = HOUR) -> None:
        """A run each step, and the drills that it began."""
        end = self.clock.now + span
        while self.clock.now < end:
            self.run_drills(self.clock.now + timedelta(minutes=5))
            for event in self.bus.bag:
                assert isinstance(event, DrillCreated)
                self._open(event)
            self.bus.bag.clear()
            self.clock.advance(step)

    def counted(self, metric: str) -> float:
        """What one run adds to a metric."""
        metrics.clear_metrics()
        self.run_drills(self.clock.now + HOUR)
        found: Mapping[str, Any] = metrics.serialize_metric_set()
        metrics.clear_metrics()
        return float(found[metric][0])

    def _open(self, event: DrillCreated) -> None:
        self.recorder.apply_to_task(event.task, drilling.start, "me")
        job = self.jobs.get(event.task.job_id)
        if job is not None and job.site_id in self.refused:
            unread = Drill(state=DrillState.UNREAD, at=self.clock.now)
            assert self.recorder.apply_to_task(event.task, drilling.finish, "me", unread)
            return
        whole = Drill(state=DrillState.OK, at=self.clock.now, compared=True)
        ended = self.recorder.apply_to_task(event.task, drilling.finish, "me", whole)
        assert ended is not None
        site = self.sites.get(USER, ended.after.site_id)
        assert site is not None
        self.order.append((site.since, self.clock.now))
        self.opened[site.site_id].append(self.clock.now)
        self.settle(site)


def test_a_budget_that_suffices_opens_each_site_within_drill_days_for_months() -> None:
    fleet = Fleet(gib_per_day=22)
    fleet.live(60 * DAY)
    assert len(fleet.opened) == SITES
    for times in fleet.opened.values():
        known = [NOW, *times, fleet.clock.now]
        assert max(later - earlier for earlier, later in pairwise(known)) <= 30 * DAY
    coverage = fleet.sites.ledger().coverage
    assert (coverage.sites, coverage.opened, coverage.overdue) == (SITES, SITES, 0)


def test_what_is_opened_within_any_day_stays_within_the_budget_of_it() -> None:
    fleet = Fleet(gib_per_day=24)
    fleet.live(15 * DAY)
    moments = [moment for _, moment in fleet.order]
    for at in moments:
        assert sum(at <= moment < at + DAY for moment in moments) <= 24 + 2, (
            "an hour's worth and a debt beyond"
        )
    assert len(moments) >= 24 * 14


def test_a_budget_that_cannot_keep_up_delays_all_alike_oldest_first_and_the_figures_say_so() -> None:
    fleet = Fleet(gib_per_day=8)
    fleet.live(70 * DAY, step=2 * HOUR)
    unproven = [since for since, _ in fleet.order]
    assert unproven == sorted(unproven), "a site was opened before one that was unproven for longer"
    assert (
        max(len(times) for times in fleet.opened.values())
        - min(len(fleet.opened[site.site_id]) for site in fleet.sites.all())
        <= 1
    ), "a site was opened twice while others waited"
    fleet.run_drills(fleet.clock.now + HOUR)
    coverage = fleet.sites.ledger().coverage
    truly = sum(site.since < fleet.clock.now - 30 * DAY for site in fleet.sites.all())
    assert coverage.overdue == truly > 100
    assert coverage.opened == SITES - truly
    assert coverage.oldest == min(site.since for site in fleet.sites.all())


def test_a_site_that_is_larger_than_the_budget_of_a_day_is_opened_and_the_next_ones_wait() -> None:
    fleet = Fleet(gib_per_day=1, sites=3)
    huge = fleet.jobs.all()[0]
    stored = huge.tasks["site"].object
    assert stored is not None
    fleet.jobs.put(
        huge.replace(tasks={"site": huge.tasks["site"].replace(object=stored.replace(size=5 * GIB))})
    )
    fleet.live(12 * DAY)
    assert {site: len(times) for site, times in fleet.opened.items()} == dict.fromkeys(fleet.opened, 1)
    assert len(fleet.opened) == 3
    first, second, third = sorted(times[0] for times in fleet.opened.values())
    assert first < NOW + HOUR
    assert second - first > 4 * DAY
    assert third > second


def test_a_new_backup_each_night_takes_nothing_from_the_proof_and_is_what_is_opened_next() -> None:
    fleet = Fleet(gib_per_day=100, sites=1)
    (site,) = fleet.sites.all()
    newest = ""
    for _ in range(60):
        fleet.live(DAY, step=6 * HOUR)
        newest = fleet.back_up(site.site_id).id
    assert len(fleet.opened[site.site_id]) == 3
    assert fleet.sites.ledger().coverage.opened == 1
    opened = [job.id for job in fleet.jobs.all() if job.tasks["site"].drill]
    assert len(opened) == 3
    assert newest > max(opened)


UNFIT: dict[str, Callable[[Job], Job]] = {
    "damaged": lambda job: with_task(job, drill=Drill(state=DrillState.DAMAGED, at=NOW)).replace(
        damaged=True
    ),
    "empty": lambda job: with_task(job, object=job.tasks["site"].object.replace(members=0)),  # type: ignore[union-attr]
    "marked": lambda job: job.replace(delete_at=NOW, delete_cause=DeleteCause.REQUESTED),
    "a restore's": lambda job: job.replace(safety_for=RestoreRef(restore_id=an_id(), attempt=1)),
}


def with_task(job: Job, **changes: Any) -> Job:
    return job.replace(tasks={"site": job.tasks["site"].replace(**changes)})


@pytest.mark.parametrize("unfit", UNFIT.values(), ids=list(UNFIT))
def test_the_newest_good_backup_is_opened_however_many_unfit_ones_came_after_it(
    unfit: Callable[[Job], Job],
) -> None:
    fleet = Fleet(gib_per_day=100, sites=1)
    (good,) = fleet.jobs.all()
    for _ in range(2 * BACKUPS_READ):
        fleet.clock.advance(HOUR)
        fleet.jobs.put(unfit(fleet.back_up(good.site_id)))
    fleet.live(3 * DAY, step=6 * HOUR)
    (site,) = fleet.sites.all()
    opened = fleet.jobs.get(good.id)
    assert opened is not None
    assert opened.tasks["site"].drill is not None, "the site was given up"
    assert site.verified_at == opened.tasks["site"].drill.at
    assert sum(job.tasks["site"].drill is not None and not job.damaged for job in fleet.jobs.all()) == 1


def test_a_site_whose_backups_are_gone_is_forgotten_after_a_day_and_not_before() -> None:
    fleet = Fleet(gib_per_day=100, sites=2)
    gone = fleet.jobs.all()[0]
    fleet.jobs.put(gone.replace(status=Status.DELETED, deleted_at=NOW))
    fleet.live(6 * HOUR)
    assert len(fleet.sites.all()) == 2, "a backup of it may be about to be done"
    fleet.live(2 * DAY)
    (left,) = fleet.sites.all()
    assert left.site_id != gone.site_id
    assert fleet.sites.ledger().coverage.sites == 1


def test_nothing_is_opened_by_schedule_without_a_budget() -> None:
    fleet = Fleet(gib_per_day=0, sites=2)
    fleet.live(DAY)
    assert not fleet.opened


@pytest.mark.parametrize("budget", [0, 100])
def test_each_run_counts_the_damaged_backups_that_nobody_has_asked_to_delete(budget: int) -> None:
    fleet = Fleet(gib_per_day=budget, sites=4)
    damaged = [job.replace(damaged=True) for job in fleet.jobs.all()[:3]]
    for job in [*damaged[:2], damaged[2].replace(delete_at=NOW, delete_cause=DeleteCause.REQUESTED)]:
        fleet.jobs.put(job)
    for _ in range(2):
        assert fleet.counted("BackupsDamaged") == 2
    fleet.jobs.put(damaged[0].replace(damaged=False))
    fleet.jobs.put(damaged[1].replace(status=Status.DELETED))
    assert fleet.counted("BackupsDamaged") == 0


@pytest.mark.parametrize("crash", ["before the site is told", "before the record is sent"])
def test_what_a_crash_left_undone_is_found_by_a_later_run(crash: str) -> None:
    fleet = Fleet(gib_per_day=100, sites=1)
    (job,) = fleet.jobs.all()
    fleet.run_drills(fleet.clock.now + HOUR)
    (event,) = fleet.bus.bag
    assert isinstance(event, DrillCreated)
    fleet.bus.bag.clear()
    if crash == "before the site is told":
        fleet.recorder.apply_to_task(event.task, drilling.start, "me")
        whole = Drill(state=DrillState.OK, at=fleet.clock.now, compared=True)
        fleet.recorder.apply_to_task(event.task, drilling.finish, "me", whole)
        at = fleet.clock.now
        fleet.live(2 * DAY)
        assert fleet.sites.all()[0].verified_at == at
        assert not fleet.opened, "it was opened again"
    else:
        fleet.clock.advance(timedelta(minutes=2))
        stored = fleet.jobs.get(job.id)
        assert stored is not None
        assert stored.next_check_at is not None
        assert stored.next_check_at <= fleet.clock.now
        fleet.recorder.apply(job.id, drilling.check)
        assert fleet.bus.bag == [event]


def test_sites_that_s3_refuses_take_the_budget_from_no_other() -> None:
    """They stay the longest unproven, and are asked for again and again."""
    fleet = Fleet(gib_per_day=22, sites=200)
    fleet.refused = {site.site_id for site in fleet.sites.all()[:20]}
    fleet.live(30 * DAY, step=3 * HOUR)
    assert len(fleet.opened) == 180
