"""What is answered when PostgreSQL or Redis is away or slow, and that the answer is true."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import httpx
import psycopg
import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import OperationalError

from api import context as context_room
from api.context import Context, Unsure
from shared.broker import doorbells
from shared.domain.errors import Unavailable
from shared.settings import settings
from shared.store import db
from tests import factories
from tests.api.answers import client, error
from tests.processes import Server
from tests.stack import Running, running
from tests.waiting import eventually, until

VIDEO = {"accountIds": [factories.TIKTOK], "contentUrl": "https://cdn.example.com/a.mp4"}


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, database_url: str, redis_url: str) -> Iterator[Engine]:
    monkeypatch.setenv("REDRAFT_DATABASE_PATIENCE", "0.3")
    with factories.set_up(monkeypatch, database_url, redis_url) as engine:
        yield engine


def run_scenario(scenario: Callable[[Context], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        context = Context(settings())
        context.submission.start()
        try:
            return await scenario(context)
        finally:
            await context.close()

    return asyncio.run(run())


def captions(engine: Engine) -> list[str]:
    with engine.connect() as tx:
        return list(tx.execute(text("SELECT caption FROM posts ORDER BY id")).scalars())


def test_a_write_that_takes_too_long_is_said_not_to_be_done_and_is_not(engine: Engine) -> None:
    finished: list[bool] = []

    def slow(tx: Connection) -> None:
        factories.post(tx, caption="too late")
        tx.execute(text("SELECT pg_sleep(0.8)"))
        finished.append(True)

    async def scenario(context: Context) -> None:
        with pytest.raises(Unavailable, match="nothing was accepted") as raised:
            await context.write(slow, unsure="look")
        assert not isinstance(raised.value, Unsure)
        await until(lambda: bool(finished))
        assert await context.write(lambda tx: factories.post(tx, caption="next"), unsure="look")

    run_scenario(scenario)
    assert captions(engine) == ["next"]


def test_a_commit_that_nobody_answered_is_said_to_be_open(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    transaction = db.transaction

    @contextmanager
    def lose_connection() -> Iterator[Connection]:
        with transaction() as tx:
            yield tx
        raise OperationalError("COMMIT", {}, psycopg.OperationalError("server closed the connection"))

    async def scenario(context: Context) -> None:
        monkeypatch.setattr(context_room, "transaction", lose_connection)
        with pytest.raises(Unsure, match="look there") as raised:
            await context.write(lambda tx: factories.post(tx, caption="there"), unsure="look there")
        assert raised.value.retry_after >= 1

    run_scenario(scenario)
    assert captions(engine) == ["there"]


def test_a_slow_commit_is_open_too(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    transaction = db.transaction

    @contextmanager
    def slow() -> Iterator[Connection]:
        with transaction() as tx:
            yield tx
            tx.execute(text("SELECT pg_sleep(0.8)"))

    async def scenario(context: Context) -> None:
        monkeypatch.setattr(context_room, "transaction", slow)
        with pytest.raises(Unsure):
            await context.write(lambda tx: factories.post(tx, caption="there"), unsure="look")

    run_scenario(scenario)
    eventually(lambda: captions(engine) == ["there"], within=30)


def test_a_connection_lost_before_the_commit_leaves_nothing_and_says_so(engine: Engine) -> None:
    def lose_connection(tx: Connection) -> None:
        factories.post(tx)
        tx.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))

    async def scenario(context: Context) -> None:
        with pytest.raises(Unavailable) as raised:
            await context.write(lose_connection, unsure="look")
        assert not isinstance(raised.value, Unsure)

    run_scenario(scenario)
    assert captions(engine) == []


def test_ringing_is_dropped_rather_than_piled_up(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(context: Context) -> None:
        rung: list[str] = []
        gate = asyncio.Event()
        loop = asyncio.get_running_loop()

        def ring(post_ids: Sequence[str]) -> bool:
            asyncio.run_coroutine_threadsafe(gate.wait(), loop).result(timeout=10)
            rung.extend(post_ids)
            return True

        monkeypatch.setattr(doorbells, "ring", ring)
        for number in range(context_room.RINGS_AT_MOST + 50):
            context.ring(edits=[f"post_{number}"])
        gate.set()
        await until(lambda: not context._ringing)
        assert rung == [f"post_{number}" for number in range(context_room.RINGS_AT_MOST)]
        context.ring(edits=["post_last"])
        await until(lambda: not context._ringing)
        assert rung[-1] == "post_last"

    run_scenario(scenario)


@pytest.fixture
def lonely(own_postgres: Server, own_valkey: Server) -> Iterator[Running]:
    """An API whose PostgreSQL and Redis this test may take away."""
    with running(own_postgres.url, own_valkey.url) as stack:
        yield stack


REQUESTS: dict[str, Callable[[httpx.Client], httpx.Response]] = {
    "list": lambda http: http.get("/v1/posts"),
    "read": lambda http: http.get("/v1/posts/post_abc123"),
    "edits": lambda http: http.get("/v1/edits"),
    "edit": lambda http: http.patch(
        "/v1/posts/post_abc123", json={"caption": "x"}, headers={"Prefer": "respond-async"}
    ),
    "many edits": lambda http: http.post(
        "/v1/edits", json={"edits": [{"postId": "post_abc123", "caption": "x"}]}, headers={"Prefer": "respond-async"}
    ),
    "create": lambda http: http.post("/v1/posts/video", json=VIDEO),
    "delete": lambda http: http.request("DELETE", "/v1/posts", json={"postIds": ["post_nowhere"]}),
}


def test_without_postgresql_everything_is_a_503_within_its_time_and_comes_back(
    lonely: Running, own_postgres: Server
) -> None:
    lonely.post(post_id="post_abc123")
    assert {ask(lonely.http).status_code for ask in REQUESTS.values()} == {200, 201, 202}
    own_postgres.process.kill()
    for name, ask in REQUESTS.items():
        began = time.monotonic()
        answer = ask(lonely.http)
        assert error(answer, 503)["code"] == "unavailable", name
        assert int(answer.headers["retry-after"]) >= 1
        assert time.monotonic() - began < 8, name
    ready = lonely.http.get("/readyz")
    assert (ready.status_code, ready.json()["database"]) == (503, "down")
    assert lonely.http.get("/healthz").status_code == 200
    own_postgres.start()
    eventually(lambda: lonely.http.get("/v1/posts").status_code == 200, within=30)
    assert {ask(lonely.http).status_code for ask in REQUESTS.values()} == {200, 201, 202}


def test_a_postgresql_that_takes_no_writes_is_a_503_for_writers_and_not_ready(
    lonely: Running, own_postgres: Server
) -> None:
    """A demoted primary, or a hosted database whose disk is full: SQLSTATE 25006."""
    lonely.post(post_id="post_abc123")
    writing: dict[str, Callable[[httpx.Client], httpx.Response]] = {
        "edit": REQUESTS["edit"],
        "keyed edit": lambda http: http.patch(
            "/v1/posts/post_abc123", json={"caption": "x"}, headers={"Idempotency-Key": "k", "Prefer": "respond-async"}
        ),
        "many edits": REQUESTS["many edits"],
        "create": REQUESTS["create"],
        "delete": lambda http: http.request("DELETE", "/v1/posts", json={"postIds": ["post_abc123"]}),
        "job": lambda http: http.post("/v1/reschedules", json={"filter": {"all": True}, "shift": "P1D"}),
    }
    with psycopg.connect(own_postgres.url.replace("+psycopg", ""), autocommit=True) as operator:
        operator.execute("ALTER SYSTEM SET default_transaction_read_only = on")
        operator.execute("SELECT pg_reload_conf()")
        eventually(lambda: lonely.http.get("/readyz").status_code == 503, within=30)
        assert lonely.http.get("/readyz").json()["database"] == "read_only"
        for name, ask in writing.items():
            answer = ask(lonely.http)
            said = error(answer, 503)
            assert said["code"] == "unavailable", name
            assert "nothing was accepted" in said["message"], name
            assert int(answer.headers["retry-after"]) >= 1
            assert "edit-id" not in answer.headers, name
        assert lonely.http.get("/v1/posts/post_abc123").status_code == 200, "reading goes on"
        operator.execute("ALTER SYSTEM RESET default_transaction_read_only")
        operator.execute("SELECT pg_reload_conf()")
    eventually(lambda: lonely.http.get("/readyz").status_code == 200, within=30)
    assert {name: ask(lonely.http).status_code for name, ask in writing.items()} == {
        "edit": 202, "keyed edit": 202, "many edits": 202, "create": 201, "delete": 200, "job": 202,
    }  # fmt: skip
    assert "unexpected_error" not in str(lonely.api and lonely.api.output())


@pytest.fixture
def patient(database_url: str, redis_url: str) -> Iterator[Running]:
    """An API that waits for locks longer than its clients wait for it."""
    with running(database_url, redis_url, REDRAFT_LOCK_TIMEOUT="12") as stack:
        yield stack


@contextmanager
def locked(stack: Running, table: str, mode: str) -> Iterator[None]:
    with stack.engine.begin() as person:
        person.execute(text(f"LOCK TABLE {table} IN {mode} MODE"))
        yield


def test_an_edit_in_hand_is_a_503_for_whoever_asks_for_it_and_never_a_404(patient: Running) -> None:
    post = patient.post()
    with patient.engine.begin() as tx:
        factories.workspace(tx, "ws_other", "_other", "sk_test_other")
    with locked(patient, "edits", "SHARE"):
        answer = patient.patch(post, {"caption": "late"})
        said = error(answer, 503)
        edit = answer.headers["edit-id"]
        assert f"ask GET /v1/edits/{edit}" in said["message"]
        assert "404 there means nothing for the next 60 seconds" in said["message"]
        asked = patient.http.get(f"/v1/edits/{edit}")
        assert "is being recorded" in error(asked, 503)["message"]
        assert int(asked.headers["retry-after"]) >= 1
        with client(patient, "sk_test_other") as stranger:
            assert stranger.get(f"/v1/edits/{edit}").status_code == 404
        assert patient.http.get("/v1/edits/edit_nowhere").status_code == 404
    eventually(lambda: patient.http.get(f"/v1/edits/{edit}").status_code == 200, within=30)


def test_what_was_said_to_be_open_is_not_begun_any_more(patient: Running) -> None:
    """Or the time for which a 404 means nothing would have no end."""
    post = patient.post()
    with locked(patient, "posts", "ACCESS EXCLUSIVE"):
        edit = patient.patch(post, {"caption": "late"}, **{"Idempotency-Key": "late"}).headers["edit-id"]
        assert patient.http.get(f"/v1/edits/{edit}").status_code == 503
    eventually(lambda: patient.http.get(f"/v1/edits/{edit}").status_code == 404, within=30)
    assert patient.edits_of(post) == []
    repeated = patient.patch(post, {"caption": "late"}, **{"Idempotency-Key": "late", "Prefer": "respond-async"})
    assert (repeated.status_code, "idempotent-replayed" in repeated.headers) == (202, False)


@pytest.mark.parametrize("how", ["freeze", "kill"])
def test_without_redis_posts_are_created_deleted_and_limited_all_the_same(
    lonely: Running, own_valkey: Server, how: str
) -> None:
    with lonely.engine.begin() as tx:
        tx.execute(text("UPDATE api_keys SET rate_limit = 1000"))
    getattr(own_valkey.process, how)()
    try:
        made = []
        for _ in range(5):
            began = time.monotonic()
            answer = lonely.http.post("/v1/posts/video", json=VIDEO)
            assert answer.status_code == 201, answer.text
            assert answer.headers["ratelimit"].startswith('"default";r=9')
            # Nothing of it waits for Redis but the limiter, and that 50 ms once in 5 s.
            assert time.monotonic() - began < 2
            made.append(answer.json()["posts"][0]["postId"])
        edits = {"edits": [{"postId": post, "caption": "x"} for post in made]}
        many = lonely.http.post("/v1/edits", json=edits, headers={"Prefer": "wait=1"})
        assert (many.status_code, {fate["status"] for fate in many.json()["data"]}) == (202, {"queued"})
        gone = lonely.http.request("DELETE", "/v1/posts", json={"postIds": made}).json()
        assert gone["deleted"] == made
        assert lonely.http.get("/readyz").json() == {"database": "up", "redis": "down"}
    finally:
        if how == "freeze":
            own_valkey.process.thaw()
