"""Workspaces, their accounts, and their API keys (docs/security.md)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from secrets import token_hex, token_urlsafe
from typing import Any, Final

from sqlalchemy import Connection, text

SCOPES: Final = ("posts:read", "posts:write", "bulk")
"""What a key may be allowed, as the table's CHECK has it."""


class NameTakenError(Exception):
    """The name belongs to another workspace, or to another key of this one. The transaction is still good."""


@dataclass(frozen=True, slots=True)
class Workspace:
    """Whose posts these are: nothing of one is visible from another."""

    id: str
    name: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Account:
    """An account of a workspace on `platform` (tiktok, instagram)."""

    id: str
    workspace_id: str
    platform: str
    name: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Key:
    """What the bearer of a key is and may do. `rate_limit` in requests a minute; None: no limit."""

    id: str
    workspace_id: str
    name: str
    scopes: frozenset[str]
    rate_limit: int | None


@dataclass(frozen=True, slots=True)
class Found:
    """A key that was looked up by its secret, and what the look-up saw of it.

    `seconds_left`: until `expires_at`, by the database's clock; both None: the key never ends. `use_is_old`: whether
    the use that led here is to be written (`write_use`).
    """

    key: Key
    expires_at: datetime | None = None
    seconds_left: float | None = None
    use_is_old: bool = False

    @property
    def expired(self) -> bool:
        """Whether it had ended at the moment of the look-up."""
        return self.seconds_left is not None and self.seconds_left <= 0


@dataclass(frozen=True, slots=True)
class Entry:
    """A key as an operator's list shows it, revoked and expired ones too. `hint`: the secret's last four characters.
    `read_at`: the database's clock.
    """

    key: Key
    hint: str
    created_at: datetime
    revoked_at: datetime | None
    expires_at: datetime | None
    last_used_at: datetime | None
    read_at: datetime


def hash_of(secret: str) -> bytes:
    """What is stored of a key's secret. The time of a look-up by it tells nothing about the secret."""
    return sha256(secret.encode("utf-8", "surrogatepass")).digest()


# A use is written if the last one that was written is a minute old.
_USE_IS_OLD = "(last_used_at IS NULL OR last_used_at < clock_timestamp() - interval '1 minute')"
_FIND = text(f"""
    SELECT secret_hash, id, workspace_id, name, scopes, rate_limit,
        expires_at, extract(epoch FROM expires_at - clock_timestamp())::float8, {_USE_IS_OLD}
    FROM api_keys
    WHERE secret_hash = ANY(:hashes) AND revoked_at IS NULL""")
# The array is walked in its order, so that two processes wait for each other's rows in one order.
_WRITE_USE = text(f"""
    UPDATE api_keys SET last_used_at = clock_timestamp()
    WHERE id = ANY(ARRAY(SELECT i FROM unnest(CAST(:ids AS text[])) i ORDER BY i)) AND {_USE_IS_OLD}""")


def find_keys(tx: Connection, secret_hashes: list[bytes]) -> dict[bytes, Found]:
    """The keys behind these hashes, by hash, expired ones too. Unknown and revoked ones are left out alike."""
    rows = tx.execute(_FIND, {"hashes": secret_hashes})
    return {row[0]: Found(Key(row[1], row[2], row[3], frozenset(row[4]), row[5]), *row[6:]) for row in rows}


def write_use(tx: Connection, key_ids: Iterable[str]) -> None:
    """Write that these keys are used now; of those whose last use was written within the last minute, nothing.

    Call it in a transaction of its own: it locks the rows of the keys.
    """
    tx.execute(_WRITE_USE, {"ids": list(key_ids)})


_WORKSPACES = text("SELECT id, name, created_at FROM workspaces ORDER BY created_at, id")
_CREATE_WORKSPACE = text("""
    INSERT INTO workspaces (id, name) VALUES (:id, :name) ON CONFLICT (name) DO NOTHING RETURNING id""")


def workspaces(tx: Connection) -> list[Workspace]:
    """All of them, the oldest first."""
    return [Workspace(*row) for row in tx.execute(_WORKSPACES)]


def create_workspace(tx: Connection, name: str, *, workspace_id: str | None = None) -> str:
    """Make a workspace; its id, a new one unless given. NameTakenError."""
    given = {"id": workspace_id or f"ws_{token_hex(5)}", "name": name}
    made: str | None = tx.execute(_CREATE_WORKSPACE, given).scalar()
    if made is None:
        raise NameTakenError(name)
    return made


_ACCOUNTS = text("""
    SELECT id, workspace_id, platform, name, created_at FROM accounts
    WHERE workspace_id = ANY(:workspaces) ORDER BY created_at, id""")
_ADD_ACCOUNT = text("""
    INSERT INTO accounts (id, workspace_id, platform, name) VALUES (:id, :workspace, :platform, :name)""")


def accounts_of(tx: Connection, *workspace_ids: str) -> list[Account]:
    """The accounts of these workspaces, the oldest first; of none, none."""
    return [Account(*row) for row in tx.execute(_ACCOUNTS, {"workspaces": list(workspace_ids)})]


# By id or by name. Names may repeat.
_WORKSPACE_NAMED = text("SELECT id, name, created_at FROM workspaces WHERE id = :given OR name = :given LIMIT 1")
_ACCOUNTS_NAMED = text("""
    SELECT id, workspace_id, platform, name, created_at FROM accounts
    WHERE id = :given OR name = :given ORDER BY id LIMIT 100""")


