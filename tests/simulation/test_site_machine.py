"""One site's backups over weeks, with everything at once: workers, schedules, people, timeouts, expiry, deletion.

The real use cases run on the fakes. Every stored change is checked (I1 to I13 and I19, as far as the document tells).
After every step each good backup must be there, byte for byte, and whatever somebody reads.
"""

import os
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from itertools import product

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from sitebackup.backup.create_job import CreateBackup
from sitebackup.domain import lifecycle
from sitebackup.domain.job import UNFINISHED, DeleteCause, Job, Status
from sitebackup.domain.lock import LockMode
from sitebackup.domain.manifest import manifest_of, read_manifest
from sitebackup.domain.policy import Policy, seconds
from sitebackup.domain.restore import Restore
from tests.builders import BY_SERVICE
from tests.fakes.exports import MemoryExport
from tests.fakes.readers import some_bytes
from tests.simulation.invariants import check_job
from tests.simulation.service import CLEAN_UP_INTERVAL, PART_SIZE, SITE_ID, USER_ID, SimulatedService

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
DELETE_GRACE_SECONDS = 2 * 24 * 3600
A_WHOLE_BACKUP = 30
"""Events, more than any of these backups has."""
MAX_SWEEPS = 300
UNKNOWN_ID = "e" * 24
CLEAN_UPS = 4
"""So many passes, further apart than a claim lasts, remove all that was left."""
SPANS = [timedelta(seconds=61), timedelta(minutes=11), 7 * HOUR, 25 * HOUR, 4 * 24 * HOUR, 8 * 24 * HOUR]
choices = st.integers(0, 30)
schedules = st.sampled_from(["sweep", "clean_up"])
ends = st.sampled_from([None, 1 * HOUR, 30 * 24 * HOUR])
some_providers = st.sampled_from([None, None, ["site"], ["db"]])
interruptions = st.sampled_from(
    [
        "cancel",
        "retry",
        "delete",
        "undelete",
        "sweep",
        "clean_up",
        "deliver",
        "create",
        "download",
        "verify",
        "pin",
        "unpin",
    ]
)
readers = st.sampled_from(["a restore", "another restore"])
reading = st.sampled_from([10 * MINUTE, 25 * HOUR, 4 * 24 * HOUR])


