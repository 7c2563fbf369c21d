"""What is held, in lists for operators."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, text

from shared.domain import plurals
from shared.domain.edit_histories import listed
from shared.domain.holds import MISSED, REDRAFT, Hold
from shared.store.health import MANY
from shared.store.hold_tables import HELD_BY_ITSELF
from shared.store.scope_holds import Scope


@dataclass(frozen=True, slots=True)
class HeldScope:
    """An account or a workspace that is held, with its name."""

    scope: Scope
    name: str
    hold: Hold


_ALL = text("""
    SELECT h.workspace_id, h.account_id, coalesce(a.name, w.name), h.held_at, h.held_by, h.reason
    FROM holds h JOIN workspaces w ON w.id = h.workspace_id LEFT JOIN accounts a ON a.id = h.account_id
    ORDER BY h.held_at LIMIT :limit""")


def held_scopes(tx: Connection, limit: int) -> list[HeldScope]:
    """Held accounts and workspaces, the longest held first."""
    found: list[HeldScope] = []
    for workspace_id, account_id, name, *hold in tx.execute(_ALL, {"limit": limit}):
        scope = Scope(workspace_id, account_id)
        found.append(HeldScope(scope, name, Hold(scope.level, *hold)))
    return found


@dataclass(frozen=True, slots=True)
class HeldPost:
    """A post that waits and is held by itself. `reason`: its hold's, or `missed`."""

    id: str
    workspace_id: str
    account_id: str
    scheduled_time: datetime
    since: datetime
    by: str
    reason: str | None


# ix_posts_held, in its order.
_HELD_POSTS = text(f"""
    SELECT id, workspace_id, account_id, scheduled_time, coalesce(held_at, missed_at), coalesce(held_by, '{REDRAFT}'),
        CASE WHEN held_at IS NULL THEN '{MISSED}' ELSE held_reason END
    FROM posts WHERE {HELD_BY_ITSELF} AND status IN ('generated', 'pending_render')
    ORDER BY workspace_id, account_id LIMIT :limit""")


def held_posts(tx: Connection, limit: int) -> list[HeldPost]:
    """Waiting posts that are held by themselves, by workspace and account."""
    return [HeldPost(*row) for row in tx.execute(_HELD_POSTS, {"limit": limit})]


@dataclass(frozen=True, slots=True)
class Sums:
    """How much is held: workspaces, accounts, waiting posts by themselves, and those of them that missed their time.
    MANY of each at most.
    """

    workspaces: int
    accounts: int
    posts: int
    missed: int

    @property
    def words(self) -> str:
        """What is held, in a sentence; empty where nothing is."""
        counts = (("workspace", self.workspaces), ("account", self.accounts), ("post", self.posts))
        parts = [plurals.counted(count, noun) for noun, count in counts if count]
        if not parts:
            return ""
        missed = f" {self.missed:,} of the posts missed their time, and wait for a new one." if self.missed else ""
        return f"On hold: {listed(parts)}. What is on hold does not go out.{missed} See Holds."


HELD: Final = f"""
    SELECT (SELECT count(*) FROM (SELECT FROM holds WHERE account_id IS NULL LIMIT {MANY}) w) AS workspaces,
        (SELECT count(*) FROM (SELECT FROM holds WHERE account_id IS NOT NULL LIMIT {MANY}) a) AS accounts,
        count(*) AS posts, count(*) FILTER (WHERE held_at IS NULL) AS missed
    FROM (SELECT held_at FROM posts WHERE {HELD_BY_ITSELF} AND status IN ('generated', 'pending_render')
          LIMIT {MANY}) p"""
"""How much is held (ix_posts_held): the fields of Sums."""
_SUMS = text(HELD)


def sums(tx: Connection) -> Sums:
    """What is held now."""
    return Sums(*tx.execute(_SUMS).one())


_OF_ACCOUNTS = text("SELECT account_id, held_at, held_by, reason FROM holds WHERE workspace_id = :workspace")


def of_accounts(tx: Connection, workspace_id: str) -> dict[str | None, Hold]:
    """The holds of a workspace's accounts by their ids, and that of the workspace under None."""
    rows = tx.execute(_OF_ACCOUNTS, {"workspace": workspace_id})
    return {account: Hold(Scope(workspace_id, account).level, *hold) for account, *hold in rows}


_SCOPE = text("""
    SELECT workspace_id, id FROM accounts WHERE id = :id UNION ALL SELECT id, NULL FROM workspaces WHERE id = :id""")


def named(tx: Connection, scope_id: str) -> Scope | None:
    """The account or the workspace with this id."""
    row = tx.execute(_SCOPE, {"id": scope_id}).first()
    return Scope(*row) if row else None
