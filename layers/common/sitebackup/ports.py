"""What the use cases need from outside, as Protocols. Adapters implement them, and so do the fakes of the tests.

Each promise here is a test of a contract suite in tests/contract, which runs against every implementation.

Common to all:
- Unless a method says otherwise it may be called again with the same arguments, and the second call changes nothing.
- `Unavailable` says that a system the service stands on does not answer. Its outcome is unknown: a write may have
  happened. The adapter itself has tried once more where that was safe. The caller lets the error pass, so that the
  Kafka record or the HTTP request is tried again by its sender.
- `Transient` says that the same call may work later, and the caller decides when. `Permanent` says that it will not.
- No call waits for ever. Those with `time_left` wait no longer than that says, the others a few seconds.
- Implementations may be shared by threads.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Executor
from datetime import datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, Self

from .domain.download import DownloadLink
from .domain.events import Event
from .domain.job import FoundVersion, Job, Part, PartWait, StoredObject
from .domain.lock import HeldVersion, Lock
from .domain.plan import Plan
from .domain.principal import Access
from .domain.provider import Provider
from .domain.restore import Restore
from .domain.site import Coverage, Day, Ledger, Site

if TYPE_CHECKING:
    from .domain.schedule import Schedule  # it brings cron and time zones, which few functions need

type TimeLeft = Callable[[], float]
"""Seconds until the deadline of a call; not above 0 once it is over."""


def no_deadline() -> float:
    """For calls that nothing but their own time-outs limits."""
    return math.inf


class Clock(NamedTuple):
    """Time, as the use cases know it."""

    now: Callable[[], datetime]
    """UTC, in milliseconds."""
    monotonic: Callable[[], float]
    """Seconds, that no change of the clock disturbs."""
    sleep: Callable[[float], None]
    """Waits so many seconds."""

    def left_until(self, deadline: datetime) -> TimeLeft:
        """What is left of an invocation whose work must be over by then."""
        return lambda: (deadline - self.now()).total_seconds()


type Pool = Callable[[int], Executor]
"""Makes an executor of so many workers; it is used in a `with`, which waits for its work."""


class Reader(Protocol):
    """Where bytes are read from: an export, a range of one, or memory."""

    def readinto(self, buffer: memoryview) -> int:
        """Fills the front of `buffer` with what has come; 0 only at the end.

        Raises what the source of the bytes raises. After an error the next read may raise it again.
        """


# --- MongoDB


class SiteClaim(NamedTuple):
    """What is active on a site, of which there is one at most (I10)."""

    kind: Literal["backup", "restore"]
    id: str
    status: str


ID_NAMES = {"backup": "jobId", "restore": "restoreId"}
"""What the id of each kind is called in logs and in the API."""


class VisibleDocuments[D: (Job, Restore)](Protocol):
    """Backups or restores as callers see them: what is out of reach is exactly as if it were not there (I21).

    Every call may raise RepositoryUnavailable.
    """

    def get_for(self, access: Access, document_id: str) -> D | None:
        """By id. Raises msgspec.ValidationError if the document can't be read."""

    def version_for(self, access: Access, document_id: str) -> int | None:
        """The version alone: what a long poll reads twice a second."""

    def page_for(self, access: Access, filters: Mapping[str, str], limit: int, before: str | None) -> list[D]:
        """As `SiteDocuments.page`."""


