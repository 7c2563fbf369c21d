"""What is wrong, and what to do about it: facts in, findings out (`redraft doctor`).

Pure. shared/cli/probes.py asks the parts; this judges what they said.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from shared.domain.edit_histories import duration, listed
from shared.domain.start_rules import OLDEST_POSTGRESQL, is_too_old

EDIT_WAITS: Final = timedelta(seconds=30)
SKEW: Final = 1.0
"""Seconds. Workers hand a publish its time by their own clock; the database's decides whether it has come."""
SESSION_IDLE: Final = 10.0
SESSION_LONG: Final = 30.0
JOB_STALLED: Final = 60.0
NAMED_AT_MOST: Final = 5
FAILED_WITHIN: Final = timedelta(days=1)
"""A post that failed longer ago stays on the operators' page, but is no finding any more: many are never put back."""
REASON_SHOWN: Final = 60


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong: a stable code for scripts, what it is, and what to do."""

    code: str
    what: str
    todo: str


@dataclass(frozen=True, slots=True)
class Queue:
    """One of the broker's queues: its messages, and the workers that take from it."""

    name: str
    depth: int
    workers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Late:
    """A post that should have gone out, and why its row and tries say that it has not. `code`: the kind of reason."""

    post_id: str
    late: timedelta
    why: str
    code: str = ""


@dataclass(frozen=True, slots=True)
class Holder:
    """A session that holds a transaction open for long."""

    pid: int
    who: str
    idle: bool
    seconds: float
    blocks: int


@dataclass(frozen=True, slots=True)
class DatabaseFacts:
    """What PostgreSQL said. `skew`: its clock minus this machine's, in seconds; `skew_within`: how exact that is.

    `failed_posts`: posts that failed within FAILED_WITHIN; `failed_reasons`: the most frequent ones, with counts.
    `set_up_wrongly`: posts that the publisher answers as it would answer any, and `publisher_says` what.
    `version`: such as `18.4`, empty where it is not known. Of one that is too old nothing else was asked.
    """

    skew: float
    skew_within: float
    pending: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    queued: int = 0
    oldest: timedelta | None = None
    failed: int = 0
    late: int = 0
    latest: tuple[Late, ...] = ()
    holders: tuple[Holder, ...] = ()
    stalled: tuple[str, ...] = ()
    dead_events: int = 0
    set_up_wrongly: int = 0
    publisher_says: str = ""
    failed_posts: int = 0
    failed_reasons: tuple[tuple[str, int], ...] = ()
    version: str = ""


@dataclass(frozen=True, slots=True)
class RedisFacts:
    """What Redis said of itself. `saved`: how it keeps things on disk: `aof`, `rdb`, `nothing`, or `unknown` where it
    does not tell.
    """

    policy: str
    saved: str
    saving_fails: bool = False
    used: int = 0
    most: int = 0


@dataclass(frozen=True, slots=True)
class WorkerFacts:
    """What the broker and its workers said. `skews`: each worker's clock minus this machine's, in seconds.

    `beat`: whether beat was heard, None where that cannot be told.
    """

    queues: tuple[Queue, ...]
    skews: Mapping[str, float] = field(default_factory=dict)
    beat: bool | None = True


@dataclass(frozen=True, slots=True)
class Facts:
    """All that was asked. None: that part did not answer; `unreachable` says so of each, by its name."""

    database: DatabaseFacts | None
    redis: RedisFacts | None
    workers: WorkerFacts | None
    unreachable: Mapping[str, str] = field(default_factory=dict)
    now: datetime | None = None
    queue_full: int = 1000
    webhooks_wanted: bool = False


def diagnose(facts: Facts) -> list[Finding]:
    """Everything that is wrong, what stops all work first."""
    found = [_unreachable(name, said) for name, said in facts.unreachable.items()]
    if facts.database is not None:
        found += _version(facts.database)
        found += _migrations(facts.database)
    if facts.workers is not None:
        found += _workers(facts.workers, facts)
    if facts.redis is not None:
        found += _redis(facts.redis)
    if facts.database is not None:
        found += _database(facts.database)
        found += _clocks(facts.database, facts.workers)
    return found


