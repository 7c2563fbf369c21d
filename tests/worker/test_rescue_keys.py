"""Idempotency keys that are a day old are deleted as fast as they come, and no younger ones."""

import pytest
from sqlalchemy import Engine, text

from shared.store import db
from shared.store import idempotency as idempotency_store
from tests import factories
from worker import rescue

DAY_OLD, YOUNG = "1 day 1 second", "23 hours 59 minutes"


def keep(engine: Engine, count: int, age: str, name: str = "key") -> None:
    with engine.begin() as tx:
        tx.execute(
            text("""INSERT INTO idempotency_keys (api_key_id, key, fingerprint, resource, created_at)
                    SELECT :api_key, :name || n, '', 'edit_1', now() - CAST(:age AS interval)
                    FROM generate_series(1, :count) n"""),
            {"api_key": factories.KEY_ID, "name": name, "age": age, "count": count},
        )


def left(engine: Engine) -> int:
    with engine.connect() as tx:
        return int(tx.execute(text("SELECT count(*) FROM idempotency_keys")).scalar_one())


def test_a_flood_of_keys_is_gone_in_one_run(engine: Engine) -> None:
    """It was a thousand a run, two hundred a second, whatever came in."""
    keep(engine, 3 * rescue.KEYS_A_PAGE + 1, DAY_OLD)
    keep(engine, 10, YOUNG, "young")
    assert rescue._expired_keys() == 3 * rescue.KEYS_A_PAGE + 1
    assert left(engine) == 10
    assert rescue._expired_keys() == 0


def test_a_run_has_an_end(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rescue, "KEYS_A_PAGE", 10)
    keep(engine, 10 * rescue.KEY_PAGES + 5, DAY_OLD)
    assert rescue._expired_keys() == 10 * rescue.KEY_PAGES
    assert left(engine) == 5


def test_two_rescuers_do_not_wait_for_each_other(engine: Engine) -> None:
    keep(engine, 20, DAY_OLD)
    with db.transaction() as other:
        assert idempotency_store.forget_expired(other, 24, 10) == 10
        assert rescue._expired_keys() == 0
    assert left(engine) == 10
    assert rescue._expired_keys() == 10
