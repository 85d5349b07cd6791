"""What stands between an export and S3: its time, its breaks, and whether anybody still wants the bytes."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Self

import pytest

from sitebackup.domain.errors import ExportChanged, TaskEnded, Transient
from sitebackup.domain.task_ref import TaskRef
from sitebackup.ports.providers import Export
from sitebackup.ports.runtime import Reader, no_deadline
from sitebackup.transfer.readers import LOOK_EVERY, PAUSES, DeadlineReader, ResumingReader, fill, hold
from tests.fakes.clock import ManualClock
from tests.fakes.readers import BytesReader

NOW = datetime(2030, 1, 31, 12, tzinfo=UTC)
SITE = TaskRef(job_id="a" * 24, attempt=1, provider="site")
TEN_BYTES = b"0123456789"
MINUTE = 60.0
"""Seconds."""


def read(source: Reader, count: int = 4) -> bytes:
    buffer = memoryview(bytearray(count))
    return bytes(buffer[: source.readinto(buffer)])


def test_bytes_in_memory_are_read_in_order_and_end() -> None:
    source = BytesReader(TEN_BYTES)
    assert [read(source) for _ in range(4)] == [b"0123", b"4567", b"89", b""]


def test_reading_ends_with_the_time() -> None:
    clock = ManualClock(NOW)
    deadline = NOW + timedelta(seconds=2)
    source = DeadlineReader(
        BytesReader(TEN_BYTES), clock.as_port().left_until(deadline), clock.as_port(), lambda: True
    )
    assert read(source) == b"0123"
    clock.advance_to(deadline)
    with pytest.raises(Transient, match=r"too slow"):
        read(source)


def test_reading_ends_soon_after_its_task_and_does_not_look_at_it_each_time() -> None:
    clock, looks = ManualClock(NOW), [True, False]
    source = DeadlineReader(BytesReader(bytes(100)), no_deadline, clock.as_port(), lambda: looks.pop(0))
    for _ in range(3):
        read(source)
    assert len(looks) == 2, "each read looked at the task"
    clock.advance(LOOK_EVERY)
    read(source)
    read(source)
    assert len(looks) == 1
    clock.advance(LOOK_EVERY)
    with pytest.raises(TaskEnded):
        read(source)


class Breaking:
    """An open range: some bytes, then an error, again and again."""

    size: int | None = None
    length: int | None = None
    validator: str | None = None
    end_proven: bool = True
    ranged: bool = True

    def __init__(self, data: bytes, error: Exception) -> None:
        self._source = BytesReader(data)
        self._error = error
        self.closed = False

    def readinto(self, buffer: memoryview) -> int:
        count = self._source.readinto(buffer)
        if count == 0:
            raise self._error
        return count

    def close(self) -> None:
        self.closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


BREAK = Transient("broken")


@dataclass
class Range:
    """Ten bytes, of which each opening gives a few."""

    each: int
    error: Exception = BREAK
    opened: list[int] = field(default_factory=list)
    exports: list[Breaking] = field(default_factory=list)
    clock: ManualClock = field(default_factory=lambda: ManualClock(NOW))

    def open_at(self, read: int) -> Export:
        self.opened.append(read)
        self.exports.append(Breaking(TEN_BYTES[read : read + self.each], self.error))
        return self.exports[-1]

    def reader(self, left: float = MINUTE) -> ResumingReader:
        return ResumingReader(SITE, self.open_at(0), self.open_at, lambda: left, self.clock.as_port().sleep)


def test_a_range_goes_on_where_it_broke_as_often_as_it_brings_bytes() -> None:
    source = Range(each=3)
    with source.reader() as reader:
        assert [read(reader) for _ in range(4)] == [b"012", b"345", b"678", b"9"]
    assert source.opened == [0, 3, 6, 9]
    assert source.clock.slept == [PAUSES[0]] * 3
    assert all(export.closed for export in source.exports)


def test_a_range_that_brings_nothing_is_given_up() -> None:
    source = Range(each=0)
    with source.reader() as reader, pytest.raises(Transient, match="broken"):
        read(reader)
    assert source.opened == [0] * (1 + len(PAUSES))
    assert source.clock.slept == list(PAUSES)


def test_an_opening_that_fails_counts_as_a_break() -> None:
    def refuse(read: int) -> Export:
        raise Transient("refused")

    slept: list[float] = []
    reader = ResumingReader(SITE, Breaking(b"012", BREAK), refuse, no_deadline, slept.append)
    assert read(reader) == b"012"
    with pytest.raises(Transient, match="refused"):
        read(reader)
    assert slept == list(PAUSES)


def test_an_export_that_changed_is_not_read_on() -> None:
    def changed(read: int) -> Export:
        raise ExportChanged

    slept: list[float] = []
    reader = ResumingReader(SITE, Breaking(b"", BREAK), changed, no_deadline, slept.append)
    with pytest.raises(ExportChanged):
        read(reader)


def test_a_wait_that_the_provider_asks_for_is_left_to_the_caller() -> None:
    source = Range(each=0, error=Transient("503", timedelta(seconds=7)))
    with source.reader() as reader, pytest.raises(Transient, match="503"):
        read(reader)
    assert source.opened == [0]


def test_a_range_is_not_opened_again_when_no_time_is_left() -> None:
    source = Range(each=0)
    with source.reader(left=PAUSES[1]) as reader, pytest.raises(Transient):
        read(reader)
    assert source.opened == [0, 0]
    assert source.clock.slept == [PAUSES[0]]


@pytest.mark.parametrize(("length", "filled"), [(4, 4), (10, 10), (12, 10), (0, 0)])
def test_a_buffer_is_filled_as_far_as_the_source_reaches(length: int, filled: int) -> None:
    buffer = memoryview(bytearray(length))
    assert fill(BytesReader(TEN_BYTES), buffer) == filled
    assert bytes(buffer[:filled]) == TEN_BYTES[:filled]


def test_bytes_that_are_held_are_whole_or_refused() -> None:
    assert bytes(hold(BytesReader(TEN_BYTES), 10)) == TEN_BYTES
    with pytest.raises(Transient, match="ended after 9 of 10 bytes"):
        hold(BytesReader(TEN_BYTES[:9]), 10)