_UNREACHABLE: Final[Mapping[str, str]] = {
    "PostgreSQL": "Nothing works without it: start it, and check REDRAFT_DATABASE_URL and the network between.",
    "Redis": "Edits are accepted and safe, but nothing is applied or published until it is back: start it, and check "
    "REDRAFT_REDIS_URL.",
    "API": "Clients cannot send edits: start it with `redraft api`, or look into its log for why it ended.",
    "Flower": "Redraft works without it, but tasks cannot be watched: start it with `redraft flower`.",
    "publisher": "Posts that come due are tried for an hour and then fail: start it, and check REDRAFT_PUBLISHER_URL.",
    "renderer": "Posts that need a render wait for it and then fail: start it, and check REDRAFT_RENDERER_URL.",
    "receiver of webhooks": "Events wait for it for a day and are then given up: start it, and check "
    "REDRAFT_WEBHOOK_URL.",
}


def _unreachable(name: str, said: str) -> Finding:
    code = f"unreachable_{name.split(maxsplit=1)[0].lower()}"
    return Finding(code, f"{name} does not answer: {said}", _UNREACHABLE.get(name, "Start it."))


def _version(database: DatabaseFacts) -> Iterable[Finding]:
    if database.version and is_too_old(database.version):
        yield Finding(
            "postgresql_too_old",
            f"PostgreSQL {database.version} is too old: Redraft needs {OLDEST_POSTGRESQL} or newer",
            "Upgrade it, or let REDRAFT_DATABASE_URL name a newer one. Nothing works before that, and nothing more was "
            "asked of it.",
        )


def _migrations(database: DatabaseFacts) -> Iterable[Finding]:
    if database.pending:
        yield Finding(
            "pending_migrations",
            f"The database lacks {_count(len(database.pending), 'migration')}: {listed(database.pending)}",
            "Run `redraft migrate`; the code that runs now survives it.",
        )
    if database.unknown:
        yield Finding(
            "unknown_migrations",
            f"The database stands at {listed(database.unknown)}, which this code does not know",
            "This is older code than what migrated the database: upgrade this machine.",
        )


def _workers(workers: WorkerFacts, facts: Facts) -> Iterable[Finding]:
    for queue in workers.queues:
        idle = queue.name == "webhooks" and not facts.webhooks_wanted and not queue.depth
        if not queue.workers and not idle:
            waiting = f", and {_count(queue.depth, 'message')} wait there" if queue.depth else ""
            yield Finding(
                "no_worker",
                f"No worker takes from the queue {queue.name}{waiting}",
                f"Start one with `redraft worker --queues {queue.name}`; if one runs, it hangs: look into its log.",
            )
        if queue.depth >= facts.queue_full:
            yield Finding(
                "queue_full",
                f"The queue {queue.name} holds {queue.depth:,} messages",
                f"Its workers do not keep up: start more with `redraft worker --queues {queue.name}`. Nothing is lost "
                "meanwhile: the work is in the database.",
            )
    if workers.beat is False:
        yield Finding(
            "no_beat",
            "No beat was heard: posts that come due are not sent, and lost work is not found",
            "Start one with `redraft beat`; two are as safe as one.",
        )


def _redis(redis: RedisFacts) -> Iterable[Finding]:
    if redis.policy != "noeviction":
        yield Finding(
            "redis_eviction",
            f"Redis may drop messages when it is full (maxmemory-policy {redis.policy})",
            "Set `maxmemory-policy noeviction`, in its configuration and with CONFIG SET.",
        )
    if redis.saved in ("nothing", "rdb"):
        yield Finding(
            "redis_persistence",
            "Redis keeps nothing on disk: a restart forgets every message"
            if redis.saved == "nothing"
            else "Redis keeps snapshots only: a crash forgets the messages since the last one",
            "Set `appendonly yes`. Nothing is lost without it, but after each restart edits and publishes wait for the "
            "rescue.",
        )
    elif redis.saving_fails:
        yield Finding(
            "redis_saving_fails",
            "Redis cannot write to its disk",
            "Look into its log; a full disk is the usual reason. It may refuse messages until then.",
        )
    if redis.most and redis.used > redis.most * 0.9:
        yield Finding(
            "redis_memory",
            f"Redis uses {redis.used / redis.most:.0%} of the memory that it may",
            "Raise maxmemory, or find what else lives in it: Redraft needs a few megabytes.",
        )


