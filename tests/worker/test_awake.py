"""The awake worker: many doorbells in one task, and each process answered. What it had in hand: test_hands.py."""

import contextlib
import threading
from typing import Any

import pytest
import redis
from sqlalchemy import Engine, text

from shared.broker import answers, doorbells
from shared.broker.doorbells import LIST, Bell
from shared.broker.hands import Hand
from shared.store import batches
from shared.telemetry import logs
from tests import factories
from tests.worker.bulk import edits_locked_by_a_person, locked_by_a_person
from tests.worker.waking import broker, edited, json_args
from worker import awake, tasks

__all__ = ["broker"]


class Ears:
    """What two API processes hear."""

    def __init__(self, broker: redis.Redis) -> None:
        self._heard = broker.pubsub()
        self._heard.subscribe("me", "you")
        for _ in range(2):
            self._heard.get_message(timeout=5)

    def hear(self) -> list[tuple[str, int, set[str], bool]]:
        """(channel, bell, edits, whether more follows) of each answer so far."""
        found = []
        while (message := self._heard.get_message(timeout=0.2)) is not None:
            answer = answers.parse(message["data"])
            assert answer is not None
            found.append((message["channel"].decode(), answer.bell, set(answer.results), answer.more))
        return found


def test_one_task_applies_what_several_processes_left_in_the_list_and_answers_each(
    engine: Engine, broker: redis.Redis
) -> None:
    ears = Ears(broker)
    made = [edited(engine) for _ in range(5)]
    both = made[1][0]
    for (post, _), address in zip(made[1:], ["me#2", "you#1", "me#3", "you#2"], strict=True):
        broker.lpush(LIST, Bell([post], address).raw())
    broker.lpush(LIST, Bell([both], "you#3").raw())
    assert tasks.apply_edits([made[0][0]], "me#1") == {"applied": 5, "doorbells": 6}
    heard = ears.hear()
    assert {(channel, bell) for channel, bell, *_ in heard} == {
        *(("me", number) for number in (1, 2, 3)), *(("you", number) for number in (1, 2, 3))
    }  # fmt: skip
    told = {(channel, edit) for channel, _, edits, _ in heard for edit in edits}
    assert told >= {
        ("me", made[0][1]),
        ("me", made[1][1]),
        ("you", made[2][1]),
        ("me", made[3][1]),
        ("you", made[4][1]),
    }
    assert awake.own_hand().left() == []
    assert not broker.exists(doorbells.AWAKE)


def test_a_doorbell_that_comes_while_a_worker_is_awake_needs_no_message(engine: Engine, broker: redis.Redis) -> None:
    first, second = edited(engine), edited(engine)
    asleep = Hand.fall_asleep

    def late(hand: Hand, *given: Any) -> list[Bell]:
        """It has waited in vain, and is about to sleep: the last doorbell comes now."""
        if factories.row(engine, "edits", second[1]).status == "queued":
            doorbells.ring([second[0]])
        return asleep(hand, *given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Hand, "fall_asleep", late)
        assert tasks.apply_edits([first[0]], None) == {"applied": 2, "doorbells": 2}
    assert broker.llen("edits") == 0


