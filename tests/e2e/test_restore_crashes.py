"""kill -9 in the middle of restores: each still ends done, its bytes equal, and hardly one of them sent twice."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from sitebackup.domain.events import RestoreTaskCreated
from sitebackup.domain.task_ref import RestoreTaskRef
from tests.e2e.backups import back_up, back_up_each, behave
from tests.e2e.client import Json, wait_until
from tests.e2e.stack import HELD, MIB, SLICE, Stack

FOLDER = "restore_provider"
SLOW = {"drip": {"bytesPerSecond": MIB}}


@dataclass(frozen=True)
class Place:
    """Where an invocation is held by how the import API behaves, and how its statistics show that it is there."""

    provider: str
    size: int
    imports: dict[str, Any]
    is_there: Callable[[Json], bool]


PLACES: dict[str, Place] = {
    "in a slice that is not the last": Place(
        "site", 2 * SLICE, SLOW, lambda seen: MIB < seen["bytesReceived"] < SLICE
    ),
    "in the last slice": Place(
        "site",
        SLICE + 4 * MIB,
        {"drip": {"bytesPerSecond": 4 * MIB}},
        lambda seen: SLICE < seen["bytesReceived"] < SLICE + 4 * MIB,
    ),
    "between a new upload and its first byte": Place(
        "db", 2 * MIB, {"hang": {"afterBytes": 0, "seconds": 10}}, lambda seen: seen["patches"] > 0
    ),
    "before it knows of a new upload": Place(
        "db", 2 * MIB, {"slowAnswer": {"POST": {"seconds": 10}}}, lambda seen: seen["creations"] > 0
    ),
    "while the provider imports": Place(
        "db", 2 * MIB, {"importSeconds": 5}, lambda seen: "GET 200" in seen["byAnswer"]
    ),
}


def test_a_restore_goes_on_wherever_its_worker_is_killed(stack: Stack) -> None:
    """They may share a partition of Kafka, and then come one after another."""
    sites = [stack.site(place.provider, place.size) for place in PLACES.values()]
    backups = dict(zip(PLACES, back_up_each(stack, [[site] for site in sites]), strict=True))
    for name, backup in backups.items():
        behave(backup.site, **PLACES[name].imports)
    restores = {name: stack.api.restore(backup.job) for name, backup in backups.items()}
    alive = dict(backups)

    def there() -> list[str]:
        return [name for name, backup in alive.items() if PLACES[name].is_there(backup.site.imports())]

    while alive:
        reached = wait_until(f"a worker is at one of {list(alive)}", there)
        _kill_all(stack)
        for name in reached:
            behave(alive.pop(name).site)
    for name, restore in restores.items():
        done = stack.api.done(restore)
        assert backups[name].is_back(), (name, done)
        assert backups[name].bytes_received() <= 1.1, name


def _kill_all(stack: Stack) -> None:
    for pid in stack.run.environments(FOLDER, "busy"):
        os.kill(pid, signal.SIGKILL)


HUNG = {
    "hang": {"afterBytes": 2 * MIB, "seconds": 4, "times": 1},
    "cutAt": {"bytes": 2 * MIB + 1, "times": 1},
}
"""In the middle of a slice nothing is read for a while, and then the connection ends."""
ZOMBIES: dict[str, tuple[str, dict[str, Any], Callable[[Json], bool]]] = {
    "in the middle of a slice": (
        "site",
        HUNG,
        lambda seen: seen["bytesReceived"] == 2 * MIB,
    ),
    "before the answer to the last byte": (
        "db",
        {"slowAnswer": {"PATCH": {"from": SLICE + 1, "seconds": 4, "times": 1}}},
        lambda seen: seen["imported"] == 1,
    ),
}


@pytest.mark.parametrize(("provider", "imports", "is_there"), ZOMBIES.values(), ids=ZOMBIES)
def test_a_worker_that_wakes_up_after_another_has_finished_changes_nothing(
    stack: Stack, provider: str, imports: Json, is_there: Callable[[Json], bool]
) -> None:
    """The provider ends the stopped worker's request itself, so that another can write to the upload."""
    backup = back_up(stack, stack.site(provider, SLICE + MIB))
    behave(backup.site, **imports)
    stack.drain()
    restore = stack.api.restore(backup.job)

    def is_done() -> Json | None:
        stack.emit(_again(restore, provider))
        restored = stack.api.job(restore)
        return restored if restored["status"] == "done" else None

    wait_until("the first worker is there", lambda: is_there(backup.site.imports()))
    with stack.paused(FOLDER):
        done = wait_until("another has finished", is_done, every=0.5)
        before = backup.site.imports()
    stack.drain()
    after = backup.site.imports()
    assert (after["bytesReceived"], after["imported"], after["patches"]) == (
        before["bytesReceived"],
        1,
        before["patches"],
    )
    woken = stack.api.job(restore)
    assert (woken["status"], woken["tasks"]) == ("done", done["tasks"])
    assert backup.is_back()
    assert backup.bytes_received() <= 1.1


