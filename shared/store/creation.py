"""Creating posts: which accounts there are, and one INSERT for all posts of a request and its key."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from pydantic_core import to_json
from sqlalchemy import Connection, text

from shared.domain.posts import Post
from shared.store.idempotency import Kept

_PLATFORMS = text("SELECT id, platform, now() FROM accounts WHERE workspace_id = :workspace AND id = ANY(:ids)")


def platforms(tx: Connection, workspace_id: str, account_ids: Iterable[str]) -> tuple[dict[str, str], datetime | None]:
    """The platforms of those accounts that the workspace has, and the time of this transaction (None without any)."""
    rows = tx.execute(_PLATFORMS, {"workspace": workspace_id, "ids": list(account_ids)}).all()
    return {row[0]: row[1] for row in rows}, rows[0][2] if rows else None


_INSERT = text("""
    WITH kept AS (
        INSERT INTO idempotency_keys (api_key_id, key, fingerprint, resource, answer)
        SELECT :api_key_id, :key, decode(:fingerprint, 'hex'), :resource, :answer
        WHERE CAST(:key AS text) IS NOT NULL
        ON CONFLICT DO NOTHING
        RETURNING resource
    )
    INSERT INTO posts (id, workspace_id, account_id, platform, content_type, content_url, caption, sound_id, timezone,
        scheduled_time, status, created_at, render_as_video, slide_duration, enqueued_revision, enqueued_at)
    SELECT r.id, r.workspace_id, r.account_id, r.platform, r.content_type, r.content_url, r.caption, r.sound_id,
        r.timezone, r.scheduled_time, r.status, r.created_at, r.render_as_video, r.slide_duration,
        r.enqueued_revision, CASE WHEN r.enqueued_revision IS NOT NULL THEN clock_timestamp() END
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r(
        id text, workspace_id text, account_id text, platform text, content_type text, content_url jsonb, caption text,
        sound_id text, timezone text, scheduled_time timestamptz, status text, created_at timestamptz,
        render_as_video boolean, slide_duration smallint, enqueued_revision bigint)
    WHERE CAST(:key AS text) IS NULL OR EXISTS (SELECT FROM kept)
    RETURNING id""")


def insert_posts(tx: Connection, posts: Sequence[Post], kept: Kept | None) -> bool:
    """Create posts, each marked as sent for where its `enqueued_revision` says so; send below the commit.
    `kept`: what a repeat of the request is answered with.

    False, and nothing is created, where another request has the key: this waited for its end, and the next statement
    sees what it made.
    """
    given: dict[str, Any] = {"api_key_id": None, "key": None, "fingerprint": "", "resource": None, "answer": None}
    if kept is not None:
        given = {name: getattr(kept, name) for name in given}
    made = tx.execute(_INSERT, given | {"rows": to_json([_row(post) for post in posts]).decode()})
    return len(made.all()) == len(posts)


def _row(post: Post) -> dict[str, Any]:
    facts = post.facts
    return {
        "id": facts.id,
        "workspace_id": post.workspace_id,
        "account_id": post.account_id,
        "platform": facts.platform,
        "content_type": facts.content_type,
        "content_url": facts.content_url,
        "caption": facts.caption,
        "sound_id": facts.sound_id,
        "timezone": facts.timezone,
        "scheduled_time": facts.scheduled_time,
        "status": facts.status,
        "created_at": post.created_at,
        "render_as_video": facts.render_as_video,
        "slide_duration": post.slide_duration,
        "enqueued_revision": post.enqueued_revision,
    }
