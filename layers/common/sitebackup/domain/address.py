"""Which addresses a request to a provider may go to.

The ranges are those of IANA's registries of special-purpose addresses:
https://www.iana.org/assignments/iana-ipv4-special-registry and https://www.iana.org/assignments/iana-ipv6-special-registry
"""

from collections.abc import Collection, Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

type Address = IPv4Address | IPv6Address
type Network = IPv4Network | IPv6Network


def _networks(*texts: str) -> tuple[Network, ...]:
    return tuple(ip_network(text) for text in texts)


_GLOBAL_IPV6 = IPv6Network("2000::/3")
"""All that is routed to everybody is in here."""
_SPECIAL = _networks(
    "0.0.0.0/8",  # this network
    "10.0.0.0/8",  # private
    "100.64.0.0/10",  # shared by carriers (CGNAT)
    "127.0.0.0/8",  # loopback
    "169.254.0.0/16",  # link-local
    "172.16.0.0/12",  # private
    "192.0.0.0/24",  # protocols
    "192.0.2.0/24",  # documentation
    "192.31.196.0/24",  # AS112
    "192.52.193.0/24",  # AMT
    "192.88.99.0/24",  # relays of 6to4
    "192.168.0.0/16",  # private
    "192.175.48.0/24",  # AS112
    "198.18.0.0/15",  # benchmarks
    "198.51.100.0/24",  # documentation
    "203.0.113.0/24",  # documentation
    "224.0.0.0/4",  # multicast
    "240.0.0.0/4",  # reserved, and broadcast
    "2001::/23",  # protocols, Teredo (2001::/32) among them
    "2001:db8::/32",  # documentation
    "2002::/16",  # 6to4
    "2620:4f:8000::/48",  # AS112
    "3fff::/20",  # documentation
)
_CLOSED = _networks(
    "100.100.100.200/32",  # metadata of Alibaba Cloud
    "168.63.129.16/32",  # of Azure
    "169.254.0.23/32",  # of Tencent Cloud
    "169.254.42.42/32",  # of Scaleway
    "169.254.169.0/24",  # of AWS, Azure, Google and others, and AWS's name server and clock
    "169.254.170.0/24",  # credentials of ECS and EKS
    "192.0.0.192/32",  # metadata of Oracle Cloud
    "64:ff9b:1::/48",  # NAT64 of one's own: which IPv4 address it leads to can't be known (RFC 8215)
    "fd00:42::42/128",  # metadata of Scaleway
    "fe80::a9fe:a9fe/128",  # of OpenStack
    "fd00:ec2::/32",  # metadata of AWS, its name server, its clock, and credentials of EKS
    "fd20:ce::254/128",  # metadata of Google
)
_LOW = _networks(
    "::/96",  # IPv4-compatible
    "::ffff:0:0/96",  # IPv4-mapped
    "::ffff:0:0:0/96",  # IPv4-translated
    "64:ff9b::/96",  # NAT64
)
"""Whose last 32 bits are an IPv4 address."""


def may_connect(address: Address, allowed: Collection[Network]) -> bool:
    """Whether the address is public or in a network that is `allowed`; of an IPv4 address that it carries as well.

    No network opens the metadata services of clouds.
    """
    return all(_is_open(each, allowed) for each in (address, *_carried(address)))


def _is_open(address: Address, allowed: Collection[Network]) -> bool:
    if _is_in(address, _CLOSED):
        return False
    is_public = address.version == 4 or address in _GLOBAL_IPV6
    return (is_public and not _is_in(address, _SPECIAL)) or _is_in(address, allowed)


def _is_in(address: Address, networks: Collection[Network]) -> bool:
    return any(address in network for network in networks)


def _carried(address: Address) -> Iterator[IPv4Address]:
    """The IPv4 addresses that packets to it may be handed on to."""
    if isinstance(address, IPv4Address):
        return
    if _is_in(address, _LOW) and not (address.is_unspecified or address.is_loopback):
        yield IPv4Address(int(address) & 0xFFFF_FFFF)
    if address.sixtofour:
        yield address.sixtofour
    if address.teredo:
        yield from address.teredo
