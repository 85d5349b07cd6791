"""How large an export may be: which limit counts, and how an export over it is refused."""

import pytest

from sitebackup.domain.errors import Permanent
from sitebackup.domain.plan import MAX_OBJECT_SIZE
from sitebackup.domain.provider import Provider
from sitebackup.domain.reason import Code
from sitebackup.transfer.limits import check_size, size_limit
from tests.builders import a_job


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
    provider = Provider(name="site", export_url="http://site", max_bytes=of_provider)
    assert size_limit(a_job(max_bytes=of_job), provider, of_service) == limit


def test_an_export_over_the_limit_is_refused_with_both_numbers() -> None:
    check_size(10, 10)
    with pytest.raises(Permanent) as raised:
        check_size(11, 10)
    assert raised.value.reason.code is Code.SIZE_LIMIT_EXCEEDED
    assert raised.value.reason.message == "The export has 11 bytes; the limit is 10 bytes."
    with pytest.raises(Permanent) as raised:
        check_size(11, 10, at_least=True)
    assert "at least 11 bytes" in raised.value.reason.message
