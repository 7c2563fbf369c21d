"""POST /v1/edits against a running API and worker: each edit has its own fate, by the rules of a PATCH."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from tests import factories, sizes
from tests.api.answers import client, error, fields
from tests.loopback import LOOPBACK
from tests.stack import Running
from tests.waiting import eventually

PATH = "/v1/edits"
FATE = ["postId", "status", "editId", "revision", "error"]
AT_ONCE = {"Prefer": "respond-async"}


def send(stack: Running, edits: Any, **headers: str) -> httpx.Response:
    return stack.http.post(PATH, json={"edits": edits}, headers=headers)


def fates(answer: httpx.Response, status: int = 200) -> list[dict[str, Any]]:
    assert answer.status_code == status, answer.text
    found: list[dict[str, Any]] = answer.json()["data"]
    assert all(list(fate) == FATE for fate in found)
    return found


def posts_of(stack: Running, count: int) -> list[str]:
    with stack.engine.begin() as tx:
        return [factories.post(tx) for _ in range(count)]


def row(stack: Running, edit_id: str) -> Any:
    return stack.row("edits", edit_id)


@contextmanager
def locked(stack: Running, *posts: str) -> Iterator[None]:
    with stack.engine.begin() as person:
        person.execute(text("SELECT 1 FROM posts WHERE id = ANY(:ids) FOR UPDATE"), {"ids": list(posts)})
        yield


def test_each_edit_has_its_own_fate_in_the_order_of_the_request(stack: Running) -> None:
    good, other, posted, theirs = (
        stack.post(), stack.post(),
        stack.post(status="posted", posted_at=factories.soon(-10)), stack.post(workspace_id="ws_other"),
    )  # fmt: skip
    answer = send(
        stack,
        [
            {"postId": good, "caption": "one"},
            {"postId": posted, "caption": "late"},
            {"postId": other, "capton": "typed badly"},
            {"postId": theirs, "caption": "not mine"},
            {"caption": "whose?"},
            {"postId": other, "caption": "two", "ifMatch": '"1"'},
        ],
    )
    found = fates(answer)
    assert [fate["status"] for fate in found] == ["applied", *["rejected"] * 4, "applied"]
    assert [fate["postId"] for fate in found] == [good, posted, other, theirs, "", other]
    codes = [fate["error"] and fate["error"]["code"] for fate in found]
    assert codes == [None, "cannot_edit", "invalid_request", "not_found", "missing_required_fields", None]
    assert found[1]["error"]["details"] == [{"field": "status", "message": "posted"}]
    assert "did you mean caption?" in found[2]["error"]["message"]
    assert [fate["revision"] for fate in found] == [2, None, None, None, None, 2]
    assert [fate["editId"] is None for fate in found] == [False, True, True, True, True, False]
    assert (stack.row("posts", good).caption, stack.row("posts", other).caption) == ("one", "two")
    edit = row(stack, found[0]["editId"])
    assert (edit.requested_by, edit.request_id) == ("tests", answer.headers["x-request-id"])
    shown = stack.http.get(f"/v1/edits/{edit.id}").json()
    assert (shown["before"], shown["after"]) == ({"caption": "first"}, {"caption": "one"})


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ([], None),
        ({}, "edits"),
        ({"edits": None}, "edits"),
        ({"edits": {}}, "edits"),
        ({"edits": []}, "edits"),
        ({"edits": [{"postId": "post_abc123", "caption": "x"}] * 1_001}, "edits"),
        ({"edits": [{"postId": "post_abc123", "caption": "x"}, 7]}, "edits[1]"),
        ({"edits": [{"postId": "post_abc123", "caption": "x"}], "force": True}, "force"),
    ],
    ids=["list", "empty", "null", "object", "none", "too many", "number", "unknown"],
)
def test_what_is_no_list_of_1_to_1000_objects_is_a_400_for_all(stack: Running, body: Any, field: str | None) -> None:
    answer = stack.http.post(PATH, json=body)
    assert error(answer, 400)["code"] in {"invalid_request", "missing_required_fields"}
    assert field in [None, *fields(answer)]


@pytest.mark.parametrize(
    ("item", "code", "field"),
    [
        ({}, "missing_required_fields", "postId"),
        ({"caption": "x"}, "missing_required_fields", "postId"),
        ({"postId": None, "caption": "x"}, "invalid_request", "postId"),
        ({"postId": "", "caption": "x"}, "invalid_request", "postId"),
        ({"postId": "a\0b", "caption": "x"}, "invalid_request", "postId"),
        ({"postId": "post\ud800", "caption": "x"}, "invalid_request", "postId"),
        ({"postId": "x" * 300, "caption": "x"}, "invalid_request", "postId"),
        ({"postId": "GOOD"}, "invalid_request", None),
        ({"postId": "GOOD", "ifMatch": '"1"'}, "invalid_request", None),
        ({"postId": "GOOD", "caption": None}, "invalid_request", "caption"),
        ({"postId": "GOOD", "caption": "x" * 2_201}, "invalid_caption", "caption"),
        ({"postId": "GOOD", "status": "posted"}, "invalid_request", "status"),
        ({"postId": "GOOD", "timezone": "Asia/Tokyo"}, "missing_required_fields", "scheduledTime"),
        (
            {"postId": "GOOD", "scheduledTime": "2020-01-01T00:00", "timezone": "Asia/Tokyo"},
            "invalid_scheduled_time",
            "scheduledTime",
        ),
        ({"postId": "GOOD", "caption": "x", "ifMatch": 3}, "invalid_request", "ifMatch"),
        ({"postId": "GOOD", "caption": "x", "ifMatch": "3"}, "invalid_request", None),
        ({"postId": "GOOD", "caption": "x", "ifMatch": 'W/"1"'}, "precondition_failed", None),
        ({"postId": "nowhere", "caption": "x", "ifMatch": 'W/"1"'}, "not_found", None),
    ],
)
def test_a_bad_edit_is_refused_as_a_patch_is_and_takes_no_other_with_it(
    stack: Running, item: dict[str, Any], code: str, field: str | None
) -> None:
    post, beside = stack.post(), stack.post()
    if item.get("postId") == "GOOD":
        item = item | {"postId": post}
    answer = stack.http.post(PATH, content=_ascii({"edits": [item, {"postId": beside, "caption": "x"}]}), headers=_JSON)
    bad, good = fates(answer)
    assert (bad["status"], bad["editId"], bad["error"]["code"]) == ("rejected", None, code)
    assert field in [None, *[detail["field"] for detail in bad["error"].get("details", [])]]
    assert (good["status"], stack.edits_of(post)) == ("applied", [])


_JSON = {"Content-Type": "application/json"}


def _ascii(body: object) -> bytes:
    """With lone surrogates as escapes: UTF-8 cannot have them."""
    import json  # noqa: PLC0415  -- httpx's own encoder refuses what this test sends

    return json.dumps(body).encode()


def test_a_refusal_under_the_lock_has_its_edit_and_the_revision_that_it_found(stack: Running) -> None:
    post = stack.post()
    [fate] = fates(send(stack, [{"postId": post, "caption": "x", "ifMatch": '"7", "9"'}]))
    assert (fate["status"], fate["revision"], fate["error"]["code"]) == ("rejected", 1, "precondition_failed")
    assert row(stack, fate["editId"]).status == "rejected"


def test_edits_of_one_post_are_applied_in_their_order(stack: Running) -> None:
    post, beside = stack.post(), stack.post()
    edits = [{"postId": post if number % 3 else beside, "caption": str(number)} for number in range(60)]
    found = fates(send(stack, edits))
    assert {fate["status"] for fate in found} == {"applied"}
    mine = [fate["revision"] for fate in found if fate["postId"] == post]
    assert mine == list(range(2, len(mine) + 2))
    assert stack.row("posts", post).caption == "59"
    assert [edit.changes["caption"] for edit in stack.edits_of(post)] == [str(n) for n in range(60) if n % 3]


def test_a_thousand_edits_are_one_request_and_hold_up_nobody(stack: Running) -> None:
    posts = posts_of(stack, 1_000)
    body = [{"postId": post, "caption": f"{number} " + "é" * 600} for number, post in enumerate(posts)]
    found = fates(send(stack, body, Prefer="wait=30"))
    assert [fate["postId"] for fate in found] == posts
    assert {(fate["status"], fate["revision"]) for fate in found} == {("applied", 2)}
    assert stack.row("posts", posts[999]).caption.startswith("999 ")
    count = "SELECT count(*) FROM edits WHERE post_id = ANY(:ids) AND status = 'applied'"
    assert stack.scalar(count, ids=posts) == 1_000


def test_a_body_of_two_mebibytes_is_taken_and_a_larger_one_is_not(stack: Running) -> None:
    posts = posts_of(stack, 28)
    found = fates(send(stack, [sizes.slides(post) | {"postId": post} for post in posts], Prefer="wait=30"))
    assert {fate["status"] for fate in found} == {"applied"}
    assert error(send(stack, [{"postId": "p", "caption": "x" * 2_200_000}]), 413)["code"] == "payload_too_large"


def test_what_is_still_queued_is_a_202_that_names_each_edit(stack: Running) -> None:
    held, free = stack.post(), stack.post()
    edits = [{"postId": held, "caption": "waits"}, {"postId": free, "caption": "goes"}]
    with locked(stack, held):
        answer = send(stack, edits, Prefer="wait=1")
        found = fates(answer, 202)
        assert answer.headers["preference-applied"] == "wait=1"
        assert [fate["status"] for fate in found] == ["queued", "applied"]
        assert (found[0]["revision"], found[0]["error"]) == (None, None)
    waiting = stack.http.get(f"/v1/edits/{found[0]['editId']}", headers={"Prefer": "wait=10"})
    assert waiting.json()["status"] == "applied"


def test_respond_async_waits_for_none(stack: Running) -> None:
    posts = posts_of(stack, 3)
    answer = send(stack, [{"postId": post, "caption": "later"} for post in posts], **AT_ONCE)
    found = fates(answer, 202)
    assert answer.headers["preference-applied"] == "respond-async"
    assert {fate["status"] for fate in found} == {"queued"}
    ids = {fate["editId"] for fate in found}

    def all_applied() -> bool:
        listed = stack.http.get(PATH, params={"limit": "100", "status": "applied"}).json()["data"]
        return ids <= {edit["editId"] for edit in listed}

    eventually(all_applied, within=20)


def test_a_request_without_any_good_edit_is_a_200_of_refusals_and_keeps_no_key(stack: Running) -> None:
    key = {"Idempotency-Key": "many-refused"}
    assert fates(send(stack, [{"postId": "post_nowhere", "caption": "x"}], **key))[0]["status"] == "rejected"
    again = send(stack, [{"postId": stack.post(), "caption": "x"}], **key)
    assert (fates(again)[0]["status"], "idempotent-replayed" in again.headers) == ("applied", False)


def test_a_repeat_gets_the_first_ones_fates_whatever_has_become_of_the_posts(stack: Running) -> None:
    post, stale = stack.post(), stack.post()
    key = {"Idempotency-Key": "many-again"}
    body = [
        {"postId": post, "caption": "first"},
        {"postId": stale, "caption": "x", "ifMatch": '"9"'},
        {"postId": post, "caption": None},
    ]
    first = send(stack, body, **key)
    assert [fate["status"] for fate in fates(first)] == ["applied", "rejected", "rejected"]
    assert stack.patch(post, {"caption": "since"}).status_code == 200
    for headers in (key, key | AT_ONCE):
        again = send(stack, body, **headers)
        assert (again.status_code, again.content) == (200, first.content)
        assert again.headers["idempotent-replayed"] == "true"
    assert len(stack.edits_of(post)) == 2
    assert error(send(stack, body[:1], **key), 422)["code"] == "idempotency_key_reused"
    assert error(send(stack, [], **key), 422)["code"] == "idempotency_key_reused", "the key comes before the fields"
    assert error(stack.patch(post, {"caption": "x"}, **key), 422)["code"] == "idempotency_key_reused"


def test_a_patchs_key_is_no_key_of_many(stack: Running) -> None:
    post, key = stack.post(), {"Idempotency-Key": "of-a-patch"}
    assert stack.patch(post, {"caption": "x"}, **key).status_code == 200
    said = error(send(stack, [{"postId": post, "caption": "x"}], **key), 422)
    assert said["code"] == "idempotency_key_reused"


def test_a_repeat_of_a_request_that_waits_waits_with_it_through_another_process_too(stack: Running) -> None:
    posts, key = posts_of(stack, 2), {"Idempotency-Key": "many-joined", "Prefer": "wait=30"}
    body = [{"postId": post, "caption": "once"} for post in posts]
    assert stack.api is not None
    here = httpx.Client(base_url=stack.api.url, headers=stack.http.headers, timeout=40, **LOOPBACK)
    stack.start_api()
    with here, ThreadPoolExecutor(2) as clients:
        with locked(stack, posts[0]):
            first = clients.submit(here.post, PATH, json={"edits": body}, headers=key)
            eventually(lambda: stack.edits_of(posts[0]), within=30)
            repeat = clients.submit(send, stack, body, **key)
            eventually(lambda: stack.row("posts", posts[1]).caption == "once", within=30)
            assert not first.done()
            assert not repeat.done()
        answers = [first.result(timeout=30), repeat.result(timeout=30)]
    assert answers[0].content == answers[1].content
    assert ["idempotent-replayed" in answer.headers for answer in answers] == [False, True]
    assert [len(stack.edits_of(post)) for post in posts] == [1, 1]


def test_twins_at_once_are_recorded_once(stack: Running) -> None:
    posts = posts_of(stack, 20)
    body, key = [{"postId": post, "caption": "twin"} for post in posts], {"Idempotency-Key": "many-twins"}
    with ThreadPoolExecutor(8) as clients:
        answers = list(clients.map(lambda _: send(stack, body, **key), range(8)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    assert sum("idempotent-replayed" not in answer.headers for answer in answers) == 1
    assert {len(stack.edits_of(post)) for post in posts} == {1}


def test_requests_at_once_that_name_the_same_posts_in_other_orders_all_end(stack: Running) -> None:
    posts = posts_of(stack, 50)

    def sent(number: int) -> httpx.Response:
        order = posts if number % 2 else posts[::-1]
        return send(stack, [{"postId": post, "caption": str(number)} for post in order], Prefer="wait=30")

    with ThreadPoolExecutor(6) as clients:
        found = [fates(answer) for answer in clients.map(sent, range(6))]
    assert {fate["status"] for one in found for fate in one} == {"applied"}
    for post in posts:
        revisions = [fate["revision"] for one in found for fate in one if fate["postId"] == post]
        assert sorted(revisions) == list(range(2, 8))


def test_one_request_costs_one_of_the_limit_and_needs_the_scope(stack: Running) -> None:
    with stack.engine.begin() as tx:
        for name, scope, limit in (("reads", "posts:read", None), ("limited", "posts:write", 2)):
            factories.workspace(tx, f"ws_{name}", f"_{name}", f"sk_many_{name}")
            tx.execute(
                text("UPDATE api_keys SET scopes = ARRAY[:scope], rate_limit = :limit WHERE id = :id"),
                {"scope": scope, "limit": limit, "id": f"{factories.KEY_ID}_{name}"},
            )
    with client(stack, "sk_many_reads") as reader:
        assert error(reader.post(PATH, json={"edits": []}), 403)["code"] == "forbidden"
    body = {"edits": [{"postId": "post_nowhere", "caption": "x"}] * 500}
    with client(stack, "sk_many_limited") as limited:
        answers = [limited.post(PATH, json=body) for _ in range(3)]
    assert [answer.status_code for answer in answers] in ([200, 200, 429], [200, 200, 200])  # a minute may have turned
    assert answers[0].headers["ratelimit"].startswith('"default";r=1;')


def test_a_flood_of_many_edits_is_no_other_workspaces_503(stack: Running) -> None:
    with stack.engine.begin() as tx:
        factories.workspace(tx, "ws_quiet", "_quiet", "sk_many_quiet")
        quiet = factories.post(tx, workspace_id="ws_quiet", account_id=f"{factories.TIKTOK}_quiet")
    posts = posts_of(stack, 1_000)
    over = threading.Event()

    def flood(number: int) -> set[int]:
        statuses = set()
        while not over.is_set():
            body = {"edits": [{"postId": post, "caption": f"{number}"} for post in posts]}
            statuses.add(stack.http.post(PATH, json=body, headers={"Prefer": "wait=1"}).status_code)
        return statuses

    with ThreadPoolExecutor(5) as clients, client(stack, "sk_many_quiet") as other:
        flooding = [clients.submit(flood, number) for number in range(5)]
        answers = [other.patch(f"/v1/posts/{quiet}", json={"caption": str(number)}) for number in range(15)]
        many = [other.post(PATH, json={"edits": [{"postId": quiet, "caption": "x"}]}) for _ in range(5)]
        over.set()
    assert {answer.status_code for answer in answers + many} == {200}
    assert {status for one in flooding for status in one.result()} <= {200, 202, 503}


def test_a_killed_api_loses_nothing_that_it_answered(stack: Running) -> None:
    posts = posts_of(stack, 40)
    with locked(stack, *posts):
        found = fates(send(stack, [{"postId": post, "caption": "kept"} for post in posts], **AT_ONCE), 202)
        assert stack.api is not None
        stack.api.kill()
        stack.start_api()
        key = {"Idempotency-Key": "after-the-kill"}
        assert {row(stack, fate["editId"]).status for fate in found} == {"queued"}
    fates(send(stack, [{"postId": post, "caption": "second"} for post in posts], Prefer="wait=30", **key))
    for fate, post in zip(found, posts, strict=True):
        assert row(stack, fate["editId"]).status == "applied"
        assert stack.row("posts", post).caption == "second"
