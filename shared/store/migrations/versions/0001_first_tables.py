"""The first tables: workspaces, accounts, keys, posts, edits, idempotency keys, publish attempts."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

STATEMENTS = (
    """
    CREATE TABLE edits (
        id TEXT NOT NULL,
        seq BIGINT GENERATED ALWAYS AS IDENTITY (CACHE 1),
        post_id TEXT NOT NULL,
        workspace_id TEXT NOT NULL,
        changes JSONB NOT NULL,
        if_match TEXT[],
        api_key_id TEXT,
        requested_by TEXT NOT NULL,
        request_id TEXT,
        reschedule_id TEXT,
        created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
        status TEXT DEFAULT 'queued' NOT NULL,
        attempts SMALLINT DEFAULT 0 NOT NULL,
        started_at TIMESTAMP WITH TIME ZONE,
        lock_wait_ms INTEGER,
        finalized_at TIMESTAMP WITH TIME ZONE,
        revision BIGINT,
        before JSONB,
        after JSONB,
        result TEXT,
        error_code TEXT,
        error_message TEXT,
        error_details JSONB,
        CONSTRAINT pk_edits PRIMARY KEY (id),
        CONSTRAINT ck_edits_status CHECK (status IN ('queued', 'applied', 'rejected', 'failed')),
        CONSTRAINT ck_edits_final_has_its_time CHECK ((status = 'queued') = (finalized_at IS NULL)),
        CONSTRAINT ck_edits_applied_has_a_revision CHECK (status <> 'applied' OR revision IS NOT NULL),
        CONSTRAINT ck_edits_rejected_has_a_code CHECK (status NOT IN ('rejected', 'failed') OR error_code IS NOT NULL),
        CONSTRAINT ck_edits_attempts CHECK (attempts >= 0)
    )
     WITH (fillfactor = 85)
    """,
    """
    CREATE INDEX ix_edits_failed ON edits (seq DESC) WHERE status = 'failed'
    """,
    """
    CREATE INDEX ix_edits_post ON edits (post_id, seq DESC)
    """,
    """
    CREATE INDEX ix_edits_queue ON edits (post_id, seq) WHERE status = 'queued'
    """,
    """
    CREATE INDEX ix_edits_workspace ON edits (workspace_id, seq DESC)
    """,
    """
    COMMENT ON COLUMN edits.revision IS $$the post's revision as this edit left it, or as it found it$$
    """,
    """
    COMMENT ON COLUMN edits.result IS $$the body of the answer: the post's 12 fields as this edit left them$$
    """,
    """
    CREATE TABLE idempotency_keys (
        api_key_id TEXT NOT NULL,
        key TEXT NOT NULL,
        fingerprint BYTEA NOT NULL,
        resource TEXT NOT NULL,
        answer TEXT,
        created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
        CONSTRAINT pk_idempotency_keys PRIMARY KEY (api_key_id, key)
    )
    """,
    """
    CREATE INDEX ix_idempotency_keys_created_at ON idempotency_keys (created_at)
    """,
    """
    COMMENT ON COLUMN idempotency_keys.fingerprint IS $$SHA-256 of method, path, parsed body and If-Match$$
    """,
    """
    COMMENT ON COLUMN idempotency_keys.resource IS $$the id of what the first request made: edit, creation or job$$
    """,
    """
    COMMENT ON COLUMN idempotency_keys.answer IS $$the first answer's body, where the resource does not hold it$$
    """,
    """
    CREATE TABLE posts (
        id TEXT NOT NULL,
        workspace_id TEXT NOT NULL,
        account_id TEXT NOT NULL,
        platform TEXT NOT NULL,
        content_type TEXT NOT NULL,
        content_url JSONB NOT NULL,
        thumbnail_url TEXT,
        caption TEXT NOT NULL,
        sound_id TEXT,
        timezone TEXT,
        scheduled_time TIMESTAMP WITH TIME ZONE NOT NULL,
        status TEXT NOT NULL,
        created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
        render_as_video BOOLEAN DEFAULT false NOT NULL,
        slide_duration SMALLINT,
        rendered_url TEXT,
        revision BIGINT DEFAULT 1 NOT NULL,
        schedule_revision BIGINT DEFAULT 1 NOT NULL,
        content_revision BIGINT DEFAULT 1 NOT NULL,
        claim_kind TEXT,
        claim_token TEXT,
        claim_expires_at TIMESTAMP WITH TIME ZONE,
        enqueued_revision BIGINT,
        enqueued_at TIMESTAMP WITH TIME ZONE,
        retry_at TIMESTAMP WITH TIME ZONE,
        render_tries SMALLINT DEFAULT 0 NOT NULL,
        posted_at TIMESTAMP WITH TIME ZONE,
        platform_post_id TEXT,
        failure_reason TEXT,
        deleted_at TIMESTAMP WITH TIME ZONE,
        CONSTRAINT pk_posts PRIMARY KEY (id),
        CONSTRAINT ck_posts_status CHECK (status IN ('pending_render', 'generated', 'posted', 'failed')),
        CONSTRAINT ck_posts_platform CHECK (platform IN ('tiktok', 'instagram')),
        CONSTRAINT ck_posts_content_type CHECK (content_type IN ('video', 'slides')),
        CONSTRAINT ck_posts_content_url CHECK (jsonb_typeof(content_url) = CASE content_type WHEN 'video' THEN 'string' ELSE 'array' END),
        CONSTRAINT ck_posts_claim_kind CHECK (claim_kind IN ('render', 'publish')),
        CONSTRAINT ck_posts_publish_claim_only_in_generated CHECK (claim_kind <> 'publish' OR status = 'generated'),
        CONSTRAINT ck_posts_render_claim_only_in_pending_render CHECK (claim_kind <> 'render' OR status = 'pending_render'),
        CONSTRAINT ck_posts_claim_all_or_none CHECK (num_nulls(claim_kind, claim_token, claim_expires_at) IN (0, 3)),
        CONSTRAINT ck_posts_posted_has_its_time CHECK ((status = 'posted') = (posted_at IS NOT NULL)),
        CONSTRAINT ck_posts_failed_has_its_reason CHECK ((status = 'failed') = (failure_reason IS NOT NULL)),
        CONSTRAINT ck_posts_deleted_is_unclaimed CHECK (deleted_at IS NULL OR claim_kind IS NULL)
    )
     WITH (fillfactor = 80)
    """,
    """
    CREATE INDEX ix_posts_claims ON posts (claim_expires_at) WHERE claim_kind IS NOT NULL
    """,
    """
    CREATE INDEX ix_posts_due ON posts (scheduled_time) WHERE status = 'generated' AND claim_kind IS NULL AND deleted_at IS NULL
    """,
    """
    CREATE INDEX ix_posts_listing ON posts (workspace_id, created_at DESC, id DESC)
    """,
    """
    CREATE INDEX ix_posts_unrendered ON posts (scheduled_time) WHERE status = 'pending_render' AND claim_kind IS NULL AND deleted_at IS NULL
    """,
    """
    COMMENT ON COLUMN posts.content_url IS $$video: a string; slides: an array of strings$$
    """,
    """
    COMMENT ON COLUMN posts.rendered_url IS $$what a render made; the source stands in content_url, never overwritten$$
    """,
    """
    COMMENT ON COLUMN posts.enqueued_revision IS $$mark: the schedule (generated) or content revision last sent$$
    """,
    """
    CREATE TABLE publish_attempts (
        id BIGINT GENERATED ALWAYS AS IDENTITY,
        post_id TEXT NOT NULL,
        schedule_revision BIGINT NOT NULL,
        idempotency_key TEXT NOT NULL,
        body TEXT NOT NULL,
        try_number INTEGER NOT NULL,
        claim_token TEXT NOT NULL,
        started_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
        finished_at TIMESTAMP WITH TIME ZONE,
        outcome TEXT,
        message TEXT,
        forgiven BOOLEAN DEFAULT false NOT NULL,
        CONSTRAINT pk_publish_attempts PRIMARY KEY (id),
        CONSTRAINT ck_publish_attempts_finished_has_an_outcome CHECK ((outcome IS NULL) = (finished_at IS NULL)),
        CONSTRAINT uq_publish_attempts_claim_token UNIQUE (claim_token)
    )
    """,
    """
    CREATE INDEX ix_publish_attempts_post ON publish_attempts (post_id, id DESC)
    """,
    """
    COMMENT ON COLUMN publish_attempts.forgiven IS $$an operator's retry came since$$
    """,
    """
    CREATE TABLE workspaces (
        id TEXT NOT NULL,
        name TEXT NOT NULL,
        created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
        CONSTRAINT pk_workspaces PRIMARY KEY (id),
        CONSTRAINT uq_workspaces_name UNIQUE (name)
    )
    """,
    """
    CREATE TABLE accounts (
        id TEXT NOT NULL,
        workspace_id TEXT NOT NULL,
        platform TEXT NOT NULL,
        name TEXT NOT NULL,
        created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
        CONSTRAINT pk_accounts PRIMARY KEY (id),
        CONSTRAINT ck_accounts_platform CHECK (platform IN ('tiktok', 'instagram')),
        CONSTRAINT fk_accounts_workspace_id FOREIGN KEY(workspace_id) REFERENCES workspaces (id)
    )
    """,
    """
    CREATE INDEX ix_accounts_workspace_id ON accounts (workspace_id)
    """,
    """
    CREATE TABLE api_keys (
        id TEXT NOT NULL,
        workspace_id TEXT NOT NULL,
        name TEXT NOT NULL,
        secret_hash BYTEA NOT NULL,
        hint TEXT NOT NULL,
        scopes TEXT[] NOT NULL,
        rate_limit INTEGER,
        created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
        revoked_at TIMESTAMP WITH TIME ZONE,
        CONSTRAINT pk_api_keys PRIMARY KEY (id),
        CONSTRAINT uq_api_keys_workspace_id_name UNIQUE (workspace_id, name),
        CONSTRAINT ck_api_keys_rate_limit CHECK (rate_limit > 0),
        CONSTRAINT ck_api_keys_scopes CHECK (scopes <@ ARRAY['posts:read', 'posts:write', 'bulk']),
        CONSTRAINT fk_api_keys_workspace_id FOREIGN KEY(workspace_id) REFERENCES workspaces (id),
        CONSTRAINT uq_api_keys_secret_hash UNIQUE (secret_hash)
    )
    """,
    """
    CREATE INDEX ix_api_keys_workspace_id ON api_keys (workspace_id)
    """,
    """
    COMMENT ON COLUMN api_keys.hint IS $$the secret's last four characters, to tell keys apart$$
    """,
    """
    COMMENT ON COLUMN api_keys.rate_limit IS $$requests a minute; null: no limit$$
    """,
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
