"""What the edits that wait for a post will make of it, and what one more would do. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from shared.domain import lifecycle, posts
from shared.domain.edits import EditPatch
from shared.domain.lifecycle import PostFacts, Status
from shared.domain.queued_edits import QueuedEdit


def drained(post: PostFacts, queue: Iterable[QueuedEdit]) -> PostFacts:
    """The post as its queued edits leave it, oldest first, as `lifecycle.decide` decides each."""
    for edit in queue:
        # The worker does not run an edit with fields that it does not know.
        if EditPatch.unknown_in(edit.changes):
            continue
        decision = lifecycle.decide(post, EditPatch.from_changes(edit.changes), edit.created_at, edit.if_match)
        if isinstance(decision, lifecycle.Apply):
            post = decision.after
    return post


@dataclass(frozen=True, slots=True)
class Effect:
    """What an edit would do: the fields that it would change with their new values, whether the post would be rendered
    again, and whether its publish would move.
    """

    changes: dict[str, Any]
    rerender: bool
    publish_moved: bool


def effect(before: PostFacts, after: PostFacts) -> Effect:
    """What leads from one to the other."""
    _, changes = posts.difference(before, after)
    again = after.content_revision != before.content_revision and after.status is Status.PENDING_RENDER
    return Effect(changes, again, after.schedule_revision != before.schedule_revision)
