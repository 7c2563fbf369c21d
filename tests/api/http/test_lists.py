"""Lists: filters, pages by keyset, cursors that belong to one list, one workspace and one set of filters."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from shared.domain.times import format_instant
from shared.store.reads import PAGE_BYTES
from tests import factories
from tests.api.answers import client, error, fields
from tests.public_fields import PUBLIC_FIELDS
from tests.stack import Running

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
WORKSPACE, SECRET = "ws_lists", "sk_lists_0123456789"
INSTAGRAM, TIKTOK = f"{factories.INSTAGRAM}_lists", f"{factories.TIKTOK}_lists"


@pytest.fixture(scope="module")
def http(stack: Running, listed: list[dict[str, Any]]) -> Iterator[httpx.Client]:
    """A client of the workspace that has the listed posts, and no others."""
    with client(stack, SECRET) as http:
        yield http


@pytest.fixture(scope="module")
def listed(stack: Running) -> list[dict[str, Any]]:
    """60 posts of all kinds, some created at the same instant, newest first as the API must list them."""
    made = []
    with stack.engine.begin() as tx:
        factories.workspace(tx, WORKSPACE, "_lists", SECRET)
        for number in range(60):
            status = ("generated", "pending_render", "posted", "failed")[number % 4]
            columns: dict[str, Any] = {
                "workspace_id": WORKSPACE,
                "status": status,
                "platform": "instagram" if number % 3 else "tiktok",
                "account_id": INSTAGRAM if number % 3 else TIKTOK,
                "created_at": EPOCH + timedelta(seconds=number // 3),
                "scheduled_time": EPOCH + timedelta(minutes=number),
                "revision": number + 1,
                "posted_at": EPOCH if status == "posted" else None,
                "failure_reason": "refused" if status == "failed" else None,
            }
            post = factories.slides(tx, **columns) if number % 5 == 0 else factories.post(tx, **columns)
            made.append(columns | {"id": post, "content_type": "slides" if number % 5 == 0 else "video"})
        factories.post(tx, workspace_id=WORKSPACE, deleted_at=EPOCH)
        factories.post(tx)
    return sorted(made, key=lambda row: (row["created_at"], row["id"]), reverse=True)


def pages(http: httpx.Client, path: str, **given: Any) -> Iterator[dict[str, Any]]:
    """Every page of a list, by its cursors."""
    cursor: dict[str, str] = {}
    for _ in range(200):
        answer = http.get(path, params=given | cursor)
        assert answer.status_code == 200, answer.text
        page = answer.json()
        assert list(page) == ["data", "hasMore", "nextCursor"]
        assert page["hasMore"] == (page["nextCursor"] is not None)
        yield page
        if not page["hasMore"]:
            return
        cursor = {"cursor": page["nextCursor"]}
    raise AssertionError("a list without an end")


def everything(http: httpx.Client, path: str, **given: Any) -> list[dict[str, Any]]:
    return [one for page in pages(http, path, **given) for one in page["data"]]


@pytest.mark.parametrize("limit", [1, 7, 59, 60, 61, 100])
def test_pages_of_any_size_hold_every_post_once_newest_first(
    http: httpx.Client, listed: list[dict[str, Any]], limit: int
) -> None:
    found = list(pages(http, "/v1/posts", limit=limit))
    assert [post["postId"] for page in found for post in page["data"]] == [row["id"] for row in listed]
    assert {len(page["data"]) for page in found[:-1]} <= {limit}


def test_a_page_has_fifty_posts_with_public_fields_and_revision_unless_asked_otherwise(
    http: httpx.Client, listed: list[dict[str, Any]]
) -> None:
    page = http.get("/v1/posts").json()
    assert (len(page["data"]), page["hasMore"]) == (50, True)
    one = http.get(f"/v1/posts/{listed[0]['id']}")
    shown = page["data"][0]
    assert list(shown) == [*PUBLIC_FIELDS, "revision"]
    assert f'"{shown.pop("revision")}"' == one.headers["ETag"]
    assert shown == {name: one.json()[name] for name in PUBLIC_FIELDS}


@pytest.mark.parametrize(
    ("given", "holds"),
    [
        ({"status": "failed"}, lambda row: row["status"] == "failed"),
        ({"platform": "tiktok"}, lambda row: row["platform"] == "tiktok"),
        ({"contentType": "slides"}, lambda row: row["content_type"] == "slides"),
        ({"accountId": INSTAGRAM}, lambda row: row["account_id"] == INSTAGRAM),
        (
            {"scheduledFrom": "2026-01-01T00:10:00Z", "scheduledTo": "2026-01-01T00:20Z"},
            lambda row: EPOCH + timedelta(minutes=10) <= row["scheduled_time"] < EPOCH + timedelta(minutes=20),
        ),
        (
            {"status": "generated", "platform": "tiktok", "scheduledFrom": "2026-01-01T00:24:00Z"},
            lambda row: (
                (row["status"], row["platform"]) == ("generated", "tiktok")
                and row["scheduled_time"] >= EPOCH + timedelta(minutes=24)
            ),
        ),
        (
            {"scheduledFrom": "2026-01-01T00:10:00.000+00:00", "scheduledTo": "2026-01-01T00:20:00 00:00"},
            lambda row: EPOCH + timedelta(minutes=10) <= row["scheduled_time"] < EPOCH + timedelta(minutes=20),
        ),
        (
            {"scheduledFrom": "2026-01-01T00:10:00.000000001Z", "scheduledTo": "2026-01-01T00:20:00.000000001Z"},
            lambda row: EPOCH + timedelta(minutes=10) < row["scheduled_time"] <= EPOCH + timedelta(minutes=20),
        ),
        ({"accountId": "acc_nowhere"}, None),
        ({"accountId": factories.TIKTOK}, None),
        ({"scheduledFrom": "2026-01-01T00:20:00Z", "scheduledTo": "2026-01-01T00:10:00Z"}, None),
    ],
)
def test_filters_choose_posts_and_pages_go_on_within_them(
    http: httpx.Client, listed: list[dict[str, Any]], given: dict[str, str], holds: Any
) -> None:
    wanted = [row["id"] for row in listed if holds and holds(row)]
    assert [post["postId"] for post in everything(http, "/v1/posts", limit=4, **given)] == wanted
    assert [post["postId"] for post in everything(http, "/v1/posts", limit=100, **given)] == wanted


@pytest.mark.parametrize("limit", [1, 7, 100])
def test_posts_are_listed_by_the_time_at_which_they_go_out(
    http: httpx.Client, listed: list[dict[str, Any]], limit: int
) -> None:
    bounds = {"scheduledFrom": "2026-01-01T00:10:00Z", "scheduledTo": "2026-01-01T00:50:00Z"}
    for given in ({}, bounds, bounds | {"status": "generated"}):
        wanted = [
            row["id"]
            for row in sorted(listed, key=lambda row: (row["scheduled_time"], row["id"]))
            if not given or EPOCH + timedelta(minutes=10) <= row["scheduled_time"] < EPOCH + timedelta(minutes=50)
            if row["status"] == given.get("status", row["status"])
        ]
        first = [post["postId"] for post in everything(http, "/v1/posts", sort="scheduledTime", limit=limit, **given)]
        last = [post["postId"] for post in everything(http, "/v1/posts", sort="-scheduledTime", limit=limit, **given)]
        assert (first, last) == (wanted, wanted[::-1])


def test_posts_of_one_instant_are_listed_once_each_by_their_ids(stack: Running) -> None:
    at = EPOCH + timedelta(days=4000)
    ids = sorted(stack.post(scheduled_time=at) for _ in range(5))
    for sort, wanted in (("scheduledTime", ids), ("-scheduledTime", ids[::-1])):
        found = everything(stack.http, "/v1/posts", sort=sort, scheduledFrom=format_instant(at), limit=2)
        assert [post["postId"] for post in found] == wanted


def test_a_page_that_was_begun_goes_on_where_it_was_whatever_comes_meanwhile(
    stack: Running, http: httpx.Client, listed: list[dict[str, Any]]
) -> None:
    first = http.get("/v1/posts", params={"limit": 10}).json()
    late = stack.post(workspace_id=WORKSPACE)
    try:
        with stack.engine.begin() as tx:
            tx.execute(text("UPDATE posts SET revision = revision + 1 WHERE id = :id"), {"id": listed[3]["id"]})
        rest = http.get("/v1/posts", params={"limit": 100, "cursor": first["nextCursor"]}).json()
        assert [post["postId"] for post in first["data"] + rest["data"]] == [row["id"] for row in listed]
    finally:
        http.request("DELETE", "/v1/posts", json={"postIds": [late]})


@pytest.mark.parametrize(
    ("path", "given", "field"),
    [
        ("/v1/posts", {"limit": "0"}, "limit"),
        ("/v1/posts", {"limit": "101"}, "limit"),
        ("/v1/posts", {"limit": "ten"}, "limit"),
        ("/v1/posts", {"limit": "-1"}, "limit"),
        ("/v1/posts", {"limit": "٣"}, "limit"),
        ("/v1/posts", {"limit": ""}, "limit"),
        ("/v1/posts", {"limit": "9" * 5000}, "limit"),
        ("/v1/posts", {"status": "queued"}, "status"),
        ("/v1/posts", {"status": ""}, "status"),
        ("/v1/posts", {"platform": "TikTok"}, "platform"),
        ("/v1/posts", {"contentType": "image"}, "contentType"),
        ("/v1/posts", {"accountId": ""}, "accountId"),
        ("/v1/posts", {"accountId": "a\0b"}, "accountId"),
        ("/v1/posts", {"scheduledFrom": "2026-01-01"}, "scheduledFrom"),
        ("/v1/posts", {"scheduledTo": "2026-01-01T00:00:00+02:00"}, "scheduledTo"),
        ("/v1/posts", {"scheduledTo": "2026-02-30T00:00:00Z"}, "scheduledTo"),
        ("/v1/posts", {"statuss": "failed"}, "statuss"),
        ("/v1/posts", {"sort": "createdAt"}, "sort"),
        ("/v1/posts", {"sort": ""}, "sort"),
        ("/v1/posts", [("sort", "scheduledTime"), ("sort", "scheduledTime")], "sort"),
        ("/v1/edits", {"sort": "scheduledTime"}, "sort"),
        ("/v1/posts", [("status", "failed"), ("status", "posted")], "status"),
        ("/v1/posts", {"cursor": ""}, "cursor"),
        ("/v1/posts", {"cursor": "nonsense"}, "cursor"),
        ("/v1/posts", {"cursor": "a" * 5000}, "cursor"),
        ("/v1/posts", {"cursor": "é"}, "cursor"),
        ("/v1/edits", {"status": "generated"}, "status"),
        ("/v1/edits", {"createdFrom": "yesterday"}, "createdFrom"),
        ("/v1/edits", {"postId": "x" * 256}, "postId"),
        ("/v1/edits", {"limit": "1.0"}, "limit"),
    ],
)
def test_a_query_at_fault_is_a_400_that_names_the_parameter(
    http: httpx.Client, path: str, given: Any, field: str
) -> None:
    answer = http.get(path, params=given)
    assert error(answer, 400)["code"] == "invalid_request"
    assert field in fields(answer)


def test_all_that_is_wrong_with_a_query_is_said_at_once(http: httpx.Client) -> None:
    answer = http.get("/v1/posts?limit=0&platform=tiktok&platform=tiktok&statuss=failed&scheduledFrom=soon")
    assert set(fields(answer)) == {"limit", "platform", "statuss", "scheduledFrom"}


def test_a_near_miss_of_a_filter_is_answered_with_what_was_meant(http: httpx.Client) -> None:
    assert "did you mean scheduledFrom?" in error(http.get("/v1/posts?scheduled_form=x"), 400)["message"]


def test_a_cursor_is_good_for_its_own_list_filters_and_workspace_only(
    stack: Running, http: httpx.Client, listed: list[dict[str, Any]]
) -> None:
    def cursor(path: str, **given: Any) -> str:
        found: str = http.get(path, params=given | {"limit": 1}).json()["nextCursor"]
        return found

    post = next(row["id"] for row in listed if row["status"] == "generated")
    for caption in ("a", "b"):
        assert http.patch(f"/v1/posts/{post}", json={"caption": caption}).status_code == 200
    posts, failed, trail = cursor("/v1/posts"), cursor("/v1/posts", status="failed"), cursor(f"/v1/posts/{post}/edits")
    by_time = cursor("/v1/posts", sort="scheduledTime")
    flipped = posts[:-2] + ("A" if posts[-2] != "A" else "B") + posts[-1]
    wrong: list[tuple[httpx.Client, str, dict[str, str]]] = [
        (http, "/v1/posts", {"cursor": failed}),
        (http, "/v1/posts", {"cursor": posts, "status": "failed"}),
        (http, "/v1/posts", {"cursor": failed, "status": "posted"}),
        (http, "/v1/edits", {"cursor": posts}),
        (http, "/v1/edits", {"cursor": trail}),
        (http, f"/v1/posts/{listed[0]['id']}/edits", {"cursor": trail}),
        (http, "/v1/posts", {"cursor": flipped}),
        (http, "/v1/posts", {"cursor": posts + "="}),
        (http, "/v1/posts", {"cursor": posts, "sort": "scheduledTime"}),
        (http, "/v1/posts", {"cursor": by_time}),
        (http, "/v1/posts", {"cursor": by_time, "sort": "-scheduledTime"}),
        (http, "/v1/posts", {"cursor": " " + posts}),
        (stack.http, "/v1/posts", {"cursor": posts}),
    ]
    for client_, path, given in wrong:
        assert fields(client_.get(path, params=given)) == ["cursor"], (path, given)
    for path, good in (("/v1/posts", posts), (f"/v1/posts/{post}/edits", trail)):
        assert http.get(path, params={"cursor": good, "limit": 3}).status_code == 200


def test_edits_are_listed_newest_first_with_their_fates(stack: Running) -> None:
    post, other = stack.post(), stack.post()
    for number in range(5):
        stack.patch(post, {"caption": str(number)})
    stack.patch(post, {"caption": "stale"}, **{"If-Match": '"1"'})
    stack.patch(other, {"caption": "other"})
    trail = everything(stack.http, f"/v1/posts/{post}/edits", limit=2)
    assert [edit["changes"]["caption"] for edit in trail] == ["stale", "4", "3", "2", "1", "0"]
    assert [edit["revision"] for edit in trail] == [6, 6, 5, 4, 3, 2]
    assert (trail[0]["status"], trail[0]["error"]["code"], trail[0]["after"]) == (
        "rejected",
        "precondition_failed",
        None,
    )
    assert (trail[1]["before"], trail[1]["after"], trail[1]["requestedBy"]) == (
        {"caption": "3"}, {"caption": "4"}, "tests",
    )  # fmt: skip
    assert everything(stack.http, "/v1/edits", postId=post, limit=4) == trail
    assert everything(stack.http, "/v1/edits", postId=post, status="rejected") == trail[:1]
    newest = stack.http.get("/v1/edits", params={"limit": 1}).json()["data"]
    assert newest == [stack.http.get(f"/v1/edits/{newest[0]['editId']}").json()]
    assert newest[0]["postId"] == other


def test_edits_are_found_by_when_they_were_accepted(stack: Running) -> None:
    post = stack.post()
    with stack.engine.begin() as tx:
        made = [factories.edit(tx, post, {"caption": str(number)}) for number in range(4)]
        for number, edit in enumerate(made):
            at = EPOCH + timedelta(hours=number)
            tx.execute(text("UPDATE edits SET created_at = :at WHERE id = :id"), {"at": at, "id": edit})

    def found(**given: datetime) -> list[str]:
        asked = {name: format_instant(at) for name, at in given.items()}
        return [edit["editId"] for edit in everything(stack.http, "/v1/edits", postId=post, **asked)]

    assert found(createdFrom=EPOCH + timedelta(hours=1)) == made[:0:-1]
    assert found(createdTo=EPOCH + timedelta(hours=2)) == [made[1], made[0]]
    assert found(createdFrom=EPOCH + timedelta(hours=1), createdTo=EPOCH + timedelta(hours=2)) == [made[1]]


def test_accounts_are_listed_with_their_platform_and_name(stack: Running) -> None:
    assert stack.http.get("/v1/accounts").json() == {
        "data": [
            {"accountId": factories.INSTAGRAM, "platform": "instagram", "name": factories.INSTAGRAM, "held": None},
            {"accountId": factories.TIKTOK, "platform": "tiktok", "name": factories.TIKTOK, "held": None},
        ],
        "hasMore": False,
        "nextCursor": None,
    }  # fmt: skip


def test_a_page_is_bounded_in_bytes_and_the_rest_is_on_the_next(stack: Running) -> None:
    """100 of the largest posts would be 8 MB, and as many of their edits 17."""
    workspace, secret = "ws_large", "sk_large_0123456789"
    urls = ["https://cdn.example.com/" + "a" * 2_000 + f"/{number}.jpg" for number in range(35)]
    change = json.dumps({"contentUrl": urls, "caption": "c" * 4_000})
    with stack.engine.begin() as tx:
        factories.workspace(tx, workspace, "_large", secret)
        made = [
            factories.slides(
                tx, workspace_id=workspace, account_id=f"{factories.TIKTOK}_large", content_url=json.dumps(urls),
                caption="c" * 4_000,
            )
            for _ in range(40)
        ]  # fmt: skip
        insert = text("""
            INSERT INTO edits (id, post_id, workspace_id, changes, requested_by, status, finalized_at, revision,
                before, after)
            SELECT 'edit_large_' || g, :post, :workspace, CAST(:change AS jsonb), 'tests', 'applied', now(), g,
                CAST(:change AS jsonb), CAST(:change AS jsonb)
            FROM generate_series(1, 20) g""")
        tx.execute(insert, {"post": made[0], "workspace": workspace, "change": change})
    with client(stack, secret) as http:
        for path, name, count in (
            ("/v1/posts", "postId", 40),
            ("/v1/edits", "editId", 20),
            (f"/v1/posts/{made[0]}/edits", "editId", 20),
        ):
            found = list(pages(http, path, limit=100))
            sizes = [len(json.dumps(page)) for page in found]
            assert max(sizes) < PAGE_BYTES * 1.1, path
            assert all(size > PAGE_BYTES * 0.7 for size in sizes[:-1]), "no shorter than it has to be"
            assert len({one[name] for page in found for one in page["data"]}) == count
            assert sum(len(page["data"]) for page in found) == count


@pytest.mark.parametrize("path", ["/v1/posts", "/v1/edits", "/v1/accounts"])
def test_a_query_of_more_parameters_than_any_route_knows_is_refused_at_once(stack: Running, path: str) -> None:
    most = "&".join(f"p{number}=1" for number in range(100))
    assert len(stack.http.get(f"{path}?{most}").json()["error"]["details"]) > 1
    refused = stack.http.get(f"{path}?{most}&one=more")
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "invalid_request")
    assert refused.json()["error"]["message"] == "A query has at most 100 parameters here; send fewer"
    assert httpx.get(f"{stack.http.base_url}{path}?{most}&one=more").status_code == 401
