"""The bucket alone makes the records again: each field that a manifest keeps, once, and nothing that is not whole."""

import tracemalloc
from collections import Counter
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from sitebackup.catalog.rebuild_catalog import Rebuilt
from sitebackup.domain.catalog import DifferenceCode, areas
from sitebackup.domain.change import Moment
from sitebackup.domain.errors import Permanent, RepositoryUnavailable, Transient
from sitebackup.domain.job import DeleteCause, FoundVersion, Job, Status, StoredObject
from sitebackup.domain.lifecycle import mark_deleted
from sitebackup.domain.lock import LegalHold, Lock, LockMode
from sitebackup.domain.manifest import Manifest, manifest_of, read_manifest
from sitebackup.domain.principal import OWN_WORK
from sitebackup.domain.quota import Limits
from sitebackup.domain.reason import Code
from sitebackup.domain.retention import first_look
from sitebackup.domain.schedule import Schedule
from sitebackup.domain.task_ref import RestoreRef
from sitebackup.entrypoints.views import job_view
from sitebackup.ports.storage import MAX_LISTED, ListingPlace, VersionPage
from tests.builders import NOW, an_id
from tests.fakes.storage import MemoryStorage
from tests.unit.catalogue import POLICY, Catalogue

NOT_KEPT = {"version", "updatedAt"}
"""Of what the API shows of a done job. docs/operations.md names them."""
ASKED: dict[str, Any] = {
    "attempt": 3,
    "max_bytes": 10**6,
    "expires_after_days": 30,
    "idempotency_key": "user:key",
    "request_digest": "d" * 64,
    "safety_for": RestoreRef(restore_id="e" * 24, attempt=2),
}


@pytest.fixture
def catalogue() -> Catalogue:
    return Catalogue()


def a_schedule(**changes: Any) -> Schedule:
    fields: dict[str, Any] = {
        "site_id": an_id(), "user_id": an_id(), "cron": "daily", "expires_after_days": 60, "version": 7,
        "created_at": NOW, "updated_at": NOW, "next_tick": NOW, "next_run_at": NOW + timedelta(minutes=9),
        "last_tick": NOW - timedelta(days=1), "last_job_id": an_id(), "last_error": "Skipped: it was busy",
    }  # fmt: skip
    return Schedule(**fields | changes)


def total(passes: list[Rebuilt]) -> tuple[int, int, int, int]:
    """Jobs and schedules: made, present, made, present."""
    counts = [(one.jobs, one.jobs_present, one.schedules, one.schedules_present) for one in passes]
    a, b, c, d = (sum(column) for column in zip(*counts, strict=True))
    return a, b, c, d


def shown(job: Job) -> dict[str, Any]:
    """What the API shows of it and a manifest keeps."""
    return {name: value for name, value in job_view(job, NOW).to_document().items() if name not in NOT_KEPT}


def test_a_rebuilt_job_is_the_one_that_was_lost(catalogue: Catalogue) -> None:
    lost = [catalogue.a_backup(), catalogue.a_backup(**ASKED)]
    catalogue.lose_database()
    assert total(catalogue.rebuild()) == (2, 0, 0, 0)
    made = catalogue.jobs.all()
    assert made == [job.replace(version=1, deadline_at=NOW) for job in lost]
    assert [shown(job) for job in made] == [shown(job) for job in lost]
    assert job_view(made[0], NOW).to_document().keys() > NOT_KEPT


def test_a_rebuilt_job_is_looked_at_when_it_expires_and_when_it_is_to_be_cleaned(
    catalogue: Catalogue,
) -> None:
    job = catalogue.sealed(expires_after_days=30)
    job = job.replace(tasks={name: task.replace(runs=2) for name, task in job.tasks.items()})
    catalogue.storage.put_once(job.manifest_key, manifest_of(job))
    catalogue.lose_database()
    catalogue.rebuild()
    (made,) = catalogue.jobs.all()
    assert (
        made.clean_up_at == first_look(made, POLICY) == NOW + timedelta(seconds=POLICY.upload_grace_seconds)
    )


