"""PATCH ?dryRun=true and `editable` of GET: what an edit would do, as the PATCH itself would be answered."""

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from tests import factories
from tests.api.answers import error, fields
from tests.public_fields import PUBLIC_FIELDS
from tests.stack import Running

DAY = (datetime.now(UTC) + timedelta(days=3)).strftime("%Y-%m-%d")
TIME = {"scheduledTime": f"{DAY}T12:00", "timezone": "Asia/Tokyo"}
MOMENT = re.compile(r"moment of acceptance, [0-9TZ:-]+")
CLAIM = {"claim_token": "clm", "claim_expires_at": factories.soon(5)}
STATES: dict[str, dict[str, Any]] = {
    "generated": {},
    "pending": {"status": "pending_render"},
    "being rendered": {"status": "pending_render", "claim_kind": "render", **CLAIM},
    "being published": {"claim_kind": "publish", **CLAIM},
    "posted": {"status": "posted", "posted_at": factories.soon(-10)},
    "failed": {"status": "failed", "failure_reason": "refused"},
}


def look(stack: Running, post: str, body: Any, query: str = "dryRun=true", **headers: str) -> httpx.Response:
    return stack.http.patch(f"/v1/posts/{post}?{query}", json=body, headers=headers)


def state(stack: Running, post: str) -> tuple[Any, ...]:
    return stack.row("posts", post), stack.edits_of(post), stack.scalar("SELECT count(*) FROM idempotency_keys")


@contextmanager
def queued(stack: Running, post: str, *bodies: dict[str, Any]) -> Iterator[None]:
    """While a person holds the post, these edits wait."""
    with stack.engine.begin() as person:
        person.execute(text("SELECT 1 FROM posts WHERE id = :id FOR UPDATE"), {"id": post})
        for body in bodies:
            assert stack.patch(post, body, Prefer="respond-async").status_code == 202
        yield


def test_a_dry_run_says_what_the_edit_would_do_and_records_nothing(stack: Running) -> None:
    post = stack.post()
    before = state(stack, post)
    body = {"caption": "new", **TIME}
    answer = look(stack, post, body, **{"Idempotency-Key": "dry", "Prefer": "respond-async"})
    assert answer.status_code == 200, answer.text
    shown = answer.json()
    assert list(shown) == ["post", "changes", "rerender", "publishMoved"]
    assert list(shown["post"]) == PUBLIC_FIELDS
    at = f"{DAY}T03:00:00Z"
    assert shown["changes"] == {"caption": "new", "timezone": "Asia/Tokyo", "scheduledTime": at}
    assert (shown["rerender"], shown["publishMoved"]) == (False, True)
    assert not {"edit-id", "location", "etag", "preference-applied"} & set(answer.headers)
    assert state(stack, post) == before
    done = stack.patch(post, body, **{"Idempotency-Key": "dry"})
    assert (done.status_code, "idempotent-replayed" in done.headers) == (200, False)
    assert done.json() == shown["post"]
    assert stack.http.get(done.headers["location"]).json()["after"] == shown["changes"]


def test_false_is_no_dry_run_and_nonsense_is_a_400(stack: Running) -> None:
    post = stack.post()
    assert look(stack, post, {"caption": "x"}, "dryRun=false").headers["etag"] == '"2"'
    for query in (
        "dryRun",
        "dryRun=",
        "dryRun=1",
        "dryRun=TRUE",
        "dryRun=true&dryRun=true",
        "dryRun=true&dryRun=false",
    ):
        for headers in ({}, {"Idempotency-Key": "nonsense"}):
            answer = look(stack, post, {"caption": "y"}, query, **headers)
            assert error(answer, 400)["code"] == "invalid_request"
            assert fields(answer) == ["dryRun"]
    assert fields(look(stack, post, {"caption": "y"}, "dryRun=true&dry=1")) == ["dry"]
    assert len(stack.edits_of(post)) == 1


