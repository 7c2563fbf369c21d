"""The tables, and the constraints by which the database refuses impossible rows (docs/lifecycle.md).

No table that names a post has a foreign key to `posts`: the key's check would take a share lock on the post's row,
and one row that a person has locked FOR UPDATE would stop a whole batched INSERT. Posts are never removed.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from shared.domain.lifecycle import ClaimKind, EditStatus, Status
from shared.store.columns import instant, metadata, one_of
from shared.store.hold_tables import hold_columns, holds
from shared.store.reschedule_tables import reschedule_chunks, reschedules

__all__ = [
    "accounts", "acts", "api_keys", "edits", "holds", "idempotency_keys", "metadata", "posts", "publish_attempts",
    "reschedule_chunks", "reschedules", "secrets", "webhook_events", "workspaces",
]  # fmt: skip

workspaces = Table(
    "workspaces",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    instant("created_at", now=True),
)

accounts = Table(
    "accounts",
    metadata,
    Column("id", Text, primary_key=True),
    Column("workspace_id", Text, ForeignKey("workspaces.id"), nullable=False, index=True),
    Column("platform", Text, nullable=False),
    Column("name", Text, nullable=False),
    instant("created_at", now=True),
    CheckConstraint("platform IN ('tiktok', 'instagram')", name="platform"),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Text, primary_key=True),
    Column("workspace_id", Text, ForeignKey("workspaces.id"), nullable=False, index=True),
    Column("name", Text, nullable=False),
    # SHA-256 of a secret of 256 random bits: a slow hash protects guessable secrets, which this is not.
    Column("secret_hash", LargeBinary, nullable=False, unique=True),
    Column("hint", Text, nullable=False, comment="the secret's last four characters, to tell keys apart"),
    Column("scopes", ARRAY(Text), nullable=False),
    Column("rate_limit", Integer, comment="requests a minute; null: no limit"),
    instant("created_at", now=True),
    instant("revoked_at"),
    instant("expires_at"),
    instant("last_used_at"),
    UniqueConstraint("workspace_id", "name"),
    CheckConstraint("rate_limit > 0", name="rate_limit"),
    CheckConstraint("scopes <@ ARRAY['posts:read', 'posts:write', 'bulk']", name="scopes"),
)

posts = Table(
    "posts",
    metadata,
    Column("id", Text, primary_key=True),
    Column("workspace_id", Text, nullable=False),
    Column("account_id", Text, nullable=False),
    Column("platform", Text, nullable=False),
    Column("content_type", Text, nullable=False),
    Column("content_url", JSONB, nullable=False, comment="video: a string; slides: an array of strings"),
    Column("thumbnail_url", Text),
    Column("caption", Text, nullable=False),
    Column("sound_id", Text),
    Column("timezone", Text),
    instant("scheduled_time", required=True),
    Column("status", Text, nullable=False),
    instant("created_at", now=True),
    Column("render_as_video", Boolean, nullable=False, server_default=text("false")),
    Column("slide_duration", SmallInteger),
    Column("rendered_url", Text, comment="what a render made; the source stands in content_url, never overwritten"),
    Column("revision", BigInteger, nullable=False, server_default=text("1")),
    Column("schedule_revision", BigInteger, nullable=False, server_default=text("1")),
    Column("content_revision", BigInteger, nullable=False, server_default=text("1")),
    Column("claim_kind", Text),
    Column("claim_token", Text),
    instant("claim_expires_at"),
    Column("enqueued_revision", BigInteger, comment="mark: the schedule (generated) or content revision last sent"),
    instant("enqueued_at"),
    instant("retry_at"),
    Column("render_tries", SmallInteger, nullable=False, server_default=text("0")),
    Column(
        "render_waits_since",
        DateTime(timezone=True),
        comment='when the renderer first said "still at work" or "not now" of this content',
    ),
    instant("posted_at"),
    Column("platform_post_id", Text),
    Column("failure_reason", Text),
    instant("failed_at"),
    instant("deleted_at"),
    Column("failure_class", Text, comment="the kind of failure; null: failed before it was recorded"),
    Column("failure_message", Text, comment="the last answer, in words"),
    Column("render_outcome", Text, comment="how the latest try at a render ended"),
    Column("render_message", Text),
    instant("render_answered_at"),
    *hold_columns(),
    CheckConstraint(one_of("status", Status), name="status"),
    CheckConstraint("platform IN ('tiktok', 'instagram')", name="platform"),
    CheckConstraint("content_type IN ('video', 'slides')", name="content_type"),
    CheckConstraint(
        "jsonb_typeof(content_url) = CASE content_type WHEN 'video' THEN 'string' ELSE 'array' END", name="content_url"
    ),
    CheckConstraint(one_of("claim_kind", ClaimKind), name="claim_kind"),
    CheckConstraint("claim_kind <> 'publish' OR status = 'generated'", name="publish_claim_only_in_generated"),
    CheckConstraint("claim_kind <> 'render' OR status = 'pending_render'", name="render_claim_only_in_pending_render"),
    CheckConstraint("num_nulls(claim_kind, claim_token, claim_expires_at) IN (0, 3)", name="claim_all_or_none"),
    CheckConstraint("(status = 'posted') = (posted_at IS NOT NULL)", name="posted_has_its_time"),
    CheckConstraint("(status = 'failed') = (failure_reason IS NOT NULL)", name="failed_has_its_reason"),
    CheckConstraint("deleted_at IS NULL OR claim_kind IS NULL", name="deleted_is_unclaimed"),
    Index("ix_posts_listing", "workspace_id", text("created_at DESC"), text("id DESC")),
    Index("ix_posts_schedule", "workspace_id", "scheduled_time", "id", "account_id"),
    Index(
        "ix_posts_due",
        "scheduled_time",
        postgresql_where=text("status = 'generated' AND claim_kind IS NULL AND deleted_at IS NULL"),
    ),
    Index(
        "ix_posts_unrendered",
        "scheduled_time",
        postgresql_where=text("status = 'pending_render' AND claim_kind IS NULL AND deleted_at IS NULL"),
    ),
    Index("ix_posts_failed", text("failed_at DESC"), postgresql_where=text("status = 'failed' AND deleted_at IS NULL")),
    Index("ix_posts_claims", "claim_expires_at", postgresql_where=text("claim_kind IS NOT NULL")),
    # Room on the page for the next versions of a row: most edits then touch no index (HOT).
    postgresql_with={"fillfactor": "80"},
)

edits = Table(
    "edits",
    metadata,
    Column("id", Text, primary_key=True),
    # CACHE 1: a session that caches numbers would put a later edit before an earlier one.
    Column("seq", BigInteger, Identity(always=True, cache=1), nullable=False),
    Column("post_id", Text, nullable=False),
    Column("workspace_id", Text, nullable=False),
    Column("changes", JSONB, nullable=False),
    Column("if_match", ARRAY(Text)),
    Column("api_key_id", Text),
    Column("requested_by", Text, nullable=False),
    Column("request_id", Text),
    Column("reschedule_id", Text),
    instant("created_at", now=True),
    Column("status", Text, nullable=False, server_default=text("'queued'")),
    Column("attempts", SmallInteger, nullable=False, server_default=text("0")),
    Column("deferrals", SmallInteger, nullable=False, server_default=text("0")),
    instant("started_at"),
    Column("lock_wait_ms", Integer),
    instant("finalized_at"),
    Column("revision", BigInteger, comment="the post's revision as this edit left it, or as it found it"),
    Column("before", JSONB),
    Column("after", JSONB),
    Column("result", Text, comment="the body of the answer: the post's 12 fields as this edit left them"),
    Column("error_code", Text),
    Column("error_message", Text),
    Column("error_details", JSONB),
    CheckConstraint(one_of("status", EditStatus), name="status"),
    CheckConstraint("(status = 'queued') = (finalized_at IS NULL)", name="final_has_its_time"),
    CheckConstraint("status <> 'applied' OR revision IS NOT NULL", name="applied_has_a_revision"),
    CheckConstraint("status NOT IN ('rejected', 'failed') OR error_code IS NOT NULL", name="rejected_has_a_code"),
    CheckConstraint("attempts >= 0", name="attempts"),
    Index("ix_edits_queue", "post_id", "seq", postgresql_where=text("status = 'queued'")),
    Index("ix_edits_post", "post_id", text("seq DESC")),
    Index("ix_edits_workspace", "workspace_id", text("seq DESC")),
    Index("ix_edits_failed", text("seq DESC"), postgresql_where=text("status = 'failed'")),
    Index("ix_edits_rejected", "id", postgresql_where=text("status = 'rejected'")),
    Index("ix_edits_request", "request_id", "id", postgresql_where=text("reschedule_id IS NULL")),
    postgresql_with={"fillfactor": "85"},
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("api_key_id", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("fingerprint", LargeBinary, nullable=False, comment="SHA-256 of method, path, parsed body and If-Match"),
    Column("resource", Text, nullable=False, comment="the id of what the first request made: edit, creation or job"),
    Column("answer", Text, comment="the first answer's body, where the resource does not hold it"),
    instant("created_at", now=True),
    Index("ix_idempotency_keys_created_at", "created_at"),
)

secrets = Table(
    "secrets",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", LargeBinary, nullable=False, comment="random, made by a migration; shown to nobody"),
    instant("created_at", now=True),
)

publish_attempts = Table(
    "publish_attempts",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("post_id", Text, nullable=False),
    Column("schedule_revision", BigInteger, nullable=False),
    Column("idempotency_key", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("try_number", Integer, nullable=False),
    Column("claim_token", Text, nullable=False, unique=True),
    instant("started_at", now=True),
    instant("finished_at"),
    Column("outcome", Text),
    Column("message", Text),
    Column("forgiven", Boolean, nullable=False, server_default=text("false"), comment="an operator's retry came since"),
    Column(
        "not_sent",
        Boolean,
        nullable=False,
        server_default=text("false"),
        comment="an operator said that it had no effect; `acts` says who",
    ),
    Column("platform_post_id", Text),
    CheckConstraint("(outcome IS NULL) = (finished_at IS NULL)", name="finished_has_an_outcome"),
    Index("ix_publish_attempts_post", "post_id", text("id DESC")),
)

acts = Table(
    "acts",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("at", DateTime(timezone=True), nullable=False, server_default=text("clock_timestamp()")),
    Column("actor", Text, nullable=False, comment="an operator's name, or the name of an API key"),
    Column("api_key_id", Text, comment="the key, where an API client did it; null: an operator"),
    Column("action", Text, nullable=False),
    Column("subject", Text, nullable=False, comment="what kind of thing subject_id names: post, edit, job, webhook …"),
    Column("subject_id", Text, nullable=False),
    Column("workspace_id", Text, nullable=False),
    Column("from_state", Text, nullable=False),
    Column("before", JSONB, nullable=False, comment="what stood there before and was overwritten"),
    Column("request_id", Text),
    Index("ix_acts_subject", "subject_id", text("id DESC")),
)

webhook_events = Table(
    "webhook_events",
    metadata,
    Column("seq", BigInteger, Identity(always=True, cache=1), primary_key=True),
    Column("id", Text, nullable=False, unique=True),
    Column("workspace_id", Text, nullable=False),
    Column("post_id", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("data", JSONB, nullable=False),
    instant("created_at", now=True),
    Column("status", Text, nullable=False, server_default=text("'queued'")),
    Column("tries", SmallInteger, nullable=False, server_default=text("0")),
    Column("lease_token", Text),
    instant("lease_expires_at"),
    instant("finished_at"),
    Column("message", Text, comment="how the latest try failed"),
    Column("resent_at", DateTime(timezone=True), comment="when an operator queued it again; its day begins there"),
    CheckConstraint("status IN ('queued', 'delivered', 'dead')", name="status"),
    CheckConstraint("(status = 'queued') = (finished_at IS NULL)", name="finished_has_its_time"),
    CheckConstraint("num_nulls(lease_token, lease_expires_at) IN (0, 2)", name="lease_all_or_none"),
    CheckConstraint("status = 'queued' OR lease_token IS NULL", name="only_queued_is_leased"),
    Index("ix_webhook_events_queue", "post_id", "seq", postgresql_where=text("status = 'queued'")),
    Index("ix_webhook_events_dead", text("seq DESC"), postgresql_where=text("status = 'dead'")),
    Index("ix_webhook_events_delivered", "finished_at", postgresql_where=text("status = 'delivered'")),
    Index(
        "ix_webhook_events_taken", "workspace_id", "finished_at", "seq", postgresql_where=text("status = 'delivered'")
    ),
    Index(
        "ix_webhook_events_open",
        "workspace_id",
        "status",
        text("coalesce(resent_at, created_at)"),
        "seq",
        postgresql_where=text("status <> 'delivered'"),
    ),
    postgresql_with={"fillfactor": "85"},
)

webhook_tries = Table(
    "webhook_tries",
    metadata,
    Column("event_seq", BigInteger, ForeignKey("webhook_events.seq", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("workspace_id", Text, nullable=False),
    Column("at", DateTime(timezone=True), nullable=False, server_default=text("clock_timestamp()")),
    Column("outcome", Text, nullable=False),
    Column("status", SmallInteger, comment="the HTTP status; null: there was no answer"),
    Column("message", Text),
    Column("took_ms", Integer, comment="how long the call lasted; null: not known"),
    Index("ix_webhook_tries_latest", "workspace_id", text("at DESC")),
)
