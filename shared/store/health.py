"""What /readyz and `redraft doctor` ask PostgreSQL about itself: whether it takes writes, its clock, its migrations,
which sessions hold locks for too long.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from itertools import groupby
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection, text

from shared.domain.service_answers import FAILURES, Outcome
from shared.domain.waits import Session

_TAKES_WRITES = text("SELECT current_setting('transaction_read_only') = 'off'")


def takes_writes(tx: Connection) -> bool:
    """False for a standby, a demoted primary, and a hosted database that was made read-only since its disk is full."""
    return bool(tx.execute(_TAKES_WRITES).scalar_one())


_VERSIONS = text("SELECT version_num FROM alembic_version ORDER BY 1")
_MIGRATED = text("SELECT to_regclass('alembic_version') IS NOT NULL")


def versions(tx: Connection) -> set[str]:
    """The migrations that the database stands at; none where it was never migrated."""
    return set(tx.execute(_VERSIONS).scalars()) if tx.execute(_MIGRATED).scalar_one() else set()


# The query is not read: its text may hold captions. A plain user sees no state of other users' sessions.
_SESSIONS = text("""
    WITH waiting AS (
        SELECT unnest(pg_blocking_pids(pid)) AS holder FROM pg_stat_activity
        WHERE wait_event_type = 'Lock' AND datname = current_database()
    ), held AS (SELECT holder, count(*) AS blocks FROM waiting GROUP BY holder)
    SELECT a.pid, a.usename, coalesce(a.application_name, ''), host(a.client_addr), a.state LIKE 'idle in%',
        extract(epoch FROM clock_timestamp() - CASE WHEN a.state LIKE 'idle in%' THEN a.state_change
                                                    ELSE a.xact_start END), coalesce(h.blocks, 0)
    FROM pg_stat_activity a LEFT JOIN held h ON h.holder = a.pid
    WHERE a.datname = current_database() AND a.backend_type = 'client backend' AND a.xact_start IS NOT NULL
        AND a.pid <> pg_backend_pid()
        AND CASE WHEN a.state LIKE 'idle in%' THEN a.state_change < clock_timestamp() - make_interval(secs => :idle)
                 ELSE a.xact_start < clock_timestamp() - make_interval(secs => :long) END
    ORDER BY h.blocks DESC NULLS LAST, a.xact_start LIMIT 20""")


def long_sessions(tx: Connection, idle: float, long: float) -> list[Session]:
    """Sessions that sit idle in a transaction for `idle` seconds, or work in one for `long`; those that hold others up
    first.
    """
    rows = tx.execute(_SESSIONS, {"idle": idle, "long": long})
    return [
        Session(pid, user, name, at, idles, float(lasted), blocks)
        for pid, user, name, at, idles, lasted, blocks in rows
    ]


_STALLED = text("""
    SELECT id FROM reschedules WHERE status IN ('queued', 'running')
        AND touched_at < clock_timestamp() - make_interval(secs => :age) ORDER BY id LIMIT 20""")

_FAILED_JOBS = text("""
    SELECT id, error FROM (SELECT id, status, error, finished_at FROM reschedules ORDER BY id DESC LIMIT 1000) latest
    WHERE status = 'failed' AND finished_at > clock_timestamp() - :within ORDER BY id DESC LIMIT 20""")

MANY = 10_000
FAILING = (FAILURES - {Outcome.MISCONFIGURED}) | {Outcome.UNKNOWN}
GROUPS = 5
"""Different words of a service for answers of one kind, the most frequent ones."""

RENDERS = """(
        (SELECT render_outcome, render_message, render_answered_at, render_waits_since FROM posts
         WHERE status = 'pending_render' AND claim_kind IS NULL AND deleted_at IS NULL
         ORDER BY scheduled_time LIMIT {many})
        UNION ALL
        (SELECT render_outcome, render_message, render_answered_at, render_waits_since FROM posts
         WHERE claim_kind = 'render' ORDER BY claim_expires_at LIMIT {many}))"""
"""The renderer's latest answer for posts that wait for a render, or are being rendered once more: `many` of each."""
WAITS_SINCE = "min(render_waits_since) FILTER (WHERE render_outcome IN ('not_now', 'processing'))"
"""Since when the renderer has asked to wait, or has been at work, for the one of RENDERS that waits longest."""