def test_what_is_rebuilt_twice_is_the_same(catalogue: Catalogue) -> None:
    for _ in range(3):
        catalogue.a_backup()
    catalogue.schedules.add(a_schedule())
    catalogue.save()
    catalogue.lose_database()
    catalogue.rebuild()
    first, schedules = catalogue.jobs.all(), catalogue.schedules.page_for(OWN_WORK, None, 9, None)
    assert total(catalogue.rebuild()) == (0, 3, 0, 1)
    assert (catalogue.jobs.all(), catalogue.schedules.page_for(OWN_WORK, None, 9, None)) == (first, schedules)


@pytest.mark.parametrize("status", list(Status))
def test_a_record_that_is_there_is_never_changed_in_whatever_state_it_is(
    catalogue: Catalogue, status: Status
) -> None:
    job = catalogue.a_backup()
    marked = mark_deleted(job, Moment(NOW, POLICY), NOW, DeleteCause.REQUESTED)
    assert marked is not None
    live = marked.job.replace(status=status, version=9, pins={"me": NOW})
    catalogue.jobs.put(live)
    assert total(catalogue.rebuild()) == (0, 1, 0, 0)
    assert catalogue.jobs.all() == [live]


def test_a_job_whose_manifest_or_object_is_gone_is_not_made(catalogue: Catalogue) -> None:
    whole, no_manifest, no_object, other_size = (catalogue.a_backup() for _ in range(4))
    unfinished = catalogue.sealed()
    del catalogue.storage.versions[no_manifest.manifest_key]
    for job, data in ((no_object, None), (other_size, b"other")):
        stored = job.tasks["db"].object
        assert stored is not None
        versions = catalogue.storage.versions[stored.key]
        data_there = versions.pop(stored.version_id or "")
        if data:
            versions[stored.version_id or ""] = data
        assert data_there != data
    catalogue.lose_database()
    passes = catalogue.rebuild()
    assert [job.id for job in catalogue.jobs.all()] == [whole.id]
    left_out = {one.job_id: (one.code, one.key) for each in passes for one in each.left_out}
    missing = DifferenceCode.OBJECT_MISSING
    assert left_out == {job.id: (missing, job.key("db")) for job in (no_object, other_size)}
    assert unfinished.id not in left_out


def test_the_oldest_version_of_a_manifest_counts(catalogue: Catalogue) -> None:
    job = catalogue.a_backup()
    later = read_manifest(manifest_of(job)).replace(attempt=9)
    catalogue.storage.add_version(job.manifest_key, msgspec.json.encode(later))
    catalogue.lose_database()
    catalogue.rebuild()
    assert [made.attempt for made in catalogue.jobs.all()] == [job.attempt]


def test_a_manifest_that_is_not_to_be_believed_is_left_out_and_named(catalogue: Catalogue) -> None:
    """None may bring another's data into a user's list (I22)."""
    jobs = [catalogue.a_backup() for _ in range(6)]
    victim = Manifest.of(jobs[0])
    forged = {
        jobs[1].id: b"{",
        jobs[2].id: b"\xff",
        jobs[3].id: msgspec.json.encode(victim),
        jobs[4].id: msgspec.json.encode(Manifest.of(jobs[4]).replace(tasks=victim.tasks)),
        jobs[5].id: msgspec.json.encode(Manifest.of(jobs[5]).replace(user_id=victim.user_id)),
    }
    for job in jobs[1:]:
        catalogue.storage.versions[job.manifest_key].clear()
        catalogue.storage.add_version(job.manifest_key, forged[job.id])
    catalogue.lose_database()
    left_out = [one for each in catalogue.rebuild() for one in each.left_out]
    assert {one.job_id: one.code for one in left_out} == {
        jobs[1].id: DifferenceCode.MANIFEST_UNREADABLE,
        jobs[2].id: DifferenceCode.MANIFEST_UNREADABLE,
        jobs[3].id: DifferenceCode.MANIFEST_DIFFERS,
        jobs[4].id: DifferenceCode.MANIFEST_DIFFERS,
        jobs[5].id: DifferenceCode.MANIFEST_DIFFERS,
    }
    assert [job.id for job in catalogue.jobs.all()] == [jobs[0].id]


