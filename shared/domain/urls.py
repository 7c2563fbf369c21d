"""The URLs that a post may hold (docs/api.md). Pure: no name is resolved and nothing is fetched."""

import re
import unicodedata
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Final

MAX_URL: Final = 2_048

# Besides white space and controls: what a URL shows differently from what it is (zero width, direction), and the
# backslash, which browsers take for a slash and other parsers do not.
_UNSAFE_IN_URL: Final = re.compile(r"[\s\x00-\x20\x7f-\x9f\\\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]")
# ASCII: without it, ignoring case lets the long s (U+017F) pass for an s.
_URL: Final = re.compile(r"https?://([^/?#]*)", re.IGNORECASE | re.ASCII)
_AUTHORITY: Final = re.compile(r"(\[[^\[\]]*\]|[^:\[\]]*)(?::([0-9]{1,5}))?")
_LABEL: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_NUMBER: Final = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")
# Most URLs: a name of a few labels, no port, printable ASCII. One match is a third of the cost of all rules.
_USUAL: Final = re.compile(
    r"https?://(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.){1,3}[a-z]{2,24}(?:[/?#][!-\[\]-~]*)?", re.ASCII
)


def is_usual(url: str) -> bool:
    """Whether it is good at a glance. False says nothing: ask `fault_of`."""
    return len(url) <= MAX_URL and _USUAL.fullmatch(url) is not None


def fault_of(url: str) -> str | None:
    """What is wrong with it, to be read after its field's name; None for a URL with http or https, at most 2,048
    characters, a host (name, IPv4, [IPv6]), a port from 1 to 65535 if any, no credentials, no white space, control
    character or backslash. Unicode in host and path may stand as it is. `url` holds no lone surrogate.
    """
    if len(url) > MAX_URL:
        return f"may have at most {MAX_URL:,} characters and has {len(url):,}"
    if _UNSAFE_IN_URL.search(url):
        return "must not contain white space, control characters or backslashes; percent-encode them"
    found = _URL.match(url)
    if found is None:
        return "must be a URL that begins with http:// or https://"
    authority = found[1]
    if "@" in authority:
        return "must not contain a user name or password; take out what stands before the @"
    parts = _AUTHORITY.fullmatch(authority)
    if parts is None or (parts[2] is not None and not 1 <= int(parts[2]) <= 65_535):
        return "must have a host and, if any, a port from 1 to 65535 after https://"
    return None if _is_host(parts[1]) else "must have a host name or an IP address after https://"


def _is_host(host: str) -> bool:
    """A name (RFC 1123, underscores allowed, one dot at the end too), an IPv4 address, or a bracketed IPv6 address."""
    try:
        if host.startswith("["):
            IPv6Address(host[1:-1])
            return "%" not in host  # a zone (RFC 6874) means something on its own machine only
        labels = host.removesuffix(".").split(".")
        if _NUMBER.fullmatch(labels[-1]):  # what resolvers read as a number, so that 256.1.1.1 is no name
            IPv4Address(host)
            return True
    except AddressValueError:
        return False
    if len(host) > 254:
        return False
    if host.isascii():
        return all(_LABEL.fullmatch(label) for label in labels)
    # An internationalised name: letters, marks and digits, none of which turns into a dot or a slash when normalised.
    return (
        all(labels)
        and unicodedata.is_normalized("NFKC", host)
        and all(character in "-._" or unicodedata.category(character)[0] in "LMN" for character in host)
    )
