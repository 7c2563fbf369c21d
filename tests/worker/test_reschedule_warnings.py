"""Warnings of jobs without a gap: the statement that finds posts of one minute, held against the rule in the domain."""

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text

from shared.domain.reschedule_gaps import Placed, sharing_a_minute
from shared.store import reschedule_warnings as warnings_store
from shared.store import reschedules as reschedules_store
from shared.store.db import transaction
from tests import factories, jobs
from tests.worker.bulk import ALL, chunks_of_three
from worker import reschedule

__all__ = ["chunks_of_three"]

DAY = datetime(2030, 6, 1, 9, tzinfo=UTC)


def warned(job_id: str) -> set[str]:
    return {one.post_id for one in jobs.results(job_id) if one.warning == "same_minute"}


def post(engine: Engine, name: str, at: datetime, **columns: Any) -> str:
    with engine.begin() as tx:
        return factories.post(tx, name, scheduled_time=at, **columns)


@pytest.mark.parametrize("dry_run", [False, True])
def test_posts_that_share_a_minute_with_another_one_of_their_account_are_warned_of(
    engine: Engine, *, dry_run: bool
) -> None:
    day, second = timedelta(days=1), timedelta(seconds=1)
    post(engine, "a", DAY)
    post(engine, "b", DAY + day)
    post(engine, "b2", DAY + day + 59 * second)
    post(engine, "c", DAY + 2 * day, account_id=factories.INSTAGRAM, platform="instagram")
    post(engine, "d", DAY + 5 * day)
    post(engine, "stays", DAY + 6 * day + 30 * second)
    post(engine, "e", DAY + 9 * day)
    post(engine, "posted", DAY + 10 * day, status="posted", posted_at=DAY)
    named = {"postIds": ["a", "b", "b2", "c", "d", "e", "nobody"]}
    job = jobs.done({"filter": named, "shift": "P1D", "dryRun": dry_run})
    assert warned(job) == {"b", "b2", "d"}, "a moves to where b leaves, and c is another account's"


def test_a_job_of_daily_posts_that_each_move_to_the_next_days_place_warns_of_none(engine: Engine) -> None:
    for number in range(5):
        post(engine, f"p{number}", DAY + timedelta(days=number))
    for dry_run in (True, False):
        assert warned(jobs.done({"filter": ALL, "shift": "P1D", "dryRun": dry_run})) == set()


def test_only_posts_that_the_job_puts_into_a_minute_are_warned_of(engine: Engine) -> None:
    """Not a post that has its time already or gets another zone at it, and not a skipped one."""
    for name in ("skipped", "there", "zone"):
        post(engine, name, DAY, timezone="Europe/London")
    post(engine, "alone", DAY - timedelta(hours=1), timezone="Europe/London")
    items = [
        {"postId": "skipped", "scheduledTime": "2020-06-01T10:00", "timezone": "Europe/London"},
        {"postId": "there", "scheduledTime": "2030-06-01T10:00", "timezone": "Europe/London"},
        {"postId": "zone", "scheduledTime": "2030-06-01T11:00", "timezone": "Europe/Paris"},
    ]
    moves = [{"postId": "alone", "scheduledTime": "2030-06-01T10:00", "timezone": "Europe/London"}]
    expected = [("skipped", "skipped", None), ("there", "applied", None), ("zone", "applied", None)]
    for dry_run in (True, False):
        job = jobs.done({"items": items, "dryRun": dry_run})
        assert [(one.post_id, one.outcome, one.warning) for one in jobs.results(job)] == expected
    for dry_run in (True, False):
        job = jobs.done({"items": items + moves, "dryRun": dry_run})
        assert [(one.post_id, one.outcome, one.warning) for one in jobs.results(job)] == [
            ("alone", "applied", "same_minute"),
            *expected,
        ]


