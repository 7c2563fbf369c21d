"""What reads a body costs linear work, whatever stands in it."""

import io
import itertools
import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from starlette.datastructures import QueryParams

from api import many_edits
from api.http import reading
from api.http.reading import BODY_LIMIT, BULK_BODY_LIMIT
from api.models.creation import NewSlideshows, NewVideos
from api.models.deletion import Deletion
from api.models.edits import PostPatch, parse_patch
from api.models.holds import NewHold
from api.models.many_edits import EDITS_AT_MOST, parse_edits, parse_item
from shared.broker import answers, doorbells
from shared.cli import reschedule_csv
from shared.domain import (
    body_reading,
    captions,
    errors,
    hints,
    reschedule_requests,
    service_answers,
    times,
    urls,
)
from shared.domain.errors import RedraftError
from shared.store.keys import Key
from tests.linear.cost import BULK_WITHIN, WITHIN, affordable
from tests.linear.hostile import ITEMS, JOBS, TEXTS, UNITS, WRONG, asked, hostile, many, of


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
