"""The demo's data: that it is whole, believable, safe to start beside workers, and the same after a second start."""

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, create_engine, pool, text

from shared.domain import captions, failure_classes, fields, platforms, times
from shared.domain.edits import EditPatch
from shared.domain.errors import Faults
from shared.domain.lifecycle import Apply, Status, decide, needs_render
from shared.domain.posts import service_body
from shared.local.demo import DOCUMENTED, FAILED_TODAY, INSTAGRAM, TIKTOK, WORKSPACE, seed
from shared.store import keys, posts, publish_attempts
from shared.store.schedule import find_due

SECRET = "sk_kept-by-the-data-folder"


@pytest.fixture
def engine(database_url: str) -> Engine:
    return create_engine(database_url, poolclass=pool.NullPool)


def all_posts(engine: Engine) -> list[Any]:
    with engine.connect() as tx:
        return list(tx.execute(text("SELECT * FROM posts WHERE workspace_id = :id ORDER BY id"), {"id": WORKSPACE}))


def documented(engine: Engine) -> Any:
    return next(row for row in all_posts(engine) if row.id == DOCUMENTED)


def change(engine: Engine, assignments: str) -> None:
    with engine.begin() as tx:
        tx.execute(text(f"UPDATE posts SET {assignments} WHERE id = '{DOCUMENTED}'"))


def decided(tx: Connection, body: dict[str, Any]) -> Any:
    """What the worker would make of a PATCH of the documented post now."""
    [post] = posts.lock_posts(tx, [DOCUMENTED], "wait").values()
    return decide(post.facts, EditPatch.from_changes(body), posts.clock(tx))


def test_there_are_200_posts_in_all_statuses_on_both_accounts(engine: Engine, database_url: str) -> None:
    seed(database_url)
    made = all_posts(engine)
    assert Counter(row.status for row in made) == {"posted": 60, "failed": 12, "pending_render": 24, "generated": 104}
    assert {row.account_id for row in made} == {TIKTOK, INSTAGRAM}
    with engine.begin() as tx:
        accounts = keys.accounts_of(tx, WORKSPACE)
    assert [(one.id, one.platform) for one in accounts] == [
        ("acc_1a2b3c4d5e", "tiktok"),
        ("acc_2b3c4d5e6f", "instagram"),
    ]


def test_the_documented_request_works_as_it_stands_but_for_its_date(engine: Engine, database_url: str) -> None:
    seed(database_url)
    post = documented(engine)
    assert (post.account_id, post.content_type, post.status) == ("acc_1a2b3c4d5e", "video", "generated")
    assert post.sound_id
    assert timedelta(days=2) < post.scheduled_time - datetime.now(UTC) < timedelta(days=5)
    date = (datetime.now(UTC) + timedelta(days=7)).date()
    body = {
        "caption": "New caption",
        "scheduledTime": f"{date}T15:00",
        "timezone": "America/New_York",
        "contentType": "video",
        "contentUrl": "https://cdn.example.com/new.mp4",
        "soundId": None,
    }
    with engine.begin() as tx:
        decision = decided(tx, body)
    assert isinstance(decision, Apply)
    assert decision.after.caption == "New caption"


def test_nothing_that_waits_is_due_when_the_workers_start_and_some_posts_go_out_soon(
    engine: Engine, database_url: str
) -> None:
    seed(database_url)
    now = datetime.now(UTC)
    waiting = [row.scheduled_time - now for row in all_posts(engine) if row.status in {"generated", "pending_render"}]
    assert min(waiting) > timedelta(minutes=1)
    assert sum(ahead < timedelta(minutes=20) for ahead in waiting) >= 3
    assert timedelta(days=20) < max(waiting) < timedelta(days=31)
    with engine.begin() as tx:
        assert find_due(tx, "publish", 60, 500) == []


def test_half_of_what_is_to_be_rendered_is_rendered_at_once_and_the_rest_within_the_hour(
    engine: Engine, database_url: str
) -> None:
    seed(database_url)
    with engine.begin() as tx:
        assert len(find_due(tx, "render", 60, 500)) == 12
        tx.execute(text("UPDATE posts SET retry_at = retry_at - interval '1 hour'"))
        assert len(find_due(tx, "render", 60, 500)) == 24


