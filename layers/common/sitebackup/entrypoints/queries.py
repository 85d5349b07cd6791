"""What the routes' query strings hold. An error about a parameter quotes its description."""

from typing import Annotated, Literal

from msgspec import Meta

from ..backup.get_job import MAX_WAIT_SECONDS
from ..domain.job import Status
from ..domain.model import Id, Model
from ..domain.restore import RestoreStatus
from .schedule_views import ScheduleId

Limit = Annotated[int, Meta(ge=1, le=100, description="a whole number from 1 to 100")]
A_VERSION = Meta(ge=0, le=2**53, description=f"a whole number from 0 to {2**53}")


class Wait(Model, frozen=True, kw_only=True):
    """Of one job or restore."""

    wait: Annotated[
        int, Meta(ge=0, le=MAX_WAIT_SECONDS, description=f"a whole number from 0 to {MAX_WAIT_SECONDS}")
    ] = 0
    since: Annotated[int, A_VERSION] | None = None


class Jobs(Model, frozen=True, kw_only=True):
    """Of the list of jobs."""

    site_id: Id | None = None
    user_id: Id | None = None
    status: Annotated[Status, Meta(description=f"one of {', '.join(Status)}")] | None = None
    limit: Limit = 20
    cursor: Id | None = None


class Restores(Model, frozen=True, kw_only=True):
    """Of the list of restores; `siteId` is that of the site that is restored."""

    site_id: Id | None = None
    user_id: Id | None = None
    job_id: Id | None = None
    status: Annotated[RestoreStatus, Meta(description=f"one of {', '.join(RestoreStatus)}")] | None = None
    limit: Limit = 20
    cursor: Id | None = None


class Deletion(Model, frozen=True, kw_only=True):
    """When a job is to be deleted."""

    at: Annotated[str, Meta(description="a time like 2030-01-31T12:00:00Z")] | None = None


class Damaged(Model, frozen=True, kw_only=True):
    """Whether a download may be of what a drill found damaged."""

    damaged: Annotated[Literal["allow"], Meta(description="allow")] | None = None


class Owner(Model, frozen=True, kw_only=True):
    """Of a site's schedule; a service has to name the user."""

    user_id: Id | None = None


class Schedules(Model, frozen=True, kw_only=True):
    """Of the list of schedules."""

    user_id: Id | None = None
    limit: Limit = 20
    cursor: ScheduleId | None = None


class Retention(Model, frozen=True, kw_only=True):
    """Of a site's retention; a service has to name the user."""

    user_id: Id | None = None
    limit: Limit = 50
    cursor: Id | None = None


class Drills(Model, frozen=True, kw_only=True):
    """Both or none."""

    user_id: Id | None = None
    site_id: Id | None = None
