"""The check names each thing on which records and bucket do not agree, and nothing where they do."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from sitebackup.catalog.check_catalog import MAX_DIFFERENCES
from sitebackup.domain.catalog import DifferenceCode, Folder, folder_differences
from sitebackup.domain.job import DeleteCause, FoundVersion, Job, Status, StoredObject
from sitebackup.domain.manifest import manifest_of, read_manifest
from tests.builders import NOW, a_job
from tests.unit.catalogue import Catalogue

HEALTHY = 1000
Code = DifferenceCode


@pytest.fixture
def catalogue() -> Catalogue:
    return Catalogue()


def replace(catalogue: Catalogue, job: Job, **changes: Any) -> None:
    """The record of the job says otherwise."""
    catalogue.jobs.put(job.replace(**changes))


def stored(job: Job, name: str = "db") -> StoredObject:
    found = job.tasks[name].object
    assert found is not None
    return found


def leave(catalogue: Catalogue, job: Job) -> None:
    """A version that no record names."""
    catalogue.storage.add_version(job.key("db"), b"left behind")


def found(catalogue: Catalogue) -> set[tuple[str, str, str]]:
    """(code, job, key), each named once."""
    differences = [(one.code, one.job_id, one.key) for one in catalogue.check()]
    assert len(set(differences)) == len(differences)
    return set(differences)


def of_every_state(catalogue: Catalogue, number: int) -> None:
    """A backup as it may be in a healthy store; there is one of each kind among any fourteen."""
    match number % 14:
        case 0:
            leave(catalogue, catalogue.sealed())
        case 1:
            job = a_job()
            leave(catalogue, job)
            catalogue.jobs.put(job)
        case 2 | 3 as kind:
            status = (Status.FAILED, Status.CANCELLED)[kind - 2]
            job = a_job(status=status, finished_at=NOW)
            leave(catalogue, job)
            catalogue.jobs.put(job)
        case 4:
            job = catalogue.a_backup()
            tasks = {name: task.replace(runs=2) for name, task in job.tasks.items()}
            catalogue.storage.versions[job.manifest_key].clear()
            catalogue.storage.add_version(job.manifest_key, manifest_of(job.replace(tasks=tasks)))
            leave(catalogue, job)
            replace(catalogue, job, tasks=tasks)
        case 5:
            job = catalogue.a_backup()
            del catalogue.storage.versions[job.manifest_key]
            replace(catalogue, job, delete_at=NOW, delete_cause=DeleteCause.EXPIRED, removing_at=NOW)
        case 6:
            job = catalogue.a_backup()
            for key in (job.manifest_key, job.key("db"), job.key("site")):
                del catalogue.storage.versions[key]
            replace(catalogue, job, status=Status.DELETED, deleted_at=NOW)
        case 7:
            job = catalogue.a_backup(expires_after_days=9)
            replace(catalogue, job, expires_after_days=None, pins={"me": NOW}, version=9)
        case 8:
            job = catalogue.a_backup()
            replace(catalogue, job, delete_at=NOW, delete_cause=DeleteCause.REQUESTED)
        case 9:
            catalogue.jobs.put(a_job(status=Status.CANCELLED, finished_at=NOW, cleaned_at=NOW))
        case _:
            catalogue.a_backup()


def test_nothing_differs_in_a_healthy_store_of_a_thousand_jobs_in_every_state(catalogue: Catalogue) -> None:
    for number in range(HEALTHY):
        of_every_state(catalogue, number)
    for key in ("catalog/saved/1.json", "settings/providers.json", "zebra"):
        catalogue.storage.add_version(key, b"{}")
    assert catalogue.check() == []
    catalogue.clock.advance(timedelta(days=1))
    catalogue.lose_database()
    catalogue.rebuild()
    left = {one.code for one in catalogue.check()}
    assert left == {Code.OBJECT_UNRECORDED}, "of jobs that were not done"


type Planted = tuple[str, str]
"""The job and the key that differ."""


def record_is_lost(catalogue: Catalogue, job: Job) -> Planted:
    del catalogue.jobs.documents[job.id]
    return job.id, job.manifest_key


def record_can_not_be_read(catalogue: Catalogue, job: Job) -> Planted:
    catalogue.jobs.documents[job.id]["attempt"] = "first"
    return job.id, job.manifest_key


def object_has_no_record(catalogue: Catalogue, job: Job) -> Planted:
    leave(catalogue, job)
    return job.id, job.key("db")


def object_lies_where_no_job_ever_was(catalogue: Catalogue, job: Job) -> Planted:
    other = a_job()
    leave(catalogue, other)
    return other.id, other.key("db")


def object_has_survived_its_removal(catalogue: Catalogue, job: Job) -> Planted:
    del catalogue.storage.versions[job.manifest_key], catalogue.storage.versions[job.key("site")]
    replace(catalogue, job, status=Status.DELETED, delete_at=NOW, removing_at=NOW, deleted_at=NOW)
    return job.id, job.key("db")


def object_has_survived_the_clean_up_of_a_failed_job(catalogue: Catalogue, job: Job) -> Planted:
    other = a_job(status=Status.FAILED, finished_at=NOW, cleaning_at=NOW, cleaned_at=NOW)
    leave(catalogue, other)
    catalogue.jobs.put(other)
    return other.id, other.key("db")


def object_has_survived_the_clean_up_of_a_done_job(catalogue: Catalogue, job: Job) -> Planted:
    tasks = {name: task.replace(runs=2) for name, task in job.tasks.items()}
    catalogue.storage.versions[job.manifest_key].clear()
    catalogue.storage.add_version(job.manifest_key, manifest_of(job.replace(tasks=tasks)))
    replace(catalogue, job, tasks=tasks, cleaned_at=NOW)
    leave(catalogue, job)
    return job.id, job.key("db")


def object_is_gone(catalogue: Catalogue, job: Job) -> Planted:
    del catalogue.storage.versions[job.key("db")]
    return job.id, job.key("db")


def object_has_another_size(catalogue: Catalogue, job: Job) -> Planted:
    one = stored(job)
    catalogue.storage.versions[one.key][one.version_id or ""] += b"!"
    return job.id, one.key


def object_has_another_checksum(catalogue: Catalogue, job: Job) -> Planted:
    """Somebody has flipped a bit behind S3's back."""
    one = stored(job)
    versions = catalogue.storage.versions[one.key]
    versions[one.version_id or ""] = b"?" + versions[one.version_id or ""][1:]
    return job.id, one.key


