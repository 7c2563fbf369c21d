"""POST /v1/posts/{postId}/retry: through the lock and guard of `redraft posts retry`, one post, by its workspace."""

from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from tests import factories
from tests.api.answers import client, error, fields, messages
from tests.stack import Running
from tests.waiting import eventually

FAILED: dict[str, Any] = {"status": "failed", "failure_reason": "suspended", "scheduled_time": factories.soon(-5)}


def retry(stack: Running, post_id: str, **given: Any) -> httpx.Response:
    return stack.http.post(f"/v1/posts/{post_id}/retry", **given)


def publish_try(stack: Running, post: str, outcome: str) -> None:
    with stack.engine.begin() as tx:
        tx.execute(
            text("""INSERT INTO publish_attempts (post_id, schedule_revision, idempotency_key, body, try_number,
                        claim_token, finished_at, outcome)
                    VALUES (:post, 1, 'pub_1', '{}', 1, :token, now(), :outcome)"""),
            {"post": post, "token": f"clm_{post}", "outcome": outcome},
        )


def test_a_failed_post_is_due_again_and_what_stood_there_is_kept(stack: Running) -> None:
    post = stack.post(**FAILED)
    answer = retry(stack, post, headers={"X-Request-Id": "req_mended"})
    assert answer.status_code == 200, answer.text
    assert answer.json() == stack.http.get(f"/v1/posts/{post}").json()
    shown = answer.json()
    assert (shown["status"], shown["failureReason"], answer.headers["etag"]) == ("generated", None, '"2"')
    act = stack.scalar(
        "SELECT to_jsonb(a) FROM acts a WHERE subject_id = :id AND subject = 'post' AND from_state = 'failed'", id=post
    )
    assert (act["actor"], act["api_key_id"], act["action"]) == ("tests", factories.KEY_ID, "retry")
    assert (act["request_id"], act["before"]["failureReason"]) == ("req_mended", "suspended")
    assert datetime.fromisoformat(act["at"]) <= datetime.now(UTC)
    eventually(lambda: [[post, 1]] in [args[0] for args, _ in messages(stack, "publish")], within=30)


def test_a_post_that_may_have_gone_out_comes_back_closed(stack: Running) -> None:
    post = stack.post(**FAILED)
    publish_try(stack, post, "unknown")
    assert retry(stack, post, json={}).status_code == 200
    refused = error(stack.patch(post, {"caption": "another"}), 409)
    assert refused["details"] == [{"field": "status", "message": "being published"}]


def test_a_post_whose_key_the_publisher_may_have_forgotten_stays_failed_and_says_what_to_do(stack: Running) -> None:
    post = stack.post(**FAILED)
    publish_try(stack, post, "unknown")
    with stack.engine.begin() as tx:
        days = "UPDATE publish_attempts SET started_at = now() - interval '3 days' WHERE post_id = :id"
        tx.execute(text(days), {"id": post})
    before = stack.row("posts", post)
    answer = retry(stack, post)
    refused = error(answer, 409)
    assert (refused["code"], fields(answer)) == ("conflict", ["status"])
    assert refused["message"] == (
        f"Post {post} may have gone out, and its key is older than the publisher must remember. "
        f"Look at the platform first. If it did not go out: redraft posts retry {post} --not-sent"
    )
    assert stack.row("posts", post) == before
    assert stack.scalar("SELECT count(*) FROM acts WHERE subject_id = :id", id=post) == 0


def test_a_post_that_failed_in_its_render_is_rendered_again(stack: Running) -> None:
    post = stack.slides(**FAILED)
    assert retry(stack, post).json()["status"] == "pending_render"


@pytest.mark.parametrize("status", ["generated", "posted"])
def test_a_post_that_did_not_fail_is_a_conflict(stack: Running, status: str) -> None:
    post = stack.post(status=status, posted_at=datetime.now(UTC) if status == "posted" else None)
    before = stack.row("posts", post)
    answer = retry(stack, post)
    assert error(answer, 409)["code"] == "conflict"
    assert fields(answer) == ["status"]
    assert stack.row("posts", post) == before
    assert stack.scalar("SELECT count(*) FROM acts WHERE subject_id = :id", id=post) == 0


def test_two_retries_put_it_back_once(stack: Running) -> None:
    post = stack.post(**FAILED)
    assert [retry(stack, post).status_code for _ in range(2)] == [200, 409]


def test_what_is_not_there_or_anothers_is_not_found(stack: Running) -> None:
    with stack.engine.begin() as tx:
        factories.workspace(tx, "ws_other", "_other", "sk_test_another")
        anothers = factories.post(tx, workspace_id="ws_other", **FAILED)
        deleted = factories.post(tx, deleted_at=datetime.now(UTC), **FAILED)
    for post in (anothers, deleted, "post_nobody", "a%00b"):
        assert error(retry(stack, post), 404)["code"] == "not_found"
    assert stack.row("posts", anothers).status == "failed"


def test_it_takes_no_fields_and_needs_the_scope(stack: Running) -> None:
    post = stack.post(**FAILED)
    assert error(retry(stack, post, json={"notSent": True}), 400)["code"] == "invalid_request"
    with stack.engine.begin() as tx:
        factories.workspace(tx, factories.WORKSPACE + "_r", "_reader", "sk_test_reader")
        tx.execute(text("UPDATE api_keys SET scopes = '{posts:read}' WHERE id = 'key_test_reader'"))
    with client(stack, "sk_test_reader") as reader:
        assert error(reader.post(f"/v1/posts/{post}/retry"), 403)["code"] == "forbidden"
    assert stack.row("posts", post).status == "failed"
