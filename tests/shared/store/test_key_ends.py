"""When keys end and when they were last used, by the clock of a real database."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

import pytest
from sqlalchemy import Connection, Engine, create_engine, pool, text

from shared.store import keys
from shared.store.keys import SCOPES, Found
from shared.store.posts import clock
from tests.waiting import eventually

HOUR = timedelta(hours=1)


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = create_engine(database_url, poolclass=pool.NullPool)
    yield engine
    engine.dispose()


@pytest.fixture
def tx(engine: Engine) -> Iterator[Connection]:
    with engine.begin() as connection:
        yield connection


@pytest.fixture
def home(tx: Connection) -> str:
    return keys.create_workspace(tx, "home")


def found(tx: Connection, secret: str) -> Found:
    [one] = keys.find_keys(tx, [keys.hash_of(secret)]).values()
    return one


def last_uses(tx: Connection, home: str) -> dict[str, datetime | None]:
    """By the name of the key."""
    return {entry.key.name: entry.last_used_at for entry in keys.keys_of(tx, home)}


def test_a_key_says_how_long_it_has_left_and_an_expired_one_is_found_as_such(tx: Connection, home: str) -> None:
    now = clock(tx)
    later, over = (
        keys.create_key(tx, home, name, SCOPES, None, expires_at=ends)
        for name, ends in (("later", now + HOUR), ("over", now - HOUR))
    )
    one = found(tx, later)
    assert (one.expires_at, one.expired) == (now + HOUR, False)
    assert one.seconds_left is not None
    assert 3500 < one.seconds_left <= 3600
    assert (found(tx, over).expires_at, found(tx, over).expired) == (now - HOUR, True)
    listed = {entry.key.name: entry.expires_at for entry in keys.keys_of(tx, home)}
    assert listed == {"later": now + HOUR, "over": now - HOUR}


def test_an_expired_key_that_was_revoked_too_is_not_found(tx: Connection, home: str) -> None:
    secret = keys.create_key(tx, home, "ci", SCOPES, None, expires_at=clock(tx) - HOUR)
    keys.revoke_key(tx, found(tx, secret).key.id)
    assert keys.find_keys(tx, [keys.hash_of(secret)]) == {}


def test_keys_that_end_soon_are_those_that_are_valid_until_then(tx: Connection, home: str) -> None:
    now = clock(tx)
    for name, ends in {"soon": 2 * HOUR, "sooner": HOUR, "over": -HOUR, "later": 9 * HOUR, "gone": HOUR}.items():
        keys.create_key(tx, home, name, SCOPES, None, expires_at=now + ends)
    keys.create_key(tx, home, "for ever", SCOPES, None)
    [gone] = [entry.key.id for entry in keys.keys_of(tx, home) if entry.key.name == "gone"]
    keys.revoke_key(tx, gone)
    # Nobody has to be told of a key that was made for a short time.
    assert keys.keys_that_end(tx, 8 * HOUR) == []
    tx.execute(text("UPDATE api_keys SET created_at = created_at - interval '60 days'"))
    assert [entry.key.name for entry in keys.keys_that_end(tx, 8 * HOUR)] == ["sooner", "soon"]


def test_a_use_is_written_once_a_minute_at_most(tx: Connection, home: str) -> None:
    secret = keys.create_key(tx, home, "ci", SCOPES, None)
    other = keys.create_key(tx, home, "other", SCOPES, None)
    ids = [found(tx, secret).key.id, found(tx, other).key.id]
    assert last_uses(tx, home) == {"ci": None, "other": None}
    keys.write_use(tx, ids[:1])
    first = last_uses(tx, home)["ci"]
    assert first is not None
    assert last_uses(tx, home)["other"] is None
    assert (found(tx, secret).use_is_old, found(tx, other).use_is_old) == (False, True)
    keys.write_use(tx, ids)
    assert last_uses(tx, home)["ci"] == first
    assert last_uses(tx, home)["other"] is not None
    tx.execute(text("UPDATE api_keys SET last_used_at = last_used_at - interval '61 s'"))
    assert found(tx, secret).use_is_old
    keys.write_use(tx, ids)
    assert all(use is not None and use >= first for use in last_uses(tx, home).values())


def test_of_two_processes_that_write_the_same_uses_the_second_waits_and_then_writes_nothing(engine: Engine) -> None:
    with engine.begin() as tx:
        home = keys.create_workspace(tx, "home")
        secrets = [keys.create_key(tx, home, name, SCOPES, None) for name in ("a", "b", "c")]
        ids = [found(tx, secret).key.id for secret in secrets]
    began = threading.Event()

    def second() -> None:
        with engine.begin() as other:
            other.execute(text("SET application_name = 'second'"))
            began.set()
            keys.write_use(other, reversed(ids))

    with ThreadPoolExecutor(1) as beside:
        with engine.begin() as tx:
            keys.write_use(tx, ids)
            written = last_uses(tx, home)
            loser = beside.submit(second)
            assert began.wait(10)
            waits = "SELECT 1 FROM pg_stat_activity WHERE application_name = 'second' AND wait_event_type = 'Lock'"
            eventually(lambda: tx.execute(text(waits)).scalar(), within=30, because="the second one waits")
        loser.result(timeout=10)
    with engine.begin() as tx:
        assert last_uses(tx, home) == written
