"""/v1/reschedules from outside: making jobs, watching them, their results, cancel and revert, and whose they are."""

import csv
import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import count
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from shared.local.postgres import PostgreSQL
from shared.local.valkey import Valkey
from tests import factories
from tests.api.answers import client, error, fields
from tests.conftest import TEMPLATE, empty_database
from tests.stack import Running, running
from tests.waiting import eventually

PATH = "/v1/reschedules"
FIELDS = {"id", "status", "dryRun", "total", "applied", "unchanged", "skipped", "failed", "createdAt", "finishedAt"}
ITEM = {"postId": "post_x", "scheduledTime": "2030-01-01T12:00", "timezone": "Asia/Tokyo"}
SHIFT = {"filter": {"all": True}, "shift": "P1D"}
SPREAD = {"from": "2030-01-01T12:00", "to": "2030-01-02T12:00", "timezone": "Asia/Tokyo"}
numbers = count()


@pytest.fixture(scope="module")
def stack(postgres: PostgreSQL, valkey: Valkey) -> Iterator[Running]:
    """With a worker for bulk jobs beside the API."""
    url = postgres.create_database("api_reschedules", template=TEMPLATE)
    with running(url, empty_database(valkey), "bulk") as stack:
        yield stack


@pytest.fixture
def account(stack: Running) -> str:
    """An account of its own for each test, so that no other test's filter means its posts."""
    with stack.engine.begin() as tx:
        return factories.account(tx, f"acc_{next(numbers):03}")


def start(stack: Running, body: Any, **headers: str) -> httpx.Response:
    return stack.http.post(PATH, json=body, headers=headers)


def finished_job(stack: Running, job_id: str) -> dict[str, Any]:
    """The job, once it has ended by itself."""

    def look() -> dict[str, Any] | None:
        job: dict[str, Any] = stack.http.get(f"{PATH}/{job_id}").json()
        return job if job["status"] not in {"queued", "running"} else None

    found = eventually(look, within=30, because="the job ends")
    assert found is not None
    return found


def done(stack: Running, body: Any) -> dict[str, Any]:
    return finished_job(stack, start(stack, body).json()["id"])


def paused(stack: Running, job_id: str) -> None:
    """Make a live job of an ended one again, as one that nobody rings for."""
    with stack.engine.begin() as tx:
        tx.execute(text("UPDATE reschedules SET status = 'running', finished_at = NULL WHERE id = :id"), {"id": job_id})


def test_a_job_is_answered_202_ends_by_itself_and_says_what_became_of_each_post(stack: Running, account: str) -> None:
    ids = sorted(stack.post(account_id=account) for _ in range(3))
    answer = start(stack, {"filter": {"accountIds": [account]}, "shift": "P1D"})
    assert answer.status_code == 202, answer.text
    job = answer.json()
    assert set(job) == FIELDS
    assert answer.headers["location"] == f"{PATH}/{job['id']}"
    assert (job["status"], job["dryRun"], job["total"], job["finishedAt"]) == ("queued", False, None, None)
    job = finished_job(stack, job["id"])
    assert (job["status"], job["total"], job["applied"], job["skipped"], job["failed"]) == ("done", 3, 3, 0, 0)
    assert job["createdAt"] <= job["finishedAt"]
    results = stack.http.get(f"{PATH}/{job['id']}/results").json()
    assert (results["hasMore"], results["nextCursor"]) == (False, None)
    assert [one["postId"] for one in results["data"]] == ids
    for one in results["data"]:
        shown = stack.http.get(f"/v1/posts/{one['postId']}").json()
        assert (one["outcome"], one["after"], one["reason"]) == ("applied", shown["scheduledTime"], None)
        audit = stack.http.get(f"/v1/posts/{one['postId']}/edits").json()["data"]
        assert [edit["after"]["scheduledTime"] for edit in audit] == [one["after"]]
        assert [edit["requestedBy"] for edit in audit] == ["tests"]


