"""The client address of a request that came through proxies (docs/security.md)."""

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

HOPS_AT_MOST: Final = 32
"""Longer chains of proxies do not exist. A client may send a longer header; the rest of it is not read."""
_SITE: Final = 64


def networks(text: str) -> tuple[Network, ...]:
    """`10.0.0.0/8, 2001:db8::1` as networks; an address alone is a network of one. ValueError names what is none."""
    found: list[Network] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        try:
            found.append(ip_network(part))
        except ValueError as error:
            example = "write addresses and networks with commas between: 10.0.0.5, 10.1.0.0/16"
            raise ValueError(f"{error}; {example}") from None
    return tuple(found)


def client(peer: str, forwarded: Iterable[str], trusted: Sequence[Network]) -> str:
    """The client's address: the peer, or what X-Forwarded-For says where the peer is a trusted proxy.

    `peer`: the connection's other end, empty for none (a Unix socket). `forwarded`: each X-Forwarded-For header of the
    request, in order. Each proxy appends the address of its own peer. So the list is read from its right end, for as
    long as a trusted proxy wrote the entry. An entry that is no address ends the reading.
    """
    address = _address(peer)
    if address is None or not _any(trusted, address):
        return peer if address is None else str(address)
    # A list over several headers is the same as one list (RFC 9110, 5.3), and empty elements are none (5.6.1).
    hops = [hop for hop in (hop.strip() for hop in ",".join(forwarded).split(",")) if hop]
    for hop in reversed(hops[-HOPS_AT_MOST:]):
        hop_address = _address(hop)
        if hop_address is None:
            break
        address = hop_address
        if not _any(trusted, address):
            break
    return str(address)


def site(address: str) -> str:
    """The network that one client controls: a /64 for IPv6, the address itself for IPv4. Other text is returned."""
    found = _address(address)
    return str(IPv6Network((found, _SITE), strict=False)) if isinstance(found, IPv6Address) else address


def _any(trusted: Sequence[Network], address: Address) -> bool:
    return any(address in network for network in trusted)


def _address(text: str) -> Address | None:
    """An address as proxies write it: bare, `192.0.2.1:443`, `[2001:db8::1]` or `[2001:db8::1]:443`."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address
