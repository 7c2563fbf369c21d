"""Who may have the next place, whose turn is next, how long a refusal is held back: the rules alone."""

import random
from contextlib import ExitStack
from itertools import pairwise

import pytest

from api.context import LARGE_BODIES_KIB
from api.http.shares import Active, Lines, Pace, Shares, admits


@pytest.mark.parametrize(
    ("capacity", "taken", "owned", "owners", "admitted"),
    [
        # The first three quarters are the first comers'.
        (512, 0, 0, 0, True),
        (512, 383, 383, 1, True),
        # The last is not for those who hold much ...
        (512, 384, 384, 1, False),
        (512, 384, 200, 2, False),
        # ... but for those who hold little: an even part of it.
        (512, 384, 0, 1, True),
        (512, 400, 16, 2, True),
        (512, 447, 63, 2, True),
        (512, 448, 64, 2, False),
        # A second flood does not take it either: what is left is there for a third.
        (512, 448, 0, 2, True),
        (512, 470, 42, 3, False),
        # Nobody has a place where there is none.
        (512, 512, 0, 2, False),
        # However many there are, one place each, while there are any.
        (512, 500, 0, 499, True),
        (512, 500, 1, 500, False),
        # A few threads.
        (4, 2, 2, 1, True),
        (4, 3, 3, 1, False),
        (4, 3, 0, 1, True),
        (4, 3, 1, 2, False),
        (3, 2, 2, 1, False),
        (3, 2, 0, 1, True),
        (2, 1, 1, 1, False),
        (2, 1, 0, 1, True),
        (1, 0, 0, 0, True),
        (1, 1, 0, 1, False),
    ],
)
def test_who_may_have_the_next_place(capacity: int, taken: int, owned: int, owners: int, admitted: bool) -> None:
    assert admits(capacity, taken=taken, owned=owned, owners=owners) is admitted