def test_a_dry_run_says_the_same_and_changes_nothing(stack: Running, account: str) -> None:
    post = stack.post(account_id=account)
    before = stack.row("posts", post)
    job = done(stack, {"filter": {"postIds": [post, "post_nobody"]}, "shift": "P1D", "dryRun": True})
    assert (job["dryRun"], job["total"], job["applied"], job["failed"]) == (True, 2, 1, 1)
    found = stack.http.get(f"{PATH}/{job['id']}/results").json()["data"]
    assert {one["postId"]: one["reason"] for one in found} == {post: None, "post_nobody": "not_found"}
    assert stack.row("posts", post) == before
    assert stack.edits_of(post) == []


def test_posts_of_an_account_are_warned_of_or_kept_apart(stack: Running, account: str) -> None:
    first, second = (stack.post(account_id=account, scheduled_time=f"2030-05-01T09:00:{number}0Z") for number in (1, 2))
    body = {"filter": {"postIds": [first, second]}, "shift": "P1D", "dryRun": True}
    for given, expected in (
        (body, {first: ("applied", None, "same_minute"), second: ("applied", None, "same_minute")}),
        (body | {"minGap": "PT1M"}, {first: ("applied", None, None), second: ("skipped", "too_close", None)}),
    ):
        job = done(stack, given)
        found = stack.http.get(f"{PATH}/{job['id']}/results").json()["data"]
        assert {one["postId"]: (one["outcome"], one["reason"], one["warning"]) for one in found} == expected
        table = stack.http.get(f"{PATH}/{job['id']}/results", headers={"Accept": "text/csv"}).text.splitlines()
        assert table[0] == "postId,outcome,before,after,reason,warning"
        assert {tuple(line.split(",")[4:]) for line in table[1:]} == {
            (reason or "", warning or "") for _, reason, warning in expected.values()
        }


def test_results_come_in_pages_filtered_by_outcome_and_as_one_csv(stack: Running, account: str) -> None:
    posts = [stack.post(account_id=account) for _ in range(4)]
    posted = stack.post(account_id=account, status="posted", posted_at=datetime.now(UTC))
    odd, formula = 'post_"comma", and quote', '=HYPERLINK("https://evil.example";"open")'
    job = done(stack, {"filter": {"postIds": [*posts, posted, odd, formula]}, "shift": "P1D"})
    path = f"{PATH}/{job['id']}/results"
    pages, query = [], {"limit": "2"}
    while True:
        page = stack.http.get(path, params=query).json()
        pages += page["data"]
        if not page["hasMore"]:
            break
        query["cursor"] = page["nextCursor"]
    assert pages == stack.http.get(path).json()["data"]
    assert sorted(one["postId"] for one in pages) == sorted([*posts, posted, odd, formula])
    for outcome, expected in (("applied", 4), ("skipped", 1), ("failed", 2)):
        some = stack.http.get(path, params={"outcome": outcome}).json()["data"]
        assert some == [one for one in pages if one["outcome"] == outcome]
        assert len(some) == expected
    answer = stack.http.get(path, headers={"Accept": "text/csv"})
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["vary"] == "Accept"
    table = list(csv.DictReader(io.StringIO(answer.text)))
    for row, one in zip(table, pages, strict=True):
        shown = f"'{formula}" if one["postId"] == formula else one["postId"]
        assert row == {name: value or "" for name, value in one.items()} | {"postId": shown}
    skipped = stack.http.get(path, params={"outcome": "skipped"}, headers={"Accept": "text/csv"})
    assert skipped.text.splitlines()[1].startswith(posted)
    assert fields(stack.http.get(path, params={"limit": "2"}, headers={"Accept": "text/csv"})) == ["limit"]
    assert fields(stack.http.get(path, params={"outcome": "gone"})) == ["outcome"]