def test_every_post_is_one_that_the_api_could_have_made(engine: Engine, database_url: str) -> None:
    seed(database_url)
    made = all_posts(engine)
    for row in made:
        faults = Faults()
        for url in [row.content_url] if row.content_type == "video" else row.content_url:
            fields.url(url)
        limits = captions.limits_of(row.platform, row.content_type, render_as_video=row.render_as_video)
        captions.check(row.caption, limits, faults)
        fields.sound_id(row.sound_id)
        platforms.check_sound_platform(row.sound_id, row.platform, faults)
        if row.content_type == "slides":
            platforms.check_slide_count(len(row.content_url), row.platform, faults)
        faults.raise_if_any()
        assert needs_render(row.content_type, render_as_video=row.render_as_video) or row.status != "pending_render"
        assert (row.slide_duration in {4, 6, 8}) == row.render_as_video
        assert (row.rendered_url is not None) == (row.render_as_video and row.status != "pending_render")
        assert row.timezone in {*times.ZONES, None}
        assert (row.scheduled_time.second, row.scheduled_time.microsecond) == (0, 0)
        assert row.created_at < min(row.scheduled_time, datetime.now(UTC))
    assert len({row.caption for row in made}) == 200
    assert {row.timezone for row in made} == {*times.ZONES, None}
    assert {row.content_type for row in made} == {"video", "slides"}


def test_ends_are_told_as_a_worker_tells_them_each_with_its_tries(engine: Engine, database_url: str) -> None:
    seed(database_url)
    with engine.connect() as tx:
        tries = list(tx.execute(text("SELECT * FROM publish_attempts ORDER BY id")))
    counts = Counter(row.post_id for row in tries)
    now = datetime.now(UTC)
    for row in all_posts(engine):
        ended = row.status in {"posted", "failed"}
        assert bool(counts[row.id]) == ended
        if ended:
            assert now - timedelta(days=8) < row.scheduled_time < now
        if row.status == "posted":
            assert counts[row.id] == 1
            assert row.scheduled_time < row.posted_at < now
            assert row.platform_post_id
        if row.status == "failed":
            last = [one for one in tries if one.post_id == row.id][-1]
            assert (row.failed_at, row.failure_message) == (last.finished_at, last.message)
            assert row.failure_class == failure_classes.of_row(None, row.failure_reason)
    recent = [row for row in all_posts(engine) if row.failed_at and row.failed_at > now - timedelta(days=1)]
    assert len(recent) >= FAILED_TODAY
    reasons = {row.failure_reason for row in all_posts(engine) if row.status == "failed"}
    assert {"publisher_unavailable", "publish_outcome_unknown"} < reasons
    assert {row.outcome for row in tries} == {"done", "refused", "server_error", "unknown"}
    assert all(row.started_at < row.finished_at < now for row in tries)
    with engine.connect() as tx:
        read, _ = posts.read_posts(tx, counts)
    for row in tries:
        post = read[row.post_id]
        assert row.body == service_body("publish", post, replace(post.facts, status=Status.GENERATED))


def test_a_second_seed_changes_nothing(engine: Engine, database_url: str) -> None:
    assert seed(database_url, secret=SECRET) == SECRET
    change(engine, "caption = 'mine', revision = 2")

    def everything() -> list[Any]:
        with engine.connect() as tx:
            tables = ("workspaces", "accounts", "api_keys", "posts", "publish_attempts", "edits")
            return [tx.execute(text(f"SELECT * FROM {table} ORDER BY id")).all() for table in tables]

    before = everything()
    assert seed(database_url, secret=SECRET) == SECRET
    assert everything() == before


def test_two_databases_get_the_same_posts_but_for_their_times(engine: Engine, database_url: str) -> None:
    def facts() -> list[Any]:
        kept = ("id", "platform", "content_url", "caption", "status", "timezone", "sound_id", "platform_post_id")
        return [tuple(getattr(row, name) for name in kept) for row in all_posts(engine)]

    seed(database_url)
    first = facts()
    with engine.begin() as tx:
        tx.execute(text("TRUNCATE posts, publish_attempts"))
    seed(database_url)
    assert facts() == first


def test_the_demo_key_may_do_everything_without_limit_and_is_stored_as_a_hash(
    engine: Engine, database_url: str
) -> None:
    secret = seed(database_url)
    with engine.begin() as tx:
        [found] = keys.find_keys(tx, [keys.hash_of(secret)]).values()
        assert secret not in str(tx.execute(text("SELECT CAST(api_keys AS text) FROM api_keys")).all())
    assert (found.key.name, found.key.workspace_id, found.key.rate_limit) == ("demo", WORKSPACE, None)
    assert found.key.scopes == {"posts:read", "posts:write", "bulk"}


def test_a_seed_without_a_kept_secret_makes_a_new_one_and_the_old_one_opens_nothing(
    engine: Engine, database_url: str
) -> None:
    old, new = seed(database_url), seed(database_url)
    with engine.begin() as tx:
        assert list(keys.find_keys(tx, [keys.hash_of(old), keys.hash_of(new)])) == [keys.hash_of(new)]
        assert len(keys.keys_of(tx, WORKSPACE)) == 1


