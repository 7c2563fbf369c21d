"""The kinds of failure of a post: one value for each thing that an operator does about it. Pure."""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Final

from shared.domain.service_answers import Outcome

OUTCOME_UNKNOWN: Final = "publish_outcome_unknown"
PUBLISHER_UNAVAILABLE: Final = "publisher_unavailable"
RENDERER_UNAVAILABLE: Final = "renderer_unavailable"


class FailureClass(StrEnum):
    """Why a post failed. The values stand in `posts.failure_class`, in gauges and in the operators' lists."""

    REFUSED = "refused"  # the publisher will not take this post
    MISCONFIGURED = "misconfigured"  # 401, 404, a redirect: the publisher is set up wrongly, for every post
    UNAVAILABLE = "unavailable"  # 5xx, or no connection, until the tries were spent
    BUSY = "busy"  # the publisher asked to wait, for an hour
    UNKNOWN = "unknown"  # a try may have had its effect, and no 2xx under its key has said so
    RENDER_REFUSED = "render_refused"
    RENDER_MISCONFIGURED = "render_misconfigured"
    RENDER_UNAVAILABLE = "render_unavailable"
    RENDER_BUSY = "render_busy"


SET_UP_WRONGLY: Final = (FailureClass.MISCONFIGURED, FailureClass.RENDER_MISCONFIGURED)
"""Classes that hit every post alike, until an operator repairs the set-up."""

MEANINGS: Final[Mapping[FailureClass, str]] = {
    FailureClass.REFUSED: "the publisher refused it",
    FailureClass.MISCONFIGURED: "the publisher is set up wrongly",
    FailureClass.UNAVAILABLE: "the publisher failed or could not be reached",
    FailureClass.BUSY: "the publisher asked to wait for an hour",
    FailureClass.UNKNOWN: "it is not known whether a try went out",
    FailureClass.RENDER_REFUSED: "the renderer refused it",
    FailureClass.RENDER_MISCONFIGURED: "the renderer is set up wrongly",
    FailureClass.RENDER_UNAVAILABLE: "the renderer failed or could not be reached",
    FailureClass.RENDER_BUSY: "the renderer asked to wait, or was at work, for an hour",
}

BY_REASON: Final[Mapping[str, FailureClass]] = {
    OUTCOME_UNKNOWN: FailureClass.UNKNOWN,
    PUBLISHER_UNAVAILABLE: FailureClass.UNAVAILABLE,
    RENDERER_UNAVAILABLE: FailureClass.RENDER_UNAVAILABLE,
}
"""What the reason of a post says that failed before its class was recorded. Any other reason is a refusal's words."""


def of_row(recorded: str | None, reason: str | None) -> FailureClass:
    """The class of a failed post's row. The reason's text decides only where no class was recorded."""
    return FailureClass(recorded) if recorded else BY_REASON.get(reason or "", FailureClass.REFUSED)


_LAST: Final[Mapping[Outcome, FailureClass]] = {
    Outcome.REFUSED: FailureClass.REFUSED,
    Outcome.MISCONFIGURED: FailureClass.MISCONFIGURED,
    Outcome.NOT_NOW: FailureClass.BUSY,
    Outcome.PROCESSING: FailureClass.BUSY,
}


WORDS_SHOWN: Final = 60
NAMED_AT_MOST: Final = 5
_ANSWERED: Final = "the service answered "


def shortened(words: str) -> str:
    """The words of a service, short enough to stand in a list within a sentence."""
    return words if len(words) <= WORDS_SHOWN else f"{words[: WORDS_SHOWN - 1]}…"


def counted_words(groups: Iterable[tuple[str, int]], total: int) -> str:
    """`3 a page, not JSON; 2 Down for maintenance; 1 with other words`: the most frequent of `groups` (words, posts)
    first. `total`: all posts, those of groups that are not given among them. Words of all posts stand alone.
    """
    named = sorted(groups, key=lambda group: -group[1])[:NAMED_AT_MOST]
    if named and named[0][1] == total:
        return shortened(named[0][0] or "without a word")
    said = [f"{posts:,} {shortened(words or 'without a word')}" for words, posts in named]
    rest = total - sum(posts for _, posts in named)
    return "; ".join(said + ([f"{rest:,} with other words"] if rest else []))


def answers_alike(service: str, words: str, posts: int) -> str:
    """`The publisher answers 401 (invalid signature) to 4 posts. It will answer every post like that.`"""
    status, _, said = words.removeprefix(_ANSWERED).partition(": ")
    answer = f"{status} ({said})" if said else status
    if not words.startswith(_ANSWERED):
        answer = f'"{words}"'
    count = "1 post" if posts == 1 else f"{posts:,} posts"
    return f"The {service} answers {answer} to {count}. It will answer every post like that."


def after(outcome: Outcome, *, render: bool) -> FailureClass:
    """The class of a post that is given up after a last try with this outcome, none of its tries being in doubt."""
    found = _LAST.get(outcome, FailureClass.UNAVAILABLE)
    return FailureClass(f"render_{found}") if render else found
