"""Drills under faults at every call of a port: pins hold, no whole backup is called damaged, nothing waits."""

import io
import random
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from itertools import count
from typing import Literal

import pytest

from sitebackup.backup.create_job import CreateBackup
from sitebackup.domain.drill import DrillState
from sitebackup.domain.errors import Permanent, StateForbids, Transient
from sitebackup.domain.events import DrillCreated
from sitebackup.domain.job import DeleteCause, Job, Status, StoredObject
from sitebackup.domain.lifecycle import mark_deleted
from sitebackup.domain.policy import Policy
from sitebackup.domain.reason import Code
from sitebackup.domain.restore import RestoreStatus
from sitebackup.restore.create_restore import RestoreRequest
from tests.builders import BY_SERVICE
from tests.fakes.exports import MemoryExport
from tests.simulation.service import (
    CLEAN_UP_INTERVAL,
    MAX_SWEEPS,
    SITE_ID,
    USER_ID,
    Crash,
    Fault,
    SimulatedService,
)

DAY = timedelta(days=1)
GRACE_SECONDS = 60
DELIVERIES = 30
FEWEST_CALLS = 12
"""Of ports, that a drill takes from the call that asks for it on."""


def a_zip(members: int = 3) -> bytes:
    """A few slices long."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(members):
            archive.writestr(f"{number}.bin", random.Random(number).randbytes(40))
    return target.getvalue()


@dataclass
class SimulatedDrill(SimulatedService):
    """The service with a backup that is done; faults count from then on."""

    policy: Policy = field(
        default_factory=lambda: Policy(delete_grace_seconds=GRACE_SECONDS, parts_in_flight=64)
    )
    format: Literal["zip", "any"] = "zip"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.finish()
        assert self.job.status is Status.DONE
        self.calls.clear()
        self._all_is_well = False

    def begin_to_spoil(self, faults: dict[int, Fault]) -> None:
        """From here on these faults count."""
        self.faults, self._all_is_well = faults, False
        self.calls.clear()

    def back_up(self) -> str:
        """Another backup of the site, which is done."""
        calls, self._all_is_well = list(self.calls), True
        first, self.job_id = self.job_id, self.create(CreateBackup(user_id=USER_ID, site_id=SITE_ID)).id
        self.finish()
        other, self.job_id = self.job_id, first
        self.calls[:], self._all_is_well = calls, False
        return other

    def finish_drills(self) -> None:
        """From here on all goes well, and the sweep finds what got lost."""
        self._all_is_well = True
        for _ in range(MAX_SWEEPS):
            self.deliver_all()
            assert not self.unexpected, self.unexpected[0]
            due = [job.next_check_at for job in self.jobs.all() if job.next_check_at]
            if not due:
                break
            self.clock.advance_to(min(due))
            self.sweep()
        if self.job.status is Status.DONE and self.job.removing_at is None:
            assert not any(task.drilling for task in self.job.tasks.values()), "a drill goes on for ever"

    def check_removable(self) -> None:
        """Nothing is kept for a drill that is over."""
        assert not self.storage.mistakes, self.storage.mistakes
        if self.job.delete_at is None:
            self.delete()
        self.pass_time(timedelta(seconds=GRACE_SECONDS))
        assert "drill" not in self.job.pins or self.job.status is Status.DELETED
        for _ in range(4):
            self.clean_up()
            self.pass_time(CLEAN_UP_INTERVAL)
        assert self.job.status is Status.DELETED


def a_service(
    faults: dict[int, Fault] | None = None, *, providers: int = 1, members: int = 3
) -> SimulatedDrill:
    served = {name: MemoryExport(a_zip(members)) for name in ["site", "db"][:providers]}
    return SimulatedDrill(served, faults=faults or {})


def object_of(job: Job, provider: str = "site") -> StoredObject:
    stored = job.tasks[provider].object
    assert stored is not None
    return stored


def damage(service: SimulatedDrill, job: Job, at: int) -> None:
    """Flips a bit behind S3's back: the version and its size stay."""
    stored = object_of(job)
    versions = service.storage.versions[stored.key]
    data = bytearray(versions[stored.version_id or ""])
    data[at] ^= 1
    versions[stored.version_id or ""] = bytes(data)


