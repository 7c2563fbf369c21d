"""Asks each part for its state, at once and with short time-outs. shared/cli/findings.py judges the answers."""

import socket
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from http import HTTPStatus
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import httpx
import redis
from alembic.script import ScriptDirectory
from kombu.exceptions import OperationalError
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from shared import task_names
from shared.broker import queue, redis_connection
from shared.broker.queue import depths
from shared.cli.facts import DatabaseFacts, Facts, Holder, Late, Queue, RedisFacts, Said, WorkerFacts
from shared.cli.findings import JOB_STALLED, SESSION_IDLE, SESSION_LONG
from shared.cli.service_findings import FAILED_WITHIN
from shared.domain.failure_classes import NAMED_AT_MOST
from shared.domain.service_answers import Outcome
from shared.domain.start_rules import is_too_old
from shared.settings import settings
from shared.store import db, failed_posts, health, overview, prerequisites
from shared.store import late as late_store
from shared.store import posts as posts_store
from shared.store.db import transaction

T = TypeVar("T")

PATIENCE: Final = 2.0
REPLIES_WITHIN: Final = 1.5
LISTEN: Final = 2.5
"""Seconds, and at least two and a half periods of dispatch: a beat that lives is heard in that time."""


def examine(database_url: str, *, api_url: str = "", flower_url: str = "") -> Facts:
    """Ask all parts. Takes some three seconds. Redis is the server that `settings()` names."""
    config = settings()
    urls = {
        "API": f"{api_url}/healthz" if api_url else "",
        "Flower": flower_url,
        "publisher": config.publisher_url,
        "renderer": config.renderer_url,
        "receiver of webhooks": config.webhook_url,
    }
    unreachable: dict[str, str] = {}
    with ThreadPoolExecutor(8, thread_name_prefix="doctor") as threads:
        asked_database = threads.submit(_database, database_url)
        asked_redis = threads.submit(_redis)
        asked_workers = threads.submit(_workers)
        connections = {name: threads.submit(CHECKS.get(name, _connects), url) for name, url in urls.items() if url}
        database = _answer("PostgreSQL", asked_database.result, unreachable)
        redis_facts = _answer("Redis", asked_redis.result, unreachable)
        # If it fails, Redis does, and that is recorded already.
        workers = _answer("Redis", asked_workers.result, dict(unreachable))
        for name, connected in connections.items():
            _answer(name, connected.result, unreachable)
    return Facts(
        database,
        redis_facts,
        workers,
        unreachable,
        datetime.now(UTC),
        queue_full=config.queue_full,
        webhooks_wanted=bool(config.webhook_url),
    )


def _answer(name: str, result: Callable[[], T], unreachable: dict[str, str]) -> T | None:
    try:
        return result()
    except (OSError, OperationalError, redis.RedisError, DBAPIError) as error:
        unreachable[name] = _words(error)
        return None


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
    version = prerequisites.postgresql_version(url) or ""
    if version and is_too_old(version):
        # It knows neither the options of our connections nor the functions of our statements.
        return DatabaseFacts(0.0, 0.0, version=version)
    engine = db.make_engine(url, settings(), pool_size=1, name="redraft-doctor")
    try:
        skew, within = _skew(engine)
        with transaction(engine) as tx:
            at, ours = health.versions(tx), _migrations(url)
        pending, unknown = tuple(sorted(ours - at)), tuple(sorted(at - set(_known(url))))
        if pending and not at:
            return DatabaseFacts(skew, within, pending, version=version)
        with transaction(engine) as tx:
            overview.limit_statements(tx, PATIENCE * 2)
            summary = overview.summary(tx)
            late = late_store.late_posts(tx, NAMED_AT_MOST)
            failed = failed_posts.groups(tx, since=summary.now - FAILED_WITHIN, limit=NAMED_AT_MOST)
            holders = health.long_sessions(tx, SESSION_IDLE, SESSION_LONG)
            stalled = health.stalled_jobs(tx, JOB_STALLED)
            dead, _ = health.dead_events(tx)
            publisher, renderer = health.publisher_answers(tx), health.renderer_answers(tx)
            renderer_waits = timedelta(seconds=health.renderer_waits(tx))
        return DatabaseFacts(
            skew,
            within,
            pending,
            unknown,
            queued=summary.queued,
            oldest=summary.now - summary.oldest if summary.oldest else None,
            failed=summary.failed,
            failed_posts=failed.total,
            failed_groups=tuple((failed_posts.label(group), group.count) for group in failed.groups),
            failed_classes={one.failure: Said(one.count, one.words) for one in failed.classes},
            late=summary.late,
            latest=tuple(
                Late(post.id, post.now - post.scheduled_time, post.reason.words, post.reason.code) for post in late
            ),
            holders=tuple(_holder(one) for one in holders),
            stalled=tuple(stalled),
            dead_events=dead,
            publisher=_said(publisher),
            renderer=_said(renderer),
            renderer_waits=renderer_waits,
            version=version,
        )
    finally:
        engine.dispose()


