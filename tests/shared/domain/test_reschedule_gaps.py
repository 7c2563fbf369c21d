"""How near to each other a job puts the posts of an account: held against a model that compares each post with each."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import combinations
from time import thread_time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.domain.reschedule_gaps import (
    Apart,
    Mover,
    Placed,
    gap_of,
    keep_apart,
    sharing_a_minute,
    split,
    stored,
    windows,
)
from shared.domain.reschedules import Shift
from shared.domain.times import Duration

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
GAP = timedelta(minutes=30)


def at(minutes: float) -> datetime:
    return NOON + timedelta(minutes=minutes)


def movers(*pairs: tuple[float, float]) -> list[Mover]:
    """Movers a, b, c … from minutes to minutes."""
    return [Mover("abcdefghij"[number], at(here), at(there)) for number, (here, there) in enumerate(pairs)]


def decided(
    moving: Sequence[Mover], taken: Sequence[float] = (), undecided: Sequence[float] = (), gap: timedelta = GAP
) -> tuple[str, str]:
    """Those that are too close, and those that wait."""
    found = keep_apart(moving, map(at, taken), map(at, undecided), gap)
    return "".join(sorted(found.too_close)), "".join(sorted(found.undecided))


@pytest.mark.parametrize(
    ("distance", "expected"), [(0, "a"), (29, "a"), (29.99, "a"), (30, ""), (31, ""), (-29, "a"), (-30, "")]
)
def test_a_goal_nearer_than_the_gap_to_a_taken_place_is_too_close(distance: float, expected: str) -> None:
    assert decided(movers((1000, 100)), [100 + distance]) == (expected, "")


@pytest.mark.parametrize(
    ("why", "moving", "taken", "undecided", "expected"),
    [
        ("posts an hour apart move by an hour, each to where the next one leaves", [(0, 60), (60, 120), (120, 180)], [],
         [], ("", "")),
        ("two change places", [(0, 60), (60, 0)], [], [], ("", "")),
        ("of two with one goal the first by its id goes", [(0, 500), (60, 500)], [], [], ("b", "")),
        ("of two goals that are too near the earlier one goes", [(0, 510), (60, 500)], [], [], ("a", "")),
        ("of three in a row the first and the third go", [(0, 500), (60, 520), (200, 540)], [], [], ("b", "")),
        ("one that stays has its place, and so on along the row", [(0, 60), (60, 120), (120, 180)], [180], [],
         ("abc", "")),
        ("a goal near one's own place is none of it", [(0, 5)], [], [], ("", "")),
        ("one that steps back and stays in the way of one that was let go before", [(500, 40), (35, 60)], [60], [],
         ("ab", "")),
        ("what waits keeps others waiting along the row", [(0, 60), (60, 120)], [], [120], ("", "ab")),
        ("a taken place decides, whatever waits", [(0, 60)], [70], [50], ("a", "")),
        ("one that waits keeps no other from its goal", [(0, 60), (500, 61)], [], [31], ("", "a")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_who_may_move(
    why: str,
    moving: list[tuple[float, float]],
    taken: list[float],
    undecided: list[float],
    expected: tuple[str, str],
) -> None:
    assert decided(movers(*moving), taken, undecided) == expected, why


def naive(moving: Sequence[Mover], taken: Sequence[datetime], undecided: Sequence[datetime], gap: timedelta) -> Apart:
    """The same rule, each compared with each, again and again."""

    def near(one: datetime, other: datetime) -> bool:
        return abs(one - other) < gap

    out: dict[str, bool] = {}
    ordered = sorted(moving, key=lambda mover: (mover.goal, mover.id))

    def spread(kind: bool, places: Sequence[datetime]) -> None:
        changed = True
        while changed:
            changed = False
            blocked = [*places, *(mover.at for mover in ordered if out.get(mover.id) is kind)]
            for mover in ordered:
                if mover.id not in out and any(near(mover.goal, place) for place in blocked):
                    out[mover.id] = kind
                    changed = True

    spread(True, taken)
    spread(False, undecided)
    for number, mover in enumerate(ordered):
        if mover.id in out:
            continue
        if any(near(mover.goal, before.goal) for before in ordered[:number] if before.id not in out):
            out[mover.id] = True
            spread(True, [*taken, mover.at])
    return Apart(
        frozenset(one for one, close in out.items() if close), frozenset(one for one, close in out.items() if not close)
    )


MINUTES = st.integers(0, 90) | st.integers(0, 2_000)
CASES = st.tuples(
    st.lists(st.tuples(MINUTES, MINUTES), max_size=12),
    st.lists(MINUTES, max_size=4),
    st.lists(MINUTES, max_size=3),
    st.integers(1, 120) | st.just(100_000),
)


@settings(max_examples=300)
@given(CASES)
def test_it_is_what_the_comparison_of_each_with_each_finds(
    case: tuple[list[tuple[int, int]], list[int], list[int], int],
) -> None:
    pairs, *places, minutes = case
    moving = [Mover(f"post_{number:02}", at(here), at(there)) for number, (here, there) in enumerate(pairs)]
    taken, undecided = ([at(one) for one in some] for some in places)
    gap = timedelta(minutes=minutes)
    assert keep_apart(moving, taken, undecided, gap) == naive(moving, taken, undecided, gap)


@settings(max_examples=200)
@given(CASES)
def test_no_moved_post_is_nearer_than_the_gap_to_any_other(
    case: tuple[list[tuple[int, int]], list[int], list[int], int],
) -> None:
    pairs, *places, minutes = case
    moving = [Mover(f"post_{number:02}", at(here), at(there)) for number, (here, there) in enumerate(pairs)]
    taken, undecided = ([at(one) for one in some] for some in places)
    gap = timedelta(minutes=minutes)
    found = keep_apart(moving, taken, undecided, gap)
    assert not found.too_close & found.undecided
    stays = found.too_close | found.undecided
    moved = [mover.goal for mover in moving if mover.id not in stays]
    still = [*taken, *undecided, *(mover.at for mover in moving if mover.id in stays)]
    assert all(abs(one - other) >= gap for one in moved for other in still)
    assert all(abs(one - other) >= gap for one, other in combinations(moved, 2))


def test_ten_thousand_posts_that_all_push_each_other_out_are_decided_at_once() -> None:
    """With a gap longer than all of them together, each one that stays is near to each other one's goal."""
    many = [Mover(f"post_{number:05}", at(number), at(number + 60)) for number in range(10_000)]
    # CPU of this thread: what other processes take meanwhile is not its own.
    began = thread_time()
    found = keep_apart(many, [at(0)], [], timedelta(days=3_000))
    assert len(found.too_close) == 10_000
    assert thread_time() - began < 2


