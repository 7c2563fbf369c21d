"""Failed posts on the operators' pages: by reason with counts, retries of one and of many, and what is kept of each."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from html import unescape
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from shared.local.postgres import PostgreSQL
from shared.local.valkey import Valkey
from tests import factories
from tests.api.answers import messages
from tests.conftest import TEMPLATE, empty_database
from tests.loopback import LOOPBACK
from tests.stack import Running, running
from tests.waiting import eventually

PASSWORD = "correct horse"
OURS = {"Sec-Fetch-Site": "same-origin"}


@pytest.fixture(scope="module")
def stack(postgres: PostgreSQL, valkey: Valkey) -> Iterator[Running]:
    """Without any worker, so that rows and messages stay as they are put."""
    url = postgres.create_database("api_ops_failed", template=TEMPLATE)
    environment = {"REDRAFT_OPS_PASSWORD": PASSWORD, "REDRAFT_OPS_USER": "kim"}
    with running(url, empty_database(valkey), **environment) as stack:
        yield stack


@pytest.fixture
def ops(stack: Running) -> Iterator[httpx.Client]:
    assert stack.api is not None
    with stack.engine.begin() as tx:
        tx.execute(text("TRUNCATE posts, edits, acts, publish_attempts"))
    with httpx.Client(base_url=stack.api.url, auth=("kim", PASSWORD), **LOOPBACK, timeout=20) as client:
        yield client


def failed(stack: Running, reason: str = "suspended", **columns: Any) -> str:
    gone = {"scheduled_time": factories.soon(-5), "failed_at": datetime.now(UTC)}
    return stack.post(**gone | {"status": "failed", "failure_reason": reason} | columns)


def publish_try(stack: Running, post: str, outcome: str, message: str | None = None, **columns: Any) -> None:
    given = {"post": post, "token": f"clm_{post}", "outcome": outcome, "message": message} | columns
    with stack.engine.begin() as tx:
        tx.execute(
            text("""INSERT INTO publish_attempts (post_id, schedule_revision, idempotency_key, body, try_number,
                        claim_token, finished_at, outcome, message)
                    VALUES (:post, 1, 'pub_' || :post, '{}', 1, :token, now(), :outcome, :message)"""),
            given,
        )


def read(ops: httpx.Client, path: str, status: int = 200) -> str:
    answer = ops.get(path)
    assert answer.status_code == status, answer.text
    return " ".join(unescape(answer.text).split())


def fields(ops: httpx.Client, path: str, action: str) -> dict[str, str]:
    """The fields of the form that posts to `action` on that page."""
    found = re.search(rf'action="{re.escape(action)}">(.*?)</form>', ops.get(path).text, re.DOTALL)
    assert found, action
    return {name: unescape(value) for name, value in re.findall(r'name="(\w+)" value="([^"]*)"', found[1])}


def group(ops: httpx.Client, words: str) -> str:
    """The address of the page of a group with these last words."""
    [address] = re.findall(rf'>{words}</span>.*?href="(/ops/failed/\w+)"', read(ops, "/ops/failed"))[:1]
    return str(address)


def statuses(stack: Running, posts: list[str]) -> list[str]:
    return [stack.row("posts", post).status for post in posts]


def acts(stack: Running) -> list[Any]:
    with stack.engine.connect() as tx:
        return list(tx.execute(text("SELECT * FROM acts ORDER BY id")))


def test_there_is_a_tile_only_where_posts_have_failed(stack: Running, ops: httpx.Client) -> None:
    before = read(ops, "/ops")
    assert "failed posts</a>" not in before
    assert "None." in read(ops, "/ops/failed")
    for _ in range(2):
        failed(stack)
    failed(stack, deleted_at=datetime.now(UTC))
    assert '<span class="figure">2</span> failed posts</a>' in read(ops, "/ops")


def test_posts_are_grouped_by_reason_the_most_frequent_first(stack: Running, ops: httpx.Client) -> None:
    failed(stack, "too <b>long</b>")
    for _ in range(3):
        failed(stack, "suspended")
    answer = ops.get("/ops/failed").text
    found = re.findall(r'class="value">([^<]*)</span></td>\s*<td[^>]*><span>([\d,]+)</span>', answer)
    assert found == [("suspended", "3"), ("too &lt;b&gt;long&lt;/b&gt;", "1")]


def told_apart(stack: Running, failure: str, words: str, reason: str = "publisher_unavailable") -> str:
    return failed(stack, reason, failure_class=failure, failure_message=words)


def test_what_failed_for_one_reason_is_told_apart_by_class_and_last_words(stack: Running, ops: httpx.Client) -> None:
    """Red before: a 401, a 503 and a spent 429 were one group, `publisher_unavailable`."""
    for words, times in (("the service answered 401", 3), ("the service answered 302", 2)):
        for _ in range(times):
            told_apart(stack, "misconfigured", words)
    told_apart(stack, "unavailable", "the service answered 503")
    told_apart(stack, "refused", "publish_outcome_unknown", "publish_outcome_unknown")
    page = " ".join(ops.get("/ops/failed").text.split())
    cell = r"</td> <td[^>]*><span[^>]*>([^<]*)</span>"
    row = rf'class="badge \w+">([^<]*)</span></span>{cell}{cell}'
    classes, groups = page.split('id="reasons-title"')
    assert re.findall(row, classes) == [
        ("misconfigured", "the publisher is set up wrongly", "5"),
        ("refused", "the publisher refused it", "1"),
        ("unavailable", "the publisher failed or could not be reached", "1"),
    ]
    assert sorted(re.findall(row, groups)) == [
        ("misconfigured", "the service answered 302", "2"),
        ("misconfigured", "the service answered 401", "3"),
        ("refused", "publish_outcome_unknown", "1"),
        ("unavailable", "the service answered 503", "1"),
    ]


def test_an_unknown_outcome_stands_first_however_many_failed_otherwise(stack: Running, ops: httpx.Client) -> None:
    """Red before: the overview shows five groups, and the riskiest one was not among them."""
    for number in range(6):
        for _ in range(2):
            told_apart(stack, "unavailable", f"the service answered 50{number}")
    told_apart(stack, "unknown", "timed out", "publish_outcome_unknown")
    for path in ("/ops", "/ops/failed"):
        assert re.findall(r'class="badge \w+">(\w+)</span>', read(ops, path))[0] == "unknown"


def test_all_posts_of_a_class_are_put_back_whatever_their_words(stack: Running, ops: httpx.Client) -> None:
    wrong = [told_apart(stack, "misconfigured", f"the service answered 40{number}") for number in (1, 3, 4)]
    other = told_apart(stack, "unavailable", "the service answered 503")
    path = "/ops/failed/misconfigured"
    page = read(ops, path)
    assert "The publisher is set up wrongly." in page
    assert "3 posts failed in this way." in page
    answer = ops.post(f"{path}/retry", data=fields(ops, path, f"{path}/retry"), headers=OURS)
    assert answer.headers["location"] == "/ops/failed?done=3&left=0"
    assert statuses(stack, [*wrong, other]) == ["generated"] * 3 + ["failed"]
    assert stack.row("posts", wrong[0]).failure_class is None
    assert {(act.before["failureClass"], act.before["failureMessage"]) for act in acts(stack)} >= {
        ("misconfigured", "the service answered 401")
    }


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        ("misconfigured", "the publisher is set up wrongly"),
        ("render_misconfigured", "the renderer is set up wrongly"),
    ],
)
def test_there_is_a_tile_for_what_failed_because_a_service_is_set_up_wrongly(
    stack: Running, ops: httpx.Client, failure: str, words: str
) -> None:
    told_apart(stack, "unavailable", "the service answered 503")
    assert "failed within a day" not in read(ops, "/ops")
    told_apart(stack, failure, "the service answered 401")
    told_apart(stack, failure, "long ago")
    with stack.engine.begin() as tx:
        tx.execute(text("UPDATE posts SET failed_at = now() - interval '25 hours' WHERE failure_message = 'long ago'"))
    tile = f'href="/ops/failed/{failure}"><span class="figure">1</span> failed within a day: {words}</a>'
    assert tile in read(ops, "/ops")


def test_all_posts_of_a_reason_are_put_back_with_the_count_first(stack: Running, ops: httpx.Client) -> None:
    recorded = {"failure_class": "refused", "failure_message": "suspended"}
    posts, other = [failed(stack, **recorded) for _ in range(3)], failed(stack, "too long")
    publish_try(stack, posts[0], "server_error", "503")
    path = group(ops, "suspended")
    page = read(ops, path)
    assert "3 posts failed with these last words." in page
    assert "1 of them may have gone out" in page
    assert all(post in page for post in posts)
    answer = ops.post(f"{path}/retry", data=fields(ops, path, f"{path}/retry"), headers=OURS)
    assert (answer.status_code, answer.headers["location"]) == (303, "/ops/failed?done=3&left=0")
    page = read(ops, answer.headers["location"])
    assert "3 posts are tried again." in page
    assert 'class="notice good"' in page
    assert statuses(stack, [*posts, other]) == ["generated"] * 3 + ["failed"]
    assert [stack.row("posts", post).claim_kind for post in posts] == ["publish", None, None]
    kept = acts(stack)
    assert {(act.actor, act.action, act.from_state, act.before["failureReason"]) for act in kept} == {
        ("kim", "retry", "failed", "suspended")
    }
    assert sorted(act.subject_id for act in kept) == sorted(posts)
    assert all(act.request_id.startswith("req_") for act in kept)
    eventually(lambda: set(posts) <= {pair[0] for args, _ in messages(stack, "publish") for pair in args[0]}, within=30)


def test_what_failed_since_the_operator_looked_is_not_put_back_and_holds_nobody_up(
    stack: Running, ops: httpx.Client
) -> None:
    seen = failed(stack)
    path = group(ops, "suspended")
    agreed = fields(ops, path, f"{path}/retry")
    since = failed(stack)
    assert ops.post(f"{path}/retry", data=agreed, headers=OURS).status_code == 303
    assert statuses(stack, [seen, since]) == ["generated", "failed"]


def test_posts_that_changed_since_the_operator_looked_are_asked_about_again(stack: Running, ops: httpx.Client) -> None:
    posts = [failed(stack) for _ in range(2)]
    path = group(ops, "suspended")
    agreed = fields(ops, path, f"{path}/retry")
    with stack.engine.begin() as tx:
        tx.execute(text("UPDATE posts SET revision = 9 WHERE id = :id"), {"id": posts[0]})
    answer = ops.post(f"{path}/retry", data=agreed, headers=OURS)
    assert answer.status_code == 409
    assert "have changed since you looked" in answer.text
    assert statuses(stack, posts) == ["failed"] * 2
    assert ops.post(f"{path}/retry", data=fields(ops, path, f"{path}/retry"), headers=OURS).status_code == 303


def test_a_post_that_is_locked_elsewhere_is_left_and_counted(stack: Running, ops: httpx.Client) -> None:
    free, locked = failed(stack), failed(stack)
    path = group(ops, "suspended")
    agreed = fields(ops, path, f"{path}/retry")
    with stack.engine.begin() as other:
        other.execute(text("SELECT FROM posts WHERE id = :id FOR UPDATE"), {"id": locked})
        answer = ops.post(f"{path}/retry", data=agreed, headers=OURS)
    assert answer.headers["location"] == "/ops/failed?done=1&left=1"
    page = read(ops, answer.headers["location"])
    assert "1 had changed or were locked elsewhere" in page
    assert 'class="notice warn"' in page
    assert statuses(stack, [free, locked]) == ["generated", "failed"]


def test_posts_whose_keys_the_publisher_may_have_forgotten_are_left_and_counted(
    stack: Running, ops: httpx.Client
) -> None:
    free, old = failed(stack), failed(stack)
    publish_try(stack, old, "unknown")
    one = f"/ops/posts/{old}"
    agreed = fields(ops, one, f"{one}/retry")
    with stack.engine.begin() as tx:
        tx.execute(text("UPDATE publish_attempts SET started_at = now() - interval '3 days'"))
    path = group(ops, "suspended")
    page = read(ops, path)
    assert "1 stays failed: it may have gone out, and its key is too old. Look on the platform, then open each" in page
    assert "old keys" not in page
    assert ">Retry 1 post<" in page
    answer = ops.post(f"{path}/retry", data=fields(ops, path, f"{path}/retry"), headers=OURS)
    assert answer.headers["location"] == "/ops/failed?done=1&left=0&old=1"
    page = read(ops, path)
    assert "1 stays failed" in page
    assert f'action="{path}/retry"' not in page
    page = read(ops, answer.headers["location"])
    assert 'class="notice warn"' in page
    assert "1 post is tried again. 1 may have gone out, and their keys are older than the publisher must" in page
    assert "tried again" not in read(ops, "/ops/failed?done=1&left=0&old=x")
    assert statuses(stack, [free, old]) == ["generated", "failed"]
    page = read(ops, one)
    assert "Its key is older than the publisher must remember, so it is not tried again as it is." in page
    assert f'action="{one}/retry"' not in page
    answer = ops.post(f"{one}/retry", data=agreed, headers=OURS)
    assert answer.status_code == 409
    assert "It may have gone out, and its key is older than the publisher must remember." in answer.text
    answer = ops.post(f"{one}/retry-not-sent", data=fields(ops, one, f"{one}/retry-not-sent"), headers=OURS)
    assert answer.headers["location"] == f"{one}?done=due"


def test_one_post_is_put_back_and_its_page_keeps_why_it_had_failed(stack: Running, ops: httpx.Client) -> None:
    post = failed(stack)
    path = f"/ops/posts/{post}"
    page = read(ops, path)
    assert "It failed: suspended; the publisher refused it; it did not go out." in page
    assert "not-sent" not in page
    answer = ops.post(f"{path}/retry", data=fields(ops, path, f"{path}/retry"), headers=OURS)
    assert (answer.status_code, answer.headers["location"]) == (303, f"{path}?done=due")
    page = read(ops, answer.headers["location"])
    assert "It is due again, and open to edits." in page
    assert page.count("put back by kim; before: failed, suspended") == 2  # in its story, and under what was done to it
    assert '/retry"' not in page
    repeated = ops.post(f"{path}/retry", data={"token": "x"}, headers=OURS)
    assert repeated.status_code == 403


def test_the_word_that_a_post_did_not_go_out_is_a_button_of_its_own(stack: Running, ops: httpx.Client) -> None:
    post = failed(stack, "publish_outcome_unknown")
    publish_try(stack, post, "unknown", "timed out")
    path = f"/ops/posts/{post}"
    page = read(ops, path)
    assert "It failed: publish_outcome_unknown; it may have gone out; last words on try 1: timed out." in page
    right, wrong = (fields(ops, path, f"{path}/{act}") for act in ("retry-not-sent", "retry"))
    assert ops.post(f"{path}/retry-not-sent", data=wrong, headers=OURS).status_code == 403
    answer = ops.post(f"{path}/retry-not-sent", data=right, headers=OURS)
    assert answer.headers["location"] == f"{path}?done=due"
    assert [(act.actor, act.action) for act in acts(stack)] == [("kim", "retry_not_sent")]
    said = "put back by kim, who said that it had not gone out; before: failed, publish_outcome_unknown"
    assert said in read(ops, path)
    assert ops.post(f"{path}/retry-not-sent", data=right, headers=OURS).status_code == 409


@pytest.mark.parametrize("headers", [{"Sec-Fetch-Site": "cross-site"}, {"Origin": "http://evil.example.com"}, {}])
def test_a_form_from_another_site_puts_nothing_back(stack: Running, ops: httpx.Client, headers: dict[str, str]) -> None:
    post = failed(stack)
    for path in (f"/ops/posts/{post}", group(ops, "suspended")):
        given = fields(ops, path, f"{path}/retry")
        assert ops.post(f"{path}/retry", data=given, headers=headers).status_code == 403
    assert statuses(stack, [post]) == ["failed"]


def test_a_form_that_is_not_whole_or_an_address_that_is_none_does_nothing(stack: Running, ops: httpx.Client) -> None:
    post = failed(stack)
    path = group(ops, "suspended")
    given = fields(ops, path, f"{path}/retry")
    for wrong in ({"until": "yesterday"}, {"until": "2026-01-01T00:00:00"}, {"until": ""}):
        assert ops.post(f"{path}/retry", data=given | wrong, headers=OURS).status_code == 400
    assert ops.post(f"{path}/retry", data=given | {"seen": "other"}, headers=OURS).status_code == 409
    one = f"/ops/posts/{post}"
    for revision in ("", "x", "-1", "9" * 30, "²"):
        wrong = fields(ops, one, f"{one}/retry") | {"seen": revision}
        assert ops.post(f"{one}/retry", data=wrong, headers=OURS).status_code == 409
    assert statuses(stack, [post]) == ["failed"]
    assert "<h1>No such group" in read(ops, "/ops/failed/x", 404)
    assert "None of the newest failed posts belongs to this group" in read(ops, f"/ops/failed/{'0' * 32}")
    for odd in ("done=x", "done=-1", "done=1&left=y", f"done={'1' * 9}"):
        assert "tried again" not in read(ops, f"/ops/failed?{odd}")


@pytest.mark.parametrize(("act", "status"), [("requeue", "queued"), ("discard", "rejected")])
def test_what_was_done_to_an_edit_stands_on_its_page(stack: Running, ops: httpx.Client, act: str, status: str) -> None:
    with stack.engine.begin() as tx:
        edit = factories.edit(tx, factories.post(tx), {"caption": "mine"})
        tx.execute(
            text("""UPDATE edits SET status = 'failed', attempts = 5, finalized_at = clock_timestamp(),
                        error_code = 'internal', error_message = 'out of memory' WHERE id = :id"""),
            {"id": edit},
        )
    path = f"/ops/edits/{edit}"
    assert "What was done to it" not in read(ops, path)
    answer = ops.post(f"{path}/{act}", data=fields(ops, path, f"{path}/{act}"), headers=OURS)
    assert answer.status_code == 303
    assert stack.row("edits", edit).status == status
    assert f"{act.rstrip('e')}ed by kim; before: failed, internal (out of memory)" in read(ops, path)
    [kept] = acts(stack)
    assert (kept.subject, kept.before["attempts"], kept.before["error"]["message"]) == ("edit", 5, "out of memory")


def test_a_late_post_says_the_publishers_own_answer(stack: Running, ops: httpx.Client) -> None:
    post = stack.post(
        scheduled_time=factories.soon(-5),
        claim_kind="publish",
        claim_token="clm_late",
        claim_expires_at=factories.soon(-1),
    )
    publish_try(stack, post, "misconfigured", "the service answered 401")
    with stack.engine.begin() as tx:
        tx.execute(text("UPDATE publish_attempts SET claim_token = 'clm_late'"))
    assert "The publisher answers 401 to 1 post. It will answer every post like that." in read(ops, "/ops")
    for path in ("/ops", "/ops/late", f"/ops/posts/{post}"):
        page = read(ops, path)
        assert "the publisher is set up wrongly (the service answered 401); 1 of 10 tries are used up" in page
        assert "died" not in page
    assert "<dt>claim</dt><dd>closed to edits; next try " in page


def test_a_try_whose_worker_was_gone_took_no_time_that_is_known(stack: Running, ops: httpx.Client) -> None:
    post = failed(stack, "publish_outcome_unknown")
    publish_try(stack, post, "unknown", "its worker was gone")
    page = read(ops, f"/ops/posts/{post}")
    assert "try 1 unknown: its worker was gone" in page
    no_time = 'data-label="took"><span>\N{EN DASH}</span>'
    assert no_time in page
    publish_try(stack, post, "unknown", "timed out", token="clm_next")
    assert read(ops, f"/ops/posts/{post}").count(no_time) == 1


def test_a_service_that_fails_is_told_on_the_overview(stack: Running, ops: httpx.Client) -> None:
    """Red before: there was a banner for a 401 only."""
    for words in ("Down for maintenance", "Down for maintenance", "the service answered 200 with a page"):
        post = stack.post(claim_kind="publish", claim_token="clm", claim_expires_at=factories.soon(1))
        publish_try(stack, post, "server_error", words)
    told = "failed for 3 posts: 2 Down for maintenance; 1 the service answered 200 with a page. Look into the publisher"
    assert f'class="notice warn">The latest try of the publisher {told}' in read(ops, "/ops")


def test_a_late_post_says_the_renderers_own_answer(stack: Running, ops: httpx.Client) -> None:
    """Red before: the pages knew nothing of what a renderer had answered."""
    post = stack.post(
        status="pending_render",
        scheduled_time=factories.soon(-5),
        retry_at=factories.soon(5),
        render_tries=3,
        render_outcome="misconfigured",
        render_message="the service answered 401",
        render_answered_at=datetime.now(UTC),
    )
    assert "The renderer answers 401 to 1 post. It will answer every post like that." in read(ops, "/ops")
    for path in ("/ops", "/ops/late", f"/ops/posts/{post}"):
        assert (
            "the renderer is set up wrongly (the service answered 401); 3 of 10 tries are used up; the next one comes"
            in read(ops, path)
        )
    page = read(ops, f"/ops/posts/{post}")
    assert "render misconfigured: the service answered 401" in page
    assert "(3 tries used up)" in page


def test_a_post_that_failed_in_its_render_shows_the_renderers_last_words(stack: Running, ops: httpx.Client) -> None:
    post = told_apart(stack, "render_busy", "queue full", "renderer_unavailable")
    page = read(ops, f"/ops/posts/{post}")
    assert "the renderer asked to wait, or was at work, for an hour; it did not go out; last words: queue full" in page
    assert 'render_busy</span> queue full <span class="muted">(reason: renderer_unavailable)</span>' in page