def _said(answers: Iterable[health.Answered]) -> dict[Outcome, Said]:
    return {one.outcome: Said(one.count, one.words, one.groups) for one in answers}


def _holder(session: health.Session) -> Holder:
    who = ", ".join(part for part in (session.application, session.user, session.client) if part) or "unknown"
    return Holder(session.pid, who, session.idle, session.seconds, session.blocks)


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


def _migrations(url: str) -> set[str]:
    return set(ScriptDirectory.from_config(db.alembic_config(url)).get_heads())


def _known(url: str) -> list[str]:
    scripts = ScriptDirectory.from_config(db.alembic_config(url))
    return [script.revision for script in scripts.walk_revisions()]


def _redis() -> RedisFacts:
    client = redis_connection.client()
    memory: Mapping[str, Any] = client.info("memory")
    disk: Mapping[str, Any] = client.info("persistence")
    saved = "aof" if int(disk.get("aof_enabled", 0)) else _snapshots(client)
    fails = disk.get("aof_last_write_status") == "err" or (
        saved == "rdb" and disk.get("rdb_last_bgsave_status") == "err"
    )
    used, most = int(memory.get("used_memory", 0)), int(memory.get("maxmemory", 0))
    return RedisFacts(str(memory.get("maxmemory_policy", "unknown")), saved, saving_fails=fails, used=used, most=most)


def _snapshots(client: redis.Redis) -> str:
    try:
        said: Mapping[str, str] = client.config_get("save")  # type: ignore[assignment]
    except redis.ResponseError:
        # A managed Redis keeps its configuration to itself, and its provider answers for the disk.
        return "unknown"
    return "rdb" if next(iter(said.values()), "") else "nothing"


def _workers() -> WorkerFacts:
    before = depths()
    app = queue.sender()
    with ThreadPoolExecutor(1, thread_name_prefix="doctor-events") as thread:
        listening = thread.submit(_listen, app)
        replies: Mapping[str, Any] = app.control.inspect(timeout=REPLIES_WITHIN).active_queues() or {}
        skews, heard = listening.result()
    takes: dict[str, list[str]] = {}
    for worker, queues in replies.items():
        for one in queues or ():
            takes.setdefault(one["name"], []).append(worker)
    after = depths()
    beat: bool | None = heard or after["ops"] > before["ops"]
    full = after["ops"] >= queue.WAITING_BEATS
    if not beat and (full or (not takes.get("ops") and after["ops"] < before["ops"])):
        # A living beat sends nothing while so many messages wait. And a worker may have taken what beat sent.
        beat = None
    queues = tuple(Queue(name, after[name], tuple(sorted(takes.get(name, ())))) for name in task_names.QUEUES)
    return WorkerFacts(queues, skews, beat)


def _listen(app: Any) -> tuple[dict[str, float], bool]:
    """Each worker's clock minus ours, by its heartbeat, and whether one was heard to take a message of beat's."""
    skews: dict[str, float] = {}
    heard = False

    def beats(event: Mapping[str, Any]) -> None:
        skews[str(event["hostname"])] = float(event["timestamp"]) - float(event["local_received"])

    def takes(event: Mapping[str, Any]) -> None:
        nonlocal heard
        heard |= event.get("name") in (task_names.POSTS_DISPATCH_DUE, task_names.OPS_RESCUE)

    seconds = max(LISTEN, 2.5 * settings().dispatch_period)
    with app.connection_for_read() as connection:
        receiver = app.events.Receiver(connection, handlers={"worker-heartbeat": beats, "task-received": takes})
        # Localizing takes seconds since 1970 for a wall clock's, and is hours off for a worker in another zone.
        receiver.event_from_message = partial(receiver.event_from_message, localize=False)
        deadline = time.monotonic() + seconds
        with suppress(TimeoutError):
            # It asks all workers for a heartbeat at once, and gives up after so many seconds of silence.
            for _ in receiver.itercapture(timeout=seconds):
                if time.monotonic() > deadline:
                    break
    return skews, heard


def _serves(url: str) -> None:
    """Whether an API of ours answers there; a frozen one still accepts connections."""
    try:
        status = httpx.get(url, timeout=PATIENCE, trust_env=False).status_code
    except httpx.TransportError as error:
        raise OSError(0, "no answer in time" if isinstance(error, httpx.TimeoutException) else "refused") from error
    if status != HTTPStatus.OK:
        raise OSError(0, f"it answers {status}")


def _connects(url: str) -> None:
    """Whether the port accepts connections. Nothing is sent: a service is called for its own work only."""
    target = urlsplit(url)
    port = target.port or (443 if target.scheme == "https" else 80)
    if not target.hostname:
        raise OSError(0, "its URL names no host")
    with socket.create_connection((target.hostname, port), timeout=PATIENCE):
        pass


CHECKS: Final[Mapping[str, Callable[[str], None]]] = {"API": _serves}