def _database(database: DatabaseFacts) -> Iterable[Finding]:
    if database.set_up_wrongly:
        yield Finding(
            "publisher_set_up_wrongly",
            f"The publisher answers {_count(database.set_up_wrongly, 'post')} as it would any: "
            f"{database.publisher_says}",
            "Check REDRAFT_PUBLISHER_URL, REDRAFT_SERVICE_SECRET and what the publisher itself needs to log in. Posts "
            "are tried for an hour; those that fail meanwhile: `redraft posts retry --reason publisher_unavailable`.",
        )
    if database.oldest is not None and database.oldest > EDIT_WAITS:
        yield Finding(
            "old_edits",
            f"{_count(database.queued, 'edit')} in the queue; the oldest waits for {duration(database.oldest)}",
            "See which with `redraft edits list --status queued`. A missing worker or a session that holds the post is "
            "named here too, if it is one of those.",
        )
    if database.late:
        # One post for each kind of reason: a publisher that is out of reach says the same of all of them.
        kinds = {one.code: one for one in reversed(database.latest)}
        first = [one for one in database.latest if kinds[one.code] is one][:NAMED_AT_MOST]
        shown = [f"{one.post_id} ({duration(one.late)}: {one.why})" for one in first]
        yield Finding(
            "late_posts",
            f"{_count(database.late, 'post')} should have gone out and did not, first of them {'; '.join(shown)}",
            "See them with `redraft posts stuck`, one with `redraft posts show POST`.",
        )
    for holder in database.holders:
        blocking = f", and holds up {_count(holder.blocks, 'other')}" if holder.blocks else ""
        doing = "does nothing in an open transaction" if holder.idle else "is in one transaction"
        yield Finding(
            "idle_transaction" if holder.idle else "long_transaction",
            f"Session {holder.pid} ({holder.who}) {doing} for {duration(timedelta(seconds=holder.seconds))}{blocking}",
            f"Ask its user to end it, or end it with: SELECT pg_terminate_backend({holder.pid})",
        )
    if database.failed:
        yield Finding(
            "failed_edits",
            f"{_count(database.failed, 'failed edit')} wait for your decision",
            "See them with `redraft edits list --status failed`; then `redraft edits requeue` or `discard` each.",
        )
    if database.failed_posts:
        shown = [f"{count:,} {_shortened(reason)}" for reason, count in database.failed_reasons[:NAMED_AT_MOST]]
        yield Finding(
            "failed_posts",
            f"{_count(database.failed_posts, 'post')} failed within a day: {'; '.join(shown)}",
            "See them with `redraft posts list --status failed`, or by reason on the operators' page. Repair the "
            "cause, then `redraft posts retry --reason WORDS`.",
        )
    if database.stalled:
        yield Finding(
            "stalled_jobs",
            f"No worker makes progress on the bulk job {listed(database.stalled[:NAMED_AT_MOST])}",
            "Look for a worker on the queue bulk, and into its log.",
        )
    if database.dead_events:
        yield Finding(
            "dead_webhooks",
            f"{_count(database.dead_events, 'event')} that the receiver of webhooks did not take within a day",
            "Repair the receiver; the operators' page lists what was given up.",
        )


def _clocks(database: DatabaseFacts, workers: WorkerFacts | None) -> Iterable[Finding]:
    """Compare clocks with the database's clock, which decides about time."""
    todo = "Let NTP set both clocks. Publishes are handed out by the worker's clock and judged by the database's."
    if abs(database.skew) - database.skew_within > SKEW:
        yield Finding("clock_skew", f"This machine's clock is {_off(-database.skew)} the database's", todo)
    for name, skew in sorted((workers.skews if workers else {}).items()):
        off = skew - database.skew
        # A heartbeat has been under way for some milliseconds, at most for as long as a busy worker is.
        if abs(off) - database.skew_within > SKEW:
            yield Finding("clock_skew", f"The clock of worker {name} is {_off(off)} the database's", todo)


def _shortened(reason: str) -> str:
    return reason if len(reason) <= REASON_SHOWN else f"{reason[: REASON_SHOWN - 1]}…"


def _off(seconds: float) -> str:
    return f"{duration(timedelta(seconds=abs(seconds)))} {'ahead of' if seconds > 0 else 'behind'}"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