def test_windows_are_what_lies_nearer_than_the_gap_to_a_goal() -> None:
    assert windows([at(100), at(0), at(40)], GAP) == [(at(-30), at(70)), (at(70), at(130))] or windows(
        [at(100), at(0), at(40)], GAP
    ) == [(at(-30), at(130))]
    assert windows([at(0), at(500)], GAP) == [(at(-30), at(30)), (at(470), at(530))]
    assert windows([], GAP) == []


@given(st.lists(MINUTES, max_size=10), st.integers(1, 120), MINUTES)
def test_a_place_lies_in_a_window_exactly_if_it_is_too_near_to_a_goal(
    goals: list[int], minutes: int, place: int
) -> None:
    gap = timedelta(minutes=minutes)
    inside = any(begin < at(place) < end for begin, end in windows(map(at, goals), gap))
    near = any(abs(at(place) - at(goal)) < gap for goal in goals)
    # Two windows that touch are one: the place between them is looked at, though it is near to none.
    touches = any(abs(at(place) - at(goal)) == gap for goal in goals)
    assert inside == near or (touches and inside)


@given(
    st.lists(
        st.builds(Placed, st.uuids().map(str), st.sampled_from("xy"), st.integers(0, 400).map(lambda s: at(s / 60)))
    ),
    st.sets(st.integers(0, 20)),
)
def test_a_moved_post_shares_its_minute_if_another_one_of_its_account_has_it(
    posts: list[Placed], places: set[int]
) -> None:
    moved = {one.id for place, one in enumerate(posts) if place in places}
    expected = {
        one.id
        for one in posts
        if one.id in moved
        and any(
            other is not one
            and other.account_id == one.account_id
            and f"{other.at:%Y-%m-%d %H:%M}" == f"{one.at:%Y-%m-%d %H:%M}"
            for other in posts
        )
    }
    assert sharing_a_minute(posts, moved) == expected


def test_the_gap_stands_in_the_plan_where_code_of_before_stumbles_over_it() -> None:
    plan = Shift(Duration(1, 0)).stored()
    kept = stored(plan, Duration(0, 1800))
    assert list(kept) == ["apart"], "no kind of plan that the code of before knows"
    assert split(kept) == (plan, Duration(0, 1800))
    assert stored(plan, None) == plan
    assert split(plan) == (plan, None)
    assert gap_of(Duration(1, 60)) == timedelta(hours=24, minutes=1)
