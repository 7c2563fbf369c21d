"""Freezing the posts that a bulk job means into chunks: in one statement, as of one moment (docs/bulk.md)."""

from dataclasses import dataclass
from typing import Any, Final

from pydantic_core import to_json
from sqlalchemy import Connection, text

from shared.domain.reschedule_jobs import MOST_ORDINALS, audit_id
from shared.domain.reschedules import CHUNK
from shared.store.db import wait_longer
from shared.store.raw_statements import array
from shared.store.reschedule_chunks import Work
from shared.store.reschedules import ENDED, ended

_MATCHES = """(CAST(:account_ids AS text[]) IS NULL OR p.account_id = ANY(CAST(:account_ids AS text[])))
            AND (CAST(:platform AS text) IS NULL OR p.platform = CAST(:platform AS text))
            AND p.scheduled_time >= coalesce(CAST(:scheduled_from AS timestamptz), '-infinity')
            AND p.scheduled_time < coalesce(CAST(:scheduled_to AS timestamptz), 'infinity')"""
_WAITS = "p.status IN ('pending_render', 'generated')"
_FOUND = f"""
        SELECT p.id, NULL::jsonb AS aim, false AS unknown, true AS waits, p.scheduled_time, p.account_id FROM posts p
        WHERE p.workspace_id = :workspace AND p.deleted_at IS NULL AND {_WAITS} AND {_MATCHES}"""
# Posts named by id are looked up. A post of another workspace is as unknown as one that never existed.
_NAMED = f"""
        SELECT n.id, n.aim, p.id IS NULL AS unknown, coalesce({_WAITS}, false) AS waits, p.scheduled_time,
            p.account_id
        FROM ({{}}) AS n(id, aim)
        LEFT JOIN posts p ON p.id = n.id AND p.workspace_id = :workspace AND p.deleted_at IS NULL
        WHERE p.id IS NULL OR ({_MATCHES})"""
_IDS = "SELECT u.id, NULL::jsonb FROM unnest(CAST(:post_ids AS text[])) AS u(id)"
_ITEMS = """SELECT i.item ->> 0, jsonb_build_array(i.item -> 1, i.item -> 2)
            FROM reschedules r, jsonb_array_elements(r.items) AS i(item) WHERE r.id = :job"""
_FREEZE = """
    WITH found AS ({source}
    ), numbered AS (
        SELECT id, {aim} AS aim, unknown, CAST(row_number() OVER (ORDER BY id) - 1 AS integer) AS ordinal FROM found
    )
    INSERT INTO reschedule_chunks (reschedule_id, number, first, post_ids, aims, outcomes)
    SELECT :job, ordinal / :size, ordinal / :size * :size, array_agg(id ORDER BY ordinal), {aims},
        coalesce(jsonb_agg(jsonb_build_array(ordinal % :size, 'failed', NULL, NULL, 'not_found') ORDER BY ordinal)
            FILTER (WHERE unknown), '[]')
    FROM numbered GROUP BY ordinal / :size
    RETURNING cardinality(post_ids), jsonb_array_length(outcomes),
        jsonb_array_length(jsonb_path_query_array(aims, '$[*] ? (@ != null)'))"""
# With a gap the posts of an account come together: no chunk ends within an account.
_FREEZE_APART = """
    WITH found AS ({source}
    ), bundled AS (
        SELECT *, (rank() OVER (ORDER BY coalesce(account_id, '')) - 1) / :size AS bundle,
            count(*) OVER (PARTITION BY account_id) AS of_account
        FROM found
    ), numbered AS (
        SELECT id, {aim} AS aim, unknown, of_account,
            CAST(dense_rank() OVER (ORDER BY bundle) - 1 AS integer) AS number,
            CAST(rank() OVER (ORDER BY bundle) - 1 AS integer) AS first,
            CAST(row_number() OVER (ORDER BY bundle, id) - 1 AS integer) AS ordinal
        FROM bundled
    ), frozen AS (
        INSERT INTO reschedule_chunks (reschedule_id, number, first, post_ids, aims, outcomes)
        SELECT :job, number, first, array_agg(id ORDER BY ordinal), {aims},
            coalesce(jsonb_agg(jsonb_build_array(ordinal - first, 'failed', NULL, NULL, 'not_found') ORDER BY ordinal)
                FILTER (WHERE unknown), '[]')
        FROM numbered GROUP BY number, first
        RETURNING cardinality(post_ids), jsonb_array_length(outcomes),
            jsonb_array_length(jsonb_path_query_array(aims, '$[*] ? (@ != null)'))
    )
    SELECT frozen.*, (SELECT max(of_account) FROM numbered WHERE NOT unknown) FROM frozen"""