def test_a_task_ends_after_its_second_however_many_doorbells_come(
    engine: Engine, broker: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(awake, "WORKS_FOR", 0.0)
    posts = [edited(engine)[0] for _ in range(7)]
    for post in posts[1:]:
        broker.lpush(LIST, Bell([post]).raw())
    assert tasks.apply_edits([posts[0]], None) == {"applied": 5, "doorbells": 5}
    assert not broker.exists(doorbells.AWAKE)
    # The rest wakes other workers: no further doorbell need come.
    assert broker.llen(LIST) == 0
    assert sorted(post for raw in broker.lrange("edits", 0, -1) for post in json_args(raw)) == sorted(posts[5:])


def test_a_task_ends_early_while_a_message_waits_for_a_worker_that_is_asleep(
    engine: Engine, broker: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(awake, "WORKS_FOR", 60.0)
    broker.lpush("edits", "a message")
    posts = [edited(engine)[0] for _ in range(1 + doorbells.ROOM)]
    for post in posts[1:]:
        broker.lpush(LIST, Bell([post]).raw())
    assert tasks.apply_edits([posts[0]], None) == {"applied": 5, "doorbells": 5}
    assert (broker.llen("edits"), broker.llen(LIST)) == (1 + len(posts[5:]), 0)


def test_a_task_whose_time_is_over_leaves_its_further_batches_to_others(
    engine: Engine, broker: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(awake, "WORKS_FOR", 0.0)
    full = [[f"post_{batch}_{number}" for number in range(300)] for batch in range(3)]
    hand = awake.own_hand()
    broker.lpush(hand.key, Bell(full[0]).raw(), Bell(full[1], "you#1").raw())
    assert tasks.apply_edits(full[2], "me#1") == {}
    assert [json_args(raw) for raw in reversed(broker.lrange("edits", 0, -1))] == full[1:]
    assert hand.left() == []


@pytest.mark.parametrize("fault", ["our own", "a lost connection", "no reply"])
def test_a_task_that_ends_by_a_fault_leaves_no_doorbell_in_the_list(
    engine: Engine, broker: redis.Redis, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    (post, _), (other, edit) = edited(engine), edited(engine)

    def fail(tx: Any, *_: Any, **__: Any) -> None:
        doorbells.ring([other])
        assert broker.llen(LIST) == 1, "a worker is awake"
        if fault == "our own":
            raise ZeroDivisionError
        tx.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))

    if fault == "no reply":
        Hand("edits@here/1").take_up(Bell(["another"]))
        doorbells.ring([other])
        losing(monkeypatch, "LRANGE")
    else:
        monkeypatch.setattr(batches, "finalize", fail)
    with contextlib.suppress(logs.RedactedError):
        tasks.apply_edits([post], None)
    assert broker.get(doorbells.AWAKE) != awake.own_hand().key.encode()
    waiting = [named for raw in broker.lrange("edits", 0, -1) for named in json_args(raw)]
    assert broker.llen(LIST) == 0
    assert other in waiting or factories.row(engine, "edits", edit).status == "applied"


def losing(monkeypatch: pytest.MonkeyPatch, command: str, *, again: bool = False) -> None:
    """The connection is lost once, when Redis has done a pipeline with this command.

    `again`: in a way after which redis-py sends it again.
    """
    execute = redis.client.Pipeline._execute_pipeline
    lost: list[str] = []

    def once(self: Any, connection: Any, commands: Any, raise_on_error: Any) -> Any:
        found = execute(self, connection, commands, raise_on_error)
        if not lost and any(arguments[0] == command for arguments, _ in commands):
            lost.append(command)
            raise redis.ConnectionError if again else redis.TimeoutError
        return found

    monkeypatch.setattr(redis.client.Pipeline, "_execute_pipeline", once)


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("command", ["BLMOVE", "EVAL"])
def test_a_doorbell_whose_taking_lost_its_reply_is_served_all_the_same(
    engine: Engine, broker: redis.Redis, monkeypatch: pytest.MonkeyPatch, command: str, again: bool
) -> None:
    (post, _), (other, edit) = edited(engine), edited(engine)
    broker.lpush(LIST, Bell([other]).raw())
    if command == "EVAL":
        monkeypatch.setattr(awake, "WORKS_FOR", 0.0)
    losing(monkeypatch, command, again=again)
    tasks.apply_edits([post], None)
    if command == "EVAL" and not again:
        assert awake.own_hand().left() == [Bell([other])], "for the next task"
        tasks.apply_edits(["post_nobody"], None)
    assert factories.row(engine, "edits", edit).status == "applied"
    assert awake.own_hand().left() == []


def test_a_person_who_holds_an_edit_s_row_delays_its_post_only(engine: Engine) -> None:
    (post, taken), (other, free) = edited(engine), edited(engine)
    with edits_locked_by_a_person(engine, taken):
        assert tasks.apply_edits([post, other], None) == {"applied": 1, "contended": 1}
    assert [factories.row(engine, "edits", one).status for one in (taken, free)] == ["queued", "applied"]
    assert factories.row(engine, "edits", taken).attempts == 0


def test_of_doorbells_taken_together_each_hears_of_its_own_posts_before_a_locked_one_is_waited_for(
    engine: Engine, broker: redis.Redis
) -> None:
    ears = Ears(broker)
    (held, waiting), (mine, at_once), (yours, other) = edited(engine), edited(engine), edited(engine)
    hand = awake.own_hand()
    broker.lpush(hand.key, Bell([held, mine], "me#1").raw())
    with locked_by_a_person(engine, held):
        assert tasks.apply_edits([yours], "you#1") == {"applied": 2, "contended": 1, "doorbells": 2}
    assert ears.hear() == [
        ("me", 1, {at_once}, True), ("you", 1, {other}, True), ("me", 1, set(), False), ("you", 1, set(), False)
    ]  # fmt: skip
    assert factories.row(engine, "edits", waiting).status == "queued"


def test_two_workers_that_are_awake_apply_each_edit_once(engine: Engine, broker: redis.Redis) -> None:
    made = [edited(engine) for _ in range(40)]
    for post, _ in made:
        broker.lpush(LIST, Bell([post], "me#1").raw(), Bell([post], "you#1").raw())
    done: list[dict[str, Any]] = []

    def serve(place: int) -> None:
        done.append(dict(awake.serve(Bell(["post_nobody"]), Hand(f"edits@here/{place}"))))

    both = [threading.Thread(target=serve, args=[place]) for place in (0, 1)]
    for one in both:
        one.start()
    for one in both:
        one.join(30)
    assert sum(int(one.get("applied", 0)) for one in done) == len(made)
    assert {factories.row(engine, "edits", edit).attempts for _, edit in made} == {1}


def test_a_task_that_finds_messages_waiting_behind_its_own_does_not_linger(
    engine: Engine, broker: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A queue of a hundred messages, as rescue or an outage leaves it, is drained without a pause after each."""
    monkeypatch.setattr(Hand, "answer_and_take", lambda *_: pytest.fail("it waited for a doorbell"))
    broker.lpush("edits", "another message")
    post, edit = edited(engine)
    assert tasks.apply_edits([post], None) == {"applied": 1}
    assert factories.row(engine, "edits", edit).status == "applied"
