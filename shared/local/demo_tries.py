"""The tries at publishing the demo's posts: how each one ended, and its row."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from shared.domain import posts
from shared.domain.failure_classes import OUTCOME_UNKNOWN, PUBLISHER_UNAVAILABLE, FailureClass
from shared.domain.lifecycle import Status
from shared.domain.posts import Post

REFUSALS: Final = (
    "The account's access has expired; connect it again",
    "The sound is not licensed for business accounts",
    "The video is shorter than 3 seconds",
)


@dataclass(frozen=True, slots=True)
class Ended:
    """How the tries of a failed post ended, and in whose words."""

    outcome: str
    count: int
    failure: FailureClass
    words: str
    took: timedelta = timedelta(seconds=1)

    def tries(self, due: datetime) -> list[tuple[datetime, datetime]]:
        """When each try of a post that was due then began and ended."""
        starts = [due + timedelta(milliseconds=200, minutes=5 * number) for number in range(self.count)]
        return [(start, start + self.took) for start in starts]


_KNOWN: Final = {
    PUBLISHER_UNAVAILABLE: Ended("server_error", 10, FailureClass.UNAVAILABLE, "the service answered 503"),
    OUTCOME_UNKNOWN: Ended("unknown", 3, FailureClass.UNKNOWN, "timed out", timedelta(seconds=30)),
}


def ended_by(reason: str) -> Ended:
    """How the tries ended of a post that failed for this reason. Words of a platform are a refusal."""
    return _KNOWN.get(reason, Ended("refused", 1, FailureClass.REFUSED, reason))


def tries_of(post: Post) -> Iterator[dict[str, Any]]:
    """The publish attempts of a post, one row a try: its history can be read, and the post can be retried."""
    reason, facts = post.failure_reason, post.facts
    tries, outcome, message = [(facts.scheduled_time + timedelta(milliseconds=200), post.posted_at)], "done", None
    if reason is not None:
        ended = ended_by(reason)
        tries, outcome, message = list(ended.tries(facts.scheduled_time)), ended.outcome, ended.words
    # The body as a publish makes it: a retry of the same content then goes out under the old key.
    sent = posts.service_body("publish", post, replace(post.facts, status=Status.GENERATED))
    for number, (started, finished) in enumerate(tries):
        yield {
            "post_id": facts.id,
            "schedule_revision": facts.schedule_revision,
            "idempotency_key": f"pub_demo_{facts.id}",
            "body": sent,
            "try_number": number + 1,
            "claim_token": f"clm_demo_{facts.id}_{number + 1}",
            "started_at": started,
            "finished_at": finished,
            "outcome": outcome,
            "message": message,
        }
