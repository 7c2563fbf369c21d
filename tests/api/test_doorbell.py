"""The window of doorbells: at most two unanswered, patience that doubles, any answer resets it (SPEC 7)."""

import asyncio

import pytest

from api import doorbell
from api.doorbell import Doorbell, Window
from shared import queue


def test_two_bells_may_be_out_and_a_third_waits_for_an_answer() -> None:
    window = Window()
    for bell in (1, 2):
        assert window.may_ring(0.0)
        window.rung(bell, 0.0)
    assert not window.may_ring(0.1)
    window.answered(1)
    assert window.may_ring(0.1)


def test_a_bell_counts_for_250_ms_and_each_unanswered_one_doubles_that_to_five_seconds() -> None:
    window, now, patience = Window(), 0.0, []
    for bell in range(20):
        assert window.may_ring(now)
        window.rung(2 * bell, now)
        window.rung(2 * bell + 1, now)
        opens = window.opens_at()
        assert opens is not None
        patience.append(opens - now)
        assert not window.may_ring(opens - 0.001)
        now = opens
    assert patience[:3] == pytest.approx([0.25, 1.0, 4.0])
    assert max(patience) == pytest.approx(5.0)
    window.may_ring(now)
    window.answered(0)
    window.rung(99, now)
    assert window.opens_at() == pytest.approx(now + 0.25)


@pytest.fixture
def rung(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], str | None]]:
    sent: list[tuple[list[str], str | None]] = []

    def send(post_ids: list[str], reply_to: str | None = None) -> bool:
        sent.append((post_ids, reply_to))
        return True

    monkeypatch.setattr(queue, "ring_edits", send)
    return sent


async def settled(bell: Doorbell) -> None:
    await asyncio.wrap_future(bell._thread.submit(lambda: None))


def test_one_edit_rings_at_once_and_what_comes_meanwhile_forms_a_batch(
    rung: list[tuple[list[str], str | None]],
) -> None:
    async def story() -> None:
        bell = Doorbell("me")
        bell.ring_for([("a", "e1")])
        bell.ring_for([("b", "e2")])
        for number in range(600):
            bell.ring_for([(f"p{number}", f"x{number}")])
        await settled(bell)
        assert [len(posts) for posts, _ in rung] == [1, 1]
        assert rung[0] == (["a"], "me#1")
        assert bell.answered(1) == {"e1"}
        await settled(bell)
        assert [len(posts) for posts, _ in rung] == [1, 1, queue.DOORBELL_POSTS]
        bell.close()

    asyncio.run(story())


def test_an_end_seen_another_way_frees_the_window(rung: list[tuple[list[str], str | None]]) -> None:
    async def story() -> None:
        bell = Doorbell("me")
        bell.ring_for([("a", "e1")])
        bell.ring_for([("b", "e2")])
        bell.ring_for([("c", "e3")])
        await settled(bell)
        assert len(rung) == 2
        bell.ended(["e2"])
        await settled(bell)
        assert [posts for posts, _ in rung] == [["a"], ["b"], ["c"]]
        bell.close()

    asyncio.run(story())


def test_a_silent_worker_is_rung_again_when_patience_is_over(
    rung: list[tuple[list[str], str | None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doorbell, "FIRST_PATIENCE", 0.01)

    async def story() -> None:
        bell = Doorbell("me")
        for number in range(3):
            bell.ring_for([(f"p{number}", f"e{number}")])
        deadline = asyncio.get_running_loop().time() + 5
        while len(rung) < 3 and asyncio.get_running_loop().time() < deadline:
            await asyncio.to_thread(bell._thread.submit(len, rung).result)
        assert [posts for posts, _ in rung] == [["p0"], ["p1"], ["p2"]]
        bell.close()

    asyncio.run(story())
