"""The changes of a done job while its objects are opened: asked for, begun, gone on with, and ended.

While a drill of it is under way the job is pinned, by a pin that ends by itself (I19).
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from .change import Change, Moment
from .drill import Drill, Drilling, DrillState, Place
from .events import DrillCreated
from .job import DeleteCause, Job, Status, Task
from .lifecycle import pin, unpin
from .task_ref import TaskRef
from .transitions.postponing import Postponed

OWNER = "drill"
"""Of the pin that all drills of a job share."""
PIN = timedelta(hours=1)
"""It lasts so long beyond the next check of a drill, which renews it."""


def request(job: Job, moment: Moment, providers: Collection[str], newest: Collection[str]) -> Change | None:
    """Objects of these providers are to be opened; of `newest` the job is the newest good backup.

    None: the data is not there, or somebody asked to delete it. The very job: all are being opened already.
    """
    if why_not(job) is not None:
        return None
    asked = [
        name
        for name in providers
        if (task := job.tasks.get(name)) and task.object is not None and task.drilling is None
    ]
    if not asked:
        return Change(job)
    at = moment.in_seconds(moment.policy.start_seconds)
    begun = {name: Drilling(of_newest=name in newest, next_check_at=at) for name in asked}
    changed = _pinned(_with_drillings(job, moment, begun), moment)
    return Change(changed, [DrillCreated(task=job.ref(name)) for name in asked])


def why_not(job: Job) -> str | None:
    """What forbids a drill of the job; None: nothing does."""
    if job.status is Status.DELETED:
        return "its data is gone"
    if job.removing_at is not None:
        return "its data is being removed"
    if job.status is not Status.DONE:
        return f"it is {job.status}"
    if job.delete_at is not None and job.delete_cause is DeleteCause.REQUESTED:
        return "it is marked for deletion; undelete it first"
    return None


def start(job: Job, moment: Moment, ref: TaskRef, owner: str) -> Change | None:
    """This invocation takes the drill. None: there is none, or another invocation has it.

    After too many tries without progress it ends: nobody can tell what is stored there.
    """
    found = job.live_drill(ref)
    if found is None:
        return None
    _, drilling = found
    if drilling.leased_until is not None and drilling.leased_until > moment.now and drilling.owner != owner:
        return None
    if drilling.tries >= moment.policy.max_tries:
        return _given_up(job, moment, ref, drilling, drilling.last_error or "No try came to an end.")
    return _held(job, moment, ref, owner, drilling.replace(tries=drilling.tries + 1))


def keep(job: Job, moment: Moment, ref: TaskRef, owner: str, place: Place) -> Change | None:
    """The invocation is at it still, and has come this far. None: it has it no longer."""
    found = job.live_drill(ref, owner)
    if found is None:
        return None
    return _held(job, moment, ref, owner, _moved(found[1], place))


def suspect(job: Job, moment: Moment, ref: TaskRef, owner: str, found: str) -> Change | None:
    """The first read found damage: another invocation reads all of it again."""
    live = job.live_drill(ref, owner)
    if live is None or live[1].suspicion is not None:
        return None
    again = live[1].replace(place=Place(), suspicion=found, tries=0, checks=0)
    at = moment.in_seconds(moment.policy.start_seconds)
    return _released(job, moment, ref, again, at, [DrillCreated(task=ref)])


def hand_over(job: Job, moment: Moment, ref: TaskRef, owner: str, place: Place) -> Change | None:
    """The time of the invocation is up: another one goes on from this place."""
    found = job.live_drill(ref, owner)
    if found is None:
        return None
    at = moment.in_seconds(moment.policy.start_seconds)
    return _released(job, moment, ref, _moved(found[1], place), at, [DrillCreated(task=ref)])


def postpone(job: Job, moment: Moment, ref: TaskRef, owner: str, error: Postponed) -> Change | None:
    """S3 does not give the object now. That is no damage: it is tried again, until there were too many tries."""
    found = job.live_drill(ref, owner)
    if found is None:
        return None
    drilling = found[1]
    if drilling.tries >= moment.policy.max_tries:
        return _given_up(job, moment, ref, drilling, error.message)
    return _released(job, moment, ref, drilling.replace(last_error=error.message), error.next_try_at)


def finish(job: Job, moment: Moment, ref: TaskRef, owner: str, drill: Drill) -> Change | None:
    """All is read. Damage that the first read finds is a suspicion only: then this changes nothing."""
    found = job.live_drill(ref, owner)
    if found is None or (drill.state is DrillState.DAMAGED and found[1].suspicion is None):
        return None
    return _ended(job, moment, ref, drill.replace(at=moment.now, of_newest=found[1].of_newest))


def check(job: Job, moment: Moment) -> Change | None:
    """Sends the drills again that are due, each time after a longer pause (I8).

    Once somebody has asked to delete the job they end: its removal must not wait for a drill that nobody works at.
    """
    if job.earliest_check is None or job.status is not Status.DONE:
        return None
    if (why := why_not(job)) is not None:
        return _all_given_up(job, moment, f"It could not be opened: {why}.")
    due: dict[str, Drilling] = {}
    for name, task in job.tasks.items():
        if task.drilling is None or task.drilling.next_check_at > moment.now:
            continue
        delay = min(moment.policy.start_seconds << task.drilling.checks, moment.policy.max_stall_seconds)
        checks = min(task.drilling.checks + 1, moment.policy.max_tries)
        due[name] = task.drilling.replace(checks=checks, next_check_at=moment.in_seconds(delay))
    if not due:
        return None
    changed = _pinned(_with_drillings(job, moment, due), moment)
    return Change(changed, [DrillCreated(task=job.ref(name)) for name in due])


# --- what a site's backups prove


class Newest(NamedTuple):
    """The newest good backup of a provider."""

    job: Job
    task: Task

    @property
    def is_empty(self) -> bool:
        """Whether its zip has no members: any that has some is newer than that (I19)."""
        return self.task.object is not None and self.task.object.members == 0


def newest_good(jobs: Sequence[Job]) -> dict[str, Newest]:
    """By provider, of these done jobs of one site: as `JobRepository.holds_newest_good` has it (I19)."""
    best: dict[str, Newest] = {}
    for job in jobs:
        if job.safety_for is not None or why_not(job) is not None:
            continue
        for name, task in job.tasks.items():
            if task.object is None or task.finished_at is None or task.is_damaged:
                continue
            if name not in best or _rank(task) > _rank(best[name].task):
                best[name] = Newest(job, task)
    return best


def _rank(task: Task) -> tuple[bool, datetime]:
    assert task.object is not None
    assert task.finished_at is not None
    return task.object.members != 0, task.finished_at


def opened_at(jobs: Sequence[Job], newest: Mapping[str, Newest]) -> tuple[datetime, bool] | None:
    """Since when each provider of the site has a backup that was opened when it was the newest one.

    And whether parts of one could not be judged. None: of some provider none of these jobs was opened.
    A backup that comes while its predecessor is opened takes nothing from the proof. What is suspected of damage
    proves nothing.
    """
    proofs: list[Drill] = []
    for name in newest:
        drills = [
            task.drill
            for job in jobs
            if why_not(job) is None and (task := job.tasks.get(name)) and task.drill and not task.is_suspected
        ]
        proof = max((drill for drill in drills if drill.is_proof), key=lambda drill: drill.at, default=None)
        if proof is None:
            return None
        proofs.append(proof)
    if not proofs:
        return None
    return min(proof.at for proof in proofs), any(proof.state is DrillState.UNREAD for proof in proofs)


# --- what the transitions share


def _moved(drilling: Drilling, place: Place) -> Drilling:
    """Any byte further is progress."""
    if (place.offset, place.entry) == (drilling.place.offset, drilling.place.entry):
        return drilling
    return drilling.replace(place=place, tries=0, checks=0)


def _held(job: Job, moment: Moment, ref: TaskRef, owner: str, drilling: Drilling) -> Change:
    until = moment.in_seconds(moment.policy.lease_seconds)
    held = drilling.replace(owner=owner, leased_until=until, next_check_at=until)
    return Change(_pinned(_with_drillings(job, moment, {ref.provider: held}), moment))


def _released(
    job: Job,
    moment: Moment,
    ref: TaskRef,
    drilling: Drilling,
    check_at: datetime,
    events: Sequence[DrillCreated] = (),
) -> Change:
    free = drilling.replace(owner=None, leased_until=None, next_check_at=check_at)
    return Change(_pinned(_with_drillings(job, moment, {ref.provider: free}), moment), events)


def _given_up(job: Job, moment: Moment, ref: TaskRef, drilling: Drilling, why: str) -> Change:
    unread = Drill(state=DrillState.UNREAD, at=moment.now, message=why, of_newest=drilling.of_newest)
    return _ended(job, moment, ref, unread)


def _all_given_up(job: Job, moment: Moment, why: str) -> Change | None:
    """Those that no invocation is at."""
    changed = job
    for name, task in job.tasks.items():
        drilling = task.drilling
        if drilling and (drilling.leased_until is None or drilling.leased_until <= moment.now):
            changed = _given_up(changed, moment, job.ref(name), drilling, why).job
    return Change(changed) if changed is not job else _put_off(job, moment)


def _put_off(job: Job, moment: Moment) -> Change | None:
    """Looked at again when the leases are over."""
    held = {
        name: task.drilling.replace(
            next_check_at=max(task.drilling.next_check_at, task.drilling.leased_until)
        )
        for name, task in job.tasks.items()
        if task.drilling and task.drilling.leased_until
    }
    return Change(_with_drillings(job, moment, held)) if held else None


def _ended(job: Job, moment: Moment, ref: TaskRef, drill: Drill) -> Change:
    """An object that was found damaged stays so until a drill has read all of it again."""
    task = job.tasks[ref.provider]
    tells_nothing = drill.state is DrillState.UNREAD and not drill.compared
    kept = task.drill if task.is_damaged and tells_nothing else drill
    tasks = {**job.tasks, ref.provider: task.replace(drill=kept, drilling=None)}
    damaged = any(each.is_damaged for each in tasks.values())
    ended = job.replace(tasks=tasks, damaged=damaged, updated_at=moment.now)
    if damaged != job.damaged:  # what KeepNewest keeps has changed
        ended = ended.replace(clean_up_at=moment.now)
    if any(each.drilling for each in tasks.values()):
        return Change(ended)
    return unpin(ended, moment, OWNER) or Change(ended)


def _with_drillings(job: Job, moment: Moment, drillings: Mapping[str, Drilling]) -> Job:
    changed = {name: job.tasks[name].replace(drilling=drilling) for name, drilling in drillings.items()}
    return job.replace(tasks={**job.tasks, **changed}, updated_at=moment.now)


def _pinned(job: Job, moment: Moment) -> Job:
    """Renewed when half of it is over, and at least to the next check."""
    checks = [task.drilling.next_check_at for task in job.tasks.values() if task.drilling]
    if job.pins.get(OWNER, moment.now) >= max(checks) + PIN / 2:
        return job
    change = pin(job, moment, OWNER, max(checks) + PIN)
    assert change is not None, "a drill of what is not done, or being removed"
    return change.job
