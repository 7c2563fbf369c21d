"""Requests that no client of ours would send: the envelope, never a 500, never a hang, and nothing is stored."""

import asyncio
import json
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from starlette.requests import Request

from api.http import reading
from shared.domain.errors import InvalidRequest
from tests import factories
from tests.api.answers import error
from tests.loopback import LOOPBACK
from tests.stack import Running

HEAD = b"Host: x\r\nAuthorization: Bearer " + factories.SECRET.encode() + b"\r\n"
JSON = b"Content-Type: application/json\r\n"
PATCH = b"PATCH /v1/posts/post_hostile HTTP/1.1\r\n" + HEAD + JSON


@pytest.fixture(scope="module", autouse=True)
def _nothing_stored(stack: Running) -> Iterator[None]:
    """After all of this module: a post that was there to be edited, and was not; no other, no edit, no key, no bug."""
    before = stack.row("posts", stack.post(post_id="post_hostile"))
    yield
    assert stack.row("posts", "post_hostile") == before
    for table in ("edits", "idempotency_keys", "reschedules"):
        assert stack.scalar(f"SELECT count(*) FROM {table}") == 0, table
    assert stack.scalar("SELECT count(*) FROM posts") == 1
    assert stack.api is not None
    assert "unexpected_error" not in stack.api.output()


def connect(stack: Running) -> socket.socket:
    assert stack.api is not None
    return socket.create_connection(("127.0.0.1", stack.api.port or 0), timeout=10)


def send(stack: Running, raw: bytes) -> tuple[int, dict[str, str], bytes]:
    """The first answer to raw bytes: its status, headers and body."""
    with connect(stack) as connection:
        connection.sendall(raw)
        return answer(connection)


def answer(connection: socket.socket) -> tuple[int, dict[str, str], bytes]:
    with connection.makefile("rb") as lines:
        status = int(lines.readline().split()[1])
        headers: dict[str, str] = {}
        while (line := lines.readline()) not in (b"\r\n", b""):
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.strip().lower()] = value.strip()
        return status, headers, lines.read(int(headers.get("content-length", 0)))


def error_of(found: tuple[int, dict[str, str], bytes]) -> tuple[int, str]:
    """Status and code of an answer that must be an error in the envelope."""
    status, headers, body = found
    said = json.loads(body)
    assert set(said) == {"error"}
    assert said["error"]["requestId"] == headers["x-request-id"]
    assert headers["content-type"] == "application/json"
    return status, said["error"]["code"]


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"\x00\x01\x02\r\n\r\n", id="no HTTP at all"),
        pytest.param(
            b"GET /v1/accounts HTTP/1.1\r\n" + HEAD + b"X-Request-Id: a\r\n b: c\r\n\r\n", id="a folded header"
        ),
        pytest.param(b"GET /v1/accounts HTTP/1.1\r\n" + HEAD + b"X-Request-Id: a\x00b\r\n\r\n", id="NUL in a header"),
        pytest.param(b"GET /v1/accounts HTTP/1.1\r\n" + HEAD + b"X-A: a\rSet-Cookie: b\r\n\r\n", id="a bare CR"),
        pytest.param(b"GET /v1/accounts HTTP/1.1\r\n" + HEAD + b"X A: b\r\n\r\n", id="a space in a header's name"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", id="HTTP/2"),
        pytest.param(b"CONNECT evil.example:443 HTTP/1.1\r\n" + HEAD + b"\r\n", id="CONNECT"),
        pytest.param(b"FROB /v1/posts HTTP/1.1\r\n" + HEAD + b"\r\n", id="an unknown method"),
        pytest.param(b"GET /v1/posts/a\x00b HTTP/1.1\r\n" + HEAD + b"\r\n", id="NUL in the path"),
        pytest.param("GET /v1/posts/é HTTP/1.1\r\n".encode() + HEAD + b"\r\n", id="raw UTF-8 in the path"),
        pytest.param(PATCH + b"Content-Length: 15\r\nContent-Length: 3\r\n\r\n{}", id="two lengths"),
        pytest.param(PATCH + b"Content-Length: -1\r\n\r\n{}", id="a negative length"),
        pytest.param(PATCH + b"Content-Length: " + b"9" * 40 + b"\r\n\r\n{}", id="a length beyond measure"),
        pytest.param(
            PATCH + b"Content-Length: 15\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", id="length and chunks"
        ),
        pytest.param(PATCH + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n", id="a chunk of no size"),
    ],
)
def test_what_is_no_http_is_told_so_in_the_envelope_and_the_connection_closed(stack: Running, raw: bytes) -> None:
    with connect(stack) as connection:
        connection.sendall(raw)
        found = answer(connection)
        assert error_of(found) == (400, "invalid_request")
        assert (found[1]["connection"], connection.recv(1)) == ("close", b"")
        assert (found[1]["cache-control"], found[1]["x-content-type-options"]) == ("no-store", "nosniff")


