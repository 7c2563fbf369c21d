"""Headers, read as RFC 9110 and 7240 have them: lists, preconditions, preferences, what is no header of a list."""

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text
from starlette.requests import Request

from api.http import headers, reading
from shared.domain.errors import InvalidRequest
from tests import factories
from tests.api.answers import error, fields
from tests.api.operations import OPERATIONS
from tests.stack import Running

TOMORROW = (datetime.now(UTC) + timedelta(days=1)).strftime("%Y-%m-%dT12:00")


def request(**given: str | list[str]) -> Request:
    """A request with these headers, each value a line of its own."""
    lines = [
        (name.replace("_", "-").encode(), line.encode("latin-1"))
        for name, value in given.items()
        for line in ([value] if isinstance(value, str) else value)
    ]
    return Request({"type": "http", "method": "PATCH", "path": "/", "query_string": b"", "headers": lines})


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], []),
        ([""], []),
        ([" , ,\t,"], []),
        (["a"], ["a"]),
        (["a,b", " c "], ["a", "b", "c"]),
        ([",a,,b, ,"], ["a", "b"]),
        (['x="a,b",c'], ['x="a,b"', "c"]),
        (['x="a\\",b",c'], ['x="a\\",b"', "c"]),
        (['"a","b"'], ['"a"', '"b"']),
        (['"never ends, a'], ['"never ends, a']),
    ],
)
def test_a_list_is_read_as_the_rfc_has_it(values: list[str], expected: list[str]) -> None:
    assert headers.elements(values) == expected


def test_in_an_entity_tag_a_backslash_is_a_character_like_any_other() -> None:
    assert headers.entity_tags([r'"a\", "b,c"'], "If-Match") == (r'"a\"', '"b,c"')


@pytest.mark.parametrize("text", ["2", '"2', '"2" "3"', 'w/"2"', '*, "2"', '"2", *', '"a b"', 'W/ "2"', '"2";"3"'])
def test_what_is_no_list_of_entity_tags_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="If-Match must be"):
        headers.preconditions(request(if_match=text))


WEAK, STRANGE = "weak tags only", "no ETag of a post"


@pytest.mark.parametrize(
    ("given", "kept", "never"),
    [
        ({}, None, None),
        ({"if_match": '"3"'}, ('"3"',), None),
        ({"if_match": ['"3"', ', "4",,"3"']}, ('"3"', '"4"'), None),
        ({"if_match": "*"}, ("*",), None),
        ({"if_match": 'W/"3", "4"'}, ('"4"',), None),
        ({"if_match": 'W/"3"'}, None, WEAK),
        ({"if_match": 'W/"3", W/"4"'}, None, WEAK),
        ({"if_match": '"2-gzip"'}, None, '"2-gzip"'),
        ({"if_match": 'W/"3", "2;gzip"'}, None, STRANGE),
        ({"if_match": '"0"'}, None, STRANGE),
        ({"if_match": '"03"'}, None, STRANGE),
        ({"if_match": '"' + "9" * 20 + '"'}, None, STRANGE),
        ({"if_match": ""}, None, "names no tag"),
        ({"if_match": ", ,"}, None, "names no tag"),
        ({"if_none_match": '"3", W/"4", "2-gzip"'}, ('!"3"', '!"4"'), None),
        ({"if_none_match": '"2-gzip"'}, None, None),
        ({"if_none_match": ""}, None, None),
        ({"if_none_match": "*"}, None, "no such post"),
        ({"if_match": "*", "if_none_match": '"3"'}, ("*", '!"3"'), None),
        ({"if_match": 'W/"3"', "if_none_match": "*"}, None, WEAK),
    ],
)
def test_preconditions_are_kept_or_said_to_be_hopeless(given: Any, kept: tuple[str, ...] | None, never: Any) -> None:
    found, hopeless = headers.preconditions(request(**given))
    assert (never or "") in (hopeless.message if hopeless else "")
    assert (hopeless is None) is (never is None)
    if never is None:
        assert found == kept


@pytest.mark.parametrize("name", ["if_match", "if_none_match"])
def test_64_tags_are_read_and_65_are_not(name: str) -> None:
    tags = [f'"{number}"' for number in range(1, 66)]
    found, hopeless = headers.preconditions(request(**{name: ", ".join(tags[:64])}))
    assert (len(found or ()), hopeless) == (64, None)
    with pytest.raises(InvalidRequest, match="at most 64 tags and names 65"):
        headers.preconditions(request(**{name: tags}))


