"""How values become documents, and times what the database keeps of them."""

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
