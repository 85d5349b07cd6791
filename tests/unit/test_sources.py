"""What stands between an export and S3: time, limits, and whether anybody still wants the bytes."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from sitebackup.domain.errors import Permanent, Transient
from sitebackup.domain.job import Job, Status, Task
from sitebackup.domain.plan import MAX_OBJECT_SIZE
from sitebackup.domain.provider import Provider
from sitebackup.domain.reason import Code
from sitebackup.services.sources import LOOK_EVERY, Bounded, Held, TaskEnded, check_size, size_limit

NOW = datetime(2030, 1, 31, 12, tzinfo=UTC)


def read(source: Any, count: int = 4) -> bytes:
    buffer = memoryview(bytearray(count))
    return bytes(buffer[: source.readinto(buffer)])


def test_held_bytes_come_in_pieces_and_end() -> None:
    source = Held(memoryview(b"0123456789"))
    assert [read(source) for _ in range(4)] == [b"0123", b"4567", b"89", b""]


def test_reading_ends_with_the_time() -> None:
    clock = [NOW]
    source = Bounded(
        Held(memoryview(b"0123456789")), NOW + timedelta(seconds=2), lambda: clock[0], lambda: True
    )
    assert read(source) == b"0123"
    clock[0] += timedelta(seconds=2)
    with pytest.raises(Transient, match=r"too slow"):
        read(source)


def test_reading_ends_soon_after_its_task() -> None:
    clock, looks = [NOW], [True, False]
    source = Bounded(
        Held(memoryview(bytes(100))), NOW + timedelta(minutes=9), lambda: clock[0], lambda: looks.pop(0)
    )
    for _ in range(3):
        read(source)
    assert len(looks) == 2, "each read looked at the task"
    clock[0] += LOOK_EVERY
    read(source)
    read(source)
    assert len(looks) == 1
    clock[0] += LOOK_EVERY
    with pytest.raises(TaskEnded):
        read(source)


@pytest.mark.parametrize(
    ("of_job", "of_provider", "of_service", "limit"),
    [
        (None, None, None, MAX_OBJECT_SIZE),
        (3, None, None, 3),
        (3, 2, None, 2),
        (3, 2, 1, 1),
        (None, 2, 9, 2),
        (None, MAX_OBJECT_SIZE + 1, None, MAX_OBJECT_SIZE),
    ],
)
def test_the_lowest_limit_counts(
    of_job: int | None, of_provider: int | None, of_service: int | None, limit: int
) -> None:
    job = Job(
        id="c" * 24,
        user_id="a" * 24,
        site_id="b" * 24,
        status=Status.PENDING,
        version=1,
        tasks={"site": Task()},
        created_at=NOW,
        updated_at=NOW,
        deadline_at=NOW,
        max_bytes=of_job,
    )
    provider = Provider(name="site", export_url="http://site", max_bytes=of_provider)
    assert size_limit(job, provider, of_service) == limit


def test_an_export_over_the_limit_is_told_with_both_numbers() -> None:
    check_size(10, 10)
    with pytest.raises(Permanent) as raised:
        check_size(11, 10)
    assert raised.value.reason.code is Code.SIZE_LIMIT_EXCEEDED
    assert raised.value.reason.message == "The export has 11 bytes; the limit is 10 bytes."
    with pytest.raises(Permanent) as raised:
        check_size(11, 10, at_least=True)
    assert "at least 11 bytes" in raised.value.reason.message
