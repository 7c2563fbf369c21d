"""What a bulk job means for one post: plans against a reckoning of their own, refusals, and the job's own rules."""

from datetime import UTC, datetime, timedelta
from functools import cache
from importlib import resources
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.domain import reschedule_jobs, reschedules, times
from shared.domain.lifecycle import ClaimKind, PostFacts, Status, moved
from shared.domain.reschedule_jobs import Job, JobStatus, Result, audit_id, cannot_cancel, cannot_revert
from shared.domain.reschedules import (
    ItemPlan,
    Move,
    Outcome,
    Reason,
    Revert,
    ScheduleFacts,
    Shift,
    Spread,
    aiming,
    decide,
    plan_of,
)
from shared.domain.times import ZONES, Duration, format_instant
from tests.shared.domain.clock_changes import explicit_changes

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def seen(at: datetime, zone: str | None = None, status: str = "generated", claim: str | None = None) -> ScheduleFacts:
    return ScheduleFacts("post_1", status, claim, zone, at, 1, 1, False)


def shifted(at: datetime, zone: str | None, by: Duration) -> Move | Reason:
    return aiming(Shift(by), None)(0, seen(at, zone))


def reckoned(at: datetime, zone: str | None, by: Duration) -> datetime | None:
    """The same by looking for it: the first instant at which that zone's clock shows the wanted time, if there is one.

    Goes from instants to wall clocks only, which is never ambiguous, and knows no fold and no gap.
    """
    clock = UTC if zone is None else times.zone(zone)
    if by.days:
        wanted = at.astimezone(clock).replace(tzinfo=None) + timedelta(days=by.days)
        about = wanted.replace(tzinfo=UTC)
        offsets = {(about + near * HOUR).astimezone(clock).utcoffset() for near in range(-15, 16)}
        candidates = [about - offset for offset in offsets if offset is not None]
        shown = [one for one in candidates if one.astimezone(clock).replace(tzinfo=None, fold=0) == wanted]
        if not shown:
            return None
        at = min(shown)
    return at + timedelta(seconds=by.seconds)


@cache
def changes_of(zone: str) -> list[datetime]:
    """The instants near which that zone's clock changes, 2024 to 2036, to the hour before."""
    clock = times.zone(zone)

    def changes(start: datetime, step: timedelta, count: int) -> list[datetime]:
        instants = [start + number * step for number in range(count + 1)]
        offsets = [one.astimezone(clock).utcoffset() for one in instants]
        return [one for one, (before, after) in zip(instants, pairwise(offsets), strict=False) if before != after]

    days = changes(datetime(2024, 1, 1, tzinfo=UTC), 24 * HOUR, 4_375)
    return [hour for day in days for hour in changes(day, HOUR, 24)]


MINUTES = st.integers(-3_000, 3_000).map(lambda count: timedelta(minutes=count))
DAYS = st.integers(-800, 800) | st.integers(-3, 3)
DURATIONS = st.tuples(DAYS, st.integers(-3_000, 3_000).map(lambda count: count * 60) | st.just(0)).map(
    lambda parts: Duration(*parts)
)


@st.composite
def cases(draw: st.DrawFn) -> tuple[datetime, str, Duration]:
    """An instant, its zone and a duration; half of them leave from or arrive at the days around a clock change."""
    zone, by = draw(st.sampled_from(ZONES)), draw(DURATIONS)
    near = draw(st.sampled_from(changes_of(zone) or [datetime(2030, 1, 1, tzinfo=UTC)]))
    at = near + draw(MINUTES)
    arrives = draw(st.booleans())
    return at - timedelta(days=by.days) if arrives else at, zone, by


@settings(max_examples=400)
@given(cases())
def test_a_shift_is_what_a_search_for_the_wall_clock_finds(case: tuple[datetime, str, Duration]) -> None:
    at, zone, by = case
    expected = reckoned(at, zone, by)
    found = shifted(at, zone, by)
    assert found == (Reason.SKIPPED_BY_DST if expected is None else Move(expected, zone))


@pytest.mark.parametrize("zone", ZONES)
def test_every_quarter_of_an_hour_around_every_change_of_three_years_is_shifted_rightly(zone: str) -> None:
    gaps = 0
    for change in changes_of(zone)[:6]:
        for quarter in range(-16, 17):
            for days in (-1, 1, 7, -364):
                at, by = change + quarter * timedelta(minutes=15) - timedelta(days=days), Duration(days, 0)
                expected = reckoned(at, zone, by)
                gaps += expected is None
                assert shifted(at, zone, by) == (Reason.SKIPPED_BY_DST if expected is None else Move(expected, zone))
    assert bool(gaps) == bool(changes_of(zone)), "the cases must reach into gaps"


