"""The operators' pages say why work waits: a lock of another session, no worker, a Redis that is full or frozen."""

import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from html import unescape

import httpx
import pytest
import redis
from sqlalchemy import text

from api.ops import pages
from shared.domain.ids import new_id
from shared.domain.waits import FLOOD, Broker, Session
from shared.local.postgres import PostgreSQL
from tests import factories
from tests import processes as real
from tests.conftest import TEMPLATE
from tests.loopback import LOOPBACK
from tests.processes import Server
from tests.stack import Running, running
from tests.waiting import eventually

PASSWORD = "correct horse"


@pytest.fixture(scope="module")
def valkey_of_ours() -> Iterator[Server]:
    with real.valkey() as server:
        yield server


@pytest.fixture(scope="module")
def stack(postgres: PostgreSQL, valkey_of_ours: Server) -> Iterator[Running]:
    """Without any worker."""
    url = postgres.create_database("api_ops_standing", template=TEMPLATE)
    with running(url, valkey_of_ours.url, REDRAFT_OPS_PASSWORD=PASSWORD) as stack:
        yield stack


@pytest.fixture(scope="module")
def ops(stack: Running) -> Iterator[httpx.Client]:
    assert stack.api is not None
    with httpx.Client(base_url=stack.api.url, auth=("ops", PASSWORD), **LOOPBACK, timeout=20) as client:
        yield client


def read(ops: httpx.Client, path: str = "/ops") -> str:
    answer = ops.get(path)
    assert answer.status_code == 200, answer.text
    return " ".join(unescape(answer.text).split())


def waiting(stack: Running) -> tuple[str, str]:
    """A post that is due, and an edit that waits for it."""
    with stack.engine.begin() as tx:
        post = factories.post(tx, scheduled_time=factories.soon(-5))
        return post, factories.edit(tx, post, {"caption": "x"})


def test_queues_without_a_worker_are_named_on_each_page(stack: Running, ops: httpx.Client) -> None:
    post, edit = waiting(stack)
    assert "No worker of the queues edits, publish, render, bulk and ops was heard of" in read(ops)
    assert "It waits: no worker of the queue edits is heard of" in read(ops, f"/ops/edits/{edit}")
    assert "Late: no worker of the queue publish is heard of" in read(ops, f"/ops/posts/{post}")
    assert "no worker of the queue publish is heard of" in read(ops, "/ops/late")


def test_a_session_that_has_the_post_locked_is_named(stack: Running, ops: httpx.Client) -> None:
    post, edit = waiting(stack)
    with stack.engine.connect() as holder:
        pid = holder.execute(text("SELECT pg_backend_pid() FROM posts WHERE id = :id FOR UPDATE"), {"id": post})
        named = f"session {pid.scalar_one()} ("
        eventually(lambda: f"It waits: {named}" in read(ops, f"/ops/edits/{edit}"), within=10)
        assert f"Late: {named}" in read(ops, f"/ops/posts/{post}")
        assert named in read(ops, "/ops/late")
        assert named in read(ops)


def test_a_redis_that_is_full_is_named_and_no_worker_is_called_missing(
    stack: Running, ops: httpx.Client, valkey_of_ours: Server
) -> None:
    _, edit = waiting(stack)
    with redis.Redis.from_url(valkey_of_ours.url) as client:
        client.config_set("maxmemory", 1)
        try:
            page = eventually(lambda: said if "Redis refuses writes" in (said := read(ops)) else None, within=10)
            assert "No worker of" not in page
            assert "It waits: Redis refuses writes (" in read(ops, f"/ops/edits/{edit}")
        finally:
            client.config_set("maxmemory", 0)
    eventually(lambda: "Redis refuses writes" not in read(ops), within=10)


def test_a_redis_that_is_frozen_makes_no_page_slow(stack: Running, ops: httpx.Client, valkey_of_ours: Server) -> None:
    _, edit = waiting(stack)
    read(ops)
    valkey_of_ours.process.freeze()
    try:
        for path in ("/ops", f"/ops/edits/{edit}", "/ops/late"):
            took: list[float] = []

            def says_so(path: str = path, took: list[float] = took) -> bool:
                began = time.monotonic()
                page = read(ops, path)
                took.append(time.monotonic() - began)
                return "Redis does not answer" in page

            eventually(says_so, within=30, because=f"{path} says that Redis does not answer")
            assert max(took) < 5
    finally:
        valkey_of_ours.process.thaw()
    eventually(lambda: "Redis does not answer" not in read(ops), within=10)