def test_a_bad_request_behind_a_good_one_does_not_spoil_its_answer(stack: Running) -> None:
    with connect(stack) as connection:
        connection.sendall(b"GET /v1/accounts HTTP/1.1\r\n" + HEAD + b"\r\n\x00\x01\r\n\r\n")
        status, _, body = answer(connection)
    assert (status, json.loads(body)["hasMore"]) == (200, False)


def test_a_head_that_is_too_large_is_cut_off_and_one_within_bounds_is_not(stack: Running) -> None:
    line = b"X-Long: " + b"a" * 30_000 + b"\r\n"
    assert send(stack, b"GET /v1/accounts HTTP/1.1\r\n" + HEAD + line + b"\r\n")[0] == 200
    with connect(stack) as connection:
        connection.sendall(b"GET /v1/accounts HTTP/1.1\r\n" + HEAD)
        sent = 0
        try:
            while sent < 20_000_000:
                sent += connection.send(line)
        except OSError:
            pass  # closed before it was all sent: what it is for
        assert sent < 20_000_000


def test_a_body_that_does_not_end_is_not_waited_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "BODY_WITHIN", 0.05)
    parts = iter([{"type": "http.request", "body": b"{", "more_body": True}])

    async def receive() -> Any:
        found = next(parts, None)
        if found is None:
            await asyncio.Event().wait()
        return found

    with pytest.raises(InvalidRequest, match="did not arrive within"):
        asyncio.run(reading.read_body(Request({"type": "http", "method": "PATCH", "headers": []}, receive)))


def test_a_client_that_goes_away_in_the_middle_of_its_body_leaves_nothing(stack: Running) -> None:
    with connect(stack) as connection:
        connection.sendall(PATCH + b'Content-Length: 100\r\n\r\n{"caption": "half')
    assert stack.http.get("/healthz").status_code == 200


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1/posts/a%00b", 404),
        ("/v1/posts/%ff%fe", 404),
        ("/v1/posts/%ed%a0%80", 404),
        ("/v1/posts/a%0d%0aSet-Cookie:%20x", 404),
        ("/v1/posts/" + "a" * 30_000, 404),
        ("/v1/posts/a%2Fb", 404),
        ("/v1/posts/", 404),
        ("//v1/posts", 404),
        ("/v1/../v1/posts", 404),
        ("/v1/edits/%00", 404),
        ("/v1/posts?status=%ff", 400),
        ("/v1/posts?accountId=%00", 400),
        ("/v1/posts?accountId=%ed%a0%80", 200),
        ("/v1/posts?%00=1", 400),
        ("/v1/posts?" + "a=1&" * 5000, 400),
        ("/v1/posts?limit=1;drop", 400),
    ],
)
def test_paths_and_queries_of_any_bytes_are_answered_in_the_envelope(stack: Running, path: str, status: int) -> None:
    found = send(stack, f"GET {path} HTTP/1.1\r\n".encode() + HEAD + b"\r\n")
    assert found[0] == status, found
    assert "set-cookie" not in found[1]
    if status != 200:
        error_of(found)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        *((host, 400) for host in (b"[", b"[::1", b"a b", b"\xff", b"evil.example\\@good.example", b"#", b"a/b?c")),
        *((host, 404) for host in (b"", b"x:99999999", b"%", b"[::1]:1", b"evil.example")),
    ],
)
def test_a_host_is_a_host_and_changes_nothing(stack: Running, host: bytes, status: int) -> None:
    key = b"Authorization: Bearer " + factories.SECRET.encode() + b"\r\n"
    for raw in (
        b"GET /v1/nowhere HTTP/1.1\r\nHost: " + host + b"\r\n" + key + b"\r\n",
        b"PATCH /v1/posts/post_nowhere HTTP/1.1\r\nHost: " + host + b"\r\n" + key + JSON
        + b'Idempotency-Key: k\r\nContent-Length: 15\r\n\r\n{"caption":"x"}',
    ):  # fmt: skip
        assert error_of(send(stack, raw)) == (status, "not_found" if status == 404 else "invalid_request")