def test_a_request_may_wait_for_the_jobs_end(stack: Running, account: str) -> None:
    stack.post(account_id=account)
    body, wait = {"filter": {"accountIds": [account]}, "shift": "P1D"}, {"Prefer": "wait=20"}
    key = {"Idempotency-Key": f"wait-{account}"}
    for more in ({}, {"idempotent-replayed": "true"}):
        answer = start(stack, body, **wait, **key)
        assert (answer.status_code, answer.json()["status"], answer.json()["applied"]) == (200, "done", 1)
        assert answer.headers["location"] == f"{PATH}/{answer.json()['id']}"
        assert answer.headers["preference-applied"] == "wait=20"
        assert answer.headers.items() >= more.items()
    job = answer.json()
    assert start(stack, body, **key).status_code == 202, "a repeat that does not ask to wait"
    looked = stack.http.get(f"{PATH}/{job['id']}", headers=wait)
    assert (looked.json(), looked.headers["preference-applied"]) == (job, "wait=20")
    reverted = stack.http.post(f"{PATH}/{job['id']}/revert", headers=wait)
    assert (reverted.status_code, reverted.json()["status"]) == (200, "done")


def test_a_job_that_goes_on_after_the_wait_is_answered_as_it_stands(stack: Running, account: str) -> None:
    stack.post(account_id=account)
    body = {"filter": {"accountIds": [account]}, "shift": "P1D"}
    with stack.engine.connect() as person:
        person.execute(text("SELECT FROM posts WHERE account_id = :account FOR UPDATE"), {"account": account})
        answer = start(stack, body, Prefer="respond-async, wait=1")
        job = answer.json()
        assert (answer.status_code, job["status"], answer.headers["preference-applied"]) == (
            202, "running", "respond-async, wait=1",
        )  # fmt: skip
        looked = stack.http.get(f"{PATH}/{job['id']}", headers={"Prefer": "wait=1"})
        assert (looked.status_code, looked.json()["status"]) == (200, "running")
        with ThreadPoolExecutor(20) as many:
            waits = [
                many.submit(stack.http.get, f"{PATH}/{job['id']}", headers={"Prefer": "wait=30"}) for _ in range(20)
            ]
            assert stack.http.get(f"{PATH}/{job['id']}").json()["status"] == "running"
            person.rollback()
            assert {one.result(30).json()["status"] for one in waits} == {"done"}
    for method, path in (("POST", PATH), ("GET", f"{PATH}/{job['id']}"), ("POST", f"{PATH}/{job['id']}/revert")):
        refused = stack.http.request(method, path, json=body if path == PATH else None, headers={"Prefer": "wait=soon"})
        assert error(refused, 400)["code"] == "invalid_request"


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        ([], "invalid_request", None),
        ({}, "invalid_request", "body"),
        ({"filter": {"all": True}}, "invalid_request", "body"),
        (SHIFT | {"spread": SPREAD}, "invalid_request", "body"),
        ({"shift": "P1D"}, "missing_required_fields", "filter"),
        ({"shift": "P1D", "filter": {}}, "invalid_request", "filter"),
        ({"shift": "P1D", "filter": None}, "invalid_request", "filter"),
        ({"shift": "P1D", "filter": {"all": False}}, "invalid_request", "filter.all"),
        ({"shift": "P1D", "filter": {"all": True, "platform": "tiktok"}}, "invalid_request", "filter.all"),
        ({"shift": "P1D", "filter": {"platform": "myspace"}}, "invalid_request", "filter.platform"),
        ({"shift": "P1D", "filter": {"accountIds": []}}, "invalid_request", "filter.accountIds"),
        ({"shift": "P1D", "filter": {"accountIds": ["a", 5]}}, "invalid_request", "filter.accountIds[1]"),
        ({"shift": "P1D", "filter": {"postIds": ["a", "b", "a"]}}, "invalid_request", "filter.postIds[2]"),
        ({"shift": "P1D", "filter": {"postIds": ["a\0"]}}, "invalid_request", "filter.postIds[0]"),
        ({"shift": "P1D", "filter": {"postIds": [""]}}, "invalid_request", "filter.postIds[0]"),
        ({"shift": "P1D", "filter": {"account": "a"}}, "invalid_request", "filter.account"),
        ({"shift": "P1D", "filter": {"scheduledFrom": "2030-01-01T00:00"}}, "invalid_request", "filter.scheduledFrom"),
        (
            {"shift": "P1D", "filter": {"scheduledFrom": "2030-01-01T00:00Z", "scheduledTo": "2030-01-01T00:00:00Z"}},
            "invalid_request",
            "filter.scheduledTo",
        ),
        (SHIFT | {"shift": "P1M"}, "invalid_request", "shift"),
        (SHIFT | {"shift": "PT1S"}, "invalid_request", "shift"),
        (SHIFT | {"shift": 5}, "invalid_request", "shift"),
        (SHIFT | {"dryRun": "yes"}, "invalid_request", "dryRun"),
        (SHIFT | {"minGap": "PT0M"}, "invalid_request", "minGap"),
        (SHIFT | {"minGap": "-PT30M"}, "invalid_request", "minGap"),
        (SHIFT | {"minGap": "PT30S"}, "invalid_request", "minGap"),
        (SHIFT | {"minGap": None}, "invalid_request", "minGap"),
        (SHIFT | {"minGap": 30}, "invalid_request", "minGap"),
        ({"items": [ITEM], "minGap": "soon"}, "invalid_request", "minGap"),
        (SHIFT | {"dry_run": True}, "invalid_request", "dry_run"),
        ({"filter": {"all": True}, "spread": "P1D"}, "invalid_request", "spread"),
        ({"filter": {"all": True}, "spread": {"from": "2030-01-01T12:00"}}, "missing_required_fields", "spread.to"),
        (
            {"filter": {"all": True}, "spread": SPREAD | {"to": "2029-01-01T12:00"}},
            "invalid_scheduled_time",
            "spread.to",
        ),
        (
            {"filter": {"all": True}, "spread": SPREAD | {"from": "2030-03-31T02:30", "timezone": "Europe/Paris"}},
            "invalid_scheduled_time",
            "spread.from",
        ),
        ({"filter": {"all": True}, "spread": SPREAD | {"timezone": "Mars"}}, "invalid_timezone", "spread.timezone"),
        ({"items": []}, "invalid_request", "items"),
        ({"items": [ITEM], "filter": {"all": True}}, "invalid_request", "filter"),
        ({"items": [ITEM, "post"]}, "invalid_request", "items[1]"),
        ({"items": [ITEM, ITEM]}, "invalid_request", "items[1].postId"),
        ({"items": [ITEM | {"timezone": "Mars"}]}, "invalid_timezone", "items[0].timezone"),
        ({"items": [ITEM | {"scheduledTime": "tomorrow"}]}, "invalid_scheduled_time", "items[0].scheduledTime"),
        ({"items": [ITEM | {"caption": "x"}]}, "invalid_request", "items[0].caption"),
        ({"items": [{"postId": "a", "timezone": "Asia/Tokyo"}]}, "missing_required_fields", "items[0].scheduledTime"),
        ({"items": [ITEM | {"postId": f"post_{n}"} for n in range(10_001)]}, "invalid_request", "items"),
    ],
)
def test_a_request_at_fault_is_refused_with_the_place_of_the_fault(
    stack: Running, body: Any, code: str, field: str | None
) -> None:
    jobs = stack.scalar("SELECT count(*) FROM reschedules")
    answer = start(stack, body)
    found = error(answer, 400)
    assert found["code"] == code, found
    assert field is None or field in fields(answer)
    assert stack.scalar("SELECT count(*) FROM reschedules") == jobs


