"""Asks each part for its state, at once and with short time-outs. shared/cli/findings.py judges the answers."""

import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import takewhile
from typing import Any, Final

import redis
from kombu.exceptions import OperationalError
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from shared.broker import redis_connection, redis_health, redis_state
from shared.cli import service_probes, worker_probes
from shared.cli.deadlines import ask_all
from shared.cli.facts import DatabaseFacts, Facts, Late, RedisFacts, Said, Webhooks
from shared.cli.findings import JOB_STALLED, KEYS_END_WITHIN
from shared.cli.service_findings import FAILED_WITHIN
from shared.cli.service_probes import UntrustedError
from shared.domain import waits
from shared.domain.failure_classes import NAMED_AT_MOST
from shared.domain.lifecycle import EditStatus
from shared.domain.service_answers import Outcome
from shared.domain.start_rules import unfit
from shared.domain.waits import SESSION_IDLE, SESSION_LONG, Broker, Waits
from shared.settings import settings
from shared.store import (
    db,
    edit_lists,
    failed_posts,
    health,
    keys,
    locks,
    migrating,
    overview,
    prerequisites,
    senders,
    session_settings,
    webhook_backlogs,
)
from shared.store import late as late_store
from shared.store import posts as posts_store
from shared.store.db import transaction
from shared.store.edit_lists import EditFilter
from shared.telemetry.code_version import code_version

PATIENCE: Final = 2.0
SERVICE_WITHIN: Final = 6.0
REDIS_WITHIN: Final = 8.0
DATABASE_WITHIN: Final = 20.0
STATEMENTS_WITHIN: Final = 1.5
"""Seconds for each statement: all of them together stay within DATABASE_WITHIN."""


def examine(database_url: str, *, api_url: str = "", flower_url: str = "") -> Facts:
    """Ask all parts. Takes some three seconds, half a minute at most. Redis is the server that `settings()` names.

    Raises ValueError, ImportError or sqlalchemy.exc.ArgumentError for a URL that is none.
    """
    config = settings()
    db.make_engine(database_url, config, pool_size=1, name="redraft-doctor").dispose()
    redis_connection.client()
    flower = config.flower_inner_url or flower_url
    urls = {
        "API": f"{api_url}/healthz" if api_url else "",
        "Flower": f"{flower.rstrip('/')}/healthcheck" if flower else "",
        "publisher": config.publisher_url,
        "renderer": config.renderer_url,
        "receiver of webhooks": config.webhook_url,
    }
    questions: dict[str, tuple[Callable[[], Any], float]] = {
        "PostgreSQL": (partial(_database, database_url), DATABASE_WITHIN),
        "Redis": (_redis, REDIS_WITHIN),
        _WORKERS: (worker_probes.workers, worker_probes.listening() + REDIS_WITHIN),
    }
    for name, url in urls.items():
        if url:
            questions[name] = (partial(CHECKS.get(name, service_probes.answers), url), SERVICE_WITHIN)
    said = ask_all(questions)
    unreachable, untrusted, broken = _failures(said)
    known = {name: None if isinstance(answer, Exception) else answer for name, answer in said.items()}
    return Facts(
        known["PostgreSQL"],
        known["Redis"],
        known[_WORKERS],
        unreachable,
        datetime.now(UTC),
        queue_full=config.queue_full,
        webhooks_wanted=bool(config.webhook_url),
        untrusted=untrusted,
        broken=broken,
        version=worker_probes.shown(*code_version()),
        api_skew=known.get("API"),
    )


_WORKERS: Final = "workers"


