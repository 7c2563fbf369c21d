"""DELETE /v1/posts: hidden under the lock, each post with its reason, and what waited for it ends."""

import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, text

from api import deletion
from api.http.headers import Preconditions
from api.models.deletion import Reason
from shared.domain.errors import PreconditionFailed
from shared.domain.lifecycle import STATES
from shared.store import StaleWriteError, db
from shared.store import claims as claims_store
from shared.store import posts as posts_store
from shared.store.claims import NewClaim
from shared.store.posts import read_posts
from tests import factories
from tests.api.answers import error, fields
from tests.stack import Running
from tests.waiting import eventually

SOON = factories.soon(5)
CLAIM = {"claim_token": "clm", "claim_expires_at": SOON}


def delete(stack: Running, *post_ids: Any) -> httpx.Response:
    return stack.http.request("DELETE", "/v1/posts", json={"postIds": list(post_ids)})


@contextmanager
def frozen(stack: Running) -> Iterator[None]:
    """While it lasts the worker applies nothing, so that the queue is the deletion's to end."""
    stack.workers["edits"].freeze()
    try:
        yield
    finally:
        stack.workers["edits"].thaw()


def test_a_deleted_post_is_gone_from_every_read_and_its_row_and_audit_stay(stack: Running) -> None:
    post, other = stack.post(), stack.post()
    edit = stack.patch(post, {"caption": "before"}).headers["edit-id"]
    answer = delete(stack, post)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert (list(body), body["deleted"], body["failed"]) == (["deleted", "failed", "deletedAt"], [post], [])
    row = stack.row("posts", post)
    assert (row.deleted_at.strftime("%Y-%m-%dT%H:%M:%SZ"), row.caption) == (body["deletedAt"], "before")
    assert abs((row.deleted_at - datetime.now(UTC)).total_seconds()) < 60
    for path in (f"/v1/posts/{post}", f"/v1/posts/{post}/edits"):
        assert error(stack.http.get(path), 404)["message"] == f"Post {post} not found"
    assert error(stack.patch(post, {"caption": "late"}), 404)["code"] == "not_found"
    listed = [one["postId"] for one in stack.http.get("/v1/posts").json()["data"]]
    assert (post in listed, other in listed) == (False, True)
    assert stack.http.get(f"/v1/edits/{edit}").json()["after"] == {"caption": "before"}
    assert edit in [one["editId"] for one in stack.http.get("/v1/edits").json()["data"]]


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"status": "posted", "posted_at": factories.soon(-10)}, "already_posted"),
        ({"status": "failed", "failure_reason": "refused"}, "already_failed"),
        ({"claim_kind": "publish", **CLAIM}, "being_published"),
        ({"claim_kind": "publish", "claim_token": "clm", "claim_expires_at": factories.soon(-5)}, "being_published"),
        ({"claim_kind": "render", "status": "pending_render", **CLAIM}, "being_rendered"),
        ({"workspace_id": "ws_elsewhere"}, "not_found"),
        ({"deleted_at": factories.soon(-5)}, "not_found"),
    ],
)
def test_a_post_that_cannot_go_is_reported_with_its_reason_and_the_rest_goes(
    stack: Running, columns: dict[str, Any], reason: str
) -> None:
    stays, goes = stack.post(**columns), stack.post()
    before = stack.row("posts", stays)
    body = delete(stack, stays, "post_nowhere", goes).json()
    assert body["deleted"] == [goes]
    assert body["failed"] == [
        {"postId": stays, "reason": reason}, {"postId": "post_nowhere", "reason": "not_found"},
    ]  # fmt: skip
    assert stack.row("posts", stays) == before


def delete_one(stack: Running, post_id: str, **more: Any) -> httpx.Response:
    return stack.http.request("DELETE", f"/v1/posts/{post_id}", **more)


def test_one_post_is_deleted_by_its_path_as_in_a_list(stack: Running) -> None:
    post = stack.post()
    with frozen(stack):
        edit = stack.patch(post, {"caption": "never"}, Prefer="respond-async").headers["edit-id"]
        answer = delete_one(stack, post)
    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["x-request-id"]
    assert stack.row("posts", post).deleted_at is not None
    assert stack.row("edits", edit).error_code == "not_found"
    for again in (delete_one(stack, post), stack.http.get(f"/v1/posts/{post}")):
        assert error(again, 404)["message"] == f"Post {post} not found"