@pytest.mark.parametrize(
    ("values", "seconds", "queued", "done"),
    [
        ([], 10, None, None),
        (["respond-async"], 0, "respond-async", None),
        (["wait=3"], 3, "wait=3", "wait=3"),
        (["respond-async, wait=3"], 3, "respond-async, wait=3", "wait=3"),
        (["wait=3", "respond-async"], 3, "respond-async, wait=3", "wait=3"),
        (["wait=0, respond-async"], 0, "respond-async, wait=0", "wait=0"),
        (["wait=3, wait=5"], 3, "wait=3", "wait=3"),
        (["WAIT = 3 ; foo=bar, ,"], 3, "wait=3", "wait=3"),
        (['wait="3"'], 3, "wait=3", "wait=3"),
        (["wait=99"], 30, "wait=30", "wait=30"),
        (["wait=" + "9" * 5000], 30, "wait=30", "wait=30"),
        (['handling="lenient, wait=3"'], 10, None, None),
        (['return=minimal; note="a;b", wait=4'], 4, "wait=4", "wait=4"),
        (["waiting=3"], 10, None, None),
        (["respond-async=now"], 0, "respond-async", None),
    ],
)
def test_preferences(values: list[str], seconds: float, queued: str | None, done: str | None) -> None:
    preference = headers.prefer(request(prefer=values), 30.0)
    assert preference.patience(10.0) == seconds
    assert preference.applied(answered_async=True).get("Preference-Applied") == queued
    assert preference.applied(answered_async=False).get("Preference-Applied") == done


@pytest.mark.parametrize(
    "value", ["wait", "wait=", "wait=soon", "wait=-1", "wait=1.5", 'wait="3', "wait=٣", "wait=1 2"]
)
def test_a_wait_that_is_no_number_of_seconds_is_refused(value: str) -> None:
    with pytest.raises(InvalidRequest, match="whole number of seconds"):
        headers.prefer(request(prefer=[value.encode().decode("latin-1")]), 30.0)


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ([], False),
        (["*/*"], False),
        (["text/csv"], True),
        (["TEXT/CSV; charset=utf-8"], True),
        (["text/csv, application/json"], False),
        (["application/json;q=0.5, text/csv"], True),
        (["text/csv;q=0.1, application/json"], False),
        (["application/json", "text/csv;q=0.9"], False),
        (["text/*;q=0.9, */*;q=0.1"], True),
        (["text/csv;q=x"], False),
        (["text/html"], False),
        ([", ,text/csv,,"], True),
        (['text/csv;note="a, application/json"'], True),
        (["text/csv;q=nan"], False),
        (["text/csv;q=1e9, application/json"], False),
    ],
)
def test_csv_is_for_those_who_like_it_better_than_json(accept: list[str], expected: bool) -> None:
    assert headers.likes_better(accept, "text/csv", "application/json") is expected


LONG = 64 * 1024
READERS: list[Callable[[str], Any]] = [
    lambda text: headers.elements([text]),
    lambda text: headers.preconditions(request(if_match=text)),
    lambda text: headers.preconditions(request(if_none_match=text)),
    lambda text: headers.prefer(request(prefer=text), 30.0),
    lambda text: headers.prefer(request(prefer="wait=" + text), 30.0),
    lambda text: headers.likes_better([text], "text/csv", "application/json"),
]
HOSTILE = [
    *('"', "\\", '\\"', '"\\', ",", " ", "\t", '""', '",', '"a",', "W/", 'W/"a",', ";", "=", "a=", "a;", "wait ", "*,"),
    *("text/csv;q=1,", ";q=0.", "a, "),
]


@pytest.mark.parametrize("piece", HOSTILE)
@pytest.mark.parametrize("end", ["", '"', "x", "\\"])
def test_the_longest_headers_cost_work_in_proportion(piece: str, end: str) -> None:
    """Two seconds for what takes milliseconds: work in the square of the length would take minutes."""
    text = (piece * LONG)[:LONG] + end
    began = time.process_time()
    for read in READERS:
        try:
            read(text)
        except InvalidRequest:
            continue
    assert time.process_time() - began < 2


# -- Through the API


NEVER = [
    ({"If-Match": 'W/"1"'}, "weak tags only"),
    ({"If-Match": '"1-gzip"'}, '"1-gzip", which is no ETag'),
    ({"If-Match": ""}, "names no tag"),
    ({"If-None-Match": "*"}, "no such post"),
]


