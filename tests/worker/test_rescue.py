"""Each step of rescue is on its own: one that fails hides none of the others."""

from types import ModuleType
from typing import Any

import pytest
from sqlalchemy import Engine, text

from shared import task_names
from shared.settings import settings
from shared.store import claims as claims_store
from shared.store import db
from shared.store import edits as edits_store
from shared.store import idempotency as idempotency_store
from shared.store import reschedule_turns as turns_store
from shared.store import schedule as schedule_store
from shared.store import webhooks as webhooks_store
from tests import factories, jobs
from tests.worker.bulk import ALL
from tests.worker.receiver import told
from tests.worker.test_schedule import seconds, sent
from worker import rescue

__all__ = ["sent"]

STEPS = ["edits", "publishes", "renders", "claims", "reschedules", "webhooks", "events", "keys"]
READS: list[tuple[ModuleType, str, set[str]]] = [
    (edits_store, "forgotten_posts", {"edits"}),
    (schedule_store, "find_due", {"publishes", "renders"}),
    (claims_store, "expired", {"claims"}),
    (turns_store, "live", {"reschedules"}),
    (webhooks_store, "forgotten", {"webhooks"}),
    (webhooks_store, "forget_delivered", {"events"}),
    (idempotency_store, "forget_expired", {"keys"}),
]


@pytest.fixture
def forgotten(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """Something to be found by each step."""
    monkeypatch.setenv("REDRAFT_WEBHOOK_URL", "http://127.0.0.1:1/webhooks")
    settings.cache_clear()
    with engine.begin() as tx:
        factories.edit(tx, factories.post(tx), {"caption": "second"})
        tx.execute(text("UPDATE edits SET created_at = now() - interval '9 seconds'"))
        factories.post(tx, scheduled_time=seconds(-9))
        factories.slides(tx, created_at=seconds(-9))
        factories.post(tx, claim_kind="publish", claim_token="c", claim_expires_at=seconds(-9))
        tx.execute(
            text("""INSERT INTO idempotency_keys (api_key_id, key, fingerprint, resource, created_at)
                           VALUES ('key_1', 'k', '', 'edit_1', now() - interval '9 days')""")
        )
    jobs.make({"filter": ALL, "shift": "P1D"})
    told(engine, "post_1", "post_2")
    with engine.begin() as tx:
        tx.execute(text("UPDATE reschedules SET touched_at = now() - interval '9 seconds'"))
        tx.execute(text("UPDATE webhook_events SET created_at = now() - interval '9 seconds'"))
        tx.execute(
            text("""UPDATE webhook_events SET status = 'delivered', finished_at = now() - interval '9 days'
                           WHERE post_id = 'post_2'""")
        )
    return engine


@pytest.mark.usefixtures("forgotten", "sent")
def test_every_step_finds_what_it_is_for() -> None:
    assert rescue.rescue() == dict.fromkeys(STEPS, 1)


@pytest.mark.parametrize(("store", "name", "steps"), READS, ids=[read[1] for read in READS])
@pytest.mark.usefixtures("forgotten")
def test_a_step_that_fails_hides_none_of_the_others_and_is_seen(
    sent: list[Any], monkeypatch: pytest.MonkeyPatch, store: ModuleType, name: str, steps: set[str]
) -> None:
    def fail(*_: Any) -> Any:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(store, name, fail)
        with pytest.raises(ZeroDivisionError):
            rescue.rescue()
    # What the others found they have seen to: only what failed is found again.
    tasks = {task for task, *_ in sent}
    sent.clear()
    again = rescue.rescue()
    assert steps <= again.keys() <= {*steps, "edits", "claims", "reschedules", "webhooks"}
    rung = {
        "edits": task_names.EDITS_APPLY,
        "publishes": task_names.POSTS_PUBLISH,
        "renders": task_names.POSTS_RENDER,
        "claims": task_names.POSTS_PUBLISH,
        "reschedules": task_names.RESCHEDULES_RUN_CHUNK,
        "webhooks": task_names.WEBHOOKS_DELIVER,
    }
    assert tasks >= {rung[step] for step in STEPS if step in rung and step not in steps}


@pytest.mark.usefixtures("forgotten", "sent")
def test_a_surprise_is_not_hidden_behind_a_transient_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> Any:
        raise ZeroDivisionError

    def lose(tx: Any, *_: Any) -> Any:
        tx.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))

    monkeypatch.setattr(edits_store, "forgotten_posts", lose)
    with pytest.raises(Exception, match="terminat") as lost:
        rescue.rescue()
    assert db.is_transient(lost.value)
    monkeypatch.setattr(idempotency_store, "forget_expired", fail)
    with pytest.raises(ZeroDivisionError):
        rescue.rescue()