def at_every_call(fault: Fault) -> Iterator[SimulatedDrill]:
    """The drill after the fault at each call of a port in turn."""
    for number in count():
        service = a_service({number: fault})
        service.verify()
        service.deliver_next(DELIVERIES)
        if not service.happened:
            break
        service.finish_drills()
        yield service
    assert number > FEWEST_CALLS


# --- one drill


def test_a_whole_backup_is_opened_and_its_site_is_proven() -> None:
    service = a_service(providers=2)
    service.verify()
    service.finish_drills()
    for task in service.job.tasks.values():
        assert task.drill is not None
        assert (task.drill.state, task.drill.members, task.drill.compared) == (DrillState.OK, 3, True)
    (site,) = service.sites.all()
    assert site.verified_at == service.now
    assert not service.job.pins
    service.check_removable()


FAULTS = [
    *(
        Fault.CRASH_BEFORE,
        Fault.CRASH_AFTER,
        Fault.FAILS,
        Fault.ANSWER_LOST,
        Fault.STILL_BEFORE,
        Fault.STILL_AFTER,
    ),
    *(Fault.OTHERS, Fault.LAST, Fault.AGAIN, Fault.SWEEP, Fault.CLEAN_UP, Fault.VERIFY),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name.lower())
def test_a_drill_comes_to_its_end_whatever_happens_at_any_call(fault: Fault) -> None:
    for service in at_every_call(fault):
        task = service.job.tasks["site"]
        if task.drill is None:  # the call that asks for it failed, and says so
            assert service.happened[0][0] <= 3
            continue
        assert task.drill.state is DrillState.OK, (service.happened, task.drill)
        service.check_removable()


def test_a_deletion_at_any_call_waits_for_the_drill_and_then_comes() -> None:
    opened = 0
    for service in at_every_call(Fault.DELETE):
        assert service.job.delete_cause is DeleteCause.REQUESTED
        drill = service.job.tasks["site"].drill
        if drill is not None:
            assert drill.state is DrillState.OK, service.happened
            opened += 1
        service.check_removable()
    assert opened > FEWEST_CALLS - 3


@pytest.mark.parametrize("number", [6, 9, 12])
def test_a_drill_that_is_killed_goes_on_where_it_was(number: int) -> None:
    service = a_service(members=9)
    service.verify()
    reads: list[int] = []

    def note(start: int) -> None:
        reads.append(start)
        service.pass_time(timedelta(seconds=11))  # so that each place is stored

    _on_read(service, note)
    stored = 0

    def kill() -> None:
        nonlocal stored
        stored += 1
        if stored == number:
            raise Crash

    service.before("jobs.replace", kill)
    service.deliver_next(1)
    assert stored == number
    drilling = service.job.tasks["site"].drilling
    assert drilling is not None
    place = drilling.place.offset
    assert place > 0
    reads.clear()
    service.finish_drills()
    directory = a_zip(9).index(b"PK\x01\x02")
    again = [start for start in reads if 0 < start < directory]
    assert again, "the rest was not read"
    assert min(again) >= place, "what was opened was read again"
    task = service.job.tasks["site"]
    assert task.drill is not None
    assert (task.drill.state, task.drill.members) == (DrillState.OK, 9)


def _on_read(service: SimulatedDrill, note: Callable[[int], None]) -> None:
    read = service.storage.read

    def noted(stored: StoredObject, start: int, length: int) -> bytes:
        note(start)
        return read(stored, start, length)

    service.storage.read = noted  # type: ignore[method-assign]


def test_an_invocation_whose_time_is_up_hands_over_and_the_result_is_the_same() -> None:
    service = a_service()
    service.verify()
    left = [0]

    def hurry(start: int) -> None:
        left[0] += 1
        if left[0] % 7 == 0:
            service.pass_time(timedelta(minutes=14))

    _on_read(service, hurry)
    service.finish_drills()
    drill = service.job.tasks["site"].drill
    assert drill is not None
    assert drill.compared
    assert drill.state is not DrillState.DAMAGED
    assert service.invocations > 5


# --- damage


