"""A post that a resume lets go after its time is late from its release: metric, gauges, lists and plot agree."""

from typing import Any

import pytest
from sqlalchemy import Engine

from shared.store import gauges, late, overview
from shared.store import posts as posts_store
from shared.telemetry import metrics
from tests import holding
from tests.worker.fake_services import FakeServices, change, due, fake_services
from tests.worker.test_holds import SCOPES, let_go, seconds

__all__ = ["due", "fake_services"]


@pytest.mark.parametrize("scope", [None, *SCOPES])
def test_a_post_that_a_resume_lets_go_is_late_from_its_release_only(
    engine: Engine, fake_services: FakeServices, due: str, scope: Any
) -> None:
    change(engine, "posts", due, scheduled_time=seconds(-3600), created_at=seconds(-7200))
    holding.hold_scope(engine, scope) if scope else holding.hold(engine, due)
    holding.resume_scope(engine, scope, publish=True) if scope else holding.resume(engine, due, publish=True)

    def found() -> tuple[Any, ...]:
        with engine.connect() as tx:
            counts = {name + label: value for name, label, value in gauges.read(tx, "posts", 1.0, 60.0)}
            late_by = [post.late_by.total_seconds() // 60 for post in late.late_posts(tx, 10)]
            minutes = counts["redraft_posts_late_seconds"] // 60
            return (
                counts["redraft_posts_overdue"], counts["redraft_posts_unsent"], minutes,
                overview.summary(tx).late, late_by,
            )  # fmt: skip

    assert found() == (0, 0, 0, 0, [])
    change(engine, "posts", due, released_at=seconds(-150))
    assert found() == (1, 1, 2, 1, [2])
    before = lateness()
    assert let_go(engine) == {due: "done"}
    assert 150 <= lateness() - before < 180
    with engine.connect() as tx:
        assert 150 <= max(filter(None, overview.lateness(tx, posts_store.clock(tx)).worst)) < 180


def test_a_post_that_an_edit_moved_after_its_release_is_late_from_its_new_time(
    engine: Engine, fake_services: FakeServices, due: str
) -> None:
    change(engine, "posts", due, scheduled_time=seconds(-3600))
    holding.hold(engine, due)
    holding.resume(engine, due, publish=True)
    change(engine, "posts", due, released_at=seconds(-3000), scheduled_time=seconds(-60))
    before = lateness()
    assert let_go(engine) == {due: "done"}
    assert 60 <= lateness() - before < 90


def lateness() -> float:
    """Seconds, of all first tries of this process."""
    return metrics.WORKER.get_sample_value("redraft_publish_lateness_seconds_sum") or 0.0
