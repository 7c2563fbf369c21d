"""The gauges of /metrics that are read from the rows: what waits, what is late, what is claimed.

They are read at scrape time. So they are right after any restart, and without any worker. Each group is one statement
with a time limit of its own: a slow group does not hide the others.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, TextClause, text

from shared.domain.failure_classes import FailureClass
from shared.domain.service_answers import Outcome
from shared.store.failed_posts import CLASS
from shared.store.health import MANY, RENDERS, WAITS_SINCE
from shared.store.hold_lists import HELD
from shared.store.hold_tables import DUE_AT, FREE
from shared.store.schedule import OVERDUE


@dataclass(frozen=True, slots=True)
class Gauge:
    """A column of a group's statement, as Prometheus shows it. With a label, the column ends in `__` and its value."""

    name: str
    help: str
    label: str = ""


def _counts(column: str, gauge: str, values: Iterable[str]) -> str:
    """A count for each value of a column, as the columns of one labelled gauge."""
    return ", ".join(f"count(*) FILTER (WHERE {column} = '{value}') AS {gauge}__{value}" for value in values)


_RENDER_ANSWERS = (
    Outcome.MISCONFIGURED,
    Outcome.NEVER_STARTED,
    Outcome.NOT_NOW,
    Outcome.PROCESSING,
    Outcome.SERVER_ERROR,
    Outcome.UNKNOWN,
)

