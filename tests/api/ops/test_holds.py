"""Holds on the operators' page: a post, an account and a workspace are held and resumed by their ids."""

import re
from collections.abc import Iterator
from html import unescape

import httpx
import pytest
from sqlalchemy import text

from shared.local.postgres import PostgreSQL
from shared.local.valkey import Valkey
from tests import factories
from tests.conftest import TEMPLATE, empty_database
from tests.holding import missed
from tests.loopback import LOOPBACK
from tests.stack import Running, running

PASSWORD = "operators-only"
OURS = {"Sec-Fetch-Site": "same-origin"}


@pytest.fixture(scope="module")
def stack(postgres: PostgreSQL, valkey: Valkey) -> Iterator[Running]:
    url = postgres.create_database("api_ops_holds", template=TEMPLATE)
    redis = empty_database(valkey)
    with running(url, redis, REDRAFT_OPS_PASSWORD=PASSWORD, REDRAFT_OPS_READ_PASSWORD="looking") as stack:
        yield stack


@pytest.fixture
def ops(stack: Running) -> Iterator[httpx.Client]:
    assert stack.api is not None
    with stack.engine.begin() as tx:
        tx.execute(text("TRUNCATE holds"))
    with httpx.Client(base_url=stack.api.url, auth=("ops", PASSWORD), **LOOPBACK, timeout=10) as client:
        yield client


def page(ops: httpx.Client) -> str:
    answer = ops.get("/ops/holds")
    assert answer.status_code == 200, answer.text
    return unescape(answer.text)


def act(ops: httpx.Client, what: str, status: int = 200, **fields: str) -> str:
    """Press the button of a form; the page that comes then."""
    form = re.search(
        rf'action="/ops/holds/{what}".*?name="token" value="([^"]+)"', ops.get("/ops/holds").text, re.DOTALL
    )
    assert form is not None
    answer = ops.post(f"/ops/holds/{what}", data=fields | {"token": form[1]}, headers=OURS, follow_redirects=True)
    assert answer.status_code == status, answer.text
    return unescape(answer.text)


@pytest.mark.parametrize("what", ["post", "account", "workspace"])
def test_what_is_held_is_listed_with_its_reason_and_is_resumed_by_its_button(
    stack: Running, ops: httpx.Client, what: str
) -> None:
    post = stack.post()
    given = {"post": post, "account": factories.TIKTOK, "workspace": factories.WORKSPACE}[what]
    said = act(ops, "hold", id=given, reason="wrong <prices>")
    assert "It is held" in said
    assert "wrong <prices>" in said
    assert given in said
    assert stack.http.get(f"/v1/posts/{post}").json()["held"] | {"since": ""} == {
        "since": "", "by": "ops", "of": what, "reason": "wrong <prices>",
    }  # fmt: skip
    assert "It is resumed" in act(ops, "resume", id=given)
    assert "wrong <prices>" not in page(ops)


def test_a_post_that_missed_its_time_is_listed_and_sent(stack: Running, ops: httpx.Client) -> None:
    post = stack.post(scheduled_time=factories.soon(-5))
    act(ops, "hold", id=factories.TIKTOK)
    act(ops, "resume", id=factories.TIKTOK)
    assert missed(stack.engine, post)
    assert post in page(ops)
    assert "go out now" in act(ops, "resume", id=post, missed="publish")
    assert not missed(stack.engine, post)


def test_what_cannot_be_held_says_so(stack: Running, ops: httpx.Client) -> None:
    failed = stack.post(status="failed", failure_reason="no")
    assert "does not wait to go out" in act(ops, "hold", id=failed)
    assert "There is no post, account or workspace acc_nobody" in act(ops, "hold", 404, id="acc_nobody")
    act(ops, "hold", id=factories.WORKSPACE)
    assert "Resume the workspace first" in act(ops, "resume", 409, id=factories.TIKTOK, missed="publish")
    act(ops, "hold", 400, id="post_1", reason="x" * 501)


def test_a_login_that_only_looks_sees_them_and_has_no_button(stack: Running, ops: httpx.Client) -> None:
    token = re.search(r'name="token" value="([^"]+)"', ops.get("/ops/holds").text)
    assert token is not None
    act(ops, "hold", id=factories.TIKTOK, reason="stop")
    ops.auth = httpx.BasicAuth("ops", "looking")
    said = page(ops)
    assert "stop" in said
    assert "/ops/holds/hold" not in said
    answer = ops.post("/ops/holds/hold", data={"id": factories.WORKSPACE, "token": token[1]}, headers=OURS)
    assert answer.status_code == 403