def test_nine_o_clock_stays_nine_o_clock_across_a_clock_change() -> None:
    before = times.to_instant(datetime(2026, 3, 28, 9), "Europe/Paris")  # noqa: DTZ001  -- a wall clock
    found = shifted(before, "Europe/Paris", Duration(1, 0))
    assert isinstance(found, Move)
    assert format_instant(before) == "2026-03-28T08:00:00Z"
    assert format_instant(found.at) == "2026-03-29T07:00:00Z"


def test_a_post_without_a_zone_moves_in_utc_and_keeps_none() -> None:
    at = datetime(2026, 3, 28, 8, 0, 7, 123, tzinfo=UTC)
    assert shifted(at, None, Duration(1, -60)) == Move(at + timedelta(days=1, minutes=-1), None)


def test_no_zone_changes_its_clock_twice_within_a_day() -> None:
    """What lets `_step` ask for the first and the last moment of a day only."""
    for zone in ZONES:
        region, _, city = zone.partition("/")
        data = resources.files(f"tzdata.zoneinfo.{region}").joinpath(city).read_bytes()
        changes = [change.at for change in explicit_changes(data)[0] if change.at.year >= 1970]
        assert all(after - before > timedelta(days=2) for before, after in pairwise(changes)), zone


@given(st.integers(1, 400), st.integers(0, 5_000))
def test_a_spread_places_each_post_where_the_whole_list_has_it(count: int, minutes: int) -> None:
    first = datetime(2026, 6, 1, 9, tzinfo=UTC)
    last = first + timedelta(minutes=minutes)
    plan = Spread(first, last, "Asia/Tokyo", count)
    aim = aiming(plan, list(range(count)))
    found = [aim(place, seen(NOW)) for place in range(count)]
    assert found == [Move(at, "Asia/Tokyo") for at in times.spread(count, first, last)]


def test_a_post_without_a_place_in_a_spread_is_left_alone() -> None:
    plan = Spread(NOW, NOW + HOUR, "Asia/Tokyo", 1)
    assert aiming(plan, [None])(0, seen(NOW)) is Reason.CHANGED_SINCE


@pytest.mark.parametrize(
    ("goal", "expected"),
    [
        (NOW, Reason.TIME_PAST),
        (NOW - HOUR, Reason.TIME_PAST),
        (NOW + timedelta(microseconds=1), None),
        (NOW.replace(year=2035, month=6), None),
        (NOW.replace(year=2036), None),
        (NOW.replace(year=2036) + timedelta(microseconds=1), Reason.BEYOND_TEN_YEARS),
        (NOW.replace(year=2040), Reason.BEYOND_TEN_YEARS),
    ],
)
def test_a_goal_is_judged_against_the_moment_of_acceptance_as_an_edit_is(
    goal: datetime, expected: Reason | None
) -> None:
    found = decide(0, seen(NOW + HOUR), lambda *_: Move(goal, None), NOW)
    assert found == (expected or Move(goal, None))
    assert (times.within_reach(goal, NOW) is None) == (expected is None)


@pytest.mark.parametrize(
    ("at", "by", "expected"),
    [
        (datetime(9999, 12, 31, 12, tzinfo=UTC), Duration(1, 0), Reason.BEYOND_TEN_YEARS),
        (datetime(1, 1, 1, 12, tzinfo=UTC), Duration(-1, 0), Reason.TIME_PAST),
    ],
)
def test_the_ends_of_the_calendar_do_not_overflow(at: datetime, by: Duration, expected: Reason) -> None:
    for zone in (None, "Asia/Tokyo"):
        assert decide(0, seen(at, zone), aiming(Shift(by), None), NOW) is expected


@pytest.mark.parametrize(
    ("status", "claim", "expected"),
    [
        (Status.GENERATED, None, None),
        (Status.PENDING_RENDER, None, None),
        (Status.PENDING_RENDER, ClaimKind.RENDER, None),
        (Status.GENERATED, ClaimKind.PUBLISH, Reason.BEING_PUBLISHED),
        (Status.POSTED, None, Reason.POSTED),
        (Status.FAILED, None, Reason.FAILED),
    ],
)
def test_posts_that_take_no_edit_take_no_move(status: Status, claim: ClaimKind | None, expected: Reason | None) -> None:
    aim = aiming(Shift(Duration(1, 0)), None)
    row = seen(NOW + HOUR, None, status.value, claim.value if claim else None)
    found = decide(0, row, aim, NOW)
    assert found == (expected or Move(NOW + HOUR + timedelta(days=1), None))
    assert decide(0, row._replace(deleted=True), aim, NOW) is Reason.NOT_FOUND


