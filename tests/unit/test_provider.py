"""The providers that the settings list."""

import pytest

from sitebackup.domain.errors import Permanent
from sitebackup.domain.provider import Provider, provider_of
from sitebackup.domain.reason import Code
from tests.unit.jobs import DB, SITE

LISTED = {"site": Provider(name="site", export_url="http://provider/{siteId}")}


def test_a_task_is_given_its_provider_and_fails_if_the_settings_no_longer_list_it() -> None:
    assert provider_of(SITE, LISTED) is LISTED["site"]
    with pytest.raises(Permanent, match=r"^No provider db is configured\.$") as raised:
        provider_of(DB, LISTED)
    assert raised.value.reason.code is Code.PROVIDER_UNKNOWN


def test_an_import_goes_to_the_site_at_the_import_api_if_there_is_one() -> None:
    provider = LISTED["site"].replace(import_url="http://provider/{userId}/{siteId}/import")
    assert provider.import_target("u", "s") == "http://provider/u/s/import"
    with pytest.raises(ValueError, match=r"^site has no import API$"):
        LISTED["site"].import_target("u", "s")


def test_an_export_is_that_of_the_site_and_may_be_told_the_size_of_a_chunk() -> None:
    provider = LISTED["site"].replace(export_url="http://provider/{userId}/{siteId}?chunk={chunkSize}")
    assert provider.url("u", "s", 5) == "http://provider/u/s?chunk=5"
