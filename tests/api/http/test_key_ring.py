"""Looking keys up: a flood of secrets that are nobody's delays no key that is in use."""

import asyncio
import threading
from typing import Any

import pytest

from api.http import authentication
from api.http.authentication import ASKED_AT_ONCE, KeyRing
from shared.store import keys as keys_store
from shared.store.keys import Key

GOOD = Key("key_a", "ws", "a", frozenset(), None)


class Table:
    """The keys that there are, and what was asked for, query by query, each of which waits until it is let."""

    def __init__(self) -> None:
        self.queries: list[list[bytes]] = []
        self.go_on = threading.Semaphore(0)

    def __call__(self, digests: list[bytes]) -> dict[bytes, Key]:
        self.queries.append(digests)
        assert self.go_on.acquire(timeout=20)
        return {digest: GOOD for digest in digests if digest == keys_store.hash_of("good")}


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Table:
    found = Table()
    monkeypatch.setattr(authentication, "_find", found)
    return found


def test_a_key_in_use_is_looked_up_before_a_flood_of_strangers_secrets(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        ring = KeyRing()
        table.go_on.release()
        assert await ring.find("good", 20) is GOOD
        monkeypatch.setattr(authentication, "FRESH", 0.0)
        table.go_on.release()
        assert await ring.find("good", 20) is GOOD, "remembered for no time, hence asked for again or not"
        asked = len(table.queries)
        strangers = [asyncio.create_task(ring.find(f"stranger{number}", 20)) for number in range(1000)]
        await asyncio.sleep(0)
        ring._good = {digest: (key, 0.0) for digest, (key, _) in ring._good.items()}
        ours = asyncio.create_task(ring.find("good", 20))
        await asyncio.sleep(0)
        table.go_on.release(100)
        assert await ours is GOOD
        assert await asyncio.gather(*strangers) == [None] * 1000
        queries = table.queries[asked:]
        assert keys_store.hash_of("good") in queries[1], "right behind the query that was under way"
        assert max(len(query) for query in queries) == ASKED_AT_ONCE
        ring.close()

    asyncio.run(scenario())


def test_many_who_ask_for_one_key_at_once_are_one_question(table: Table) -> None:
    async def scenario() -> None:
        ring = KeyRing()
        asked = [asyncio.create_task(ring.find("good", 20)) for _ in range(50)]
        table.go_on.release(5)
        found: list[Any] = await asyncio.gather(*asked)
        assert found == [GOOD] * 50
        assert sum(len(query) for query in table.queries) == 1
        ring.close()

    asyncio.run(scenario())
