"""What MongoDB holds: backups, restores, parts, schedules, quotas, and what drills know of sites."""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from ..domain.job import Job, Part, PartWait
from ..domain.principal import Access
from ..domain.quota import Limits, Quota, QuotaDay, UserLimits
from ..domain.restore import Restore
from ..domain.site import Coverage, Day, Ledger, Site

if TYPE_CHECKING:
    from ..domain.schedule import Schedule  # it brings cron and time zones, which few functions need


class SiteClaim(NamedTuple):
    """What is active on a site, of which there is one at most (I10)."""

    kind: Literal["backup", "restore"]
    id: str | None
    """None: it is not for this caller."""
    status: str
    sites: tuple[str, ...]
    """Those that it concerns."""

    def seen_by(self, access: Access, user_id: str) -> "SiteClaim":
        """As this caller may know it, who may reach the site: not by its id if it concerns others, too (I21)."""
        return self if access.sees(user_id, self.sites) else self._replace(id=None)


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
        """Stores a new one. Raises DuplicateJob if the site is claimed (I10), or its key or its slot is taken.

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
        Raises DuplicateJob if `after` claims the site while something else does, or takes a slot that is taken.
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

    def newest_good_object(self, user_id: str, site_id: str, provider: str) -> Job | None:
        """The done job with the newest good object of this provider for the site, as `holds_newest_good` has it.

        It may read all of the site's done jobs.
        """

    def newest_good(
        self, user_id: str, site_id: str, before: datetime, providers: Collection[str]
    ) -> Job | None:
        """The site's newest backup that was done by then, has all of these providers, and whose data is there.

        Backups that a restore made first do not count, nor do those with a damaged object of these providers; if none
        is named, of any.
        """

    def damaged(self, limit: int) -> list[str]:
        """Up to `limit` ids of done jobs with an object that a drill found damaged, and not marked for deletion."""

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
        """Raises Conflict if the user's site has another one already, or its slot is taken."""

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


class QuotaRepository(Protocol):
    """What counts against the quotas of users, read from the documents themselves, and the exceptions of some.

    Who calls has checked that the user is within reach (I21). Every call may raise RepositoryUnavailable.
    """

    def limits(self, user_id: str) -> Limits:
        """The user's exceptions; empty if there are none."""

    def set_limits(self, user_id: str, limits: Limits) -> None:
        """In place of those that there were; empty ones are removed."""

    def add_limits(self, user: UserLimits) -> bool:
        """Whether the user had none. False after a lost answer, even if it has stored them."""

    def page_of_limits(self, limit: int, past: str | None) -> list[UserLimits]:
        """By user, past the one given."""

    def slots(self, user_id: str, quota: Quota, day: QuotaDay | None, most: int) -> list[str | None]:
        """The slot of each document of the user that counts, of `day` if it is given; of so many at most.

        Not for stored bytes.
        """

    def count(self, user_id: str, quota: Quota, day: QuotaDay | None) -> int:
        """How many there are of these documents."""

    def held_bytes(self, user_id: str) -> int:
        """The sum of `Job.held_bytes` of the user's jobs: those that are stored when it is called all count."""
