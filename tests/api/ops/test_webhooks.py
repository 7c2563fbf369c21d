"""Webhooks on the operators' page: backlogs, each event's tries, and the buttons that send events again."""

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
from tests.loopback import LOOPBACK
from tests.stack import Running, running

USER, PASSWORD = "ops", "operators-only"
OURS = {"Sec-Fetch-Site": "same-origin"}


@pytest.fixture(scope="module")
def stack(postgres: PostgreSQL, valkey: Valkey) -> Iterator[Running]:
    url = postgres.create_database("api_ops_webhooks", template=TEMPLATE)
    # Without a worker: what is queued again stays so, to be seen.
    with running(url, empty_database(valkey), REDRAFT_OPS_PASSWORD=PASSWORD) as stack:
        yield stack


@pytest.fixture
def ops(stack: Running) -> Iterator[httpx.Client]:
    assert stack.api is not None
    with stack.engine.begin() as tx:
        tx.execute(text("TRUNCATE webhook_events CASCADE"))
    with httpx.Client(base_url=stack.api.url, auth=(USER, PASSWORD), **LOOPBACK, timeout=10) as client:
        yield client


def event(stack: Running, event_id: str, status: str = "dead", workspace: str = factories.WORKSPACE) -> None:
    with stack.engine.begin() as tx:
        tx.execute(
            text("""
                WITH made AS (
                    INSERT INTO webhook_events (id, workspace_id, post_id, type, data, status, tries, finished_at)
                    VALUES (:id, :workspace, 'post_1', 'edit.applied', '{}', :status, 1,
                        CASE WHEN :status <> 'queued' THEN clock_timestamp() END) RETURNING seq)
                INSERT INTO webhook_tries (event_seq, number, workspace_id, outcome, status, message)
                SELECT seq, 1, :workspace, 'server_error', 502, 'the service answered 502' FROM made"""),
            {"id": event_id, "status": status, "workspace": workspace},
        )


def statuses(stack: Running) -> dict[str, str]:
    with stack.engine.connect() as tx:
        return {row.id: row.status for row in tx.execute(text("SELECT id, status FROM webhook_events"))}


def read(ops: httpx.Client, path: str, status: int = 200) -> str:
    answer = ops.get(path, follow_redirects=True)
    assert answer.status_code == status, answer.text
    return unescape(answer.text)


def pressed(ops: httpx.Client, shown: str) -> httpx.Response:
    """The page's button, as a browser presses it."""
    form = re.search(r'<form method="post" action="([^"]+)">(.*?)</form>', shown, re.DOTALL)
    assert form, shown
    fields = dict(re.findall(r'name="(\w+)" value="([^"]*)"', form[2]))
    return ops.post(form[1], data=fields, headers=OURS)


def test_the_overview_and_the_page_say_backlog_oldest_last_answer_and_dead_ones(
    stack: Running, ops: httpx.Client
) -> None:
    event(stack, "evt_waits", "queued")
    event(stack, "evt_dead")
    with stack.engine.begin() as tx:
        tx.execute(text("UPDATE webhook_events SET created_at = now() - interval '11 min' WHERE status = 'queued'"))
    overview, page = read(ops, "/ops"), read(ops, "/ops/webhooks")
    assert re.search(r'class="tile bad" href="/ops/webhooks\?status=queued".{,60}>1</span> webhooks waiting', overview)
    assert "the oldest for 11 min" in overview
    assert "1</span> dead webhooks" in overview
    for shown in (overview, page):
        assert "the service answered 502" in shown
        assert factories.WORKSPACE in shown
    assert "evt_dead" in page
    assert "evt_waits" not in page
    assert "evt_waits" in read(ops, "/ops/webhooks?status=queued")
    assert "evt_waits" in read(ops, f"/ops/webhooks?status=queued&workspace={factories.WORKSPACE}")
    assert "evt_waits" not in read(ops, "/ops/webhooks?status=queued&workspace=ws_other")


def test_a_list_pages_to_its_end(stack: Running, ops: httpx.Client) -> None:
    for number in range(51):
        event(stack, f"evt_{number:03}")
    first = read(ops, "/ops/webhooks")
    assert "evt_001" in first
    assert "evt_000" not in first
    more = re.search(r'class="button" href="([^"]+)">More', first)
    assert more
    last = read(ops, more[1])
    assert "evt_000" in last
    assert "evt_001" not in last
    assert ">More<" not in last


def test_one_event_is_sent_again_once(stack: Running, ops: httpx.Client) -> None:
    event(stack, "evt_1")
    shown = read(ops, "/ops/webhooks/evt_1")
    assert "the service answered 502" in shown
    done = pressed(ops, shown)
    assert (done.status_code, done.headers["location"]) == (303, "/ops/webhooks/evt_1?done=resent")
    assert statuses(stack) == {"evt_1": "queued"}
    after = read(ops, done.headers["location"])
    assert "It is queued again." in after
    assert "sent again by ops; before: dead" in after
    assert "It waits for its next try already" in after
    # Delivered meanwhile, and the twin's page is pressed: it had seen what was before.
    with stack.engine.begin() as tx:
        tx.execute(text("UPDATE webhook_events SET status = 'delivered', finished_at = clock_timestamp()"))
    twin = pressed(ops, shown)
    assert twin.headers["location"] == "/ops/webhooks/evt_1?done=left"
    assert "Nothing was done" in read(ops, twin.headers["location"])
    assert statuses(stack) == {"evt_1": "delivered"}


def test_all_since_a_time_are_counted_and_sent_again_once(stack: Running, ops: httpx.Client) -> None:
    event(stack, "evt_1", "delivered")
    event(stack, "evt_2")
    event(stack, "evt_3", "queued")
    shown = read(ops, "/ops/webhooks/resend?since=2020-01-01T00:00")
    assert "Send 2 events again" in shown
    event(stack, "evt_4")  # it ended after the operator looked
    done = pressed(ops, shown)
    assert done.status_code == 303, done.text
    said = read(ops, done.headers["location"])
    assert "2 events are queued again." in said
    assert "Every event of that time is queued again" in said
    assert statuses(stack) == {"evt_1": "queued", "evt_2": "queued", "evt_3": "queued", "evt_4": "dead"}
    assert "0 events are queued again." in read(ops, pressed(ops, shown).headers["location"])
    only = read(ops, "/ops/webhooks/resend?since=2020-01-01T00:00Z&status=delivered&workspace=ws_test")
    assert "No event ended in that time" in only


def test_a_form_of_another_site_or_of_nonsense_does_nothing(stack: Running, ops: httpx.Client) -> None:
    event(stack, "evt_1")
    shown = read(ops, "/ops/webhooks/evt_1")
    token = re.search(r'name="token" value="([^"]+)"', shown)
    assert token
    fields = {"token": token[1], "until": "2099-01-01T00:00:00Z"}
    assert ops.post("/ops/webhooks/evt_1/resend", data=fields).status_code == 403
    assert ops.post("/ops/webhooks/evt_1/resend", data=fields | {"until": "x"}, headers=OURS).status_code == 400
    assert ops.post("/ops/webhooks/resend", data=fields, headers=OURS).status_code == 403
    assert statuses(stack) == {"evt_1": "dead"}
    for path in ("/ops/webhooks/resend", "/ops/webhooks/resend?since=then", "/ops/webhooks/resend?since=1999&until=x"):
        assert ops.get(path).status_code == 400
    for path in ("/ops/webhooks/evt_gone", f"/ops/webhooks/{'x' * 300}"):
        assert ops.get(path).status_code == 404
    assert ops.get("/ops/webhooks?status=none&after=x&workspace=%00").status_code == 200
