"""No input of a stranger costs more than linear work: what reads his bytes, against the worst of them, by CPU time.

The bounds are some twenty times what linear work takes here; quadratic work at these sizes misses them a hundredfold.
"""

import gc
import importlib
import io
import itertools
import json
import pkgutil
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any

import pytest
from fastapi.dependencies.utils import request_params_to_args
from fastapi.exceptions import RequestValidationError
from starlette.datastructures import QueryParams
from starlette.requests import Request

import api
import shared
from api import app, many_edits, posts
from api.http import authentication, cursors, headers, pagination, reading
from api.http.cursors import Seal
from api.http.reading import BODY_LIMIT, BULK_BODY_LIMIT
from api.models.creation import NewSlideshows, NewVideos
from api.models.deletion import Deletion
from api.models.edits import PostPatch, parse_patch
from api.models.holds import NewHold
from api.models.many_edits import EDITS_AT_MOST, parse_edits, parse_item
from api.ops import access
from shared.broker import answers, doorbells
from shared.cli import reschedule_csv
from shared.domain import (
    body_reading,
    captions,
    edit_histories,
    errors,
    guessing,
    hints,
    reschedule_requests,
    service_answers,
    times,
    urls,
)
from shared.domain.errors import RedraftError
from shared.settings import Settings
from shared.store import keys as keys_store
from shared.store.keys import Key
from shared.telemetry import scrubbing
from tests.test_house import PRODUCT

HEAD = 64 * 1024
"""Bytes of a request's head, and so of any path, query and header (api/http/connection_bounds.py)."""

WITHIN = 0.1
"""Seconds of CPU for what a head or a body of 128 KiB holds."""

BULK_WITHIN = 2.0
"""Seconds of CPU for 2 MiB."""


@contextmanager
def cut_off(seconds: float) -> Iterator[None]:
    """Ends what takes far too long, so that a failure costs seconds and not the quarter of an hour that it would."""

    def over(*_: object) -> None:
        raise AssertionError(f"more than {seconds} s of CPU, and no end in sight")

    before = signal.signal(signal.SIGPROF, over)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def affordable(call: Callable[[], Any], within: float) -> bool:
    """Whether to accept or to refuse takes that many seconds of CPU at most. A core that is shared may try again."""
    return any(cost(call, within) < within for _ in range(3))


def cost(call: Callable[[], Any], within: float) -> float:
    # A collection looks at all that the tests of this run have made so far.
    gc.disable()
    with cut_off(50 * within), suppress(RedraftError, reschedule_csv.BadFileError):
        began = time.thread_time()
        try:
            call()
        finally:
            took = time.thread_time() - began
            gc.enable()
    return took


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


# -- Regular expressions


def patterns() -> Iterator[tuple[str, re.Pattern[Any], set[str]]]:
    """Each compiled pattern of api/ and shared/, with the ways in which its module uses it."""
    for room in (api, shared):
        for found in pkgutil.walk_packages(room.__path__, f"{room.__name__}."):
            name = f"{found.name.replace('.', '/')}.py"
            if "re.compile(" not in PRODUCT.get(name, ""):
                continue
            module = importlib.import_module(found.name)
            for variable, value in vars(module).items():
                if isinstance(value, re.Pattern):
                    ways = set(re.findall(rf"\b{variable}\.(\w+)\b", PRODUCT[name])) or {"subn"}
                    yield f"{found.name}:{variable}", value, ways - {"groups"}


PATTERNS = list(patterns())


def test_every_regular_expression_is_known_here() -> None:
    """Compiled once, under a name: no other stands anywhere."""
    compiled = sum(
        len(re.findall(r"re\.compile\(", source)) for name, source in PRODUCT.items() if "worker/" not in name
    )
    assert compiled == len(PATTERNS)
    assert compiled >= 15
    loose = re.compile(r"\bre\.(match|search|sub|subn|split|findall|finditer|fullmatch)\(")
    assert [name for name, source in PRODUCT.items() if loose.search(source)] == []


@pytest.mark.parametrize(("pattern", "ways"), [pytest.param(two, three, id=one) for one, two, three in PATTERNS])
def test_a_regular_expression_takes_linear_time(pattern: re.Pattern[Any], ways: set[str]) -> None:
    for text in WORST:
        given = text.encode("utf-8", "surrogatepass") if isinstance(pattern.pattern, bytes) else text
        for way in ways:
            call = getattr(pattern, way)
            arguments = ("", given) if way in ("sub", "subn") else (given,)
            assert affordable(lambda c=call, a=arguments: c(*a), WITHIN), (way, text[:20], text[-2:])  # type: ignore[misc]


def documented(node: Any) -> Iterator[str]:
    """The patterns that the contract gives to clients, who run them over bytes of strangers too."""
    if isinstance(node, dict):
        if isinstance(node.get("pattern"), str):
            yield node["pattern"]
        for below in node.values():
            yield from documented(below)
    elif isinstance(node, list):
        for below in node:
            yield from documented(below)


