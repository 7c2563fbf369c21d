"""The operators' door by itself: what is kept during a wait, tokens, origins."""

import asyncio
import time
from typing import Any

import pytest
from starlette.requests import Request

from api.ops import access
from api.ops.access import Login
from shared.settings import Settings


def test_a_form_that_comes_while_its_sender_waits_is_read_whole_afterwards() -> None:
    async def run() -> None:
        sent = asyncio.Queue[Any]()
        line = access.Line(sent.get)
        for part in (b"seen=1&", b"token=2"):
            sent.put_nowait({"type": "http.request", "body": part, "more_body": part != b"token=2"})
        waiting = asyncio.create_task(line.gone())
        await asyncio.sleep(0)
        assert not waiting.done()
        waiting.cancel()
        assert [(await line.receive())["body"] for _ in range(2)] == [b"seen=1&", b"token=2"]
        sent.put_nowait({"type": "http.disconnect"})
        await asyncio.wait_for(line.gone(), 1)
        assert (await line.receive())["type"] == "http.disconnect"

    asyncio.run(run())


def test_no_more_of_a_body_is_kept_than_a_form_may_hold() -> None:
    async def run() -> None:
        reads = 0

        async def endless() -> Any:
            nonlocal reads
            reads += 1
            return {"type": "http.request", "body": b"x" * 16_384, "more_body": True}

        waiting = asyncio.create_task(access.Line(endless).gone())
        await asyncio.sleep(0)
        waiting.cancel()
        assert reads <= 5

    asyncio.run(run())


BOTH = {"ops_password": "acts ü", "ops_read_password": "looks", "ops_users": " anna, ,ben"}


@pytest.mark.parametrize(
    ("settings", "user", "password", "login"),
    [
        (BOTH, "ops", "acts ü", Login("ops", acts=True)),
        (BOTH, "anna", "acts ü", Login("anna", acts=True)),
        (BOTH, "ben", "looks", Login("ben", acts=False)),
        (BOTH, "carl", "acts ü", None),
        (BOTH, "", "acts ü", None),
        (BOTH, "ops", "", None),
        (BOTH, "ops", "acts", None),
        ({"ops_password": "one", "ops_read_password": "one"}, "ops", "one", Login("ops", acts=True)),
        ({"ops_password": "one"}, "ops", "", None),
        ({"ops_read_password": "one"}, "ops", "one", Login("ops", acts=False)),
        ({"ops_read_password": "one"}, "ops", "", None),
        ({"ops_password": "one", "ops_user": "chief"}, "ops", "one", None),
        ({"ops_password": "one", "ops_user": "chief"}, "chief", "one", Login("chief", acts=True)),
    ],
)
def test_who_is_let_in_and_who_may_act(settings: dict[str, str], user: str, password: str, login: Login | None) -> None:
    assert access.login(Settings(**settings), (user, password)) == login  # type: ignore[arg-type]  # all of them text


def test_a_token_ends_after_half_a_day_and_with_the_password() -> None:
    config, path, now = Settings(ops_password="a"), "/ops/x", time.time()
    token = access.token(config, path, now)
    assert access.token_holds(config, path, token, now + 12 * 3600 - 1)
    assert not access.token_holds(config, path, token, now + 12 * 3600 + 1)
    assert not access.token_holds(config, path, token, now - 3600)
    assert not access.token_holds(Settings(ops_password="b"), path, token, now)
    assert not access.token_holds(config, path, f"{'9' * 400}.x", now)


def test_an_origin_is_held_against_the_host_that_was_asked() -> None:
    def asked(**headers: str) -> bool:
        raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        return access.from_here(Request({"type": "http", "headers": raw}))

    assert asked(origin="https://redraft.example.com", host="redraft.example.com")
    assert not asked(origin="https://redraft.example.com.evil.com", host="redraft.example.com")
    assert not asked(origin="https://redraft.example.com:8443", host="redraft.example.com")
    assert not asked(origin="http://[", host="redraft.example.com")
    assert not asked(host="redraft.example.com")
    assert not asked()
