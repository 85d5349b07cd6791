"""How values become documents, and times what the database keeps of them."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone

import msgspec
import pytest

from sitebackup.domain.job import Job
from sitebackup.domain.model import to_milliseconds
from tests.builders import NOW, a_job


def test_a_document_keeps_times_as_they_are_and_leaves_out_what_is_at_its_default() -> None:
    job = a_job()
    document = job.to_document()
    assert document["createdAt"] is NOW
    assert "reason" not in document
    assert Job.from_document(document) == job
    with pytest.raises(msgspec.ValidationError, match=r"\$\.version"):
        Job.from_document({**document, "version": "1"})


@pytest.mark.parametrize("microsecond", [123_000, 123_999])
def test_a_time_is_cut_to_milliseconds_in_utc(microsecond: int) -> None:
    east = timezone(timedelta(hours=2))
    cut = to_milliseconds(datetime(2030, 1, 31, 14, 0, 0, microsecond, tzinfo=east))
    assert cut == datetime(2030, 1, 31, 12, 0, 0, 123_000, tzinfo=UTC)
    assert cut.tzinfo is UTC


MEET_AT_ONCE = """
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import msgspec

from sitebackup.domain.model import Model, decode

sys.setswitchinterval(1e-6)
THREADS = 16
for round in range(60):
    fields = [(f"f{number}", int | None, None) for number in range(20)]
    inner = msgspec.defstruct("Inner", fields, bases=(Model,), frozen=True, kw_only=True)
    fields = [(f"f{number}", dict[str, inner] | None, None) for number in range(20)]
    outer = msgspec.defstruct("Outer", fields, bases=(Model,), frozen=True, kw_only=True)
    barrier = Barrier(THREADS)

    def meet(number):
        barrier.wait()
        if number % 2:
            outer.from_document({"f1": {"x": {"f3": 1}}})
        else:
            decode(b'{"f1": {"x": {"f3": 1}}}', outer)

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(meet, range(THREADS)))
"""


def test_threads_that_meet_a_type_for_the_first_time_at_once_read_it_all_the_same() -> None:
    """In a process of its own: msgspec alone ends it by a segmentation fault."""
    path = ":".join(sys.path)
    done = subprocess.run(
        [sys.executable, "-c", MEET_AT_ONCE], env={"PYTHONPATH": path}, capture_output=True, timeout=300
    )
    assert (done.returncode, done.stderr) == (0, b"")
