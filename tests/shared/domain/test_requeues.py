"""What a requeue of many edits would do, in words and in parts."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from shared.domain import requeues
from shared.domain.edit_histories import EditHistory, Overwrite, Prospect

AT = datetime(2026, 1, 2, tzinfo=UTC)
EDIT = EditHistory(
    "edit_1", 1, "post_1", "ws", "failed", {"caption": "a"}, None, "tests", None, None, AT, 5, AT, 0, AT, None, None,
    None, "internal", "x", None, AT,
)  # fmt: skip
LATER = Overwrite("edit_9", "applied", AT, "tests", ("caption",))


def prospect(number: int, post: str = "post_1", **given: object) -> Prospect:
    edit = replace(EDIT, id=f"edit_{number}", seq=number, post_id=post)
    return replace(Prospect(edit, (), 0, {}, {}, None, False, f"mark {number}"), **given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("prospects", "said"),
    [
        ([prospect(1)], ["No later change touches the same fields: nothing is overwritten."]),
        ([prospect(1, overwrites=(LATER,))], ["1 edit would overwrite later changes of 1 post."]),
        (
            [prospect(1, overwrites=(LATER,)), prospect(2, overwrites=(LATER, LATER)), prospect(3)],
            ["2 edits would overwrite later changes of 1 post."],
        ),
        (
            [prospect(1, overwrites=(LATER,)), prospect(2, "post_2", overwrites=(LATER,))],
            ["2 edits would overwrite later changes of 2 posts."],
        ),
        (
            # What is refused overwrites nothing.
            [
                prospect(1, refusal="posted", overwrites=(LATER,)),
                prospect(2, refusal="posted"),
                prospect(3, refusal="x"),
            ],
            [
                "No later change touches the same fields: nothing is overwritten.",
                "2 edits would be refused again: posted.",
                "1 edit would be refused again: x.",
            ],
        ),
        (
            [prospect(1, goes_out_at_once=True)],
            [
                "No later change touches the same fields: nothing is overwritten.",
                "1 post would go out at once, since the new time has passed.",
            ],
        ),
    ],
)
def test_the_sentences_say_what_would_be_overwritten_refused_and_sent(
    prospects: list[Prospect], said: list[str]
) -> None:
    assert requeues.of(prospects).sentences() == said


def test_edits_and_posts_are_counted() -> None:
    found = requeues.of([prospect(1), prospect(2), prospect(3, "post_2", overwrites=(LATER,))])
    assert (found.edits, found.posts, found.overwriting, found.edited_since) == (3, 2, 1, ("post_2",))


@pytest.mark.parametrize(
    ("posts", "at_most", "parts"),
    [
        ("", 2, []),
        ("abc", 2, ["ab", "c"]),
        ("aba", 2, ["aa", "b"]),
        # However many one post has: its lock is held for one part at a time.
        ("aaabb", 2, ["aa", "a", "bb"]),
        ("aaaaabb", 3, ["aaa", "aa", "bb"]),
        ("abab", 4, ["aabb"]),
    ],
)
def test_the_edits_of_a_post_stay_together_in_their_order(posts: str, at_most: int, parts: list[str]) -> None:
    found = requeues.chunks([prospect(number, post) for number, post in enumerate(posts)], at_most)
    assert ["".join(one.edit.post_id for one in part) for part in found] == parts
    for post in set(posts):
        order = [one.edit.seq for part in found for one in part if one.edit.post_id == post]
        assert order == sorted(order)


def test_a_mark_names_these_edits_as_they_stand() -> None:
    first = [prospect(1), prospect(2)]
    assert requeues.mark(first) == requeues.mark([prospect(1), prospect(2)])
    for other in ([prospect(1)], [prospect(2), prospect(1)], [prospect(1), prospect(2, mark="another")]):
        assert requeues.mark(other) != requeues.mark(first)
