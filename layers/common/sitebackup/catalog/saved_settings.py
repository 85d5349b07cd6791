"""Schedules and limits as they are saved in the bucket: each day a copy, in pages, with a mark once it is whole.

Pages are at `catalog/schedules/{time}/{id of the last schedule}.json` and `catalog/limits/{time}/{last user}.json`,
the mark at `catalog/saved/{time}.json`; the time is that at which the day began. All are written once.
"""

from datetime import UTC, datetime
from typing import Literal

from ..domain.job import FoundVersion
from ..domain.model import Model, decode
from ..domain.quota import UserLimits
from ..domain.schedule import Schedule
from ..ports.storage import ListingPlace, ObjectStorage
from .folders import read_whole

SAVED = "catalog/saved/"
SCHEDULES, LIMITS = "catalog/schedules/", "catalog/limits/"
_AT_ONCE = 5
"""Pages that are listed at once, as each takes a while to be added."""


class SchedulesPage(Model, frozen=True, kw_only=True, omit_defaults=False):
    """What is written: some schedules, by their ids."""

    schema: Literal[1] = 1
    schedules: list[Schedule]


class LimitsPage(Model, frozen=True, kw_only=True, omit_defaults=False):
    """What is written: some users who have exceptions, by their ids."""

    schema: Literal[1] = 1
    limits: list[UserLimits]


def name_of(day: datetime) -> str:
    """Of the copy of the day that began then; later ones sort behind earlier ones."""
    return day.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")


def mark_key(name: str) -> str:
    """Where the mark of a copy is."""
    return f"{SAVED}{name}.json"


def page_key(folder: str, name: str, last: str) -> str:
    """Where the page of a copy is that ends with this id."""
    return f"{folder}{name}/{last}.json"


def newest_saved(storage: ObjectStorage, before: datetime) -> str | None:
    """The name of the newest copy that was whole before then. Raises Transient or Permanent."""
    newest, place = None, None
    while True:
        page = storage.list_versions(SAVED, place)
        for one in page.versions:
            if one.is_latest and not one.is_marker and one.stored_at < before:
                newest = one.key.removeprefix(SAVED).removesuffix(".json")
        place = page.next
        if place is None:
            return newest


def last_saved(storage: ObjectStorage, folder: str, name: str) -> str | None:
    """Up to which id the copy was saved, as long as it is not whole. Raises Transient or Permanent."""
    last, place = None, None
    while True:
        page = storage.list_versions(f"{folder}{name}/", place)
        if page.versions:
            last = last_of(page.versions[-1])
        place = page.next
        if place is None:
            return last


def pages_past(storage: ObjectStorage, folder: str, name: str, past: str) -> list[FoundVersion]:
    """The next pages of a copy, past the one that ends with this id ("": the first ones).

    Raises Transient or Permanent.
    """
    prefix = f"{folder}{name}/"
    after = ListingPlace(f"{prefix}{past}.json!") if past else None
    return storage.list_versions(prefix, after, limit=_AT_ONCE).versions


def read_page[P: (SchedulesPage, LimitsPage)](
    storage: ObjectStorage, found: FoundVersion, kind: type[P]
) -> P:
    """Raises msgspec.ValidationError or msgspec.DecodeError if it is not a page; Transient or Permanent."""
    return decode(read_whole(storage, found), kind)


def last_of(found: FoundVersion) -> str:
    """The last id of a page."""
    return found.key.rpartition("/")[2].removesuffix(".json")
