"""No list of URLs makes us connect to anything but the public Internet."""

import random
import socket
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import Any

import pytest

from ddpm_lightning.data.ingest.addresses import is_allowed
from tests.data.ingest.client import GIF, connections, fetch, fetch_all, listener
from tests.data.ingest.server import GifServer

RANGES = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "::/128",
    "::1/128",
    "fc00::/7",
    "fe80::/10",
    "168.63.129.16/32",
    "100.100.100.200/32",
    "192.0.0.192/32",
    "fd00:ec2::254/128",
    "fd20:ce::254/128",
    "::ffff:168.63.129.16/128",
    "64:ff9b::a83f:8110/128",
    "2002:a83f:8110::/48",
    "2002:a9fe:a9fe::/48",
    "::a9fe:a9fe/128",
    "64:ff9b:1::a9fe:a9fe/128",
    "ff00::/8",
    "2001::/32",
    "64:ff9b:1::/48",
    "::/96",
]
PUBLIC = [
    "1.1.1.1",
    "9.255.255.255",
    "11.0.0.0",
    "100.63.255.255",
    "100.128.0.0",
    "126.255.255.255",
]
PUBLIC += ["128.0.0.0", "169.253.255.255", "172.15.255.255", "172.32.0.0", "192.167.255.255"]
PUBLIC += ["168.63.129.15", "168.63.129.17"]
PUBLIC += ["192.169.0.0", "198.17.255.255", "198.20.0.0", "223.255.255.255", "2606:4700::1111"]


@pytest.mark.parametrize("network", RANGES)
def test_both_ends_of_every_special_range_are_refused(network: str) -> None:
    first, last = ip_network(network)[0], ip_network(network)[-1]
    assert not is_allowed(str(first))
    assert not is_allowed(str(last))


@pytest.mark.parametrize("address", PUBLIC)
def test_the_neighbours_of_special_ranges_are_not(address: str) -> None:
    assert is_allowed(address)


@pytest.mark.slow
def test_ipv4_inside_ipv6_is_judged_as_ipv4() -> None:
    draw = random.Random(0)
    numbers = [draw.getrandbits(32) for _ in range(2000)]
    numbers += [int(IPv4Address(address)) for address in ("127.0.0.1", "10.0.0.1", "8.8.8.8")]
    for number in numbers:
        plain = is_allowed(str(IPv4Address(number)))
        for prefix, shift in (("::ffff:0:0", 0), ("64:ff9b::", 0), ("2002::", 80)):
            wrapped = IPv6Address(int(IPv6Address(prefix)) | number << shift)
            assert is_allowed(str(wrapped)) == plain, wrapped


def test_whatever_python_calls_not_global_is_refused() -> None:
    draw = random.Random(0)
    addresses: list[IPv4Address | IPv6Address] = [
        IPv4Address(draw.getrandbits(32)) for _ in range(2000)
    ]
    addresses += [IPv6Address(draw.getrandbits(128)) for _ in range(2000)]
    addresses += [IPv6Address(0x2001 << 112 | draw.getrandbits(112)) for _ in range(2000)]
    missed = [a for a in addresses if not a.is_global and is_allowed(str(a))]
    # 2002::/16 holds IPv4 addresses, which is what counts
    assert [a for a in missed if not (isinstance(a, IPv6Address) and a.sixtofour)] == []


def test_a_zone_is_ignored() -> None:
    assert not is_allowed("fe80::1%eth0")


def test_the_switch_for_tests_allows_loopback_and_nothing_else() -> None:
    assert is_allowed("127.0.0.1", allow_loopback=True)
    assert is_allowed("::1", allow_loopback=True)
    assert not is_allowed("10.0.0.1", allow_loopback=True)
    assert not is_allowed("0.0.0.0", allow_loopback=True)


