"""A second workspace's key walks every operation, filter, cursor and error, and finds nothing of the first one's.

Whatever it names of theirs is answered word for word as if it had never been.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from tests import factories
from tests.api.answers import client
from tests.api.operations import OPERATIONS
from tests.stack import Running
from tests.waiting import eventually

SECRET = "sk_second_0123456789"
TIKTOK = f"{factories.TIKTOK}_second"


@dataclass
class Walk:
    """The second workspace's client, what the first has, and what nobody has."""

    http: httpx.Client
    post: str
    edit: str
    job: str
    account: str = factories.TIKTOK

    def same(self, ask: Callable[..., httpx.Response], theirs: str, nobodys: str) -> httpx.Response:
        """The answer for theirs, which must be the answer for nobody's, but for the name asked for."""
        found, missing = ask(theirs), ask(nobodys)
        assert (found.status_code, without_name(found, theirs)) == (missing.status_code, without_name(missing, nobodys))
        assert headers(found) == headers(missing)
        return found


def without_name(answer: httpx.Response, name: str) -> Any:
    body = answer.text.replace(answer.headers["x-request-id"], "REQUEST")
    return body.replace(name, "NAME")


def headers(answer: httpx.Response) -> set[str]:
    return set(answer.headers) - {"date"}


def finished_job(http: httpx.Client, body: dict[str, Any]) -> str:
    """The id of a job that has ended: one still at work would change the rows under the test that comes next."""
    made = http.post("/v1/reschedules", json=body)
    assert made.status_code == 202, made.text
    path = made.headers["location"]
    eventually(lambda: http.get(path).json()["status"] == "done", within=30)
    return str(made.json()["id"])


@pytest.fixture(scope="module")
def walk(stack: Running) -> Iterator[Walk]:
    stack.start_worker("bulk")
    with stack.engine.begin() as tx:
        factories.workspace(tx, "ws_second", "_second", SECRET)
    post = stack.post()
    edit = stack.patch(post, {"caption": "theirs"}).headers["edit-id"]
    job = finished_job(stack.http, {"filter": {"postIds": [post]}, "shift": "P1D"})
    with client(stack, SECRET) as http:
        yield Walk(http, post, edit, job)


@pytest.fixture
def untouched(stack: Running, walk: Walk) -> Iterator[None]:
    """Everything of the first workspace is as it was."""

    def everything() -> list[Any]:
        with stack.engine.connect() as tx:
            return [
                tx.execute(
                    text(f"SELECT * FROM {table} t WHERE workspace_id = 'ws_test' ORDER BY CAST(t AS text)")
                ).all()
                for table in ("posts", "edits", "reschedules", "accounts", "api_keys", "holds", "acts")
            ]

    before = everything()
    yield
    assert everything() == before, walk


def missing(method: str, path: str, theirs: str, nobodys: str) -> Callable[[Walk], None]:
    """A walk of an operation that is 404 for whatever is another workspace's."""

    def walked(walk: Walk) -> None:
        found = walk.same(lambda name: walk.http.request(method, path.format(name)), getattr(walk, theirs), nobodys)
        assert found.status_code == 404

    return walked


def edit(walk: Walk) -> None:
    for more in ({}, {"If-Match": '"1"'}, {"Idempotency-Key": "theirs"}, {"Prefer": "respond-async"}):
        for body in ({"caption": "mine"}, {"soundId": "1"}, {"nonsense": 1}):
            found = walk.same(
                lambda name, body=body, more=more: walk.http.patch(f"/v1/posts/{name}", json=body, headers=more),
                walk.post,
                "post_nobodys",
            )
            assert found.status_code == (400 if "nonsense" in body else 404)


def many_edits(walk: Walk) -> None:
    for more in ({}, {"Idempotency-Key": "theirs"}, {"Prefer": "respond-async"}):
        for item in ({"caption": "mine"}, {"soundId": "1", "ifMatch": '"1"'}, {"nonsense": 1}):
            found = walk.same(
                lambda name, item=item, more=more: walk.http.post(
                    "/v1/edits", json={"edits": [item | {"postId": name}]}, headers=more
                ),
                walk.post,
                "post_nobodys",
            )
            assert found.status_code == 200
            code = "invalid_request" if "nonsense" in item else "not_found"
            assert [fate["error"]["code"] for fate in found.json()["data"]] == [code]


