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
    MetaData,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from shared.domain.lifecycle import ClaimKind, EditStatus, Status
from shared.domain.reschedule_jobs import JobStatus

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

_NOW = text("now()")


def _one_of(column: str, values: type[Status] | type[ClaimKind] | type[EditStatus]) -> str:
    return f"{column} IN ({', '.join(repr(value.value) for value in values)})"


def _instant(name: str, *, required: bool = False, now: bool = False) -> Column[object]:
    return Column(name, DateTime(timezone=True), nullable=not (required or now), server_default=_NOW if now else None)


workspaces = Table(
    "workspaces",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    _instant("created_at", now=True),
)

accounts = Table(
    "accounts",
    metadata,
    Column("id", Text, primary_key=True),
    Column("workspace_id", Text, ForeignKey("workspaces.id"), nullable=False, index=True),
    Column("platform", Text, nullable=False),
    Column("name", Text, nullable=False),
    _instant("created_at", now=True),
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
    _instant("created_at", now=True),
    _instant("revoked_at"),
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
    _instant("scheduled_time", required=True),
    Column("status", Text, nullable=False),
    _instant("created_at", now=True),
    Column("render_as_video", Boolean, nullable=False, server_default=text("false")),
    Column("slide_duration", SmallInteger),
    Column("rendered_url", Text, comment="what a render made; the source stands in content_url, never overwritten"),
    Column("revision", BigInteger, nullable=False, server_default=text("1")),
    Column("schedule_revision", BigInteger, nullable=False, server_default=text("1")),
    Column("content_revision", BigInteger, nullable=False, server_default=text("1")),
    Column("claim_kind", Text),
    Column("claim_token", Text),
    _instant("claim_expires_at"),
    Column("enqueued_revision", BigInteger, comment="mark: the schedule (generated) or content revision last sent"),
    _instant("enqueued_at"),
    _instant("retry_at"),
    Column("render_tries", SmallInteger, nullable=False, server_default=text("0")),
    Column(
        "render_waits_since",
        DateTime(timezone=True),
        comment='when the renderer first said "still at work" or "not now" of this content',
    ),
    _instant("posted_at"),
    Column("platform_post_id", Text),
    Column("failure_reason", Text),
    _instant("failed_at"),
    _instant("deleted_at"),
    Column("failure_class", Text, comment="the kind of failure; null: failed before it was recorded"),
    Column("failure_message", Text, comment="the last answer, in words"),
    Column("render_outcome", Text, comment="how the latest try at a render ended"),
    Column("render_message", Text),
    _instant("render_answered_at"),
    CheckConstraint(_one_of("status", Status), name="status"),
    CheckConstraint("platform IN ('tiktok', 'instagram')", name="platform"),
    CheckConstraint("content_type IN ('video', 'slides')", name="content_type"),
    CheckConstraint(
        "jsonb_typeof(content_url) = CASE content_type WHEN 'video' THEN 'string' ELSE 'array' END", name="content_url"
    ),
    CheckConstraint(_one_of("claim_kind", ClaimKind), name="claim_kind"),
    CheckConstraint("claim_kind <> 'publish' OR status = 'generated'", name="publish_claim_only_in_generated"),
    CheckConstraint("claim_kind <> 'render' OR status = 'pending_render'", name="render_claim_only_in_pending_render"),
    CheckConstraint("num_nulls(claim_kind, claim_token, claim_expires_at) IN (0, 3)", name="claim_all_or_none"),
    CheckConstraint("(status = 'posted') = (posted_at IS NOT NULL)", name="posted_has_its_time"),
    CheckConstraint("(status = 'failed') = (failure_reason IS NOT NULL)", name="failed_has_its_reason"),
    CheckConstraint("deleted_at IS NULL OR claim_kind IS NULL", name="deleted_is_unclaimed"),
    Index("ix_posts_listing", "workspace_id", text("created_at DESC"), text("id DESC")),
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
    _instant("created_at", now=True),
    Column("status", Text, nullable=False, server_default=text("'queued'")),
    Column("attempts", SmallInteger, nullable=False, server_default=text("0")),
    Column("deferrals", SmallInteger, nullable=False, server_default=text("0")),
    _instant("started_at"),
    Column("lock_wait_ms", Integer),
    _instant("finalized_at"),
    Column("revision", BigInteger, comment="the post's revision as this edit left it, or as it found it"),
    Column("before", JSONB),
    Column("after", JSONB),
    Column("result", Text, comment="the body of the answer: the post's 12 fields as this edit left them"),
    Column("error_code", Text),
    Column("error_message", Text),
    Column("error_details", JSONB),
    CheckConstraint(_one_of("status", EditStatus), name="status"),
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
    _instant("created_at", now=True),
    Index("ix_idempotency_keys_created_at", "created_at"),
)

secrets = Table(
    "secrets",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", LargeBinary, nullable=False, comment="random, made by a migration; shown to nobody"),
    _instant("created_at", now=True),
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
    _instant("started_at", now=True),
    _instant("finished_at"),
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

reschedules = Table(
    "reschedules",
    metadata,
    Column("id", Text, primary_key=True),
    Column("workspace_id", Text, nullable=False),
    Column("api_key_id", Text, nullable=False),
    Column("requested_by", Text, nullable=False),
    Column("request_id", Text),
    _instant("created_at", now=True),
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
    Column("attempts", SmallInteger, nullable=False, server_default=text("0"), comment="at freezing its posts"),
    _instant("touched_at", now=True),
    _instant("started_at"),
    _instant("finished_at"),
    Column("error", Text),
    CheckConstraint(f"status IN ({', '.join(repr(one.value) for one in JobStatus)})", name="status"),
    CheckConstraint(
        "(status IN ('done', 'canceled', 'failed')) = (finished_at IS NOT NULL)", name="ended_has_its_time"
    ),
    CheckConstraint("(status = 'failed') = (error IS NOT NULL)", name="failed_has_its_error"),
    CheckConstraint("num_nulls(total, chunks) IN (0, 2)", name="frozen_all_or_none"),
    CheckConstraint("applied + skipped + failed + held <= coalesce(total, 0)", name="counts_stay_within_the_total"),
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
    Index("ix_reschedule_chunks_open", "reschedule_id", "number", postgresql_where=text("NOT done")),
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
    _instant("created_at", now=True),
    Column("status", Text, nullable=False, server_default=text("'queued'")),
    Column("tries", SmallInteger, nullable=False, server_default=text("0")),
    Column("lease_token", Text),
    _instant("lease_expires_at"),
    _instant("finished_at"),
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
    Index("ix_webhook_tries_latest", "workspace_id", text("at DESC")),
)
