"""Holds: their lock, what holds a post, and the holds of single posts (docs/lifecycle.md).

scope_holds.py has the holds of accounts and workspaces. The lock of a workspace's holds is an advisory lock: every
publish claim takes it in share before it locks its posts, and an account's or a workspace's hold takes it alone. So a
hold begins when all claims before it are committed, and every claim behind it sees it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from pydantic_core import to_json
from sqlalchemy import Connection, text

from shared.domain import events
from shared.domain.holds import WAITING, Hold, Holds, Level, Resume, in_effect, resume
from shared.domain.lifecycle import ClaimKind
from shared.domain.posts import Post
from shared.store import acts as acts_store
from shared.store import counted, raw_statements
from shared.store import posts as posts_store
from shared.store import webhooks as webhooks_store
from shared.store.acts import Act, Actor
from shared.store.raw_statements import array

LOCK: Final = 7343
"""The class of the advisory locks; the trigger of migration 0013 names it too."""

_IDS = "ANY(ARRAY(SELECT unnest(CAST($1 AS text[]))))"
# They are tried, never waited for: one workspace that is being held must not stop the claims of all others. PostgreSQL
# refuses the try while a session waits for the lock alone, so that a stream of claims cannot keep a hold out.
_TRY = f"""
    SELECT id FROM (SELECT DISTINCT workspace_id AS id FROM posts WHERE id = {_IDS}) w
    WHERE NOT pg_try_advisory_xact_lock_shared({LOCK}, hashtext(w.id))"""
_HOLDS = f"""
    SELECT p.id, p.held_at, p.held_by, p.held_reason, p.missed_revision, p.missed_at,
        a.held_at, a.held_by, a.reason, w.held_at, w.held_by, w.reason, p.schedule_revision, p.status
    FROM posts p
    LEFT JOIN holds a ON a.workspace_id = p.workspace_id AND a.account_id = p.account_id
    LEFT JOIN holds w ON w.workspace_id = p.workspace_id AND w.account_id IS NULL
    WHERE p.id = {_IDS} AND (p.held_at IS NOT NULL OR p.missed_at IS NOT NULL
        OR a.held_at IS NOT NULL OR w.held_at IS NOT NULL)"""


def _holds_of(rows: Iterable[Sequence[Any]]) -> dict[str, Holds]:
    def hold(level: Level, since: Any, by: Any, reason: Any) -> Hold | None:
        return Hold(level, since, by, reason) if since is not None else None

    return {
        row[0]: Holds(
            hold(Level.POST, *row[1:4]),
            row[4],
            row[5],
            hold(Level.ACCOUNT, *row[6:9]),
            hold(Level.WORKSPACE, *row[9:12]),
        )
        for row in rows
    }


def of(tx: Connection, post_ids: Iterable[str]) -> dict[str, Holds]:
    """What holds these posts, as it is now. Posts that nothing holds are left out."""
    return _holds_of(raw_statements.rows(tx, _HOLDS, array(list(post_ids))))


def effective(tx: Connection, post_ids: Iterable[str]) -> dict[str, Hold]:
    """The hold that counts for each of these posts, of those that wait and are held."""
    rows = raw_statements.rows(tx, _HOLDS, array(list(post_ids)))
    found = _holds_of(rows)
    counts = {row[0]: in_effect(found[row[0]], row[12]) for row in rows if row[13] in WAITING}
    return {post_id: hold for post_id, hold in counts.items() if hold is not None}


@dataclass(frozen=True, slots=True)
class LockedForClaim:
    """Locked posts and what holds them. Posts of which the workspace's holds are locked elsewhere are left out."""

    posts: dict[str, Post]
    holds: dict[str, Holds]


def lock_for_claim(tx: Connection, post_ids: Iterable[str]) -> LockedForClaim:
    """Lock the workspaces' holds in share, then posts; what is locked elsewhere is skipped. Then read the holds.

    Three statements, one behind the other in one trip: each sees what was committed before its lock.
    """
    ids = sorted(set(post_ids))
    busy, found, held = raw_statements.rows_together(
        tx, (_TRY, array(ids)), posts_store.lock(ids, "skip"), (_HOLDS, array(ids))
    )
    locked, out = posts_store.by_id(found), {row[0] for row in busy}
    if out:
        locked = {post_id: post for post_id, post in locked.items() if post.workspace_id not in out}
    return LockedForClaim(locked, _holds_of(held))


# In one order, so that two sessions which wait for the locks of several workspaces cannot deadlock.
_WAIT = f"""
    SELECT pg_advisory_xact_lock_shared({LOCK}, hashtext(id)) FROM (
        SELECT DISTINCT workspace_id AS id FROM posts WHERE id = {_IDS} ORDER BY 1) w"""


def lock_in_share(tx: Connection, post_ids: Iterable[str]) -> None:
    """Wait for the workspaces' holds in share, for lock_timeout. Call it before posts are locked, like a claim."""
    raw_statements.rows(tx, _WAIT, array(list(post_ids)))


@dataclass(slots=True)
class Changed:
    """What a hold or a resume did. `missed`: posts that stay held, since their time went by; `refused`: posts that were
    to go out now, and stay as they are under the hold of their account or workspace; `webhooks`: posts with new events,
    to ring for below the commit.
    """

    posts: list[str] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)
    refused: dict[str, Hold] = field(default_factory=dict)
    webhooks: list[str] = field(default_factory=list)


_HOLD = text("""
    UPDATE posts p SET held_at = coalesce(p.held_at, clock_timestamp()), held_by = coalesce(p.held_by, :by),
        held_reason = coalesce(:reason, p.held_reason)
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r(id text, from_status text)
    WHERE p.id = r.id AND p.status = r.from_status AND p.deleted_at IS NULL""")