@pytest.mark.parametrize(("given", "why"), NEVER)
def test_a_precondition_that_can_never_be_met_is_a_412_that_says_why_and_leaves_no_edit(
    stack: Running, given: dict[str, str], why: str
) -> None:
    post = stack.post()
    for _ in range(2):
        answer = stack.patch(post, {"caption": "x"}, **given, **{"Idempotency-Key": post})
        said = error(answer, 412)
        assert (said["code"], answer.headers["etag"]) == ("precondition_failed", '"1"')
        assert why in said["message"]
        assert "has changed" not in said["message"]
        assert "edit-id" not in answer.headers
    assert stack.edits_of(post) == []
    assert stack.patch(post, {"caption": "x"}, **{"Idempotency-Key": post}).status_code == 200, "it keeps no key"


@pytest.mark.parametrize(("given", "why"), NEVER)
def test_a_precondition_is_judged_last(stack: Running, given: dict[str, str], why: str) -> None:
    posted = stack.post(status="posted", posted_at=factories.soon(-5))
    assert error(stack.patch(posted, {"caption": "x"}, **given), 409)["code"] == "cannot_edit"
    assert stack.patch("post_nowhere", {"caption": "x"}, **given).status_code == 404
    assert stack.patch(stack.post(), {"caption": 1}, **given).status_code == 400


def test_if_none_match_is_judged_under_the_lock(stack: Running) -> None:
    post = stack.post()
    assert stack.patch(post, {"caption": "a"}, **{"If-None-Match": '"2", W/"3"'}).status_code == 200
    late = stack.patch(post, {"caption": "b"}, **{"If-None-Match": '"2"'})
    said = error(late, 412)
    assert (said["code"], late.headers["etag"]) == ("precondition_failed", '"2"')
    assert "If-None-Match names" in said["message"]
    assert stack.row("edits", late.headers["edit-id"]).status == "rejected"
    assert stack.patch(post, {"caption": "b"}, **{"If-None-Match": 'W/"2"'}).status_code == 412
    both = {"If-Match": '"2"', "If-None-Match": '"1"'}
    assert stack.patch(post, {"caption": "b"}, **both).headers["etag"] == '"3"'
    with stack.engine.begin() as person:
        person.execute(text("SELECT 1 FROM posts WHERE id = :id FOR UPDATE"), {"id": post})
        queued = [
            stack.patch(post, {"caption": "c"}, Prefer="respond-async"),
            stack.patch(post, {"caption": "d"}, **{"Prefer": "respond-async", "If-None-Match": '"4"'}),
        ]
        assert [answer.status_code for answer in queued] == [202, 202]
    results = [stack.http.get(answer.headers["location"], headers={"Prefer": "wait=10"}).json() for answer in queued]
    assert [(end["status"], end["revision"]) for end in results] == [("applied", 4), ("rejected", 4)]


def test_a_repeat_with_another_if_none_match_is_another_request(stack: Running) -> None:
    post, key = stack.post(), {"Idempotency-Key": "unless"}
    assert stack.patch(post, {"caption": "a"}, **key, **{"If-None-Match": '"7"'}).status_code == 200
    assert stack.patch(post, {"caption": "a"}, **key, **{"If-None-Match": '"7"'}).status_code == 200
    assert error(stack.patch(post, {"caption": "a"}, **key), 422)["code"] == "idempotency_key_reused"


def test_a_get_is_304_for_any_tag_that_is_the_posts_weak_or_strong(stack: Running) -> None:
    path = f"/v1/posts/{stack.post()}"
    for value in ('"1"', 'W/"1"', '"x,y", ,"1"', "*"):
        assert stack.http.get(path, headers={"If-None-Match": value}).status_code == 304, value
    for value in ('"2"', '"x,1"', "", ","):
        assert stack.http.get(path, headers={"If-None-Match": value}).status_code == 200, value


def test_respond_async_with_a_wait_waits_first(stack: Running) -> None:
    post = stack.post()
    answer = stack.patch(post, {"caption": "a"}, Prefer="respond-async, wait=10")
    assert (answer.status_code, answer.headers["preference-applied"]) == (200, "wait=10")
    with stack.engine.begin() as person:
        person.execute(text("SELECT 1 FROM posts WHERE id = :id FOR UPDATE"), {"id": post})
        answer = stack.patch(post, {"caption": "b"}, Prefer="respond-async, wait=1")
        assert (answer.status_code, answer.headers["preference-applied"]) == (202, "respond-async, wait=1")


