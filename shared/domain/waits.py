"""What keeps an edit or a post waiting from outside its row: a lock of another session, Redis, a missing worker.

Pure. shared/store/locks.py finds the lock, and shared/broker/redis_health.py asks Redis. The command line, the doctor
and the operators' pages say the same words.
"""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from shared.domain import edit_histories
from shared.domain.edit_histories import EditHistory, duration
from shared.domain.lifecycle import EditStatus

TOO_LONG = timedelta(seconds=30)
"""A worker takes an edit within seconds. One that waits longer needs a look."""
PROMPT = timedelta(seconds=5)
"""An edit that waits longer has a reason, though it may not be known: Redraft finds what a worker
lost within that time."""

SESSION_IDLE, SESSION_LONG = 10.0, 30.0
"""Seconds. A session that does nothing in an open transaction for the one, or works in it for the other, is named."""


@dataclass(frozen=True, slots=True)
class Lock:
    """A session of PostgreSQL that has a post locked. `who`: its program, user and address, as far as they are known.

    `idle`: it does nothing in its open transaction. `since`: how long that transaction has lasted; None where
    PostgreSQL does not tell.
    """

    pid: int
    who: str
    idle: bool = False
    since: timedelta | None = None

    @property
    def words(self) -> str:
        """`session 4711 (psql, kim) has had the post locked for up to 3 min, and does nothing: end it with …`."""
        long = f" for up to {duration(self.since)}" if self.since is not None else ""
        idle = ", and does nothing" if self.idle else ""
        return (
            f"session {self.pid} ({self.who}) has had the post locked{long}{idle}: ask its user to end it, or end it "
            f"with SELECT pg_terminate_backend({self.pid})"
        )


@dataclass(frozen=True, slots=True)
class Session:
    """A session of PostgreSQL. `seconds`: how long its transaction has lasted, or how long it has been idle in one.

    `blocks`: how many others wait for its locks.
    """

    pid: int
    user: str | None
    application: str
    client: str | None
    idle: bool
    seconds: float
    blocks: int

    @property
    def words(self) -> str:
        """`Session 4711 (psql, kim) does nothing in an open transaction for 3 min, and holds up 2 others`."""
        doing = "does nothing in an open transaction" if self.idle else "is in one transaction"
        others = "1 other" if self.blocks == 1 else f"{self.blocks:,} others"
        blocking = f", and holds up {others}" if self.blocks else ""
        named = who(self.application, self.user, self.client)
        return f"Session {self.pid} ({named}) {doing} for {duration(timedelta(seconds=self.seconds))}{blocking}"

    @property
    def todo(self) -> str:
        return f"Ask its user to end it, or end it with: SELECT pg_terminate_backend({self.pid})"


def who(*parts: str | None) -> str:
    """A session as operators read it: `psql, kim, 10.0.0.7`, of what is known."""
    return ", ".join(part for part in parts if part) or "unknown"


FLOOD = 1000
"""Edits of one key that wait. If they are more than half of all, they are the reason that others wait."""
FLOOD_WAITS = timedelta(seconds=10)
RUSH = 100.0
"""Edits a second of one key. If they are more than half of all, they slow the others, though none waits for long."""


@dataclass(frozen=True, slots=True)
class Flood:
    """A key that sends more edits than all others: `waiting` of the `looked_at` edits that wait are its own, and it
    sends so many edits `a_second`.
    """

    workspace_id: str
    workspace: str
    key: str
    waiting: int
    looked_at: int
    a_second: float = 0.0

    @property
    def backlog(self) -> bool:
        """Most of what waits is its own."""
        return self.waiting >= FLOOD and self.waiting * 2 > self.looked_at

    def said(self, oldest: timedelta | None) -> tuple[str, str] | None:
        """What it does and what to do about it; None where it harms none. `oldest`: how long the oldest edit waits."""
        named = f"The key {self.key} of workspace {self.workspace}"
        todo = (
            f"Ask its owner to send less. `redraft keys list {self.workspace_id}` has the key's id, and `redraft keys "
            "revoke ID` stops it."
        )
        if self.backlog and oldest is not None and oldest > FLOOD_WAITS:
            share = f"of {self.looked_at:,} edits that wait, {self.waiting:,} are its own"
            where = f"--key {shlex.quote(self.key)} --workspace {self.workspace_id}"
            discard = f" `redraft edits discard --status queued {where}` ends what waits."
            return f"{named} floods the queue: {share}", todo + discard
        if self.a_second >= RUSH:
            pace = f"sends {self.a_second:,.0f} edits a second, more than all other keys together"
            slower = "The edits of others take longer meanwhile."
            smaller = f" `redraft keys create {self.workspace_id} NAME --rate-limit N` makes one that may send less."
            return f"{named} {pace}", f"{slower} {todo}{smaller}"
        return None


@dataclass(frozen=True, slots=True)
class Broker:
    """What Redis said when it was asked. `away`, `refuses`: why it does not answer, or takes no writes; else empty.

    `workers`: how many worker processes of each queue were heard of lately. `waiting`: the messages of each queue. Both
    are None where that is not known.
    """

    away: str = ""
    refuses: str = ""
    workers: Mapping[str, int] | None = None
    waiting: Mapping[str, int] | None = None

    @property
    def silent(self) -> list[str]:
        """Queues without a worker. None of them where Redis takes no writes: workers report through it."""
        if self.away or self.refuses or self.workers is None:
            return []
        return [queue for queue, count in self.workers.items() if not count]