def test_an_unknown_post_is_the_requests_mistake_and_everything_else_how_things_stand() -> None:
    assert {reason for reason in Reason if reason.outcome is Outcome.FAILED} == {Reason.NOT_FOUND}


def test_items_keep_their_own_zone_and_skip_gaps() -> None:
    aim = aiming(ItemPlan(), [["2026-07-01T09:00", "Europe/Paris"], ["2026-03-29T02:30", "Europe/Paris"]])
    assert aim(0, seen(NOW)) == Move(datetime(2026, 7, 1, 7, tzinfo=UTC), "Europe/Paris")
    assert aim(1, seen(NOW)) is Reason.SKIPPED_BY_DST


def test_a_revert_asks_for_the_instant_to_the_second_and_for_the_zone() -> None:
    put = datetime(2026, 7, 1, 7, 0, 0, 5, tzinfo=UTC)
    aim = aiming(Revert("rsch_1"), [["2026-06-01T07:00:00Z", None, "2026-07-01T07:00:00Z", "Europe/Paris"]])
    assert aim(0, seen(put, "Europe/Paris")) == Move(datetime(2026, 6, 1, 7, tzinfo=UTC), None)
    assert aim(0, seen(put, "Europe/London")) is Reason.CHANGED_SINCE
    assert aim(0, seen(put + HOUR, "Europe/Paris")) is Reason.CHANGED_SINCE


@pytest.mark.parametrize(
    "plan",
    [
        Shift(Duration(-1, -90 * 60)),
        Shift(Duration(0, 0)),
        Spread(NOW, NOW + HOUR, "Asia/Tokyo"),
        Spread(NOW, NOW + HOUR, "Asia/Tokyo", 17),
        ItemPlan(),
        Revert("rsch_1"),
    ],
)
def test_a_plan_is_read_back_from_its_row(plan: reschedules.Plan) -> None:
    assert plan_of(plan.stored()) == plan


def test_a_moved_post_counts_as_the_lifecycle_says() -> None:
    """The statement that moves a thousand posts is held against this one in tests/worker/test_reschedule.py."""
    facts = PostFacts(
        "post_1", "tiktok", Status.GENERATED, None, "video", "https://a.example", None, "", None, None, NOW, False,
        None, 3, 2, 1,
    )  # fmt: skip
    after = moved(facts, NOW + HOUR, "Asia/Tokyo")
    assert (after.revision, after.schedule_revision) == (4, 3)
    assert moved(facts, NOW, None) is facts


def test_the_id_of_an_audit_row_has_the_shape_of_an_edits_id_and_sorts_by_its_ordinal() -> None:
    job = "rsch_06h0zgqe3r4jtsb583jr93jh7f"
    ids = [audit_id(job, ordinal) for ordinal in (0, 1, 9, 10, 99_999, 9_999_999)]
    assert ids == sorted(ids)
    assert {len(one) for one in ids} == {len("edit_06h0zgqe3r4jtsb583jr93jh7f")}
    assert ids[0] == "edit_06h0zgqe3r4jtsb583j0000000"


def job(status: JobStatus, *, dry_run: bool = False) -> Job:
    return Job("rsch_1", status, dry_run, 3, 2, 1, 1, 0, NOW, None if status in reschedule_jobs.LIVE else NOW)


def test_only_a_live_job_can_be_canceled_and_only_an_ended_one_reverted_once() -> None:
    for status in JobStatus:
        live = status in {JobStatus.QUEUED, JobStatus.RUNNING}
        assert (cannot_cancel(job(status)) is None) == live
        assert (cannot_revert(job(status), reverted_by=None) is None) != live
        assert cannot_revert(job(status), reverted_by="rsch_2") is not None
        assert cannot_revert(job(status, dry_run=True), reverted_by=None) is not None


def test_a_job_shows_its_error_only_where_there_is_one() -> None:
    assert list(job(JobStatus.DONE).public()) == [
        "id", "status", "dryRun", "total", "applied", "unchanged", "skipped", "failed", "createdAt", "finishedAt",
    ]  # fmt: skip
    failed = Job("rsch_1", JobStatus.FAILED, False, 3, 2, 1, 1, 0, NOW, NOW, "Gave up")
    assert failed.public()["error"] == "Gave up"


def test_a_result_has_its_six_fields() -> None:
    assert Result(7, "post_1", "skipped", "2026-01-01T00:00:00Z", None, "time_past").public() == {
        "postId": "post_1",
        "outcome": "skipped",
        "before": "2026-01-01T00:00:00Z",
        "after": None,
        "reason": "time_past",
        "warning": None,
    }