def hold_posts(tx: Connection, posts: Iterable[Post], actor: Actor, reason: str | None) -> Changed:
    """Hold locked posts that wait. One that is held by itself keeps its beginning, and gets the new reason if there
    is one.
    """
    waiting = {post.facts.id: post for post in posts if post.facts.status in WAITING and not post.facts.deleted}
    before = of(tx, waiting)
    new = [
        post
        for post_id, post in waiting.items()
        if (own := before.get(post_id, Holds()).own) is None or (reason is not None and own.reason != reason)
    ]
    if not new:
        return Changed(list(waiting))
    rows = to_json([{"id": post.facts.id, "from_status": post.facts.status} for post in new]).decode()
    counted(tx.execute(_HOLD, {"rows": rows, "by": actor.name, "reason": reason}).rowcount, len(new), "hold_posts")
    acts_store.record(tx, actor, [_act(acts_store.HOLD, post, before) for post in new])
    return Changed(list(waiting), webhooks=announce(tx, new))


_RESUME = text("""
    UPDATE posts p SET held_at = NULL, held_by = NULL, held_reason = NULL,
        missed_revision = CASE WHEN r.missed THEN p.schedule_revision END,
        missed_at = CASE WHEN NOT r.missed THEN NULL
            WHEN p.missed_revision = p.schedule_revision THEN p.missed_at ELSE clock_timestamp() END,
        released_at = CASE WHEN r.missed THEN p.released_at ELSE clock_timestamp() END,
        -- Dispatch sends for a post without a mark.
        enqueued_revision = CASE WHEN p.status = 'generated' THEN NULL ELSE p.enqueued_revision END
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r(id text, from_status text, from_revision bigint, missed boolean)
    WHERE p.id = r.id AND p.status = r.from_status AND p.revision = r.from_revision AND p.deleted_at IS NULL""")


def resume_posts(tx: Connection, posts: Iterable[Post], actor: Actor, *, publish_missed: bool = False) -> Changed:
    """End the holds of locked posts by themselves. A post whose time has gone by stays held as missed, unless
    `publish_missed` says that it goes out now. The hold of an account or a workspace stays, and with `publish_missed`
    it refuses.
    """
    locked = {post.facts.id: post for post in posts if post.facts.status in WAITING and not post.facts.deleted}
    before, now = of(tx, locked), posts_store.clock(tx)
    refused = {one: above for one in before if publish_missed and (above := before[one].above) is not None}
    locked = {one: post for one, post in locked.items() if one not in refused}
    ends: dict[str, Resume] = {}
    for post_id, post in locked.items():
        facts, holds = post.facts, before.get(post_id, Holds())
        due = facts.scheduled_time <= now
        ends[post_id] = resume(holds, facts.schedule_revision, facts.claim, due=due, publish_missed=publish_missed)
    done = [post for post_id, post in locked.items() if ends[post_id] is not Resume.NOTHING]
    if not done:
        return Changed(refused=refused)
    _write_resume(tx, {post.facts.id: ends[post.facts.id] is Resume.MISS for post in done}, locked)
    acts_store.record(tx, actor, [_act(acts_store.RESUME, post, before) for post in done])
    return Changed(
        [post.facts.id for post in done if ends[post.facts.id] is Resume.RELEASE],
        [post.facts.id for post in done if ends[post.facts.id] is Resume.MISS],
        refused,
        announce(tx, done),
    )


def goes_by(post: Post, holds: Holds | None, now: datetime) -> bool:
    """Whether a locked post waits, is past its time, and is not yet held by itself. A publish claim goes out."""
    facts, own = post.facts, holds or Holds()
    waits = facts.status in WAITING and not facts.deleted and facts.claim is not ClaimKind.PUBLISH
    free = own.own is None and own.missed_revision != facts.schedule_revision
    return waits and free and facts.scheduled_time <= now


def miss(tx: Connection, posts: Iterable[Post]) -> list[str]:
    """Mark locked posts whose time went by while they were held. Returned: posts to ring the webhooks for."""
    return _mark(tx, posts, missed=True)


def release_missed(tx: Connection, posts: Iterable[Post]) -> list[str]:
    """Let locked posts that were missed go out now. Returned: posts to ring the webhooks for."""
    return _mark(tx, posts, missed=False)


def _mark(tx: Connection, posts: Iterable[Post], *, missed: bool) -> list[str]:
    locked = {post.facts.id: post for post in posts}
    if not locked:
        return []
    _write_resume(tx, dict.fromkeys(locked, missed), locked)
    return announce(tx, locked.values())


def _write_resume(tx: Connection, missed: Mapping[str, bool], locked: Mapping[str, Post]) -> None:
    rows = [
        {
            "id": post_id,
            "from_status": locked[post_id].facts.status,
            "from_revision": locked[post_id].facts.revision,
            "missed": stays,
        }
        for post_id, stays in missed.items()
    ]
    counted(tx.execute(_RESUME, {"rows": to_json(rows).decode()}).rowcount, len(rows), "resume_posts")


def _act(action: str, post: Post, before: Mapping[str, Holds]) -> Act:
    holds = before.get(post.facts.id, Holds())
    missed = holds.missed_revision == post.facts.schedule_revision
    overwritten = {"held": holds.own and holds.own.public(), "missed": missed}
    return Act(action, "post", post.facts.id, post.workspace_id, post.facts.status, overwritten)


def announce(tx: Connection, posts: Iterable[Post]) -> list[str]:
    """Record what holds these posts by themselves now as events. Returned: posts to ring the webhooks for."""
    if not webhooks_store.wanted():
        return []
    some = list(posts)
    now = of(tx, [post.facts.id for post in some])
    return webhooks_store.record(tx, [events.hold_changed(post, now.get(post.facts.id, Holds())) for post in some])
