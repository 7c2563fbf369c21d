"""The window of doorbells: at most two unanswered, patience that doubles, any answer resets it."""

import asyncio
import contextvars

import pytest

from api.http.shares import Active
from api.submission import doorbell
from api.submission.doorbell import Doorbell, Window
from shared.broker import queue
from shared.broker.doorbells import Outcome


def may_ring(window: Window, now: float, *, awaited: bool = True) -> bool:
    window.forget_unanswered(now)
    return window.may_ring(awaited=awaited)


def test_two_bells_may_be_out_and_a_third_waits_for_an_answer() -> None:
    window = Window()
    for bell in (1, 2):
        assert may_ring(window, 0.0)
        window.rung(bell, 0.0)
    assert not may_ring(window, 0.1)
    window.answered(1)
    assert may_ring(window, 0.1)


def test_edits_that_nobody_waits_for_ring_at_once_and_gather_while_one_bell_is_out() -> None:
    window = Window()
    assert may_ring(window, 0.0, awaited=False)
    window.rung(1, 0.0)
    assert not may_ring(window, 0.1, awaited=False)
    assert may_ring(window, 0.1, awaited=True)
    assert may_ring(window, 0.25, awaited=False)


def test_a_bell_counts_for_250_ms_and_each_unanswered_one_doubles_that_to_five_seconds() -> None:
    window, now, patience = Window(), 0.0, []
    for bell in range(20):
        assert may_ring(window, now)
        window.rung(2 * bell, now)
        window.rung(2 * bell + 1, now)
        opens = window.opens_at()
        assert opens is not None
        patience.append(opens - now)
        assert not may_ring(window, opens - 0.001)
        now = opens
    assert patience[:3] == pytest.approx([0.25, 1.0, 4.0])
    assert max(patience) == pytest.approx(5.0)
    may_ring(window, now)
    window.answered(0)
    window.rung(99, now)
    assert window.opens_at() == pytest.approx(now + 0.25)


class Rung:
    """What was rung: posts, and where the answer goes. A worker that says nothing."""

    def __init__(self, outcome: Outcome = "sent") -> None:
        self.bells: list[tuple[list[str], str | None]] = []
        self.outcome = outcome
        self._one_more = asyncio.Condition()

    async def ring_out(self, post_ids: list[str], reply_to: str | None) -> Outcome:
        async with self._one_more:
            self.bells.append((post_ids, reply_to))
            self._one_more.notify_all()
        return self.outcome

    async def reach(self, count: int) -> None:
        async with asyncio.timeout(5), self._one_more:
            await self._one_more.wait_for(lambda: len(self.bells) >= count)


def several() -> Active:
    """Two workspaces that asked just now."""
    active, now = Active(60.0), asyncio.get_running_loop().time()
    active.seen("flood", now)
    active.seen("quiet", now)
    return active


def test_one_edit_rings_at_once_and_what_comes_meanwhile_forms_a_batch() -> None:
    async def scenario() -> None:
        rung = Rung()
        bell = Doorbell("me", rung.ring_out)
        bell.ring_for([("a", "e1")])
        bell.ring_for([("b", "e2")])
        for number in range(600):
            bell.ring_for([(f"p{number}", f"x{number}")])
        await rung.reach(2)
        assert [len(posts) for posts, _ in rung.bells] == [1, 1]
        assert rung.bells[0] == (["a"], "me#1")
        assert bell.answered(1) == {"e1"}
        await rung.reach(3)
        assert [len(posts) for posts, _ in rung.bells] == [1, 1, queue.DOORBELL_POSTS]
        for number in range(1200):
            bell.ring_for([(f"q{number}", f"y{number}")])
        await bell.close()
        left = [(len(posts), reply_to) for posts, reply_to in rung.bells[3:]]
        assert left == [(500, None), (500, None), (300, None)], "at most as many as a doorbell names"

    asyncio.run(scenario())


def test_one_edit_that_somebody_waits_for_takes_those_along_that_nobody_waits_for() -> None:
    async def scenario() -> None:
        rung = Rung()
        bell = Doorbell("me", rung.ring_out)
        for post in "abc":
            bell.ring_for([(post, f"e{post}")], awaited=False)
        bell.ring_for([("d", "ed")])
        bell.ring_for([("e", "ee")], awaited=False)
        await rung.reach(2)
        assert [posts for posts, _ in rung.bells] == [["a"], ["b", "c", "d"]]
        bell.answered(1)
        assert [posts for posts, _ in rung.bells] == [["a"], ["b", "c", "d"]]
        bell.answered(2)
        await rung.reach(3)
        assert rung.bells[2] == (["e"], "me#3")
        await bell.close()

    asyncio.run(scenario())