class SiteMachine(RuleBasedStateMachine):
    """Rules are what workers, schedules and people do; a choice picks the job or event."""

    @initialize(
        parts=st.integers(1, 4),
        ranged=st.booleans(),
        condition_first=st.booleans(),
        keep_newest=st.sampled_from([0, 1, 1]),
        lock_mode=st.sampled_from(LockMode),
    )
    def begin(
        self, parts: int, ranged: bool, condition_first: bool, keep_newest: int, lock_mode: LockMode
    ) -> None:
        served = {
            "site": MemoryExport(some_bytes("site", parts * PART_SIZE), ranged=ranged),
            "db": MemoryExport(some_bytes("db", 2)),
        }
        policy = Policy(
            parts_in_flight=3,
            keep_newest=keep_newest,
            delete_grace_seconds=DELETE_GRACE_SECONDS,
            lock_mode=lock_mode,
            lock_days=30,
        )
        self.service = SimulatedService(
            served, condition_first=condition_first, policy=policy, import_status=True
        )
        self.hook: tuple[int, Callable[[], None]] | None = None
        """After so many calls of ports something else happens, once."""
        self.protected: set[str] = set()
        self.readers: dict[tuple[str, str], datetime] = {}
        """Until when each (job, owner) was promised that the data stays."""
        self.service.injector = self._inject

    def _inject[T](self, port: str, name: str, call: Callable[[], T]) -> T:
        if self.hook:
            left, action = self.hook
            self.hook = (left - 1, action) if left else None
            if not left:
                action()
        return call()

    # --- what happens

    @rule(expires=st.sampled_from([None, 1, 3]), providers=some_providers)
    def create(self, expires: int | None, providers: list[str] | None = None) -> None:
        request = CreateBackup(
            user_id=USER_ID, site_id=SITE_ID, providers=providers, expires_after_days=expires
        )
        with self.service.invocation():
            self.service.create_job(BY_SERVICE, request, None)

    @rule(choice=choices)
    def deliver(self, choice: int) -> None:
        self.service.deliver(self.service.take(choice))

    @rule()
    def deliver_all(self) -> None:
        self.service.deliver_next(A_WHOLE_BACKUP)

    @rule(expires=st.sampled_from([None, 1, 1]), providers=some_providers)
    def a_whole_backup(self, expires: int | None, providers: list[str] | None) -> None:
        """What happens most nights."""
        self.create(expires, providers)
        self.deliver_all()

    @rule(calls=st.integers(0, 40))
    def a_backup_cancelled_on_the_way(self, calls: int) -> None:
        self.create(1)
        self.hook = (calls, lambda: self.cancel(0))
        self.deliver_all()
        self.hook = None

    @rule(choice=choices)
    def deliver_twice(self, choice: int) -> None:
        event = self.service.take(choice)
        self.service.deliver(event)
        self.service.deliver(event)

    @rule(choice=st.integers(0, 5))
    def lose(self, choice: int) -> None:
        self.service.take(choice)

    @rule()
    def export_changes(self) -> None:
        self.service.change_exports()

    @rule(span=st.sampled_from(SPANS))
    def pass_time(self, span: timedelta) -> None:
        self.service.pass_time(span)

    @rule()
    def sweep(self) -> None:
        self.service.sweep()

    @rule()
    def clean_up(self) -> None:
        self.service.clean_up()

    @rule(scheduled=schedules)
    def run_when_something_is_due(self, scheduled: str) -> None:
        self._until_due(scheduled)
        self._run(scheduled)

    def _until_due(self, scheduled: str) -> None:
        times = self._checks() if scheduled == "sweep" else [job.clean_up_at for job in self._jobs()]
        self.service.clock.advance_to(min((at for at in times if at), default=self.service.now))

    def _checks(self) -> list[datetime | None]:
        jobs = [job.next_check_at for job in self._jobs()]
        return jobs + [restore.next_check_at for restore in self._restores()]

    def _run(self, scheduled: str) -> None:
        if scheduled == "sweep":
            self.sweep()
        else:
            self.clean_up()

    @rule(choice=choices)
    def cancel(self, choice: int) -> None:
        with self.service.invocation():
            self.service.change_job.cancel(BY_SERVICE, self._pick(choice))

    @rule(choice=choices)
    def retry(self, choice: int) -> None:
        with self.service.invocation():
            self.service.change_job.retry(BY_SERVICE, self._pick(choice))

    @rule(choice=choices, at=ends)
    def delete(self, choice: int, at: timedelta | None) -> None:
        with self.service.invocation():
            self.service.change_job.delete(
                BY_SERVICE, self._pick(choice), self.service.now + at if at else None
            )

    @rule(choice=choices, on=st.booleans())
    def legal_hold(self, choice: int, on: bool) -> None:
        with self.service.invocation():
            self.service.change_job.set_legal_hold(BY_SERVICE, self._pick(choice), on)

    @rule(choice=choices)
    def undelete(self, choice: int) -> None:
        with self.service.invocation():
            self.service.change_job.undelete(BY_SERVICE, self._pick(choice))

    @rule(choice=choices, provider=st.sampled_from(["site", "db"]))
    def download(self, choice: int, provider: str) -> None:
        self.service.download(self._pick(choice), provider)

    @rule(choice=choices)
    def verify(self, choice: int) -> None:
        with self.service.invocation():
            self.service.verify_backup(BY_SERVICE, self._pick(choice))

    @rule()
    def run_drills(self) -> None:
        self.service.begin_drills()

    @rule(choice=choices, owner=readers, span=reading)
    def pin(self, choice: int, owner: str, span: timedelta) -> None:
        """As a restore does before it reads, and again while it reads."""
        job_id, until = self._pick(choice), self.service.now + span
        with self.service.invocation():
            pin = partial(lifecycle.pin, owner=owner, until=until)
            if self.service.recorder.apply(job_id, pin):
                self.readers[job_id, owner] = max(until, self.readers.get((job_id, owner), until))

    @rule(choice=choices, owner=readers)
    def unpin(self, choice: int, owner: str) -> None:
        job_id = self._pick(choice)
        with self.service.invocation():
            self.readers.pop((job_id, owner), None)
            self.service.recorder.apply(job_id, partial(lifecycle.unpin, owner=owner))

    @rule(choice=choices, what=st.sampled_from(["download", "pin"]), deletion=st.booleans())
    def a_reader_just_before_the_removal(self, choice: int, what: str, deletion: bool) -> None:
        """Of a job that is chosen for deletion, or of one that may have expired."""
        choice = self._choice_of_a_backup(choice)
        if deletion:
            self.delete(choice, None)
        self.service.pass_time(timedelta(seconds=DELETE_GRACE_SECONDS) - MINUTE)
        if what == "download":
            self.download(choice, "site")
        else:
            self.pin(choice, "a restore", 10 * MINUTE)
        self.service.pass_time(MINUTE)
        self.clean_up()

    @rule(
        choice=st.integers(0, 3),
        calls=st.integers(0, 10),
        what=interruptions,
        then=st.sampled_from(["sweep", "clean_up", "clean_up", "deliver"]),
    )
    def interrupted(self, choice: int, calls: int, what: str, then: str) -> None:
        """Between two calls of a pass's or a worker's ports something else happens."""

        def retry_and_run() -> None:
            self.retry(choice)
            self.deliver_all()

        actions: dict[str, Callable[[], None]] = {
            "cancel": lambda: self.cancel(choice),
            "retry": retry_and_run,
            "delete": lambda: self.delete(choice, None),
            "undelete": lambda: self.undelete(choice),
            "sweep": self.sweep,
            "clean_up": self.clean_up,
            "deliver": self.deliver_all,
            "create": lambda: self.create(1),
            "download": lambda: self.download(choice, "site"),
            "verify": lambda: self.verify(choice),
            "pin": lambda: self.pin(choice, "a restore", 4 * 24 * HOUR),
            "unpin": lambda: self.unpin(choice, "a restore"),
        }
        if then != "deliver":
            self._until_due(then)
        self.hook = (calls, actions[what])
        if then == "deliver":
            self.deliver(choice)
        else:
            self._run(then)
        self.hook = None

    # --- what holds

    def _pick(self, choice: int) -> str:
        ids = sorted((job.id for job in self._jobs()), reverse=True)
        return ids[choice % len(ids)] if ids else UNKNOWN_ID

    def _choice_of_a_backup(self, choice: int) -> int:
        """What picks a done job, if there is one."""
        newest_first = sorted(self._jobs(), key=lambda job: job.id, reverse=True)
        done = [number for number, job in enumerate(newest_first) if job.status is Status.DONE]
        return done[choice % len(done)] if done else choice

    def _jobs(self) -> list[Job]:
        return self.service.jobs.all()

    def _restores(self) -> list[Restore]:
        return self.service.restores.all()

    @invariant()
    def good_backups_are_there(self) -> None:
        assert not self.service.unexpected, self.service.unexpected[0]
        jobs = self._jobs()
        assert sum(job.claims_site for job in jobs) <= 1
        for job in jobs:
            check_job(job)
            self._check_removal(job)
            if job.status is Status.DONE and job.removing_at is None:
                self._check_objects(job)
        self._check_newest(jobs)
        self._check_readers(jobs)

    def _check_readers(self, jobs: list[Job]) -> None:
        """Whatever was promised to a reader, or to whoever has a link, is there (I19)."""
        by_id = {job.id: job for job in jobs}
        for (job_id, owner), until in self.readers.items():
            if until > self.service.now:
                job = by_id[job_id]
                assert (job.status, job.removing_at) == (Status.DONE, None), f"removed while {owner} needs it"
        for stored, link in self.service.links.given:
            if link.expires_at > self.service.now:
                versions = self.service.storage.versions.get(stored.key, {})
                assert stored.version_id in versions, "a link that is valid leads to nothing"

    def _check_objects(self, job: Job) -> None:
        (manifest,) = self.service.storage.versions[job.manifest_key].values()
        # What had expired and was undeleted no longer has an expiry; the manifest has that of the seal.
        expiry = read_manifest(manifest).expires_after_days
        assert manifest == manifest_of(job.replace(expires_after_days=expiry)), (
            "a done job has its own manifest (I18)"
        )
        for name, task in job.tasks.items():
            assert task.object is not None
            versions = self.service.storage.versions.get(task.object.key, {})
            assert task.object.version_id in versions, f"the {name} of a good backup is lost"
            assert versions[task.object.version_id] in self.service.history[name]

    def _check_removal(self, job: Job) -> None:
        if job.removing_at is None:
            return
        assert job.delete_at is not None
        assert job.finished_at is not None
        assert job.removing_at >= job.delete_at + seconds(self.service.policy.delete_grace_seconds)
        assert all(until <= job.removing_at for until in job.pins.values())
        if job.delete_cause is DeleteCause.EXPIRED:
            assert job.expires_after_days is not None
            assert job.delete_at >= job.finished_at + seconds(job.expires_after_days * 24 * 3600)

    def _check_newest(self, jobs: list[Job]) -> None:
        """What held a provider's newest good object is still there, unless somebody asked to delete it."""
        if not self.service.policy.keep_newest:
            return
        for job in jobs:
            if job.id in self.protected and job.delete_cause is not DeleteCause.REQUESTED:
                assert job.status is Status.DONE
                assert job.removing_at is None
        self.protected = set()
        good = [
            job
            for job in jobs
            if job.status is Status.DONE
            and job.delete_cause is not DeleteCause.REQUESTED
            and job.removing_at is None
        ]
        for site_id, provider in product({job.site_id for job in good}, self.service.served):
            tasks = {
                job.id: job.tasks[provider]
                for job in good
                if provider in job.tasks and job.site_id == site_id and job.safety_for is None
            }
            done = {job_id: task.finished_at for job_id, task in tasks.items() if task.finished_at}
            assert done.keys() == tasks.keys()
            newest = max(done.values(), default=None)
            self.protected |= {job_id for job_id, at in done.items() if at == newest}

    def teardown(self) -> None:
        """From here on all goes well: every job ends, and S3 holds the good backups and nothing else."""
        if not hasattr(self, "service"):
            return
        for _ in range(MAX_SWEEPS):
            self.deliver_all()
            if not any(self._checks()):
                break
            self._until_due("sweep")
            self.sweep()
        assert all(job.status not in UNFINISHED for job in self._jobs()), "a job does not end"
        self.service.pass_time(25 * HOUR)
        for _ in range(CLEAN_UPS):
            self.clean_up()
            self.service.pass_time(CLEAN_UP_INTERVAL)
        self.good_backups_are_there()
        assert not self.service.storage.mistakes, self.service.storage.mistakes
        assert not self.service.storage.uploads, "an upload stayed open"
        recorded = {
            task.object.version_id
            for job in self._jobs()
            if job.status is Status.DONE
            for task in job.tasks.values()
            if task.object
        }
        for job in self._jobs():
            if job.status is Status.DONE:
                recorded |= set(self.service.storage.versions[job.manifest_key])
        there = {version for versions in self.service.storage.versions.values() for version in versions}
        assert there <= recorded, "something stayed in S3 that is no good backup"


SiteMachine.TestCase.settings = settings(
    deadline=None,
    max_examples=int(os.environ.get("SIMULATION_EXAMPLES", "60")),
    stateful_step_count=40,
    suppress_health_check=list(HealthCheck),
)
TestSiteMachine = SiteMachine.TestCase