# By the partial indexes alone, whatever the tables have grown to. What is due is judged by the database's clock.
STATEMENTS: Mapping[str, TextClause] = {
    "edits": text("""
        SELECT count(*) AS redraft_edits_queued,
            coalesce(extract(epoch FROM clock_timestamp() - min(created_at)), 0) AS redraft_oldest_edit_seconds,
            (SELECT count(*) FROM edits WHERE status = 'failed') AS redraft_edits_failed,
            count(*) FILTER (WHERE deferrals > 3) AS redraft_edits_put_off
        FROM edits WHERE status = 'queued'"""),
    "posts": text(f"""
        SELECT count(*) FILTER (WHERE goes_at < now() - make_interval(secs => :overdue))
                AS redraft_posts_overdue,
            greatest(0, extract(epoch FROM clock_timestamp() - min({DUE_AT}))) AS redraft_posts_late_seconds,
            count(*) FILTER (WHERE enqueued_revision IS DISTINCT FROM schedule_revision AND retry_at IS NULL
                AND greatest(created_at, released_at) < now() - interval '5 seconds'
                AND scheduled_time < now() + make_interval(secs => :soon)) AS redraft_posts_unsent
        FROM (SELECT *, greatest({DUE_AT}, retry_at) AS goes_at FROM posts
              WHERE status = 'generated' AND claim_kind IS NULL AND deleted_at IS NULL AND {FREE}
                AND scheduled_time < now() + make_interval(secs => :soon)) due"""),
    # A hold is no fault: no other group counts these posts.
    "holds": text(f"""
        SELECT posts - missed AS redraft_posts_held__held, missed AS redraft_posts_held__missed,
            accounts AS redraft_holds__account, workspaces AS redraft_holds__workspace
        FROM ({HELD}) held"""),
    "renders": text("""
        SELECT count(*) AS redraft_posts_unrendered
        FROM posts WHERE status = 'pending_render' AND claim_kind IS NULL AND deleted_at IS NULL
            AND scheduled_time < now() + interval '5 minutes'"""),
    "claims": text(f"""
        SELECT count(*) FILTER (WHERE claim_kind = 'publish') AS redraft_claims__publish,
            count(*) FILTER (WHERE claim_kind = 'render') AS redraft_claims__render,
            count(*) FILTER (WHERE claim_kind = 'publish' AND claim_expires_at <= now())
                AS redraft_claims_expired__publish,
            count(*) FILTER (WHERE claim_kind = 'render' AND claim_expires_at <= now())
                AS redraft_claims_expired__render,
            coalesce(extract(epoch FROM clock_timestamp() - min({DUE_AT}) FILTER (
                WHERE scheduled_time < now())), 0) AS redraft_claimed_late_seconds
        FROM posts WHERE claim_kind IS NOT NULL"""),
    # Of many claims the first to expire: a publisher that refuses everything must not make a scrape slow.
    "answers": text(f"""
        SELECT count(*) FILTER (WHERE outcome = 'misconfigured') AS redraft_publishes_answered__misconfigured,
            count(*) FILTER (WHERE outcome = 'not_now') AS redraft_publishes_answered__not_now,
            count(*) FILTER (WHERE outcome = 'processing') AS redraft_publishes_answered__processing,
            count(*) FILTER (WHERE outcome = 'server_error') AS redraft_publishes_answered__server_error,
            count(*) FILTER (WHERE outcome = 'unknown') AS redraft_publishes_answered__unknown,
            -- A claim whose own try has an outcome waits for its next try. Without a claim retry_at says it.
            count(*) FILTER (WHERE last.claim_token = claimed.claim_token AND claim_expires_at > now()
                    AND scheduled_time < now())
                + (SELECT count(*) FROM posts WHERE status = 'generated' AND claim_kind IS NULL AND deleted_at IS NULL
                    AND {FREE} AND scheduled_time < now() AND retry_at > now()) AS redraft_posts_between_tries
        FROM (SELECT id, claim_token, claim_expires_at, scheduled_time FROM posts WHERE claim_kind = 'publish'
              ORDER BY claim_expires_at LIMIT 10000) claimed
        CROSS JOIN LATERAL (
            SELECT outcome, claim_token FROM publish_attempts a WHERE a.post_id = claimed.id AND outcome IS NOT NULL
            ORDER BY a.id DESC LIMIT 1) last"""),
    # Posts that a renderer has answered for: those between two tries by ix_posts_unrendered, the soonest of many, and
    # those that are being rendered again by ix_posts_claims.
    "render_answers": text(f"""
        SELECT {_counts("render_outcome", "redraft_renders_answered", _RENDER_ANSWERS)},
            coalesce(extract(epoch FROM clock_timestamp() - {WAITS_SINCE}), 0) AS redraft_renderer_waiting_seconds
        FROM {RENDERS.format(many=MANY)} answered"""),
    # What failed within a day and was not put back (ix_posts_failed); of many the newest, so that a publisher that
    # refuses everything does not make a scrape slow.
    "failed": text(f"""
        SELECT {_counts("failure", "redraft_posts_failed", FailureClass)}
        FROM (SELECT {CLASS} AS failure FROM posts p
              WHERE status = 'failed' AND deleted_at IS NULL AND failed_at > now() - interval '1 day'
              ORDER BY failed_at DESC LIMIT 10000) failed"""),
    "jobs": text("""
        SELECT count(*) FILTER (WHERE status = 'queued') AS redraft_jobs__queued,
            count(*) FILTER (WHERE status = 'running') AS redraft_jobs__running,
            coalesce(sum(total), 0) AS redraft_jobs_posts,
            coalesce(sum(applied + skipped + failed), 0) AS redraft_jobs_posts_decided,
            coalesce(extract(epoch FROM clock_timestamp() - min(touched_at)), 0) AS redraft_jobs_untouched_seconds
        FROM reschedules WHERE status IN ('queued', 'running')"""),
    # Counts stop at a million: a receiver that is away for a day must not make a scrape slow, and hide its own alert.
    # The oldest of each workspace is the first of its part of ix_webhook_events_open.
    "webhooks": text("""
        SELECT (SELECT count(*) FROM (SELECT FROM webhook_events WHERE status = 'queued' LIMIT 1000000) queued)
                AS redraft_webhook_events__queued,
            (SELECT count(*) FROM (SELECT FROM webhook_events WHERE status = 'dead' LIMIT 1000000) dead)
                AS redraft_webhook_events__dead,
            coalesce(extract(epoch FROM clock_timestamp() - min(oldest.at)), 0) AS redraft_oldest_webhook_seconds
        FROM workspaces w CROSS JOIN LATERAL (
            SELECT coalesce(resent_at, created_at) AS at FROM webhook_events
            WHERE workspace_id = w.id AND status = 'queued'
            ORDER BY coalesce(resent_at, created_at) LIMIT 1) oldest"""),
    "sessions": text("""
        SELECT coalesce(extract(epoch FROM clock_timestamp() - min(state_change) FILTER (
                WHERE state LIKE 'idle in transaction%')), 0) AS redraft_idle_transaction_seconds,
            (SELECT coalesce(extract(epoch FROM clock_timestamp() - min(waitstart)), 0)
             FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE NOT granted AND datname = current_database())
                AS redraft_lock_waiting_seconds,
            count(*) AS redraft_database_sessions, CAST(current_setting('max_connections') AS integer)
                AS redraft_database_sessions_most
        FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend'"""),
}

