"""The operators' page over HTTP: who gets in, what it shows, what it does, and what it never shows."""

import re
from collections.abc import Iterator
from html import unescape
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from shared.domain.edits import PLAIN, PlainField
from shared.local.postgres import PostgreSQL
from shared.local.valkey import Valkey
from tests import factories
from tests.conftest import TEMPLATE, empty_database
from tests.factories import FAILED
from tests.loopback import LOOPBACK
from tests.stack import Running, running
from tests.waiting import eventually

USER, PASSWORD = "ops", "correct horse ü"
OURS = {"Sec-Fetch-Site": "same-origin"}


@pytest.fixture(scope="module")
def stack(postgres: PostgreSQL, valkey: Valkey) -> Iterator[Running]:
    url = postgres.create_database("api_ops", template=TEMPLATE)
    environment = {"REDRAFT_OPS_PASSWORD": PASSWORD, "REDRAFT_FLOWER_URL": "http://flower.example.com:5555"}
    with running(url, empty_database(valkey), "edits", **environment) as stack:
        yield stack


@pytest.fixture(scope="module")
def ops(stack: Running) -> Iterator[httpx.Client]:
    assert stack.api is not None
    with httpx.Client(
        base_url=stack.api.url, auth=(USER.encode(), PASSWORD.encode()), **LOOPBACK, timeout=10
    ) as client:
        yield client


def change(stack: Running, statement: str, **given: Any) -> None:
    with stack.engine.begin() as tx:
        tx.execute(text(statement), given)


def edit(stack: Running, post_id: str, changes: dict[str, Any], state: str = FAILED) -> str:
    with stack.engine.begin() as tx:
        edit_id = factories.edit(tx, post_id, changes)
        tx.execute(text(f"UPDATE edits SET {state} WHERE id = :id"), {"id": edit_id})
    return edit_id


def read(ops: httpx.Client, path: str, status: int = 200) -> str:
    answer = ops.get(path)
    assert answer.status_code == status, answer.text
    return unescape(answer.text)


def form(ops: httpx.Client, edit_id: str, act: str) -> dict[str, str]:
    """The fields of that form on the edit's page."""
    page = read(ops, f"/ops/edits/{edit_id}")
    found = re.search(rf'action="/ops/edits/{edit_id}/{act}">(.*?)</form>', page, re.DOTALL)
    assert found, page
    return dict(re.findall(r'name="(\w+)" value="([^"]*)"', found[1]))


def test_without_a_password_the_page_is_off_and_says_how_to_set_one(stack: Running) -> None:
    api = stack.processes.start("api", **stack.environment | {"REDRAFT_OPS_PASSWORD": ""})
    eventually(lambda: "running on http" in api.output(), within=30)
    for path in ("/ops", "/ops/edits", "/ops/style.css"):
        answer = httpx.get(api.url + path, auth=(USER, ""), **LOOPBACK)
        assert answer.status_code == 404
        assert "REDRAFT_OPS_PASSWORD" in answer.text
    api.close()


@pytest.mark.parametrize("path", ["/ops", "/ops/edits", "/ops/edits/x", "/ops/posts/x", "/ops/style.css", "/ops/x"])
def test_every_address_wants_the_password(stack: Running, path: str) -> None:
    assert stack.api is not None
    for headers in ({}, {"Authorization": f"Bearer {factories.SECRET}"}, {"Authorization": "Basic !"}):
        answer = httpx.get(stack.api.url + path, headers=headers, **LOOPBACK)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith('Basic realm="')
        assert "default-src 'none'" in answer.headers["content-security-policy"]
    refused = httpx.get(stack.api.url + path, auth=(USER, "wrong"), **LOOPBACK)
    assert refused.status_code == 401


def test_pages_load_nothing_from_elsewhere_and_need_no_inline_code(stack: Running, ops: httpx.Client) -> None:
    post = stack.post()
    pages = ["/ops", "/ops/edits", f"/ops/edits/{edit(stack, post, {'caption': 'a'})}", f"/ops/posts/{post}"]
    for path in [*pages, "/ops/late", "/ops/jobs", "/ops/webhooks", "/ops/search?q=nothing"]:
        answer = ops.get(path)
        assert answer.headers["content-security-policy"].startswith("default-src 'none'; style-src 'self'")
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-frame-options"] == "DENY"
        assert not re.search(r"<script(?! src=\"/ops/)|<style|\sstyle=|\son\w+=|javascript:", answer.text)
        links = re.findall(r'(?:href|src|action)="([^"]*)"', answer.text)
        assert {link for link in links if not link.startswith(("/ops", "#"))} == {"http://flower.example.com:5555"}
    for name in ("style.css", "live.js", "icon.svg"):
        assert ops.get(f"/ops/{name}").status_code == 200
    assert "/ops" not in stack.http.get("/openapi.json").text