def manifest_is_gone(catalogue: Catalogue, job: Job) -> Planted:
    del catalogue.storage.versions[job.manifest_key]
    return job.id, job.manifest_key


def manifest_was_replaced(catalogue: Catalogue, job: Job) -> Planted:
    catalogue.storage.add_version(job.manifest_key, manifest_of(job.replace(attempt=2)))
    return job.id, job.manifest_key


def manifest_was_written_twice(catalogue: Catalogue, job: Job) -> Planted:
    catalogue.storage.add_version(job.manifest_key, manifest_of(job))
    return job.id, job.manifest_key


def manifest_says_otherwise(catalogue: Catalogue, job: Job) -> Planted:
    catalogue.storage.versions[job.manifest_key].clear()
    catalogue.storage.add_version(job.manifest_key, manifest_of(job.replace(attempt=2)))
    return job.id, job.manifest_key


def manifest_can_not_be_read(catalogue: Catalogue, job: Job) -> Planted:
    catalogue.storage.versions[job.manifest_key].clear()
    catalogue.storage.add_version(job.manifest_key, b"")
    return job.id, job.manifest_key


def there_are_too_many_versions(catalogue: Catalogue, job: Job) -> Planted:
    for _ in range(1000):
        leave(catalogue, job)
    return job.id, job.manifest_key.removesuffix("manifest.json")


PLANTED: list[tuple[Callable[[Catalogue, Job], Planted], DifferenceCode]] = [
    (record_is_lost, Code.RECORD_MISSING),
    (object_has_no_record, Code.OBJECT_UNRECORDED),
    (object_lies_where_no_job_ever_was, Code.OBJECT_UNRECORDED),
    (object_has_survived_its_removal, Code.OBJECT_UNRECORDED),
    (object_has_survived_the_clean_up_of_a_failed_job, Code.OBJECT_UNRECORDED),
    (object_has_survived_the_clean_up_of_a_done_job, Code.OBJECT_UNRECORDED),
    (object_is_gone, Code.OBJECT_MISSING),
    (object_has_another_size, Code.SIZE_DIFFERS),
    (object_has_another_checksum, Code.CHECKSUM_DIFFERS),
    (manifest_is_gone, Code.MANIFEST_MISSING),
    (manifest_was_replaced, Code.MANIFEST_REPLACED),
    (manifest_was_written_twice, Code.MANIFEST_REPLACED),
    (manifest_says_otherwise, Code.MANIFEST_DIFFERS),
    (manifest_can_not_be_read, Code.MANIFEST_UNREADABLE),
    (there_are_too_many_versions, Code.TOO_MANY_VERSIONS),
]


@pytest.mark.parametrize(("plant", "code"), PLANTED, ids=lambda each: getattr(each, "__name__", ""))
def test_what_was_planted_is_named_and_nothing_else(
    catalogue: Catalogue, plant: Callable[[Catalogue, Job], Planted], code: DifferenceCode
) -> None:
    for number in range(14):
        of_every_state(catalogue, number)
    planted = plant(catalogue, catalogue.a_backup())
    assert found(catalogue) == {(code, *planted)}


