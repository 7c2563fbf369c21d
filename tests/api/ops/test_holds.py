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
from tests.conftest import LOGICAL_DATABASES, TEMPLATE
from tests.holding import missed
from tests.loopback import LOOPBACK
from tests.stack import Running, running

PASSWORD = "operators-only"
OURS = {"Sec-Fetch-Site": "same-origin"}


@pytest.fixture(scope="module")
def stack(postgres: PostgreSQL, valkey: Valkey) -> Iterator[Running]:
    url = postgres.create_database("api_ops_holds", template=TEMPLATE)
    redis = valkey.url(LOGICAL_DATABASES - 127)
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