def test_a_body_may_have_two_megabytes_and_no_more(stack: Running) -> None:
    items = [ITEM | {"postId": f"post_{n:06}"} for n in range(10_000)]
    assert start(stack, {"items": items, "dryRun": True}).status_code == 202
    assert error(start(stack, {"items": [ITEM | {"postId": "x" * 2_100_000}]}), 413)["code"] == "payload_too_large"
    answer = stack.http.post(PATH, content=b"{}", headers={"Content-Type": "text/csv"})
    assert error(answer, 415)["code"] == "unsupported_media_type"


def test_a_repeat_with_the_same_key_gives_the_first_job_and_anything_else_under_it_is_refused(
    stack: Running, account: str
) -> None:
    stack.post(account_id=account)
    body = {"filter": {"accountIds": [account]}, "shift": "P1D"}
    key = {"Idempotency-Key": f"key-{account}"}
    first = start(stack, body, **key)
    finished_job(stack, first.json()["id"])
    repeated = start(stack, body, **key)
    assert (repeated.status_code, repeated.json()["id"]) == (202, first.json()["id"])
    assert repeated.headers["idempotent-replayed"] == "true"
    assert repeated.headers["location"] == first.headers["location"]
    assert "idempotent-replayed" not in first.headers
    assert error(start(stack, body | {"shift": "P2D"}, **key), 422)["code"] == "idempotency_key_reused"
    assert error(start(stack, {"shift": "junk"}, **key), 422)["code"] == "idempotency_key_reused"
    assert error(start(stack, {"shift": "junk"}, **{"Idempotency-Key": f"new-{account}"}), 400)
    assert start(stack, body, **{"Idempotency-Key": f"new-{account}"}).status_code == 202