@pytest.mark.parametrize("plain", PLAIN, ids=[plain.name for plain in PLAIN])
def test_the_page_of_a_post_shows_each_plain_field(stack: Running, ops: httpx.Client, plain: PlainField) -> None:
    post = stack.post(**{plain.attribute: "mine & <b>yours</b>"})
    shown = ops.get(f"/ops/posts/{post}").text
    assert f'<dt>{plain.name}</dt><dd><span class="value">mine &amp; &lt;b&gt;yours&lt;/b&gt;</span></dd>' in shown


def test_a_failed_edit_is_found_read_and_requeued_and_then_applied(stack: Running, ops: httpx.Client) -> None:
    post = stack.post()
    failed = edit(stack, post, {"caption": "mine & <b>yours</b>"})
    assert stack.patch(post, {"caption": "newer"}).status_code == 200
    newer = stack.edits_of(post)[-1].id
    assert failed in read(ops, "/ops")
    assert failed in read(ops, "/ops/edits?status=failed")
    page = ops.get(f"/ops/edits/{failed}").text
    assert "mine &amp; &lt;b&gt;yours" in page
    assert "Requeue, overwriting 1 later change" in page
    assert newer in page
    answer = ops.post(f"/ops/edits/{failed}/requeue", data=form(ops, failed, "requeue"), headers=OURS)
    assert (answer.status_code, answer.headers["location"]) == (303, f"/ops/edits/{failed}?done=requeued")
    eventually(lambda: stack.row("edits", failed).status == "applied", within=30)
    assert stack.row("posts", post).caption == "mine & <b>yours</b>"
    assert "queued again" in read(ops, answer.headers["location"])


def test_what_the_operator_did_not_see_is_not_overwritten(stack: Running, ops: httpx.Client) -> None:
    post = stack.post()
    failed = edit(stack, post, {"caption": "mine"})
    agreed = form(ops, failed, "requeue")
    stack.patch(post, {"caption": "came in between"})
    answer = ops.post(f"/ops/edits/{failed}/requeue", data=agreed, headers=OURS)
    assert answer.status_code == 409
    assert "have changed since you looked" in answer.text
    assert stack.edits_of(post)[-1].id in answer.text
    assert stack.row("edits", failed).status == "failed"
    repeated = ops.post(f"/ops/edits/{failed}/requeue", data=form(ops, failed, "requeue"), headers=OURS)
    assert repeated.status_code == 303


def test_a_discarded_edit_ends_rejected_and_offers_nothing_more(stack: Running, ops: httpx.Client) -> None:
    failed = edit(stack, stack.post(), {"caption": "mine"})
    fields = form(ops, failed, "discard")
    assert ops.post(f"/ops/edits/{failed}/discard", data=fields, headers=OURS).status_code == 303
    row = stack.row("edits", failed)
    assert (row.status, row.error_code) == ("rejected", "discarded")
    assert "<form method" not in read(ops, f"/ops/edits/{failed}")
    assert ops.post(f"/ops/edits/{failed}/discard", data=fields, headers=OURS).status_code == 409


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
        {"Sec-Fetch-Site": "cross-site", "Origin": "SELF"},
        {"Origin": "http://evil.example.com"},
        {"Origin": "null"},
        {},
    ],
)
def test_a_form_from_another_site_does_nothing(stack: Running, ops: httpx.Client, headers: dict[str, str]) -> None:
    assert stack.api is not None
    failed = edit(stack, stack.post(), {"caption": "mine"})
    sent = {name: value.replace("SELF", stack.api.url) for name, value in headers.items()}
    answer = ops.post(f"/ops/edits/{failed}/requeue", data=form(ops, failed, "requeue"), headers=sent)
    assert answer.status_code == 403
    assert stack.row("edits", failed).status == "failed"


