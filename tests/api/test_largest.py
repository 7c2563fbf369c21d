"""The largest legal requests are answered like the smallest."""

import random
from typing import Any

import httpx
import pytest

from tests import sizes
from tests.faults.test_bulk import PATH
from tests.stack import Running

AT = {"scheduledTime": "2031-05-01T09:00", "timezone": "Asia/Tokyo"}


@pytest.mark.parametrize("caption", sizes.CAPTIONS, ids=["emoji", "ideograms", "quotes"])
def test_a_patch_of_everything_at_its_limit_is_applied_shown_and_replayed(
    stack: Running, caption: str, request: pytest.FixtureRequest
) -> None:
    post = stack.post()
    body = sizes.slides(request.node.name) | AT | {"caption": caption, "soundId": sizes.SOUND}
    headers = {
        "If-Match": ", ".join((*sizes.TAGS, '"1"')),
        "Idempotency-Key": "k" * 240 + request.node.name[-15:].replace(" ", "_"),
        "Prefer": "wait=30",
    }
    first = stack.patch(post, body, **headers)
    assert first.status_code == 200, first.text
    assert {name: first.json()[name] for name in ("caption", "contentUrl", "soundId")} == {
        name: body[name] for name in ("caption", "contentUrl", "soundId")
    }
    repeated = stack.patch(post, body, **headers)
    assert (repeated.status_code, repeated.content) == (200, first.content)
    edit = stack.http.get(first.headers["location"]).json()
    assert (edit["status"], edit["changes"]) == ("applied", body)
    assert edit["after"]["contentUrl"] == body["contentUrl"]
    assert stack.http.get(f"/v1/posts/{post}").json()["caption"] == caption


def test_a_page_of_a_hundred_of_the_largest_posts_holds_them_whole(stack: Running) -> None:
    rng = random.Random(1)
    body = sizes.slides("page") | {"caption": sizes.caption(rng, "page")}
    posts = [stack.post(content_type="slides", content_url=_json(body), caption=body["caption"]) for _ in range(100)]
    found: dict[str, Any] = {}
    cursor: dict[str, str] = {}
    while cursor is not None:
        page = stack.http.get("/v1/posts", params={"limit": "100", "contentType": "slides"} | cursor).json()
        found |= {post["postId"]: post for post in page["data"]}
        if not page["hasMore"]:
            break
        cursor = {"cursor": page["nextCursor"]}
    assert found.keys() >= set(posts)
    assert {found[post]["contentUrl"] == body["contentUrl"] for post in posts} == {True}


def test_a_job_of_ten_thousand_items_is_accepted_and_one_more_is_refused(stack: Running) -> None:
    items = [AT | {"postId": f"post_{'x' * 200}_{number}"} for number in range(sizes.ITEMS)]
    # Ids as long as these make a body over the limit; ours have 31 characters.
    assert _made(stack, items).status_code in {400, 413}
    items = [AT | {"postId": f"post_{number:026}"} for number in range(sizes.ITEMS)]
    answer = _made(stack, items)
    assert answer.status_code == 202, answer.text
    assert _made(stack, [*items, AT | {"postId": "post_more"}]).status_code == 400


def _made(stack: Running, items: list[dict[str, str]]) -> httpx.Response:
    return stack.http.post(PATH, json={"items": items})


def _json(body: dict[str, object]) -> str:
    urls = body["contentUrl"]
    assert isinstance(urls, list)
    return "[" + ", ".join(f'"{url}"' for url in urls) + "]"