def test_a_job_with_a_gap_has_no_warnings(engine: Engine) -> None:
    post(engine, "a", DAY)
    post(engine, "b", DAY + timedelta(days=1, seconds=30))
    assert warned(jobs.done({"filter": {"postIds": ["a"]}, "shift": "PT24H", "minGap": "PT1M"})) == set()
    assert warned(jobs.done({"filter": {"postIds": ["a"]}, "shift": "PT24H"})) == {"a"}


@pytest.mark.parametrize("small", [True, False])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.usefixtures("chunks_of_three")
def test_the_statement_finds_what_the_rule_finds(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, seed: int, *, small: bool
) -> None:
    monkeypatch.setattr(warnings_store, "SMALL", 10_000 if small else 0)
    source = random.Random(seed)
    accounts = [factories.TIKTOK, "acc_b"]
    with engine.begin() as tx:
        factories.account(tx, "acc_b")
        factories.workspace(tx, "ws_other", "_other", "sk_other")
        for number in range(40):
            columns = {"scheduled_time": DAY + timedelta(seconds=source.randrange(1800))}
            factories.post(tx, f"p{number:02}", account_id=source.choice(accounts), **columns)
        factories.post(tx, "foreign", workspace_id="ws_other", scheduled_time=DAY)
    moving = [f"p{number:02}" for number in range(40) if source.random() < 0.7]
    with engine.connect() as tx:
        rows = tx.execute(text("SELECT id, account_id, scheduled_time FROM posts WHERE id LIKE 'p%'")).all()
    by = timedelta(minutes=seed)
    posts = [Placed(row.id, row.account_id, row.scheduled_time + by * (row.id in moving)) for row in rows]
    expected = sharing_a_minute(posts, moving if by else ())
    body = {"filter": {"postIds": moving}, "shift": f"PT{by // timedelta(minutes=1)}M"}
    assert warned(jobs.done(body | {"dryRun": True})) == expected
    assert warned(jobs.done(body)) == expected
    assert bool(expected) is bool(by), "a case that says something"


def test_a_job_whose_task_died_before_its_end_is_ended_by_the_next_message(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    post(engine, "a", DAY)
    post(engine, "b", DAY + timedelta(seconds=1))
    job = jobs.make({"filter": ALL, "shift": "P1D"})

    def dies(*_: object) -> None:
        raise KeyboardInterrupt

    for place, name in ((warnings_store, "warn"), (reschedules_store, "finish")):
        with monkeypatch.context() as patch:
            patch.setattr(place, name, dies)
            with pytest.raises(KeyboardInterrupt):
                jobs.run(job)
        assert jobs.counts(job) == ("running", 2, 2, 0, 0)
    ran = jobs.run(job)
    assert [(one.outcome, one.messages) for one in ran] == [("finished", 0)]
    assert jobs.counts(job) == ("done", 2, 2, 0, 0)
    assert warned(job) == {"a", "b"}


def test_a_job_is_ended_although_its_warnings_take_too_long(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    post(engine, "a", DAY)

    def stopped(tx: Any, _job: object) -> None:
        tx.execute(text("SET LOCAL statement_timeout = '5ms'"))
        tx.execute(text("SELECT pg_sleep(30)"))

    monkeypatch.setattr(warnings_store, "warn", stopped)
    job = jobs.done({"filter": ALL, "shift": "P1D"})
    assert jobs.counts(job) == ("done", 1, 1, 0, 0)


def test_while_one_task_ends_a_job_another_one_leaves_it_alone(engine: Engine) -> None:
    post(engine, "a", DAY)
    job = jobs.make({"filter": ALL, "shift": "P1D"})
    reschedule.run_chunk(job)
    with transaction() as other:
        other.execute(
            text("SELECT pg_advisory_xact_lock(7340, hashtext(CAST(:id AS text) || '/' || '-2'))"), {"id": job}
        )
        ran = reschedule.run_chunk(job)
        assert (ran.outcome, ran.messages, ran.counts["applied"]) == ("busy", 1, 1)
        assert jobs.counts(job)[0] == "running"
    jobs.run(job)
    assert jobs.counts(job)[0] == "done"