class SiteDocuments[D: (Job, Restore)](VisibleDocuments[D], Protocol):
    """Backups or restores, one document each, also as the service itself sees them.

    Every call may raise RepositoryUnavailable.

    Whoever stores one stores its `with_next_check()`: the sweep's index can't be forgotten (I8).
    """

    def create_indexes(self) -> None:
        """Makes sure of all that hold or find documents: a database that was emptied has none.

        The first `add` of a process does so as well.
        """

    def add(self, document: D) -> None:
        """Stores a new one. Raises DuplicateJob if the site is claimed (I10), or the idempotency key is taken.

        After a lost answer within the call, what it has stored is no duplicate of itself. A second call is refused.
        """

    def get(self, document_id: str) -> D | None:
        """By id. Raises msgspec.ValidationError if the document can't be read."""

    def claim_of(self, user_id: str, site_id: str) -> SiteClaim | None:
        """What is active on the site, of whichever kind."""

    def by_idempotency_key(self, key: str) -> D | None:
        """The one that was created under this key."""

    def page(self, filters: Mapping[str, str], limit: int, before: str | None) -> list[D]:
        """Up to `limit`, newest first, from just before the id `before`; filters are equalities on fields.

        A document that can't be read is logged and left out.
        """

    def replace(self, before: D, after: D) -> bool:
        """Compare-and-set: stores `after` if the stored version is still `before`'s (I2).

        False: somebody else was faster. After a lost answer True says that `after` is stored, whichever call did it.
        Raises DuplicateJob if `after` claims the site while something else does.
        """

    def due(self, now: datetime, limit: int) -> list[D]:
        """Those whose next check has come, the longest due first.

        A document that can't be read is logged and does not count against `limit`.
        """

    def claim_check(self, seen: D, until: datetime) -> D | None:
        """Hides what `due` gave from other sweeps until then; None: it is no longer as it was read.

        A claim does not change the version. A change of the document that moves its next check ends the claim.
        """


class JobRepository(SiteDocuments[Job], Protocol):
    """Backups."""

    def due_for_clean_up(self, now: datetime, limit: int) -> list[Job]:
        """Final jobs whose clean-up has come; otherwise as `due`."""

    def claim_clean_up(self, job: Job, until: datetime) -> Job | None:
        """As `claim_check`, for a job that `due_for_clean_up` gave."""

    def holds_newest_good(self, job: Job) -> bool:
        """Whether an object of the done job is the newest good one of its provider for this site (I19).

        Good is what is done, whole, and not marked for deletion by request. A zip without members is never newer
        than one with members. A safety backup is not good: it holds what a restore was meant to replace. Nor is an
        object that a drill found damaged.
        """

    def newest_good(
        self, user_id: str, site_id: str, before: datetime, providers: Collection[str]
    ) -> Job | None:
        """The site's newest backup that was done by then, has all of these providers, and whose data is there.

        Backups that a restore made first do not count, nor do those with a damaged object of these providers; if none
        is named, of any.
        """

    def delete_record(self, job: Job) -> bool:
        """Removes the document if its version is still the job's. False after a lost answer, even if it is gone."""


class RestoreRepository(SiteDocuments[Restore], Protocol):
    """Restores, one document each, under one claim with the backups (I10)."""


class PartRepository(Protocol):
    """What is known of parts, by (uploadId, number). Every call may raise RepositoryUnavailable.

    A part without a record is one of which nothing is known: it is missing, and waits for nothing.
    """

    def save(self, upload_id: str, part: Part, now: datetime) -> None:
        """The part is done. A part that is moved twice keeps what S3 said last."""

    def save_wait(self, upload_id: str, number: int, wait: PartWait, now: datetime) -> None:
        """A try of the part begins, or it waits after a transient error. A part that is done stays done."""

    def end_waits(self, upload_id: str, numbers: Collection[int]) -> None:
        """These parts are about to be sent again and wait no longer."""

    def lose(self, upload_id: str, number: int, wait: PartWait, now: datetime) -> None:
        """S3 has lost a part that was done: it waits to be moved again."""

    def done(self, upload_id: str, numbers: range | None = None) -> list[Part]:
        """Done parts in order: those of `numbers`, or all of the upload."""

    def missing(self, upload_id: str, numbers: range) -> dict[int, PartWait]:
        """Those of `numbers` that are not done, in order, with what is known of them."""

    def which_done(self, parts: Collection[tuple[str, int]]) -> set[tuple[str, int]]:
        """Of these (uploadId, number), those that are done."""


