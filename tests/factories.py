"""Rows for tests: a workspace with two accounts and a key, posts and edits, written past the API."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from itertools import count
from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection, Engine, create_engine, event, text

from shared.broker import queue, redis_connection
from shared.settings import settings
from shared.store import db, trip
from shared.store import edits as edits_store
from shared.store.edits import NewEdit

WORKSPACE, TIKTOK, INSTAGRAM = "ws_test", "acc_tiktok", "acc_instagram"
KEY_ID, SECRET = "key_test", "sk_test_0123456789"
FAILED = (
    "status = 'failed', attempts = 5, finalized_at = clock_timestamp(), error_code = 'internal', error_message = 'x'"
)
"""What an edit is set to that failed after its last try."""
numbers = count(1)


def forget_caches() -> None:
    """Forget what this process remembers of its settings; connections are closed first."""
    for own in (db.engine, db._autocommit_relaxed, db._autocommit):
        own.forget()
    if redis_connection.client.cache_info().currsize:
        redis_connection.client().close()
    redis_connection.client.cache_clear()
    if queue.sender.cache_info().currsize:
        queue.sender().pool.force_close_all()  # type: ignore[attr-defined]  # the stubs leave it out
        queue.sender().close()
    queue.sender.cache_clear()
    settings.cache_clear()


def own_engine(database_url: str) -> Engine:
    """A test's own engine, without any time-out of ours, for any number of threads. Dispose of it afterwards.

    Its connections are kept: a new one costs the client and the server 5 ms of CPU. One that has died is replaced.
    """
    engine = create_engine(database_url, max_overflow=-1, pool_pre_ping=True)
    opened: list[psycopg.Connection] = []

    @event.listens_for(engine, "connect")
    def connect(connection: psycopg.Connection, _record: Any) -> None:
        opened.append(connection)

    # Those too that a test left checked out.
    @event.listens_for(engine, "engine_disposed")
    def disposed(_engine: Engine) -> None:
        while opened:
            opened.pop().close()

    return engine


@contextmanager
def set_up(monkeypatch: pytest.MonkeyPatch, database_url: str, redis_url: str = "") -> Iterator[Engine]:
    """This process as a worker or API of that database and Redis; yields an engine without any time-out of ours."""
    monkeypatch.setenv("REDRAFT_DATABASE_URL", database_url)
    monkeypatch.setenv("REDRAFT_REDIS_URL", redis_url)
    forget_caches()
    engine = own_engine(database_url)
    with engine.begin() as tx:
        workspace(tx)
    try:
        yield engine
    finally:
        forget_caches()
        engine.dispose()


@contextmanager
def statements() -> Iterator[list[str]]:
    """What is sent to PostgreSQL meanwhile: SQLAlchemy's own events see only what takes the long way."""
    seen: list[str] = []
    execute, take = psycopg.Cursor.execute, trip.take

    def listen(cursor: Any, statement: str, *given: Any, **options: Any) -> Any:
        seen.append(statement)
        return execute(cursor, statement, *given, **options)

    def listen_to_trip(driver: Any, names: Any, together: Any) -> Any:
        seen.extend(sql for sql, *_ in together)
        return take(driver, names, together)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(psycopg.Cursor, "execute", listen)
        patch.setattr(trip, "take", listen_to_trip)
        yield seen


def workspace(tx: Connection, workspace_id: str = WORKSPACE, suffix: str = "", secret: str = SECRET) -> None:
    """A workspace with a TikTok and an Instagram account and a key that may do everything, unlimited."""
    tx.execute(text("INSERT INTO workspaces (id, name) VALUES (:id, :id) ON CONFLICT DO NOTHING"), {"id": workspace_id})
    for account_id, platform in ((TIKTOK, "tiktok"), (INSTAGRAM, "instagram")):
        account(tx, account_id + suffix, workspace_id, platform)
    tx.execute(
        text("""INSERT INTO api_keys (id, workspace_id, name, secret_hash, hint, scopes)
                VALUES (:id, :workspace, 'tests', :hash, :hint, ARRAY['posts:read', 'posts:write', 'bulk'])"""),
        {
            "id": KEY_ID + suffix,
            "workspace": workspace_id,
            "hash": sha256(secret.encode()).digest(),
            "hint": secret[-4:],
        },
    )


def account(tx: Connection, account_id: str, workspace_id: str = WORKSPACE, platform: str = "tiktok") -> str:
    """One more account; its id."""
    tx.execute(
        text("INSERT INTO accounts (id, workspace_id, platform, name) VALUES (:id, :workspace, :platform, :id)"),
        {"id": account_id, "workspace": workspace_id, "platform": platform},
    )
    return account_id


def soon(minutes: float = 60) -> datetime:
    """A time from now, to the minute."""
    return (datetime.now(UTC) + timedelta(minutes=minutes)).replace(second=0, microsecond=0)


def post(tx: Connection, post_id: str | None = None, **columns: Any) -> str:
    """A generated TikTok video in an hour, unless `columns` say otherwise; its id."""
    row: dict[str, Any] = {
        "id": post_id or f"post_{next(numbers):06}",
        "workspace_id": WORKSPACE,
        "account_id": TIKTOK,
        "platform": "tiktok",
        "content_type": "video",
        "content_url": '"https://cdn.example.com/a.mp4"',
        "thumbnail_url": "https://cdn.example.com/a.jpg",
        "caption": "first",
        "scheduled_time": soon(),
        "status": "generated",
    } | columns
    names = ", ".join(row)
    values = ", ".join(f"CAST(:{name} AS jsonb)" if name == "content_url" else f":{name}" for name in row)
    tx.execute(text(f"INSERT INTO posts ({names}) VALUES ({values})"), row)
    return str(row["id"])


def slides(tx: Connection, post_id: str | None = None, **columns: Any) -> str:
    """Slides that are to be rendered as video, waiting for their render."""
    given = {
        "content_type": "slides",
        "content_url": '["https://cdn.example.com/1.jpg", "https://cdn.example.com/2.jpg"]',
        "render_as_video": True,
        "status": "pending_render",
        "slide_duration": 4,
    }
    return post(tx, post_id, **(given | columns))


def edit(tx: Connection, post_id: str, changes: dict[str, Any], **given: Any) -> str:
    """A queued edit, as the API records it; its id."""
    edit_id = f"edit_{next(numbers):06}"
    new = NewEdit(edit_id, post_id, WORKSPACE, changes, given.get("if_match"), KEY_ID, "tests", "req_test")
    edits_store.insert_edits(tx, [new], tx.execute(text("SELECT now()")).scalar_one())
    return edit_id


def row(engine: Engine, table: str, row_id: str) -> Any:
    """One row as a mapping of its columns, attribute style."""
    with engine.connect() as tx:
        return tx.execute(text(f"SELECT * FROM {table} WHERE id = :id"), {"id": row_id}).one()
