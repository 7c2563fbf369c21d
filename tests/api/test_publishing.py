"""POST /v1/posts/{postId}/publish: an edit of the post's time to now, refused where the post may not go out."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from shared.domain.times import parse_instant
from tests import factories
from tests.api.answers import client, error, fields, messages
from tests.api.test_deletion import frozen
from tests.stack import Running
from tests.waiting import eventually


def ended(stack: Running, location: str) -> dict[str, object]:
    found: dict[str, object] = stack.http.get(location, headers={"Prefer": "wait=10"}).json()
    assert found["status"] != "queued"
    return found


def test_a_post_that_waits_is_due_now_and_is_sent_for(stack: Running) -> None:
    post = stack.post(timezone="Europe/Paris")
    answer = stack.http.post(f"/v1/posts/{post}/publish")
    assert answer.status_code == 202, answer.text
    assert answer.json()["changes"] == {"publishNow": True}
    edit = ended(stack, answer.headers["location"])
    assert (edit["status"], edit["revision"]) == ("applied", 2)
    stored = stack.row("posts", post)
    assert (stored.schedule_revision, stored.timezone) == (2, "Europe/Paris")
    assert abs(stored.scheduled_time - datetime.now(UTC)) < timedelta(minutes=1)
    assert stored.scheduled_time == stack.edits_of(post)[0].created_at
    after = edit["after"]
    assert isinstance(after, dict)
    assert parse_instant(after["scheduledTime"]) is not None
    eventually(lambda: [[post, 2]] in [args[0] for args, _ in messages(stack, "publish")], within=30)


def test_a_post_that_missed_its_time_while_held_is_let_go(stack: Running) -> None:
    post = stack.post(scheduled_time=factories.soon(-5))
    stack.http.put(f"/v1/posts/{post}/hold")
    held = stack.http.post(f"/v1/posts/{post}/publish")
    assert (error(held, 409)["code"], fields(held)) == ("conflict", ["held"])
    assert stack.http.delete(f"/v1/posts/{post}/hold").json()["missed"] == 1
    answer = stack.http.post(f"/v1/posts/{post}/publish", json={})
    assert ended(stack, answer.headers["location"])["status"] == "applied"
    assert stack.http.get(f"/v1/posts/{post}").json()["held"] is None


@pytest.mark.parametrize("of", ["account", "workspace"])
def test_a_post_that_missed_its_time_stays_while_its_account_or_workspace_is_held(stack: Running, of: str) -> None:
    with stack.engine.begin() as tx:
        account = factories.account(tx, f"acc_now_{of}")
        post = factories.post(tx, account_id=account, scheduled_time=factories.soon(-5))
    stack.http.put(f"/v1/posts/{post}/hold")
    assert stack.http.delete(f"/v1/posts/{post}/hold").json()["missed"] == 1
    above = f"/v1/accounts/{account}/hold" if of == "account" else "/v1/hold"
    stack.http.put(above)
    try:
        held = stack.http.post(f"/v1/posts/{post}/publish")
        assert (error(held, 409)["code"], fields(held)) == ("conflict", ["held"])
        assert f"of its {of}" in error(held)["message"]
        assert stack.edits_of(post) == []
    finally:
        stack.http.delete(above)
    assert stack.http.post(f"/v1/posts/{post}/publish").status_code == 202


@pytest.mark.parametrize("status", ["posted", "failed", "claimed"])
def test_a_post_that_takes_no_edit_is_refused_and_leaves_none(stack: Running, status: str) -> None:
    columns: dict[str, dict[str, Any]] = {
        "posted": {"status": "posted", "posted_at": datetime.now(UTC)},
        "failed": {"status": "failed", "failure_reason": "no"},
        "claimed": {"claim_kind": "publish", "claim_token": "clm_now", "claim_expires_at": factories.soon()},
    }
    post = stack.post(**columns[status])
    said = error(stack.http.post(f"/v1/posts/{post}/publish"), 409)
    assert said["code"] == "cannot_edit"
    words = "is being published already" if status == "claimed" else "can be published now"
    assert words in said["message"]
    assert stack.edits_of(post) == []


def test_what_is_not_there_or_anothers_is_not_found_and_the_scope_is_asked_for(stack: Running) -> None:
    with stack.engine.begin() as tx:
        factories.workspace(tx, "ws_publish", "_publish", "sk_test_publish")
        tx.execute(text("UPDATE api_keys SET scopes = '{posts:read}' WHERE id = 'key_test_publish'"))
        anothers = factories.post(tx, workspace_id="ws_publish")
        deleted = factories.post(tx, deleted_at=datetime.now(UTC))
    for post in (anothers, deleted, "post_nobody", "a%00b"):
        assert error(stack.http.post(f"/v1/posts/{post}/publish"), 404)["code"] == "not_found"
    with client(stack, "sk_test_publish") as reader:
        assert error(reader.post(f"/v1/posts/{anothers}/publish"), 403)["code"] == "forbidden"
    assert error(stack.http.post(f"/v1/posts/{anothers}/publish", json={"now": True}), 400)["code"] == "invalid_request"


@pytest.mark.parametrize("header", [{"If-Match": '"7"'}, {"If-Match": 'W/"1"'}, {"If-None-Match": '"1"'}])
def test_a_precondition_is_judged_at_once_and_leaves_no_edit(stack: Running, header: dict[str, str]) -> None:
    post = stack.post()
    answer = stack.http.post(f"/v1/posts/{post}/publish", headers=header)
    assert (error(answer, 412)["code"], answer.headers["etag"]) == ("precondition_failed", '"1"')
    assert stack.edits_of(post) == []


def test_a_precondition_is_judged_under_the_lock_behind_the_edits_before_it(stack: Running) -> None:
    post = stack.post()
    with frozen(stack):
        stack.patch(post, {"caption": "before it"}, Prefer="respond-async")
        answer = stack.http.post(f"/v1/posts/{post}/publish", headers={"If-Match": '"1"'})
        assert answer.status_code == 202, answer.text
    edit: dict[str, Any] = ended(stack, answer.headers["location"])
    assert (edit["status"], edit["error"]["code"]) == ("rejected", "precondition_failed")
    answer = stack.http.post(f"/v1/posts/{post}/publish", headers={"If-Match": '"2"'})
    assert ended(stack, answer.headers["location"])["status"] == "applied"
