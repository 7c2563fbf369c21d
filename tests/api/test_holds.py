"""PUT and DELETE of holds from outside: a post, an account, the workspace; what GET and the list say of it."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import text

from api.holds import UNSURE, held_above, resume_scope
from shared.domain.errors import Unavailable
from shared.domain.holds import Hold
from shared.domain.ids import new_id
from shared.store.scope_holds import Step
from tests import factories
from tests.api.answers import client, error, fields
from tests.holding import ACCOUNT, KIM
from tests.stack import Running


def held_path(of: str, post: str) -> str:
    return {"post": f"/v1/posts/{post}/hold", "account": f"/v1/accounts/{factories.TIKTOK}/hold"}.get(of, "/v1/hold")


@pytest.fixture(autouse=True)
def _nothing_is_held_afterwards(stack: Running) -> Any:
    yield
    with stack.engine.begin() as tx:
        tx.execute(text("DELETE FROM holds"))


@pytest.mark.parametrize("of", ["post", "account", "workspace"])
def test_a_hold_shows_on_get_and_in_the_list_until_it_is_resumed(stack: Running, of: str) -> None:
    post, path = stack.post(), ""
    path = held_path(of, post)
    answer = stack.http.put(path, json={"reason": "the price is wrong"})
    assert answer.status_code == 200, answer.text
    hold = answer.json()["held"]
    assert (hold["of"], hold["by"], hold["reason"]) == (of, "tests", "the price is wrong")
    assert answer.json() == {"held": hold, "goingOut": [], "goingOutTotal": 0}
    shown = stack.http.get(f"/v1/posts/{post}")
    assert shown.json()["held"] == hold
    assert shown.headers["cache-control"] == "no-store"
    etag = shown.headers["etag"]
    assert stack.http.get(f"/v1/posts/{post}", headers={"If-None-Match": etag}).status_code == 200
    assert post in listed(stack, "true")
    assert post not in listed(stack, "false")
    # Without a reason the first one stays.
    assert stack.http.put(path).json()["held"] == hold
    assert stack.http.put(path, json={"reason": "typo"}).json()["held"] == hold | {"reason": "typo"}
    # An edit goes on, under the tag of before.
    assert stack.patch(post, {"caption": of}, **{"If-Match": etag}).status_code == 200
    resumed = stack.http.delete(path)
    assert (resumed.status_code, resumed.json()) == (200, {"held": None, "missed": 0, "released": 0})
    assert stack.http.delete(path).json() == {"held": None, "missed": 0, "released": 0}
    assert stack.http.get(f"/v1/posts/{post}").json()["held"] is None
    assert post not in listed(stack, "true")


def listed(stack: Running, held: str) -> list[str]:
    page = stack.http.get("/v1/posts", params={"held": held, "limit": "100"})
    assert page.status_code == 200, page.text
    return [post["postId"] for post in page.json()["data"]]


def test_the_answer_names_what_was_going_out(stack: Running) -> None:
    claim = {"claim_kind": "publish", "claim_token": "clm_going", "claim_expires_at": factories.soon()}
    post = stack.post(**claim)
    assert stack.http.put(f"/v1/posts/{post}/hold").json()["goingOut"] == [post]
    assert post in stack.http.put("/v1/hold", json={}).json()["goingOut"]


@pytest.mark.parametrize("way", ["query", "body"])
def test_what_missed_its_time_stays_held_until_it_is_published(stack: Running, way: str) -> None:
    post = stack.post(scheduled_time=factories.soon(-5))
    path = f"/v1/posts/{post}/hold"
    stack.http.put(path)
    first = stack.http.delete(path).json()
    assert (first["held"]["reason"], first["held"]["by"], first["missed"], first["released"]) == (
        "missed",
        "redraft",
        1,
        0,
    )
    assert stack.http.get(f"/v1/posts/{post}").json()["held"]["reason"] == "missed"
    given: dict[str, Any] = {"params": {"missed": "publish"}} if way == "query" else {"json": {"missed": "publish"}}
    gone = stack.http.request("DELETE", path, **given)
    assert gone.json() == {"held": None, "missed": 0, "released": 1}


def test_missed_posts_of_an_account_are_counted_and_let_go(stack: Running) -> None:
    with stack.engine.begin() as tx:
        account = factories.account(tx, "acc_many")
        posts = [factories.post(tx, account_id=account, scheduled_time=factories.soon(-5)) for _ in range(3)]
    path = f"/v1/accounts/{account}/hold"
    stack.http.put(path)
    assert stack.http.delete(path).json() == {"held": None, "missed": 3, "released": 0}
    assert stack.http.delete(path, params={"missed": "publish"}).json() == {"held": None, "missed": 0, "released": 3}
    assert [stack.row("posts", post).missed_revision for post in posts] == [None] * 3


@pytest.fixture
def late_ones(stack: Running) -> tuple[str, list[str]]:
    """The path of a held account's hold, and three posts of it that are past their time."""
    with stack.engine.begin() as tx:
        account = factories.account(tx, new_id("acc"))
        posts = [factories.post(tx, account_id=account, scheduled_time=factories.soon(-5)) for _ in range(3)]
    path = f"/v1/accounts/{account}/hold"
    stack.http.put(path)
    return path, posts