@pytest.mark.parametrize(
    ("header", "value", "status"),
    [
        ("Authorization", "Bearer sk_\xe9\xff", 401),
        ("Authorization", "Bearer " + "a" * 30_000, 401),
        ("Authorization", "bearer", 401),
        ("Idempotency-Key", "\xe9", 400),
        ("Idempotency-Key", "a b", 400),
        ("Idempotency-Key", "", 400),
        ("Idempotency-Key", "a" * 256, 400),
        ("If-Match", '"unclosed', 400),
        ("If-Match", '"a" "b"', 400),
        ("If-Match", '"a",' * 5000, 400),
        ("Prefer", "wait=-1", 400),
        ("Prefer", "wait=soon", 400),
        ("Content-Type", "text/plain", 415),
        ("Content-Type", "application/json\xff", 415),
        ("Content-Type", "", 415),
        ("Content-Length", "131073", 413),
    ],
)
def test_headers_that_cannot_be_meant_are_refused(stack: Running, header: str, value: str, status: int) -> None:
    given = {"Content-Type": "application/json", "Content-Length": "15", header: value}
    key = b"" if header == "Authorization" else b"Authorization: Bearer " + factories.SECRET.encode() + b"\r\n"
    lines = "".join(f"{name}: {text}\r\n" for name, text in given.items()).encode("latin-1")
    raw = b"PATCH /v1/posts/post_hostile HTTP/1.1\r\nHost: x\r\n" + key + lines + b'\r\n{"caption":"x"}'
    assert error_of(send(stack, raw))[0] == status


@pytest.mark.parametrize("depth", [5, 200, 900, 950, 960, 970, 980, 985, 990, 995, 1000, 1100, 5000, 60_000])
@pytest.mark.parametrize("key", [None, "deep"])
def test_json_of_any_depth_is_a_400(stack: Running, depth: int, key: str | None) -> None:
    headers = {"Content-Type": "application/json"} | ({"Idempotency-Key": key} if key else {})
    for body in (b"[" * depth + b"]" * depth, b'{"caption":' * depth + b"1" + b"}" * depth):
        if len(body) > reading.BODY_LIMIT:
            continue
        for method, path in (("PATCH", "/v1/posts/post_hostile"), ("POST", "/v1/posts/video"), ("DELETE", "/v1/posts")):
            assert error(stack.http.request(method, path, content=body, headers=headers), 400)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"null",
        b"{",
        b'{"caption": NaN}',
        b'{"caption": Infinity}',
        b'{"caption": -1e999}',
        b'{"caption": ' + b"9" * 4000 + b"}",
        b'{"caption": ' + b"9" * 100_000 + b"}",
        b'{"caption": "a", "caption": "b"}',
        b'{"soundId": {"a": 1, "a": 2}}',
        b'{"caption": "\\ud800"}',
        b'{"\\ud800": "x"}',
        b'{"\\u0000": "x"}',
        b'{"caption": "a\\u0000b"}',
        b'{"caption": "\x00"}',
        b'{"caption": "\xff"}',
        b'{"caption": "\xed\xa0\x80"}',
        b'\xef\xbb\xbf{"caption": "with a mark"}',
        '{"caption": "utf-16"}'.encode("utf-16"),
        b"{'caption': 'single'}",
        b'{"caption": "x",}',
        b'{"caption": "x"} {}',
        b'{"caption": true}',
        b'{"contentType": "slides", "contentUrl": [[["https://a.example/1.jpg"]]]}',
        b'{"contentType": "slides", "contentUrl": {"0": "https://a.example/1.jpg"}}',
        b'{"scheduledTime": "2030-01-01T12:00", "timezone": ["Asia/Tokyo"]}',
        json.dumps({f"field{number}": number for number in range(6000)}).encode(),
    ],
)
def test_bodies_that_mean_nothing_are_a_400(stack: Running, body: bytes) -> None:
    for method, path in (
        ("PATCH", "/v1/posts/post_hostile"),
        ("POST", "/v1/posts/video"),
        ("POST", "/v1/posts/slideshow"),
        ("DELETE", "/v1/posts"),
        ("POST", "/v1/reschedules"),
    ):
        answer = stack.http.request(method, path, content=body, headers={"Content-Type": "application/json"})
        assert error(answer, 400)["code"] in {"invalid_request", "missing_required_fields"}, body[:40]
        assert len(answer.content) < 20_000


