"""What is said of a path that no route has, and of a method that a path does not take."""

import pytest

from tests.api.answers import error
from tests.stack import Running


@pytest.mark.parametrize(
    ("method", "path", "words"),
    [
        ("GET", "/v1/posts/", "leave out the slash at its end: /v1/posts"),
        ("PATCH", "/v1/posts/post_abc123/", "leave out the slash at its end: /v1/posts/post_abc123"),
        ("POST", "/v1/reschedules//", "leave out the slash at its end: /v1/reschedules"),
        ("GET", "/v1/nothing/", "see /docs"),
        ("GET", "/v1/nothing", "see /docs"),
        ("GET", "//", "see /docs"),
    ],
)
def test_a_slash_too_many_is_told(stack: Running, method: str, path: str, words: str) -> None:
    assert stack.api is not None
    found = error(stack.http.request(method, stack.api.url + path), 404)
    assert found["code"] == "not_found"
    assert found["message"].endswith(words)


def test_a_post_to_posts_is_told_where_posts_are_created(stack: Running) -> None:
    answer = stack.http.post("/v1/posts", json={})
    assert "/v1/posts/video or /v1/posts/slideshow" in error(answer, 405)["message"]
    assert "POST" not in answer.headers["allow"]