LOCK = text("SELECT 1 FROM posts WHERE id = :id FOR UPDATE")


def test_a_resume_that_publishes_passes_over_a_locked_post_and_counts_it_as_missed(
    stack: Running, late_ones: tuple[str, list[str]]
) -> None:
    path, posts = late_ones
    assert stack.http.delete(path).json()["missed"] == 3
    stack.http.put(path)
    publish = {"missed": "publish"}
    with stack.engine.begin() as person:
        person.execute(LOCK, {"id": posts[1]})
        answer = stack.http.delete(path, params=publish)
        assert (answer.status_code, answer.json()) == (200, {"held": None, "missed": 1, "released": 2})
        assert [stack.row("posts", post).missed_revision for post in posts] == [None, 1, None]
    assert stack.http.delete(path, params=publish).json() == {"held": None, "missed": 0, "released": 1}


def test_a_resume_that_meets_a_locked_overdue_post_names_it_and_the_hold_stands(
    stack: Running, late_ones: tuple[str, list[str]]
) -> None:
    path, posts = late_ones
    with stack.engine.begin() as person:
        person.execute(LOCK, {"id": posts[1]})
        refused = error(stack.http.delete(path), 503)
        assert posts[1] in refused["message"]
        assert "the hold stands" in refused["message"]
        assert stack.http.get(f"/v1/posts/{posts[1]}").json()["held"]["of"] == "account"
    assert stack.http.delete(path).json() == {"held": None, "missed": 3, "released": 0}


class OutOfReach:
    """A database that goes away behind the first commits."""

    def __init__(self, commits: int) -> None:
        self.commits = commits

    async def write(self, _: object, *, unsure: str) -> Step:
        assert unsure == UNSURE
        if not self.commits:
            raise Unavailable
        self.commits -= 1
        return Step()

    async def read(self, *_: object) -> Hold | None:
        raise Unavailable

    def ring(self, **_: object) -> None:
        pass


@pytest.mark.parametrize(("commits", "message"), [(0, "nothing was accepted"), (1, UNSURE), (2, UNSURE)])
def test_after_the_first_commit_of_a_resume_no_answer_says_that_nothing_was_accepted(
    commits: int, message: str
) -> None:
    context: Any = OutOfReach(commits)

    async def resume() -> None:
        await resume_scope(context, ACCOUNT, KIM, publish=True)
        await held_above(context, ACCOUNT)

    with pytest.raises(Unavailable, match=message):
        asyncio.run(resume())


def test_publish_under_a_hold_above_is_a_conflict(stack: Running) -> None:
    post = stack.post(scheduled_time=factories.soon(-5))
    stack.http.put("/v1/hold")
    for path in (f"/v1/posts/{post}/hold", f"/v1/accounts/{factories.TIKTOK}/hold"):
        refused = stack.http.delete(path, params={"missed": "publish"})
        assert error(refused, 409)["code"] == "conflict"
        assert fields(refused) == ["held"]
    assert stack.http.delete(f"/v1/accounts/{factories.TIKTOK}/hold").json()["held"]["of"] == "workspace"


@pytest.mark.parametrize("status", ["posted", "failed"])
def test_a_post_that_does_not_wait_is_a_conflict(stack: Running, status: str) -> None:
    given = {"posted_at": datetime.now(UTC)} if status == "posted" else {"failure_reason": "no"}
    answer = stack.http.put(f"/v1/posts/{stack.post(status=status, **given)}/hold")
    assert (error(answer, 409)["code"], fields(answer)) == ("conflict", ["status"])