@pytest.mark.parametrize(
    ("columns", "status", "label", "words"),
    [
        ({"status": "posted", "posted_at": factories.soon(-10)}, 409, "posted", "'generated' or 'pending_render'"),
        ({"status": "failed", "failure_reason": "refused"}, 409, "failed", "'generated' or 'pending_render'"),
        ({"claim_kind": "publish", **CLAIM}, 409, "being published", "is being published"),
        ({"claim_kind": "render", "status": "pending_render", **CLAIM}, 409, "being rendered", "is being rendered"),
        ({"workspace_id": "ws_elsewhere"}, 404, None, "not found"),
        ({"deleted_at": factories.soon(-5)}, 404, None, "not found"),
    ],
)
def test_one_post_that_cannot_go_is_refused_and_stays(
    stack: Running, columns: dict[str, Any], status: int, label: str | None, words: str
) -> None:
    post = stack.post(**columns)
    before = stack.row("posts", post)
    said = error(delete_one(stack, post), status)
    assert (said["code"], words in said["message"]) == ("conflict" if label else "not_found", True)
    assert said.get("details") == ([{"field": "status", "message": label}] if label else None)
    assert stack.row("posts", post) == before


def test_one_post_that_another_session_has_locked_is_refused_for_now_and_goes_later(stack: Running) -> None:
    post = stack.post()
    with stack.engine.begin() as person:
        person.execute(text("SELECT 1 FROM posts WHERE id = :id FOR UPDATE"), {"id": post})
        said = error(delete_one(stack, post), 409)
    assert (said["code"], said["details"]) == ("conflict", [{"field": "status", "message": "locked"}])
    assert "send this again" in said["message"]
    assert delete_one(stack, post).status_code == 204


@pytest.mark.parametrize("header", [{"If-Match": '"7"'}, {"If-Match": 'W/"1"'}, {"If-None-Match": '"1"'}])
def test_one_post_is_deleted_only_at_the_revision_that_the_client_knows(stack: Running, header: dict[str, str]) -> None:
    post, sent = stack.post(), stack.post(status="posted", posted_at=factories.soon(-10))
    answer = delete_one(stack, post, headers=header)
    assert (error(answer, 412)["code"], answer.headers["etag"]) == ("precondition_failed", '"1"')
    assert stack.row("posts", post).deleted_at is None
    # 409 comes before 412.
    assert error(delete_one(stack, sent, headers=header), 409)["code"] == "conflict"
    assert delete_one(stack, post, headers={"If-Match": '"1"', "If-None-Match": '"2"'}).status_code == 204


WRITES = [
    ("DELETE", "/v1/posts", {"postIds": ["post_x"]}),
    ("POST", "/v1/edits", {"edits": [{"postId": "post_x", "caption": ""}]}),
    ("POST", "/v1/posts/post_x/retry", None),
    ("PUT", "/v1/posts/post_x/hold", None),
    ("DELETE", "/v1/accounts/acc_x/hold", None),
    ("DELETE", "/v1/hold", None),
    ("POST", "/v1/reschedules", {"filter": {"all": True}, "shift": "P1D", "dryRun": True}),
    ("POST", "/v1/reschedules/rsch_x/revert", None),
    ("POST", "/v1/reschedules/rsch_x/cancel", None),
    ("POST", "/v1/posts/video", {}),
]


@pytest.mark.parametrize(("method", "path", "body"), WRITES)
def test_a_precondition_is_never_ignored(stack: Running, method: str, path: str, body: Any) -> None:
    for name in ("If-Match", "If-None-Match"):
        said = error(stack.http.request(method, path, json=body, headers={name: '"1"'}), 400)
        assert (said["code"], name in said["message"]) == ("invalid_request", True)


def test_deleting_one_post_takes_no_fields_and_no_query_and_no_id_that_no_row_can_have(stack: Running) -> None:
    post = stack.post()
    assert error(delete_one(stack, post, json={"postIds": [post]}), 400)["code"] == "invalid_request"
    assert error(delete_one(stack, post, params={"force": "true"}), 400)["code"] == "invalid_request"
    assert error(delete_one(stack, post, content="{}"), 415)["code"] == "unsupported_media_type"
    assert error(delete_one(stack, "x" * 300), 404)["code"] == "not_found"
    assert error(delete_one(stack, "video"), 405)["code"] == "method_not_allowed"
    assert stack.row("posts", post).deleted_at is None
    assert delete_one(stack, post, json={}).status_code == 204


def test_every_reason_of_a_list_has_its_answer_for_one_post_and_its_line_on_the_page() -> None:
    assert set(deletion.CONFLICTS) | {Reason.NOT_FOUND} == set(Reason)
    page = (Path(__file__).parents[2] / "docs/api.md").read_text()
    for reason, (label, _) in deletion.CONFLICTS.items():
        line = rf"^\| `{reason}` \| 409 `conflict`[^|]*\| `status`: `{label}` \|$"
        assert re.search(line, page, re.MULTILINE), reason


def test_when_nothing_was_deleted_there_is_no_time_for_it(stack: Running) -> None:
    assert delete(stack, "post_nowhere").json() == {
        "deleted": [], "failed": [{"postId": "post_nowhere", "reason": "not_found"}], "deletedAt": None,
    }  # fmt: skip


