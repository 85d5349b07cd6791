"""What an ObjectStorage shows of the versions at a key, lists of those below a prefix, and removes."""

from datetime import timedelta

import pytest

from local.services.s3 import BUCKET
from sitebackup import bootstrap
from sitebackup.ports.storage import ListingPlace, ObjectStorage
from tests.contract.s3_servers import LIMIT_SECONDS, Server

type Found = tuple[str, str, int]


def test_only_what_is_at_exactly_this_key_is_listed(server: Server, storage: ObjectStorage, key: str) -> None:
    neighbours = [f"{key}.old", key.removesuffix(".zip"), f"{key[:-8]}site2.zip"]
    for neighbour in neighbours:
        server.place(neighbour, b"x")
        storage.create_upload(neighbour)
    assert storage.at_key(key) == ([], [])
    upload_ids = [storage.create_upload(key) for _ in range(3)]
    placed = [server.place(key, data) for data in (b"1", b"2", b"2")]
    found = storage.at_key(key)
    assert sorted(found.uploads) == sorted(upload_ids)
    assert sorted(found.versions) == sorted(placed)
    for neighbour in neighbours:
        at = storage.at_key(neighbour)
        assert (len(at.uploads), len(at.versions)) == (1, 1)


def test_a_version_is_removed_alone_and_for_good(server: Server, storage: ObjectStorage, key: str) -> None:
    first = server.place(key, b"first")
    second = server.place(key, b"second")
    storage.delete_version(key, second)
    assert (found := storage.head(key))
    assert (found.version_id, found.size) == (first, 5)
    assert storage.head(key, second) is None
    assert server.read(key) == b"first"
    storage.delete_version(key, first)
    assert storage.head(key) is None
    assert storage.at_key(key) == ([], [])


def test_a_version_may_be_removed_twice(server: Server, storage: ObjectStorage, key: str) -> None:
    server.needs("repeated removal")
    version_id = server.place(key, b"first")
    storage.delete_version(key, version_id)
    storage.delete_version(key, version_id)
    assert storage.at_key(key) == ([], [])


def test_delete_markers_are_listed_and_can_be_removed(
    server: Server, storage: ObjectStorage, key: str
) -> None:
    placed = server.place(key, b"first")
    server.client().delete_object(Bucket=BUCKET, Key=key)
    found = storage.at_key(key)
    assert len(found.versions) == 2
    for version_id in found.versions:
        if version_id != placed:
            storage.delete_version(key, version_id)
    assert (still := storage.head(key))
    assert still.version_id == placed


# --- listings


def listed(
    storage: ObjectStorage, prefix: str, after: ListingPlace | None = None, limit: int = 1000
) -> list[Found]:
    """What all pages show: (key, version, size)."""
    found: list[Found] = []
    while True:
        page = storage.list_versions(prefix, after, limit)
        assert len(page.versions) <= limit
        found += [(one.key, one.version_id, one.size) for one in page.versions]
        if page.next is None:
            return found
        assert page.next != after, "it goes round and round"
        after = page.next


@pytest.fixture
def family(server: Server, key: str) -> list[Found]:
    """Three keys with one, five and two versions, as they are listed: by key, and the newest version first."""
    folder = key.rpartition("/")[0]
    return [
        (one, server.place(one, bytes(size)), size)
        for name, sizes in (("a.zip", [1]), ("b", [9, 8, 7, 6, 5]), ("b.zip", [3, 2]))
        for one in [f"{folder}/{name}"]
        for size in sizes
    ]


@pytest.mark.parametrize("limit", [2, 3, 8, 1000])
def test_versions_are_listed_by_key_and_the_newest_first_however_large_the_pages_are(
    storage: ObjectStorage, family: list[Found], limit: int
) -> None:
    placed: dict[str, list[Found]] = {}
    for found in family:
        placed.setdefault(found[0], []).insert(0, found)
    expected = [one for versions in placed.values() for one in versions]
    folder = family[0][0].rpartition("/")[0]
    assert listed(storage, f"{folder}/", limit=limit) == expected
    assert listed(storage, f"{folder}/b.z", limit=limit) == expected[-2:]
    assert listed(storage, f"{folder}/c", limit=limit) == []


def test_a_listing_goes_on_behind_a_key_at_which_nothing_lies(
    server: Server, storage: ObjectStorage, family: list[Found]
) -> None:
    server.needs("places")
    folder = family[0][0].rpartition("/")[0]
    for after, first in ((folder, 0), (f"{folder}/a0", 1), (f"{folder}/b-", 6), (f"{folder}0", 8)):
        found = listed(storage, f"{folder.rpartition('/')[0]}/", ListingPlace(after), limit=3)
        assert [one for one in found if one[0].startswith(f"{folder}/")] == [
            *family[first:1],
            *reversed(family[max(first, 1) : 6]),
            *reversed(family[max(first, 6) :]),
        ], after


def test_a_listing_tells_which_version_is_answered_and_when_each_was_stored(
    storage: ObjectStorage, family: list[Found]
) -> None:
    folder = family[0][0].rpartition("/")[0]
    versions = storage.list_versions(f"{folder}/b.zip").versions
    assert [(one.version_id, one.is_latest) for one in versions] == [
        (family[7][1], True),
        (family[6][1], False),
    ]
    for one in versions:
        assert abs(bootstrap.now() - one.stored_at) < timedelta(seconds=LIMIT_SECONDS)


def test_a_delete_marker_is_listed_as_what_it_is(
    server: Server, storage: ObjectStorage, family: list[Found]
) -> None:
    key, version, _ = family[0]
    server.client().delete_object(Bucket=BUCKET, Key=key)
    stored, marker = storage.list_versions(key).versions
    assert (stored.version_id, stored.is_marker, stored.is_latest) == (version, False, False)
    assert (marker.key, marker.is_marker, marker.is_latest, marker.size) == (key, True, True, 0)