def test_every_route_answers_head_options_and_wrong_methods(stack: Running) -> None:
    paths = {
        "/v1/posts": {"GET", "HEAD", "DELETE", "OPTIONS"},
        "/v1/posts/post_hostile": {"GET", "HEAD", "PATCH", "DELETE", "OPTIONS"},
        "/v1/posts/video": {"POST", "OPTIONS"},
        "/v1/posts/slideshow": {"POST", "OPTIONS"},
        "/v1/posts/post_hostile/edits": {"GET", "HEAD", "OPTIONS"},
        "/v1/edits": {"GET", "HEAD", "POST", "OPTIONS"},
        "/v1/edits/edit_1": {"GET", "HEAD", "OPTIONS"},
        "/v1/edits/edit_1/undo": {"POST", "OPTIONS"},
        "/v1/accounts": {"GET", "HEAD", "OPTIONS"},
        "/v1/reschedules": {"GET", "HEAD", "POST", "OPTIONS"},
        "/healthz": {"GET", "HEAD", "OPTIONS"},
        "/docs": {"GET", "HEAD", "OPTIONS"},
        "/openapi.json": {"GET", "HEAD", "OPTIONS"},
    }
    for path, allowed in paths.items():
        options = stack.http.options(path)
        assert (options.status_code, options.content) == (204, b"")
        assert set(options.headers["allow"].split(", ")) == allowed, path
        for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "TRACE"} - allowed:
            wrong = stack.http.request(method, path)
            assert (error(wrong, 405)["code"], wrong.headers["allow"]) == (
                "method_not_allowed",
                options.headers["allow"],
            )
    assert error(stack.http.options("/v1/nowhere"), 404)


def test_head_says_what_get_would_without_the_body(stack: Running) -> None:
    for path in ("/v1/posts/post_hostile", "/v1/posts", "/v1/posts/post_nowhere", "/v1/posts?limit=0", "/docs"):
        full, head = stack.http.get(path), stack.http.head(path)
        assert (head.status_code, head.content) == (full.status_code, b"")
        for name in ("etag", "content-type"):
            assert head.headers.get(name) == full.headers.get(name)
        assert int(head.headers["content-length"]) == len(full.content), path
    tag = stack.http.get("/v1/posts/post_hostile").headers["etag"]
    assert stack.http.head("/v1/posts/post_hostile", headers={"If-None-Match": tag}).status_code == 304


def test_a_request_id_cannot_be_made_to_carry_anything_else(stack: Running) -> None:
    for given in ("a b", "<script>", "a" * 129, 'x"y', "", "\xe9"):
        found = httpx.get(
            f"{stack.http.base_url}/healthz",
            headers=[(b"X-Request-Id", given.encode("latin-1"))],
            **LOOPBACK,
        )
        assert found.headers["x-request-id"].startswith("req_")
    sane = "3f2b-AZ.09_~:@+/="
    assert stack.http.get("/v1/nowhere", headers={"X-Request-Id": sane}).json()["error"]["requestId"] == sane