@pytest.mark.parametrize("coding", ["gzip", "br", "identity, gzip", "x"])
def test_a_packed_body_is_a_415_that_says_how_to_send_it(stack: Running, coding: str) -> None:
    post = stack.post()
    sent = {"Content-Encoding": coding, "Content-Type": "application/json"}
    answers = [
        stack.http.patch(f"/v1/posts/{post}", content=b"{}", headers=sent),
        stack.http.post("/v1/posts/video", content=b"{}", headers=sent),
        stack.http.request("DELETE", "/v1/posts", content=b"{}", headers=sent),
        stack.http.post("/v1/reschedules", content=b"{}", headers=sent),
        stack.http.post("/v1/edits", content=b"{}", headers=sent),
        stack.http.post("/v1/edits/edit_1/undo", content=b"{}", headers=sent),
        stack.http.post("/v1/reschedules/rsch_1/cancel", content=b"{}", headers=sent),
    ]
    for answer in answers:
        assert error(answer, 415)["code"] == "unsupported_media_type"
        assert answer.headers["accept-encoding"] == "identity"
    plain = stack.patch(post, {"caption": "x"}, **{"Content-Encoding": "identity, ,"})
    assert plain.status_code == 200


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_every_route_refuses_a_query_parameter_that_it_does_not_know(stack: Running, operation: Any) -> None:
    post = stack.post()
    path = operation.path.replace("{postId}", post).replace("{editId}", "edit_1").replace("{id}", "rsch_1")
    body = {
        "editPost": {"caption": "x"},
        "editPosts": {"edits": [{"postId": post, "caption": "x"}]},
        "deletePosts": {"postIds": [post]},
        "createReschedule": {"filter": {"all": True}, "shift": "P1D"},
        "createVideos": {"accountIds": [factories.TIKTOK], "contentUrl": "https://a.example/b.mp4"},
        "createSlideshows": {"accountIds": [factories.TIKTOK], "contentUrls": ["https://a.example/b.jpg"]},
    }.get(operation.name)
    before = [stack.scalar(f"SELECT count(*) FROM {table}") for table in ("edits", "posts", "reschedules")]
    known = {"editPost": {"dryRun=true"}}.get(operation.name, set())
    for query in {"dryRun=true", "dry_run", "=", "x=1&x=2"} - known:
        for extra in ({}, {"Idempotency-Key": f"query-{operation.name}"}):
            answer = stack.http.request(operation.method.upper(), f"{path}?{query}", json=body, headers=extra)
            assert error(answer, 400)["code"] == "invalid_request", answer.text
            assert fields(answer) == [query.partition("=")[0]]
    assert [stack.scalar(f"SELECT count(*) FROM {table}") for table in ("edits", "posts", "reschedules")] == before
    assert stack.row("posts", post).deleted_at is None


def test_what_one_edit_stores_is_bounded_by_its_body(stack: Running) -> None:
    """All else of a request that its row keeps is short: the tags of If-Match were as many as fitted into a head."""
    post = stack.post()
    urls = [f"https://cdn.example.com/{number:02}/".ljust(1_800, "é") for number in range(35)]
    body = json.dumps({"contentType": "slides", "contentUrl": urls, "caption": "x"}, ensure_ascii=False).encode()
    assert reading.BODY_LIMIT - 8_000 < len(body) <= reading.BODY_LIMIT
    tags = ['"1"', *(f'"{10**18 + number}"' for number in range(63))]
    given = {
        "Content-Type": "application/json",
        "Prefer": "respond-async",
        "If-Match": ",".join(tags),
        "If-None-Match": ",".join(f'"{10**18 + number}"' for number in range(64)),
        "Idempotency-Key": "k" * 255,
        "X-Request-Id": "r" * 128,
    }
    with stack.engine.begin() as person:
        person.execute(text("SELECT 1 FROM posts WHERE id = :id FOR UPDATE"), {"id": post})
        answer = stack.http.patch(f"/v1/posts/{post}", content=body, headers=given)
        assert answer.status_code == 202, answer.text
        stored = stack.scalar("SELECT octet_length(to_jsonb(e)::text) FROM edits e WHERE post_id = :id", id=post)
    assert stored < reading.BODY_LIMIT + 8_192
    many = given | {"If-Match": ",".join(f'"{number}"' for number in range(1, 7_000)), "Idempotency-Key": "another"}
    assert error(stack.http.patch(f"/v1/posts/{post}", content=b"{}", headers=many), 400)
    assert len(stack.edits_of(post)) == 1
