"""Posts that somebody holds: one message for all of them, none while one is under way, and nothing lost between."""

from collections.abc import Iterator

import pytest
import redis

from shared.broker import contended_posts
from tests import factories
from tests.api.answers import messages_at
from tests.processes import Server
from tests.waiting import eventually


@pytest.fixture
def url(monkeypatch: pytest.MonkeyPatch, database_url: str, redis_url: str) -> Iterator[str]:
    with factories.set_up(monkeypatch, database_url, redis_url):
        yield redis_url


def bells(url: str) -> list[str]:
    """The messages under way that try held posts again, the latest first: what tells them apart."""
    sent = [arguments for arguments, _ in messages_at(url, "edits")]
    assert all(posts == [] for posts, _ in sent)
    return [token for _, token in sent]


def test_posts_that_are_held_at_once_are_tried_again_by_one_message_with_the_last_address_of_each(url: str) -> None:
    contended_posts.ring({"a": "me#1"})
    contended_posts.ring({"a": "you#2", "b": "you#2"})
    contended_posts.ring({"a": None, "c": None})
    [token] = bells(url)
    [(_, headers)] = messages_at(url, "edits")
    assert headers["eta"]
    assert contended_posts.take(token) == {"a": "you#2", "b": "you#2", "c": ""}


def test_a_message_that_has_arrived_serves_nobody_who_comes_after(url: str) -> None:
    contended_posts.ring({"a": None})
    contended_posts.take(*bells(url))
    contended_posts.ring({"b": None})
    second, _ = bells(url)
    assert contended_posts.take(second).keys() == {"a", "b"}


@pytest.mark.parametrize("token", [None, "", "of another"])
def test_a_message_beside_the_one_under_way_reads_too_and_sends_none_in_its_turn(url: str, token: str | None) -> None:
    contended_posts.ring({"a": None})
    assert contended_posts.take(token).keys() == {"a"}
    assert contended_posts.known(["a"]) == {"a"}, "the other still will"
    contended_posts.ring({"a": None})
    [only] = bells(url)
    assert contended_posts.take(only).keys() == {"a"}
    contended_posts.ring({"a": None})
    assert len(bells(url)) == 2


def test_what_is_no_id_is_thrown_out_and_costs_nobody_anything(url: str) -> None:
    with redis.Redis.from_url(url) as broker:
        broker.hset(
            contended_posts.POSTS, mapping={b"\xff": b"", b"nul\0": b"", b"": b"", b"b" * 256: b"", b"a": b"\xff#1"}
        )
        assert contended_posts.take(None) == {"a": ""}
        assert broker.hkeys(contended_posts.POSTS) == [b"a"]


def test_a_post_is_known_only_while_a_message_that_will_try_it_is_under_way(url: str) -> None:
    assert contended_posts.known(["a"]) == set()
    contended_posts.ring({"a": None})
    assert contended_posts.known(["a", "b"]) == {"a"}
    contended_posts.take(*bells(url))
    assert contended_posts.known(["a"]) == set()
    contended_posts.ring({"b": None})
    assert contended_posts.known(["a", "b"]) == {"a", "b"}
    contended_posts.forget(["a"])
    assert contended_posts.known(["a", "b"]) == {"b"}


def test_a_message_that_got_lost_is_believed_in_for_a_while_only(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setattr(contended_posts, "BELIEVED", 0.1)
    contended_posts.ring({"a": None})
    with redis.Redis.from_url(url) as broker:
        broker.delete("edits")
        eventually(lambda: not broker.exists(contended_posts.RUNG), within=30)
    assert contended_posts.known(["a"]) == set()
    contended_posts.ring({"b": None})
    assert contended_posts.take(*bells(url)).keys() == {"a", "b"}


def test_without_redis_nobody_is_known_and_nothing_raised(
    monkeypatch: pytest.MonkeyPatch, database_url: str, own_valkey: Server
) -> None:
    with factories.set_up(monkeypatch, database_url, own_valkey.url):
        own_valkey.process.kill()
        contended_posts.ring({"a": None})
        contended_posts.forget(["a"])
        assert (contended_posts.known(["a"]), contended_posts.take("t")) == (set(), {})
