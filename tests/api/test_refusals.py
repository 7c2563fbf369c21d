"""A flood of requests that are refused is held back before anything is read of it; a few are answered at once."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, text

from api import app
from api.http import limits
from api.http.shares import Pace
from tests import factories

LIMITED = "sk_limited_0123456789"


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, database_url: str, redis_url: str) -> Iterator[Engine]:
    # A busy machine must not be taken for a Redis or a PostgreSQL that is away.
    monkeypatch.setattr(limits, "PATIENCE", 5.0)
    monkeypatch.setenv("REDRAFT_DATABASE_PATIENCE", "20")
    with factories.set_up(monkeypatch, database_url, redis_url) as engine:
        with engine.begin() as tx:
            factories.workspace(tx, "ws_limited", "_limited", LIMITED)
            tx.execute(text("UPDATE api_keys SET rate_limit = 3 WHERE id = 'key_test_limited'"))
        yield engine


@pytest.fixture
def held_back(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """For how long refusals were held back: here they are not."""
    found: list[float] = []
    hold = Pace.hold

    def note(self: Any, owner: str, now: float) -> float:
        found.append(hold(self, owner, now))
        return 0.0

    monkeypatch.setattr(Pace, "hold", note)
    return found


async def unread() -> AsyncIterator[bytes]:
    raise AssertionError("the body of a refused request was read")
    yield b""  # type: ignore[unreachable]  # what makes it a generator


def asked(secret: str, times: int) -> Counter[int]:
    """The statuses of so many PATCHes at once, whose bodies must not be read if they are refused."""

    async def scenario() -> Counter[int]:
        transport = httpx.ASGITransport(app.app)
        headers = {"Authorization": f"Bearer {secret}", "Content-Type": "application/json", "Content-Length": "20"}
        async with (
            app._built.router.lifespan_context(app._built),
            httpx.AsyncClient(transport=transport, base_url="http://test", headers=headers) as http,
        ):
            if secret == LIMITED:
                for _ in range(3):
                    assert (await http.get("/v1/accounts")).status_code == 200
            sent = (http.patch("/v1/posts/post_x", content=unread()) for _ in range(times))
            return Counter(answer.status_code for answer in await asyncio.gather(*sent))

    return asyncio.run(scenario())


@pytest.mark.parametrize(("secret", "status"), [(LIMITED, 429), ("sk_nobodys", 401)])
@pytest.mark.usefixtures("engine")
def test_a_flood_over_the_limit_or_without_a_key_is_held_back_unread(
    held_back: list[float], secret: str, status: int
) -> None:
    assert asked(secret, 400) == {status: 400}
    assert len(held_back) == 400
    assert held_back[:100] == [0.0] * 100
    assert max(held_back) > 0.5, "the fourth hundred, unless this took seconds"


@pytest.mark.usefixtures("engine")
def test_a_few_refusals_are_answered_at_once(held_back: list[float]) -> None:
    assert asked(LIMITED, 20) == {429: 20}
    assert held_back == [0.0] * 20
