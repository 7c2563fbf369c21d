"""Heads and framings that are refused, or harmless: nothing in them is ever taken for another request."""

import asyncio
from typing import Any

import pytest

from api.http import heads
from tests.api.http.connections.driven import Driven, hasty, pieces, reading

HOST = b"Host: x\r\n"
PLAIN = b"GET /after HTTP/1.1\r\nHost: x\r\n\r\n"
AFTER = (200, ["GET", "/after", "", ""])
CHUNKED = b"POST /t HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: x\r\n"
INNER = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize(
    ("version", "headers", "wanted"),
    [
        ("1.1", [(b"host", b"example.com")], None),
        ("1.1", [(b"host", b"example.com:8000")], None),
        ("1.1", [(b"host", b" example.com ")], None),
        ("1.1", [(b"host", b"[::1]:8000")], None),
        ("1.1", [(b"host", b"under_score.internal")], None),
        ("1.1", [(b"host", b"")], None),
        ("1.0", [], None),
        ("1.1", [], heads.NO_HOST),
        ("1.1", [(b"host", b"a"), (b"host", b"a")], heads.NO_HOST),
        ("1.0", [(b"host", b"a"), (b"host", b"b")], heads.NO_HOST),
        ("1.1", [(b"host", b"a b")], heads.NO_HOST),
        ("1.1", [(b"host", b"a, b/")], heads.NO_HOST),
        ("1.1", [(b"host", b"http://a")], heads.NO_HOST),
        ("1.1", [(b"host", b"user@a")], heads.NO_HOST),
        ("1.1", [(b"host", b"[::1")], heads.NO_HOST),
        ("1.1", [(b"host", b"a:b")], heads.NO_HOST),
        ("1.1", [(b"host", b"\xff")], heads.NO_HOST),
        ("0.9", [(b"host", b"a")], heads.NO_VERSION),
        ("2.0", [(b"host", b"a")], heads.NO_VERSION),
        ("1.1", [(b"host", b"a"), (b"transfer-encoding", b"Chunked ")], None),
        ("1.1", [(b"host", b"a"), (b"transfer-encoding", b"gzip, chunked")], heads.NO_CODING),
        ("1.1", [(b"host", b"a"), (b"transfer-encoding", b",chunked")], heads.NO_CODING),
        (
            "1.1",
            [(b"host", b"a"), (b"transfer-encoding", b"gzip"), (b"transfer-encoding", b"chunked")],
            heads.NO_CODING,
        ),
        ("1.0", [(b"host", b"a"), (b"transfer-encoding", b"chunked")], heads.NO_CODING),
    ],
)
def test_heads_that_a_server_must_refuse(version: str, headers: list[tuple[bytes, bytes]], wanted: str | None) -> None:
    assert heads.fault(version, headers) == wanted


def sent(*segments: bytes, app: Any = reading) -> Driven:
    async def scenario() -> Driven:
        return await Driven(app).send(*segments)

    return asyncio.run(scenario())


REFUSED = {
    "no Host": b"GET / HTTP/1.1\r\n\r\n",
    "two Hosts": b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "HTTP/0.9": b"GET /\r\n\r\n",
    "HTTP/2.0": b"GET / HTTP/2.0\r\nHost: x\r\n\r\n",
    "a folded header": b"GET / HTTP/1.1\r\nHost: x\r\nA: a\r\n b\r\n\r\n",
    "a folded length": POST + b"Content-Length:\r\n 35\r\n\r\n" + INNER,
    "a blank before the first header": b"GET / HTTP/1.1\r\n Host: x\r\n\r\n",
    "a blank before a colon": POST + b"Content-Length : 35\r\n\r\n" + INNER,
    "bare LF": b"GET / HTTP/1.1\nHost: x\n\n",
    "length and chunks": POST + b"Content-Length: 35\r\nTransfer-Encoding: chunked\r\n\r\n" + INNER,
    "chunks and length": POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "two lengths": POST + b"Content-Length: 0\r\nContent-Length: 35\r\n\r\n" + INNER,
    "the same length twice": POST + b"Content-Length: 35\r\nContent-Length: 35\r\n\r\n" + INNER,
    "a list of lengths": POST + b"Content-Length: 35, 35\r\n\r\n" + INNER,
    "a length with a sign": POST + b"Content-Length: +35\r\n\r\n" + INNER,
    "chunked not last": POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n" + INNER,
    "chunked in another line": POST + b"Transfer-Encoding: chunked\r\n"
    b"Transfer-Encoding: identity\r\n\r\n0\r\n\r\n" + INNER,
    "another coding": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + INNER,
    "another coding too": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n" + INNER,
    "chunks in HTTP/1.0": b"POST / HTTP/1.0\r\nHost: x\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"0\r\n\r\n" + INNER,
    "a chunk's size that is no number": CHUNKED + b"0x0\r\n\r\n" + INNER,
    "a chunk's size without CR": CHUNKED + b"0\n\n" + INNER,
    "a length as a trailer": CHUNKED + b"0\r\nContent-Length: 35\r\n\r\n" + INNER,
    "a coding as a trailer": CHUNKED + b"0\r\nTransfer-Encoding: chunked\r\n\r\n" + INNER,
    "the connection's end as a trailer": CHUNKED + b"0\r\nConnection: close\r\n\r\n",
}


