"""Holds for tests: taken and ended as the API and the command line do it."""

import time
from collections.abc import Callable

from sqlalchemy import Engine

from shared.store import holds as holds_store
from shared.store import posts as posts_store
from shared.store import scope_holds
from shared.store.acts import Actor
from shared.store.holds import Changed
from shared.store.scope_holds import Scope, Step, Taken, Work
from tests import factories

KIM = Actor("kim")
WORKSPACE = Scope(factories.WORKSPACE)
ACCOUNT = Scope(factories.WORKSPACE, factories.TIKTOK)


def hold(engine: Engine, *post_ids: str, reason: str | None = None) -> Changed:
    with engine.begin() as tx:
        return holds_store.hold_posts(tx, posts_store.lock_posts(tx, post_ids, "wait").values(), KIM, reason)


def resume(engine: Engine, *post_ids: str, publish: bool = False) -> Changed:
    with engine.begin() as tx:
        locked = posts_store.lock_posts(tx, post_ids, "wait")
        return holds_store.resume_posts(tx, locked.values(), KIM, publish_missed=publish)


def hold_scope(engine: Engine, scope: Scope = ACCOUNT, reason: str | None = None) -> Taken:
    with engine.begin() as tx:
        return scope_holds.take(tx, scope, KIM, reason)


def resume_scope(
    engine: Engine, scope: Scope = ACCOUNT, *, publish: bool = False, pause: Callable[[float], object] = time.sleep
) -> Step:
    """All transactions of a resume; their sum. `pause`: what comes between two tries at locked posts."""

    def in_transaction(work: Work) -> Step:
        with engine.begin() as tx:
            return work(tx)

    return scope_holds.run(scope_holds.resuming(scope, KIM, publish_missed=publish), in_transaction, pause)


def missed(engine: Engine, post_id: str) -> bool:
    """Whether the post stays held since its time went by."""
    row = factories.row(engine, "posts", post_id)
    return bool(row.missed_revision == row.schedule_revision)