@pytest.mark.parametrize("pattern", sorted(set(documented(app._built.openapi()))))
def test_a_documented_pattern_takes_linear_time(pattern: str) -> None:
    compiled = re.compile(pattern)
    for text in WORST:
        assert affordable(lambda t=text: compiled.search(t), WITHIN), text[:20]  # type: ignore[misc]


ROUTES = app._built.routes


@pytest.mark.parametrize("number", range(len(ROUTES)))
def test_a_route_is_found_in_linear_time(number: int) -> None:
    route: Any = ROUTES[number]
    paths = ["/v1/posts/" + of(unit) for unit in UNITS] + [
        "/" + of(unit) for unit in ("/", "v1/", "posts/", "/v1/posts")
    ]
    scopes = [{"type": "http", "method": "GET", "path": path, "root_path": ""} for path in paths]
    if hasattr(route, "matches"):
        assert all(affordable(lambda s=scope: route.matches(s), WITHIN) for scope in scopes)  # type: ignore[misc]


# -- What reads a head


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


LIST: Any = next(route for route in posts.router.routes if getattr(route, "name", "") == "list_posts")


def listed(query: str) -> object:
    """What FastAPI and we do with the query of a list."""
    request = asked(query)
    reading.check_number_of_parameters(request)
    request.scope["route"] = LIST
    values, errors = request_params_to_args(LIST.dependant.query_params, request.query_params)
    if errors:
        return pagination.refusal(request, RequestValidationError(errors).errors())
    return pagination.read(values["query"], request, "ws", SEAL, pagination.BY_NUMBER)