def posts(walk: Walk) -> None:
    assert walk.http.get("/v1/posts").json() == {"data": [], "hasMore": False, "nextCursor": None}
    for given in ({"status": "generated"}, {"platform": "tiktok"}, {"scheduledFrom": "2020-01-01T00:00:00Z"}):
        assert walk.http.get("/v1/posts", params=given).json()["data"] == []
    ask: Callable[[str], httpx.Response] = lambda name: walk.http.get("/v1/posts", params={"accountId": name})  # noqa: E731
    assert walk.same(ask, walk.account, "acc_nobodys").json()["data"] == []


def edits(walk: Walk) -> None:
    for given in ({}, {"status": "applied"}, {"createdFrom": "2020-01-01T00:00:00Z"}):
        assert walk.http.get("/v1/edits", params=given).json()["data"] == []
    ask: Callable[[str], httpx.Response] = lambda name: walk.http.get("/v1/edits", params={"postId": name})  # noqa: E731
    assert walk.same(ask, walk.post, "post_nobodys").json()["data"] == []


def accounts(walk: Walk) -> None:
    found = walk.http.get("/v1/accounts").json()["data"]
    assert {account["accountId"] for account in found} == {TIKTOK, f"{factories.INSTAGRAM}_second"}


def create(kind: str, content: dict[str, Any]) -> Callable[[Walk], None]:
    def walked(walk: Walk) -> None:
        for accounts_ in ([], [TIKTOK]):
            found = walk.same(
                lambda name, before=accounts_: walk.http.post(
                    f"/v1/posts/{kind}", json=content | {"accountIds": [*before, name]}
                ),
                walk.account,
                "acc_nobodys",
            )
            assert found.status_code == 404

    return walked


def delete(walk: Walk) -> None:
    found = walk.same(
        lambda name: walk.http.request("DELETE", "/v1/posts", json={"postIds": [name]}), walk.post, "post_nobodys"
    )
    assert found.json()["failed"] == [{"postId": walk.post, "reason": "not_found"}]


delete_one = missing("DELETE", "/v1/posts/{}", "post", "post_nobodys")


def jobs(walk: Walk) -> None:
    assert walk.post not in walk.http.get("/v1/reschedules").text
    assert walk.job not in walk.http.get("/v1/reschedules").text


def job(walk: Walk) -> None:
    """A job of the second's over the first's posts: unknown posts, and no posts of that account."""
    asked: list[dict[str, Any]] = [
        {"filter": {"postIds": [walk.post, "post_nobodys"]}, "shift": "P1D"},
        {"items": [{"postId": walk.post, "scheduledTime": "2030-01-01T12:00", "timezone": "Asia/Tokyo"}]},
        {"filter": {"accountIds": [walk.account]}, "shift": "P1D"},
        {"filter": {"all": True}, "shift": "P1D"},
    ]
    found: dict[str, set[tuple[Any, ...]]] = {}
    for body in asked:
        for one in walk.http.get(f"/v1/reschedules/{finished_job(walk.http, body)}/results").json()["data"]:
            found.setdefault(one["postId"], set()).add((one["outcome"], one["reason"], one["before"]))
    assert found == {
        walk.post: {("failed", "not_found", None)}, "post_nobodys": {("failed", "not_found", None)},
    }  # fmt: skip


def hold_all(walk: Walk) -> None:
    """A hold of the second's workspace names and holds nothing of the first's; `untouched` looks at their posts."""
    held = walk.http.put("/v1/hold").json()
    assert (held["goingOut"], held["goingOutTotal"]) == ([], 0)
    assert walk.http.get("/v1/posts", params={"held": "true"}).json()["data"] == []
    assert walk.http.delete("/v1/hold").json() == {"held": None, "missed": 0, "released": 0}