def test_all_that_was_planted_is_named_in_one_check(catalogue: Catalogue) -> None:
    for number in range(100):
        of_every_state(catalogue, number)
    planted = {(code, *plant(catalogue, catalogue.a_backup())) for plant, code in PLANTED}
    assert found(catalogue) == planted


def test_a_record_that_can_not_be_read_is_named(catalogue: Catalogue) -> None:
    """The records that are paged through leave it out, as the adapter does."""
    job = catalogue.a_backup()
    record_can_not_be_read(catalogue, job)
    catalogue.jobs.page = lambda filters, limit, before: []  # type: ignore[method-assign]
    assert found(catalogue) == {(Code.RECORD_UNREADABLE, job.id, job.manifest_key)}


def test_a_delete_marker_is_named_by_what_it_is() -> None:
    job = a_job(status=Status.DONE)
    marker = FoundVersion(job.key("db"), "m1", 0, True, True, NOW)
    manifest = FoundVersion(job.manifest_key, "v1", 9, False, True, NOW)
    folder = Folder(prefix=f"{job.user_id}/{job.site_id}/{job.id}/", versions=[marker, manifest])
    (difference,) = folder_differences(folder, job)
    assert (difference.code, difference.key) == (Code.OBJECT_UNRECORDED, job.key("db"))
    assert difference.detail == "No record names a delete marker, m1."
    hidden = folder.versions[1]._replace(is_marker=True, version_id="m2")
    (replaced,) = folder_differences(Folder(prefix=folder.prefix, versions=[manifest, hidden]), job)
    assert replaced.code is Code.MANIFEST_REPLACED


@pytest.mark.parametrize("differences", [MAX_DIFFERENCES - 1, 7 * MAX_DIFFERENCES])
def test_an_answer_names_a_bounded_number_and_the_next_ones_the_rest(
    catalogue: Catalogue, differences: int
) -> None:
    for _ in range(differences):
        object_is_gone(catalogue, catalogue.a_backup())
    assert len(found(catalogue)) == differences


def test_what_changes_between_both_looks_differs_in_nothing(catalogue: Catalogue) -> None:
    """A job gets done, and another is removed, just after the bucket was listed."""
    sealed, removed = catalogue.sealed(), catalogue.a_backup()
    get = catalogue.jobs.get

    def meanwhile(document_id: str) -> Job | None:
        catalogue.jobs.get = get  # type: ignore[method-assign]
        catalogue.storage.put_once(sealed.manifest_key, manifest_of(sealed))
        replace(catalogue, sealed, status=Status.DONE, finished_at=NOW)
        for key in (removed.manifest_key, removed.key("db"), removed.key("site")):
            del catalogue.storage.versions[key]
        replace(catalogue, removed, status=Status.DELETED, delete_at=NOW, removing_at=NOW, deleted_at=NOW)
        return get(document_id)

    catalogue.jobs.get = meanwhile  # type: ignore[method-assign]
    assert catalogue.check() == []


def test_a_backup_that_is_removed_while_its_objects_are_looked_for_is_not_missed(
    catalogue: Catalogue,
) -> None:
    job = catalogue.a_backup()
    head = catalogue.storage.head

    def meanwhile(key: str, version_id: str | None = None) -> StoredObject | None:
        catalogue.storage.head = head  # type: ignore[method-assign]
        catalogue.storage.versions.clear()
        replace(catalogue, job, delete_at=NOW, delete_cause=DeleteCause.EXPIRED, removing_at=NOW)
        return head(key, version_id)

    catalogue.storage.head = meanwhile  # type: ignore[method-assign]
    assert catalogue.check() == []


def test_with_a_prefix_the_folders_of_its_users_are_compared_and_no_others(catalogue: Catalogue) -> None:
    jobs = {user: catalogue.a_backup(user_id=user + "0" * 22) for user in ("5f", "60", "61")}
    for job in jobs.values():
        manifest_is_gone(catalogue, job)
    object_is_gone(catalogue, jobs["61"])
    named = [(one.code, one.job_id) for one in catalogue.check(prefix="6")]
    assert named == [(Code.MANIFEST_MISSING, jobs[user].id) for user in ("60", "61")]


def test_a_difference_in_the_manifest_names_the_fields(catalogue: Catalogue) -> None:
    job = catalogue.a_backup()
    other = read_manifest(manifest_of(job)).replace(attempt=2, max_bytes=7)
    catalogue.storage.versions[job.manifest_key].clear()
    catalogue.storage.add_version(job.manifest_key, msgspec.json.encode(other))
    assert [one.detail for one in catalogue.check()] == ["The record has other attempt, maxBytes."]