def test_a_worker_that_wakes_up_while_another_sends_sends_nothing(stack: Stack) -> None:
    backup = back_up(stack, stack.site("site", 2 * SLICE))
    behave(backup.site, drip={"bytesPerSecond": 4 * MIB}, **HUNG)
    stack.drain()
    restore = stack.api.restore(backup.job)

    def another_sends() -> bool:
        stack.emit(_again(restore, "site"))
        return bool(backup.site.imports()["patches"] > 1)

    wait_until("the first worker is there", lambda: backup.site.imports()["bytesReceived"] == 2 * MIB)
    with stack.paused(FOLDER):
        wait_until("another sends", another_sends, every=0.5)
    stack.api.done(restore)
    stack.drain()
    assert backup.is_back()
    assert backup.bytes_received() <= 1.1
    refused = {"PATCH 409", "PATCH 423"} & backup.site.imports()["byAnswer"].keys()
    assert not refused, "two sent at once"


def _again(restore: Json, provider: str) -> RestoreTaskCreated:
    """As the sweep sends it, whose own record is behind the one that a stopped worker is at."""
    ref = RestoreTaskRef(restore_id=restore["restoreId"], attempt=1, provider=provider)
    return RestoreTaskCreated(task=ref, redelivery=1)


def test_a_cancelled_restore_sends_no_more_bytes_and_a_retry_goes_on_with_its_upload(stack: Stack) -> None:
    """What was on its way when the worker stopped may still arrive: at most the slice that was under way."""
    backup, late = back_up_each(stack, [[stack.site("site", 3 * SLICE)], [stack.site("db", 4 * MIB)]])
    for one in (backup, late):
        behave(one.site, drip={"bytesPerSecond": 2 * MIB})
    restore = stack.api.restore(backup.job)
    wait_until("bytes move", lambda: backup.site.imports()["bytesReceived"] > MIB)
    cancelled = stack.api.change(restore, "cancel")
    assert (cancelled["status"], cancelled["reason"]["code"]) == ("cancelled", "cancelled")
    wait_until("nobody sends", lambda: backup.site.imports()["concurrent"] == 0)
    received = backup.site.imports()["bytesReceived"]
    assert received <= 2 * SLICE
    restore = stack.api.restore(late.job)
    wait_until("the last byte is under way", lambda: late.site.imports()["bytesReceived"])
    answer = stack.api.post(f"/restores/{restore['restoreId']}/cancel")
    assert (answer.status_code, answer.json()["type"]) == (409, "too-late"), answer.text
    assert answer.json()["restoreId"] == restore["restoreId"]
    stack.api.done(restore)
    assert late.is_back()
    stack.drain()
    assert backup.site.imports()["bytesReceived"] == received, "bytes were sent after the cancel"
    behave(backup.site)
    again = stack.api.change(cancelled, "retry")
    assert again["attempt"] == 2
    stack.api.done(again)
    assert backup.is_back()
    assert backup.site.imports()["creations"] == 1
    assert backup.bytes_received() <= 1.1


def test_a_cancel_during_the_safety_backup_ends_both_and_a_retry_makes_another(stack: Stack) -> None:
    backup = back_up(stack, stack.site("site", 1000))
    backup.site.set(**HELD)
    restore = stack.api.restore(backup.job, safetyBackup=True)
    first = {"jobId": restore["safetyJobId"]}
    assert stack.api.post(f"/backup/{first['jobId']}/retry").status_code == 409
    assert stack.api.change(restore, "cancel")["status"] == "cancelled"
    wait_until("the safety backup is cancelled", lambda: stack.api.job(first)["status"] == "cancelled")
    backup.site.set(size=3000, revision=2)
    again = stack.api.change(restore, "retry")
    assert again["safetyJobId"] != first["jobId"]
    assert backup.site.imports()["requests"] == 0
    done = stack.api.done(again)
    assert backup.is_back()
    stack.bucket.assert_holds(stack.api.job({"jobId": done["safetyJobId"]}), backup.site)


def test_a_lost_answer_to_the_last_byte_imports_once(stack: Stack) -> None:
    """Whether a provider tells what became of an import, or what its upload holds must settle it."""
    backups = back_up_each(stack, [[stack.site(provider, 2 * MIB)] for provider in ("site", "db")])
    for backup in backups:
        behave(backup.site, loseAnswer={"PATCH": {"times": 1}})
    restores = [stack.api.restore(backup.job) for backup in backups]
    for backup, restore in zip(backups, restores, strict=True):
        stack.api.done(restore)
        seen = backup.site.imports()
        assert (seen["byAnswer"]["PATCH lost"], seen["repeated"]) == (1, 0)
        assert backup.is_back()
        assert backup.bytes_received() == 1


def test_what_became_of_an_upload_that_vanished_with_its_last_byte_is_unknown(stack: Stack) -> None:
    """Nothing is sent again; a retry, which somebody must want, imports nothing twice."""
    backups = back_up_each(stack, [[stack.site(provider, 2 * MIB)] for provider in ("site", "db")])
    for backup in backups:
        behave(backup.site, loseAnswer={"PATCH": {"times": 1}}, forget={"from": 2 * MIB})
    restores = [stack.api.restore(backup.job) for backup in backups]
    ends = [stack.api.finish(restore) for restore in restores]
    for backup, end in zip(backups, ends, strict=True):
        assert (end["status"], end["reason"]["code"]) == ("failed", "import_unknown")
        assert backup.is_back()
        assert backup.bytes_received() == 1
        behave(backup.site)
        stack.api.done(stack.api.change(end, "retry"))
        assert backup.is_back()
        assert backup.site.imports()["repeated"] == 1
