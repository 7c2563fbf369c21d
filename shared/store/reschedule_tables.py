"""The tables of bulk jobs and their chunks (docs/bulk.md)."""

from sqlalchemy import Boolean, CheckConstraint, Column, Index, Integer, SmallInteger, Table, Text, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from shared.domain.reschedule_jobs import JobStatus
from shared.store.columns import instant, metadata

reschedules = Table(
    "reschedules",
    metadata,
    Column("id", Text, primary_key=True),
    Column("workspace_id", Text, nullable=False),
    Column("api_key_id", Text, nullable=False),
    Column("requested_by", Text, nullable=False),
    Column("request_id", Text),
    instant("created_at", now=True),
    Column("dry_run", Boolean, nullable=False, server_default=text("false")),
    Column("plan", JSONB, nullable=False, comment="shift, spread, items or revert: what each post's move is made of"),
    Column("filter", JSONB, comment="which posts, as the client sent it; null where items or another job name them"),
    Column("items", JSONB, comment="the request's items; empty again once its posts are frozen into chunks"),
    # One that another job has been made to revert: a second revert finds the name taken.
    Column("reverts", Text, unique=True),
    Column("status", Text, nullable=False, server_default=text("'queued'")),
    Column("total", Integer),
    Column("chunks", Integer),
    Column("chunks_done", Integer, nullable=False, server_default=text("0")),
    Column(
        "held", Integer, nullable=False, server_default=text("0"), comment="posts passed by, since others held them"
    ),
    Column("applied", Integer, nullable=False, server_default=text("0")),
    Column("skipped", Integer, nullable=False, server_default=text("0")),
    Column("failed", Integer, nullable=False, server_default=text("0")),
    Column(
        "unchanged",
        Integer,
        server_default=text("0"),
        comment="of applied: posts that were there already; null for a job of a version that did not count them",
    ),
    Column("attempts", SmallInteger, nullable=False, server_default=text("0"), comment="at freezing its posts"),
    instant("touched_at", now=True),
    instant("started_at"),
    instant("finished_at"),
    Column("error", Text),
    CheckConstraint(f"status IN ({', '.join(repr(one.value) for one in JobStatus)})", name="status"),
    CheckConstraint(
        "(status IN ('done', 'canceled', 'failed')) = (finished_at IS NOT NULL)", name="ended_has_its_time"
    ),
    CheckConstraint("(status = 'failed') = (error IS NOT NULL)", name="failed_has_its_error"),
    CheckConstraint("num_nulls(total, chunks) IN (0, 2)", name="frozen_all_or_none"),
    CheckConstraint("applied + skipped + failed + held <= coalesce(total, 0)", name="counts_stay_within_the_total"),
    CheckConstraint("unchanged BETWEEN 0 AND applied", name="unchanged_are_applied"),
    CheckConstraint("status <> 'done' OR applied + skipped + failed = total", name="done_has_counted_all"),
    Index("ix_reschedules_listing", "workspace_id", text("created_at DESC"), text("id DESC")),
    Index("ix_reschedules_request", "request_id"),
    # By id, not by time: a chunk touches its job, and what it touches stands in no index (HOT).
    Index("ix_reschedules_live", "id", postgresql_where=text("status IN ('queued', 'running')")),
    postgresql_with={"fillfactor": "50"},
)

reschedule_chunks = Table(
    "reschedule_chunks",
    metadata,
    Column("reschedule_id", Text, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("first", Integer, nullable=False, comment="the ordinal of its first post in the job"),
    Column("post_ids", ARRAY(Text), nullable=False, comment="in id order, which is the order of the locks"),
    Column("done", Boolean, nullable=False, server_default=text("false"), comment="all but the held ones are decided"),
    Column("attempts", SmallInteger, nullable=False, server_default=text("0")),
    Column("aims", JSONB, comment="what the plan says of each post, where it says something of its own for each"),
    Column(
        "outcomes",
        JSONB,
        nullable=False,
        server_default=text("'[]'"),
        comment="[index, outcome, before, after, reason] of posts that have no audit row to say it",
    ),
    Column("held", ARRAY(Integer), nullable=False, server_default=text("'{}'"), comment="indexes still to be decided"),
    Column(
        "warned",
        ARRAY(Integer),
        nullable=False,
        server_default=text("'{}'"),
        comment="indexes of moved posts that share their minute with another post of their account",
    ),
    Index("ix_reschedule_chunks_open", "reschedule_id", "number", postgresql_where=text("NOT done")),
)