@pytest.mark.parametrize(
    ("capacity", "floods"),
    [(2, 1), (3, 1), (4, 1), (16, 1), (16, 2), (16, 3), (512, 1), (512, 2), (512, 3), (2000, 1), (2000, 3)],
)
def test_whoever_comes_after_any_few_floods_still_finds_a_place(capacity: int, floods: int) -> None:
    places = Shares(capacity)
    for turn in range(4 * capacity):
        owner = f"flood{turn % floods}"
        if places.admits(owner):
            places.take(owner)
    assert len(places) <= capacity
    assert not any(places.admits(f"flood{number}") for number in range(floods))
    assert places.admits("quiet")
    if floods == 1:
        assert len(places) <= max(1, capacity * 3 // 4), "a quarter is kept"


def test_places_that_are_given_back_are_there_again() -> None:
    places = Shares(4)
    for _ in range(3):
        places.take("a")
    places.take("b")
    assert (len(places), places.of("a"), places.of("b"), places.owners) == (4, 3, 1, 2)
    places.give_back("a")
    places.give_back("b")
    assert (len(places), places.of("b"), places.owners) == (2, 0, 1)
    assert places.admits("a")


def test_lines_are_served_in_turn_and_each_in_its_order() -> None:
    lines: Lines[int] = Lines()
    for number in range(4):
        lines.add("a", number)
    lines.add("b", 10)
    lines.add("c", 20)
    lines.add("b", 11)
    assert (len(lines), lines.owners) == (7, 3)
    served = [found for _ in range(7) if (found := lines.take())]
    assert served == [("a", 0), ("b", 10), ("c", 20), ("a", 1), ("b", 11), ("a", 2), ("a", 3)]
    assert (lines.take(), len(lines)) == (None, 0)


def test_a_line_that_is_not_admitted_is_passed_by_and_keeps_its_place() -> None:
    lines: Lines[int] = Lines()
    lines.add("a", 1)
    lines.add("b", 2)
    assert lines.take(lambda owner: owner != "a") == ("b", 2)
    assert lines.take(lambda _: False) is None
    assert lines.take() == ("a", 1)


def test_what_is_not_wanted_any_more_leaves_its_line() -> None:
    lines: Lines[int] = Lines()
    for number in range(6):
        lines.add("ab"[number % 2], number)
    lines.keep(lambda number: number in (2, 4))
    assert (len(lines), lines.owners) == (2, 1)
    assert list(iter(lines.take, None)) == [("a", 2), ("a", 4)]


def test_any_mix_of_coming_and_serving_loses_nothing_and_keeps_each_order() -> None:
    source = random.Random(17)
    lines: Lines[int] = Lines()
    came: dict[str, list[int]] = {}
    left: dict[str, list[int]] = {}
    for number in range(2000):
        if source.random() < 0.6:
            owner = source.choice("abcde")
            lines.add(owner, number)
            came.setdefault(owner, []).append(number)
        elif found := lines.take():
            left.setdefault(found[0], []).append(found[1])
    while found := lines.take():
        left.setdefault(found[0], []).append(found[1])
    assert left == came


def test_several_are_active_while_two_have_asked_within_the_time() -> None:
    active = Active(5.0)
    assert not active.several(0.0)
    active.seen("a", 0.0)
    active.seen("a", 1.0)
    assert not active.several(1.0)
    active.seen("b", 2.0)
    active.seen("a", 6.0)
    assert active.several(6.9)
    assert not active.several(7.1)
    active.seen("b", 20.0)
    assert not active.several(20.0)


def test_the_first_refusals_of_a_second_are_answered_at_once_and_a_flood_of_them_is_held_back() -> None:
    pace = Pace(100, 5.0)
    delays = [pace.hold("a", 50.0) for _ in range(2000)]
    assert delays[:101] == [0.0] * 101
    assert delays[102:600:100] == pytest.approx([0.02, 1.02, 2.02, 3.02, 4.02])
    rest = sorted(delays[700:])
    assert 2.5 <= rest[0] <= 2.51
    assert 4.99 <= rest[-1] <= 5.0
    assert max(after - before for before, after in pairwise(rest)) < 0.01, "spread, lest all come back at once"
    assert pace.hold("b", 50.0) == 0.0, "each owner has its own"
    assert pace.hold("a", 100.0) == 0.0, "it is forgiven with time"


def test_a_client_that_repeats_each_refusal_without_a_pause_gets_a_hundred_a_second() -> None:
    pace, now, answered = Pace(100, 5.0), 0.0, 0
    while now < 60:
        now += max(0.0002, pace.hold("a", now))
        answered += 1
    assert 60 * 100 <= answered <= 62 * 100


def test_owners_that_were_refused_long_ago_are_forgotten() -> None:
    pace = Pace(100, 5.0)
    for number in range(5000):
        pace.hold(f"owner{number}", float(number))
    assert len(pace) <= 1001


MOST_OF_ONE = LARGE_BODIES_KIB * 3 // 4 // 2048
"""Bodies of 2 MiB that one workspace may have in hand."""


def test_one_workspace_leaves_a_quarter_of_the_large_bodies_to_the_others_and_places_come_back() -> None:
    bodies = Shares(LARGE_BODIES_KIB)
    with ExitStack() as taken:
        for _ in range(MOST_OF_ONE):
            assert bodies.admits("ws_flood")
            taken.enter_context(bodies.taken("ws_flood", 2048))
        assert not bodies.admits("ws_flood")
        assert bodies.admits("ws_quiet")
        with bodies.taken("ws_quiet", 2048):
            assert not bodies.admits("ws_flood")
    assert bodies.admits("ws_flood")


def test_a_request_that_fails_gives_its_places_back() -> None:
    bodies = Shares(LARGE_BODIES_KIB)
    for _ in range(3 * MOST_OF_ONE):
        assert bodies.admits("ws")
        with pytest.raises(ValueError, match="bad"), bodies.taken("ws", 2048):
            raise ValueError("bad")
