"""The worst input of a stranger for what reads it: texts, and JSON."""

from collections.abc import Iterator
from functools import cache
from typing import Any

from starlette.requests import Request

from api.http import reading
from api.http.reading import BODY_LIMIT
from shared.domain import reschedule_requests

HEAD = 64 * 1024
"""Bytes of a request's head, and so of any path, query and header (api/http/connection_bounds.py)."""


def of(unit: str, size: int = HEAD, tail: str = "") -> str:
    """`unit` again and again, up to `size` characters."""
    return (unit * (size // len(unit) + 1))[: size - len(tail)] + tail


UNITS = (
    *("a", "A", "0", "1", " ", "\t", "\n", "\0", '"', "'", ",", ";", ":", "=", "/", "\\", ".", "-", "_", "@", "%", "["),
    *(
        "a-",
        "a.",
        "a_",
        "a ",
        "a,",
        "a@",
        "a:",
        "a/",
        "é",
        "\u202e",
        "\udcff",
        '"a",',
        '""',
        '" ',
        "W/",
        'W/"a" ',
        ", ",
    ),
    *(
        "://",
        "a://",
        "a://b@",
        "a://b@c/",
        "sk_",
        "sk_a ",
        "Bearer ",
        "Bearer\t",
        "wait=1;",
        "wait = ",
        ' wait="1"',
        "9",
    ),
    *("P1D", "P1DT", "1W", "T1H", "2030-01-01T00:00", "2030-", "[::", "post_", "post_a_", "<", "%20", "q=", "\\u0041"),
)
TAILS = ("", "\n", "!", '"', "x", " x", "\x00")
WORST = [of(unit, tail=tail) for unit in UNITS for tail in TAILS]


def asked(query: str = "", method: str = "GET", **headers: str | list[str]) -> Request:
    """A request with these headers, as uvicorn hands them on."""
    raw = [
        (name.replace("_", "-").encode(), value.encode("latin-1", "replace"))
        for name, values in headers.items()
        for value in ([values] if isinstance(values, str) else values)
    ]
    scope = {
        "type": "http",
        "method": method,
        "path": "/v1/posts",
        "headers": raw,
        "query_string": query.encode("utf-8", "replace"),
    }
    return Request(scope)


def many(count: int) -> Iterator[str]:
    return (f"{number:05x}" for number in range(count))


def names(size: int, *, twice: bool = False) -> bytes:
    """An object of as many short names as there is room for; `twice`: the last stands there again."""
    found = [f'"{name}":1' for name in many(size // 10 - 2)]
    return ("{" + ",".join(found + found[-1:] * twice) + "}").encode()


@cache
def hostile(size: int) -> dict[str, bytes]:
    """JSON that is hard to read, of this many bytes."""
    return {
        "names": names(size),
        "names, one twice": names(size, twice=True),
        "one name again and again": b"{" + b'"a":1,' * (size // 6 - 1) + b'"a":1}',
        "objects with a name twice": b"[" + b'{"a":1,"a":1},' * (size // 14 - 1) + b"1]",
        "arrays": b"[" + b"[]," * (size // 3 - 2) + b"[]]",
        "objects": b"[" + b"{}," * (size // 3 - 2) + b"{}]",
        "as many objects as may be": b"[" + b'{"a":1},' * min(size // 8 - 1, reading.PARTS_MAX // 3 - 1) + b"1]",
        "as many arrays as may be": b"[" + b"[]," * min(size // 3 - 2, reading.PARTS_MAX // 2 - 1) + b"1]",
        "as many numbers as may be": b"[" + b"1234567890," * min(size // 11 - 1, reading.PARTS_MAX - 2) + b"1]",
        "depth": b"[" * size,
        "depth of objects": b'{"a":' * (size // 5),
        "numbers": b"[" + b"1," * (size // 2 - 2) + b"1]",
        "fractions": b"[" + b"1e9," * (size // 4 - 2) + b"1]",
        "a number without end": b"[" + b"9" * (size - 2) + b"]",
        "a fraction without end": b"[0." + b"9" * (size - 4) + b"]",
        "an exponent without end": b"[1e" + b"9" * (size - 4) + b"]",
        "numbers that are too long": b"[" + (b"9" * 4_300 + b",") * (size // 4_301 - 1) + b"1]",
        "numbers as long as may be": b"["
        + (b"9" * reading.DIGITS_MAX + b",") * (size // (reading.DIGITS_MAX + 1) - 1)
        + b"1]",
        "escapes": b'["' + b"\\u0041" * (size // 6 - 1) + b'"]',
        "half surrogates": b'["' + b"\\ud800" * (size // 6 - 1) + b'"]',
        "backslashes": b'["' + b"\\\\" * (size // 2 - 2) + b'"]',
        "spaces": b" " * size,
        "an open string": b'["' + b"a" * (size - 2),
        "broken at the end, after many lines": b"[\n" * 10 + b"\n" * (size - 40) + b"!",
        "no UTF-8 at the end": b'["' + b"a" * (size - 3) + b"\xff",
    }


TEXTS = [of(unit, BODY_LIMIT) for unit in UNITS]
ITEMS = reschedule_requests.MOST_ITEMS
WRONG = {f"k{number:03}": 1 for number in range(20)}
JOBS: dict[str, Any] = {
    "ids, all different": {"filter": {"postIds": list(many(ITEMS))}, "shift": "P1D"},
    "ids, all the same": {"filter": {"postIds": ["post_1"] * ITEMS, "accountIds": ["a"] * ITEMS}, "shift": "P1D"},
    "items, all the same": {
        "items": [{"postId": "a", "scheduledTime": "2030-01-01T00:00", "timezone": "Asia/Tokyo"}] * ITEMS
    },
    "items, all wrong": {"items": [{"postId": "", "scheduledTime": "2030-02-30T00:00", "timezone": "Mars"}] * ITEMS},
    "items of names that are none": {"items": [WRONG] * ITEMS},
    "items of near misses": {"items": [{"posttId": "a", "scheduledTimee": "b", "timezonee": "c"}] * ITEMS},
    "items that are none": {"items": [1] * ITEMS},
    "times that clocks skip": {
        "items": [
            {"postId": name, "scheduledTime": "2030-03-10T02:30", "timezone": "America/New_York"}
            for name in many(ITEMS)
        ]
    },
    "long ids": {"filter": {"postIds": [of("a", 200, tail=name) for name in many(ITEMS)]}, "shift": "P1D"},
}
