"""Jobs with a gap between the posts of an account: what they skip, what waits, and how they freeze their posts."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text

from shared.domain import reschedule_gaps, reschedules
from shared.domain.times import Duration, format_instant
from tests import factories, jobs
from tests.worker.bulk import ALL, chunks_of_three, locked_by_a_person
from worker import reschedule, reschedule_chunk

__all__ = ["chunks_of_three"]

DAY = datetime(2030, 6, 1, 9, tzinfo=UTC)
CLOSE = ("skipped", "too_close")
MOVED = ("applied", None)


def at(minutes: float) -> datetime:
    return DAY + timedelta(minutes=minutes)


def post(engine: Engine, name: str, minutes: float, **columns: Any) -> str:
    with engine.begin() as tx:
        return factories.post(tx, name, scheduled_time=at(minutes), **columns)


def item(name: str, minutes: float) -> dict[str, str]:
    return {"postId": name, "scheduledTime": format(at(minutes), "%Y-%m-%dT%H:%M"), "timezone": "Europe/London"}


def items(gap: str = "PT30M", /, **minutes: float) -> dict[str, Any]:
    # London is an hour ahead of UTC in June.
    return {"items": [item(name, minute + 60) for name, minute in minutes.items()], "minGap": gap}


BODIES: list[tuple[dict[str, Any], dict[str, tuple[str, str | None]]]] = [
    ({"filter": ALL, "shift": "P1D", "minGap": "PT30M"}, {"a": MOVED, "b": MOVED, "c": MOVED, "d": CLOSE, "e": MOVED}),
    ({"filter": {"postIds": ["a"]}, "shift": "P1D", "minGap": "PT30M"}, {"a": CLOSE}),
    ({"filter": {"postIds": ["a"]}, "shift": "P1DT30M", "minGap": "PT30M"}, {"a": MOVED}),
    ({"filter": {"postIds": ["a"]}, "shift": "P1DT29M", "minGap": "PT30M"}, {"a": CLOSE}),
    (items(a=60, b=70, c=90), {"a": MOVED, "b": CLOSE, "c": MOVED}),
    (items(a=1440, b=0), {"a": MOVED, "b": MOVED}),
    (items(e=0), {"e": MOVED}),
    (items("P1D", a=0), {"a": MOVED}),
    (items("P1D", a=1), {"a": CLOSE}),
    (
        {
            "filter": {"postIds": ["a", "b", "c"]},
            "spread": {"from": "2031-06-01T09:00", "to": "2031-06-01T10:00", "timezone": "Asia/Tokyo"},
            "minGap": "PT31M",
        },
        {"a": MOVED, "b": CLOSE, "c": MOVED},
    ),
]


@pytest.mark.parametrize("dry_run", [False, True])
@pytest.mark.parametrize(("body", "expected"), BODIES, ids=[str(number) for number in range(len(BODIES))])
def test_a_post_that_would_come_too_near_to_another_one_of_its_account_is_skipped(
    engine: Engine, body: dict[str, Any], expected: dict[str, tuple[str, str | None]], *, dry_run: bool
) -> None:
    """a and b a day apart, c ten days later with d ten minutes behind it; e of another account at the time of a."""
    for name, minutes in (("a", 0), ("b", 1440), ("c", 14_400), ("d", 14_410)):
        post(engine, name, minutes)
    post(engine, "e", 0, account_id=factories.INSTAGRAM, platform="instagram")
    before = {name: jobs.at(engine, name) for name in "abcde"}
    job = jobs.done(body | {"dryRun": dry_run})
    assert jobs.told(job) == expected
    for one in jobs.results(job):
        stands = jobs.at(engine, one.post_id)
        if dry_run or one.outcome == "skipped":
            assert stands == before[one.post_id]
        else:
            assert format_instant(stands) == one.after


def test_posts_that_wait_for_nothing_take_no_place(engine: Engine) -> None:
    post(engine, "a", 0)
    post(engine, "posted", 1440, status="posted", posted_at=DAY)
    post(engine, "failed", 1440, status="failed", failure_reason="refused")
    post(engine, "gone", 1440, deleted_at=DAY)
    assert jobs.told(jobs.done({"filter": {"postIds": ["a"]}, "shift": "P1D", "minGap": "PT1H"})) == {"a": MOVED}


def test_a_queued_edit_of_a_post_of_the_job_is_applied_before_the_posts_are_compared(engine: Engine) -> None:
    for name, minutes in (("a", 0), ("b", 1440)):
        post(engine, name, minutes)
    with engine.begin() as tx:
        factories.edit(tx, "b", {"scheduledTime": "2030-06-05T09:00", "timezone": "Asia/Tokyo"})
    body = {"filter": {"postIds": ["a", "b"]}, "shift": "P1D", "minGap": "PT1H"}
    assert jobs.told(jobs.done(body | {"dryRun": True})) == {"a": MOVED, "b": MOVED}
    assert jobs.told(jobs.done(body)) == {"a": MOVED, "b": MOVED}


@pytest.mark.usefixtures("chunks_of_three")
def test_an_account_is_never_divided_between_two_chunks(engine: Engine) -> None:
    """Small accounts share a chunk, and an account larger than a chunk is one."""
    sizes = {"acc_a": 2, "acc_b": 2, "acc_c": 7, "acc_d": 1}
    with engine.begin() as tx:
        for account, size in sizes.items():
            factories.account(tx, account)
            for number in range(size):
                factories.post(tx, f"{number}_{account}", account_id=account, scheduled_time=at(number * 60))
    named = [f"{number}_{account}" for account, size in sizes.items() for number in range(size)]
    job = jobs.make({"filter": {"postIds": [*named, "unknown"]}, "shift": "PT1H", "minGap": "PT1H"})
    reschedule.run_chunk(job)
    with engine.connect() as tx:
        found = tx.execute(text("SELECT number, first, post_ids FROM reschedule_chunks ORDER BY number")).all()
    assert [row.number for row in found] == list(range(len(found)))
    assert [row.first for row in found] == [sum(len(row.post_ids) for row in found[:number]) for number in range(3)]
    assert [{one[2:] for one in row.post_ids if one != "unknown"} for row in found] == [
        {"acc_a"}, {"acc_b", "acc_c"}, {"acc_d"},
    ]  # fmt: skip
    assert all(row.post_ids == sorted(row.post_ids) for row in found)
    jobs.run(job)
    assert jobs.counts(job) == ("done", 13, 12, 0, 1)
    assert jobs.told(job)["unknown"] == ("failed", "not_found")


def test_a_job_with_more_posts_of_one_account_than_it_can_compare_at_once_fails_and_moves_none(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reschedule_gaps, "MOST_OF_AN_ACCOUNT", 3)
    for number in range(4):
        post(engine, f"p{number}", number * 60)
    post(engine, "e", 0, account_id=factories.INSTAGRAM, platform="instagram")
    job = jobs.make({"filter": ALL, "shift": "P1D", "minGap": "PT1H"})
    assert [one.outcome for one in jobs.run(job)] == ["failed"]
    assert "at most 10,000 posts of one account" in (jobs.job(job).error or "")
    assert jobs.audit(engine, job) == []
    fewer = {"scheduledFrom": format_instant(at(60))}
    assert jobs.counts(jobs.done({"filter": fewer, "shift": "P1D", "minGap": "PT1H"})) == ("done", 3, 3, 0, 0)
    assert jobs.counts(jobs.done({"filter": ALL, "shift": "P1D"})) == ("done", 5, 5, 0, 0)


def test_a_post_beside_one_that_a_person_has_locked_waits_with_it_and_both_are_moved(engine: Engine) -> None:
    """Skipped as too close it would be for good, and so would be each one before it."""
    for number, name in enumerate("abcd"):
        post(engine, name, number * 1440)
    post(engine, "far", 90_000)
    job = jobs.make({"filter": ALL, "shift": "P1D", "minGap": "PT1H"})
    with locked_by_a_person(engine, "c"):
        ran = [reschedule.run_chunk(job) for _ in range(3)]
        assert [one.outcome for one in ran] == ["frozen", "moved", "moved"]
        assert jobs.told(job) == {"d": MOVED, "far": MOVED}
        assert jobs.job(job).status == "running"
    jobs.run(job)
    assert jobs.told(job) == dict.fromkeys(("a", "b", "c", "d", "far"), MOVED)


def test_a_dry_run_that_comes_back_to_a_post_compares_it_with_where_the_others_would_be(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, minutes in (("a", 0), ("b", 1440), ("c", 1450)):
        post(engine, name, minutes)
    with engine.begin() as tx:
        factories.edit(tx, "c", {"caption": "waits"})
    predicted, first = reschedule_chunk._predicted, [True]

    def later(tx: Any, waiting: Any) -> Any:
        return dict.fromkeys(waiting) if first and first.pop() else predicted(tx, waiting)

    monkeypatch.setattr(reschedule_chunk, "_predicted", later)
    body = {"filter": {"postIds": ["a", "b", "c"]}, "shift": "P1D", "minGap": "PT30M", "dryRun": True}
    assert jobs.told(jobs.done(body))["c"] == CLOSE


def test_code_of_before_moves_nothing_for_a_job_with_a_gap() -> None:
    """It knows no such plan: it makes one of items, which have no aims."""
    plan = reschedules.plan_of(reschedule_gaps.stored({"shift": "P1D"}, Duration(0, 3600)))
    with pytest.raises(IndexError):
        reschedules.aiming(plan, None)(0, None)  # type: ignore[arg-type]
