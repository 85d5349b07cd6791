"""What stands between an export and S3: time, limits, and whether anybody still wants the bytes."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from sitebackup.adapters.exports import Export
from sitebackup.domain.errors import ExportChanged, Permanent, Transient
from sitebackup.domain.events import UploadJobCreated
from sitebackup.domain.job import Job, Status, Task
from sitebackup.domain.plan import MAX_OBJECT_SIZE
from sitebackup.domain.provider import Provider
from sitebackup.domain.reason import Code
from sitebackup.services.sources import (
    LOOK_EVERY,
    PAUSES,
    Bounded,
    ResumingReader,
    TaskEnded,
    check_size,
    hold,
    size_limit,
)
from tests.unit.twins import Held

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


class Breaking(Export):
    """An open range: some bytes, then an error, again and again."""

    def __init__(self, data: bytes, error: Exception | None = None) -> None:
        self._source = Held(memoryview(data))
        self._error = error
        self.closed = False

    def readinto(self, buffer: memoryview) -> int:
        count = self._source.readinto(buffer)
        if count == 0 and self._error:
            raise self._error
        return count

    def close(self) -> None:
        self.closed = True


BREAK = Transient("broken")


@dataclass
class Range:
    """Ten bytes, of which each opening gives a few."""

    each: int
    error: Exception = BREAK
    data: bytes = b"0123456789"
    opened: list[int] = field(default_factory=list)
    exports: list[Breaking] = field(default_factory=list)

    def open_at(self, read: int) -> Export:
        self.opened.append(read)
        self.exports.append(Breaking(self.data[read : read + self.each], self.error))
        return self.exports[-1]

    def reader(self, left: float = 60) -> ResumingReader:
        event = UploadJobCreated(job_id="a" * 24, attempt=1, provider="site")
        return ResumingReader(event, self.open_at(0), self.open_at, lambda: left)


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    found: list[float] = []
    monkeypatch.setattr("time.sleep", found.append)
    return found


def test_a_range_goes_on_where_it_broke_as_often_as_it_brings_bytes(pauses: list[float]) -> None:
    source = Range(each=3)
    with source.reader() as reader:
        assert [read(reader) for _ in range(4)] == [b"012", b"345", b"678", b"9"]
    assert source.opened == [0, 3, 6, 9]
    assert pauses == [PAUSES[0]] * 3
    assert all(export.closed for export in source.exports)


def test_a_range_that_brings_nothing_is_given_up(pauses: list[float]) -> None:
    source = Range(each=0)
    with source.reader() as reader, pytest.raises(Transient, match="broken"):
        read(reader)
    assert source.opened == [0] * (1 + len(PAUSES))
    assert pauses == list(PAUSES)


def test_an_opening_that_fails_counts_as_a_break(pauses: list[float]) -> None:
    def refuse(read: int) -> Export:
        raise Transient("refused")

    reader = ResumingReader(
        UploadJobCreated(job_id="a" * 24, attempt=1, provider="site"),
        Breaking(b"012", BREAK),
        refuse,
        lambda: 60,
    )
    assert read(reader) == b"012"
    with pytest.raises(Transient, match="refused"):
        read(reader)
    assert pauses == list(PAUSES)


def test_another_export_is_never_read_on(pauses: list[float]) -> None:
    def changed(read: int) -> Export:
        raise ExportChanged

    event = UploadJobCreated(job_id="a" * 24, attempt=1, provider="site")
    reader = ResumingReader(event, Breaking(b"", BREAK), changed, lambda: 60)
    with pytest.raises(ExportChanged):
        read(reader)


def test_a_wait_that_the_provider_asks_for_is_left_to_the_caller(pauses: list[float]) -> None:
    source = Range(each=0, error=Transient("503", timedelta(seconds=7)))
    with source.reader() as reader, pytest.raises(Transient, match="503"):
        read(reader)
    assert source.opened == [0]


def test_a_range_is_not_opened_again_when_no_time_is_left(pauses: list[float]) -> None:
    source = Range(each=0)
    with source.reader(left=PAUSES[1]) as reader, pytest.raises(Transient):
        read(reader)
    assert source.opened == [0, 0]
    assert pauses == [PAUSES[0]]


def test_what_is_held_is_whole() -> None:
    assert bytes(hold(Held(memoryview(b"0123456789")), 10)) == b"0123456789"
    with pytest.raises(Transient, match="ended after 9 of 10 bytes"):
        hold(Held(memoryview(b"012345678")), 10)


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