def test_a_form_of_an_older_browser_is_known_by_its_origin(stack: Running, ops: httpx.Client) -> None:
    assert stack.api is not None
    failed = edit(stack, stack.post(), {"caption": "mine"})
    fields = form(ops, failed, "requeue")
    answer = ops.post(f"/ops/edits/{failed}/requeue", data=fields, headers={"Origin": stack.api.url})
    assert answer.status_code == 303


def test_a_form_without_the_token_of_its_own_page_does_nothing(stack: Running, ops: httpx.Client) -> None:
    failed, other = (edit(stack, stack.post(), {"caption": "mine"}) for _ in range(2))
    right = form(ops, failed, "requeue")
    for token in (
        "",
        "1",
        right["token"][:-1] + ("1" if right["token"].endswith("0") else "0"),
        form(ops, other, "requeue")["token"],
        form(ops, failed, "discard")["token"],
    ):
        answer = ops.post(f"/ops/edits/{failed}/requeue", data=right | {"token": token}, headers=OURS)
        assert answer.status_code == 403, token
    assert stack.row("edits", failed).status == "failed"


def test_a_post_that_somebody_holds_costs_the_operator_a_second_and_a_sentence(
    stack: Running, ops: httpx.Client
) -> None:
    post = stack.post()
    failed = edit(stack, post, {"caption": "mine"})
    fields = form(ops, failed, "requeue")
    with stack.engine.begin() as other:
        other.execute(text("SELECT FROM posts WHERE id = :id FOR UPDATE"), {"id": post})
        answer = ops.post(f"/ops/edits/{failed}/requeue", data=fields, headers=OURS)
    assert answer.status_code == 503
    assert "The post is locked elsewhere" in answer.text
    assert stack.row("edits", failed).status == "failed"


def test_a_post_tells_its_edits_and_tries_in_one_story(stack: Running, ops: httpx.Client) -> None:
    post = stack.post(content_url='"https://cdn.example.com/a.mp4?signature=hush"', scheduled_time=factories.soon(-9))
    failed = edit(stack, post, {"caption": "mine"})
    change(
        stack,
        """INSERT INTO publish_attempts (post_id, schedule_revision, idempotency_key, body, try_number, claim_token,
               started_at, finished_at, outcome, message) VALUES
           (:post, 1, 'pub_1', 'hushed body', 1, :post, now() + interval '1 s', now() + interval '3 s', 'server_error',
               'the service answered 502')""",
        post=post,
    )
    page = read(ops, f"/ops/posts/{post}")
    timeline = re.findall(r"<li class=\"(\w*)\">.*?</time>\s*(?:<a [^>]*>)?([^<]*)", page, re.DOTALL)
    lines = [(kind, " ".join(what.split())) for kind, what in timeline]
    assert lines == [
        ("", "created"),
        ("bad", "edit failed: caption by tests"),
        ("", "publish, try 1"),
        ("warn", "try 1 server error: the service answered 502"),
    ]
    assert failed in page
    assert "Late: no worker of the queue publish is heard of" in page
    assert "hush" not in page
    assert post in read(ops, "/ops/late")
    assert "no worker of the queue publish is heard of" in read(ops, "/ops/late")


def test_ids_copied_from_flower_are_found(stack: Running, ops: httpx.Client) -> None:
    post, other = stack.post(), stack.post()
    queued = edit(stack, post, {"caption": "a"})
    change(
        stack,
        """INSERT INTO reschedules (id, workspace_id, api_key_id, requested_by, plan) VALUES
           ('rsch_0001', 'ws_test', 'key', 'tests', '{"shift": "P1D"}') ON CONFLICT DO NOTHING""",
    )

    def finds(what: str) -> str:
        answer = ops.get("/ops/search", params={"q": what})
        return answer.headers.get("location", "") if answer.status_code == 303 else answer.text

    assert finds(post) == f"/ops/posts/{post}"
    assert finds(f" ({post} +3) ") == f"/ops/posts/{post}"
    assert finds(post.removeprefix("post_")) == f"/ops/posts/{post}"
    assert finds(queued) == f"/ops/edits/{queued}"
    assert finds("('rsch_0001',)") == "/ops/jobs/rsch_0001"
    several = finds(f"[['{post}', '{other}'], None]")
    assert f"/ops/posts/{post}" in several
    assert f"/ops/posts/{other}" in several
    for nothing in (
        "",
        "post_unknown",
        "8d0c1b6e-6f0c-4b6e-9d2e-0f7a1c2b3d4e",
        "\0",
        "'; DROP TABLE posts",
        "x" * 20000,
    ):
        assert ops.get("/ops/search", params={"q": nothing[:6000]}).status_code == 404


