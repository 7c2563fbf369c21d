"""Idempotency keys: one table for PATCH, creation and jobs.

Requests with the same key are judged one after the other, whichever process they came through: each takes the key's
lock first and lets go of it with its transaction. Otherwise a repeat could be refused because of a change
between the first request's check and its commit, although the first request was accepted.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from pydantic_core import to_json
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from shared.domain.errors import IdempotencyKeyReused, KeyInHand
from shared.store import db, raw_statements
from shared.store.trip import Statement


class Repeat(NamedTuple):
    """An Idempotency-Key, the API key that it belongs to, and what the request was."""

    api_key_id: str
    key: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Kept:
    """What the first request with a key was, and what it made: `resource` is an edit's, a creation's or a job's id."""

    api_key_id: str
    key: str
    fingerprint: str
    resource: str
    answer: str | None


_KEPT = """
    SELECT k.api_key_id, k.key, encode(k.fingerprint, 'hex'), k.resource, k.answer
    FROM idempotency_keys k
    JOIN jsonb_to_recordset(CAST($1 AS jsonb)) AS r(api_key_id text, key text)
        ON k.api_key_id = r.api_key_id AND k.key = r.key"""


# An advisory lock: there is no row yet that could be locked, and a row inserted early would be found by look-ups of the
# key. Neither an API key's id nor an Idempotency-Key holds a space.
_TRY_LOCK = """
    SELECT name FROM unnest(CAST($1 AS text[])) AS k(name)
    WHERE pg_try_advisory_xact_lock(hashtextextended(name, 0))"""
_LOCK = "SELECT 1 FROM pg_advisory_xact_lock(hashtextextended($1, 0))"

Pair = tuple[str, str]
"""An API key's id and an Idempotency-Key."""


def kept(tx: Connection, pairs: Iterable[Pair]) -> dict[Pair, Kept]:
    """What is kept under these keys."""
    return _by_pair(raw_statements.rows(tx, *_looking(pairs)))


def take(tx: Connection, pairs: Sequence[Pair]) -> tuple[set[Pair], dict[Pair, Kept]]:
    """Take the locks of those keys that no other request has in hand, until the end of this transaction; which those
    are, and what is kept under any. It does not wait.

    Two statements, one behind the other in one trip: the second sees what was committed before the lock was given.
    """
    names = {_name(pair): pair for pair in pairs}
    taken, found = raw_statements.rows_together(tx, (_TRY_LOCK, raw_statements.array(list(names))), _looking(pairs))
    return {names[row[0]] for row in taken}, _by_pair(found)


def wait_for(tx: Connection, repeat: Repeat | None) -> Kept | None:
    """Take a key's lock, once the request that has it in hand is done; what `first` says then. KeyInHand where that
    takes longer than `lock_timeout`.
    """
    if repeat is None:
        return None
    try:
        raw_statements.rows(tx, _LOCK, _name(repeat[:2]))
    except DBAPIError as error:
        if db.lock_timed_out(error):
            raise KeyInHand from error
        raise
    return first(tx, repeat)


def first(tx: Connection, repeat: Repeat | None) -> Kept | None:
    """What the first request with the key made; None where there is none, and without a key. IdempotencyKeyReused where
    the first was another request.
    """
    if repeat is None:
        return None
    found = kept(tx, [repeat[:2]]).get(repeat[:2])
    if found is not None and found.fingerprint != repeat.fingerprint:
        raise IdempotencyKeyReused
    return found


_KEEP = """
    INSERT INTO idempotency_keys (api_key_id, key, fingerprint, resource, answer)
    VALUES ($1, $2, decode($3, 'hex'), $4, $5) ON CONFLICT DO NOTHING"""


def keep(tx: Connection, repeat: Repeat | None, resource: str, answer: str | None = None) -> None:
    """Keep what a request made under its key, if it has one. IdempotencyKeyReused where a process of the version before
    was first with the key: it takes no lock of keys, and has none of the routes that call this. So that was another
    request, and this waited for its end.
    """
    if repeat is not None and raw_statements.changed(tx, _KEEP, *repeat, resource, answer) != 1:
        raise IdempotencyKeyReused


def _name(pair: Pair) -> str:
    return f"{pair[0]} {pair[1]}"


def _looking(pairs: Iterable[Pair]) -> Statement:
    return _KEPT, to_json([{"api_key_id": api_key_id, "key": key} for api_key_id, key in pairs]).decode()


def _by_pair(rows: Iterable[tuple[Any, ...]]) -> dict[Pair, Kept]:
    found = (Kept(*row) for row in rows)
    return {(one.api_key_id, one.key): one for one in found}


# One sweeper at a time: two that delete the same rows in different orders would wait for each other.
SWEEPING = 7_339_265_006
_FORGET = text("""
    WITH mine AS (SELECT pg_try_advisory_xact_lock(:sweeping) AS taken)
    DELETE FROM idempotency_keys WHERE (api_key_id, key) IN (
        SELECT api_key_id, key FROM idempotency_keys
        WHERE created_at < now() - make_interval(hours => :hours) AND (SELECT taken FROM mine)
        ORDER BY created_at LIMIT :limit)""")


def forget_expired(tx: Connection, hours: int, limit: int) -> int:
    """Drop keys older than `hours`, the oldest first, at most `limit`; how many. None while another process does so."""
    return tx.execute(_FORGET, {"hours": hours, "limit": limit, "sweeping": SWEEPING}).rowcount
