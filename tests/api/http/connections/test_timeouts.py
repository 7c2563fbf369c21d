"""No state of a connection lasts without end, whatever the peer sends, leaves out or does not read."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from uvicorn.server import ServerState

from api.http import timeouts
from api.http.connection_bounds import FRAMING_LIMIT, HEAD_LIMIT, LINGER_LIMIT, READ_AHEAD
from api.http.timeouts import ReadProgress, State, overdue, watch_of
from shared.store.reads import PAGE_BYTES
from tests.api.http.connections.driven import HIGH_WATER, App, Driven, hasty, passes, reading, run

GET = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"
BODY = b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n"
CLOSING = b"GET /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
LARGE = 300_000
# The look at all connections comes once a second.
LATE = timeouts.EVERY + 1


@pytest.mark.parametrize("state", State)
def test_each_state_has_a_limit(state: State) -> None:
    limit = timeouts.LIMITS[state]
    assert (overdue(state, limit - 0.1), overdue(state, limit)) == (False, True)
    shortened = state in (State.IDLE, State.HEAD)
    assert overdue(state, timeouts.IMPATIENT, crowded=True) == shortened or limit <= timeouts.IMPATIENT


def test_a_peer_that_takes_too_little_stands() -> None:
    reader = ReadProgress()
    assert reader.stalled_for(0, 0, 10.0) is None
    assert reader.stalled_for(0, 100_000, 20.0) == 0
    assert reader.stalled_for(1, 99_999, 21.0) == 1
    assert reader.stalled_for(timeouts.PROGRESS - 1, 1, 30.0) == 10
    assert reader.stalled_for(timeouts.PROGRESS, 1, 31.0) == 0
    assert reader.stalled_for(timeouts.PROGRESS + 1, 1, 40.0) == 9
    assert reader.stalled_for(timeouts.PROGRESS + 2, 0, 41.0) is None
    assert reader.stalled_for(timeouts.PROGRESS + 2, 5, 50.0) == 0


async def never(scope: Any, receive: Any, send: Any) -> None:
    """An app that waits for its client to go away."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def large(scope: Any, receive: Any, send: Any) -> None:
    """An app whose answer takes a peer that reads it."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % LARGE)]})
    await send({"type": "http.response.body", "body": b"a" * LARGE})


async def streamed(scope: Any, receive: Any, send: Any) -> None:
    """An answer in pieces, one a minute."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for _ in range(10):
        await asyncio.sleep(60)
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
    await send({"type": "http.response.body", "body": b""})


def drip(driven: Driven, byte: bytes = b"a") -> None:
    if not driven.pipe.closed and not driven.pipe.our_side_closed:
        driven.protocol.data_received(byte)


@pytest.mark.parametrize(
    ("app", "sent", "each_second", "state", "said"),
    [
        pytest.param(reading, b"", b"", State.IDLE, [], id="nothing"),
        pytest.param(reading, GET, b"", State.IDLE, [200], id="nothing more"),
        pytest.param(reading, GET, b"\r\n", State.IDLE, [200], id="line ends after an answer"),
        pytest.param(reading, b"\r\n", b"\r\n", State.IDLE, [], id="line ends before a request"),
        pytest.param(reading, b"GET /", b"", State.HEAD, [400], id="half a head"),
        pytest.param(reading, b"GET /", b"a", State.HEAD, [400], id="a byte a second of a head"),
        pytest.param(reading, GET + b"GET /", b"a", State.HEAD, [200, 400], id="a byte a second of a second head"),
        pytest.param(reading, BODY, b"", State.BODY, [], id="no body"),
        pytest.param(reading, BODY, b"a", State.BODY, [], id="a byte a second of a body"),
        pytest.param(hasty, BODY, b"", State.BODY, [200], id="no body after the answer"),
        pytest.param(hasty, BODY, b"a", State.BODY, [200], id="a byte a second of a body after the answer"),
        pytest.param(never, GET, b"", State.ANSWERING, [], id="no answer"),
        pytest.param(never, GET, b"\r\n", State.ANSWERING, [], id="no answer, and line ends"),
    ],
)
def test_a_connection_ends_when_its_state_has_lasted_for_its_limit(
    app: App, sent: bytes, each_second: bytes, state: State, said: list[int]
) -> None:
    async def scenario() -> None:
        driven = Driven(app)
        await driven.send(*([sent] if sent else []))
        for _ in range(int(timeouts.LIMITS[state]) - 2):
            await passes(1)
            drip(driven, each_second)
        assert (driven.pipe.closed, driven.pipe.our_side_closed) == (False, False)
        await passes(LATE + 1)
        assert driven.pipe.closed or driven.pipe.our_side_closed
        assert [status for status, _ in driven.answers()] == said
        if driven.pipe.our_side_closed:
            await passes(timeouts.LIMITS[State.CLOSING] - LATE)
            assert not driven.pipe.closed, "the peer has time to read the last answer"
        await passes(2 * LATE)
        assert driven.pipe.closed
        assert not driven.state.connections
        assert not driven.state.tasks, "an app still waits for a client that is gone"

    run(scenario())