class ScheduleRepository(Protocol):
    """Schedules, one document for each site of a user. Every call may raise RepositoryUnavailable.

    Callers see and delete what is within reach; the rest is exactly as if it were not there (I21).
    """

    def create_indexes(self) -> None:
        """As those of jobs."""

    def get_for(self, access: Access, user_id: str, site_id: str) -> "Schedule | None":
        """By user and site."""

    def add(self, schedule: "Schedule") -> None:
        """Raises Conflict if the user's site has another one already."""

    def replace(self, seen: "Schedule", schedule: "Schedule") -> bool:
        """Compare-and-set: stores it if the version is still the one that was seen; as JobRepository.replace."""

    def delete_for(self, access: Access, user_id: str, site_id: str) -> bool:
        """Whether there was one. True after a lost answer."""

    def page_for(self, access: Access, user_id: str | None, limit: int, past: str | None) -> "list[Schedule]":
        """This user's, or all; by `Schedule.id`, past the one given. Unreadable documents are logged and left out."""

    def due(self, now: datetime, limit: int) -> "list[Schedule]":
        """Schedules whose time has come, the longest due first; unreadable ones as in `page_for`."""


class SiteRepository(Protocol):
    """What drills know of sites, one document each, and one ledger. Every call may raise RepositoryUnavailable."""

    def create_indexes(self) -> None:
        """As those of jobs."""

    def backed_up(self, user_id: str, site_id: str, now: datetime) -> None:
        """A backup of the site is about to be done. The first one makes the site, unproven since now."""

    def get(self, user_id: str, site_id: str) -> Site | None:
        """The site, if it has or had backups."""

    def due(self, before: datetime, now: datetime, limit: int) -> list[Site]:
        """Sites that are unproven since `before` or longer, or were never opened, and may be looked at now.

        The longest unproven come first.

        A document that can't be read is logged and does not count against `limit`.
        """

    def replace(self, seen: Site, site: Site) -> bool:
        """Compare-and-set: stores it, with the next version, if nobody has changed what was seen.

        After a lost answer True says that it is stored, whichever call did it. `backed_up` changes no version.
        """

    def forget(self, seen: Site, backed_up_before: datetime) -> bool:
        """Removes it if nobody has changed it, and no backup was about to be done since then.

        False after a lost answer, even if it is gone.
        """

    def coverage(self, opened_since: datetime) -> Coverage:
        """Counted now, without `counted_at`; sites that are unproven since before then are overdue.

        The number of all sites may lag behind.
        """

    def ledger(self) -> Ledger:
        """What the runs left; a new one if there is none yet."""

    def replace_ledger(self, seen: Ledger, ledger: Ledger) -> bool:
        """Compare-and-set, as `replace`."""

    def add_work(self, now: datetime, size: int, seconds: float) -> None:
        """So many bytes were opened. After a lost answer they may be counted twice, or not at all."""

    def day(self, now: datetime) -> Day:
        """What was added within about 24 hours: whole hours."""


# --- export APIs


class Export(Reader, Protocol):
    """An open export, or a range of one: to be read once, and closed."""

    size: int | None
    """Bytes of the whole export; None if only the end of the stream tells."""
    length: int | None
    """Bytes of this body; None likewise."""
    validator: str | None
    """A strong ETag if the export can be read by ranges, else None."""
    end_proven: bool
    """Whether 0 from `readinto` proves that the body is whole (I14).

    False if the body ends with its connection, as one that was cut does: then only a look into what was stored, a zip
    that ends right, proves it.
    """

    @property
    def ranged(self) -> bool:
        """Whether other ranges of the same export can be asked for."""

    def readinto(self, buffer: memoryview) -> int:
        """As Reader. Raises Transient if the end comes too early, Permanent if more follows than was framed."""

    def close(self) -> None:
        """Gives up what was not read."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class ExportApi(Protocol):
    """The providers' export APIs. The adapter repeats nothing but a request whose token was refused, once."""

    def probe(
        self,
        provider: Provider,
        user_id: str,
        site_id: str,
        length: int | None,
        time_left: TimeLeft = no_deadline,
    ) -> Export:
        """The first request: asks for the first `length` bytes (None: for all), and tells what the export is.

        Raises Transient or Permanent. Neither it nor a read of the export waits longer than the time that is left.
        """

    def open_range(
        self,
        provider: Provider,
        user_id: str,
        site_id: str,
        start: int,
        length: int,
        validator: str,
        size: int,
        time_left: TimeLeft = no_deadline,
    ) -> Export:
        """Bytes `[start, start + length)` of the export that has this validator and size; waits as `probe` does.

        Raises ExportChanged if it has others by now, Transient or Permanent.
        """


# --- import APIs