SPELLINGS = ["127.0.0.1", "localhost", "LOCALHOST", "2130706433", "0x7f000001", "0x7f.1", "127.1"]
SPELLINGS += [
    "0177.0.0.1",
    "0",
    "0.0.0.0",
    "127.0.0.1.",
    "\uff11\uff12\uff17.0.0.1",
    "[::1]",
    "[::]",
]
SPELLINGS += ["[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]"]


def test_no_spelling_of_this_machine_is_connected_to() -> None:
    seen = connections()
    with listener() as listening:
        port = listening.getsockname()[1]
        urls = [f"http://{name}:{port}/a.gif" for name in (*SPELLINGS, socket.gethostname())]
        urls += [url.replace("http", "https") for url in urls]
        results = fetch_all(urls, allow_loopback=False, max_tries=1)
        with pytest.raises(BlockingIOError):
            listening.accept()
    assert seen == []
    # 127.1 and its like are no addresses by today's rules
    assert {result.cause for result in results} <= {"forbidden_address", "bad_url", "dns"}
    assert fetch("http://127.0.0.1/", allow_loopback=False).cause == "forbidden_address"
    assert fetch("http://localhost/", allow_loopback=False).cause == "forbidden_address"


PRIVATE = ["http://10.0.0.1/", "http://192.168.1.1:80/", "http://169.254.169.254/latest/meta-data"]
PRIVATE += ["http://100.100.100.200/", "http://[fd00::2]/", "http://[::ffff:10.0.0.1]/a.gif"]


@pytest.mark.parametrize("target", PRIVATE)
def test_a_redirect_to_a_private_address_ends_there(target: str) -> None:
    with GifServer({}) as server:
        seen = connections()
        result = fetch(server.url(f"redirect?to={target}"))
        assert set(seen) == {("127.0.0.1", server.port)}
    assert (result.cause, result.transient, result.tries) == ("forbidden_address", False, 1)


def test_this_machines_own_address_in_its_network_is_not_connected_to() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagram:
        datagram.connect(("10.255.255.255", 1))  # sends nothing, only chooses our address
        own = datagram.getsockname()[0]
    if is_allowed(own, allow_loopback=True):
        pytest.skip(f"needs a private address, this machine has {own}")
    with GifServer({}) as server, listener(own) as listening:
        target = f"http://{own}:{listening.getsockname()[1]}/"
        results = fetch_all([target, server.url(f"redirect?to={target}")])
        with pytest.raises(BlockingIOError):
            listening.accept()
    assert [result.cause for result in results] == ["forbidden_address"] * 2


def names(monkeypatch: pytest.MonkeyPatch, table: dict[str, list[list[str]]]) -> None:
    """Answers for names that no resolver here would give: (name, how often asked) -> addresses."""
    asked: dict[str, int] = {}

    def look_up(host: str, port: int, *_: object, **__: object) -> list[tuple[Any, ...]]:
        asked[host] = asked.get(host, 0) + 1
        addresses = table[host][min(asked[host], len(table[host])) - 1]
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (address, port, 0, 0))
            if ":" in address
            else (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
            for address in addresses
        ]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)


def test_of_a_name_with_several_addresses_only_the_allowed_are_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names(
        monkeypatch,
        {"mixed": [["10.0.0.1", "fd00::2", "127.0.0.1"]], "bad": [["10.0.0.1", "fe80::1"]]},
    )
    with GifServer({"a.gif": GIF}) as server:
        seen = connections()
        mixed, bad = fetch_all([server.url("a.gif", "mixed"), server.url("a.gif", "bad")])
        assert seen == [("127.0.0.1", server.port)]
    assert mixed.data == GIF
    assert (bad.cause, bad.transient) == ("forbidden_address", False)


def test_a_name_that_moves_after_the_first_request_is_checked_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names(monkeypatch, {"moving": [["127.0.0.1"], ["10.0.0.1"]]})
    with GifServer({}) as server:
        seen = connections()
        result = fetch(server.url("redirect?to=http://moving:9/", "moving"))
        assert seen == [("127.0.0.1", server.port)]
    assert result.cause == "forbidden_address"