def test_a_revoked_demo_key_works_again_after_the_next_seed(engine: Engine, database_url: str) -> None:
    seed(database_url, secret=SECRET)
    with engine.begin() as tx:
        [entry] = keys.keys_of(tx, WORKSPACE)
        keys.revoke_key(tx, entry.key.id)
    seed(database_url, secret=SECRET)
    with engine.begin() as tx:
        assert len(keys.find_keys(tx, [keys.hash_of(SECRET)])) == 1


OVER = {
    "posted": "status = 'posted', posted_at = now(), platform_post_id = '7'",
    "failed": "status = 'failed', failure_reason = 'publisher_unavailable', retry_at = now()",
    "deleted": "deleted_at = now()",
    "missed": "scheduled_time = now() - interval '1 hour', enqueued_revision = 4, enqueued_at = now()",
}


@pytest.mark.parametrize("how", OVER)
def test_the_documented_post_waits_again_if_it_is_over_and_nothing_else_moves(
    engine: Engine, database_url: str, how: str
) -> None:
    seed(database_url, secret=SECRET)
    change(engine, f"{OVER[how]}, revision = 7, schedule_revision = 4, caption = 'mine', timezone = 'Asia/Tokyo'")
    before = all_posts(engine)
    seed(database_url, secret=SECRET)
    after = all_posts(engine)
    assert [new.id for old, new in zip(before, after, strict=True) if old != new] == [DOCUMENTED]
    post = documented(engine)
    assert (post.status, post.revision, post.schedule_revision, post.caption) == ("generated", 8, 5, "mine")
    gone = (post.posted_at, post.platform_post_id, post.failure_reason, post.deleted_at, post.retry_at)
    assert (gone, post.claim_kind, post.enqueued_revision, post.enqueued_at) == ((None,) * 5, None, None, None)
    assert times.to_local(post.scheduled_time, "Asia/Tokyo").hour == 15
    assert timedelta(days=2) < post.scheduled_time - datetime.now(UTC) < timedelta(days=4)
    with engine.begin() as tx:
        assert isinstance(decided(tx, {"caption": "again"}), Apply)


WAITING = {
    "edited": "scheduled_time = now() + interval '1 minute', caption = 'mine', revision = 9",
    "claimed": "scheduled_time = now(), claim_kind = 'publish', claim_token = 'clm_1', claim_expires_at = now()",
    "to be rendered": "status = 'pending_render', scheduled_time = now()",
}


@pytest.mark.parametrize("how", WAITING)
def test_a_documented_post_that_is_not_over_is_left_alone(engine: Engine, database_url: str, how: str) -> None:
    seed(database_url, secret=SECRET)
    change(engine, WAITING[how])
    before = all_posts(engine)
    seed(database_url, secret=SECRET)
    assert all_posts(engine) == before


def test_a_documented_post_that_somebody_holds_is_left_alone_and_nobody_waits(
    engine: Engine, database_url: str
) -> None:
    seed(database_url, secret=SECRET)
    change(engine, OVER["posted"])
    with engine.begin() as person:
        person.execute(text("SELECT 1 FROM posts WHERE id = :id FOR UPDATE"), {"id": DOCUMENTED})
        seed(database_url, secret=SECRET)
    assert documented(engine).status == "posted"


def test_a_workspace_of_the_users_own_called_demo_is_left_alone(engine: Engine, database_url: str) -> None:
    with engine.begin() as tx:
        own = keys.create_workspace(tx, "demo")
    seed(database_url)
    with engine.begin() as tx:
        assert (keys.accounts_of(tx, own), keys.keys_of(tx, own)) == ([], [])
    assert len(all_posts(engine)) == 200


def test_a_put_back_post_is_asked_for_anew_whatever_was_sent_before(engine: Engine, database_url: str) -> None:
    seed(database_url)
    first = documented(engine)
    change(engine, "status = 'failed', failure_reason = 'a', failure_class = 'unknown', failed_at = now()")
    with engine.begin() as tx:
        tries = [
            publish_attempts.Attempt(DOCUMENTED, 1, f"key{number}", "{}", number, f"clm{number}") for number in (1, 2)
        ]
        publish_attempts.record_attempts(tx, tries)
        publish_attempts.finish_attempts(tx, [publish_attempts.AttemptResult("clm1", "done", None)])
    seed(database_url)
    row = documented(engine)
    assert (row.status, row.failure_reason, row.failure_class, row.failed_at) == ("generated", None, None, None)
    with engine.begin() as tx:
        assert publish_attempts.histories(tx, [DOCUMENTED]) == {}
    # A new key follows from it.
    assert row.created_at > first.created_at
