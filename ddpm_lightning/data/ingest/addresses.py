"""Which addresses a list of URLs from strangers may reach: those of the public Internet only.

Everything else - this machine, its network, a cloud's metadata service and its platform - is
refused, also when it hides inside IPv6 (mapped, 6to4, NAT64). The ranges are IANA's special-purpose
registries, written out because what Python's ipaddress calls global differs from one patch release
to the next. Names are not known here: an address is checked where the socket to it is opened, so
nothing can change between the check and the connection.
"""

import errno
import socket
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

AddressInfo = tuple[int, int, int, str, tuple[object, ...]]  # as socket.getaddrinfo returns them

_REFUSED: list[tuple[IPv4Network | IPv6Network, str]] = [
    (ip_network(network), name)
    for network, name in (
        ("0.0.0.0/8", "unspecified"),
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "carrier-grade NAT"),
        ("127.0.0.0/8", "loopback"),
        ("168.63.129.16/32", "a cloud's platform"),  # Azure's, at a public address
        ("169.254.0.0/16", "link-local"),
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "reserved"),
        ("192.0.2.0/24", "documentation"),
        ("192.88.99.0/24", "reserved"),  # 6to4 relays, withdrawn
        ("192.168.0.0/16", "private"),
        ("198.18.0.0/15", "benchmarking"),
        ("198.51.100.0/24", "documentation"),
        ("203.0.113.0/24", "documentation"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved"),  # and broadcast
        ("::/128", "unspecified"),
        ("::1/128", "loopback"),
        ("2001::/23", "reserved"),  # Teredo, ORCHID, benchmarking
        ("2001:db8::/32", "documentation"),
        ("3fff::/20", "documentation"),
        ("fc00::/7", "private"),
        ("fe80::/10", "link-local"),
        ("fec0::/10", "private"),
        ("ff00::/8", "multicast"),
    )
]
_GLOBAL_UNICAST = IPv6Network("2000::/3")
_EMBEDDED = [  # (network, how far to shift the address for the IPv4 address inside it)
    (IPv6Network("::ffff:0:0/96"), 0),  # mapped
    (IPv6Network("64:ff9b::/96"), 0),  # NAT64
    (IPv6Network("2002::/16"), 80),  # 6to4
]


class ForbiddenAddressError(OSError):
    """An address outside the public Internet; str() names it and its range."""

    def __init__(self, address: str, name: str) -> None:
        super().__init__(errno.EACCES, f"{address} is {name}")


def forbidden(address: str, allow_loopback: bool = False) -> str | None:
    """The name of the range for which an address is refused; None if it may be reached.

    Args:
        address: IPv4 or IPv6, in numbers; an IPv6 zone (%eth0) is ignored.
        allow_loopback: for tests, whose servers run on this machine.
    """
    try:
        number = _embedded(ip_address(address))
    except ValueError:
        return "no address"
    name = _range(number)
    return None if allow_loopback and name == "loopback" else name


def socket_opener(allow_loopback: bool) -> Callable[[AddressInfo], socket.socket]:
    """A function that opens the socket for one address, or raises ForbiddenAddressError."""

    def open_socket(info: AddressInfo) -> socket.socket:
        family, kind, protocol, _, address = info
        if name := forbidden(str(address[0]), allow_loopback):
            raise ForbiddenAddressError(str(address[0]), name)
        return socket.socket(family, kind, protocol)

    return open_socket


def _embedded(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    for network, shift in _EMBEDDED:
        if address in network:
            return IPv4Address(int(address) >> shift & 0xFFFFFFFF)
    return address


def _range(address: IPv4Address | IPv6Address) -> str | None:
    for network, name in _REFUSED:
        if address in network:
            return name
    return None if address.version == 4 or address in _GLOBAL_UNICAST else "reserved"
