"""Whose address counts: a table of peers, headers and trusted proxies."""

import pytest

from shared.domain.addresses import HOPS_AT_MOST, client, networks, site

LOOPBACK = "127.0.0.1"
PROXY = "10.0.0.5"
ALL = "0.0.0.0/0, ::/0"


@pytest.mark.parametrize(
    ("peer", "forwarded", "trusted", "address"),
    [
        pytest.param(LOOPBACK, ["203.0.113.9"], "", LOOPBACK, id="nobody is trusted by default, loopback neither"),
        pytest.param("::1", ["203.0.113.9"], "", "::1", id="nor its other form"),
        pytest.param("198.51.100.1", ["203.0.113.9"], PROXY, "198.51.100.1", id="a stranger's header is nothing"),
        pytest.param(PROXY, ["203.0.113.9"], PROXY, "203.0.113.9", id="a trusted proxy is believed"),
        pytest.param(PROXY, ["203.0.113.9"], "10.0.0.0/8", "203.0.113.9", id="by its network too"),
        pytest.param(PROXY, ["203.0.113.9"], f"{LOOPBACK} , {PROXY}", "203.0.113.9", id="one of several"),
        pytest.param(PROXY, [], PROXY, PROXY, id="a proxy that says nothing is the client"),
        pytest.param(PROXY, [""], PROXY, PROXY, id="nor is an empty header anybody"),
        pytest.param(PROXY, ["1.2.3.4, 203.0.113.9"], PROXY, "203.0.113.9", id="what the client wrote is not read"),
        pytest.param(PROXY, ["1.2.3.4", "203.0.113.9"], PROXY, "203.0.113.9", id="nor in a header of its own"),
        pytest.param(PROXY, ["203.0.113.9, 10.0.0.6"], "10.0.0.0/24", "203.0.113.9", id="two trusted proxies in a row"),
        pytest.param(PROXY, ["1.2.3.4, 10.0.0.9, 203.0.113.9, 10.0.0.6"], "10.0.0.0/24", "203.0.113.9", id="and a lie"),
        pytest.param(PROXY, ["10.0.0.7, 10.0.0.6"], "10.0.0.0/24", "10.0.0.7", id="all of them trusted: the farthest"),
        pytest.param(PROXY, ["203.0.113.9 , , "], PROXY, "203.0.113.9", id="empty elements are none"),
        pytest.param(PROXY, ["unknown"], PROXY, PROXY, id="what is no address is nobody"),
        pytest.param(PROXY, ["203.0.113.9, _hidden"], PROXY, PROXY, id="and hides what stands before it"),
        pytest.param(PROXY, ["203.0.113.9:4711"], PROXY, "203.0.113.9", id="with a port"),
        pytest.param(PROXY, ["[2001:db8::1]:4711"], PROXY, "2001:db8::1", id="IPv6 with a port"),
        pytest.param(PROXY, ["2001:DB8::0:1"], PROXY, "2001:db8::1", id="IPv6 in its one form"),
        pytest.param(PROXY, ["fe80::1%\x1b[31m"], PROXY, "fe80::1", id="no zone, which may be any text"),
        pytest.param("::ffff:10.0.0.5", ["203.0.113.9"], PROXY, "203.0.113.9", id="IPv4 on an IPv6 socket"),
        pytest.param(PROXY, ["::ffff:203.0.113.9"], PROXY, "203.0.113.9", id="and told of so"),
        pytest.param("", ["203.0.113.9"], ALL, "", id="a Unix socket has no address that could be trusted"),
        pytest.param(PROXY, [f"1.2.3.4,{f'{PROXY},' * 5000}"], PROXY, PROXY, id=f"{HOPS_AT_MOST} hops at most"),
    ],
)  # fmt: skip
def test_whose_address_counts(peer: str, forwarded: list[str], trusted: str, address: str) -> None:
    assert client(peer, forwarded, networks(trusted)) == address


@pytest.mark.parametrize("text", ["10.0.0.1/8", "proxy.example.com", "10.0.0.0/33", "10.0.0.1 10.0.0.2", "*"])
def test_what_is_no_network_is_refused_by_its_name(text: str) -> None:
    with pytest.raises(ValueError, match="with commas between") as refused:
        networks(f"127.0.0.1, {text}")
    assert text in str(refused.value)


def test_all_addresses_of_one_ipv6_client_are_one() -> None:
    assert site("2001:db8:0:1::1") == site("2001:db8:0:1:ffff::2") != site("2001:db8:0:2::1")
    assert site("203.0.113.9") == "203.0.113.9"
    assert site("") == ""
