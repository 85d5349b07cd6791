"""The providers that the settings list."""

import json
from typing import Any

import msgspec
import pytest

from sitebackup.domain.errors import Permanent
from sitebackup.domain.provider import NAME_FORM, Provider, ProvidersError, parse_providers, provider_of
from sitebackup.domain.reason import Code
from tests.unit.jobs import DB, SITE

ENTRY = {"name": "site", "exportUrl": "https://site/{userId}/{siteId}?chunk={chunkSize}"}
EVERYTHING = {
    **ENTRY,
    "format": "any",
    "importUrl": "http://site:8080/{userId}/{siteId}/import",
    "importStatus": True,
    "authSecretArn": "arn:aws:secretsmanager:us-east-1:111122223333:secret:site",
    "maxBytes": 1,
    "partsInFlight": 1000,
    "redirectHosts": ["files.example.com", "10.0.0.1"],
    "allowNetworks": ["10.0.0.0/8", "192.168.1.7", "fd00::/8"],
}
IMPORT_URL = (
    "must be a URL that begins with http:// or https:// and a host without placeholders, "
    "and has no white space"
)
URL = "must be a URL that begins with http:// or https:// and a host, and has no white space"
HOST = "must be a host, without a port"
NETWORK = "must be a network like 10.0.0.0/8 or fd00::/8, with no bit set behind its prefix"
LISTED = {"site": Provider(name="site", export_url="http://provider/{siteId}")}


def test_a_task_is_given_its_provider_and_fails_if_the_settings_no_longer_list_it() -> None:
    assert provider_of(SITE, LISTED) is LISTED["site"]
    with pytest.raises(Permanent, match=r"^No provider db is configured\.$") as raised:
        provider_of(DB, LISTED)
    assert raised.value.reason.code is Code.PROVIDER_UNKNOWN


def test_a_provider_says_where_its_export_and_its_import_api_are() -> None:
    (provider,) = parse_providers(json.dumps([EVERYTHING])).values()
    assert provider.url("u", "s", 5) == "https://site/u/s?chunk=5"
    assert provider.import_target("u", "s") == "http://site:8080/u/s/import"
    (without,) = parse_providers(json.dumps([ENTRY])).values()
    with pytest.raises(ValueError, match="no import API"):
        without.import_target("u", "s")


def test_a_list_of_providers_is_read_whole_and_in_its_order() -> None:
    assert EVERYTHING.keys() == {field.encode_name for field in msgspec.structs.fields(Provider)}
    listed = [EVERYTHING, {**ENTRY, "name": "db"}, {**ENTRY, "name": "a" * 32}]
    providers = parse_providers(json.dumps(listed).encode())
    assert list(providers) == ["site", "db", "a" * 32]
    assert json.loads(msgspec.json.encode(list(providers.values()))) == listed


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "Site"}, f"name: must be {NAME_FORM}"),
        ({"name": "site\n"}, f"name: must be {NAME_FORM}"),
        ({"name": "a" * 33}, f"name: must be {NAME_FORM}"),
        ({"exportUrl": "ftp://site"}, f"exportUrl: {URL}"),
        ({"exportUrl": "https://"}, f"exportUrl: {URL}"),
        ({"exportUrl": "https:///export"}, f"exportUrl: {URL}"),
        ({"exportUrl": "https://site/a b"}, f"exportUrl: {URL}"),
        ({"exportUrl": "https://site/\n"}, f"exportUrl: {URL}"),
        ({"importUrl": "site/import"}, f"importUrl: {IMPORT_URL}"),
        ({"importUrl": ""}, f"importUrl: {IMPORT_URL}"),
        ({"importUrl": "https://{siteId}.example.com/import"}, f"importUrl: {IMPORT_URL}"),
        ({"importStatus": "yes"}, "importStatus: must be true or false"),
        ({"authSecretArn": ""}, "authSecretArn: must be the ARN of a Secrets Manager secret"),
        ({"maxBytes": 0}, "maxBytes: must be a whole number of bytes, at least 1"),
        ({"partsInFlight": 1001}, "partsInFlight: must be a whole number from 1 to 1000"),
        ({"format": "tar"}, "format: must be zip or any"),
        ({"redirectHosts": "files"}, "redirectHosts: must be a list of hosts, without ports"),
        ({"redirectHosts": ["files", "files:443"]}, f"redirectHosts[1]: {HOST}"),
        ({"redirectHosts": ["https://files"]}, f"redirectHosts[0]: {HOST}"),
        ({"allowNetworks": "10.0.0.0/8"}, "allowNetworks: must be a list of networks"),
        ({"allowNetworks": [7]}, f"allowNetworks[0]: {NETWORK}"),
        ({"allowNetworks": ["10.0.0.0/8", "10.0.0.1/8"]}, f"allowNetworks[1]: {NETWORK}"),
        ({"allowNetworks": ["10.0.0.0/33"]}, f"allowNetworks[0]: {NETWORK}"),
        ({"allowNetworks": ["localhost"]}, f"allowNetworks[0]: {NETWORK}"),
        ({"allowNetworks": [""]}, f"allowNetworks[0]: {NETWORK}"),
        ({"color": "red"}, "color: unknown field"),
    ],
)
def test_a_wrong_field_of_a_provider_is_named_with_what_it_must_be(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ProvidersError) as raised:
        parse_providers(json.dumps([{**ENTRY, "name": "first"}, {**ENTRY, **changes}]))
    assert str(raised.value) == f"providers[1].{message}"


@pytest.mark.parametrize("field", [field.encode_name for field in msgspec.structs.fields(Provider)])
def test_every_field_of_a_provider_has_a_description_for_errors(field: str) -> None:
    with pytest.raises(ProvidersError, match=rf"^providers\[0\]\.{field}: must be [a-z]"):
        parse_providers(json.dumps([{field: {"of": "no use"}}]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "providers: not valid JSON"),
        ("[", "providers: not valid JSON"),
        ("\ufeff[]", "providers: not valid JSON"),
        ("{}", "providers: must be a JSON list"),
        ("null", "providers: must be a JSON list"),
        ("[]", "providers: must list at least one"),
        ("[7]", "providers[0]: must be a JSON object"),
        ('[{"name": "site"}]', "providers[0].exportUrl: required"),
        (b'[{"name": "\xff"}]', "providers: not valid UTF-8"),
        ("[" * 200_000, "providers: nested too deeply"),
        ("[" * 200_000 + "]" * 200_000, "providers: nested too deeply"),
        (json.dumps([ENTRY, {**ENTRY, "name": "db"}, ENTRY]), "providers[2].name: site is listed twice"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_is_no_list_of_providers_is_refused_with_what_is_wrong_about_it(
    text: str | bytes, message: str
) -> None:
    with pytest.raises(ProvidersError) as raised:
        parse_providers(text)
    assert str(raised.value).startswith(message)
