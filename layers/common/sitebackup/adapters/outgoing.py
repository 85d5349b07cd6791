"""Connections to providers, which reach only addresses that the provider may have."""

import socket
from collections.abc import Callable, Collection, Sequence
from ipaddress import ip_address
from time import monotonic
from typing import Any

from ..domain.address import Network, may_connect

type SocketAddress = tuple[Any, ...]
"""As a socket of its family takes it; begins with the IP address."""
type Options = Collection[tuple[int, int, int | bytes]]
"""As `setsockopt` takes them."""
type Resolve = Callable[[str, int], Sequence[tuple[int, SocketAddress]]]
"""The (family, address) pairs of a host and a port. Raises OSError."""


class AddressRefused(Exception):
    """None of the addresses of a host may be connected to."""

    def __init__(self, addresses: Collection[str]) -> None:
        super().__init__("none of its addresses may be connected to")
        self.addresses = addresses


def look_up(host: str, port: int) -> list[tuple[int, SocketAddress]]:
    """What the machine's resolver says. It reads numbers of every kind, such as 0x7f.1, as addresses."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:
        raise OSError("the host has a label that is empty or too long") from error
    return [(family, address) for family, _, _, _, address in found]


class Guard:
    """Connects to hosts of one provider, or of several with the same networks."""

    def __init__(self, allowed: Collection[Network], resolve: Resolve = look_up) -> None:
        """`allowed` networks are open although they are not public, save metadata services."""
        self._allowed = allowed
        self._resolve = resolve

    def connect(self, host: str, port: int, timeout: float, options: Options = ()) -> socket.socket:
        """A connection to one of the very addresses that were checked: the host is looked up once.

        Those that may not be connected to are passed over. The others share `timeout` (seconds), which counts from
        the look-up. Raises AddressRefused if there is no other, or OSError.
        """
        found = self._resolve(host, port)
        open_to = [each for each in found if may_connect(ip_address(each[1][0]), self._allowed)]
        if found and not open_to:
            raise AddressRefused([str(address[0]) for _, address in found])
        until, failed = monotonic() + timeout, OSError("the host has no address")
        for position, (family, address) in enumerate(open_to):
            share = max((until - monotonic()) / (len(open_to) - position), 0.001)
            try:
                connection = _connected(family, address, share, options)
            except OSError as error:
                failed = error
            else:
                connection.settimeout(timeout)
                return connection
        raise failed


def _connected(family: int, address: SocketAddress, timeout: float, options: Options) -> socket.socket:
    connection = socket.socket(family, socket.SOCK_STREAM)
    try:
        for option in options:
            connection.setsockopt(*option)
        connection.settimeout(timeout)
        connection.connect(address)
    except OSError:
        connection.close()
        raise
    return connection