def test_a_key_that_was_used_anew_meanwhile_stays_with_the_new_job(catalogue: Catalogue) -> None:
    lost = catalogue.a_backup(**ASKED)
    catalogue.lose_database()
    newer = catalogue.a_backup(idempotency_key=ASKED["idempotency_key"])
    assert total(catalogue.rebuild()) == (1, 1, 0, 0)
    made = catalogue.jobs.get(lost.id)
    assert made is not None
    assert made.idempotency_key is None
    assert shown(made) == shown(lost)
    assert catalogue.jobs.get(newer.id) == newer
    assert catalogue.check() == []


def test_schedules_come_back_as_they_were_saved_last_before_the_loss(catalogue: Catalogue) -> None:
    kept, changed, deleted = a_schedule(), a_schedule(), a_schedule(paused=True)
    for schedule in (kept, changed, deleted):
        catalogue.schedules.add(schedule)
    assert catalogue.save() == 3
    assert catalogue.save() == 0, "once a day"
    catalogue.clock.advance(timedelta(days=1))
    catalogue.schedules.replace(changed, changed.replace(cron="weekly"))
    catalogue.schedules.delete_for(OWN_WORK, deleted.user_id, deleted.site_id)
    assert catalogue.save() == 2
    catalogue.clock.advance(timedelta(hours=1))
    lost_at = catalogue.clock.now
    catalogue.lose_database()
    catalogue.clock.advance(timedelta(days=1))
    new = a_schedule()
    catalogue.schedules.add(new)
    assert catalogue.save() == 1, "of a database that is not rebuilt yet"
    assert total(catalogue.rebuild(before=lost_at)) == (0, 0, 2, 0)
    weekly = changed.replace(cron="weekly", version=8)
    assert catalogue.schedules.page_for(OWN_WORK, None, 9, None) == sorted(
        [kept, weekly, new], key=lambda one: one.id
    )


def test_a_copy_that_was_not_whole_when_the_database_was_lost_does_not_count(catalogue: Catalogue) -> None:
    schedule = a_schedule()
    catalogue.schedules.add(schedule)
    catalogue.save()
    catalogue.clock.advance(timedelta(days=1))
    lost_at = catalogue.clock.now + timedelta(minutes=1)
    catalogue.lose_database()
    catalogue.clock.advance(timedelta(minutes=2))
    assert catalogue.save() == 0
    assert total(catalogue.rebuild(before=lost_at)) == (0, 0, 1, 0)
    assert catalogue.schedules.page_for(OWN_WORK, None, 9, None) == [schedule]