def test_many_at_once_with_one_key_make_one_job(stack: Running, account: str) -> None:
    body = {"filter": {"accountIds": [account]}, "shift": "P1D"}
    with ThreadPoolExecutor(8) as many:
        answers = list(many.map(lambda _: start(stack, body, **{"Idempotency-Key": f"many-{account}"}), range(16)))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert sum("idempotent-replayed" not in answer.headers for answer in answers) == 1


def test_a_cancel_ends_a_live_job_and_is_refused_for_an_ended_one(stack: Running, account: str) -> None:
    job = done(stack, {"filter": {"accountIds": [account]}, "shift": "P1D"})
    assert error(stack.http.post(f"{PATH}/{job['id']}/cancel"), 409)["code"] == "conflict"
    paused(stack, job["id"])
    answer = stack.http.post(f"{PATH}/{job['id']}/cancel")
    assert (answer.status_code, answer.json()["status"]) == (200, "canceled")
    assert answer.json()["finishedAt"] is not None
    assert error(stack.http.post(f"{PATH}/{job['id']}/cancel"), 409)
    assert error(stack.http.post(f"{PATH}/rsch_nobody/cancel"), 404)["code"] == "not_found"
    refused = stack.http.post(f"{PATH}/{job['id']}/cancel", json={"why": "not"})
    assert error(refused, 400)["code"] == "invalid_request"


def test_a_job_is_reverted_once_when_it_has_ended_and_was_no_dry_run(stack: Running, account: str) -> None:
    post = stack.post(account_id=account)
    before = stack.http.get(f"/v1/posts/{post}").json()
    body = {"filter": {"accountIds": [account]}, "shift": "P1D"}
    job = done(stack, body)
    paused(stack, job["id"])
    revert = f"{PATH}/{job['id']}/revert"
    assert error(stack.http.post(revert), 409)["code"] == "conflict"
    stack.http.post(f"{PATH}/{job['id']}/cancel")
    key = {"Idempotency-Key": f"revert-{account}"}
    answer = stack.http.post(revert, headers=key)
    assert answer.status_code == 202
    inverse = finished_job(stack, answer.json()["id"])
    assert (inverse["total"], inverse["applied"], inverse["id"] != job["id"]) == (1, 1, True)
    assert stack.http.get(f"/v1/posts/{post}").json()["scheduledTime"] == before["scheduledTime"]
    assert error(stack.http.post(revert, json={}), 409)["code"] == "conflict"
    repeated = stack.http.post(revert, headers=key)
    assert (repeated.json()["id"], repeated.headers["idempotent-replayed"]) == (inverse["id"], "true")
    dry = done(stack, body | {"dryRun": True})
    assert error(stack.http.post(f"{PATH}/{dry['id']}/revert"), 409)["code"] == "conflict"
    assert error(stack.http.post(f"{PATH}/rsch_nobody/revert"), 404)["code"] == "not_found"


