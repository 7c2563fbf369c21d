"""In which order `redraft doctor` tells its findings: what stops all work, what stops some, what waits for a person."""

from collections.abc import Sequence
from typing import Final

WEIGHTS: Final[Sequence[frozenset[str]]] = (
    # Nothing goes on.
    frozenset(
        {
            "unreachable_postgresql", "postgresql_too_old", "database_encoding", "pending_migrations",
            "unknown_migrations", "unreachable_redis", "redis_refuses_writes",
        }
    ),
    # Work of one kind stands still, or a part is away.
    frozenset(
        {
            "no_worker", "no_beat", "unreachable_api", "unreachable_publisher", "unreachable_renderer",
            "unreachable_receiver", "untrusted_publisher", "untrusted_renderer", "untrusted_receiver",
            "publisher_set_up_wrongly", "renderer_set_up_wrongly", "receiver_set_up_wrongly", "redis_saving_fails",
        }
    ),
    # Why something waits.
    frozenset(
        {
            "idle_transaction", "long_transaction", "flood", "old_edits", "late_posts", "publisher_failing",
            "renderer_failing", "renderer_busy", "receiver_failing", "receiver_slow", "webhooks_behind", "queue_full",
            "clock_skew", "stalled_jobs", "redis_memory",
        }
    ),
    # What waits for a person's decision.
    frozenset(
        {
            "failed_edits", "failed_posts", "failed_jobs", "failed_publisher_set_up_wrongly",
            "failed_renderer_set_up_wrongly", "dead_webhooks",
        }
    ),
)  # fmt: skip
"""Codes of findings, the heaviest first. Any other code weighs least: how things are set up, and what is not known."""


def weight(code: str) -> int:
    """The place of a finding in the order; the heaviest is 0."""
    return next((place for place, codes in enumerate(WEIGHTS) if code in codes), len(WEIGHTS))
