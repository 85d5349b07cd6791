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