def test_the_limits_of_users_come_back_as_they_were_saved_and_none_that_were_set_since_are_changed(
    catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sitebackup.catalog.save_settings.PAGE", 2)
    limits = {f"{number:024x}": Limits(active_jobs=number, stored_bytes="unlimited") for number in range(5)}
    for user_id, one in limits.items():
        catalogue.quotas.set_limits(user_id, one)
    assert catalogue.save() == 5
    catalogue.lose_database()
    since = Limits(schedules=7)
    catalogue.quotas.set_limits(f"{3:024x}", since)
    passes = catalogue.rebuild()
    assert sum(one.limits for one in passes) == 4
    assert sum(one.limits_present for one in passes) == 1
    assert catalogue.quotas.exceptions == limits | {f"{3:024x}": since}


def test_a_page_of_limits_that_can_not_be_read_is_named(catalogue: Catalogue) -> None:
    catalogue.quotas.set_limits("a" * 24, Limits(schedules=7))
    catalogue.save()
    (page,) = (key for key in catalogue.storage.versions if key.startswith("catalog/limits/"))
    catalogue.storage.versions[page].clear()
    catalogue.storage.add_version(page, b'{"schema": 2}')
    catalogue.lose_database()
    assert [key for each in catalogue.rebuild() for key in each.pages_left_out] == [page]


def test_a_schedule_comes_back_without_its_slot_which_may_be_anothers_by_now(catalogue: Catalogue) -> None:
    schedule, new = a_schedule().replace(slot="one"), a_schedule().replace(slot="one")
    catalogue.schedules.add(schedule)
    catalogue.save()
    catalogue.lose_database()
    catalogue.schedules.add(new)
    assert total(catalogue.rebuild()) == (0, 0, 1, 0)
    assert {one.slot for one in catalogue.schedules.all()} == {None, "one"}


def test_without_saved_schedules_the_jobs_come_back_all_the_same(catalogue: Catalogue) -> None:
    catalogue.a_backup()
    catalogue.lose_database()
    assert total(catalogue.rebuild()) == (1, 0, 0, 0)


def test_a_page_of_schedules_that_can_not_be_read_is_named_and_the_others_come_back(
    catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sitebackup.catalog.save_settings.PAGE", 2)
    schedules = sorted((a_schedule() for _ in range(11)), key=lambda one: one.id)
    for schedule in schedules:
        catalogue.schedules.add(schedule)
    assert catalogue.save() == 11
    pages = sorted(key for key in catalogue.storage.versions if key.startswith("catalog/schedules/"))
    assert len(pages) == 6
    catalogue.storage.versions[pages[1]].clear()
    catalogue.storage.add_version(pages[1], b"[]")
    catalogue.lose_database()
    passes = catalogue.rebuild()
    assert [key for each in passes for key in each.pages_left_out] == [pages[1]]
    assert catalogue.schedules.page_for(OWN_WORK, None, 20, None) == schedules[:2] + schedules[4:]


def test_a_pass_that_saves_the_schedules_goes_on_where_the_last_one_ended(
    catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sitebackup.catalog.save_settings.PAGE", 2)
    schedules = sorted((a_schedule() for _ in range(5)), key=lambda one: one.id)
    for schedule in schedules:
        catalogue.schedules.add(schedule)
    put_once, left = catalogue.storage.put_once, 1

    def once(key: str, data: bytes, *more: Any) -> None:
        nonlocal left
        if not left:
            raise Transient("S3 does not answer.")
        left -= 1
        put_once(key, data, *more)

    catalogue.storage.put_once = once  # type: ignore[method-assign, assignment]
    with pytest.raises(Transient):
        catalogue.save()
    catalogue.storage.put_once = put_once  # type: ignore[method-assign]
    assert catalogue.save() == 3
    catalogue.lose_database()
    catalogue.rebuild()
    assert catalogue.schedules.page_for(OWN_WORK, None, 9, None) == schedules


def test_a_pass_ends_in_time_and_the_next_goes_on(catalogue: Catalogue) -> None:
    lost = [catalogue.a_backup() for _ in range(MAX_LISTED)]
    catalogue.schedules.add(a_schedule())
    catalogue.save()
    catalogue.lose_database()
    list_versions = catalogue.storage.list_versions

    def slow(*arguments: Any, **named: Any) -> VersionPage:
        catalogue.clock.advance(timedelta(minutes=2))
        return list_versions(*arguments, **named)

    catalogue.storage.list_versions = slow  # type: ignore[method-assign]
    passes = catalogue.rebuild()
    assert len(passes) > 3
    assert total(passes) == (len(lost), 0, 1, 0)
    assert {job.id for job in catalogue.jobs.all()} == {job.id for job in lost}


@pytest.mark.parametrize("killed_at", [1, 2, 3, 5, 8, 13, 21])
def test_a_rebuild_that_was_killed_is_the_same_once_it_was_begun_again(killed_at: int) -> None:
    class Killed(BaseException):
        pass

    calls = 0

    def kill(port: str, name: str, call: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == killed_at:
            raise Killed
        return call()

    catalogue = Catalogue(storage=MemoryStorage())
    lost = [catalogue.a_backup() for _ in range(6)]
    schedules = [a_schedule() for _ in range(3)]
    for schedule in schedules:
        catalogue.schedules.add(schedule)
    catalogue.save()
    catalogue.lose_database()
    catalogue.jobs._faults = catalogue.storage._faults = catalogue.schedules._faults = kill
    with pytest.raises(Killed):
        catalogue.rebuild()
    catalogue.rebuild()
    assert [shown(job) for job in catalogue.jobs.all()] == [shown(job) for job in lost]
    assert catalogue.schedules.page_for(OWN_WORK, None, 9, None) == sorted(schedules, key=lambda one: one.id)


def test_what_does_not_answer_ends_a_pass_which_is_gone_on_with(catalogue: Catalogue) -> None:
    lost = [catalogue.a_backup() for _ in range(MAX_LISTED)]
    catalogue.lose_database()
    calls = 0

    def faults(port: str, name: str, call: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == len(lost):
            raise RepositoryUnavailable("MongoDB does not answer.")
        return call()

    catalogue.jobs._faults = faults
    first, *rest = catalogue.rebuild()
    assert first.marker is not None
    assert 0 < first.jobs < len(lost)
    assert sum(one.jobs + one.jobs_present for one in rest) >= len(lost) - first.jobs
    assert {job.id for job in catalogue.jobs.all()} == {job.id for job in lost}


def test_what_does_not_answer_at_all_is_told(catalogue: Catalogue) -> None:
    catalogue.a_backup()

    def faults(port: str, name: str, call: Any) -> Any:
        raise Transient("S3 does not answer.")

    catalogue.storage._faults = faults
    with pytest.raises(Transient):
        catalogue.rebuild()


def test_other_things_in_the_bucket_are_passed_over(catalogue: Catalogue) -> None:
    lost = [catalogue.a_backup(user_id=user * 24) for user in ("0", "c", "d", "f")]
    for number in range(9 * MAX_LISTED):
        catalogue.storage.add_version(f"catalog/more/{number:05}.json", b"{}")
    for key in (
        "0",
        "zebra",
        "audit/1",
        f"{'c' * 24}/readme.txt",
        f"{'c' * 24}/{'c' * 24}/x/y.zip",
        "d" * 24,
    ):
        catalogue.storage.add_version(key, b"?")
    catalogue.lose_database()
    calls = Counter[str]()

    def counted(port: str, name: str, call: Any) -> Any:
        calls[name] += 1
        return call()

    catalogue.storage._faults = counted
    passes = catalogue.rebuild()
    assert total(passes) == (4, 0, 0, 0)
    assert calls["list_versions"] <= 5, "other folders are passed over as a whole"
    assert [one.left_out for one in passes] == [[]] * len(passes)
    assert {job.id for job in catalogue.jobs.all()} == {job.id for job in lost}


def test_a_listing_is_gone_on_with_behind_what_was_seen_and_no_folder_of_a_job_is_passed_over() -> None:
    user, site, job = "c" * 24, "d" * 24, "e" * 24
    keys = {
        "catalog/saved/1.json": "catalog0",
        f"{user}/!readme": f"{user}/!readme!",
        f"{user}/{site}/{job}/db.zip": f"{user}/{site}/{job}0",
        f"{user}/{site}/{job}/x/y": f"{user}/{site}/{job}0",
        f"{user}/{site}/notes/1": f"{user}/{site}/notes/1!",
        "zebra": "zebra!",
    }
    found = [FoundVersion(key, "1", 1, False, True, NOW) for key in keys]
    seen = areas(found)
    assert [area.end for area in seen] == list(dict.fromkeys(keys.values()))
    assert [area.folder.prefix for area in seen if area.folder] == [f"{user}/{site}/{job}/"]
    assert all(key < end for key, end in keys.items())


def test_with_a_prefix_the_jobs_of_its_users_come_back_and_nothing_else(catalogue: Catalogue) -> None:
    lost = {user: catalogue.a_backup(user_id=user + "0" * 22) for user in ("5f", "60", "61", "70")}
    catalogue.schedules.add(a_schedule())
    catalogue.save()
    catalogue.lose_database()
    assert total(catalogue.rebuild(prefix="6")) == (2, 0, 0, 0)
    assert {job.id for job in catalogue.jobs.all()} == {lost["60"].id, lost["61"].id}
    assert total(catalogue.rebuild(prefix="70")) == (1, 0, 0, 0)
    assert total(catalogue.rebuild()) == (1, 3, 1, 0)


def test_a_folder_of_too_many_versions_is_named_and_those_behind_it_come_back(catalogue: Catalogue) -> None:
    first, crowded, last = (catalogue.a_backup(user_id=user * 24) for user in "abc")
    for _ in range(3 * MAX_LISTED):
        catalogue.storage.add_version(crowded.key("db"), b"")
    catalogue.lose_database()
    left_out = [one for each in catalogue.rebuild() for one in each.left_out]
    assert [(one.code, one.job_id) for one in left_out] == [(DifferenceCode.TOO_MANY_VERSIONS, crowded.id)]
    assert {job.id for job in catalogue.jobs.all()} == {first.id, last.id}


class EndlessStorage(MemoryStorage):
    """Lists 20,000 folders of done jobs, which it makes as they are asked for."""

    def list_versions(
        self, prefix: str, after: ListingPlace | None = None, limit: int = MAX_LISTED
    ) -> VersionPage:
        number = 0 if after is None else int(after.key.split("/")[2][:24], 16) + 1
        if prefix or number >= 20_000:
            return VersionPage([], None)
        last = min(number + limit // 2, 20_000)
        versions = [
            FoundVersion(f"{'a' * 24}/{'b' * 24}/{n:024x}/{name}", f"{n}", 9, False, True, NOW)
            for n in range(number, last)
            for name in ("db.zip", "manifest.json")
        ]
        end = f"{'a' * 24}/{'b' * 24}/{last - 1:024x}/0"
        return VersionPage(versions, ListingPlace(end) if last < 20_000 else None)


def test_a_rebuild_holds_no_more_of_a_large_bucket_than_of_a_small_one() -> None:
    catalogue = Catalogue(storage=EndlessStorage())
    catalogue.jobs.version_for = lambda access, document_id: 1  # type: ignore[method-assign]
    tracemalloc.start()
    try:
        assert total(catalogue.rebuild())[1] == 20_000
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * 2**20


def test_a_manifest_that_s3_refuses_for_good_stops_no_other_and_is_named(catalogue: Catalogue) -> None:
    refused, other = catalogue.a_backup(), catalogue.a_backup()
    catalogue.lose_database()
    read = catalogue.storage.read

    def refuse(stored: StoredObject, start: int, length: int) -> bytes:
        if stored.key == refused.manifest_key:
            raise Permanent(Code.STORAGE_REFUSED, "S3 answered AccessDenied.")
        return read(stored, start, length)

    catalogue.storage.read = refuse  # type: ignore[method-assign]
    passes = catalogue.rebuild()
    assert [job.id for job in catalogue.jobs.all()] == [other.id]
    (left_out,) = [difference for one in passes for difference in one.left_out]
    assert (left_out.code, left_out.detail) == (
        DifferenceCode.MANIFEST_UNREADABLE,
        "S3 answered AccessDenied.",
    )


def test_a_rebuilt_job_is_on_the_legal_hold_that_s3_knows_of(catalogue: Catalogue) -> None:
    held, other = catalogue.a_backup(), catalogue.a_backup()
    catalogue.storage.set_legal_hold(
        held.manifest_key, next(iter(catalogue.storage.versions[held.manifest_key])), True
    )
    catalogue.lose_database()
    catalogue.rebuild()
    holds = {job.id: job.legal_hold for job in catalogue.jobs.all()}
    assert holds == {held.id: LegalHold(on=True, settled=True), other.id: None}


@pytest.mark.parametrize("locked_for", [None, timedelta(days=9), timedelta(days=10), timedelta(days=11)])
def test_a_rebuilt_job_is_locked_only_if_s3_has_locked_it_as_its_manifest_says(
    catalogue: Catalogue, locked_for: timedelta | None
) -> None:
    """A crash before the manifest was locked, which comes last, left a manifest that promises too much."""
    lock = Lock(mode=LockMode.COMPLIANCE, until=NOW + timedelta(days=10))
    job = catalogue.a_backup(lock=lock)
    (version,) = catalogue.storage.versions[job.manifest_key]
    if locked_for is not None:
        catalogue.storage.lock(job.manifest_key, version, lock.replace(until=NOW + locked_for))
    is_locked = locked_for is not None and locked_for >= timedelta(days=10)
    catalogue.lose_database()
    catalogue.rebuild()
    (made,) = catalogue.jobs.all()
    assert made.lock == (lock if is_locked else None)
    named = [] if is_locked else [(DifferenceCode.MANIFEST_DIFFERS, "The record has other lock.")]
    assert [(one.code, one.detail) for one in catalogue.check()] == named


def test_a_lock_that_is_over_is_told_as_it_was(catalogue: Catalogue) -> None:
    lock = Lock(mode=LockMode.COMPLIANCE, until=NOW + timedelta(days=10))
    catalogue.a_backup(lock=lock)
    catalogue.lose_database()
    catalogue.clock.advance(timedelta(days=10))
    catalogue.rebuild()
    assert [made.lock for made in catalogue.jobs.all()] == [lock]
    assert catalogue.check() == []
