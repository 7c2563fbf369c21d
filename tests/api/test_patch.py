"""PATCH /v1/posts/{postId}, rule by rule of docs/api.md, against a running API and worker."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from tests import factories
from tests.loopback import LOOPBACK
from tests.public_fields import PUBLIC_FIELDS
from tests.stack import Running

TOMORROW = (datetime.now(UTC) + timedelta(days=1)).strftime("%Y-%m-%dT12:00")


def error(answer: httpx.Response) -> dict[str, Any]:
    body = answer.json()
    assert set(body) == {"error"}
    assert set(body["error"]) - {"details"} == {"code", "message", "requestId"}
    assert body["error"]["requestId"] == answer.headers["x-request-id"]
    found: dict[str, Any] = body["error"]
    return found


def test_an_edit_answers_200_with_the_public_fields_and_its_headers(stack: Running) -> None:
    post = stack.post(sound_id="7001")
    answer = stack.patch(post, {"caption": "new", "scheduledTime": TOMORROW, "timezone": "America/New_York"})
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert list(body) == PUBLIC_FIELDS
    assert (body["caption"], body["timezone"], body["soundId"]) == ("new", "America/New_York", "7001")
    assert body["scheduledTime"].endswith(":00:00Z")
    assert answer.headers["etag"] == '"2"'
    edit = stack.row("edits", answer.headers["edit-id"])
    assert answer.headers["location"] == f"/v1/edits/{edit.id}"
    assert (edit.status, edit.revision, edit.requested_by) == ("applied", 2, "tests")
    assert edit.request_id == answer.headers["x-request-id"]
    stored = stack.row("posts", post)
    assert (stored.schedule_revision, stored.content_revision) == (2, 1)


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        ([], "invalid_request", None),
        ({}, "invalid_request", None),
        ({"caption": None}, "invalid_request", "caption"),
        ({"caption": 5}, "invalid_request", "caption"),
        ({"capton": "x"}, "invalid_request", "capton"),
        ({"caption": "a\0b"}, "invalid_request", "caption"),
        ({"caption": "x" * 2201}, "invalid_caption", "caption"),
        ({"scheduledTime": TOMORROW}, "missing_required_fields", "timezone"),
        ({"timezone": "Asia/Tokyo"}, "missing_required_fields", "scheduledTime"),
        ({"contentUrl": "https://a.example/b.mp4"}, "missing_required_fields", "contentType"),
        ({"contentType": "video"}, "missing_required_fields", "contentUrl"),
        ({"scheduledTime": "2020-01-01T00:00", "timezone": "Asia/Tokyo"}, "invalid_scheduled_time", "scheduledTime"),
        ({"scheduledTime": "2060-01-01T00:00", "timezone": "Asia/Tokyo"}, "invalid_scheduled_time", "scheduledTime"),
        ({"scheduledTime": TOMORROW, "timezone": "Mars/Base"}, "invalid_timezone", "timezone"),
        ({"contentType": "video", "contentUrl": "ftp://a.example/b"}, "invalid_content", "contentUrl"),
        ({"contentType": "slides", "contentUrl": []}, "invalid_content", "contentUrl"),
    ],
)
def test_bad_input_is_a_400_that_names_the_field_and_leaves_no_edit(
    stack: Running, body: Any, code: str, field: str | None
) -> None:
    post = stack.post()
    before = stack.row("posts", post)
    answer = stack.patch(post, body)
    assert answer.status_code == 400, answer.text
    said = error(answer)
    assert said["code"] == code
    assert field in [None, *[detail["field"] for detail in said.get("details", [])]]
    assert "edit-id" not in answer.headers
    assert (stack.edits_of(post), stack.row("posts", post)) == ([], before)


def test_a_near_miss_is_answered_with_the_field_that_was_meant(stack: Running) -> None:
    said = error(stack.patch(stack.post(), {"capton": "x"}))
    assert "did you mean caption?" in str(said)


def test_platform_rules_are_judged_by_the_post(stack: Running) -> None:
    instagram = stack.post(platform="instagram", account_id=factories.INSTAGRAM)
    assert error(stack.patch(instagram, {"soundId": "1"}))["code"] == "sound_not_supported"
    one = {"contentType": "slides", "contentUrl": ["https://a.example/1.jpg"]}
    assert error(stack.patch(instagram, one))["code"] == "invalid_content"
    assert stack.patch(stack.post(), one).status_code == 200


def test_a_caption_is_counted_as_its_platform_counts_by_the_api_and_under_the_lock(stack: Running) -> None:
    """The queue makes the post what the API cannot foresee: a long caption for slides, then a video under it."""
    urls = '["https://a.example/1.jpg", "https://a.example/2.jpg"]'
    post = stack.post(content_type="slides", content_url=urls)
    video = {"contentType": "video", "contentUrl": "https://a.example/b.mp4"}
    with stack.engine.begin() as person:
        person.execute(text("SELECT 1 FROM posts WHERE id = :id FOR UPDATE"), {"id": post})
        long = stack.patch(post, {"caption": "x" * 4_000}, Prefer="respond-async")
        late = stack.patch(post, video, Prefer="respond-async")
        assert (long.status_code, late.status_code) == (202, 202)
    results = [stack.http.get(one.headers["location"], headers={"Prefer": "wait=10"}).json() for one in (long, late)]
    assert [end["status"] for end in results] == ["applied", "rejected"]
    assert (results[1]["error"]["code"], results[1]["error"]["details"][0]["field"]) == ("invalid_caption", "caption")
    at_once = stack.patch(post, video)
    assert error(at_once)["message"] == results[1]["error"]["message"]
    assert "2,200 UTF-16 code units (most emoji are two or more) as a TikTok video and has 4,000" in at_once.text
    assert "edit-id" not in at_once.headers
    assert stack.patch(post, video | {"caption": "short"}).status_code == 200
    instagram = stack.post(platform="instagram", account_id=factories.INSTAGRAM)
    assert "and has 31" in error(stack.patch(instagram, {"caption": "#a" * 31}))["message"]


@pytest.mark.parametrize(
    ("columns", "label"),
    [
        ({"status": "posted", "posted_at": factories.soon(-10)}, "posted"),
        ({"status": "failed", "failure_reason": "refused"}, "failed"),
        ({"claim_kind": "publish", "claim_token": "clm", "claim_expires_at": factories.soon(5)}, "being published"),
    ],
)
def test_a_post_that_may_not_be_edited_is_a_409_that_leaves_no_edit(
    stack: Running, columns: dict[str, Any], label: str
) -> None:
    post = stack.post(**columns)
    answer = stack.patch(post, {"caption": "late"})
    said = error(answer)
    assert (answer.status_code, said["code"]) == (409, "cannot_edit")
    assert said["message"] == "Only posts with status 'generated' or 'pending_render' can be edited"
    assert said["details"] == [{"field": "status", "message": label}]
    assert stack.edits_of(post) == []


def test_an_unknown_post_and_another_workspaces_are_the_same_404(stack: Running) -> None:
    theirs = stack.post(workspace_id="ws_other")
    for post in ("post_nowhere", theirs, "x" * 300, "post%00"):
        answer = stack.patch(post, {"caption": "x"})
        assert (answer.status_code, error(answer)["code"]) == (404, "not_found")
    assert error(stack.patch("post_abc123", {"caption": "x"}))["message"] == "Post post_abc123 not found"


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer sk_wrong", "Basic abc", "Bearer a b"])
def test_a_missing_or_wrong_key_is_a_401(stack: Running, header: str) -> None:
    assert stack.api is not None
    answer = httpx.patch(
        f"{stack.api.url}/v1/posts/post_abc123", headers={"Authorization": header}, content=b"{", **LOOPBACK
    )
    said = error(answer)
    assert (answer.status_code, said["code"], said["message"]) == (
        401, "unauthenticated", "Invalid or missing API key",
    )  # fmt: skip
    assert answer.headers["www-authenticate"] == "Bearer"


def test_bodies_are_bounded_typed_and_json(stack: Running) -> None:
    url = f"/v1/posts/{stack.post()}"
    big = stack.http.patch(url, content=b" " * 131_073, headers={"Content-Type": "application/json"})
    assert (big.status_code, error(big)["code"]) == (413, "payload_too_large")
    chunked = stack.http.patch(
        url, content=iter([b" " * 70_000, b" " * 70_000]), headers={"Content-Type": "application/json"}
    )
    assert chunked.status_code == 413
    plain = stack.http.patch(url, content=b"{}", headers={"Content-Type": "text/plain"})
    assert (plain.status_code, error(plain)["code"]) == (415, "unsupported_media_type")
    assert plain.headers["accept-patch"] == "application/json, application/merge-patch+json"
    merge = stack.http.patch(
        url, content=b'{"caption": "m"}', headers={"Content-Type": "application/merge-patch+json; charset=utf-8"}
    )
    assert merge.status_code == 200
    for bad in (b"{", b'{"caption": NaN}', b"\xff", b"[" * 100_000, b'{"caption": "a", "caption": "b"}', b"1" * 5000):
        answer = stack.http.patch(url, content=bad, headers={"Content-Type": "application/json"})
        assert (answer.status_code, error(answer)["code"]) == (400, "invalid_request"), bad[:20]
    surrogate = stack.http.patch(url, content=b'{"caption": "\\ud800"}', headers={"Content-Type": "application/json"})
    assert surrogate.status_code == 400


def test_unknown_routes_and_wrong_methods_keep_the_envelope(stack: Running) -> None:
    missing = stack.http.get("/v2/nothing")
    assert (missing.status_code, error(missing)["code"]) == (404, "not_found")
    wrong = stack.http.put("/v1/posts/post_abc123")
    assert (wrong.status_code, error(wrong)["code"]) == (405, "method_not_allowed")
    assert "PATCH" in wrong.headers["allow"]


def test_a_sane_request_id_comes_back_and_another_is_replaced(stack: Running) -> None:
    url = f"/v1/posts/{stack.post()}"
    assert stack.http.get(url, headers={"X-Request-Id": "mine-1"}).headers["x-request-id"] == "mine-1"
    assert stack.http.get(url, headers={"X-Request-Id": "a b"}).headers["x-request-id"].startswith("req_")


def test_respond_async_is_a_202_with_the_edit_and_where_to_ask_for_it(stack: Running) -> None:
    post = stack.post()
    answer = stack.patch(post, {"caption": "later"}, Prefer="respond-async")
    assert (answer.status_code, answer.headers["preference-applied"]) == (202, "respond-async")
    queued = answer.json()
    assert (queued["status"], queued["postId"], queued["changes"]) == ("queued", post, {"caption": "later"})
    asked = stack.http.get(answer.headers["location"], headers={"Prefer": "wait=10"})
    assert (asked.status_code, asked.json()["status"], asked.json()["revision"]) == (200, "applied", 2)
    assert asked.json()["before"] == {"caption": "first"}


def test_a_held_post_is_a_202_after_the_wait_that_was_asked_for_and_its_neighbour_answers(stack: Running) -> None:
    locked, free = stack.post(), stack.post()
    with stack.engine.begin() as person:
        person.execute(text("SELECT 1 FROM posts WHERE id = :id FOR UPDATE"), {"id": locked})
        answer = stack.patch(locked, {"caption": "waits"}, Prefer="wait=1")
        assert (answer.status_code, answer.headers["preference-applied"]) == (202, "wait=1")
        assert stack.patch(free, {"caption": "at once"}).status_code == 200
    asked = stack.http.get(answer.headers["location"], headers={"Prefer": "wait=10"})
    assert (asked.json()["status"], asked.json()["attempts"]) == ("applied", 1)


def test_if_match_is_judged_under_the_lock(stack: Running) -> None:
    post = stack.post()
    assert stack.patch(post, {"caption": "a"}, **{"If-Match": '"1"'}).status_code == 200
    late = stack.patch(post, {"caption": "b"}, **{"If-Match": '"1"'})
    assert (late.status_code, error(late)["code"], late.headers["etag"]) == (412, "precondition_failed", '"2"')
    assert stack.row("edits", late.headers["edit-id"]).status == "rejected"
    assert stack.patch(post, {"caption": "c"}, **{"If-Match": 'W/"2"'}).status_code == 412
    assert stack.patch(post, {"caption": "d"}, **{"If-Match": '"9", "2"'}).status_code == 200
    assert stack.patch(post, {"caption": "e"}, **{"If-Match": "*"}).status_code == 200
    assert stack.patch(post, {"caption": "f"}, **{"If-Match": "2"}).status_code == 400


def test_of_two_clients_with_the_same_tag_one_wins(stack: Running) -> None:
    post = stack.post()
    barrier = threading.Barrier(2)

    def send(caption: str) -> int:
        barrier.wait()
        return stack.patch(post, {"caption": caption}, **{"If-Match": '"1"'}).status_code

    with ThreadPoolExecutor(2) as clients:
        assert sorted(clients.map(send, ["left", "right"])) == [200, 412]


def test_a_repeat_with_the_same_key_is_answered_with_the_first_ones_result(stack: Running) -> None:
    post, key = stack.post(), {"Idempotency-Key": "once"}
    first = stack.patch(post, {"caption": "a"}, **key)
    stack.patch(post, {"caption": "b"})
    repeated = stack.patch(post, {"caption": "a"}, **key)
    assert (repeated.status_code, repeated.json(), repeated.headers["etag"]) == (200, first.json(), '"2"')
    assert (repeated.headers["idempotent-replayed"], repeated.headers["edit-id"]) == ("true", first.headers["edit-id"])
    assert "idempotent-replayed" not in first.headers
    other = stack.patch(post, {"caption": "c"}, **key)
    assert (other.status_code, error(other)["code"]) == (422, "idempotency_key_reused")
    assert len(stack.edits_of(post)) == 2


def test_fifty_concurrent_repeats_are_one_edit_and_one_answer(stack: Running) -> None:
    post = stack.post()
    with ThreadPoolExecutor(50) as clients:
        answers = list(
            clients.map(lambda _: stack.patch(post, {"caption": "one"}, **{"Idempotency-Key": "fifty"}), range(50))
        )
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.text for answer in answers}) == 1
    assert len(stack.edits_of(post)) == 1
    assert sum("idempotent-replayed" not in answer.headers for answer in answers) == 1


def test_a_refused_request_keeps_no_key(stack: Running) -> None:
    post, key = stack.post(), {"Idempotency-Key": "refused"}
    assert stack.patch(post, {"caption": 1}, **key).status_code == 400
    assert stack.patch(post, {"caption": "fine"}, **key).status_code == 200


def test_many_concurrent_edits_of_one_post_are_all_applied_once(stack: Running) -> None:
    post = stack.post()
    with ThreadPoolExecutor(32) as clients:
        answers = list(clients.map(lambda number: stack.patch(post, {"caption": str(number)}), range(200)))
    assert {answer.status_code for answer in answers} == {200}
    assert sorted(int(answer.headers["etag"].strip('"')) for answer in answers) == list(range(2, 202))
    last = max(answers, key=lambda answer: int(answer.headers["etag"].strip('"')))
    assert stack.row("posts", post).caption == last.json()["caption"]


def test_get_post_shows_how_it_ended_and_304_while_its_tag_holds(stack: Running) -> None:
    post = stack.post(status="failed", failure_reason="refused")
    answer = stack.http.get(f"/v1/posts/{post}")
    assert answer.json()["failureReason"] == "refused"
    assert (answer.json()["postedAt"], answer.json()["platformPostId"]) == (None, None)
    same = stack.http.get(f"/v1/posts/{post}", headers={"If-None-Match": answer.headers["etag"]})
    assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", '"1"')
