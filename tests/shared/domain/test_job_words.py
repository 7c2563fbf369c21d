"""A bulk job in words."""

from typing import Any

import pytest

from shared.domain import job_words
from shared.domain.reschedules import Reason


@pytest.mark.parametrize(
    ("meant", "kind", "total", "words"),
    [
        ({"all": True}, "shift", None, "all posts that wait"),
        ({"accountIds": ["acc_1"]}, "shift", None, "all posts that wait of account acc_1"),
        (
            {"accountIds": ["a", "b"], "platform": "tiktok"},
            "spread",
            7,
            "all posts that wait of accounts a, b on tiktok",
        ),
        (
            {"accountIds": [f"a{n}" for n in range(7)]},
            "shift",
            None,
            "all posts that wait of accounts a0, a1, a2, a3, a4 and 2 more",
        ),
        (
            {"scheduledFrom": "2026-12-01T00:00:00Z", "scheduledTo": "2026-12-08T00:00:00Z"},
            "shift",
            None,
            "all posts that wait due from 2026-12-01T00:00:00Z before 2026-12-08T00:00:00Z",
        ),
        ({"postIds": ["post_1"]}, "shift", 1, "1 post by id: post_1"),
        ({"postIds": [f"p{n}" for n in range(1_200)]}, "shift", 1_200, "1,200 posts by id"),
        (None, "items", 3, "3 posts, each with a time of its own"),
        (None, "items", None, "its posts, each with a time of its own"),
        (None, "revert", 1, "1 post that the job to revert has moved"),
    ],
)
def test_which_posts_a_job_means(meant: dict[str, Any] | None, kind: str, total: int | None, words: str) -> None:
    assert job_words.which(meant, kind, total) == words


def test_every_reason_has_its_sentence() -> None:
    assert len({job_words.why(reason.value) for reason in Reason}) == len(Reason)
    assert job_words.why("of_a_later_version") == "of a later version"
    assert job_words.why(None) == "no reason is known"
