"""Documents that many tests begin with."""

from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

from sitebackup.domain.change import Change, Moment
from sitebackup.domain.job import Job, Part, Status, StoredObject, Task
from sitebackup.domain.principal import Scope, Service
from sitebackup.domain.restore import Restore, RestoreStatus, RestoreTask

LOOPBACK = ("127.0.0.0/8",)
"""The `allowNetworks` of providers that tests run here."""
NOW = datetime(2030, 1, 31, 12, tzinfo=UTC)
BY_SERVICE = Service("arn:aws:iam::123456789012:role/tests").may(Scope.READ)
"""What a call of a service may reach: everything."""
_numbers = count(1)


def an_id() -> str:
    """24 hex digits that no other document has; later ones sort behind earlier ones."""
    return f"{next(_numbers):024x}"


def a_job(**changes: Any) -> Job:
    """A new job of a site of its own, as it is stored. The sweep looks at `site` in one minute, at `db` in two."""
    fields: dict[str, Any] = {
        "id": an_id(),
        "user_id": an_id(),
        "site_id": an_id(),
        "status": Status.PENDING,
        "version": 1,
        "tasks": {"site": a_task(1), "db": a_task(2)},
        "created_at": NOW,
        "updated_at": NOW,
        "deadline_at": NOW + timedelta(hours=6),
    }
    return Job(**fields | changes).with_next_check()


def a_task(minute: int) -> Task:
    """One that the sweep looks at so many minutes from now."""
    check_at = NOW + timedelta(minutes=minute)
    return Task(stalls_at=check_at, next_check_at=check_at)


def a_restore(**changes: Any) -> Restore:
    """A new restore of two objects of 100 bytes, on a site of its own, as it is stored."""
    fields: dict[str, Any] = {
        "id": an_id(),
        "user_id": an_id(),
        "site_id": an_id(),
        "job_id": an_id(),
        "source_site_id": an_id(),
        "status": RestoreStatus.PENDING,
        "version": 1,
        "tasks": {name: RestoreTask(object=an_object(name)) for name in ("site", "db")},
        "safety_backup": True,
        "created_at": NOW,
        "updated_at": NOW,
    }
    return Restore(**fields | changes).with_next_check()


def an_object(provider: str, size: int = 100) -> StoredObject:
    """A verified object."""
    return StoredObject(
        bucket="b", key=f"{provider}.zip", size=size, checksum_crc64nvme="AAAAAAAAAAA=", version_id="v"
    )


def a_part(number: int, length: int = 5) -> Part:
    return Part(number=number, length=length, etag=f'"{number}"', crc64nvme="AAAAAAAAAAA=")


def touched(job: Job) -> Job:
    """The job after a change that nothing else depends on; each one counts."""
    return job.replace(expires_after_days=touches(job) + 1)


def touches(job: Job) -> int:
    """How often it was touched."""
    return job.expires_after_days or 0


def touch(job: Job, moment: Moment) -> Change:
    """A transition that always changes something."""
    return Change(touched(job))
