"""Every fault of an import API: what may pass ends in `done`, what will not in `failed` with a reason."""

from typing import Any

from tests.e2e.backups import Backup, back_up, back_up_each, behave
from tests.e2e.client import Json
from tests.e2e.stack import MIB, SLICE, Stack

SIZE = SLICE + MIB
MIDDLE = SLICE // 2
ONCE, TWICE = {"times": 1}, {"times": 2}

PASSING: dict[str, dict[str, Any]] = {
    "503 to a new upload": {"refuse": {"POST": {"code": 503, **TWICE}}},
    "503 with Retry-After to a slice": {"refuse": {"PATCH": {"code": 503, "retryAfter": 1, **TWICE}}},
    "503 beyond the retries in place": {"refuse": {"PATCH": {"code": 503, "retryAfter": 1, "times": 4}}},
    "a slice refused before it is read": {"refuse": {"PATCH": {"code": 503, "close": True, **ONCE}}},
    "409": {"refuse": {"PATCH": {"code": 409, **ONCE}}},
    "423": {"refuse": {"PATCH": {"code": 423, **TWICE}}},
    "460": {"refuse": {"PATCH": {"code": 460, "from": SLICE, **ONCE}}},
    "cut off": {"cutAt": {"bytes": MIDDLE, **ONCE}},
    "a pause": {"hang": {"afterBytes": MIDDLE, "seconds": 6, **ONCE}},
    "the answer to a new upload is lost": {"loseAnswer": {"POST": ONCE}},
    "the answer to a slice is lost": {"loseAnswer": {"PATCH": ONCE}},
    "a late answer": {"slowAnswer": {"PATCH": {"seconds": 6, **ONCE}}},
    "the upload is forgotten": {"forget": {"from": SLICE, **ONCE}},
    "bytes are lost": {"loseBytes": {"from": SLICE, "bytes": MIB, **ONCE}},
    "no checksums": {"extensions": ["creation"]},
    "a relative Location": {"relativeLocation": True},
    "a long import": {"importSeconds": 6},
}
ANEW = ("the answer to a new upload is lost", "the upload is forgotten", "bytes are lost")
"""These need another upload."""

FINAL: dict[str, tuple[str, dict[str, Any]]] = {
    "401": ("import_forbidden", {"refuse": {"POST": {"code": 401}}}),
    "403": ("import_forbidden", {"refuse": {"POST": {"code": 403}}}),
    "403 to a slice": ("import_forbidden", {"refuse": {"PATCH": {"code": 403, "from": SLICE}}}),
    "404 to a new upload": ("import_not_found", {"refuse": {"POST": {"code": 404}}}),
    "400": ("import_refused", {"refuse": {"POST": {"code": 400}}}),
    "415 to a slice": ("import_refused", {"refuse": {"PATCH": {"code": 415}}}),
    "too large": ("import_too_large", {"maxSize": SIZE - 1}),
    "an offset above what was sent": ("import_invalid", {"wrongOffset": {"PATCH": {"by": 1}}}),
    "a Location at another host": ("import_invalid", {"wrongLocation": {"location": "http://example.org/1"}}),
    "the import fails": ("import_failed", {"importFails": {"message": "the disk is full"}}),
    "every upload is forgotten": ("retries_exhausted", {"forget": {"from": SLICE}}),
}


def _reasons(restore: Json) -> tuple[str, str | None, str | None]:
    (task,) = restore["tasks"].values()
    return restore["status"], restore.get("reason", {}).get("code"), task.get("reason", {}).get("code")


def _backups(stack: Stack, faults: dict[str, dict[str, Any]]) -> dict[str, Backup]:
    """Of a provider that tells what became of an import; each at a site of its own."""
    backups = back_up_each(stack, [[stack.site("db", SIZE)] for _ in faults])
    for backup, fault in zip(backups, faults.values(), strict=True):
        behave(backup.site, **fault)
    return dict(zip(faults, backups, strict=True))


def test_a_fault_that_passes_ends_in_done_with_the_right_bytes(stack: Stack) -> None:
    backups = _backups(stack, PASSING)
    restores = {name: stack.api.restore(backup.job) for name, backup in backups.items()}
    ends = {name: stack.api.finish(restore) for name, restore in restores.items()}
    assert {name: _reasons(end) for name, end in ends.items()} == dict.fromkeys(PASSING, ("done", None, None))
    for name, backup in backups.items():
        assert backup.is_back(), name
        assert backup.site.imports()["creations"] == (2 if name in ANEW else 1), name
        assert backup.bytes_received() <= (2 if name in ANEW else 1.1), name
    waited = ends["503 beyond the retries in place"]["tasks"]["db"]
    assert waited["retries"] >= 1
    assert "503" in waited["lastError"]["message"]


def test_a_fault_that_stays_ends_in_failed_with_a_reason_and_a_retry_may_mend_it(stack: Stack) -> None:
    backups = _backups(stack, {name: fault for name, (_, fault) in FINAL.items()})
    restores = {name: stack.api.restore(backup.job) for name, backup in backups.items()}
    ends = {name: stack.api.finish(restore) for name, restore in restores.items()}
    expected = {name: ("failed", code, code) for name, (code, _) in FINAL.items()}
    assert {name: _reasons(end) for name, end in ends.items()} == expected
    assert "the disk is full" in ends["the import fails"]["reason"]["message"]
    for name, backup in backups.items():
        assert ends[name]["reason"]["message"], name
        assert backup.site.imports()["imported"] == 0, name
        behave(backup.site)
    again = {name: stack.api.change(end, "retry") for name, end in ends.items()}
    for name, restore in again.items():
        stack.api.done(restore)
        assert backups[name].is_back(), name
    assert backups["403 to a slice"].site.imports()["creations"] == 1, "the upload was not gone on with"


def test_the_siblings_of_a_failed_task_go_on_and_a_retry_redoes_only_that_one(stack: Stack) -> None:
    site = stack.site("site", 1000)
    db = stack.site("db", 4 * MIB, of=site)
    backup = back_up(stack, site, db)
    behave(site, refuse={"POST": {"code": 403}})
    behave(db, drip={"bytesPerSecond": 2 * MIB})
    end = stack.api.finish(stack.api.restore(backup.job))
    assert (end["status"], end["reason"]["code"]) == ("failed", "import_forbidden")
    statuses = {name: task["status"] for name, task in end["tasks"].items()}
    assert statuses == {"site": "failed", "db": "done"}
    assert db.sha256() == backup.sha256["db"]
    behave(site)
    done = stack.api.done(stack.api.change(end, "retry"))
    assert done["tasks"]["db"] == end["tasks"]["db"]
    assert db.imports()["creations"] == 1
    assert backup.is_back()


def test_a_backup_whose_object_is_gone_fails_and_says_so(stack: Stack) -> None:
    backup = back_up(stack, stack.site("site", 1000))
    stack.bucket.remove(backup.job["tasks"]["site"]["object"])
    end = stack.api.finish(stack.api.restore(backup.job))
    assert (end["status"], end["reason"]["code"]) == ("failed", "retries_exhausted")
    assert "S3" in end["reason"]["message"]
    assert backup.site.imports()["bytesReceived"] == 0
