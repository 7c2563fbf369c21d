"""Looking keys up: a flood of secrets that are nobody's delays no key that is in use, nor does writing its last use."""

import asyncio
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from api.http import authentication
from api.http.authentication import ASKED_AT_ONCE, KeyRing
from shared.store import keys as keys_store
from shared.store.keys import Found, Key
from tests.waiting import eventually

GOOD = Found(Key("key_a", "ws", "a", frozenset(), None))


class Table:
    """The keys that there are, and what was asked for, query by query, each of which waits until it is let."""

    def __init__(self) -> None:
        self.queries: list[list[bytes]] = []
        self.go_on = threading.Semaphore(0)

    def __call__(self, digests: list[bytes]) -> dict[bytes, Found]:
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


class Uses:
    """What is written of last uses, write by write, each of which waits until it is let."""

    def __init__(self) -> None:
        self.writes: list[list[str]] = []
        self.go_on = threading.Semaphore(0)

    def __call__(self, key_ids: list[str]) -> None:
        self.writes.append(key_ids)
        assert self.go_on.acquire(timeout=20)


def each_its_own(digests: list[bytes]) -> dict[bytes, Found]:
    """Every secret is a key, whose use is old."""
    return {one: Found(Key(f"key_{one.hex()}", "ws", "a", frozenset(), None), use_is_old=True) for one in digests}


async def until(true: Callable[[], object]) -> None:
    await asyncio.get_running_loop().run_in_executor(None, lambda: eventually(true, within=20, every=0.005))


def test_no_request_waits_for_a_use_to_be_written_and_those_of_meanwhile_are_written_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    uses = Uses()
    monkeypatch.setattr(authentication, "_find", each_its_own)
    monkeypatch.setattr(authentication, "_write", uses)
    monkeypatch.setattr(authentication, "USES_GATHER", 0.0)
    monkeypatch.setattr(authentication, "FRESH", 0.0)

    async def scenario() -> None:
        ring = KeyRing()
        first = await ring.find("first", 20)
        assert first is not None
        await until(lambda: uses.writes == [[first.key.id]])
        rest = [await ring.find(secret, 20) for secret in ("second", "third", "second", "first")]
        assert uses.writes == [[first.key.id]], "one write at a time, and requests go on"
        uses.go_on.release(10)
        await until(lambda: len(uses.writes) > 1)
        assert uses.writes[1] == [one.key.id for one in rest[:2] if one]
        ring.close()

    asyncio.run(scenario())


def test_a_use_that_cannot_be_written_fails_no_request_and_is_tried_again_after_a_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    writes: list[list[str]] = []

    def fails(key_ids: list[str]) -> None:
        writes.append(key_ids)
        raise OSError

    monkeypatch.setattr(authentication, "_find", each_its_own)
    monkeypatch.setattr(authentication, "_write", fails)
    monkeypatch.setattr(authentication, "USES_GATHER", 60.0)
    monkeypatch.setattr(authentication, "USES_REST", 0.05)
    monkeypatch.setattr(authentication, "FRESH", 0.0)

    async def scenario() -> None:
        ring = KeyRing()
        while len(writes) < 3:
            assert await ring.find("good", 20) is not None
        ring.close()

    asyncio.run(asyncio.wait_for(scenario(), 20))


def test_an_expired_key_is_remembered_as_such_and_one_about_to_expire_only_until_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = datetime.now(UTC)
    left = {"ends": 30.0, "over": -1.0, "lives": 3600.0}
    asked: list[str] = []
    names = {keys_store.hash_of(name): name for name in left}

    def find(digests: list[bytes]) -> dict[bytes, Found]:
        asked.extend(names[one] for one in digests)
        return {one: Found(GOOD.key, now, left[names[one]]) for one in digests}

    monkeypatch.setattr(authentication, "_find", find)
    monkeypatch.setattr(authentication, "FRESH", 60.0)

    async def scenario() -> None:
        ring = KeyRing()
        for name, seconds in left.items():
            for _ in range(2):
                one = await ring.find(name, 20)
                assert (one and one.expired) == (seconds < 0), name
            if name == "ends":
                known, until = ring._good[keys_store.hash_of(name)]
                assert until <= asyncio.get_running_loop().time() + seconds
                left[name] = 0.0
                ring._good[keys_store.hash_of(name)] = known, 0.0
                one = await ring.find(name, 20)
                assert one is not None
                assert one.expired
        assert asked == ["ends", "ends", "over", "lives"]
        ring.close()

    asyncio.run(scenario())
