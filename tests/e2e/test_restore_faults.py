"""Every fault of an import API: what may pass ends in `done`, what will not in `failed` with a reason."""

from collections.abc import Iterator, Mapping
from typing import Any

from tests.e2e.backups import Backup, back_up, back_up_each, behave
from tests.e2e.client import Json
from tests.e2e.stack import MIB, SLICE, Stack

SMALL, LARGE = 2 * MIB, SLICE + MIB
"""Of one slice, of two."""
ONCE, TWICE = {"times": 1}, {"times": 2}

PASSING: dict[str, tuple[int, dict[str, Any]]] = {
    "503 to a new upload": (SMALL, {"refuse": {"POST": {"code": 503, **TWICE}}}),
    "503 with Retry-After": (SMALL, {"refuse": {"PATCH": {"code": 503, "retryAfter": 1, **TWICE}}}),
    "503 beyond the retries in place": (
        SMALL,
        {"refuse": {"PATCH": {"code": 503, "retryAfter": 1, "times": 4}}},
    ),
    "a slice refused before it is read": (SMALL, {"refuse": {"PATCH": {"code": 503, "close": True, **ONCE}}}),
    "409": (SMALL, {"refuse": {"PATCH": {"code": 409, **ONCE}}}),
    "423": (SMALL, {"refuse": {"PATCH": {"code": 423, **TWICE}}}),
    "460": (LARGE, {"refuse": {"PATCH": {"code": 460, "from": SLICE, **ONCE}}}),
    "cut off": (SMALL, {"cutAt": {"bytes": MIB, **ONCE}}),
    "a pause": (SMALL, {"hang": {"afterBytes": MIB, "seconds": 6, **ONCE}}),
    "the answer to a new upload is lost": (SMALL, {"loseAnswer": {"POST": ONCE}}),
    "the answer to a slice is lost": (LARGE, {"loseAnswer": {"PATCH": ONCE}}),
    "a late answer": (SMALL, {"slowAnswer": {"PATCH": {"seconds": 6, **ONCE}}}),
    "an upload is forgotten before its first byte": (SMALL, {"forget": ONCE}),
    "an upload is forgotten before its last byte": (LARGE, {"forget": {"from": SLICE, **ONCE}}),
    "bytes are lost": (LARGE, {"loseBytes": {"from": SLICE, "bytes": MIB, **ONCE}}),
    "no checksums": (SMALL, {"extensions": ["creation"]}),
    "a relative Location": (SMALL, {"relativeLocation": True}),
    "a long import": (SMALL, {"importSeconds": 6}),
}
ANEW = (
    "the answer to a new upload is lost",
    "an upload is forgotten before its first byte",
    "an upload is forgotten before its last byte",
    "bytes are lost",
)
"""These need another upload."""

FINAL: dict[str, tuple[str, int, dict[str, Any]]] = {
    "401": ("import_forbidden", SMALL, {"refuse": {"POST": {"code": 401}}}),
    "403": ("import_forbidden", SMALL, {"refuse": {"POST": {"code": 403}}}),
    "403 to a slice": ("import_forbidden", LARGE, {"refuse": {"PATCH": {"code": 403, "from": SLICE}}}),
    "404 to a new upload": ("import_not_found", SMALL, {"refuse": {"POST": {"code": 404}}}),
    "400": ("import_refused", SMALL, {"refuse": {"POST": {"code": 400}}}),
    "415 to a slice": ("import_refused", SMALL, {"refuse": {"PATCH": {"code": 415}}}),
    "too large": ("import_too_large", SMALL, {"maxSize": SMALL - 1}),
    "an offset above what was sent": ("import_invalid", LARGE, {"wrongOffset": {"PATCH": {"by": 1}}}),
    "a Location at another host": (
        "import_invalid",
        SMALL,
        {"wrongLocation": {"location": "http://example.org/1"}},
    ),
    "the import fails": ("import_failed", SMALL, {"importFails": {"message": "the disk is full"}}),
    "every upload is forgotten": ("retries_exhausted", SMALL, {"forget": {}}),
    "503": ("retries_exhausted", LARGE, {"refuse": {"PATCH": {"code": 503, "retryAfter": 1}}}),
    "503 to the last byte": (
        "import_unknown",
        SMALL,
        {"refuse": {"PATCH": {"code": 503, "retryAfter": 1}}},
    ),
}


def _reasons(restore: Json) -> tuple[str, str | None, str | None]:
    (task,) = restore["tasks"].values()
    return restore["status"], restore.get("reason", {}).get("code"), task.get("reason", {}).get("code")


def _restores(
    stack: Stack, faults: Mapping[str, tuple[int, dict[str, Any]]]
) -> Iterator[tuple[str, Backup, Json]]:
    """By fault, of a provider that tells what became of an import: each at a site of its own, all begun."""
    backups = back_up_each(stack, [[stack.site("db", size)] for size, _ in faults.values()])
    for name, backup in zip(faults, backups, strict=True):
        behave(backup.site, **faults[name][1])
    restores = [stack.api.restore(backup.job) for backup in backups]
    return zip(faults, backups, map(stack.api.finish, restores), strict=True)


def test_a_fault_that_passes_ends_in_done_with_the_right_bytes(stack: Stack) -> None:
    ended = list(_restores(stack, PASSING))
    assert {name: _reasons(end) for name, _, end in ended} == dict.fromkeys(PASSING, ("done", None, None))
    for name, backup, _ in ended:
        assert backup.is_back(), name
        assert backup.site.imports()["creations"] == (2 if name in ANEW else 1), name
        assert backup.bytes_received() <= (2 if name in ANEW else 1.1), name
    waited = {name: end["tasks"]["db"] for name, _, end in ended}["503 beyond the retries in place"]
    assert waited["retries"] >= 1
    assert "503" in waited["lastError"]["message"]


def test_a_fault_that_stays_ends_in_failed_with_a_reason_and_a_retry_may_mend_it(stack: Stack) -> None:
    ended = list(_restores(stack, {name: (size, fault) for name, (_, size, fault) in FINAL.items()}))
    expected = {name: ("failed", code, code) for name, (code, _, _) in FINAL.items()}
    assert {name: _reasons(end) for name, _, end in ended} == expected
    messages = {name: end["reason"]["message"] for name, _, end in ended}
    assert all(messages.values())
    for name, said in {
        "the import fails": "the disk is full",
        "503": "503",
        "503 to the last byte": "503",
    }.items():
        assert said in messages[name]
    again = []
    for name, backup, end in ended:
        assert backup.site.imports()["imported"] == 0, name
        behave(backup.site)
        again.append((name, backup, stack.api.change(end, "retry")))
    for name, backup, restore in again:
        stack.api.done(restore)
        assert backup.is_back(), name
        if name == "403 to a slice":
            assert backup.site.imports()["creations"] == 1, "the upload was not gone on with"


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