def test_damage_takes_two_reads_and_names_the_member() -> None:
    service = a_service()
    damage(service, service.job, a_zip().index(b"1.bin") + 10)
    service.verify()
    service.deliver_next(1)
    drilling = service.job.tasks["site"].drilling
    assert drilling is not None
    assert drilling.suspicion
    assert service.job.tasks["site"].drill is None
    service.finish_drills()
    task = service.job.tasks["site"]
    assert task.drill is not None
    assert (task.drill.state, task.drill.member) == (DrillState.DAMAGED, "1.bin")
    assert service.job.damaged


def test_a_version_of_another_size_is_damaged() -> None:
    """S3 would only say that it has no such range."""
    service = a_service()
    stored = object_of(service.job)
    versions = service.storage.versions[stored.key]
    versions[stored.version_id or ""] = versions[stored.version_id or ""][:-50]
    service.verify()
    service.finish_drills()
    drill = service.job.tasks["site"].drill
    assert drill is not None
    assert drill.state is DrillState.DAMAGED
    assert drill.message == f"It has {stored.size - 50} bytes and not {stored.size}."


def test_a_site_whose_only_backup_turns_out_to_be_damaged_is_proven_no_longer() -> None:
    service = a_service()
    service.verify()
    service.finish_drills()
    assert service.sites.all()[0].verified_at is not None
    damage(service, service.job, 60)
    service.verify()
    service.finish_drills()
    (site,) = service.sites.all()
    assert site.verified_at is None
    assert site.look_at <= service.now


def test_what_only_one_read_found_damaged_is_not() -> None:
    service = a_service()
    stored = object_of(service.job)
    good = service.storage.versions[stored.key][stored.version_id or ""]
    damage(service, service.job, 60)
    service.verify()
    service.deliver_next(1)
    service.storage.versions[stored.key][stored.version_id or ""] = good
    service.finish_drills()
    task = service.job.tasks["site"]
    assert task.drill is not None
    assert task.drill.state is DrillState.OK
    assert not service.job.damaged


@pytest.mark.parametrize(
    "refusal",
    [
        Permanent(Code.STORAGE_REFUSED, "S3 answered AccessDenied."),
        Transient("S3 answered KMS.DisabledException."),
    ],
    ids=["refused", "no key"],
)
def test_what_s3_does_not_give_is_unread_and_not_damaged(refusal: Exception) -> None:
    service = a_service()

    def refuse() -> None:
        raise refusal

    service.before("storage.read", refuse)
    service.verify()
    service.finish_drills()
    task = service.job.tasks["site"]
    assert task.drill is not None
    assert (task.drill.state, task.drill.message, task.drill.compared) == (
        DrillState.UNREAD,
        str(refusal),
        False,
    )
    assert service.sites.all()[0].verified_at is None
    assert not service.job.pins


def test_a_version_that_is_gone_is_not_damaged() -> None:
    service = a_service()
    stored = object_of(service.job)
    del service.storage.versions[stored.key][stored.version_id or ""]
    service.verify()
    service.finish_drills()
    drill = service.job.tasks["site"].drill
    assert drill is not None
    assert (drill.state, drill.compared) == (DrillState.UNREAD, False)


def test_the_backup_before_a_damaged_one_is_kept_in_its_place_and_opened_at_once() -> None:
    service = a_service()
    before = service.job_id
    service.pass_time(DAY)
    newer = service.back_up()
    assert service.jobs.holds_newest_good(service.stored(newer))
    assert not service.jobs.holds_newest_good(service.stored(before))
    damage(service, service.stored(newer), 60)
    service.verify_backup(BY_SERVICE, newer)
    service.finish_drills()
    assert service.stored(newer).damaged
    assert not service.jobs.holds_newest_good(service.stored(newer))
    assert service.jobs.holds_newest_good(service.stored(before))
    found = service.jobs.newest_good(USER_ID, SITE_ID, service.now, [])
    assert found is not None
    assert found.id == before
    drill = service.stored(before).tasks["site"].drill
    assert drill is not None
    assert drill.is_proof
    assert service.sites.all()[0].verified_at == drill.at


