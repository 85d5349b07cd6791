"""Which addresses providers may have."""

from ipaddress import ip_address, ip_network

import pytest

from sitebackup.domain.address import may_connect
from tests.addresses import METADATA, SPECIAL

PUBLIC = [
    *("1.1.1.1", "8.8.8.8", "52.95.110.1", "223.255.255.255"),
    *("2600:1f18::1", "2a00:1450:4001::1", "2606:4700:4700::1111", "3fff:1000::"),
]
EVERYTHING = [ip_network("0.0.0.0/0"), ip_network("::/0")]
EDGES = {
    "0.0.0.0/8": (None, "1.0.0.0"),
    "10.0.0.0/8": ("9.255.255.255", "11.0.0.0"),
    "100.64.0.0/10": ("100.63.255.255", "100.128.0.0"),
    "127.0.0.0/8": ("126.255.255.255", "128.0.0.0"),
    "169.254.0.0/16": ("169.253.255.255", "169.255.0.0"),
    "172.16.0.0/12": ("172.15.255.255", "172.32.0.0"),
    "192.0.0.0/24": ("191.255.255.255", "192.0.1.0"),
    "192.0.2.0/24": ("192.0.1.255", "192.0.3.0"),
    "192.31.196.0/24": ("192.31.195.255", "192.31.197.0"),
    "192.52.193.0/24": ("192.52.192.255", "192.52.194.0"),
    "192.88.99.0/24": ("192.88.98.255", "192.88.100.0"),
    "192.168.0.0/16": ("192.167.255.255", "192.169.0.0"),
    "192.175.48.0/24": ("192.175.47.255", "192.175.49.0"),
    "198.18.0.0/15": ("198.17.255.255", "198.20.0.0"),
    "198.51.100.0/24": ("198.51.99.255", "198.51.101.0"),
    "203.0.113.0/24": ("203.0.112.255", "203.0.114.0"),
    "224.0.0.0/3": ("223.255.255.255", None),
    "2001::/23": ("2000:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "2001:200::"),
    "2001:db8::/32": ("2001:db7:ffff:ffff:ffff:ffff:ffff:ffff", "2001:db9::"),
    "2620:4f:8000::/48": ("2620:4f:7fff:ffff:ffff:ffff:ffff:ffff", "2620:4f:8001::"),
    "3fff::/20": ("3ffe:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "3fff:1000::"),
    "::/3": (None, "2000::"),
    "4000::/2": ("3fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", None),
    "8000::/1": (None, None),
}


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_may_be_connected_to(address: str) -> None:
    assert may_connect(ip_address(address), [])


@pytest.mark.parametrize("address", [*SPECIAL, *METADATA])
def test_any_other_address_may_not(address: str) -> None:
    assert not may_connect(ip_address(address), [])


@pytest.mark.parametrize("network", EDGES)
def test_a_special_range_ends_where_the_registry_says(network: str) -> None:
    special = ip_network(network)
    assert not may_connect(special[0], [])
    assert not may_connect(special[-1], [])
    for outside in filter(None, EDGES[network]):
        assert may_connect(ip_address(outside), [])


@pytest.mark.parametrize("address", SPECIAL)
def test_a_network_that_is_allowed_opens_its_addresses_and_no_others(address: str) -> None:
    assert may_connect(ip_address(address), EVERYTHING)
    other = "10.9.0.0/16" if ":" not in address else "fd99::/16"
    assert not may_connect(ip_address(address), [ip_network(other)])


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "10.0.0.1", "169.254.171.1", "::", "::1", "fd12::1", "fe80::1"]
)
def test_an_address_that_is_named_by_itself_is_open(address: str) -> None:
    assert may_connect(ip_address(address), [ip_network(address)])


@pytest.mark.parametrize("address", METADATA)
def test_no_network_opens_a_metadata_service(address: str) -> None:
    assert not may_connect(ip_address(address), [*EVERYTHING, ip_network(address)])


@pytest.mark.parametrize(
    ("form", "network"),
    [
        ("::ffff:10.0.0.1", "::ffff:0:0/96"),
        ("::ffff:0:10.0.0.1", "::ffff:0:0:0/96"),
        ("::10.0.0.1", "::/96"),
        ("64:ff9b::10.0.0.1", "64:ff9b::/96"),
        ("2002:a00:1::", "2002::/16"),
        ("2001:0:a00:1:0:0:f7f7:f7f7", "2001::/32"),  # its server is 10.0.0.1, its client 8.8.8.8
        ("2001:0:808:808:0:0:f5ff:fffe", "2001::/32"),  # the other way round
    ],
)
def test_an_address_that_carries_another_is_open_only_if_both_are(form: str, network: str) -> None:
    outer, inner = ip_network(network), ip_network("10.0.0.1")
    assert not may_connect(ip_address(form), [inner])
    assert not may_connect(ip_address(form), [outer])
    assert may_connect(ip_address(form), [outer, inner])


def test_nat64_to_a_public_address_is_opened_by_its_prefix_alone() -> None:
    address = ip_address("64:ff9b::8.8.8.8")
    assert not may_connect(address, [])
    assert may_connect(address, [ip_network("64:ff9b::/96")])
