"""Workers as threads that stop where a test wants them to, under their real locks, until they are let on.

    with stopping_points():
        winner = Actor(lambda: apply_edits([post]), stop_at="decided")
        assert winner.start() == "decided"      # it holds the lock now and has committed nothing
        ...
        winner.go_on()
        assert winner.result().ends

A call of an outside service is a stop of its own, "call", for whoever does not answer it by `answer=`.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Engine, text

from shared.domain.service_answers import Reply
from shared.store import batches
from shared.store import claims as claims_store
from shared.store import edits as edits_store
from shared.store import posts as posts_store
from tests.faults.evidence import Call
from tests.waiting import eventually
from worker.outbound import services

POINTS = ("locked", "read", "decided", "claimed")
PATIENCE = 30.0
_PLACES = (
    ("locked", posts_store, "lock_posts"),
    ("read", edits_store, "queued_edits"),
    # Lock and queue in one trip: to stop between the two, a claim must be watched.
    ("read", batches, "take"),
    ("decided", batches, "finalize"),
    ("claimed", claims_store, "take_claims"),
)
_acting = threading.local()


Answer = Reply | Callable[[str], Reply] | None
"""What a service says, or how it finds that in the body; None: the actor stops at the call."""


class Actor:
    """One worker. It runs in a thread; `start` and `go_on` return the point at which it stopped, or None at its end."""

    def __init__(self, work: Callable[[], Any], *, stop_at: str | None = None, answer: Answer = None) -> None:
        self.stop_at, self.answer = stop_at, answer
        self.calls: list[Call] = []
        self.kind = self.body = ""
        self._work = work
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._stopped, self._on = threading.Event(), threading.Event()
        self._at: str | None = None
        self._result: Any = None
        self._error: Exception | None = None

    def start(self) -> str | None:
        self._thread.start()
        return self._wait()

    def go_on(self, answer: Answer = None) -> str | None:
        """Let it on; `answer` is what the service says to whoever stopped at a call."""
        self.answer = answer or self.answer
        self._stopped.clear()
        self._on.set()
        return self._wait()

    @property
    def at(self) -> str | None:
        """Where it stands; None if it runs or has ended."""
        return self._at

    @property
    def over(self) -> bool:
        return not self._thread.is_alive()

    def result(self) -> Any:
        """What the work returned, once it has ended; raises what it raised."""
        self._thread.join(PATIENCE)
        assert self.over, f"still runs, stopped at {self._at}"
        if self._error is not None:
            raise self._error
        return self._result

    def _wait(self) -> str | None:
        assert self._stopped.wait(PATIENCE), "neither stopped nor ended"
        return self._at

    def _run(self) -> None:
        _acting.actor = self
        try:
            self._result = self._work()
        except Exception as error:  # noqa: BLE001  -- result() raises it
            self._error = error
        self._at = None
        self._stopped.set()

    def reach(self, point: str) -> None:
        """Called at each point on its way; stops at the one that was asked for, once."""
        if point not in (self.stop_at, "call"):
            return
        self.stop_at = None if point == self.stop_at else self.stop_at
        self._on.clear()
        self._at = point
        self._stopped.set()
        assert self._on.wait(PATIENCE * 4), f"was never let on from {point}"
        self._at = None

    def call(self, kind: str, body: str, key: str) -> Reply:
        """The outside service, as this worker meets it."""
        self.kind, self.body = kind, body
        if kind == "publish":
            self.calls.append(Call(time.time(), key, body))
        if self.answer is None:
            self.reach("call")
        answer = self.answer(body) if callable(self.answer) else self.answer or Reply("done")
        self.answer = None
        if answer.kind == "never_started" and kind == "publish":
            self.calls.pop()
        return answer


@contextmanager
def stopping_points() -> Iterator[None]:
    """Make actors stop; threads that are no actors run on."""
    with pytest.MonkeyPatch.context() as patch:
        for point, module, name in _PLACES:
            patch.setattr(module, name, _stopping(point, getattr(module, name)))
        patch.setattr(services, "call", _call)
        yield


def _stopping(point: str, do: Callable[..., Any]) -> Callable[..., Any]:
    def stopping(*given: Any, **options: Any) -> Any:
        done = do(*given, **options)
        actor: Actor | None = getattr(_acting, "actor", None)
        if actor is not None:
            actor.reach(point)
        return done

    return stopping


def _call(kind: str, body: str, key: str, *_: object, **__: object) -> Reply:
    actor: Actor | None = getattr(_acting, "actor", None)
    assert actor is not None, "a call by nobody"
    return actor.call(kind, body, key)


class InOneThread:
    """Stands for `worker.outbound.call_pool.CallPool`: room for any number, each made in the actor's own thread."""

    def take(self, wanted: int, _patience: float) -> int:
        return wanted

    def give_back(self, room: int) -> None:
        pass

    def submit(self, run: Callable[[], object]) -> None:
        run()


def waits_for_a_lock(engine: Engine, *, within: float = 10) -> str:
    """The statement of a session that PostgreSQL says is waiting for somebody's lock: the proof of a real race."""
    asked = text(
        """SELECT query FROM pg_stat_activity
           WHERE datname = current_database() AND wait_event_type = 'Lock' AND pid <> pg_backend_pid()"""
    )

    def waiting() -> Any:
        with engine.connect() as tx:
            return tx.execute(asked).scalar()

    return str(eventually(waiting, within=within, every=0.005, because="the loser waits for the lock"))