SEAL = Seal(bytes(32))
NO_BRACKETS = [text for text in WORST if "[" not in text]
MANY = [f"{name:x}" for name in range(HEAD // 6)]
HEADS: dict[str, tuple[Callable[[str], Any], list[str]]] = {
    "If-Match": (lambda text: headers.preconditions(asked(if_match=text)), WORST),
    "If-Match, many": (
        lambda text: headers.preconditions(asked(if_match=text.split("|"))),
        ['"a"|' * 12_000, "W/|" * 12_000],
    ),
    "If-None-Match": (lambda text: headers.preconditions(asked(if_none_match=text)), WORST),
    "Idempotency-Key": (lambda text: headers.idempotency_key(asked(idempotency_key=text)), WORST),
    "Prefer": (lambda text: headers.prefer(asked(prefer=text), 30), WORST),
    "Prefer, many": (
        lambda text: headers.prefer(asked(prefer=text.split("|")), 30),
        ["wait|" * 12_000, "a=1;|" * 12_000],
    ),
    "Content-Type": (lambda text: reading.check_media_type(asked(content_type=text), reading.JSON_TYPES), WORST),
    "Accept": (
        lambda text: headers.likes_better([text], "text/csv", "application/json"),
        [*WORST, of("a;q=1,"), of("a;" + "q=1;" * 99), "a;q=" + of("1")],
    ),
    "Authorization": (lambda text: keys_store.hash_of(text.encode("utf-8", "replace").decode()), WORST),
    "Authorization of /ops": (
        lambda text: guessing.basic(f"Basic {text}"),
        [*WORST, of("YTo6"), of("A", tail="=")],
    ),
    "Origin": (lambda text: access.from_here(asked(origin=f"http://a{text}", host=text)), NO_BRACKETS),
    "a token of /ops": (lambda text: access.token_holds(Settings(), "/ops", text), WORST),
    "a query": (
        listed,
        [*WORST, of("a=1&"), "&".join(f"{name}=1" for name in MANY), of("status=posted&"), of("limit=1&")],
    ),
    "a cursor": (lambda text: SEAL.open(text[: cursors.CURSOR_MAX], b"", pagination.BY_NUMBER), WORST),
    "a cursor that is long": (lambda text: listed(f"cursor={text}"), [of("A"), of("-_"), of("A", tail="=")]),
    "an id, quoted": (errors.printable, WORST),
    "a log's value": (scrubbing.clean, WORST),
    "a log's text, scrubbed": (scrubbing.scrubbed, WORST),
    "a URL on a page of /ops": (edit_histories.without_secrets, WORST),
}


@pytest.mark.parametrize("name", HEADS)
def test_what_reads_a_head_takes_linear_time(name: str) -> None:
    call, worst = HEADS[name]
    for text in worst:
        assert affordable(lambda t=text: call(t), WITHIN), (text[:40], text[-4:])  # type: ignore[misc]


# -- What reads a body


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


@pytest.mark.parametrize("body", [pytest.param(body, id=name) for name, body in hostile(BODY_LIMIT).items()])
def test_a_body_is_read_in_linear_time(body: bytes) -> None:
    read(
        body,
        WITHIN,
        parse_patch,
        lambda it: body_reading.read(NewVideos, it),
        lambda it: body_reading.read(NewSlideshows, it),
        lambda it: body_reading.read(Deletion, it),
        lambda it: body_reading.read(NewHold, it),
    )


@pytest.mark.parametrize("body", [pytest.param(body, id=name) for name, body in hostile(BULK_BODY_LIMIT).items()])
def test_a_body_of_a_job_is_read_in_linear_time(body: bytes) -> None:
    read(body, BULK_WITHIN, reschedule_requests.parse_request)


def judge_many(body: Any) -> None:
    for item in parse_edits(body):
        with suppress(RedraftError):
            parse_item(item)


@pytest.mark.parametrize("body", [pytest.param(body, id=name) for name, body in hostile(BULK_BODY_LIMIT).items()])
def test_a_body_of_many_edits_is_read_in_linear_time(body: bytes) -> None:
    read(body, BULK_WITHIN, judge_many)


def read(body: bytes, within: float, *judges: Callable[[Any], Any]) -> None:
    """Parse it, judge it, and make what its repeat is known by."""
    assert affordable(lambda: reading.parse_json(body), within)
    with suppress(RedraftError):
        parsed = reading.parse_json(body)
        assert affordable(lambda: reading.fingerprint(asked(), parsed), within)
        for judge in judges:
            assert affordable(lambda j=judge: j(parsed), within)  # type: ignore[misc]


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


@pytest.mark.parametrize("job", [pytest.param(job, id=name) for name, job in JOBS.items()])
def test_a_job_is_judged_in_linear_time(job: Any) -> None:
    assert len(json.dumps(job)) < 1.2 * BULK_BODY_LIMIT
    assert affordable(lambda: reschedule_requests.parse_request(job), BULK_WITHIN)


EDITS: dict[str, dict[str, Any]] = {
    "names that are none": {f"k{number:04}": 1 for number in range(140)},
    "near misses": {f"captionscheduledTimetimezone{number}": 1 for number in range(50)},
    "long texts": {"postId": "a", "caption": of("é", 450), "soundId": of("a", 450), "contentUrl": of("://", 450)},
    "wrong times": {"postId": "a", "scheduledTime": "2030-03-10T02:30", "timezone": "America/New_Yorc"},
    "many tags": {"postId": "a", "caption": "x", "ifMatch": of('"1",', 1_200)},
}


@pytest.mark.parametrize("item", [pytest.param(item, id=name) for name, item in EDITS.items()])
def test_many_edits_are_judged_in_linear_time(item: dict[str, Any]) -> None:
    body = json.dumps({"edits": [item] * EDITS_AT_MOST}, ensure_ascii=False).encode()
    assert len(body) <= 1.2 * BULK_BODY_LIMIT
    owner = Key("key", "ws", "tests", frozenset(), None)
    assert affordable(lambda: many_edits._wanted(asked(), body, owner, 30), BULK_WITHIN)


BODIES: dict[str, tuple[Callable[[Any], Any], list[Any]]] = {
    "a patch": (
        parse_patch,
        [dict.fromkeys(("caption", "scheduledTime", "timezone", "contentUrl", "soundId"), text) for text in TEXTS]
        + [{"contentType": "slides", "contentUrl": [text[: urls.MAX_URL] for text in TEXTS] * 40}]
        + [dict.fromkeys(many(10000), 1), {of("captio", tail=str(number)): 1 for number in range(2)}],
    ),
    "a creation": (
        lambda body: body_reading.read(NewSlideshows, body),
        [{"accountIds": [text[:1000] for text in TEXTS] * 2, "contentUrls": TEXTS} for _ in range(1)]
        + [{"accountIds": [of("a", 1_300, tail=f"{number:03}") for number in range(100)]}],
    ),
    "a deletion": (
        lambda body: body_reading.read(Deletion, body),
        [{"postIds": list(many(1_000))}, {"postIds": ["a"] * 1_000}, {"postIds": [1] * 40_000}],
    ),
    "a URL": (urls.fault_of, [text.encode("utf-8", "replace").decode() for text in TEXTS]),
    "a URL's host": (
        lambda text: urls.fault_of(f"https://{text}"),
        [
            of(unit, urls.MAX_URL - 8).encode("utf-8", "replace").decode()
            for unit in (*UNITS, "a.", "é.", "\u0301", "ﬁ", "1.")
        ],
    ),
    "a local time": (times.parse_local, TEXTS),
    "an instant": (times.parse_instant, TEXTS),
    "a duration": (times.parse_duration, [*TEXTS, "P" + of("1"), "PT" + of("1", tail="H")]),
    "a caption": (lambda text: body_reading.read(PostPatch, {"caption": text}), TEXTS),
    "a caption against its limits": (
        lambda text: captions.check(
            text, captions.limits_of("instagram", "video", render_as_video=False), errors.Faults()
        ),
        TEXTS,
    ),
    "a name that is none": (lambda text: body_reading.check_known({text: 1}, ("caption",), errors.Faults()), TEXTS),
    "names that are none": (
        lambda names: body_reading.check_known(names, reschedule_requests.FIELDS, errors.Faults()),
        [dict.fromkeys(itertools.islice((of("shift", 60, tail=name) for name in many(2_000)), 2_000))],
    ),
    "a form of /ops": (lambda text: QueryParams(text[:10_000]), TEXTS),
    "words of a service": (service_answers.readable, TEXTS),
    "an answer of a service": (service_answers._object, list(hostile(BODY_LIMIT).values())),
    "an announcement": (answers.parse, list(hostile(BODY_LIMIT).values())),
    "a doorbell": (doorbells.parse, list(hostile(BODY_LIMIT).values())),
}


@pytest.mark.parametrize("name", BODIES)
def test_what_reads_a_part_of_a_body_takes_linear_time(name: str) -> None:
    call, worst = BODIES[name]
    for given in worst:
        assert affordable(lambda g=given: call(g), WITHIN), str(given)[:40]  # type: ignore[misc]


HEADER = b"postId,scheduledTime,timezone\n"


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param(b"a,b,c\n" * 20_000, id="bad lines"),
        pytest.param(b'"' * 200_000, id="quotes"),
        pytest.param(b'"a\n' * 60_000, id="open quotes"),
        pytest.param(b'a,"' + b"b" * 130_000 + b'",c\n', id="a long field"),
        pytest.param(b"," * 200_000, id="commas"),
        pytest.param(b"\n" * 200_000, id="blank lines"),
        pytest.param(b"\xff" * 200_000, id="no UTF-8"),
        pytest.param(b"".join(b"a%d,4/22/2024 15:00,Zone/%d\n" % (n, n) for n in range(6_000)), id="no times or zones"),
        pytest.param(b"a,2030-01-01T00:00,Asia/Tokyo" + b"," * 200_000, id="a row without end"),
        pytest.param(
            b"".join(b"%d,2030-01-01T00:00,Asia/Tokyo\n" % number for number in range(6_000)), id="good lines"
        ),
        pytest.param(b"post_1,2030-01-01T00:00,Asia/Tokyo\n" * 6_000, id="one post again and again"),
    ],
)
def test_a_csv_is_judged_in_linear_time(lines: bytes) -> None:
    def judge() -> None:
        for _ in reschedule_csv.parts(
            one.post for one in reschedule_csv.judged(io.BytesIO(HEADER + lines)) if one.post
        ):
            pass

    assert affordable(judge, BULK_WITHIN)