def _failures(said: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, str], dict[str, str]]:
    """Parts that did not answer, parts whose certificate is not trusted, probes that failed; each with why."""
    unreachable: dict[str, str] = {}
    untrusted: dict[str, str] = {}
    broken: dict[str, str] = {}
    for name, answer in said.items():
        if isinstance(answer, UntrustedError):
            untrusted[name] = str(answer)
        elif isinstance(answer, (OSError, OperationalError, redis.RedisError, DBAPIError)):
            # Workers are asked through Redis: of one that is away or refuses writes it is said already.
            if name != _WORKERS:
                unreachable[name] = _words(answer)
            elif not isinstance(said["Redis"], Exception) and not said["Redis"].refuses:
                broken[name] = _words(answer)
        elif isinstance(answer, Exception):
            broken[name] = type(answer).__name__
    return unreachable, untrusted, broken


def _words(error: Exception) -> str:
    """What went wrong, without what an exception's own text may hold: hosts, users, URLs."""
    if isinstance(error, DBAPIError):
        said = str(error.orig).strip().partition("\n")[0].rpartition(": ")[2]
        return said or type(error.orig).__name__
    if isinstance(error, (TimeoutError, redis.TimeoutError)):
        return "no answer in time"
    if isinstance(error, redis.AuthenticationError):
        return "it refuses the password"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    cause = error.__cause__
    return _words(cause) if isinstance(cause, Exception) else type(error).__name__


def _database(url: str) -> DatabaseFacts:
    version, encoding = prerequisites.server(url) or ("", "")
    if wrong := unfit(version, encoding):
        # It may know neither the options of our connections nor the functions and letters of our statements.
        return DatabaseFacts(0.0, 0.0, version=version, unfit=wrong)
    engine = db.make_engine(url, settings(), pool_size=1, name="redraft-doctor")
    try:
        skew, within = _skew(engine)
        with transaction(engine) as tx:
            at, ours = health.versions(tx), migrating.known()
        behind = list(takewhile(lambda one: one not in at, ours))
        unknown = tuple(sorted(at - set(ours)))
        # Newer code was here: it knows what this code lacks, not the other way round.
        pending = () if unknown else tuple(reversed(behind))
        if pending and not at:
            return DatabaseFacts(skew, within, pending, version=version)
        found, unread = _read(engine)
        return DatabaseFacts(skew, within, pending, unknown, version=version, unread=unread, **found)
    finally:
        engine.dispose()


def _summary(tx: Connection) -> dict[str, Any]:
    summary = overview.summary(tx)
    oldest = summary.now - summary.oldest if summary.oldest else None
    return {"queued": summary.queued, "oldest": oldest, "failed": summary.failed, "late": summary.late}


def _oldest(tx: Connection, broker: Broker) -> dict[str, Any]:
    """Why the edit waits that waits longest, if that is too long."""
    oldest = edit_lists.page(tx, EditFilter(status=EditStatus.QUEUED), limit=1).edits
    if not oldest or oldest[0].waited <= waits.TOO_LONG:
        return {}
    edit = oldest[0]
    said = waits.of_edit(edit, Waits(locks.of_posts(tx, [edit.post_id]), broker))
    return {"oldest_edit": edit.id, "oldest_waits": said.words if said else ""}


def _late(tx: Connection, broker: Broker) -> dict[str, Any]:
    late = late_store.late_posts(tx, NAMED_AT_MOST, broker=broker)
    said = (Late(post.id, post.late_by, post.reason.words, post.reason.code) for post in late)
    return {"latest": tuple(said)}


def _failed(tx: Connection) -> dict[str, Any]:
    since = posts_store.clock(tx) - FAILED_WITHIN
    failed = failed_posts.groups(tx, since=since, limit=NAMED_AT_MOST)
    return {
        "failed_posts": failed.total,
        "failed_groups": tuple((failed_posts.label(group), group.count) for group in failed.groups),
        "failed_classes": {one.failure: Said(one.count, one.words) for one in failed.classes},
    }


def _webhooks(tx: Connection) -> dict[str, Any]:
    overall = webhook_backlogs.overall(tx)
    oldest = overall.now - overall.oldest if overall.oldest else None
    last = overall.last
    if last is None:
        return {"webhooks": Webhooks(overall.queued, oldest, overall.dead)}
    since, took = overall.now - last.at, overall.typical
    return {"webhooks": Webhooks(overall.queued, oldest, overall.dead, last.outcome, last.words, since, took)}