def test_jobs_are_listed_newest_first_in_pages(stack: Running, account: str) -> None:
    made = [start(stack, {"filter": {"accountIds": [account]}, "shift": "P0D"}).json()["id"] for _ in range(3)]
    first = stack.http.get(PATH, params={"limit": "2"}).json()
    assert [job["id"] for job in first["data"]] == [made[2], made[1]]
    second = stack.http.get(PATH, params={"limit": "2", "cursor": first["nextCursor"]}).json()
    assert second["data"][0]["id"] == made[0]
    assert set(second["data"][0]) == FIELDS


def test_nothing_of_another_workspace_can_be_seen_named_or_moved(stack: Running, account: str) -> None:
    post = stack.post(account_id=account)
    job = done(stack, {"filter": {"accountIds": [account]}, "shift": "P1D"})
    with stack.engine.begin() as tx:
        factories.workspace(tx, "ws_reschedules", "_reschedules", "sk_reschedules")
    with client(stack, "sk_reschedules") as other:
        for method, path in (
            ("GET", f"{PATH}/{job['id']}"),
            ("GET", f"{PATH}/{job['id']}/results"),
            ("POST", f"{PATH}/{job['id']}/cancel"),
            ("POST", f"{PATH}/{job['id']}/revert"),
        ):
            nobody = error(other.request(method, path.replace(job["id"], "rsch_nobody")), 404)
            found = error(other.request(method, path), 404)
            assert found["message"].replace(job["id"], "rsch_nobody") == nobody["message"]
        assert other.get(PATH).json()["data"] == []
        for body in (
            {"filter": {"postIds": [post]}, "shift": "P1D"},
            {"items": [ITEM | {"postId": post}]},
            {"filter": {"accountIds": [account]}, "shift": "P1D"},
            {"filter": {"all": True}, "spread": SPREAD},
        ):
            mine = other.post(PATH, json=body).json()["id"]

            def look(mine: str = mine) -> Any:
                found = other.get(f"{PATH}/{mine}").json()
                assert found["status"] == "done", found
                return found

            assert eventually(look, within=30)["applied"] == 0
    assert stack.row("posts", post).revision == 2


def test_a_key_without_the_scope_is_refused_on_every_route(stack: Running) -> None:
    with stack.engine.begin() as tx:
        factories.workspace(tx, "ws_noscope", "_noscope", "sk_noscope")
        tx.execute(
            text("UPDATE api_keys SET scopes = ARRAY['posts:read', 'posts:write'] WHERE workspace_id = 'ws_noscope'")
        )
    with client(stack, "sk_noscope") as other:
        for method, path in (
            ("POST", PATH),
            ("GET", PATH),
            ("GET", f"{PATH}/rsch_x"),
            ("GET", f"{PATH}/rsch_x/results"),
            ("POST", f"{PATH}/rsch_x/cancel"),
            ("POST", f"{PATH}/rsch_x/revert"),
        ):
            assert error(other.request(method, path), 403)["code"] == "forbidden"


def test_ids_that_no_row_can_have_are_not_found(stack: Running) -> None:
    for job_id in ("a%00b", "x" * 300):
        assert error(stack.http.get(f"{PATH}/{job_id}"), 404)["code"] == "not_found"
        assert error(stack.http.post(f"{PATH}/{job_id}/cancel"), 404)["code"] == "not_found"
        assert error(stack.http.post(f"{PATH}/{job_id}/revert"), 404)["code"] == "not_found"