def test_what_is_named_here_is_what_there_is() -> None:
    """Whatever reads a header or a JSON of its own stands in these files; one more belongs into the tables above."""
    headers = {
        name for name, source in PRODUCT.items() if re.search(r"\.headers\.get(list)?\(|scope\[\"headers\"\]", source)
    }
    assert {name for name in headers if name.startswith("api/")} == {
        *(
            "api/http/authentication.py",
            "api/http/request_id.py",
            "api/http/headers.py",
            "api/metrics.py",
            "api/ops/access.py",
        ),
        *(
            "api/ops/frame.py",
            "api/posts.py",
            "api/http/proxies.py",
            "api/http/reading.py",
            "api/reschedule_results.py",
        ),
    }
    assert authentication.READ
    parsers = re.compile(r"\bjson\.(loads|JSONDecoder)\(|\bfrom_json\(|csv\.reader\(")
    parsed = {name for name, source in PRODUCT.items() if parsers.search(source)}
    assert parsed == {
        *("api/http/cursors.py", "api/http/reading.py", "shared/domain/service_answers.py", "shared/cli/places.py"),
        *(
            "shared/cli/reschedule_csv.py",
            "shared/cli/reschedule_journal.py",
            "shared/local/datadir.py",
            "shared/broker/celery_message.py",
            "shared/broker/metric_snapshots.py",
        ),
        "shared/broker/answers.py",
        "shared/broker/doorbells.py",
        "api/submission/together.py",  # what it wrote itself under an Idempotency-Key
    }


def test_near_misses_are_looked_for_a_few_times_only_whatever_a_body_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each costs as much as a whole good item; nobody would be shown more of them."""
    looked: list[str] = []

    def look(name: str, *_: Any, **__: Any) -> list[str]:
        looked.append(name)
        return []

    monkeypatch.setattr(hints, "get_close_matches", look)
    with pytest.raises(RedraftError) as refused:
        reschedule_requests.parse_request({"items": [WRONG] * ITEMS})
    assert len(looked) == len(refused.value.details) == 20