def workspace_named(tx: Connection, given: str) -> Workspace | None:
    """The workspace with this id or name; an id begins with `ws_`, and no name does."""
    row = tx.execute(_WORKSPACE_NAMED, {"given": given}).one_or_none()
    return Workspace(*row) if row else None


_ACCOUNT = text("SELECT id, workspace_id, platform, name, created_at FROM accounts WHERE id = :id")


def account(tx: Connection, account_id: str) -> Account | None:
    """The account with this id, of any workspace."""
    row = tx.execute(_ACCOUNT, {"id": account_id}).one_or_none()
    return Account(*row) if row else None


def accounts_named(tx: Connection, given: str) -> list[Account]:
    """The accounts with this id or this name, of all workspaces."""
    return [Account(*row) for row in tx.execute(_ACCOUNTS_NAMED, {"given": given})]


def add_account(
    tx: Connection, workspace_id: str, platform: str, name: str, *, account_id: str | None = None
) -> str:  # fmt: skip
    """Add an account to a workspace that exists; its id, a new one unless given. Names may repeat."""
    account_id = account_id or f"acc_{token_hex(5)}"
    given = {"id": account_id, "workspace": workspace_id, "platform": platform, "name": name}
    tx.execute(_ADD_ACCOUNT, given)
    return account_id


_ENTRY = """
    SELECT id, workspace_id, name, scopes, rate_limit,
        hint, created_at, revoked_at, expires_at, last_used_at, clock_timestamp()
    FROM api_keys"""
_ENTRIES = text(f"{_ENTRY} WHERE workspace_id = ANY(:workspaces) ORDER BY created_at, id")
_ENDING = text(f"""
    {_ENTRY} WHERE revoked_at IS NULL AND expires_at > clock_timestamp() AND expires_at <= clock_timestamp() + :within
        AND expires_at - created_at > 2 * CAST(:within AS interval)
    ORDER BY expires_at, id""")
_CREATE_KEY = text("""
    INSERT INTO api_keys (id, workspace_id, name, secret_hash, hint, scopes, rate_limit, expires_at)
    VALUES (:id, :workspace, :name, :hash, :hint, :scopes, :rate_limit, :expires_at)
    ON CONFLICT (workspace_id, name) DO NOTHING RETURNING id""")
_REVOKE = text("""
    UPDATE api_keys SET revoked_at = coalesce(revoked_at, clock_timestamp()) WHERE id = :id RETURNING revoked_at""")
_RENEW = text("""
    UPDATE api_keys SET secret_hash = :hash, hint = :hint, revoked_at = NULL, expires_at = NULL WHERE id = :id""")


def keys_of(tx: Connection, *workspace_ids: str) -> list[Entry]:
    """The keys of these workspaces, revoked and expired ones too, the oldest first; of none, none."""
    return _entries(tx.execute(_ENTRIES, {"workspaces": list(workspace_ids)}))


def keys_that_end(tx: Connection, within: timedelta) -> list[Entry]:
    """The keys of all workspaces that are valid now and end within that time, the next one first."""
    return _entries(tx.execute(_ENDING, {"within": within}))


def _entries(rows: Iterable[Any]) -> list[Entry]:
    return [Entry(Key(row[0], row[1], row[2], frozenset(row[3]), row[4]), *row[5:]) for row in rows]


def new_secret() -> str:
    """A key's secret: 256 random bits."""
    return f"sk_{token_urlsafe(32)}"


def create_key(
    tx: Connection,
    workspace_id: str,
    name: str,
    scopes: Iterable[str],
    rate_limit: int | None,
    *,
    secret: str | None = None,
    expires_at: datetime | None = None,
) -> str:
    """Make a key and return its secret, a new one unless given: the one time that it can be seen. `expires_at`: from
    when on it is refused; None: never.

    NameTakenError, by a revoked key too: audit rows say who asked by the key's name.
    """
    secret = secret or new_secret()
    given = {
        "id": f"key_{token_hex(5)}",
        "workspace": workspace_id,
        "name": name,
        "scopes": in_order(scopes),
        "rate_limit": rate_limit,
        "expires_at": expires_at,
    }
    if tx.execute(_CREATE_KEY, given | _kept(secret)).scalar() is None:
        raise NameTakenError(name)
    return secret


def revoke_key(tx: Connection, key_id: str) -> datetime | None:
    """Revoke a key from this commit on; when that was, also where it was before. None if there is no such key."""
    revoked_at: datetime | None = tx.execute(_REVOKE, {"id": key_id}).scalar()
    return revoked_at


def renew_key(tx: Connection, key_id: str, secret: str) -> None:
    """Give a key, revoked or expired or neither, this secret in place of the one that it had. It never ends then."""
    tx.execute(_RENEW, {"id": key_id} | _kept(secret))


def in_order(scopes: Iterable[str]) -> Sequence[str]:
    """Scopes as they are stored and shown: each once, in the order of SCOPES."""
    given = set(scopes)
    return [scope for scope in SCOPES if scope in given]


def _kept(secret: str) -> dict[str, str | bytes]:
    return {"hash": hash_of(secret), "hint": secret[-4:]}
