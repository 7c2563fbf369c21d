"""What a bulk job means: the posts of its filter, the places of its spread, its items."""

from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import Engine, text

from shared.domain.times import format_local, to_local
from tests import factories, jobs
from tests.worker.bulk import ALL, chunks_of_three, posts

__all__ = ["chunks_of_three"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"all": True}, "abcde"),
        ({"accountIds": [factories.INSTAGRAM]}, "c"),
        ({"platform": "instagram"}, "c"),
        ({"scheduledFrom": "2050-01-01T10:00:00Z"}, "ab"),
        ({"scheduledFrom": "2050-01-01T10:00Z", "scheduledTo": "2050-01-01T11:00:00Z"}, "a"),
        ({"scheduledTo": "2050-01-01T10:00:00Z"}, "cde"),
        ({"platform": "tiktok", "scheduledTo": "2050-01-01T10:00:00Z"}, "de"),
        ({"postIds": ["a", "posted"]}, "a+posted"),
        ({"postIds": ["a", "c"], "platform": "instagram"}, "c"),
        ({"accountIds": ["acc_nobody"]}, ""),
    ],
)
def test_a_filter_means_the_waiting_posts_that_meet_all_its_conditions(
    engine: Engine, given: dict[str, Any], expected: str
) -> None:
    instagram = {"platform": "instagram", "account_id": factories.INSTAGRAM}
    with engine.begin() as tx:
        factories.workspace(tx, "ws_other", "_other", "sk_other")
        factories.post(tx, "a", scheduled_time="2050-01-01T10:00Z")
        factories.post(tx, "b", scheduled_time="2050-01-01T11:00Z")
        factories.post(tx, "c", **instagram)
        factories.slides(tx, "d")
        factories.post(tx, "e")
        factories.post(tx, "posted", status="posted", posted_at=factories.soon(-5), scheduled_time="2050-01-01T10:30Z")
        factories.post(tx, "gone", deleted_at=factories.soon(-1))
        factories.post(tx, "foreign", workspace_id="ws_other", account_id=factories.TIKTOK + "_other")
    job = jobs.done({"filter": given, "shift": "P0D", "dryRun": True})
    wanted = expected.split("+") if "+" in expected else list(expected)
    assert [one.post_id for one in jobs.results(job)] == wanted
    assert jobs.job(job).total == len(wanted)


@pytest.mark.usefixtures("engine")
def test_a_filter_that_means_nothing_is_done_at_once() -> None:
    job = jobs.make({"filter": {"accountIds": ["acc_nobody"]}, "shift": "P1D"})
    assert [one.outcome for one in jobs.run(job)] == ["frozen"]
    assert jobs.counts(job) == ("done", 0, 0, 0, 0)
    assert jobs.job(job).finished_at is not None


@pytest.mark.usefixtures("chunks_of_three")
def test_a_spread_keeps_the_order_and_sets_its_zone_with_the_first_at_from_and_the_last_at_to(engine: Engine) -> None:
    with engine.begin() as tx:
        factories.post(tx, "b", scheduled_time=factories.soon(60))
        factories.post(tx, "a", scheduled_time=factories.soon(60))
        factories.post(tx, "e", scheduled_time=factories.soon(50), timezone="Asia/Tokyo")
        factories.post(tx, "c", scheduled_time=factories.soon(90))
        factories.post(tx, "d", scheduled_time=factories.soon(70))
    ends = {"from": "2030-06-01T09:00", "to": "2030-06-01T10:10", "timezone": "Europe/Paris"}
    job = jobs.done({"filter": ALL, "spread": ends})
    placed = sorted((jobs.at(engine, post), post) for post in "abcde")
    assert [post for _, post in placed] == ["e", "a", "b", "d", "c"]
    wall = [format_local(to_local(at, "Europe/Paris"))[11:] for at, _ in placed]
    assert wall == ["09:00", "09:17", "09:35", "09:52", "10:10"]
    assert {factories.row(engine, "posts", post).timezone for post in "abcde"} == {"Europe/Paris"}
    assert jobs.counts(job) == ("done", 5, 5, 0, 0)


def test_a_spread_has_room_only_for_posts_that_wait(engine: Engine) -> None:
    with engine.begin() as tx:
        factories.post(tx, "a", status="posted", posted_at=factories.soon(-5))
        factories.post(tx, "b")
        factories.post(tx, "d")
    ends = {"from": "2030-06-01T09:00", "to": "2030-06-01T10:00", "timezone": "America/Chicago"}
    job = jobs.done({"filter": {"postIds": ["a", "b", "c", "d"]}, "spread": ends})
    assert [(one.post_id, one.outcome, one.after) for one in jobs.results(job)] == [
        ("a", "skipped", None),
        ("b", "applied", "2030-06-01T14:00:00Z"),
        ("c", "failed", None),
        ("d", "applied", "2030-06-01T15:00:00Z"),
    ]


def test_items_in_the_past_in_a_gap_or_beyond_ten_years_are_skipped_and_do_not_stop_the_rest(engine: Engine) -> None:
    a, b, c, d = posts(engine, 4)
    far = f"{datetime.now(UTC).year + 11}-01-01T12:00"
    items = [
        {"postId": a, "scheduledTime": "2020-01-01T12:00", "timezone": "Asia/Tokyo"},
        {"postId": b, "scheduledTime": "2030-03-31T02:30", "timezone": "Europe/Paris"},
        {"postId": c, "scheduledTime": far, "timezone": "Asia/Tokyo"},
        {"postId": d, "scheduledTime": "2030-01-01T12:00", "timezone": "Asia/Tokyo"},
    ]
    job = jobs.done({"items": items})
    assert jobs.told(job) == {
        a: ("skipped", "time_past"),
        b: ("skipped", "skipped_by_dst"),
        c: ("skipped", "beyond_ten_years"),
        d: ("applied", None),
    }
    with engine.connect() as tx:
        assert tx.execute(text("SELECT items FROM reschedules")).scalar_one() is None