def test_what_is_not_there_or_anothers_is_not_found(stack: Running) -> None:
    with stack.engine.begin() as tx:
        factories.workspace(tx, "ws_hold", "_hold", "sk_test_hold")
        anothers = factories.post(tx, workspace_id="ws_hold")
        deleted = factories.post(tx, deleted_at=datetime.now(UTC))
    for post in (anothers, deleted, "post_nobody", "a%00b"):
        for method in ("PUT", "DELETE"):
            assert error(stack.http.request(method, f"/v1/posts/{post}/hold"), 404)["code"] == "not_found"
    for account in (factories.TIKTOK + "_hold", "acc_nobody", "a%00b"):
        for method in ("PUT", "DELETE"):
            assert error(stack.http.request(method, f"/v1/accounts/{account}/hold"), 404)["code"] == "not_found"
    assert stack.row("posts", anothers).held_at is None


def test_scopes_of_keys(stack: Running) -> None:
    post = stack.post()
    with stack.engine.begin() as tx:
        factories.workspace(tx, factories.WORKSPACE + "_w", "_writer", "sk_test_writer")
        only = (
            "UPDATE api_keys SET scopes = '{posts:write}', workspace_id = :ws, name = id WHERE id = 'key_test_writer'"
        )
        tx.execute(text(only), {"ws": factories.WORKSPACE})
    with client(stack, "sk_test_writer") as writer:
        assert writer.put(f"/v1/posts/{post}/hold").status_code == 200
        for path in (f"/v1/accounts/{factories.TIKTOK}/hold", "/v1/hold"):
            assert error(writer.put(path), 403)["code"] == "forbidden"
            assert error(writer.delete(path), 403)["code"] == "forbidden"


@pytest.mark.parametrize(
    ("method", "given", "field"),
    [
        ("PUT", {"json": {"reason": "x" * 501}}, "reason"),
        ("PUT", {"json": {"reason": "two\nlines"}}, "reason"),
        ("PUT", {"json": {"reason": "\x1b[31mred"}}, "reason"),
        ("PUT", {"json": {"reason": "back\u202ewards"}}, "reason"),
        ("PUT", {"json": {"reasons": "x"}}, "reasons"),
        ("PUT", {"json": {"reason": None}}, "reason"),
        ("PUT", {"params": {"missed": "publish"}}, "missed"),
        ("DELETE", {"json": {"missed": "drop"}}, "missed"),
        ("DELETE", {"params": {"missed": "drop"}}, "missed"),
        ("DELETE", {"params": {"misses": "publish"}}, "misses"),
        ("DELETE", {"params": [("missed", "keep"), ("missed", "publish")]}, "missed"),
        ("DELETE", {"params": [("missed", "publish"), ("missed", "publish")]}, "missed"),
    ],
)
def test_what_is_malformed_is_refused(stack: Running, method: str, given: dict[str, Any], field: str) -> None:
    answer = stack.http.request(method, "/v1/hold", **given)
    assert error(answer, 400)["code"] == "invalid_request"
    assert fields(answer) == [field]
    assert stack.scalar("SELECT count(*) FROM holds") == 0


def test_a_retry_of_a_held_post_that_may_have_gone_out_says_to_resume_first(stack: Running) -> None:
    from tests.api.test_retry import FAILED, publish_try  # noqa: PLC0415  -- its fixtures are not wanted here

    post = stack.post(**FAILED)
    publish_try(stack, post, "unknown")
    stack.http.put("/v1/hold")
    refused = error(stack.http.post(f"/v1/posts/{post}/retry"), 409)
    assert refused["message"] == (
        f"Post {post} is held and may have gone out: it stays failed until it is resumed; then retry it"
    )


def test_accounts_say_what_holds_them(stack: Running) -> None:
    def held() -> dict[str, Any]:
        return {one["accountId"]: one["held"] for one in stack.http.get("/v1/accounts").json()["data"]}

    assert set(held().values()) == {None}
    workspace = stack.http.put("/v1/hold", json={"reason": "all"}).json()["held"]
    account = stack.http.put(f"/v1/accounts/{factories.TIKTOK}/hold", json={"reason": "one"}).json()["held"]
    assert held()[factories.TIKTOK] == account
    assert held()[factories.INSTAGRAM] == workspace
    stack.http.delete("/v1/hold")
    assert held()[factories.INSTAGRAM] is None
    stack.http.delete(f"/v1/accounts/{factories.TIKTOK}/hold")
    assert held()[factories.TIKTOK] is None
