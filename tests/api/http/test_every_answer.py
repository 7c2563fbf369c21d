"""What every answer has, and what is logged of those that were refused, however many there are."""

import re
from collections import Counter
from collections.abc import Iterator

import httpx
import pytest

from shared.telemetry.log_rates import BURST
from tests import factories
from tests.api.http.test_hostile_requests import HEAD, connect, send
from tests.loopback import LOOPBACK
from tests.stack import Running, running
from tests.waiting import eventually

ANSWERS = [
    ("GET", "/v1/posts", 200),
    ("HEAD", "/v1/posts", 200),
    ("GET", "/v1/posts/post_headers", 200),
    ("GET", "/v1/posts/post_none", 404),
    ("GET", "/v1/posts?limit=0", 400),
    ("PUT", "/v1/posts", 405),
    ("OPTIONS", "/v1/posts", 204),
    ("PATCH", "/v1/posts/post_headers", 415),
    ("GET", "/v1/nowhere", 404),
    ("GET", "/healthz", 200),
    ("GET", "/readyz", 200),
    ("GET", "/metrics", 200),
    ("GET", "/openapi.json", 200),
    ("GET", "/docs", 200),
    ("GET", "/ops", 404),
]


@pytest.mark.parametrize(("method", "path", "status"), ANSWERS)
def test_no_answer_is_kept_by_a_cache_or_guessed_at_by_a_browser(
    stack: Running, method: str, path: str, status: int
) -> None:
    if stack.scalar("SELECT count(*) FROM posts") == 0:
        stack.post(post_id="post_headers")
    answer = stack.http.request(method, path)
    assert answer.status_code == status
    assert answer.headers.get_list("cache-control") == ["no-store"]
    assert answer.headers.get_list("x-content-type-options") == ["nosniff"]


def test_answers_to_edits_and_to_what_has_not_changed_are_not_kept_either(stack: Running) -> None:
    post = stack.post()
    applied = stack.patch(post, {"caption": "kept nowhere"})
    queued = stack.patch(post, {"caption": "kept nowhere"}, Prefer="respond-async")
    unchanged = stack.http.get(f"/v1/posts/{post}", headers={"If-None-Match": "*"})
    refused = httpx.get(f"{stack.http.base_url}/v1/posts", **LOOPBACK)
    for answer, status in ((applied, 200), (queued, 202), (unchanged, 304), (refused, 401)):
        assert (answer.status_code, answer.headers["cache-control"]) == (status, "no-store")
        assert answer.headers["x-content-type-options"] == "nosniff"


# -- The log of refusals


@pytest.fixture(params=["json", "console"])
def quiet(request: pytest.FixtureRequest, database_url: str, redis_url: str) -> Iterator[Running]:
    """An API alone, that logs as in production."""
    with running(database_url, redis_url, REDRAFT_LOG_LEVEL="INFO", REDRAFT_LOG_FORMAT=request.param) as stack:
        yield stack


FLOOD = 400
REFUSED = {
    "not_found": b"GET /v1/%1b%5b2J%07%00%c2%9b31m%e2%80%ae%0aforged HTTP/1.1\r\n" + HEAD + b"\r\n",
    "unauthenticated": b"GET /v1/posts/%1b%5b2J%0aforged HTTP/1.1\r\nHost: x\r\n\r\n",
    "method_not_allowed": b"PUT /v1/posts/%1b%5b2J%0aforged HTTP/1.1\r\nHost: x\r\n\r\n",
    "invalid_request": b"GET /v1/posts?limit=0 HTTP/1.1\r\n" + HEAD + b"\r\n",
}


def test_a_flood_of_refusals_writes_few_short_lines_that_say_their_code(quiet: Running) -> None:
    assert quiet.api is not None
    began = len(quiet.api.output())
    long = b"GET /v1/posts/" + b"a-" * 30_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n"
    for raw in REFUSED.values():
        with connect(quiet) as connection, connection.makefile("rb") as answers:
            for _ in range(FLOOD // 50):
                connection.sendall(raw * 50)
                for _ in range(50):
                    length = 0
                    while (line := answers.readline()) != b"\r\n":
                        if line.lower().startswith(b"content-length:"):
                            length = int(line.split(b":")[1])
                    answers.read(length)
    for _ in range(FLOOD):
        send(quiet, b"\x1b[2J\x00\r\n\r\n")
    assert send(quiet, long)[0] == 401
    said = quiet.api.output()[began:]
    lines = said.splitlines()
    assert all(letter.isprintable() or letter == "\n" for letter in said)
    assert not [line for line in lines if line.startswith("forged")]
    assert max(len(line.encode()) for line in lines) < 4096
    # Five kinds; a slow machine may take some seconds, and each adds a line of a kind.
    assert len(lines) < 5 * (BURST + 40)
    found = Counter(re.findall(r"code\W+(\w+)", said))
    for code in REFUSED:
        assert found[code] >= BURST, code


def line_about(stack: Running, what: str) -> str:
    """The line about something; it is written after the answer is sent."""
    assert stack.api is not None
    return next((line for line in stack.api.output().splitlines() if what in line), "")


def test_each_refusal_has_a_line_with_its_code(quiet: Running) -> None:
    assert quiet.api is not None
    post = quiet.post()
    for number, (method, path, body, code) in enumerate(
        (
            ("GET", "/v1/posts/post_none", None, "not_found"),
            ("PATCH", f"/v1/posts/{post}", {"captoin": "x"}, "invalid_request"),
            ("PATCH", f"/v1/posts/{post}", {"caption": "x" * 3_000}, "invalid_caption"),
            ("PATCH", "/v1/posts/post_none", {"caption": "x"}, "not_found"),
            ("PUT", "/v1/posts", None, "method_not_allowed"),
            ("GET", "/ops", None, "not_found"),
        )
    ):
        quiet.http.request(method, path, json=body, headers={"X-Request-Id": f"refused-{number}"})
        line = eventually(lambda of=f"refused-{number}": line_about(quiet, of), within=30)
        assert re.search(rf"code\W+{code}\b", line), line
    assert factories.SECRET not in quiet.api.output()