def press(ops: httpx.Client, post: str, button: str, status: int = 200, **fields: str) -> str:
    """Press a button of a post's page, with what its form holds; the page that comes then."""
    found = re.search(
        rf'<form method="post" action="/ops/posts/{post}/{button}">(.*?)</form>',
        ops.get(f"/ops/posts/{post}").text,
        re.DOTALL,
    )
    assert found is not None
    given = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', found[1])) | fields
    answer = ops.post(f"/ops/posts/{post}/{button}", data=given, headers=OURS, follow_redirects=True)
    assert answer.status_code == status, answer.text
    return unescape(answer.text)


def acts_of(stack: Running, post: str) -> list[tuple[str, str, str]]:
    with stack.engine.connect() as tx:
        rows = tx.execute(
            text("SELECT action, actor, from_state FROM acts WHERE subject_id = :id ORDER BY id"), {"id": post}
        )
        return [tuple(row) for row in rows]


def test_a_post_is_held_resumed_and_published_from_its_page_and_all_is_kept(stack: Running, ops: httpx.Client) -> None:
    post = stack.post()
    assert "It is held" in press(ops, post, "hold", reason="wrong <price>")
    assert stack.row("posts", post).held_reason == "wrong <price>"
    assert "publish" not in {
        form[1] for form in re.finditer(rf"/ops/posts/{post}/(\w+)", ops.get(f"/ops/posts/{post}").text)
    }
    assert "It is resumed" in press(ops, post, "resume")
    assert "It goes out" in press(ops, post, "publish")
    with stack.engine.connect() as tx:
        [edit] = tx.execute(text("SELECT requested_by, changes, if_match FROM edits WHERE post_id = :id"), {"id": post})
    assert tuple(edit) == ("ops", {"publishNow": True}, ['"1"'])
    assert acts_of(stack, post) == [(act, "ops", "generated") for act in ("hold", "resume", "publish")]
    assert "let go at once by ops" in unescape(ops.get(f"/ops/posts/{post}").text)


def test_a_missed_post_is_sent_from_its_page_unless_it_is_held_above(stack: Running, ops: httpx.Client) -> None:
    post = stack.post(scheduled_time=factories.soon(-5))
    act(ops, "hold", id=post)
    act(ops, "resume", id=post)
    act(ops, "hold", id=factories.TIKTOK)
    assert "resume-publish" not in ops.get(f"/ops/posts/{post}").text
    assert "its account is held" in press(ops, post, "resume", 409, missed="publish")
    act(ops, "resume", id=factories.TIKTOK)
    assert "goes out now" in press(ops, post, "resume", missed="publish")
    assert not missed(stack.engine, post)


def test_a_form_of_a_hold_or_a_revision_that_is_over_does_nothing(stack: Running, ops: httpx.Client) -> None:
    post = stack.post()
    assert "The post has changed" in press(ops, post, "publish", 409, seen="7")
    press(ops, post, "hold")
    assert "Its hold has changed" in press(ops, post, "resume", 409, seen="post 2026-01-01T00:00:00+00:00")
    assert stack.row("posts", post).held_at is not None
    assert stack.edits_of(post) == []
    ops.auth = httpx.BasicAuth("ops", "looking")
    assert "/resume" not in ops.get(f"/ops/posts/{post}").text


@pytest.mark.parametrize("button", ["hold", "resume", "publish"])
def test_a_login_that_only_looks_presses_no_button_of_a_post(stack: Running, ops: httpx.Client, button: str) -> None:
    post = stack.post()
    if button == "resume":
        press(ops, post, "hold")
    before = stack.row("posts", post)
    shown = ops.get(f"/ops/posts/{post}").text
    token = re.search(rf'/ops/posts/{post}/{button}">\s*<input type="hidden" name="token" value="([^"]+)"', shown)
    assert token is not None
    ops.auth = httpx.BasicAuth("ops", "looking")
    answer = ops.post(f"/ops/posts/{post}/{button}", data={"token": token[1], "seen": "1"}, headers=OURS)
    assert answer.status_code == 403
    assert stack.row("posts", post) == before
    assert stack.edits_of(post) == []


@pytest.mark.parametrize("reason", ["two\nlines", "\x1b[31mred", "back\u202ewards"])
def test_a_reason_is_one_line_without_control_characters(stack: Running, ops: httpx.Client, reason: str) -> None:
    post = stack.post()
    assert "control characters" in act(ops, "hold", 400, id=post, reason=reason)
    assert "control characters" in press(ops, post, "hold", 400, reason=reason)
    assert stack.row("posts", post).held_at is None
