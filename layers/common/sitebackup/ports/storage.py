"""Where backups are stored, and links to them: S3."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple, Protocol

from ..domain.download import DownloadLink
from ..domain.job import FoundVersion, Part, StoredObject
from ..domain.lock import HeldVersion, Lock
from ..domain.plan import Plan
from .runtime import Reader, TimeLeft, no_deadline


class KeyContents(NamedTuple):
    """What lies at a key: ids of uploads that are open, and of versions of the object."""

    uploads: list[str]
    versions: list[str]


class ListingPlace(NamedTuple):
    """Where a listing of versions goes on: behind this version of the key, or behind a key at which nothing lies."""

    key: str
    version_id: str = ""


class VersionPage(NamedTuple):
    """Some of the versions that there are."""

    versions: list[FoundVersion]
    next: ListingPlace | None
    """Where the next page begins; None: there are no more."""


MAX_LISTED = 1000
"""Versions of a page."""


class ObjectStorage(Protocol):
    """One versioned bucket. Every call may raise Transient or Permanent, and repeats nothing itself.

    A call that raised Transient may have happened all the same; each says what that means.
    """

    def create_upload(self, key: str) -> str:
        """The id of a new multipart upload. Each call makes one: after a lost answer it is left at the key (I9)."""

    def put_part(
        self,
        key: str,
        upload_id: str,
        number: int,
        source: Reader,
        length: int,
        time_left: TimeLeft = no_deadline,
    ) -> Part:
        """Moves `length` bytes from the source into the part, whose checksum S3 confirms (I4).

        A part that is put twice is replaced. Raises NoSuchUpload, what the source raises, and Transient for a source
        that ends early.
        """

    def put_held_part(
        self, key: str, upload_id: str, number: int, data: memoryview, time_left: TimeLeft = no_deadline
    ) -> Part:
        """As `put_part`, from memory."""

    def put_object(self, key: str, data: memoryview, time_left: TimeLeft = no_deadline) -> StoredObject:
        """Stores a whole object. Each call makes a version: after a lost answer one is left at the key."""

    def lock(self, key: str, version_id: str | None, lock: Lock) -> None:
        """Locks a version; with the same lock again it stays as it is.

        Refused if the bucket can't lock, if the version is locked for longer, and if it is gone.
        """

    def set_legal_hold(self, key: str, version_id: str | None, on: bool) -> None:
        """Puts a version on legal hold, or releases it; refused if the bucket can't lock.

        A version that is gone is no error.
        """

    def held(self, key: str, version_id: str) -> HeldVersion | None:
        """What S3 says of a version's lock and legal hold; None if the version is gone."""

    def put_once(self, key: str, data: bytes, time_left: TimeLeft = no_deadline) -> str | None:
        """Stores an object where there is none; its version. Raises ObjectExists, also after a lost answer."""

    def complete(
        self,
        key: str,
        upload_id: str,
        plan: Plan,
        parts: Sequence[Part],
        crc64nvme: str,
        time_left: TimeLeft = no_deadline,
    ) -> None:
        """Makes the object of the parts. Proves nothing: only `head` does (I5).

        Raises NoSuchUpload (completed, aborted or lost), InvalidPart, or ObjectExists if the key holds one already.
        """

    def head(self, key: str, version_id: str | None = None) -> StoredObject | None:
        """The object as S3 shows it: its newest version, or the one named."""

    def read(self, stored: StoredObject, start: int, length: int) -> bytes:
        """`length` bytes of this very version. Raises Transient if it is not there (yet)."""

    def part_etags(self, key: str, upload_id: str) -> dict[int, tuple[int, str]]:
        """(length, ETag) by number of the parts that S3 holds. Raises NoSuchUpload."""

    def has_upload(self, key: str, upload_id: str) -> bool:
        """Whether S3 knows the upload."""

    def abort(self, key: str, upload_id: str) -> None:
        """Removes an upload and its parts; one that is gone is no error."""

    def at_key(self, key: str) -> KeyContents:
        """All that lies at the key."""

    def list_versions(
        self, prefix: str, after: ListingPlace | None = None, limit: int = MAX_LISTED
    ) -> VersionPage:
        """A page of up to `limit` versions (2 at least) at the keys with this prefix, from behind a place.

        Keys come in order, and of one key the newest version first, then its delete markers. A page may have fewer
        than `limit`, or none, though there are more. What is stored or removed meanwhile may be listed or not.
        """

    def delete_version(self, key: str, version_id: str) -> None:
        """Removes a version for good; one that is gone is no error. Never by key alone (I9).

        Raises Permanent while it is locked or on legal hold.
        """


class DownloadLinks(Protocol):
    """Signs links to objects in S3. Signing asks S3 nothing: whether the object is there shows when it is fetched."""

    def link(self, stored: StoredObject, file_name: str, until: datetime) -> DownloadLink:
        """A link to this very version, which is saved under that name, and which no cache keeps.

        It is valid until then (a second longer at most, by this machine's clock), or until the credentials end that
        sign it. It serves ranges and conditions as S3 does. Each call may make another one. Raises Unavailable.
        """
