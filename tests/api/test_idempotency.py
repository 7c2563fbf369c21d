"""A repeat of a PATCH gets the first one's own result: in flight, refused, through another process, after a kill."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import pytest
from sqlalchemy import Engine, text

from shared.store import db
from shared.store import idempotency as idempotency_store
from tests import factories
from tests.api.answers import error
from tests.loopback import LOOPBACK
from tests.stack import Running
from tests.waiting import eventually


@contextmanager
def locked(stack: Running, post: str) -> Iterator[None]:
    """While a person holds the post nothing of it is applied."""
    with stack.engine.begin() as person:
        person.execute(text("SELECT 1 FROM posts WHERE id = :id FOR UPDATE"), {"id": post})
        yield


def test_a_repeat_in_flight_joins_the_first_and_both_get_the_one_result(stack: Running) -> None:
    post, key = stack.post(), {"Idempotency-Key": "in-flight", "Prefer": "wait=30"}
    with ThreadPoolExecutor(2) as clients:
        with locked(stack, post):
            first = clients.submit(stack.patch, post, {"caption": "once"}, **key)
            eventually(lambda: stack.edits_of(post), within=30)
            repeat = clients.submit(stack.patch, post, {"caption": "once"}, **key)
            other = stack.patch(post, {"caption": "other"}, **key)
            assert error(other, 422)["code"] == "idempotency_key_reused"
            assert not first.done()
            assert not repeat.done()
        answers = [first.result(timeout=20), repeat.result(timeout=20)]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].content == answers[1].content
    assert answers[0].headers["edit-id"] == answers[1].headers["edit-id"]
    assert ["idempotent-replayed" in answer.headers for answer in answers] == [False, True]
    assert len(stack.edits_of(post)) == 1


def test_a_repeat_of_a_refused_edit_is_refused_the_same_although_it_would_pass_now(stack: Running) -> None:
    post, key = stack.post(), {"Idempotency-Key": "refused-once", "If-Match": '"2"'}
    first = stack.patch(post, {"caption": "stale"}, **key)
    assert (first.status_code, first.headers["etag"]) == (412, '"1"')
    assert stack.patch(post, {"caption": "second"}).headers["etag"] == '"2"'
    repeat = stack.patch(post, {"caption": "stale"}, **key)
    assert (repeat.status_code, repeat.headers["etag"], repeat.headers["idempotent-replayed"]) == (412, '"1"', "true")
    assert repeat.headers["edit-id"] == first.headers["edit-id"]
    said = [{**error(answer), "requestId": ""} for answer in (first, repeat)]
    assert said[0] == said[1]
    without = stack.patch(post, {"caption": "stale"}, **{"Idempotency-Key": "refused-once"})
    assert error(without, 422)["code"] == "idempotency_key_reused", "If-Match is part of what is repeated"


def test_a_repeat_may_differ_in_what_means_nothing(stack: Running) -> None:
    post = stack.post()
    headers = {"Idempotency-Key": "spaces", "Content-Type": "application/json"}
    first = stack.http.patch(f"/v1/posts/{post}", content=b'{"caption":"a","soundId":"1"}', headers=headers)
    repeat = stack.http.patch(
        f"/v1/posts/{post}",
        content=b'{ "soundId" : "1",\n "caption" : "\\u0061" }',
        headers=headers | {"Content-Type": "application/merge-patch+json", "Prefer": "wait=3"},
    )
    assert (repeat.status_code, repeat.content, repeat.headers["idempotent-replayed"]) == (200, first.content, "true")
    elsewhere = stack.patch(stack.post(), {"caption": "a", "soundId": "1"}, **{"Idempotency-Key": "spaces"})
    assert error(elsewhere, 422)["code"] == "idempotency_key_reused"


@pytest.mark.parametrize("key", ['a"b.', "a\\b\\.", "{a,b}", "a'b$1%s:x", '".', "NULL", "~" * 255])
def test_a_key_may_hold_any_visible_character(stack: Running, key: str) -> None:
    post = stack.post()
    answers = [stack.patch(post, {"caption": "x"}, **{"Idempotency-Key": key}) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert ["idempotent-replayed" in answer.headers for answer in answers] == [False, True]
    new = {"accountIds": [factories.TIKTOK], "contentUrl": "https://a.example/b.mp4"}
    made = [stack.http.post("/v1/posts/video", json=new, headers={"Idempotency-Key": key[:-1] + "!"}) for _ in range(2)]
    assert [answer.status_code for answer in made] == [201, 201]
    assert made[0].content == made[1].content


def test_a_repeat_through_another_process_and_after_a_kill_finds_the_first(stack: Running) -> None:
    post, key = stack.post(), {"Idempotency-Key": "elsewhere"}
    first = stack.patch(post, {"caption": "a"}, **key)
    old = stack.api
    assert old is not None
    stack.start_api()
    beside = stack.patch(post, {"caption": "a"}, **key)
    old.kill()
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{old.url}/healthz", **LOOPBACK)
    stack.start_api()
    after = stack.patch(post, {"caption": "a"}, **key)
    for repeat in (beside, after):
        assert (repeat.status_code, repeat.content) == (200, first.content)
        assert (repeat.headers["idempotent-replayed"], repeat.headers["etag"]) == ("true", first.headers["etag"])
    assert len(stack.edits_of(post)) == 1


def test_a_first_request_that_waits_in_one_process_is_joined_through_another(stack: Running) -> None:
    post, key = stack.post(), {"Idempotency-Key": "joined", "Prefer": "wait=30"}
    assert stack.api is not None
    here = httpx.Client(base_url=stack.api.url, headers=stack.http.headers, timeout=40, **LOOPBACK)
    stack.start_api()
    with here, ThreadPoolExecutor(2) as clients:
        with locked(stack, post):
            first = clients.submit(here.patch, f"/v1/posts/{post}", json={"caption": "one"}, headers=key)
            eventually(lambda: stack.edits_of(post), within=30)
            repeat = clients.submit(stack.patch, post, {"caption": "one"}, **key)
        answers = [first.result(timeout=20), repeat.result(timeout=20)]
    assert [(answer.status_code, answer.content) for answer in answers] == [(200, answers[0].content)] * 2
    assert len(stack.edits_of(post)) == 1


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, database_url: str) -> Iterator[Engine]:
    with factories.set_up(monkeypatch, database_url) as engine:
        yield engine


def test_keys_are_kept_for_a_day_and_then_forgotten(engine: Engine) -> None:
    with engine.begin() as tx:
        for key, age in (("young", "23 hours 59 minutes"), ("old", "24 hours 1 minute")):
            tx.execute(
                text("""INSERT INTO idempotency_keys (api_key_id, key, fingerprint, resource, created_at)
                        VALUES (:api_key, :key, '', 'edit_1', now() - CAST(:age AS interval))"""),
                {"api_key": factories.KEY_ID, "key": key, "age": age},
            )
    with db.transaction() as tx:
        assert idempotency_store.forget_expired(tx, 24, 1_000) == 1
    with engine.connect() as tx:
        assert list(tx.execute(text("SELECT key FROM idempotency_keys")).scalars()) == ["young"]
