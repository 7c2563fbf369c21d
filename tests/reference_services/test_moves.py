"""The moves of both publishers: repeatable by their seed, and true to what docs/services.md lets a publisher say."""

import asyncio
import json
import random
import socket
from collections import Counter
from pathlib import Path

from shared.domain import service_answers
from shared.domain.service_answers import NOT_SENT, Outcome
from tests.processes import Processes
from tests.reference_services.client import SECRET, Reference
from tests.reference_services.moves import Move, play, tame
from tests.reference_services.opponent import HOST, Opponent
from tests.reference_services.under_test import Publisher


def outcome(move: Move) -> Outcome:
    if move.status is None:
        return Outcome.DONE
    return service_answers.read("publish", move.status, move.said.encode()).outcome


def game(seed: int, calls: int = 3000) -> list[Move]:
    return [play(random.Random(f"{seed}/post/{number}"), 1.0) for number in range(calls)]


def test_the_same_seed_plays_the_same_game() -> None:
    assert game(7, 50) == game(7, 50) != game(8, 50)


def test_the_opponent_says_everything_and_keeps_its_word() -> None:
    seen = Counter((outcome(move), move.effect, move.form) for move in game(7))
    assert {one for one, _, _ in seen} == set(Outcome) - {Outcome.NEVER_STARTED, Outcome.UNKNOWN}
    assert {form for _, _, form in seen} == {"whole", "twice", "cut", "drip", "silent", "reset"}
    assert {effect for one, effect, _ in seen if one is Outcome.DONE} == {"before"}
    assert {effect for one, effect, _ in seen if one is Outcome.REFUSED} == {"never"}
    for one in set(Outcome) - NOT_SENT - {Outcome.DONE, Outcome.UNKNOWN}:
        assert {effect for other, effect, _ in seen if other is one} == {"before", "after", "never"}


def test_a_connection_that_comes_while_the_opponent_stops_is_ended_too() -> None:
    async def stopped_between_accept_and_first_step() -> bytes:
        opponent = Opponent(SECRET, 7)
        port = await opponent.listen(0)
        with socket.create_connection((HOST, port), timeout=10) as client:
            # One turn of the loop accepts it; its first step would be in the turn after the next.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            await opponent.stop()
            await asyncio.sleep(0)
            try:
                return await asyncio.to_thread(client.recv, 1)
            except ConnectionResetError:
                return b""

    assert asyncio.run(stopped_between_accept_and_first_step()) == b""


def test_the_tame_one_refuses_nobody_and_mostly_does_well() -> None:
    moves = [tame(random.Random(f"1/post/{number}")) for number in range(1000)]
    assert 700 < sum(move is None for move in moves) < 800
    kinds = {outcome(move) for move in moves if move is not None}
    assert kinds == {Outcome.DONE, Outcome.NOT_NOW, Outcome.PROCESSING, Outcome.SERVER_ERROR}


def test_the_tame_one_publishes_each_post_once(processes: Processes, tmp_path: Path) -> None:
    reference = Reference(processes, journal=tmp_path / "journal", tame=1)
    publisher = Publisher(f"{reference.url}/publish", SECRET)
    seen = Counter[int]()
    for number in range(30):
        post = json.loads(publisher.body())
        # The moves follow from the seed and the post's id.
        post["post"]["postId"] = f"post_tame_{number}"
        body, said, attempt = json.dumps(post), "", 0
        while "platformPostId" not in said:
            attempt += 1
            answer = publisher.post(body, f"pub_{number}", attempt)
            said = answer.text
            seen[answer.status_code] += 1
            assert attempt < 20
    assert reference.journal()["effects"] == 30
    assert len(seen) > 2, seen