def test_an_end_seen_another_way_frees_the_window() -> None:
    async def scenario() -> None:
        rung = Rung()
        bell = Doorbell("me", rung.ring_out)
        bell.ring_for([("a", "e1")])
        bell.ring_for([("b", "e2")])
        bell.ring_for([("c", "e3")])
        await rung.reach(2)
        assert len(rung.bells) == 2
        bell.finalized(["e2"])
        await rung.reach(3)
        assert [posts for posts, _ in rung.bells] == [["a"], ["b"], ["c"]]
        await bell.close()

    asyncio.run(scenario())


def test_a_bell_that_will_say_more_holds_nobody_up_and_is_still_asked_for_what_it_has_not_named() -> None:
    async def scenario() -> None:
        rung = Rung()
        bell = Doorbell("me", rung.ring_out)
        for post in "abcd":
            bell.ring_for([(post, f"e{post}")])
        await rung.reach(2)
        assert bell.answered(1, more=True) == set()
        await rung.reach(3)
        assert [posts for posts, _ in rung.bells] == [["a"], ["b"], ["c", "d"]]
        assert bell.answered(1) == {"ea"}
        await bell.close()

    asyncio.run(scenario())


def test_a_silent_worker_is_rung_again_when_patience_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doorbell, "FIRST_PATIENCE", 0.01)

    async def scenario() -> None:
        rung = Rung()
        bell = Doorbell("me", rung.ring_out)
        for number in range(3):
            bell.ring_for([(f"p{number}", f"e{number}")])
        await rung.reach(3)
        assert [posts for posts, _ in rung.bells] == [["p0"], ["p1"], ["p2"]]
        await bell.close()

    asyncio.run(scenario())


def test_a_bell_takes_along_nothing_of_the_request_that_set_it_off() -> None:
    said: contextvars.ContextVar[str] = contextvars.ContextVar("said", default="nothing")

    async def scenario() -> None:
        heard: list[str] = []

        async def ring_out(_: list[str], __: str | None) -> Outcome:
            heard.append(said.get())
            return "sent"

        bell = Doorbell("me", ring_out)
        said.set("a request's trace")
        bell.ring_for([("a", "e1")])
        await bell.close()
        assert heard == ["nothing"]

    asyncio.run(scenario())


def test_whoever_closes_waits_for_the_bells_that_are_on_their_way() -> None:
    async def scenario() -> None:
        closes, let_go, went = asyncio.Event(), asyncio.Event(), []

        async def ring_out(post_ids: list[str], _: str | None) -> Outcome:
            await let_go.wait()
            went.append(post_ids)
            return "sent"

        async def close() -> None:
            closes.set()
            await bell.close()

        bell = Doorbell("me", ring_out)
        bell.ring_for([("a", "e1")])
        closing = asyncio.create_task(close())
        await closes.wait()
        assert not closing.done()
        let_go.set()
        await closing
        assert went == [["a"]]

    asyncio.run(scenario())


def test_a_bell_behind_a_more_patient_one_is_given_up_in_its_own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doorbell, "FIRST_PATIENCE", 0.02)
    monkeypatch.setattr(doorbell, "LONGEST_PATIENCE", 60)

    async def scenario() -> None:
        rung = Rung()
        bell = Doorbell("me", rung.ring_out)
        bell._window._silent = 20
        for post in "abc":
            bell.ring_for([(post, f"e{post}")])
        bell.answered(1)
        bell.ring_for([("d", "ed")])
        await rung.reach(4)
        assert [posts for posts, _ in rung.bells] == [["a"], ["b"], ["c"], ["d"]]
        await bell.close()

    asyncio.run(scenario())


def test_what_a_silent_worker_leaves_unrung_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doorbell, "UNRUNG_AT_MOST", 4)

    async def scenario() -> None:
        rung = Rung()
        bell = Doorbell("me", rung.ring_out)
        for number in range(10):
            bell.ring_for([(f"p{number}", f"e{number}")])
        bell.answered(1)
        await rung.reach(3)
        assert [posts for posts, _ in rung.bells] == [["p0"], ["p1"], ["p2", "p3", "p4"]]
        bell.ring_for([("later", "e")])
        bell.answered(2)
        await rung.reach(4)
        assert rung.bells[3][0] == ["later"]
        await bell.close()

    asyncio.run(scenario())