_NO_AIMS = {"aim": "aim", "aims": "NULL"}
_AIMS = {"aim": "aim", "aims": "jsonb_agg(aim ORDER BY ordinal)"}
_PLACES = _AIMS | {
    "aim": "to_jsonb(CASE WHEN waits THEN row_number() OVER (PARTITION BY waits ORDER BY scheduled_time, id) - 1 END)"
}
_SOURCES: Final[dict[tuple[str, bool], dict[str, str]]] = {
    ("shift", False): {"source": _FOUND, **_NO_AIMS},
    ("shift", True): {"source": _NAMED.format(_IDS), **_NO_AIMS},
    ("spread", False): {"source": _FOUND, **_PLACES},
    ("spread", True): {"source": _NAMED.format(_IDS), **_PLACES},
    ("items", True): {"source": _NAMED.format(_ITEMS), **_AIMS},
}
_FREEZES = {kind: text(_FREEZE.format(**source)) for kind, source in _SOURCES.items()}
_FREEZES_APART = {kind: text(_FREEZE_APART.format(**source)) for kind, source in _SOURCES.items()}
# What the other job moved, by its audit rows, each with where it stood and where that job put it.
_FREEZE_REVERT = text("""
    WITH numbered AS (
        SELECT e.post_id, CAST(row_number() OVER (ORDER BY e.id) - 1 AS integer) AS ordinal,
            jsonb_build_array(
                coalesce(e.before -> 'scheduledTime', e.changes #> '{move,scheduledTime}'),
                CASE WHEN e.before ? 'timezone' THEN e.before -> 'timezone' ELSE e.changes #> '{move,timezone}' END,
                e.changes #> '{move,scheduledTime}', e.changes #> '{move,timezone}') AS aim
        FROM edits e WHERE e.id BETWEEN :least AND :most AND e.reschedule_id = :reverted AND e.before <> '{}'
    )
    INSERT INTO reschedule_chunks (reschedule_id, number, first, post_ids, aims)
    SELECT :job, ordinal / :size, ordinal / :size * :size, array_agg(post_id ORDER BY ordinal),
        jsonb_agg(aim ORDER BY ordinal)
    FROM numbered GROUP BY ordinal / :size
    RETURNING cardinality(post_ids), 0, 0""")
# Freezing four million posts takes longer than the 15 s of every other transaction, once for each job.
TAKE_TIME: Final = 35
_TAKE_TIME = text(f"SELECT set_config('transaction_timeout', '{TAKE_TIME}s', true)")


@dataclass(frozen=True, slots=True)
class Frozen:
    """What the freeze found. `places`: how many posts a spread has room for. `of_an_account`: the most posts of one
    account, for a job with a gap.
    """

    total: int
    chunks: int
    unknown: int
    places: int
    of_an_account: int = 0


def freeze(tx: Connection, job: Work) -> Frozen:
    """Write down which posts a job means, in chunks; those that are not there have their outcome at once."""
    tx.execute(_TAKE_TIME)
    wait_longer(tx, TAKE_TIME)
    kind = next(iter(job.plan))
    given: dict[str, Any] = {"job": job.id, "size": CHUNK}
    if kind == "revert":
        reverted = job.plan["revert"]
        statement = _FREEZE_REVERT
        given |= {
            "reverted": reverted,
            "least": audit_id(reverted, 0),
            "most": audit_id(reverted, MOST_ORDINALS),
        }
    else:
        meant = job.filter or {}
        named = kind == "items" or "postIds" in meant
        statement = (_FREEZES if job.gap is None else _FREEZES_APART)[kind, named]
        given |= {
            "workspace": job.workspace_id,
            "account_ids": array(meant["accountIds"]) if "accountIds" in meant else None,
            "platform": meant.get("platform"),
            "scheduled_from": meant.get("scheduledFrom"),
            "scheduled_to": meant.get("scheduledTo"),
        }
        if "postIds" in meant:
            given["post_ids"] = array(meant["postIds"])
    rows = tx.execute(statement, given).all()
    return Frozen(
        sum(row[0] for row in rows), len(rows), sum(row[1] for row in rows), sum(row[2] or 0 for row in rows),
        max(((row[3] or 0) for row in rows if job.gap is not None), default=0),
    )  # fmt: skip


_FROZEN = text(f"""
    UPDATE reschedules SET total = :total, chunks = :chunks, failed = :unknown, plan = CAST(:plan AS jsonb),
        items = NULL, attempts = 0, started_at = clock_timestamp(), touched_at = clock_timestamp(),
        status = CASE WHEN :total = 0 THEN 'done' ELSE 'running' END,
        finished_at = CASE WHEN :total = 0 THEN clock_timestamp() END
    WHERE id = :id AND status = 'queued' AND total IS NULL
    RETURNING status = 'done', {ENDED}""")


def frozen(tx: Connection, job: Work, found: Frozen, plan: dict[str, Any]) -> bool:
    """The job knows its posts, and runs; one that means none is done. False if it was ended meanwhile: roll back."""
    given = {"id": job.id, "total": found.total, "chunks": found.chunks, "unknown": found.unknown}
    row = tx.execute(_FROZEN, given | {"plan": to_json(plan).decode()}).one_or_none()
    if row is None:
        return False
    is_done, *columns = row
    if is_done:
        ended(tx, columns)
    return True