UNKNOWN = Broker()
"""Redis was not asked."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Why something waits. `code` is stable, for scripts."""

    code: str
    words: str


@dataclass(frozen=True, slots=True)
class Waits:
    """All that was found out: the posts that other sessions have locked, and what Redis said."""

    locks: Mapping[str, Lock] = field(default_factory=dict)
    broker: Broker = UNKNOWN


NOTHING_FOUND = Waits()


def blocked(queue: str, post_id: str, found: Waits) -> Wait | None:
    """What keeps a worker of `queue` from a post; None where nothing was found."""
    broker = found.broker
    if (lock := found.locks.get(post_id)) is not None:
        return Wait("locked", lock.words)
    if broker.away:
        return Wait("redis_away", f"Redis does not answer ({broker.away}), so no worker is woken: start it")
    if broker.refuses:
        words = (
            f"Redis refuses writes ({broker.refuses.rstrip('.')}), so no worker is woken: `redraft doctor` says more"
        )
        return Wait("redis_refuses_writes", words)
    if queue in broker.silent:
        words = f"no worker of the queue {queue} is heard of: start one with `redraft worker --queues {queue}`"
        return Wait("no_worker", words)
    return None


CLOCK_OFF = timedelta(seconds=1)


def clock_trouble(before: datetime, database: datetime, after: datetime) -> str | None:
    """What is wrong with the clock of an API's machine, in a sentence. `database`: what the database's clock said
    between its moments `before` and `after`.
    """
    off = min(before - database, after - database, key=abs) if not before <= database <= after else timedelta()
    if abs(off) <= CLOCK_OFF:
        return None
    way = "ahead of" if off > timedelta() else "behind"
    return f"The clock of this API's machine is {duration(abs(off))} {way} the database's. Let NTP set both clocks."


def troubles(broker: Broker, *, webhooks: bool) -> list[str]:
    """What stops all work of a kind, in sentences. `webhooks`: whether there is a receiver."""
    if broker.away:
        words = f"Redis does not answer ({broker.away}): edits are accepted and safe"
        return [
            f"{words}, but nothing is applied or published until it is back. Start it, and check REDRAFT_REDIS_URL."
        ]
    if broker.refuses:
        words = f"Redis refuses writes ({broker.refuses.rstrip('.')}): edits are accepted and safe"
        return [f"{words}, but no worker is woken. Its memory or disk is full, or it is a replica."]
    queues = [name for name in broker.silent if name != "webhooks" or webhooks or (broker.waiting or {}).get(name)]
    if not queues:
        return []
    many = "queue" if len(queues) == 1 else "queues"
    start = f"redraft worker --queues {','.join(queues)}"
    return [f"No worker of the {many} {edit_histories.listed(queues)} was heard of within 30 s. Start one: {start}"]


def of_edit(edit: EditHistory, found: Waits = NOTHING_FOUND) -> Wait | None:
    """Why an edit waits; None for one that has ended."""
    if edit.status != EditStatus.QUEUED:
        return None
    if (known := blocked("edits", edit.post_id, found)) is not None:
        return known
    if edit.attempts:
        times = "once" if edit.attempts == 1 else f"{edit.attempts:,} times"
        words = (
            f"it was started {times} and its worker died; it runs alone now, and ends as failed when its attempts are "
            "spent; the worker's log says why it died"
        )
        return Wait("worker_died", words)
    if edit.waited <= PROMPT:
        return Wait("waits", "its worker takes it within seconds")
    before = (found.broker.waiting or {}).get("edits", 0)
    queue = f"; {before:,} messages wait on the queue edits" if before > 1 else ""
    words = f"no worker has taken it for {duration(edit.waited)}{queue}; `redraft doctor` looks at every part"
    return Wait("not_taken", words)


def advice(edit: EditHistory, found: Waits = NOTHING_FOUND) -> str:
    """What to do about an edit, in a sentence or two."""
    if (wait := of_edit(edit, found)) is not None:
        return f"{'Nothing to do' if wait.code == 'waits' else 'It waits'}: {wait.words}."
    if edit.status == EditStatus.FAILED:
        return (
            "It never took effect. The worker's log says why. Its lines attempt_spent with the edit's id name the "
            "error. Lines worker_died with the post's id say that the worker was killed. Repair that, then requeue the "
            "edit. Or discard it if it is no longer wanted."
        )
    return {
        EditStatus.APPLIED: "Nothing to do: it took effect.",
        EditStatus.REJECTED: "Nothing to do here: the client knows why, and may send another edit."
        if edit.error_code != "discarded"
        else "Nothing to do: an operator discarded it, and it never took effect.",
    }[EditStatus(edit.status)]


def as_json(edit: EditHistory, found: Waits = NOTHING_FOUND) -> dict[str, Any]:
    """An edit as `--json` shows it, with why it waits and what to do."""
    wait = of_edit(edit, found)
    return edit_histories.as_json(edit) | {"waits": wait and wait.code, "advice": advice(edit, found)}