def test_sessions_with_open_transactions_stand_in_the_banner_those_that_hold_others_up_in_red() -> None:
    def session(blocks: int) -> Session:
        return Session(7, "kim", "psql", None, idle=True, seconds=75, blocks=blocks)

    [(first, words), (second, _)] = pages._around(Broker(), [session(2), session(0)], webhooks=True)
    assert (first, second) == ("bad", "warn")
    assert words.startswith("Session 7 (psql, kim) does nothing in an open transaction for 1 min 15 s, and holds up 2")
    assert words.endswith("SELECT pg_terminate_backend(7)")


def test_posts_that_wait_for_their_next_try_are_tried_at_once_with_one_button(
    stack: Running, ops: httpx.Client
) -> None:
    post = stack.post(
        scheduled_time=factories.soon(-5),
        claim_kind="publish",
        claim_token="clm_1",
        claim_expires_at=factories.soon(30),
    )
    with stack.engine.begin() as tx:
        tx.execute(
            text("""INSERT INTO publish_attempts (post_id, schedule_revision, idempotency_key, body, try_number,
                        claim_token, finished_at, outcome, message)
                    VALUES (:post, 1, 'pub_1', '{}', 1, 'clm_1', now(), 'misconfigured', 'it answered 401')"""),
            {"post": post},
        )
    page = read(ops, "/ops/late")
    assert "1 post waits for the next try. The last answers: 1 it answered 401." in page
    token = re.search(r'action="/ops/late/try-now"> <input type="hidden" name="token" value="([^"]*)"', page)
    assert token
    assert ops.post("/ops/late/try-now", data={"token": token[1]}).status_code == 403
    pressed = ops.post("/ops/late/try-now", data={"token": token[1]}, headers={"Sec-Fetch-Site": "same-origin"})
    assert (pressed.status_code, pressed.headers["location"]) == (303, "/ops/late?done=1")
    assert "1 post is tried now." in read(ops, "/ops/late?done=1")
    assert stack.row("posts", post).claim_expires_at < datetime.now(UTC)
    # A second press finds none of them.
    pressed = ops.post("/ops/late/try-now", data={"token": token[1]}, headers={"Sec-Fetch-Site": "same-origin"})
    assert pressed.headers["location"] == "/ops/late?done=0"
    assert "tried at once by ops" in read(ops, f"/ops/posts/{post}")


def test_who_sends_most_stands_on_the_overview_and_a_flood_at_its_top(stack: Running, ops: httpx.Client) -> None:
    with stack.engine.begin() as tx:
        post = factories.post(tx)
        for _ in range(3):
            factories.edit(tx, post, {"caption": "x"})
        tx.execute(text("UPDATE edits SET id = :id WHERE post_id = :post AND seq = (SELECT max(seq) FROM edits)"),
                   {"id": new_id("edit"), "post": post})  # fmt: skip
    page = read(ops)
    assert "Who sends most" in page
    assert "floods the queue" not in page
    with stack.engine.begin() as tx:
        tx.execute(
            text("""INSERT INTO edits (id, post_id, workspace_id, changes, requested_by, created_at)
                    SELECT 'edit_flood' || n, :post, 'ws_test', '{}', 'importer', now() - interval '11 s'
                    FROM generate_series(1, :flood) n"""),
            {"post": post, "flood": FLOOD},
        )
    assert re.search(
        r"The key importer of workspace \S+ floods the queue: of [\d,]+ edits that wait, 1,000 are", read(ops)
    )


def test_the_search_for_an_event_leads_to_the_event(stack: Running, ops: httpx.Client) -> None:
    with stack.engine.begin() as tx:
        tx.execute(
            text("""INSERT INTO webhook_events (id, workspace_id, post_id, type, data)
                    VALUES ('evt_searched', 'ws_test', 'post_1', 'edit.applied', '{}')""")
        )
    answer = ops.get("/ops/search", params={"q": "evt_searched"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/ops/webhooks/evt_searched")
