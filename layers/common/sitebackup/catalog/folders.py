"""Reads the bucket folder by folder, in bounded memory."""

from typing import NamedTuple

from ..domain.catalog import MOST_VERSIONS, Folder, areas
from ..domain.job import FoundVersion, StoredObject
from ..ports.storage import ListingPlace, ObjectStorage

MAX_READ = 8 * 1024 * 1024
"""Bytes of what is read whole: a manifest, or a page of schedules."""


class Folders(NamedTuple):
    """Folders that are neighbours in the bucket."""

    folders: list[Folder]
    after: str | None
    """The key behind which the next ones are; None: these are the last."""


def read_folders(storage: ObjectStorage, prefix: str, after: str) -> Folders:
    """The next folders behind a key at which nothing lies, one at least if there is one. Raises Transient, Permanent.

    It holds two pages of a listing at most. Other top folders are passed over with one request each.
    """
    found: list[FoundVersion] = []
    place = ListingPlace(after) if after else None
    while True:
        page = storage.list_versions(prefix, place)
        found += page.versions
        place = page.next
        seen = areas(found)
        if place is None:
            return Folders([area.folder for area in seen if area.folder], None)
        if len(seen) > 1 or len(found) > MOST_VERSIONS or (seen and seen[0].folder is None):
            break
    if len(seen) > 1 and seen[-1].folder:
        seen.pop()  # it may go on with the next page
    return Folders([area.folder for area in seen if area.folder], seen[-1].end)


def read_whole(storage: ObjectStorage, found: FoundVersion) -> bytes:
    """The bytes of a version, none if it has none or too many to be what it should be.

    Raises Transient if it is not there any longer, or Permanent.
    """
    if not 0 < found.size <= MAX_READ:
        return b""
    stored = StoredObject(
        bucket="", key=found.key, size=found.size, checksum_crc64nvme="", version_id=found.version_id
    )
    return storage.read(stored, 0, found.size)