def test_a_damaged_backup_is_neither_restored_nor_downloaded_unless_that_is_asked_for() -> None:
    service = a_service()
    damage(service, service.job, 60)
    service.verify()
    service.finish_drills()
    with pytest.raises(StateForbids, match="site damaged"):
        service.create_restore(
            BY_SERVICE,
            RestoreRequest(user_id=USER_ID, site_id=SITE_ID, job_id=service.job_id, providers="all"),
            None,
            None,
        )
    with pytest.raises(StateForbids, match="damaged=allow"):
        service.create_download(BY_SERVICE, service.job_id, "site")
    assert service.create_download(
        BY_SERVICE, service.job_id, "site", allow_damaged=True
    ).stored == object_of(service.job)


@pytest.mark.parametrize("fault", [Fault.CRASH_AFTER, Fault.ANSWER_LOST, Fault.DRILLS])
def test_damage_that_is_found_takes_the_proof_from_its_site_whatever_happens_at_any_call(
    fault: Fault,
) -> None:
    """The backup before is opened in its place, and the next run of the drills counts what is damaged."""
    for number in count():
        service = a_service()
        before = service.job_id
        service.pass_time(DAY)
        newer = service.back_up()
        service.verify_backup(BY_SERVICE, newer)
        service.finish_drills()
        assert service.sites.all()[0].verified_at is not None
        damage(service, service.stored(newer), 60)
        service.begin_to_spoil({number: fault})
        with service.invocation():
            service.verify_backup(BY_SERVICE, newer)
        service.deliver_next(DELIVERIES)
        if not service.happened:
            break
        service.finish_drills()
        if not service.stored(newer).damaged:  # the call that asks for it failed, and says so
            assert number <= FEWEST_CALLS / 2
            continue
        service.begin_drills()
        service.pass_time(DAY / 4)  # a run that was at the site meanwhile looks at it again
        service.begin_drills()
        service.finish_drills()
        proof = service.stored(before).tasks["site"].drill
        assert proof is not None, service.happened
        assert proof.is_proof
        (site,) = service.sites.all()
        assert site.verified_at == proof.at, service.happened
        assert service.jobs.damaged(10) == [newer]
    assert number > FEWEST_CALLS


# --- with others at the same backup


@pytest.mark.parametrize("drill_first", [True, False])
def test_a_drill_and_a_restore_of_one_backup_do_not_disturb_each_other(drill_first: bool) -> None:
    for deliveries in range(0, 40, 3):
        service = a_service()
        if drill_first:
            service.verify()
            service.deliver_next(deliveries)
        request = RestoreRequest(
            user_id=USER_ID, site_id=SITE_ID, job_id=service.job_id, providers="all", safety_backup=False
        )
        restore_id = service.create_restore(BY_SERVICE, request, None, None).id
        if not drill_first:
            service.deliver_next(deliveries)
            service.verify()
        service.delete()
        service.finish_drills()
        for _ in range(MAX_SWEEPS):
            restore = service.stored_restore(restore_id)
            if restore.next_check_at is None:
                break
            service.clock.advance_to(restore.next_check_at)
            service.sweep()
            service.deliver_all()
        assert service.stored_restore(restore_id).status is RestoreStatus.DONE
        drill = service.job.tasks["site"].drill
        assert drill is not None
        assert drill.state is DrillState.OK
        service.check_removable()


def test_a_backup_that_expires_while_it_is_opened_goes_afterwards() -> None:
    service = a_service()
    service.pass_time(DAY)
    service.back_up()
    service.verify()
    service.deliver_next(0)
    expire = partial(mark_deleted, at=service.now, cause=DeleteCause.EXPIRED)
    service.recorder.apply(service.job_id, expire)
    service.pass_time(timedelta(seconds=GRACE_SECONDS))
    service.clean_up()
    assert service.job.removing_at is None, "it is pinned"
    service.finish_drills()
    assert not service.job.pins
    service.check_removable()


def test_a_drill_that_is_forgotten_holds_nothing_for_ever() -> None:
    """Nobody sweeps, as after the function was taken away: the pin ends by itself."""
    service = a_service()
    service.verify()
    service.bus.bag.clear()
    service.delete()
    assert service.job.pins
    service.pass_time(timedelta(hours=3))
    service.clean_up()
    assert service.job.status is Status.DELETED
    service.deliver(DrillCreated(task=service.job.ref("site")))
    service.sweep()
    assert not service.unexpected
    assert service.job.tasks["site"].drill is None