def test_new_content_of_slides_would_be_rendered_again(stack: Running) -> None:
    post = stack.slides()
    body = {"contentType": "slides", "contentUrl": ["https://a.example/9.jpg"]}
    shown = look(stack, post, body).json()
    assert (shown["rerender"], shown["publishMoved"], shown["post"]["status"]) == (True, False, "pending_render")
    assert look(stack, post, {"soundId": None}).json()["changes"] == {}


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        ({"caption": "x"}, {}),
        ({"caption": None}, {}),
        ({}, {}),
        ({"caption": "x" * 2_201}, {}),
        ({"scheduledTime": "2020-01-01T00:00", "timezone": "Asia/Tokyo"}, {}),
        ({"caption": "x"}, {"If-Match": '"1"'}),
        ({"caption": "x"}, {"If-Match": '"7"'}),
        ({"caption": "x"}, {"If-Match": 'W/"1"'}),
        ({"caption": "x"}, {"If-None-Match": '"1"'}),
        ({"caption": "x"}, {"If-Match": "1"}),
        ({"caption": "x"}, {"Prefer": "wait=never"}),
    ],
)
@pytest.mark.parametrize("name", STATES)
def test_a_dry_run_and_get_say_what_the_patch_is_answered(
    stack: Running, name: str, body: Any, headers: dict[str, str]
) -> None:
    post = stack.post(**STATES[name])
    shown = stack.http.get(f"/v1/posts/{post}")
    dry = look(stack, post, body, **headers)
    done = stack.patch(post, body, **headers)
    assert dry.status_code == done.status_code, (dry.text, done.text)
    if done.status_code == 200:
        assert dry.json()["post"] == done.json()
    else:
        said = [{**error(answer), "requestId": ""} for answer in (dry, done)]
        # Each was accepted at a moment of its own, which may lie in another second.
        first, second = (MOMENT.sub("moment of acceptance", json.dumps(one)) for one in said)
        assert first == second
        assert dry.headers.get("etag") == done.headers.get("etag")
    refused = done.json()["error"] if done.status_code == 409 else None
    seen = shown.json()
    if body == {"caption": "x"} and not headers:
        assert seen["editable"] is (refused is None)
        assert seen["notEditableReason"] == (refused["details"][0]["message"] if refused else None)


def test_a_post_that_is_not_there_has_no_dry_run(stack: Running) -> None:
    theirs = stack.post(workspace_id="ws_other")
    for post in ("post_nowhere", theirs, "post%00"):
        assert error(look(stack, post, {"caption": "x"}), 404)["code"] == "not_found"


def test_the_queue_of_the_post_comes_before_the_dry_run(stack: Running) -> None:
    post = stack.post()
    with queued(stack, post, {"caption": "queued"}, {"soundId": "7"}, {"soundId": "8"}):
        shown = look(stack, post, TIME).json()
        assert (shown["post"]["caption"], shown["post"]["soundId"]) == ("queued", "8")
        assert set(shown["changes"]) == {"scheduledTime", "timezone"}
        assert look(stack, post, {"caption": "queued"}).json()["changes"] == {}
        assert look(stack, post, {"caption": "x"}, **{"If-Match": '"4"'}).status_code == 200
        stale = look(stack, post, {"caption": "x"}, **{"If-Match": '"1"'})
        assert (stale.status_code, stale.headers["etag"]) == (412, '"4"')
    assert len(stack.edits_of(post)) == 3


def test_a_hundred_dry_runs_at_once_change_nothing(stack: Running) -> None:
    post = stack.post()
    before = state(stack, post)
    with ThreadPoolExecutor(8) as clients:
        answers = list(clients.map(lambda number: look(stack, post, {"caption": str(number)}), range(100)))
    assert [answer.json()["post"]["caption"] for answer in answers] == [str(number) for number in range(100)]
    assert state(stack, post) == before


def test_a_thousand_queued_edits_are_counted_in_and_more_are_a_503(stack: Running) -> None:
    post = stack.post()
    with stack.engine.begin() as person:
        person.execute(text("SELECT 1 FROM posts WHERE id = :id FOR UPDATE"), {"id": post})
        with stack.engine.begin() as tx:
            for number in range(1_000):
                factories.edit(tx, post, {"caption": str(number)})
        assert look(stack, post, {"soundId": "1"}).json()["post"]["caption"] == "999"
        with stack.engine.begin() as tx:
            factories.edit(tx, post, {"caption": "one more"})
        answer = look(stack, post, {"soundId": "1"})
        assert "More than 1,000 edits" in error(answer, 503)["message"]


def test_whether_a_post_can_be_edited_is_never_hidden_behind_a_304(stack: Running) -> None:
    post = stack.post()
    first = stack.http.get(f"/v1/posts/{post}")
    assert (first.json()["editable"], first.json()["notEditableReason"]) == (True, None)
    with stack.engine.begin() as tx:
        tx.execute(
            text("""UPDATE posts SET claim_kind = 'publish', claim_token = 'clm',
                claim_expires_at = now() + interval '1 hour' WHERE id = :id"""),
            {"id": post},
        )
    claimed = stack.http.get(f"/v1/posts/{post}", headers={"If-None-Match": first.headers["etag"]})
    assert (claimed.status_code, claimed.json()["editable"]) == (200, False)
    assert claimed.json()["notEditableReason"] == "being published"
    assert "etag" not in claimed.headers, "or a later 304 would stand for this answer"
