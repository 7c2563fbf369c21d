"""What an edit would do: decided as a PATCH is, on the post as it stands with its queued edits, and not recorded."""

from dataclasses import dataclass

from sqlalchemy import Connection

from api.submission import recording
from api.submission.recording import Asked
from shared.domain import errors, forecasts, lifecycle
from shared.domain.errors import NotFound, PreconditionFailed, Unavailable
from shared.domain.forecasts import Effect
from shared.domain.lifecycle import PostFacts
from shared.domain.posts import Post
from shared.store import edits as edits_store
from shared.store import posts as posts_store

QUEUE_AT_MOST = 1_000
QUEUE_BYTES = 4_000_000


@dataclass(frozen=True, slots=True)
class Forecast:
    """A post as its row stands, as the edit would leave it, and what the edit itself would change."""

    post: Post
    after: PostFacts
    effect: Effect


def behind_queue(tx: Connection, facts: PostFacts) -> PostFacts:
    """A post as its queued edits will leave it. Unavailable where more wait than are looked at."""
    queue = edits_store.queued_edits(tx, [facts.id], QUEUE_AT_MOST, QUEUE_BYTES)
    if queue.more:
        raise Unavailable(
            message=f"More than {QUEUE_AT_MOST:,} edits of the post wait; ask again when they are applied"
        )
    return forecasts.drained(facts, queue.edits)


def look(tx: Connection, asked: Asked) -> Forecast:
    """What the edit would do now. Raises the refusal that a PATCH would be answered with."""
    new, patch = asked.new, asked.patch
    found, now = posts_store.read_posts(tx, [new.post_id])
    hopeless = asked.problem if isinstance(asked.problem, PreconditionFailed) else None
    refusal = recording.refusal(asked, found, now)
    if refusal is not None and refusal is not hopeless:
        raise refusal
    if now is None or patch is None:
        raise NotFound.post(new.post_id)
    post = found[new.post_id]
    before = behind_queue(tx, post.facts)
    decision = lifecycle.decide(before, patch, now, new.if_match)
    if isinstance(decision, lifecycle.Reject):
        error = errors.restored(decision.code, decision.message, decision.details)
        if isinstance(error, PreconditionFailed):
            error.revision = before.revision
        raise error
    if hopeless is not None:
        raise hopeless
    return Forecast(post, decision.after, forecasts.effect(before, decision.after))
