"""How long a connection may stay in each state. A look once a second closes connections that stay longer.

A connection is in one of these states at any time, and each state has a limit, whatever the peer sends, leaves out or
does not read. docs/connections.md lists the limits for users.
"""

import asyncio
from collections import Counter
from dataclasses import dataclass
from enum import Enum
from operator import itemgetter
from typing import Protocol
from weakref import WeakKeyDictionary

import structlog
from uvicorn.server import ServerState

from api.http.open_files import most_connections

log = structlog.get_logger(__name__)


class State(Enum):
    """The state of a connection."""

    IDLE = "idle"  # nothing yet, or all is answered
    HEAD = "head"  # some of a request's head is here
    BODY = "body"  # some of a request's body is not here, whether it is answered or not
    ANSWERING = "answering"  # the request is here, its answer is not written yet
    UNREAD = "unread"  # the peer does not take what is written
    CLOSING = "closing"  # our side is closed, the peer's is not


LIMITS: dict[State, float] = {
    # Longer than a load balancer's 60 s: the side that reuses connections should be the one to close them.
    State.IDLE: 65.0,
    State.HEAD: 20.0,
    # Longer than a route waits for its body (api/http/reading.py): this is the second safety net.
    State.BODY: 30.0,
    # Longer than the longest `Prefer: wait` and the database's time-outs together: a safety net too.
    State.ANSWERING: 120.0,
    State.UNREAD: 30.0,
    State.CLOSING: 5.0,
}
"""Seconds in each state. Each piece of a streamed answer restarts ANSWERING, and each PROGRESS restarts UNREAD."""

BEHIND_UNREAD = (State.IDLE, State.ANSWERING, State.CLOSING)
"""States whose time starts when the peer has read what was written before."""

PROGRESS = 16 * 1024
"""Bytes that a peer has to take of a large answer within the limit of UNREAD."""

IMPATIENT = 5.0
"""Seconds of IDLE and HEAD while more than half of all connections are taken."""

BACKLOG_MAX = 128 * 1024 * 1024
"""Bytes of unread answers that a process keeps for all peers together."""

EVERY = 1.0


def overdue(state: State, seconds: float, *, crowded: bool = False) -> bool:
    """Whether a connection has been in this state for too long."""
    limit = LIMITS[state]
    if crowded and state in (State.IDLE, State.HEAD):
        limit = min(limit, IMPATIENT)
    return seconds >= limit


@dataclass(slots=True)
class ReadProgress:
    """How many bytes a peer has taken, and since when it has taken no more than that."""

    taken: int = 0
    since: float = 0.0
    behind: bool = False

    def stalled_for(self, taken: int, backlog: int, now: float) -> float | None:
        """Seconds for which a peer has taken too little; None if it has nothing left to take. `taken`: bytes in all.

        Less than PROGRESS is no progress: a peer that takes a byte a second would keep an answer for weeks.
        """
        if not backlog:
            self.behind = False
            return None
        if not self.behind or taken - self.taken >= PROGRESS:
            self.behind, self.taken, self.since = True, taken, now
        return now - self.since


class Watched(Protocol):
    """The part of a connection that Watch uses."""

    def snapshot(self, now: float) -> tuple[State, float, int]:
        """Its state, the seconds it has been in that state, and the bytes of its answers that are not read."""

    def expire(self, state: State) -> None:
        """Close it: it has been in this state for too long."""


class Watch:
    """Watches one server's connections. One look at all of them costs less than a timer for each request."""

    def __init__(self, connections: set[Watched], loop: asyncio.AbstractEventLoop) -> None:
        """`connections`: the server's own set, which it keeps."""
        self._connections = connections
        self._loop = loop
        self._next: asyncio.TimerHandle | None = None
        self.most = most_connections()

    def full(self) -> bool:
        """Whether there are more connections than the limit of open files has room for."""
        return len(self._connections) > self.most

    def start(self) -> None:
        """Look in a second, and every second while there are connections."""
        if self._next is None:
            self._next = self._loop.call_later(EVERY, self._look)

    def _look(self) -> None:
        self._next = None
        now = self._loop.time()
        crowded = len(self._connections) > self.most // 2
        expired: Counter[str] = Counter()
        unread: list[tuple[float, int, Watched]] = []
        for connection in list(self._connections):
            state, seconds, backlog = connection.snapshot(now)
            if overdue(state, seconds, crowded=crowded):
                connection.expire(state)
                expired[state.value] += 1
            elif backlog:
                unread.append((seconds, backlog, connection))
        self._shed(unread, expired)
        # Closing idle connections is everyday work. Of the others there is one line a second, however many they are.
        if any(name != State.IDLE.value for name in expired):
            log.info("connections_ended", **expired)
        if self._connections:
            self.start()

    @staticmethod
    def _shed(unread: list[tuple[float, int, Watched]], expired: Counter[str]) -> None:
        """Keep unread answers within BACKLOG_MAX: connections that have stalled for longest go first."""
        total = sum(backlog for _, backlog, _ in unread)
        for _, backlog, connection in sorted(unread, key=itemgetter(0), reverse=True):
            if total <= BACKLOG_MAX:
                return
            connection.expire(State.UNREAD)
            expired["shed"] += 1
            total -= backlog


_watches: WeakKeyDictionary[ServerState, Watch] = WeakKeyDictionary()


def watch_of(server: ServerState) -> Watch:
    """The Watch of a server, the same for all its connections. Call it in the server's event loop."""
    watch = _watches.get(server)
    if watch is None:
        watch = _watches[server] = Watch(server.connections, asyncio.get_running_loop())  # type: ignore[arg-type]
    return watch