class ImportTarget(NamedTuple):
    """What an upload to an import API is for; the provider is told all of it."""

    user_id: str
    site_id: str
    """Of the site that is restored, which need not be the one that was backed up."""
    job_id: str
    """The backup that is given back."""
    restore_id: str
    """An import is carried out once for each (restoreId, provider): that is the contract with providers."""
    crc64nvme: str
    """Of the whole, base64 of the big-endian CRC."""


class ImportOffer(NamedTuple):
    """What an import API says of itself."""

    max_size: int | None
    """Bytes that one upload may have; None: it does not say."""


class ImportOutcome(NamedTuple):
    """What became of an import whose bytes are all there."""

    state: Literal["done", "failed", "processing"]
    message: str | None = None
    """What the provider says of it, cut to a length that can be shown."""
    retry_after: timedelta | None = None
    """When it asks to be asked again."""


class ImportApi(Protocol):
    """The providers' import APIs: tus 1.0.0, core and creation.

    https://tus.io/protocols/resumable-upload

    Every call may raise Transient (a broken connection, 408, 423, 425, 429, 5xx, with what `Retry-After` asked for)
    or Permanent (`import_forbidden`, `import_refused`, `import_invalid`, `import_address_refused`). After a Transient
    the outcome is unknown: `offset` tells what has arrived. Redirects are not followed. The adapter repeats nothing
    but a request whose token was refused, once.
    """

    def offer(
        self, provider: Provider, user_id: str, site_id: str, time_left: TimeLeft = no_deadline
    ) -> ImportOffer:
        """What a dry run asks. Raises Permanent `import_not_found` as well."""

    def create(
        self, provider: Provider, target: ImportTarget, size: int, time_left: TimeLeft = no_deadline
    ) -> str:
        """The URL of a new upload of `size` bytes. Each call makes one: after a lost answer one is left there.

        The URL is secret like a token (it may be all that is needed to write): it stands in no log and no view.
        Raises Permanent `import_not_found` or `import_too_large` as well. An upload of 0 bytes is whole at once.
        """

    def offset(self, provider: Provider, url: str, time_left: TimeLeft = no_deadline) -> int:
        """How many bytes have arrived. Raises NoSuchImport."""

    def send(
        self,
        provider: Provider,
        url: str,
        offset: int,
        data: memoryview,
        time_left: TimeLeft = no_deadline,
        goes_on: Callable[[], bool] = lambda: True,
    ) -> int:
        """Sends `data`, which stands at `offset`, and returns how many bytes have arrived by now.

        It carries a checksum of `data` if the API offers to compare one. While it sends, and waits for the answer,
        it asks every second whether it `goes_on`; if not it breaks the connection off and raises TaskEnded. Raises
        NoSuchImport; Transient also for an offset (409) or a checksum (460) that is refused.
        """

    def outcome(self, provider: Provider, url: str, time_left: TimeLeft = no_deadline) -> ImportOutcome:
        """For a provider with `importStatus`. Raises NoSuchImport."""

    def delete(self, provider: Provider, url: str, time_left: TimeLeft = no_deadline) -> None:
        """Ends an upload that nobody goes on with. One that is gone, or an API that has no such call, is no error."""


# --- S3


class KeyContents(NamedTuple):
    """What lies at a key: ids of uploads that are open, and of versions of the object."""

    uploads: list[str]
    versions: list[str]


class Place(NamedTuple):
    """Where a listing of versions goes on: behind this version of the key, or behind a key at which nothing lies."""

    key: str
    version_id: str = ""


class VersionPage(NamedTuple):
    """Some of the versions that there are."""

    versions: list[FoundVersion]
    next: Place | None
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

    def put_once(self, key: str, data: bytes, time_left: TimeLeft = no_deadline) -> None:
        """Stores an object where there is none. Raises ObjectExists, also if a lost answer's call has stored it."""

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

    def list_versions(self, prefix: str, after: Place | None = None, limit: int = MAX_LISTED) -> VersionPage:
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


# --- Kafka


class EventBus(Protocol):
    """Where events go."""

    def emit(self, events: Sequence[Event]) -> None:
        """Returns once every event is stored by the brokers.

        Raises BusUnavailable if one may not be; then each may arrive once, twice or never (I7). Who emits leaves it
        to the sweep (I8).
        """
