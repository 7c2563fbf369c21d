"""An offer to upgrade is answered as if it had not been made, and its body is read whole, in any segments."""

import asyncio
from typing import Any

import pytest

from tests.api.http.connections.driven import App, Driven, halves, hasty, pieces, reading, until_idle

INNER = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
COUNTED = b"Content-Length: %d\r\n\r\n%s" % (len(INNER), INNER)
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n7\r\n%s\r\n%x\r\n%s\r\n0\r\nX-Trailer: 1\r\n\r\n" % (
    INNER[:7], len(INNER) - 7, INNER[7:],
)  # fmt: skip
NONE = b"\r\n"
PLAIN = b"PUT /after HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"

OFFERS = {
    "any": b"Connection: Upgrade\r\nUpgrade: anything\r\n",
    "lists": b"Connection: keep-alive , UPGRADE\r\nUpgrade: a/1, b/2\r\n",
    "two lines": b"Connection: HTTP2-Settings\r\nConnection: upgrade\r\nUpgrade: h2c\r\nUpgrade: a\r\n"
    b"HTTP2-Settings: AAMAAABkAAQAAP__\r\n",
    "websocket": b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
    "half an offer": b"Connection: Upgrade\r\n",
    "the other half": b"Upgrade: h2c\r\n",
}


def asked(offer: bytes, framed: bytes) -> bytes:
    return b"PATCH /offer HTTP/1.1\r\nHost: x\r\n" + offer + b"X-Last: 1\r\n" + framed


def expected(framed: bytes, app: App) -> list[tuple[int, Any]]:
    body = "" if framed == NONE or app is hasty else INNER.decode()
    after = "" if app is hasty else "abc"
    return [(200, ["PATCH", "/offer", body, ""]), (200, ["PUT", "/after", after, ""])]


def without_upgrade(answers: list[tuple[int, Any]]) -> list[tuple[int, Any]]:
    """What an offer that was half made said of itself is no matter here."""
    return [(status, [*said[:3], ""]) for status, said in answers]


def answers(app: App, *segments: bytes) -> list[tuple[int, Any]]:
    async def scenario() -> list[tuple[int, Any]]:
        return (await Driven(app).send(*segments)).answers()

    return without_upgrade(asyncio.run(scenario()))


@pytest.mark.parametrize("app", [reading, hasty])
@pytest.mark.parametrize("framed", [COUNTED, CHUNKED, NONE], ids=["counted", "chunked", "no body"])
@pytest.mark.parametrize("offer", OFFERS.values(), ids=OFFERS)
def test_a_request_that_offers_an_upgrade_is_answered_and_its_body_is_read_in_any_segments(
    offer: bytes, framed: bytes, app: App
) -> None:
    raw = asked(offer, framed) + PLAIN
    assert answers(app, raw) == expected(framed, app)
    for size in (1, 2, 3, 7, 50):
        assert answers(app, *pieces(raw, size)) == expected(framed, app), size


@pytest.mark.parametrize("framed", [COUNTED, CHUNKED, NONE], ids=["counted", "chunked", "no body"])
def test_in_every_two_segments(framed: bytes) -> None:
    raw = asked(OFFERS["any"], framed) + PLAIN

    async def scenario() -> None:
        for first, second in halves(raw):
            driven = await Driven(reading).send(first, second)
            assert driven.answers() == expected(framed, reading), (first, second)

    asyncio.run(scenario())


def test_many_offers_one_behind_another_in_one_segment_or_in_many() -> None:
    raw = (asked(OFFERS["any"], COUNTED) + asked(OFFERS["websocket"], CHUNKED) + PLAIN) * 40
    wanted = [*expected(COUNTED, reading)[:1] * 2, expected(COUNTED, reading)[1]] * 40

    async def scenario() -> None:
        for size in (len(raw), 4096, 997, 11):
            driven = await Driven(reading).send(*pieces(raw, size))
            for _ in wanted:
                await until_idle()
            assert driven.answers() == wanted, size

    asyncio.run(scenario())


def test_the_app_does_not_hear_of_the_offer() -> None:
    async def scenario() -> list[tuple[int, Any]]:
        return (await Driven(reading).send(asked(OFFERS["any"], NONE))).answers()

    assert asyncio.run(scenario()) == [(200, ["PATCH", "/offer", "", ""])]


def test_a_client_that_waits_for_100_gets_it() -> None:
    async def scenario() -> None:
        driven = Driven(reading)
        await driven.send(asked(OFFERS["any"] + b"Expect: 100-continue\r\n", COUNTED[: -len(INNER)]))
        assert driven.pipe.sent == b"HTTP/1.1 100 Continue\r\n\r\n"
        await driven.send(INNER[:5], INNER[5:], PLAIN)
        assert driven.answers() == expected(COUNTED, reading)

    asyncio.run(scenario())


@pytest.mark.parametrize("offer", [b"", OFFERS["any"]], ids=["no offer", "an offer"])
def test_a_client_that_is_answered_instead_of_100_sends_no_other_request_here(offer: bytes) -> None:
    """Its body may come or not: what comes next could be either."""

    async def scenario() -> None:
        driven = Driven(hasty)
        await driven.send(asked(offer + b"Expect: 100-continue\r\n", COUNTED[: -len(INNER)]), PLAIN)
        assert [status for status, _ in driven.answers()] == [200]
        assert b"connection: close" in driven.pipe.sent
        assert driven.pipe.our_side_closed

    asyncio.run(scenario())


@pytest.mark.parametrize("target", [b"x:1", b"/v1/posts"])
def test_a_tunnel_is_refused_and_nothing_behind_it_is_a_request(target: bytes) -> None:
    raw = b"CONNECT " + target + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc" + PLAIN

    async def scenario() -> None:
        for segments in ([raw], pieces(raw, 1)):
            driven = await Driven(reading).send(*segments)
            assert [status for status, _ in driven.answers()] == [400]
            assert driven.pipe.our_side_closed

    asyncio.run(scenario())