def test_slides_that_wait_for_a_render_go_too_and_a_post_named_twice_goes_once(stack: Running) -> None:
    post = stack.slides()
    assert delete(stack, post, post).json()["deleted"] == [post]
    assert delete(stack, post).json()["failed"] == [{"postId": post, "reason": "not_found"}]


def test_queued_edits_end_rejected_in_the_same_transaction_and_whoever_waits_is_told(stack: Running) -> None:
    post = stack.post()
    with frozen(stack), ThreadPoolExecutor(1) as clients:
        waits = clients.submit(stack.patch, post, {"caption": "never"}, Prefer="wait=30")
        eventually(lambda: stack.edits_of(post), within=30, because="the edit is queued")
        assert delete(stack, post).json()["deleted"] == [post]
        answer = waits.result(timeout=10)
    assert error(answer, 404)["message"] == f"Post {post} not found"
    edit = stack.row("edits", answer.headers["edit-id"])
    assert (edit.status, edit.error_code, edit.revision, edit.after) == ("rejected", "not_found", 1, None)
    assert edit.finalized_at >= stack.row("posts", post).deleted_at
    assert stack.row("posts", post).caption == "first"


def test_a_post_that_is_released_within_the_wait_is_deleted_and_one_that_is_not_holds_up_nobody(stack: Running) -> None:
    locked, free = stack.post(), stack.post()
    with stack.engine.begin() as person:
        person.execute(text("SELECT 1 FROM posts WHERE id = :id FOR UPDATE"), {"id": locked})
        body = delete(stack, locked, free).json()
    assert (body["deleted"], body["failed"]) == ([free], [{"postId": locked, "reason": "held"}])
    assert stack.row("posts", locked).deleted_at is None
    assert delete(stack, locked).json()["deleted"] == [locked]


def test_an_edit_and_a_deletion_of_one_post_at_once_end_as_one_order_of_the_two(stack: Running) -> None:
    for _ in range(15):
        post = stack.post()
        barrier = threading.Barrier(2)

        def edit(post: str = post, barrier: threading.Barrier = barrier) -> httpx.Response:
            barrier.wait()
            return stack.patch(post, {"caption": "raced"})

        def gone(post: str = post, barrier: threading.Barrier = barrier) -> Any:
            barrier.wait()
            return delete(stack, post).json()

        with ThreadPoolExecutor(2) as clients:
            edited, deleted = clients.submit(edit), clients.submit(gone)
        answer, body, row = edited.result(), deleted.result(), stack.row("posts", post)
        assert (row.deleted_at is not None) == (body["deleted"] == [post])
        assert (answer.status_code, row.caption, row.revision) in {(200, "raced", 2), (404, "first", 1)}
        assert {edit.status for edit in stack.edits_of(post)} <= {"applied", "rejected"}


def test_a_deleted_post_is_not_published_and_not_marked(stack: Running) -> None:
    post = stack.post(scheduled_time=factories.soon(-1), enqueued_revision=1, enqueued_at=SOON)
    assert delete(stack, post).json()["deleted"] == [post]
    assert stack.row("posts", post).enqueued_revision is None
    with pytest.raises(Exception, match="deleted_is_unclaimed"), stack.engine.begin() as tx:
        tx.execute(
            text("UPDATE posts SET claim_kind = 'publish', claim_token = 'c', claim_expires_at = now() WHERE id = :id"),
            {"id": post},
        )


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        ([], "invalid_request", None),
        ({}, "missing_required_fields", "postIds"),
        ({"postIds": []}, "invalid_request", "postIds"),
        ({"postIds": "post_abc123"}, "invalid_request", "postIds"),
        ({"postIds": ["a"] * 1001}, "invalid_request", "postIds"),
        ({"postIds": ["a", 1]}, "invalid_request", "postIds[1]"),
        ({"postIds": ["a\0"]}, "invalid_request", "postIds[0]"),
        ({"postIds": ["a"], "force": True}, "invalid_request", "force"),
    ],
)
def test_bad_input_is_a_400_that_names_the_field(stack: Running, body: Any, code: str, field: str | None) -> None:
    answer = stack.http.request("DELETE", "/v1/posts", json=body)
    assert error(answer, 400)["code"] == code
    assert field is None or fields(answer)[0] == field


def test_ids_that_no_row_can_have_are_simply_not_found(stack: Running) -> None:
    assert delete(stack, "x" * 300, "").json()["failed"] == [
        {"postId": "x" * 300, "reason": "not_found"}, {"postId": "", "reason": "not_found"},
    ]  # fmt: skip


def test_a_thousand_posts_go_in_one_request(stack: Running) -> None:
    with stack.engine.begin() as tx:
        posts = [factories.post(tx) for _ in range(1000)]
    body = delete(stack, *posts).json()
    assert (body["deleted"], body["failed"]) == (posts, [])