VIDEO = {"contentUrl": "https://cdn.example.com/a.mp4"}
SLIDES = {"contentUrls": ["https://cdn.example.com/1.jpg", "https://cdn.example.com/2.jpg"]}
WALKED: dict[str, Callable[[Walk], None]] = {
    "editPost": edit,
    "getPost": missing("GET", "/v1/posts/{}", "post", "post_nobodys"),
    "editPosts": many_edits,
    "listPosts": posts,
    "createVideos": create("video", VIDEO),
    "createSlideshows": create("slideshow", SLIDES),
    "deletePosts": delete,
    "deletePost": delete_one,
    "listEditsOfPost": missing("GET", "/v1/posts/{}/edits", "post", "post_nobodys"),
    "listEdits": edits,
    "getEdit": missing("GET", "/v1/edits/{}", "edit", "edit_nobodys"),
    "undoEdit": missing("POST", "/v1/edits/{}/undo", "edit", "edit_nobodys"),
    "listAccounts": accounts,
    "createReschedule": job,
    "listReschedules": jobs,
    "getReschedule": missing("GET", "/v1/reschedules/{}", "job", "rsch_nobodys"),
    "listResults": missing("GET", "/v1/reschedules/{}/results", "job", "rsch_nobodys"),
    "cancelReschedule": missing("POST", "/v1/reschedules/{}/cancel", "job", "rsch_nobodys"),
    "retryPost": missing("POST", "/v1/posts/{}/retry", "post", "post_nobodys"),
    "holdPost": missing("PUT", "/v1/posts/{}/hold", "post", "post_nobodys"),
    "resumePost": missing("DELETE", "/v1/posts/{}/hold", "post", "post_nobodys"),
    "holdAccount": missing("PUT", "/v1/accounts/{}/hold", "account", "acc_nobodys"),
    "resumeAccount": missing("DELETE", "/v1/accounts/{}/hold", "account", "acc_nobodys"),
    "holdWorkspace": hold_all,
    "resumeWorkspace": hold_all,
    "publishPost": missing("POST", "/v1/posts/{}/publish", "post", "post_nobodys"),
    "revertReschedule": missing("POST", "/v1/reschedules/{}/revert", "job", "rsch_nobodys"),
}


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("name", [operation.name for operation in OPERATIONS if operation.scope])
def test_nothing_of_another_workspace_shows(walk: Walk, name: str) -> None:
    WALKED[name](walk)


def test_another_workspaces_cursor_is_as_bad_as_nonsense(stack: Running, walk: Walk) -> None:
    for _ in range(2):
        stack.patch(stack.post(), {"caption": "x"})
        finished_job(stack.http, {"filter": {"postIds": [walk.post]}, "shift": "P1D", "dryRun": True})
    for path in ("/v1/posts", "/v1/edits", "/v1/reschedules"):
        theirs = stack.http.get(path, params={"limit": 1}).json()["nextCursor"]
        assert theirs
        found = walk.same(
            lambda cursor, path=path: walk.http.get(path, params={"cursor": cursor}), theirs, "AAAA" + theirs[4:]
        )
        assert found.status_code == 400


def test_the_same_idempotency_key_in_two_workspaces_is_two_keys(stack: Running, walk: Walk) -> None:
    body = {"accountIds": [TIKTOK], **VIDEO}
    stack.patch(stack.post(), {"caption": "x"}, **{"Idempotency-Key": "shared"})
    made = walk.http.post("/v1/posts/video", json=body, headers={"Idempotency-Key": "shared"})
    assert (made.status_code, "idempotent-replayed" in made.headers) == (201, False)
    walk.http.request("DELETE", "/v1/posts", json={"postIds": [made.json()["posts"][0]["postId"]]})


@pytest.mark.usefixtures("untouched")
def test_whether_somebody_holds_another_workspaces_post_cannot_be_told(stack: Running, walk: Walk) -> None:
    with stack.engine.begin() as person:
        person.execute(text("SELECT 1 FROM posts WHERE id = :id FOR UPDATE"), {"id": walk.post})
        delete(walk)
        delete_one(walk)
        edit(walk)