GAUGES: Mapping[str, Gauge] = {
    gauge.name: gauge
    for gauge in (
        Gauge("redraft_edits_queued", "Edits that were accepted and have not ended."),
        Gauge("redraft_oldest_edit_seconds", "Age of the queue: how long its oldest edit has waited."),
        Gauge("redraft_edits_failed", "Edits whose attempts are spent: an operator requeues or discards them."),
        Gauge("redraft_edits_put_off", "Queued edits whose batches PostgreSQL ended more than three times."),
        Gauge("redraft_posts_overdue", "Posts past their time by 2 s and more, unclaimed, not between two tries."),
        Gauge("redraft_posts_late_seconds", "How late the latest post is that is ready and unclaimed."),
        Gauge("redraft_posts_unsent", "Posts due within half of dispatch's horizon, not sent to the workers."),
        Gauge("redraft_posts_between_tries", "Posts past their time that wait for their next try, claimed or not."),
        Gauge("redraft_posts_unrendered", "Posts due within 5 minutes, or late, that no render has claimed."),
        Gauge("redraft_posts_held", "Waiting posts held by themselves: by a hold, or missed; 10,000 at most.", "why"),
        Gauge("redraft_holds", "Accounts and workspaces that are held; 10,000 at most.", "of"),
        Gauge("redraft_claims", "Posts claimed by a render or publish.", "kind"),
        Gauge("redraft_claims_expired", "Claims whose holder is gone, or whose next try has come.", "kind"),
        Gauge("redraft_claimed_late_seconds", "How late the latest post is that is claimed."),
        Gauge(
            "redraft_publishes_answered",
            "Posts under way or between two tries, by what the publisher's last answer meant.",
            "answer",
        ),
        Gauge(
            "redraft_renders_answered",
            "Posts that wait for their next render, by what the renderer's last answer meant.",
            "answer",
        ),
        Gauge(
            "redraft_renderer_waiting_seconds",
            "How long the renderer has asked to wait, or has been at work, for the post that has waited longest.",
        ),
        Gauge(
            "redraft_posts_failed",
            "Posts that failed within a day and were not put back, by the class of failure; 10,000 at most.",
            "class",
        ),
        Gauge("redraft_jobs", "Bulk jobs that have not ended.", "status"),
        Gauge("redraft_jobs_posts", "Posts of the bulk jobs that have not ended."),
        Gauge("redraft_jobs_posts_decided", "Those of them that are decided."),
        Gauge("redraft_jobs_untouched_seconds", "How long the most neglected live bulk job has been left alone."),
        Gauge(
            "redraft_webhook_events",
            "Webhook events not delivered: queued, or dead after 24 h; a million at most.",
            "status",
        ),
        Gauge("redraft_oldest_webhook_seconds", "How long the oldest queued webhook event has waited."),
        Gauge("redraft_idle_transaction_seconds", "How long the longest idle transaction has done nothing."),
        Gauge("redraft_lock_waiting_seconds", "How long the longest wait for a lock has lasted."),
        Gauge("redraft_database_sessions", "Sessions of clients in our database."),
        Gauge("redraft_database_sessions_most", "max_connections, for all databases of the server."),
    )
}

_LIMIT_STATEMENT = text("SELECT set_config('statement_timeout', :limit, true)")


def read(tx: Connection, group: str, within: float, horizon: float) -> list[tuple[str, str, float]]:
    """One group's gauges: (name, label's value or "", value). A statement above `within` seconds is given up.

    `horizon`: dispatch's, in seconds; what is due within half of it should long have been sent.
    """
    tx.execute(_LIMIT_STATEMENT, {"limit": f"{int(within * 1000)}ms"})
    given = {"overdue": OVERDUE, "soon": horizon / 2} if group == "posts" else {}
    row = tx.execute(STATEMENTS[group], given).mappings().one()
    found: list[tuple[str, str, float]] = []
    for column, value in row.items():
        name, _, label = str(column).partition("__")
        found.append((name, label, float(value or 0)))
    return found
