"""Idempotency keys: one table for PATCH, creation and jobs (SPEC 4)."""

from collections.abc import Iterable
from dataclasses import dataclass

from pydantic_core import to_json
from sqlalchemy import Connection, text

from shared.store import direct


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


def kept(tx: Connection, pairs: Iterable[tuple[str, str]]) -> dict[tuple[str, str], Kept]:
    """What is kept under these (API key's id, Idempotency-Key) pairs."""
    asked = to_json([{"api_key_id": api_key_id, "key": key} for api_key_id, key in pairs]).decode()
    found = (Kept(*row) for row in direct.rows(tx, _KEPT, asked))
    return {(one.api_key_id, one.key): one for one in found}


_FORGET = text("""
    DELETE FROM idempotency_keys WHERE (api_key_id, key) IN (
        SELECT api_key_id, key FROM idempotency_keys
        WHERE created_at < now() - make_interval(hours => :hours) LIMIT 1000)""")


def forget_expired(tx: Connection, hours: int) -> int:
    """Drop keys older than `hours`, some thousand at a time; how many."""
    return tx.execute(_FORGET, {"hours": hours}).rowcount
