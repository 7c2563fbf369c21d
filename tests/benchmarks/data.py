"""Rows to measure on: posts by the 100,000, their workspace and key, queued edits and old audit rows."""

import random
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from itertools import islice
from typing import TypeVar

import psycopg

from shared.domain.ids import new_id

T = TypeVar("T")

WORKSPACE, ACCOUNT, KEY_ID, SECRET = "ws_bench", "acc_bench", "key_bench", "sk_bench_0123456789abcdef0123456789abcdef"
POSTS = 100_000
POST_ID = "post_{:07}"
CAPTION = "A caption of a usual length, the kind that people write for a short video, with a #tag or #two"

_WORKSPACE = """
    INSERT INTO workspaces (id, name) VALUES (%(workspace)s, 'benchmark');
    INSERT INTO accounts (id, workspace_id, platform, name) VALUES (%(account)s, %(workspace)s, 'tiktok', 'bench');
"""
# rate_limit stays null, like the demo key's: no limit.
_KEY = """
    INSERT INTO api_keys (id, workspace_id, name, secret_hash, hint, scopes)
    VALUES (%s, %s, 'bench', %s, %s, ARRAY['posts:read', 'posts:write', 'bulk'])
"""
_COPY_POSTS = """
    COPY posts (id, workspace_id, account_id, platform, content_type, content_url, thumbnail_url, caption, timezone,
                scheduled_time, status, created_at) FROM STDIN
"""
_COPY_EDITS = """
    COPY edits (id, post_id, workspace_id, changes, api_key_id, requested_by, request_id) FROM STDIN
"""
# What an applied edit leaves behind: the answer's body is most of it.
_AUDIT_ROWS = """
    INSERT INTO edits (id, post_id, workspace_id, changes, api_key_id, requested_by, request_id, created_at, status,
                       attempts, started_at, lock_wait_ms, finalized_at, revision, before, after, result)
    SELECT 'edit_' || lpad(n::text, 26, '0'), 'post_' || lpad((n * 7919 %% %(posts)s + 1)::text, 7, '0'), %(workspace)s,
           jsonb_build_object('caption', 'old ' || n), %(key)s, 'bench', 'req_' || n,
           at, 'applied', 1, at, 0, at, 1,
           jsonb_build_object('caption', 'older ' || n), jsonb_build_object('caption', 'old ' || n),
           rpad('{"postId": "' || n || '", "caption": "', 420, 'x')
    FROM generate_series(%(start)s::bigint, %(end)s::bigint) AS n,
         LATERAL (SELECT now() - interval '90 days' + n * interval '0.5 s' AS at) t
"""
_SECONDARY = """
    SELECT c.relname, pg_get_indexdef(i.indexrelid) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
    WHERE i.indrelid = 'edits'::regclass AND NOT i.indisprimary
"""


def post_id(number: int) -> str:
    """The id of post `number`, counted from 1; load.lua makes the same ones."""
    return POST_ID.format(number)


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of at most `size`; itertools.batched came with Python 3.12, and we run on 3.11 too."""
    rest = iter(items)
    while some := list(islice(rest, size)):
        yield some


def workspace(connection: psycopg.Connection) -> None:
    for statement in _WORKSPACE.strip().split(";")[:-1]:
        connection.execute(statement, {"workspace": WORKSPACE, "account": ACCOUNT})
    digest = sha256(SECRET.encode()).digest()
    connection.execute(_KEY, [KEY_ID, WORKSPACE, digest, SECRET[-4:]])


def posts(connection: psycopg.Connection, count: int = POSTS, *, due: datetime | None = None, first: int = 1) -> None:
    """`count` generated posts, waiting for times spread over the next month, or all for `due`, from number `first` on.

    They come by COPY in an order of their own, as posts that people made one by one would lie.
    """
    now = datetime.now(UTC).replace(microsecond=0)
    numbers = list(range(first, first + count))
    source = random.Random(first)
    source.shuffle(numbers)
    with connection.cursor() as cursor, connection.transaction(), cursor.copy(_COPY_POSTS) as copy:
        for some in _batches(numbers, 5_000):
            lines = []
            for number in some:
                at = due or now + timedelta(days=1, minutes=source.randrange(30 * 24 * 60))
                made = now - timedelta(seconds=source.randrange(90 * 24 * 3600))
                url = f'"https://cdn.example.com/{number}.mp4"'
                fields = (
                    *(post_id(number), WORKSPACE, ACCOUNT, "tiktok", "video", url),
                    *(f"https://cdn.example.com/{number}.jpg", f"{CAPTION} {number}", "America/New_York"),
                    *(at.isoformat(), "generated", made.isoformat()),
                )
                lines.append("\t".join(fields))
            copy.write("\n".join(lines) + "\n")


def queued_edits(connection: psycopg.Connection, post_ids: Iterable[str]) -> int:
    """One queued caption edit for each id given, in that order, by COPY in one transaction; how many."""
    count = 0
    with connection.cursor() as cursor, connection.transaction(), cursor.copy(_COPY_EDITS) as copy:
        for some in _batches(post_ids, 5_000):
            lines = []
            for one in some:
                count += 1
                change = f'{{"caption": "{CAPTION} edited {count}"}}'
                lines.append("\t".join((new_id("edit"), one, WORKSPACE, change, KEY_ID, "bench", f"req_{count}")))
            copy.write("\n".join(lines) + "\n")
    return count


def audit_rows(connection: psycopg.Connection, count: int, *, posts: int = POSTS) -> None:
    """`count` ended edits of those posts. Indexes are made afterwards, which is many times faster than row by row."""
    indexes = connection.execute(_SECONDARY).fetchall()
    for name, _ in indexes:
        connection.execute(f"DROP INDEX {name}".encode())
    step = 1_000_000
    for start in range(1, count + 1, step):
        bounds = {"start": start, "end": min(count, start + step - 1)}
        connection.execute(_AUDIT_ROWS, bounds | {"posts": posts, "workspace": WORKSPACE, "key": KEY_ID})
    for _, definition in indexes:
        connection.execute(definition.encode())


def bench(connection: psycopg.Connection) -> None:
    """What most rows start from: one workspace, one key, 100,000 posts."""
    workspace(connection)
    posts(connection)
