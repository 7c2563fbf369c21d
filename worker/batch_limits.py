"""How much of some posts' queues one transaction takes, and which edits run isolated. Pure.

A batch is bounded by count and by bytes: one edit may bring 35 URLs of 2,048 characters, and a thousand of those would
be a statement that PostgreSQL refuses and a task that outgrows its machine.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from shared.domain.edits import PLAIN
from shared.domain.lifecycle import PostFacts
from shared.domain.queued_edits import QueuedEdit

EDITS_A_TASK = 1000
BYTES_A_TASK = 4_000_000
"""What a transaction reads of queued edits at most, and what it writes at most, each."""

HALVED_FROM = 2
ISOLATED_FROM = 3
"""After so many failures at PostgreSQL a batch is halved, and then its edits run one by one."""

# Bytes of ids, times, status, URLs of thumbnail and render, and the names of the fields, in a post's JSON.
_REST_OF_A_POST = 700


@dataclass(frozen=True, slots=True)
class Share:
    """What a batch takes of a queue, in order. `left`: some of it is for another task.

    `isolated`: posts whose next edit runs in a transaction of its own, those with the fewest attempts first.
    """

    taken: list[QueuedEdit]
    left: bool
    isolated: list[str]


def runs_isolated(attempts: int, deferrals: int) -> bool:
    """Whether an edit runs in a transaction of its own: a worker died at it, or its batches failed again and again."""
    return attempts > 0 or deferrals >= ISOLATED_FROM


def share(queue: Sequence[QueuedEdit], posts: Mapping[str, PostFacts], most: int = BYTES_A_TASK) -> Share:
    """What one batch takes: of each post up to the first edit that runs isolated, of all as much as may be written.

    At least one edit, however large. Half of it, where a batch with one of these edits has failed before.
    """
    stopped: dict[str, tuple[int, int]] = {}
    taken: list[QueuedEdit] = []
    for edit in queue:
        if edit.post_id in stopped:
            continue
        if runs_isolated(edit.attempts, edit.deferrals):
            stopped[edit.post_id] = edit.attempts, edit.deferrals
        else:
            taken.append(edit)
    count = _affordable(taken, posts, most)
    if any(edit.deferrals >= HALVED_FROM for edit in taken):
        count = min(count, (len(taken) + 1) // 2)
    # The fewest attempts first: a poison edit stops its worker only after its harmless neighbours were applied.
    return Share(taken[:count], count < len(taken), sorted(stopped, key=lambda post_id: stopped[post_id]))


def _affordable(edits: Sequence[QueuedEdit], posts: Mapping[str, PostFacts], most: int) -> int:
    """How many of these edits, the first ones, write no more than `most` bytes; one at least.

    An edit writes what its fields were and what the whole post is then: twice the post is the bound.
    """
    sizes: dict[str, int] = {}
    largest: dict[str, int] = {}
    spent = 0
    for count, edit in enumerate(edits):
        post_id = edit.post_id
        if post_id not in sizes:
            sizes[post_id] = size_of(posts[post_id])
        brought = largest[post_id] = max(edit.size, largest.get(post_id, 0))
        spent += 2 * (sizes[post_id] + brought) + edit.size
        if spent > most and count:
            return count
    return len(edits)


def size_of(post: PostFacts) -> int:
    """The bytes of a post's JSON, about."""
    content = post.content_url
    urls = len(content) if isinstance(content, str) else sum(map(len, content)) + 3 * len(content)
    texts = [getattr(post, plain.attribute) or "" for plain in PLAIN]
    return _REST_OF_A_POST + urls + sum(len(text) if text.isascii() else len(text.encode()) for text in texts)
