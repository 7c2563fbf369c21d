"""How the requests of several workspaces share one process's way into the database."""

import asyncio
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from api.submission import submission
from api.submission.recording import Recorded, Request, Verdict
from api.submission.submission import Submission
from shared.domain import errors
from shared.domain.errors import RedraftError
from shared.settings import settings
from shared.store.edits import NewEdit
from tests.waiting import until

NOW = datetime(2030, 1, 1, tzinfo=UTC)


class Database:
    """Records what is written, batch by batch, when it is let."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.go_on = threading.Semaphore(0)

    def __call__(self, batch: Sequence[Request]) -> list[Verdict]:
        self.batches.append([request.new.id for request in batch])
        assert self.go_on.acquire(timeout=20)
        return [Recorded(request.new.id, NOW) for request in batch]

    @property
    def recorded(self) -> set[str]:
        return {name for batch in self.batches for name in batch}


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> Database:
    found = Database()

    async def rung(*_: object) -> None:
        pass

    monkeypatch.setattr(submission, "record_batch", found)
    monkeypatch.setattr(Submission, "_ring_out", rung)
    monkeypatch.setattr(submission, "GATHER", 0.0)
    # Nobody listens there, and nothing is to be sent.
    monkeypatch.setenv("REDRAFT_REDIS_URL", "redis://127.0.0.1:1/0")
    settings.cache_clear()
    return found


def run_scenario(scenario: Callable[[Submission], Awaitable[Any]], **given: Any) -> None:
    async def run() -> None:
        ours = Submission(settings().model_copy(update={"database_patience": 20.0} | given))
        try:
            await scenario(ours)
        finally:
            await ours.close()

    asyncio.run(run())


def asked(
    ours: Submission, workspace: str, number: int, *, awaited: bool = True, **changes: Any
) -> asyncio.Future[Verdict]:
    new = NewEdit(f"{workspace}{number}", f"post_{workspace}", workspace, changes, None, "key", "tests", "req")
    return ours.record(new, None, None, awaited=awaited)


async def patched(ours: Submission, workspace: str, number: int) -> None:
    """A PATCH that waits for its result."""
    verdict = await asked(ours, workspace, number)
    assert isinstance(verdict, Recorded)
    await ours.waiting.wait(verdict.edit_id, 20, workspace)


def test_a_batch_takes_from_all_workspaces_in_turn_and_keeps_the_order_of_each(database: Database) -> None:
    async def scenario(ours: Submission) -> None:
        first = asked(ours, "flood", 0, awaited=False)
        await until(lambda: len(database.batches) == 1)
        others = [asked(ours, "flood", number, awaited=False) for number in range(1, 200)]
        others += [asked(ours, "quiet", number, awaited=False) for number in range(2)]
        database.go_on.release()
        await first
        await until(lambda: len(database.batches) == 2)
        assert database.batches[1][:5] == ["flood1", "quiet0", "flood2", "quiet1", "flood3"]
        assert len(database.batches[1]) <= submission.OF_ONE + 2, "small, while others are there"
        database.go_on.release(100)
        assert all(isinstance(verdict, Recorded) for verdict in await asyncio.gather(*others))
        flood = [name for batch in database.batches for name in batch if name.startswith("flood")]
        assert flood == [f"flood{number}" for number in range(200)]

    run_scenario(scenario)


def test_a_workspace_alone_fills_batches_as_large_as_they_get(database: Database) -> None:
    async def scenario(ours: Submission) -> None:
        first = asked(ours, "flood", 0, awaited=False)
        await until(lambda: len(database.batches) == 1)
        others = [asked(ours, "flood", number, awaited=False) for number in range(1, 300)]
        database.go_on.release(100)
        await asyncio.gather(first, *others)
        assert [len(batch) for batch in database.batches] == [1, submission.BATCH, 299 - submission.BATCH]

    run_scenario(scenario)


def test_a_batch_is_bounded_by_what_its_edits_bring(database: Database) -> None:
    urls = ["https://cdn.example.com/" + "x" * 2000] * 35

    async def scenario(ours: Submission) -> None:
        first = asked(ours, "flood", 0, awaited=False)
        await until(lambda: len(database.batches) == 1)
        others = [asked(ours, "flood", number, awaited=False, contentUrl=urls) for number in range(1, 100)]
        database.go_on.release(100)
        await asyncio.gather(first, *others)
        most = submission.BATCH_LETTERS // 70_000 + 1
        assert [len(batch) <= most for batch in database.batches] == [True] * 5

    run_scenario(scenario)


def test_beside_another_workspace_a_flood_has_a_bounded_number_of_edits_under_way(database: Database) -> None:
    database.go_on.release(1000)

    async def scenario(ours: Submission) -> None:
        quiet = asyncio.create_task(patched(ours, "quiet", 0))
        flood = [asyncio.create_task(patched(ours, "flood", number)) for number in range(200)]
        most = submission.OF_ONE + 1
        await until(lambda: len(database.recorded) >= most)
        second = asyncio.create_task(patched(ours, "quiet", 1))
        await until(lambda: "quiet1" in database.recorded)
        assert len(database.recorded) == most + 1, "the flood waits in its line, and the other's edit does not"
        end: Any = object()
        ours.waiting.resolve({"flood0": end, "flood1": end})
        await until(lambda: {f"flood{number}" for number in range(submission.OF_ONE + 2)} <= database.recorded)
        while not all(one.done() for one in flood):
            ours.waiting.resolve(dict.fromkeys(database.recorded, end))
            await asyncio.sleep(0)
        await asyncio.gather(quiet, second, *flood)

    run_scenario(scenario)


def test_each_of_several_floods_has_as_many_edits_under_way_as_one(database: Database) -> None:
    database.go_on.release(1000)

    async def scenario(ours: Submission) -> None:
        floods = [asyncio.create_task(patched(ours, one, number)) for number in range(100) for one in ("a", "b", "c")]
        await until(lambda: len(database.recorded) >= 3 * submission.OF_ONE)
        assert Counter(name[0] for name in database.recorded) == dict.fromkeys("abc", submission.OF_ONE)
        end: Any = object()
        while not all(one.done() for one in floods):
            ours.waiting.resolve(dict.fromkeys(database.recorded, end))
            await asyncio.sleep(0)
        await asyncio.gather(*floods)

    run_scenario(scenario)


def test_over_its_share_of_what_is_not_recorded_yet_a_workspace_gets_503_and_another_does_not(
    database: Database,
) -> None:
    async def scenario(ours: Submission) -> None:
        flood = [asked(ours, "flood", number) for number in range(20)]
        quiet = [asked(ours, "quiet", number) for number in range(2)]
        await asyncio.gather(*flood[15:])
        refused: list[RedraftError] = [error for one in flood[15:] if isinstance(error := one.result(), RedraftError)]
        assert [type(error) for error in refused] == [errors.Unavailable] * 5
        assert not any(one.done() for one in (*flood[:15], *quiet))
        assert len(ours) == 17
        database.go_on.release(100)
        assert all(isinstance(verdict, Recorded) for verdict in await asyncio.gather(*flood[:15], *quiet))
        assert len(ours) == 0
        assert isinstance(await asked(ours, "flood", 99), Recorded), "the places are given back"

    run_scenario(scenario, pending_max=20)


def test_refusals_of_a_flood_are_held_back_and_the_first_ones_are_not(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submission, "HELD_BACK_AT_MOST", 60.0)
    monkeypatch.setattr(submission, "REFUSALS_A_SECOND", 10)

    async def scenario(ours: Submission) -> None:
        asked(ours, "flood", 0)
        refused = [asked(ours, "flood", number) for number in range(1, 200)]
        await asyncio.wait(refused[:10])
        assert sum(one.done() for one in refused) < 100
        database.go_on.release()

    run_scenario(scenario, pending_max=2)


def test_waiters_are_shared_too(database: Database) -> None:
    async def scenario(ours: Submission) -> None:
        waiting = ours.waiting
        flood = [waiting.wait(f"e{number}", 20, "flood") for number in range(15)]
        assert not waiting.admits("flood")
        assert waiting.admits("quiet")
        end: Any = object()
        waiting.resolve({"e0": end})
        assert await flood[0] is end
        assert waiting.admits("flood")
        assert (len(waiting), waiting.under_way_of("flood")) == (14, 14)

    run_scenario(scenario, waiters_max=20)