# Of many claims the first to expire (ix_posts_claims), and the latest try of each (ix_publish_attempts_post).
_PUBLISHES = """(
        SELECT last.* FROM (
            SELECT id FROM posts WHERE claim_kind = 'publish' ORDER BY claim_expires_at LIMIT :many) claimed
        CROSS JOIN LATERAL (
            SELECT outcome, message, finished_at FROM publish_attempts a
            WHERE a.post_id = claimed.id AND outcome IS NOT NULL ORDER BY a.id DESC LIMIT 1) last)"""
_BY_OUTCOME = """
    SELECT outcome, posts, words, in_all, newest FROM (
        SELECT outcome, count(*) AS posts, coalesce(message, '') AS words,
            CAST(sum(count(*)) OVER (PARTITION BY outcome) AS bigint) AS in_all,
            first_value(coalesce(message, '')) OVER (
                PARTITION BY outcome ORDER BY max(answered_at) DESC NULLS LAST) AS newest,
            row_number() OVER (PARTITION BY outcome ORDER BY count(*) DESC, max(answered_at) DESC, message) AS place
        FROM {source} answers(outcome, message, answered_at{more}) WHERE outcome IS NOT NULL
        GROUP BY outcome, message) grouped
    WHERE place <= {groups} ORDER BY outcome, place"""
_PUBLISHER = text(_BY_OUTCOME.format(source=_PUBLISHES, more="", groups=GROUPS))
_RENDERER = text(_BY_OUTCOME.format(source=RENDERS.format(many=":many"), more=", waits_since", groups=GROUPS))
# ix_posts_unrendered, ix_posts_claims
_RENDERER_WAITS = text(
    f"SELECT extract(epoch FROM clock_timestamp() - {WAITS_SINCE}) FROM {RENDERS.format(many=':many')} answers"
)


@dataclass(frozen=True, slots=True)
class Answered:
    """How many posts between two tries had an answer of this kind; `words` of the latest of them. `groups`: the most
    frequent words of them, with counts.
    """

    outcome: Outcome
    count: int
    words: str
    groups: tuple[tuple[str, int], ...]


def publisher_answers(tx: Connection, many: int = MANY) -> list[Answered]:
    """What the publisher last answered for posts that it is asked about again; so many posts are looked at."""
    return _answered(tx.execute(_PUBLISHER, {"many": many}))


def renderer_answers(tx: Connection, many: int = MANY) -> list[Answered]:
    """The same of the renderer."""
    return _answered(tx.execute(_RENDERER, {"many": many}))


def _answered(rows: Iterable[Any]) -> list[Answered]:
    found: list[Answered] = []
    for outcome, same in groupby(rows, key=itemgetter(0)):
        groups = list(same)
        _, _, _, count, newest = groups[0]
        found.append(Answered(Outcome(outcome), count, newest, tuple((words, posts) for _, posts, words, *_ in groups)))
    return found


def renderer_waits(tx: Connection, many: int = MANY) -> float:
    """For how many seconds the renderer has asked to wait, or has been at work, for the post that waits longest."""
    return float(tx.execute(_RENDERER_WAITS, {"many": many}).scalar_one() or 0.0)


def set_up_wrongly(answers: Iterable[Answered]) -> tuple[int, str]:
    """How many posts a service answers as it would answer any (401, 404, a redirect), and its words."""
    found = [(one.count, one.words) for one in answers if one.outcome is Outcome.MISCONFIGURED]
    return found[0] if found else (0, "")


def failing(answers: Iterable[Answered]) -> tuple[int, list[tuple[str, int]]]:
    """For how many posts the latest try of a service failed, or its outcome is unknown; its words, with counts. What
    `set_up_wrongly` tells is left out.
    """
    found = [one for one in answers if one.outcome in FAILING]
    return sum(one.count for one in found), [group for one in found for group in one.groups]


def failed_jobs(tx: Connection, within: timedelta) -> list[tuple[str, str]]:
    """Of the latest bulk jobs, those that failed within this time, each with its error. The latest first."""
    return [(job, error) for job, error in tx.execute(_FAILED_JOBS, {"within": within})]


def stalled_jobs(tx: Connection, age: float) -> list[str]:
    """Live bulk jobs that no worker has touched for `age` seconds."""
    return list(tx.execute(_STALLED, {"age": age}).scalars())
