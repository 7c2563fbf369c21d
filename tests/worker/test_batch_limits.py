"""What one batch takes of a queue: a table of sizes, of attempts, and of failures before."""

from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from shared.domain.lifecycle import PostFacts, Status
from shared.domain.queued_edits import QueuedEdit
from worker import batch_limits

AT = datetime(2026, 5, 1, tzinfo=UTC)


def post(post_id: str, caption: str = "first", content: str | list[str] = "https://cdn.example.com/a.mp4") -> PostFacts:
    kind = "video" if isinstance(content, str) else "slides"
    given = (None, kind, content, None, caption, None, None, AT, False, None, 1, 1, 1)
    return PostFacts(post_id, "tiktok", Status.GENERATED, *given)


def queued(*edits: tuple[str, int, int, int]) -> list[QueuedEdit]:
    """(post, size, attempts, deferrals) for each, named by their place."""
    return [
        QueuedEdit(str(place), place, post_id, {}, None, AT, attempts, "tests", deferrals, size, AT)
        for place, (post_id, size, attempts, deferrals) in enumerate(edits)
    ]


POSTS = {name: post(name) for name in ("a", "b", "c")}
SLIDES = {"a": post("a", "🎉" * 2000, ["https://cdn.example.com/" + "x" * 2000] * 35)}


@pytest.mark.parametrize(
    ("queue", "taken", "left", "isolated"),
    [
        ([], [], False, []),
        ([("a", 50, 0, 0), ("b", 50, 0, 0)], [0, 1], False, []),
        # One that was tried before stops its own post's queue, and no other's.
        ([("a", 50, 0, 0), ("a", 50, 1, 0), ("a", 50, 0, 0), ("b", 50, 0, 0)], [0, 3], False, ["a"]),
        ([("a", 50, 2, 0), ("b", 50, 1, 0), ("c", 50, 1, 3)], [], False, ["b", "c", "a"]),
        # However large, one gets through; what is beyond the bound is left, and nothing of it overtakes.
        ([("a", 9_000_000, 0, 0), ("b", 50, 0, 0)], [0], True, []),
        ([("a", 50, 0, 0), ("b", 9_000_000, 0, 0), ("c", 50, 0, 0)], [0], True, []),
        # A batch that failed once is tried whole, then in halves, then each of it alone.
        ([("a", 50, 0, 1)] * 4, [0, 1, 2, 3], False, []),
        ([("a", 50, 0, 2)] * 5, [0, 1, 2], True, []),
        ([("a", 50, 0, 0), ("b", 50, 0, 2), ("c", 50, 0, 0)], [0, 1], True, []),
        ([("a", 50, 0, 2)], [0], False, []),
        ([("a", 50, 0, 3), ("b", 50, 0, 0)], [1], False, ["a"]),
    ],
)
def test_a_batch_takes(
    queue: Sequence[tuple[str, int, int, int]], taken: list[int], left: bool, isolated: list[str]
) -> None:
    share = batch_limits.share(queued(*queue), POSTS)
    assert ([edit.seq for edit in share.taken], share.left, share.isolated) == (taken, left, isolated)


def test_a_small_edit_of_a_large_post_counts_for_what_it_writes() -> None:
    """Each leaves the whole post as its answer: some 80 kB."""
    share = batch_limits.share(queued(*[("a", 50, 0, 0)] * 1000), SLIDES)
    assert share.left
    assert 20 < len(share.taken) < 60


def test_a_thousand_small_edits_are_bounded_by_their_count_alone() -> None:
    assert not batch_limits.share(queued(*[("a", 200, 0, 0)] * batch_limits.EDITS_A_TASK), POSTS).left


@pytest.mark.parametrize(("facts", "least"), [(POSTS["a"], 34), (SLIDES["a"], 78_840)])
def test_the_size_of_a_post_is_that_of_its_json_or_a_little_more(facts: PostFacts, least: int) -> None:
    assert least < batch_limits.size_of(facts) < least + 1_000
