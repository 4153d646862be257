"""Which addresses a list of URLs from strangers may reach: those of the public Internet only.

Everything else - this machine, its network, a cloud's metadata service and its platform - is
refused, also when it hides inside IPv6 (mapped, 6to4, NAT64). Names are not known here: an address
is checked where the socket to it is opened, so nothing can change between the check and the
connection.
"""

import errno
import socket
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

AddressInfo = tuple[int, int, int, str, tuple[object, ...]]  # as socket.getaddrinfo returns them

REFUSED = errno.EACCES  # of the OSError that a forbidden address raises

_REFUSED_TOO = [
    ip_network("168.63.129.16/32"),  # Azure's platform, at a public address
    ip_network("192.88.99.0/24"),  # relays of 6to4; public to older Pythons, as the next two are
    ip_network("3fff::/20"),  # documentation
    ip_network("192.0.0.0/24"),  # with Oracle's metadata; public to Python before 3.11.9
]
_GLOBAL_UNICAST = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")


def is_allowed(address: str, allow_loopback: bool = False) -> bool:
    """Return whether an address may be reached.

    Args:
        address: IPv4 or IPv6, in numbers; an IPv6 zone (%eth0) is ignored.
        allow_loopback: for tests, whose servers run on this machine.
    """
    number = ip_address(address)
    if isinstance(number, IPv6Address):
        number = number.ipv4_mapped or number.sixtofour or _behind_nat64(number) or number
    if number.is_loopback:
        return allow_loopback
    if number.is_multicast or any(number in network for network in _REFUSED_TOO):
        return False
    return number.is_global and (number.version == 4 or number in _GLOBAL_UNICAST)


def socket_opener(allow_loopback: bool) -> Callable[[AddressInfo], socket.socket]:
    """A function that opens the socket for one address, or raises OSError with errno REFUSED."""

    def open_socket(info: AddressInfo) -> socket.socket:
        family, kind, protocol, _, address = info
        if not is_allowed(str(address[0]), allow_loopback):
            raise OSError(REFUSED, f"{address[0]} is not public")
        return socket.socket(family, kind, protocol)

    return open_socket


def _behind_nat64(address: IPv6Address) -> IPv4Address | None:
    return IPv4Address(int(address) & 0xFFFFFFFF) if address in _NAT64 else None