def _sessions(tx: Connection) -> dict[str, Any]:
    return {"holders": tuple(health.long_sessions(tx, SESSION_IDLE, SESSION_LONG))}


def _ending_keys(tx: Connection) -> dict[str, Any]:
    found = ((one, one.expires_at) for one in keys.keys_that_end(tx, KEYS_END_WITHIN))
    return {"ending_keys": tuple((f"{one.key.name} ({one.key.id})", end - one.read_at) for one, end in found if end)}


_READS: Final[Mapping[str, Callable[[Connection], dict[str, Any]]]] = {
    "the settings of its sessions": lambda tx: {"unset": session_settings.missing(tx, settings())},
    "the queue of edits": _summary,
    "failed posts": _failed,
    "open transactions": _sessions,
    "bulk jobs": lambda tx: {
        "stalled": tuple(health.stalled_jobs(tx, JOB_STALLED)),
        "failed_jobs": tuple(health.failed_jobs(tx, FAILED_WITHIN)),
    },
    "webhooks": _webhooks,
    "API keys": _ending_keys,
    "who sends most": lambda tx: {"flood": senders.busiest(tx, posts_store.clock(tx)).flood},
    "the publisher's answers": lambda tx: {"publisher": _said(health.publisher_answers(tx))},
    "the renderer's answers": lambda tx: {
        "renderer": _said(health.renderer_answers(tx)),
        "renderer_waits": timedelta(seconds=health.renderer_waits(tx)),
    },
}


def _read(engine: Engine) -> tuple[dict[str, Any], dict[str, str]]:
    """All that is asked of the rows, as DatabaseFacts names it; and what could not be read, with why. Each question has
    a transaction of its own: one that takes too long hides no other.
    """
    found: dict[str, Any] = {}
    unread: dict[str, str] = {}
    broker = redis_health.read()
    reads: dict[str, Callable[[Connection], dict[str, Any]]] = {
        "the oldest edit": partial(_oldest, broker=broker),
        "late posts": partial(_late, broker=broker),
        **_READS,
    }
    for what, ask in reads.items():
        try:
            with transaction(engine) as tx:
                overview.limit_statements(tx, STATEMENTS_WITHIN)
                found |= ask(tx)
        except DBAPIError as error:
            unread[what] = _words(error)
    return found, unread


def _said(answers: Iterable[health.Answered]) -> dict[Outcome, Said]:
    return {one.outcome: Said(one.count, one.words, one.groups) for one in answers}


def _skew(engine: Engine) -> tuple[float, float]:
    """The database's clock minus ours, from the quickest of three answers, and half the time that one took."""
    best = (0.0, float("inf"))
    with transaction(engine) as tx:
        for _ in range(3):
            asked = time.time()
            theirs = posts_store.clock(tx).timestamp()
            took = time.time() - asked
            if took / 2 < best[1]:
                best = (theirs - asked - took / 2, took / 2)
    return best


def _redis() -> RedisFacts:
    state = redis_state.read()
    saved = "aof" if state.append_only else _snapshots(redis_connection.client())
    return RedisFacts(
        state.policy, saved, saving_fails=state.saving_fails, used=state.used, most=state.most, refuses=state.refuses
    )


def _snapshots(client: redis.Redis) -> str:
    try:
        said: Mapping[str, str] = client.config_get("save")  # type: ignore[assignment]
    except redis.ResponseError:
        # A managed Redis keeps its configuration to itself, and its provider answers for the disk.
        return "unknown"
    return "rdb" if next(iter(said.values()), "") else "nothing"


CHECKS: Final[Mapping[str, Callable[[str], Any]]] = {
    "API": service_probes.answers_ok,
    # It knows no HEAD, and would log each.
    "Flower": partial(service_probes.answers, method="GET"),
}