def test_every_status_and_claim_has_its_reason(stack: Running) -> None:
    """The rule against the table of states: deletable is what is editable and unclaimed."""
    post = stack.post()
    with stack.engine.connect() as tx:
        facts = read_posts(tx, [post])[0][post].facts
    for status, state in STATES.items():
        for claim in (None, state.claim):
            found = deletion.refusal(replace(facts, status=status, claim=claim))
            assert (found is None) == (state.editable and claim is None), (status, claim)


def test_the_receiver_of_webhooks_is_told_of_the_edits_that_ended_and_then_of_the_deletion(
    monkeypatch: pytest.MonkeyPatch, database_url: str
) -> None:
    monkeypatch.setenv("REDRAFT_WEBHOOK_URL", "http://127.0.0.1:9/")
    with factories.set_up(monkeypatch, database_url) as engine:
        with engine.begin() as tx:
            post = factories.post(tx)
            edits = [factories.edit(tx, post, {"caption": caption}) for caption in ("one", "two")]
        with db.transaction() as tx:
            done = deletion.delete(tx, factories.WORKSPACE, [post])
        with engine.connect() as tx:
            events = tx.execute(text("SELECT type, post_id, data FROM webhook_events ORDER BY seq")).all()
    assert (done.webhooks, done.finalized) == ([post], edits)
    assert [(event.type, event.data.get("editId")) for event in events] == [
        ("edit.rejected", edits[0]), ("edit.rejected", edits[1]), ("post.deleted", None),
    ]  # fmt: skip
    assert {event.post_id for event in events} == {post}
    assert {event.data["revision"] for event in events} == {1}
    assert "one" not in str(events)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, database_url: str) -> Iterator[Engine]:
    """This process as an API of a database of its own."""
    with factories.set_up(monkeypatch, database_url) as engine:
        yield engine


def blocked(engine: Engine) -> int:
    with engine.connect() as tx:
        found: int = tx.execute(
            text(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
        ).scalar_one()
    return found


def waits(engine: Engine) -> None:
    """Until one backend waits for another's transaction."""
    eventually(
        lambda: blocked(engine) == 1,
        within=30,
        because="the loser waits",
    )


def test_a_deletion_that_waited_for_a_claim_sees_it(engine: Engine) -> None:
    with engine.begin() as tx:
        post = factories.post(tx, scheduled_time=factories.soon(-1))

    def gone() -> deletion.Deleted:
        with db.transaction() as tx:
            return deletion.delete(tx, factories.WORKSPACE, [post], 10.0)

    with ThreadPoolExecutor(1) as other:
        with engine.begin() as worker:
            posts_store.lock_posts(worker, [post], "wait")
            claims_store.take_claims(worker, [NewClaim(post, "publish", "clm", "generated")], 60)
            deleting = other.submit(gone)
            waits(engine)
        done = deleting.result(timeout=10)
    assert (done.posts, done.failed) == ([], {post: "being_published"})
    assert factories.row(engine, "posts", post).deleted_at is None


def test_a_deletion_that_waited_for_an_edit_judges_its_precondition_behind_it(engine: Engine) -> None:
    with engine.begin() as tx:
        post = factories.post(tx)

    def gone() -> deletion.Deleted:
        with db.transaction() as tx:
            return deletion.delete(tx, factories.WORKSPACE, [post], 10.0, Preconditions(('"1"',)))

    with ThreadPoolExecutor(1) as other:
        with engine.begin() as worker:
            worker.execute(text("UPDATE posts SET revision = 2 WHERE id = :id"), {"id": post})
            deleting = other.submit(gone)
            waits(engine)
        with pytest.raises(PreconditionFailed, match='ETag is now "2"'):
            deleting.result(timeout=10)
    assert factories.row(engine, "posts", post).deleted_at is None


def test_a_claim_that_waited_for_a_deletion_is_not_taken(engine: Engine) -> None:
    with engine.begin() as tx:
        post = factories.post(tx, scheduled_time=factories.soon(-1))

    def claimed() -> bool:
        with engine.begin() as tx:
            locked = posts_store.lock_posts(tx, [post], "wait")
            assert locked[post].facts.deleted, "what the lock gives is what the row is now"
            claims_store.take_claims(tx, [NewClaim(post, "publish", "clm", "generated")], 60)
        return True

    with ThreadPoolExecutor(1) as other:
        with db.transaction() as tx:
            assert deletion.delete(tx, factories.WORKSPACE, [post]).posts == [post]
            claiming = other.submit(claimed)
            waits(engine)
        with pytest.raises(StaleWriteError):
            claiming.result(timeout=10)
    assert factories.row(engine, "posts", post).claim_kind is None
