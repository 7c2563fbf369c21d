"""What requests to delete posts hold, and what is answered."""

from enum import StrEnum

POSTS_MAX = 1_000


class Reason(StrEnum):
    """Why a post was not deleted; the words of bulk jobs where they mean the same (shared/domain/reschedules.py).

    `held`: somebody holds its row at this moment, an edit under way as a rule; ask again.
    """

    NOT_FOUND = "not_found"
    POSTED = "already_posted"
    FAILED = "already_failed"
    BEING_PUBLISHED = "being_published"
    BEING_RENDERED = "being_rendered"
    LOCKED_ELSEWHERE = "held"
