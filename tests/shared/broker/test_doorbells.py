"""Doorbells: in the list while a worker is awake, by a message while none is. What a worker has in hand is recorded."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from shared.broker import answers, doorbells, hands, queue, redis_connection
from shared.broker.doorbells import AWAKE, LIST, ROOM, Bell
from shared.broker.hands import AT_ONCE, HANDS, Hand
from shared.domain.lifecycle import EditStatus
from shared.domain.queued_edits import EditResult
from tests import factories
from tests.waiting import eventually

LONG = 0.01


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch, database_url: str, redis_url: str) -> Iterator[redis.Redis]:
    with factories.set_up(monkeypatch, database_url, redis_url), redis.Redis.from_url(redis_url) as client:
        yield client


def messages(broker: redis.Redis) -> list[str]:
    """What the messages on the queue of edits show in Flower, the oldest first."""
    return [json.loads(raw)["headers"]["argsrepr"] for raw in reversed(broker.lrange("edits", 0, -1))]


def listed(broker: redis.Redis) -> list[list[str]]:
    return [json.loads(raw)[0] for raw in reversed(broker.lrange(LIST, 0, -1))]


def rung_on_a_loop(posts: list[str], room: int = ROOM) -> str:
    async def ring() -> str:
        async with redis_connection.client_on_loop() as client:
            return await doorbells.ring_on_loop(client, posts, "me#1", room)

    return asyncio.run(ring())


@pytest.fixture(params=["in a thread", "on a loop"])
def ring(request: pytest.FixtureRequest) -> Any:
    return rung_on_a_loop if request.param == "on a loop" else lambda posts: doorbells.ring(posts, "me#1")


def test_while_no_worker_is_awake_a_doorbell_is_a_message(broker: redis.Redis, ring: Any) -> None:
    assert ring(["p", "q"])
    assert (messages(broker), listed(broker)) == (["(p +1)"], [])


def test_while_a_worker_is_awake_a_doorbell_lies_in_the_list(broker: redis.Redis, ring: Any) -> None:
    hand = Hand("edits@here/1")
    assert hand.take_up(Bell(["first"]))[0] == [Bell(["first"])]
    assert ring(["p", "q"])
    assert (messages(broker), listed(broker)) == ([], [["p", "q"]])
    assert hand.answer_and_take([], LONG) == [Bell(["p", "q"], "me#1")]
    assert broker.pttl(hand.key) > 0


def test_a_worker_that_is_busy_for_long_counts_as_awake_no_longer(
    broker: redis.Redis, ring: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doorbells, "AWAKE_FOR", 1)
    Hand("edits@here/1").take_up(Bell(["first"]))
    eventually(lambda: not broker.exists(AWAKE), within=5)
    assert ring(["p"])
    assert messages(broker) == ["(p)"]


def test_the_list_is_bounded_in_length_and_the_next_doorbell_wakes_another_worker(
    broker: redis.Redis, ring: Any
) -> None:
    Hand("edits@here/1").take_up(Bell(["first"]))
    for number in range(ROOM + 1):
        assert ring([f"p{number}"])
    assert listed(broker) == [[f"p{number}"] for number in range(ROOM - 1)], "one is in the hand"
    assert messages(broker) == [f"(p{ROOM - 1})", f"(p{ROOM})"]


def test_the_list_is_bounded_in_age(broker: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doorbells, "LISTED_FOR", 1)
    Hand("edits@here/1").take_up(Bell(["first"]))
    doorbells.ring(["p"])
    eventually(lambda: not broker.exists(LIST), within=5)


def test_with_less_room_a_doorbell_does_not_wait_behind_another(broker: redis.Redis) -> None:
    hand = Hand("edits@here/1")
    hand.take_up(Bell(["first"]))
    assert rung_on_a_loop(["p"], room=1) == "sent"
    assert messages(broker) == ["(p)"]
    assert hand.answer_and_take([], LONG) == []
    assert rung_on_a_loop(["q"], room=1) == "listed"
    assert listed(broker) == [["q"]]


def test_more_posts_than_one_doorbell_names_are_several_doorbells(broker: redis.Redis) -> None:
    hand = Hand("edits@here/1")
    hand.take_up(Bell(["first"]))
    assert doorbells.ring([f"p{number}" for number in range(1200)])
    assert [len(posts) for posts in listed(broker)] == [500, 500, 200]


def test_several_doorbells_are_taken_at_once_in_their_order(broker: redis.Redis) -> None:
    hand = Hand("edits@here/1")
    hand.take_up(Bell(["first"]))
    for number in range(AT_ONCE + 1):
        doorbells.ring([f"p{number}"])
    assert [bell.post_ids for bell in hand.answer_and_take([], LONG)] == [[f"p{number}"] for number in range(AT_ONCE)]
    assert hand.left() == [Bell([f"p{number}"]) for number in range(AT_ONCE)]
    assert [bell.post_ids for bell in hand.fall_asleep()] == [[f"p{AT_ONCE}"]]
    assert broker.exists(AWAKE) == 0
    hand.drop()
    assert hand.left() == []


def test_whoever_falls_asleep_takes_back_its_own_sign_only(broker: redis.Redis) -> None:
    one, other = Hand("edits@here/1"), Hand("edits@here/2")
    one.take_up(Bell(["p"]))
    other.take_up(Bell(["q"]))
    assert one.fall_asleep() == []
    assert broker.get(AWAKE) == other.key.encode()
    assert other.fall_asleep() == []
    assert not broker.exists(AWAKE)


def test_a_doorbell_falls_in_no_gap_while_a_worker_falls_asleep(broker: redis.Redis) -> None:
    """A thousand doorbells beside a worker that falls asleep again and again: each was taken, or woke a worker."""
    hand = Hand("edits@here/1")
    rung = [f"p{number}" for number in range(1000)]
    taken: list[str] = []
    for post in rung:
        if int(post[1:]) % 3 == 0:
            hand.take_up(Bell(["own"]))
        doorbells.ring([post])
        if int(post[1:]) % 5 == 0:
            taken += [one for bell in hand.fall_asleep() for one in bell.post_ids]
    taken += [one for bell in (*hand.fall_asleep(), *hand.fall_asleep()) for one in bell.post_ids]
    woke = [shown.strip("()") for shown in messages(broker)]
    assert sorted([*taken, *woke]) == sorted(rung)


def test_answers_are_published_in_the_trip_that_takes_the_next_doorbell(broker: redis.Redis) -> None:
    hand = Hand("edits@here/1")
    hand.take_up(Bell(["p"], "me#7"))
    result = EditResult("edit_1", EditStatus.APPLIED, 2)
    with broker.pubsub() as heard:
        heard.subscribe("me")
        heard.get_message(timeout=5)
        made = answers.announcement("me#7", [result])
        assert made is not None
        assert hand.answer_and_take([made], LONG) == []
        message = heard.get_message(timeout=5)
    answer = answers.parse(message["data"])
    assert answer is not None
    assert (answer.bell, list(answer.results)) == (7, ["edit_1"])
    assert hand.left() == []


STRANGE: list[bytes] = [
    b"", b"\xff", b"null", b"7", b"{}", b"[]", b"[[]]", b'[["p"]]', b'["p", null, []]', b"[[], null, []]",
    b'[["\\u0000"], null, []]', b"[[7], null, []]", b'[["p"], null, 7]', b"[" * 2000,
]  # fmt: skip


@pytest.mark.parametrize("raw", STRANGE)
def test_what_no_process_of_ours_left_in_the_list_is_dropped(broker: redis.Redis, raw: bytes) -> None:
    hand = Hand("edits@here/1")
    hand.take_up(Bell(["first"]))
    broker.lpush(LIST, raw)
    doorbells.ring(["p"])
    assert hand.answer_and_take([], LONG) == [Bell(["p"])]
    hand.drop()
    assert not broker.exists(hand.key)


def strange(broker: redis.Redis, what: str) -> None:
    """What any client of Redis may write under our names."""
    if what == "the list is a text":
        broker.set(LIST, "x")
    elif what == "the hands are a text":
        broker.set(HANDS, "x")
    elif what == "a hand is a text":
        broker.set(hands.HAND + "edits@here/1", "x")
    elif what == "the sign is a set":
        broker.delete(AWAKE)
        broker.sadd(AWAKE, "x")
    elif what == "the sign names a text":
        broker.set("a-text", "x")
        broker.set(AWAKE, "a-text", px=100)
    else:
        broker.set(AWAKE, "nobody")


@pytest.mark.parametrize(
    "what",
    [
        "the list is a text",
        "the hands are a text",
        "a hand is a text",
        "the sign is a set",
        "the sign names a text",
        "the sign has no end",
    ],
)
def test_strange_content_under_our_names_delays_no_doorbell_and_is_gone_after_one_task(
    broker: redis.Redis, ring: Any, what: str
) -> None:
    hand = Hand("edits@here/1")
    hand.take_up(Bell(["first"]))
    strange(broker, what)
    assert ring(["p"])
    taken = [*hand.answer_and_take([], LONG), *hand.fall_asleep()]
    hand.drop()
    assert messages(broker) == ["(p)"] or (taken == [Bell(["p"], "me#1")] and what != "the sign has no end")
    # The next task finds all in order.
    assert hand.take_up(Bell(["second"]))[0] == [Bell(["second"])]
    assert ring(["q"])
    assert hand.answer_and_take([], LONG) == [Bell(["q"], "me#1")]


def test_a_user_of_redis_who_may_run_no_scripts_rings_with_messages(broker: redis.Redis, ring: Any) -> None:
    Hand("edits@here/1").take_up(Bell(["first"]))
    broker.acl_setuser("default", enabled=True, commands=["-eval"])
    try:
        assert ring(["p"])
    finally:
        broker.acl_setuser("default", enabled=True, commands=["+eval"])
    assert messages(broker) == ["(p)"]


def test_a_worker_that_lost_a_reply_finds_in_its_hand_what_it_had_taken(broker: redis.Redis) -> None:
    hand = Hand("edits@here/1")
    hand.take_up(Bell(["first"]))
    hand.drop()
    broker.lpush(hand.key, Bell(["lost"]).raw())
    assert hand.take_up(Bell(["next"]))[0] == [Bell(["lost"]), Bell(["next"])]


def test_without_redis_nothing_is_on_record_and_nothing_raises(monkeypatch: pytest.MonkeyPatch, broker: Any) -> None:
    monkeypatch.setenv("REDRAFT_REDIS_URL", "redis://127.0.0.1:1/0")
    factories.forget_caches()
    hand = Hand("edits@here/1")
    assert hand.take_up(Bell(["p"])) == ([], [])
    assert hand.answer_and_take([], LONG) == hand.fall_asleep() == hand.left() == []
    hand.drop()
    assert hands.by_idle_time() == {}
    assert not doorbells.ring(["p"])
    assert rung_on_a_loop(["p"]) == "failed"


def test_hands_with_something_in_them_are_named_with_their_idle_time_and_empty_ones_forgotten(
    broker: redis.Redis,
) -> None:
    old, live, empty = Hand("edits@old/1"), Hand("edits@live/1"), Hand("edits@empty/1")
    for hand in (old, live, empty):
        hand.take_up(Bell(["p"]))
    empty.drop()
    broker.pexpire(old.key, hands.KEPT_FOR - 90_000)
    found = hands.by_idle_time()
    assert found.keys() == {"edits@old/1", "edits@live/1"}
    assert 0 <= found["edits@live/1"] < 30
    assert 90 <= found["edits@old/1"] < 120
    assert broker.smembers(HANDS) == {old.key.encode(), live.key.encode()}
    assert set(live.take_up(Bell(["q"]))[1]) == {"edits@old/1"}


def test_a_doorbell_that_comes_later_is_a_message_with_its_own_time(broker: redis.Redis) -> None:
    Hand("edits@here/1").take_up(Bell(["first"]))
    assert doorbells.ring_later(Bell(["p"], "me#1"), 2.0)
    assert listed(broker) == []
    assert json.loads(broker.lrange("edits", 0, -1)[0])["headers"]["eta"]
    assert queue.depths()["edits"] == 1
