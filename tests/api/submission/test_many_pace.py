"""While several workspaces are active, requests with many edits of one workspace are recorded one after the other."""

import asyncio

import pytest

from api.submission import waiting
from api.submission.many_pace import ManyPace
from api.submission.waiting import Waiting
from shared.domain.errors import Unavailable
from shared.domain.lifecycle import EditStatus
from shared.domain.queued_edits import EditResult
from tests.waiting import until

MOST = 64


@pytest.fixture(autouse=True)
def _no_database(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "_read_ends", lambda *_: {})


class Paced:
    """A pace of its own. `several`: whether another workspace is active. `begun`: the requests that were recorded."""

    def __init__(self, *, several: bool = True, patience: float = 30.0) -> None:
        self.several = several
        self.waiting = Waiting(8, lambda _: None)
        self.pace = ManyPace(MOST, self.waiting, lambda: self.several, patience)
        self.begun: list[str] = []

    async def sends(self, owner: str, name: str, count: int = 100) -> None:
        async with self.pace.turn(owner, count) as under_way:
            self.begun.append(name)
            under_way += [f"{name}-{number}" for number in range(count)]

    def ends(self, name: str, count: int = 100) -> None:
        ids = [f"{name}-{number}" for number in range(count)]
        self.waiting.resolve({each: EditResult(each, EditStatus.APPLIED, 2) for each in ids})


def test_the_second_request_of_a_workspace_waits_for_the_results_of_the_first_and_anothers_does_not() -> None:
    async def scenario() -> None:
        one = Paced()
        await one.sends("ws_flood", "first")
        second = asyncio.create_task(one.sends("ws_flood", "second"))
        await one.sends("ws_quiet", "other")
        assert one.begun == ["first", "other"]
        one.ends("first", 99)
        one.ends("other")
        await asyncio.sleep(0)
        assert not second.done()
        one.ends("first")
        await second
        assert one.begun == ["first", "other", "second"]
        assert len(one.waiting) == 0, "none of it is a request that waits"
        await one.waiting.close()

    asyncio.run(scenario())


def test_requests_at_once_do_not_pass_together() -> None:
    async def scenario() -> None:
        one = Paced()
        gate = asyncio.Event()

        async def slow(name: str) -> None:
            async with one.pace.turn("ws", 100):
                one.begun.append(name)
                await gate.wait()

        tasks = [asyncio.create_task(slow(str(number))) for number in range(5)]
        await until(lambda: bool(one.begun))
        assert len(one.begun) == 1
        # It recorded nothing: its places come back at once.
        gate.set()
        await asyncio.gather(*tasks)
        assert len(one.begun) == 5
        assert one.pace._under_way.of("ws") == 0
        await one.waiting.close()

    asyncio.run(scenario())


def test_small_requests_go_on_up_to_the_limit_and_a_request_that_failed_gives_its_places_back() -> None:
    async def scenario() -> None:
        one = Paced()
        for number in range(6):
            await one.sends("ws", f"{number}", 10)
        with pytest.raises(RuntimeError):
            async with one.pace.turn("ws", 500):
                raise RuntimeError
        assert one.pace._under_way.of("ws") == 60
        await one.waiting.close()
        await asyncio.sleep(0)
        assert one.pace._under_way.of("ws") == 0

    asyncio.run(scenario())


def test_an_edit_whose_post_is_locked_holds_the_next_request_up_for_a_second_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("api.submission.many_pace.SLOW", 0.05)

    async def scenario() -> None:
        one = Paced()
        await one.sends("ws", "locked")
        await asyncio.wait_for(one.sends("ws", "next"), 20)
        await one.waiting.close()

    asyncio.run(scenario())


def test_alone_nobody_waits_and_patience_has_an_end() -> None:
    async def scenario() -> None:
        one = Paced(several=False)
        for number in range(5):
            await one.sends("ws", f"{number}", 1_000)
        impatient = Paced(patience=0.01)
        await impatient.sends("ws", "first")
        with pytest.raises(Unavailable):
            await impatient.sends("ws", "second")
        waits = Paced()
        await waits.sends("ws", "first")
        second = asyncio.create_task(waits.sends("ws", "second"))
        await asyncio.sleep(0)
        assert not second.done()
        waits.several = False
        await second
        for each in (one, impatient, waits):
            await each.waiting.close()

    asyncio.run(scenario())