def test_workspaces_ring_in_turn_and_a_flood_of_one_leaves_no_others_edit_to_rescue(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(doorbell, "UNRUNG_AT_MOST", 400)

    async def scenario() -> None:
        rung = Rung()
        bell = Doorbell("me", rung.ring_out)
        bell.ring_for([("first", "e")])
        bell.ring_for([("second", "e")])
        flood = [f"p{number}" for number in range(1000)]
        bell.ring_for([(post, f"e{post}") for post in flood], owners=dict.fromkeys(flood, "flood"))
        bell.ring_for([("quiet1", "e1"), ("quiet2", "e2")], owners={"quiet1": "quiet", "quiet2": "quiet"})
        bell.answered(1)
        await rung.reach(3)
        assert rung.bells[2][0][:5] == ["p0", "quiet1", "p1", "quiet2", "p2"]
        assert len(rung.bells[2][0]) == doorbell.SEVERAL_AT_MOST
        bell.answered(2)
        await rung.reach(4)
        assert len(rung.bells[3][0]) == 300 - (doorbell.SEVERAL_AT_MOST - 2), "the flood's own share, and no more"
        await bell.close()

    asyncio.run(scenario())


def test_while_several_workspaces_are_there_each_has_one_bell_out_and_the_other_bell_is_the_others() -> None:
    async def scenario() -> None:
        rung = Rung()
        bell = Doorbell("me", rung.ring_out, several())
        for post in "abcd":
            bell.ring_for([(post, f"e{post}")], owners={post: "flood"})
        bell.ring_for([("quiet", "e")], owners={"quiet": "quiet"})
        await rung.reach(2)
        assert [posts for posts, _ in rung.bells] == [["a"], ["quiet"]]
        bell.answered(2)
        await asyncio.sleep(0)
        assert len(rung.bells) == 2, "the flood's own is out still"
        bell.answered(1)
        await rung.reach(3)
        assert rung.bells[2][0] == ["b", "c", "d"]
        await bell.close()

    asyncio.run(scenario())


def test_a_workspace_whose_bell_stays_unanswered_rings_again_when_that_counts_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(doorbell, "FIRST_PATIENCE", 0.02)

    async def scenario() -> None:
        rung = Rung()
        bell = Doorbell("me", rung.ring_out, several())
        bell.ring_for([("a", "e")], owners={"a": "flood"})
        bell.ring_for([("b", "e")], owners={"b": "flood"})
        await rung.reach(2)
        assert [posts for posts, _ in rung.bells] == [["a"], ["b"]]
        await bell.close()

    asyncio.run(scenario())


def test_a_bell_left_to_a_worker_that_says_nothing_is_rung_once_more_and_wakes_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The worker that was awake is busy, frozen or dead, and no later bell comes."""
    monkeypatch.setattr(doorbell, "FIRST_PATIENCE", 0.02)

    async def scenario() -> None:
        rung = Rung("listed")
        bell = Doorbell("me", rung.ring_out)
        bell.ring_for([("a", "e1"), ("b", "e2")])
        await rung.reach(2)
        assert rung.bells == [(["a", "b"], "me#1")] * 2
        assert bell.answered(1) == {"e1", "e2"}
        # The next one is rung twice before the first one would have been rung for the third time.
        bell.ring_for([("c", "e3")])
        await rung.reach(4)
        assert [posts for posts, _ in rung.bells] == [["a", "b"], ["a", "b"], ["c"], ["c"]]

    asyncio.run(scenario())


@pytest.mark.parametrize("why", ["its answer", "its first answer", "a look-up", "a message"])
def test_a_bell_is_not_rung_again_where_its_results_are_known_or_a_message_went_out(
    monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    monkeypatch.setattr(doorbell, "FIRST_PATIENCE", 0.02)

    async def scenario() -> None:
        rung = Rung("sent" if why == "a message" else "listed")
        bell = Doorbell("me", rung.ring_out)
        bell.ring_for([("a", "e1")])
        await rung.reach(1)
        if why == "a look-up":
            bell.finalized(["e1"])
        elif why != "a message":
            bell.answered(1, more=why == "its first answer")
        rung.outcome = "listed"
        bell.ring_for([("b", "e2")])
        await rung.reach(3)
        assert [posts for posts, _ in rung.bells] == [["a"], ["b"], ["b"]]

    asyncio.run(scenario())