def test_jobs_and_dead_webhooks_are_shown(stack: Running, ops: httpx.Client) -> None:
    post = stack.post()
    change(
        stack,
        """INSERT INTO reschedules (id, workspace_id, api_key_id, requested_by, plan, status, total, chunks, applied)
           VALUES ('rsch_half', 'ws_test', 'key', 'tests', '{"shift": "P1D"}', 'running', 4000, 4, 1000)""",
    )
    change(
        stack,
        """INSERT INTO webhook_events (id, workspace_id, post_id, type, data, status, tries, finished_at, message)
           VALUES ('evt_dead', 'ws_test', :post, 'edit.applied', '{}', 'dead', 57, now(), 'answered 502')""",
        post=post,
    )
    for path in ("/ops", "/ops/jobs", "/ops/jobs/rsch_half"):
        page = read(ops, path)
        assert '<progress value="1000" max="4000"' in page
        assert "1,000 of 4,000" in page
    page = read(ops, "/ops/webhooks")
    assert all(word in page for word in ("evt_dead", post))
    assert ops.get("/ops/search?q=evt_dead").headers["location"] == "/ops/webhooks/evt_dead"


@pytest.mark.parametrize(
    ("status", "shown"), [("running", "choosing its posts"), ("canceled", "finished before it had chosen its posts")]
)
def test_a_job_without_posts_says_whether_any_will_come(
    stack: Running, ops: httpx.Client, status: str, shown: str
) -> None:
    change(
        stack,
        """INSERT INTO reschedules (id, workspace_id, api_key_id, requested_by, plan, status, finished_at)
           VALUES ('rsch_' || :status, 'ws_test', 'key', 'tests', '{"shift": "P1D"}', :status,
                   CASE :status WHEN 'canceled' THEN now() END)""",
        status=status,
    )
    assert shown in read(ops, f"/ops/jobs/rsch_{status}")


def test_lists_go_on_page_by_page_without_doubles(stack: Running, ops: httpx.Client) -> None:
    post = stack.post()
    made = [edit(stack, post, {"caption": "a"}) for _ in range(60)]
    for path in (f"/ops/edits?post={post}", f"/ops/edits?post={post}&status=failed", "/ops/edits"):
        seen: list[str] = []
        following: str | None = path
        while following:
            page = read(ops, following)
            seen += re.findall(r'<td role="cell" data-label="edit"><span><a class="id" href="/ops/edits/(\w+)"', page)
            more = re.search(r'<a class="button" href="(/ops/edits\?[^"]*)"', page)
            following = more[1] if more else None
        assert len(seen) == len(set(seen))
        assert [one for one in seen if one in made] == made[::-1]


def test_nothing_secret_is_shown(stack: Running, ops: httpx.Client) -> None:
    post = stack.post()
    stack.patch(post, {"contentType": "video", "contentUrl": "https://cdn.example.com/b.mp4?token=hush"})
    [done] = stack.edits_of(post)
    pages = [read(ops, path) for path in ("/ops", "/ops/edits", f"/ops/edits/{done.id}", f"/ops/posts/{post}")]
    for page in pages:
        for secret in (factories.SECRET, factories.SECRET[-6:], "hush", PASSWORD, "redis://", "postgresql"):
            assert secret not in page
    assert "b.mp4?…" in pages[2]


def test_a_database_that_is_slow_costs_the_page_parts_and_the_api_nothing(stack: Running, ops: httpx.Client) -> None:
    with stack.engine.begin() as other:
        other.execute(text("LOCK TABLE reschedules, publish_attempts IN ACCESS EXCLUSIVE MODE"))
        page = read(ops, "/ops")
        assert "PostgreSQL did not answer in time" in page
        assert "Failed edits" in page
        assert stack.http.get("/v1/posts?limit=1").status_code == 200
        assert "unavailable" in read(ops, "/ops/jobs", 503)
    assert "PostgreSQL did not answer in time" not in read(ops, "/ops")


def test_unknown_addresses_are_answered_for_people(ops: httpx.Client) -> None:
    for path in ("/ops/nothing", "/ops/edits/edit_x", "/ops/posts/%00", "/ops/jobs/x", "/ops/edits/a%2Fb"):
        assert "<h1>No such" in read(ops, path, 404)
    assert ops.get("/ops/").headers["location"] == "/ops"