@pytest.mark.parametrize("raw", REFUSED.values(), ids=REFUSED)
def test_what_could_be_framed_in_two_ways_is_refused_and_ends_the_connection(raw: bytes) -> None:
    for segments in ([raw + PLAIN], pieces(raw + PLAIN, 1)):
        driven = sent(*segments)
        assert [status for status, _ in driven.answers()] == [400]
        assert driven.pipe.our_side_closed


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        (b"GET http://evil.example/p?q=1 HTTP/1.1\r\nHost: x\r\n\r\n", "/p"),
        (b"GET https://evil.example:1/p HTTP/1.1\r\nHost: x\r\n\r\n", "/p"),
        (b"GET //evil.example/p HTTP/1.1\r\nHost: x\r\n\r\n", "//evil.example/p"),
    ],
)
def test_an_absolute_target_means_its_path(raw: bytes, path: str) -> None:
    assert sent(raw + PLAIN).answers() == [(200, ["GET", path, "", ""]), AFTER]


def test_a_request_that_closes_is_the_last() -> None:
    raw = b"GET /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    for segments in ([raw + PLAIN * 3], [raw, PLAIN], pieces(raw + PLAIN, 1)):
        assert sent(*segments).answers() == [(200, ["GET", "/last", "", ""])]


def test_line_ends_between_requests_are_nothing() -> None:
    raw = b"\r\n\r\n" + PLAIN + b"\r\n\r\n\r\n" + PLAIN + b"\r\n"
    for segments in ([raw], pieces(raw, 1)):
        assert sent(*segments).answers() == [AFTER, AFTER]


def test_a_trailer_is_no_header() -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await reading(scope, receive, send)
        seen.append(scope["headers"])

    raw = (
        b"POST /t HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nAuthorization: Bearer b\r\n"
        b"Host: y\r\nUpgrade: c\r\n\r\n"
    )
    assert sent(raw + PLAIN, app=app).answers() == [(200, ["POST", "/t", "a", ""]), AFTER]
    assert seen[0] == [(b"host", b"x"), (b"transfer-encoding", b"chunked")]


@pytest.mark.parametrize("app", [reading, hasty])
@pytest.mark.parametrize("start", [b"1;a=", b"1\r\na\r\n0\r\nA: "], ids=["a chunk's extension", "a trailer"])
def test_framing_that_does_not_end_is_cut_off(start: bytes, app: Any) -> None:
    driven = sent(CHUNKED + start, *[b"a" * 16_384] * 8, app=app)
    assert [status for status, _ in driven.answers()] == ([400] if app is reading else [200])
    assert driven.pipe.our_side_closed


def test_chunks_of_one_byte_are_a_body() -> None:
    raw = CHUNKED + b"1\r\na\r\n" * 50_000 + b"0\r\n\r\n"
    [answer] = sent(*pieces(raw, 10_000)).answers()
    assert answer == (200, ["POST", "/t", "a" * 50_000, ""])


def test_what_is_wrong_behind_an_answer_that_is_given_gets_no_second_one() -> None:
    """The client, or the proxy before it, would take it for the answer to its next request."""
    driven = sent(CHUNKED + b"1\r\na\r\n", b"zz\r\n", app=hasty)
    assert driven.answers() == [(200, ["POST", "/t", "", ""])]
    assert driven.pipe.our_side_closed


def test_answers_keep_their_order_where_a_later_request_is_wrong() -> None:

    async def scenario(wrong: bytes) -> list[Any]:
        let = asyncio.Event()

        async def slow(scope: Any, receive: Any, send: Any) -> None:
            if scope["path"] == "/slow":
                await let.wait()
            await reading(scope, receive, send)

        driven = await Driven(slow).send(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n" + PLAIN + wrong, PLAIN)
        assert driven.pipe.sent == b""
        let.set()
        await driven.send(b"", PLAIN)
        assert driven.pipe.our_side_closed
        return driven.answers()

    for wrong in (b"\x00\r\n\r\n", CHUNKED + b"zz\r\n", b"GET / HTTP/1.1\r\n\r\n"):
        assert asyncio.run(scenario(wrong)) == [(200, ["GET", "/slow", "", ""]), AFTER], wrong


def test_a_client_that_closes_its_side_is_still_answered() -> None:
    async def scenario() -> None:
        let = asyncio.Event()

        async def slow(scope: Any, receive: Any, send: Any) -> None:
            await let.wait()
            await reading(scope, receive, send)

        driven = await (await Driven(slow).send(PLAIN + PLAIN, PLAIN)).end()
        assert not driven.pipe.closed
        let.set()
        for _ in range(3):
            await driven.send(b"")
        assert driven.answers() == [AFTER] * 3
        assert driven.pipe.closed

    asyncio.run(scenario())


def test_half_a_request_of_a_client_that_closed_its_side_is_none() -> None:
    async def scenario() -> None:
        for half in (b"GET / HT", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\na"):
            driven = await (await Driven(reading).send(half)).end()
            assert (driven.pipe.closed, bytes(driven.pipe.sent)) == (True, b"")

    asyncio.run(scenario())
