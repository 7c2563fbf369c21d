"""The limits of a request to delete posts, and the reasons in its answer."""

from enum import StrEnum

POSTS_MAX = 1_000


class Reason(StrEnum):
    """Why a post was not deleted. Bulk jobs have the same words for the same reasons (shared/domain/reschedules.py).

    `held`: its row is locked elsewhere now, mostly by an edit under way. The client may send the request again.
    """

    NOT_FOUND = "not_found"
    POSTED = "already_posted"
    FAILED = "already_failed"
    BEING_PUBLISHED = "being_published"
    BEING_RENDERED = "being_rendered"
    LOCKED_ELSEWHERE = "held"