def test_a_streamed_answer_may_take_its_time() -> None:
    async def scenario() -> None:
        driven = await Driven(streamed).send(GET)
        await passes(10 * 60 + 5)
        assert driven.pipe.sent.endswith(b"0\r\n\r\n")
        assert not driven.pipe.closed

    run(scenario())


@pytest.mark.parametrize("request_", [GET, CLOSING], ids=["kept", "closing"])
@pytest.mark.parametrize("each_second", [0, 1, 500])
def test_an_answer_that_is_not_read_is_not_kept(request_: bytes, each_second: int) -> None:
    """A close that waits until all is read would keep it too."""

    async def scenario() -> None:
        driven = await Driven(large, takes=False).send(request_)
        for _ in range(int(timeouts.LIMITS[State.UNREAD]) - 2):
            await passes(1)
            driven.pipe.take(each_second)
        assert not driven.pipe.closed
        await passes(LATE + 1)
        assert driven.pipe.aborted
        assert not driven.state.connections

    run(scenario())


def test_an_answer_that_is_read_slowly_is_given_whole_and_the_connection_kept_for_the_next() -> None:
    async def scenario() -> None:
        driven = await Driven(large, takes=False).send(GET)
        while driven.pipe.get_write_buffer_size():
            await passes(20)
            driven.pipe.take(timeouts.PROGRESS)
        await passes(timeouts.LIMITS[State.IDLE] - 2)
        assert not driven.pipe.closed
        await passes(LATE + 1)
        assert (driven.pipe.closed, driven.pipe.aborted) == (True, False)

    run(scenario())


def test_one_answer_waits_to_be_read_at_a_time() -> None:
    async def scenario() -> None:
        called = 0

        async def app(scope: Any, receive: Any, send: Any) -> None:
            nonlocal called
            called += 1
            await large(scope, receive, send)

        driven = await Driven(app, takes=False).send(GET * 20, GET, GET)
        assert called == 1
        assert len(driven.pipe.sent) < LARGE + 1000
        for count in range(2, 23):
            driven.pipe.take(10 * LARGE)
            driven.pipe.taken = len(driven.pipe.sent)
            await driven.send(b"\r\n")
            assert called == count

    run(scenario())


def test_requests_behind_an_unanswered_one_are_kept_within_bounds_and_answered_in_their_turn() -> None:
    async def scenario() -> None:
        let = asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await let.wait()
            await reading(scope, receive, send)

        many = GET * 5_000
        driven = await Driven(app).send(many)
        assert not driven.pipe.reads, "the peer is made to wait"
        assert len(driven.protocol.pipeline) < 200
        let.set()
        await passes(0)
        while driven.protocol.pipeline or driven.protocol._unparsed:
            await driven.send(b"")
        assert driven.answers() == [(200, ["GET", "/a", "", ""])] * 5_000
        assert driven.pipe.reads

    run(scenario())


def test_a_peer_that_sends_on_after_its_last_answer_is_cut_off() -> None:
    async def scenario() -> None:
        driven = await Driven(reading).send(b"\x00", *[b"a" * 65_536] * 3)
        assert (driven.pipe.our_side_closed, driven.pipe.closed) == (True, False)
        await driven.send(*[b"a" * 65_536] * 2)
        assert driven.pipe.aborted

    run(scenario())


def test_where_half_of_all_connections_are_taken_those_that_ask_for_nothing_go_early() -> None:
    async def scenario() -> None:
        state = ServerState()
        first = Driven(never, state=state)
        watch_of(state).most = 4
        busy, idle = await first.send(GET), Driven(never, state=state)
        await passes(timeouts.IMPATIENT + LATE)
        assert not idle.pipe.closed
        third = Driven(never, state=state)
        await passes(timeouts.IMPATIENT + LATE)
        assert (busy.pipe.closed, idle.pipe.closed) == (False, True)
        assert not third.pipe.closed, "there is room again"
        more = [Driven(never, state=state) for _ in range(2)]
        assert not any(one.pipe.closed for one in more)
        assert Driven(never, state=state).pipe.aborted, "more than there are files for"

    run(scenario())


def test_unread_answers_of_all_peers_together_are_bounded_and_the_oldest_go_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(timeouts, "BACKLOG_MAX", 2 * LARGE + HIGH_WATER)

    async def scenario() -> None:
        state = ServerState()
        crowd = []
        for _ in range(4):
            crowd.append(await Driven(large, takes=False, state=state).send(GET))
            await passes(2)
        assert [one.pipe.aborted for one in crowd] == [True, True, False, False]

    run(scenario())


def test_the_documentation_names_each_limit() -> None:
    page = (Path(__file__).parents[4] / "docs" / "connections.md").read_text()
    table = [line for line in page.splitlines() if line.startswith("| ")]
    for seconds in {*timeouts.LIMITS.values()}:
        assert any(f"{seconds:.0f} s" in line for line in table), seconds
    for size in (HEAD_LIMIT, READ_AHEAD, LINGER_LIMIT, timeouts.PROGRESS):
        assert any(f"{size // 1024} KiB" in line for line in table), size
    for size in (PAGE_BYTES, timeouts.BACKLOG_MAX):
        assert any(f"{size // 1024**2} MiB" in line for line in table), size
    assert f"{timeouts.IMPATIENT:.0f} s, and so does a head" in page
    assert f"{FRAMING_LIMIT} bytes for each byte of the body" in page
