"""What is held is not sent for, not claimed, not late and not stuck; a resume makes no burst."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from shared.domain.service_answers import Reply
from shared.store import StaleWriteError, db, failures, gauges, late, overview, scope_holds
from shared.store import claims as claims_store
from shared.store import holds as holds_store
from shared.store import posts as posts_store
from shared.store.claims import NewClaim
from tests import factories, holding
from tests.holding import ACCOUNT, WORKSPACE, missed
from tests.worker.fake_services import (
    MADE,
    NEVER,
    PAST,
    UNKNOWN,
    FakeServices,
    at,
    change,
    due,
    expire,
    fake_services,
    publish_now,
    render_now,
)
from tests.worker.test_schedule import sent
from worker import apply, publish, rescue, schedule
from worker.published import Published

__all__ = ["due", "fake_services", "sent"]

SCOPES = [ACCOUNT, WORKSPACE]


def seconds(count: float) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=count)


def let_go(engine: Engine, *posts: str) -> dict[str, str]:
    """What dispatch would send for now is published: the outcome of each post."""
    marked = [one for page in schedule.mark("publish", 1000) for one in page]
    return publish_now(*((one.post_id, one.revision) for one in marked if one.at is None))[0] if marked else {}


def test_a_held_post_is_not_claimed_and_goes_out_at_its_time_after_its_resume(
    engine: Engine, fake_services: FakeServices, due: str
) -> None:
    holding.hold(engine, due)
    assert publish_now((due, 1))[0] == {due: "held"}
    assert fake_services.asked == []
    change(engine, "posts", due, scheduled_time=seconds(1800))
    assert holding.resume(engine, due).posts == [due]
    change(engine, "posts", due, scheduled_time=seconds(-1))
    assert publish_now((due, 1))[0] == {due: "done"}


@pytest.mark.parametrize("scope", [None, ACCOUNT])
def test_a_message_that_met_a_hold_leaves_no_mark_so_that_dispatch_sends_after_the_resume(
    engine: Engine, sent: list[Any], fake_services: FakeServices, scope: Any
) -> None:
    with engine.begin() as tx:
        post = factories.post(tx, scheduled_time=seconds(30))
    assert schedule.dispatch_due() == 1
    holding.hold_scope(engine, scope) if scope else holding.hold(engine, post)
    assert publish_now((post, 1))[0] == {post: "held"}
    assert schedule.dispatch_due() == 0
    holding.resume_scope(engine, scope) if scope else holding.resume(engine, post)
    assert schedule.dispatch_due() == 1


@pytest.mark.parametrize("scope", SCOPES)
def test_posts_of_a_held_account_or_workspace_are_not_sent_for_and_others_are(
    engine: Engine, sent: list[Any], scope: Any
) -> None:
    with engine.begin() as tx:
        factories.workspace(tx, "ws_other", "_other", "sk_test_another")
        near, other = factories.post(tx, scheduled_time=seconds(30)), []
        other.append(factories.post(tx, scheduled_time=seconds(30), workspace_id="ws_other", account_id="acc_x"))
        if scope is ACCOUNT:
            other.append(factories.post(tx, scheduled_time=seconds(30), account_id=factories.INSTAGRAM))
    holding.hold_scope(engine, scope)
    schedule.dispatch_due()
    assert sorted(pair[0] for _, args, _ in sent for pair in args[0]) == sorted(other)
    holding.resume_scope(engine, scope)
    assert schedule.dispatch_due() == 1
    assert not missed(engine, near)


def test_what_missed_its_time_stays_held_and_a_new_time_or_publish_lets_it_go(
    engine: Engine, fake_services: FakeServices, due: str
) -> None:
    holding.hold(engine, due)
    done = holding.resume(engine, due)
    assert (done.posts, done.missed, missed(engine, due)) == ([], [due], True)
    assert publish_now((due, 1))[0] == {due: "held"}
    assert holding.resume(engine, due).missed == []
    with engine.begin() as tx:
        factories.edit(tx, due, at(30))
    apply.apply_edits([due])
    assert not missed(engine, due)
    change(engine, "posts", due, scheduled_time=seconds(-1))
    assert publish_now((due, 2))[0] == {due: "done"}


def test_publish_lets_a_missed_post_go_at_once(engine: Engine, fake_services: FakeServices, due: str) -> None:
    holding.hold(engine, due)
    holding.resume(engine, due)
    assert let_go(engine) == {}
    assert holding.resume(engine, due, publish=True).posts == [due]
    assert let_go(engine) == {due: "done"}


@pytest.mark.parametrize("eager", [True, False], ids=["marked while held", "marked by the resume"])
@pytest.mark.parametrize("scope", SCOPES)
def test_a_resume_of_many_makes_no_burst(
    engine: Engine, fake_services: FakeServices, sent: list[Any], scope: Any, *, eager: bool
) -> None:
    with engine.begin() as tx:
        late_ones = [factories.post(tx, scheduled_time=seconds(-60)) for _ in range(30)]
        slides = factories.slides(tx, scheduled_time=seconds(-60))
        later = factories.post(tx)
    fake_services.usual = MADE
    holding.hold_scope(engine, scope)
    if eager:
        assert schedule.dispatch_due() == 0
        assert all(missed(engine, post) for post in late_ones)
    assert holding.resume_scope(engine, scope).missed == 31
    assert let_go(engine) == {}
    assert not missed(engine, later)
    # A render goes on, and the post waits all the same.
    assert render_now(slides)[0] == "done"
    assert publish_now((slides, 1))[0] == {slides: "held"}
    assert fake_services.asked[-1].kind == "render"


def test_a_page_that_is_full_comes_again_and_each_step_commits(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.store.scope_holds.TOGETHER", 4)
    with engine.begin() as tx:
        posts = [factories.post(tx, scheduled_time=seconds(-60)) for _ in range(11)]
    holding.hold_scope(engine)
    assert holding.resume_scope(engine).missed == 11
    assert all(missed(engine, post) for post in posts)
    assert holding.resume_scope(engine, publish=True).released == 11
    assert not any(missed(engine, post) for post in posts)


@pytest.mark.parametrize("publish", [False, True])
@pytest.mark.parametrize("steps", [1, 2])
def test_a_resume_that_dies_between_its_steps_is_begun_again(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, steps: int, *, publish: bool
) -> None:
    monkeypatch.setattr("shared.store.scope_holds.TOGETHER", 4)
    with engine.begin() as tx:
        posts = [factories.post(tx, scheduled_time=seconds(-60)) for _ in range(9)]
    holding.hold_scope(engine)
    schedule.mark_missed()
    works = scope_holds.resuming(ACCOUNT, holding.KIM, publish_missed=publish)
    work = next(works)
    for _ in range(steps):
        with engine.begin() as tx:
            step = work(tx)
        work = works.send(step) if step.more or publish or work is scope_holds.mark_page else work
    holding.resume_scope(engine, publish=publish)
    assert [missed(engine, post) for post in posts] == [not publish] * 9
    with engine.connect() as tx:
        assert scope_holds.of(tx, ACCOUNT) is None


def test_publish_of_an_account_lets_its_missed_posts_go_but_none_that_is_held_by_itself(
    engine: Engine, fake_services: FakeServices
) -> None:
    with engine.begin() as tx:
        free, own = (factories.post(tx, scheduled_time=seconds(-60)) for _ in range(2))
        other = factories.post(tx, scheduled_time=seconds(-60), account_id=factories.INSTAGRAM)
    holding.hold(engine, other)
    holding.resume(engine, other)
    holding.hold(engine, own)
    holding.hold_scope(engine)
    schedule.mark_missed()
    assert holding.resume_scope(engine, publish=True).released == 1
    assert let_go(engine) == {free: "done"}


def test_a_resume_of_an_account_in_a_held_workspace_sends_nothing(
    engine: Engine, fake_services: FakeServices, due: str
) -> None:
    holding.hold_scope(engine, WORKSPACE)
    holding.hold_scope(engine, ACCOUNT)
    assert holding.resume_scope(engine, ACCOUNT, publish=True).released == 0
    assert publish_now((due, 1))[0] == {due: "held"}


def test_a_claim_that_was_there_before_goes_on_to_its_next_try(
    engine: Engine, fake_services: FakeServices, due: str
) -> None:
    fake_services.replies = [UNKNOWN]
    publish_now((due, 1))
    taken = holding.hold_scope(engine)
    assert (taken.going_out, taken.going_out_total) == ([due], 1)
    expire(engine, due)
    assert publish_now((due, 1))[0] == {due: "done"}


def test_a_claim_that_was_given_back_is_held(engine: Engine, fake_services: FakeServices, due: str) -> None:
    fake_services.replies = [NEVER]
    publish_now((due, 1))
    holding.hold_scope(engine)
    change(engine, "posts", due, retry_at=seconds(-1))
    assert publish_now((due, 1))[0] == {due: "held"}


def failed_post(engine: Engine, fake_services: FakeServices, post: str, *replies: Reply) -> None:
    fake_services.replies = list(replies)
    for _ in replies:
        publish_now((post, 1))
        if factories.row(engine, "posts", post).claim_kind:
            expire(engine, post)
    assert factories.row(engine, "posts", post).status == "failed"


def retry(engine: Engine, post: str) -> list[str]:
    with engine.begin() as tx:
        revision = posts_store.read_posts(tx, [post])[0][post].facts.revision
        return [one.back for one in failures.retry_unchanged(tx, {post: revision}, holding.KIM)]


def test_a_retry_of_a_held_post_comes_back_held_unless_it_may_have_gone_out(
    engine: Engine, fake_services: FakeServices, due: str
) -> None:
    with engine.begin() as tx:
        unsure = factories.post(tx, scheduled_time=factories.soon(PAST))
    refused = Reply("refused", message="suspended")
    failed_post(engine, fake_services, due, refused)
    failed_post(engine, fake_services, unsure, UNKNOWN, refused)
    holding.hold_scope(engine)
    assert (retry(engine, due), retry(engine, unsure)) == (["due"], [])
    with engine.begin() as tx:
        assert failures.held_and_unsure(tx, [due, unsure]) == [unsure]
    assert publish_now((due, 1))[0] == {due: "held"}
    holding.resume_scope(engine)
    assert missed(engine, due)
    assert retry(engine, unsure) == ["closed"]


def test_what_is_held_is_no_fault(engine: Engine, due: str) -> None:
    with engine.begin() as tx:
        slides = factories.slides(tx, scheduled_time=factories.soon(PAST))

    def found() -> tuple[Any, ...]:
        with engine.connect() as tx:
            counts = {name + label: value for name, label, value in gauges.read(tx, "posts", 1.0, 60.0)}
            reasons = late.why(tx, [due, slides])
            listed = {post.id for post in late.late_posts(tx, 10)}
            return overview.summary(tx).late, listed, counts["redraft_posts_overdue"], reasons[due].code

    assert found() == (2, {due, slides}, 1.0, "unsent")
    holding.hold_scope(engine, reason="typo")
    assert found() == (0, set(), 0.0, "held")
    schedule.mark_missed()
    holding.resume_scope(engine)
    assert found() == (0, set(), 0.0, "missed")
    with engine.connect() as tx:
        held = {(name, label): value for name, label, value in gauges.read(tx, "holds", 1.0, 60.0)}
    assert held["redraft_posts_held", "missed"] == 2.0
    assert held["redraft_holds", "account"] == 0.0


def test_rescue_rings_for_no_held_post(engine: Engine, due: str, sent: list[Any]) -> None:
    holding.hold(engine, due)
    assert "publishes" not in rescue.rescue()
    assert sent == []


@pytest.mark.parametrize("how", ["its own", "missed", "its account", "its workspace"])
def test_the_database_refuses_a_claim_of_a_held_post_by_older_code(engine: Engine, due: str, how: str) -> None:
    if how in {"its own", "missed"}:
        holding.hold(engine, due)
    if how == "missed":
        holding.resume(engine, due)
    if how in {"its account", "its workspace"}:
        holding.hold_scope(engine, ACCOUNT if how == "its account" else WORKSPACE)
    older = """
        UPDATE posts SET claim_kind = 'publish', claim_token = 'clm_1', claim_expires_at = now() WHERE id = :id"""
    with pytest.raises(DBAPIError, match="is held: no publish claims it") as refused, engine.begin() as tx:
        tx.execute(text(older), {"id": due})
    assert db.is_transient(refused.value)
    if how in {"its own", "missed"}:
        with pytest.raises(StaleWriteError), db.transaction() as tx:
            claims_store.take_claims(tx, [NewClaim(due, "publish", "clm_1", "generated")], 60.0)


def test_a_hold_and_a_resume_leave_acts_with_what_stood_there(engine: Engine, due: str) -> None:
    holding.hold(engine, due, reason="typo")
    holding.hold(engine, due, reason="typo")
    holding.hold(engine, due, reason="price")
    holding.resume(engine, due)
    with engine.connect() as tx:
        acts = tx.execute(text("SELECT action, from_state, actor, before FROM acts ORDER BY id")).all()
    assert [(act.action, act.from_state, act.actor) for act in acts] == [
        ("hold", "generated", "kim"), ("hold", "generated", "kim"), ("resume", "generated", "kim"),
    ]  # fmt: skip
    assert [act.before["held"] and act.before["held"]["reason"] for act in acts] == [None, "typo", "price"]


def test_events_tell_of_posts_and_of_scopes(engine: Engine, due: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDRAFT_WEBHOOK_URL", "http://127.0.0.1:9/")
    factories.forget_caches()
    holding.hold(engine, due, reason="typo")
    holding.resume(engine, due)
    holding.resume(engine, due, publish=True)
    holding.hold_scope(engine, reason="stop")
    holding.resume_scope(engine)
    with engine.connect() as tx:
        rows = tx.execute(text("SELECT post_id, type, data FROM webhook_events ORDER BY seq")).all()
    told = [(row.post_id, row.type, row.data["of"], row.data.get("reason")) for row in rows]
    assert told == [
        (due, "post.held", "post", "typo"),
        (due, "post.held", "post", "missed"),
        (due, "post.resumed", "post", None),
        (factories.TIKTOK, "post.held", "account", "stop"),
        (due, "post.held", "post", "missed"),
        (factories.TIKTOK, "post.resumed", "account", None),
    ]
    assert rows[3].data["postId"] is None
    assert rows[3].data["accountId"] == factories.TIKTOK


def test_a_post_that_does_not_wait_cannot_be_held(engine: Engine) -> None:
    with engine.begin() as tx:
        posted = factories.post(tx, status="posted", posted_at=seconds(-1))
        deleted = factories.post(tx, deleted_at=seconds(-1))
    assert holding.hold(engine, posted, deleted).posts == []


def test_a_claim_reads_holds_in_the_trip_that_locks(engine: Engine, due: str) -> None:
    with factories.statements() as seen:
        publish.claim({due: 1}, Published())
    trips = [sql for sql in seen if "pg_try_advisory_xact_lock_shared" in sql or "LEFT JOIN holds" in sql]
    assert len(trips) == 2
    with engine.connect() as tx:
        assert holds_store.of(tx, [due]) == {}
