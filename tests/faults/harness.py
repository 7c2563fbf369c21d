"""The test harness of a fault: a running stack, posts under load, a log of the faults, and the oracle at the end."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import text

from tests import factories
from tests.faults.evidence import Call, Exchange, PostRow, clock, gather, snapshot
from tests.faults.load import Load
from tests.faults.oracle import judge, verdict
from tests.processes import Process, Processes
from tests.stack import Running
from tests.waiting import eventually

RESCUE_PERIOD = 5.0
SLACK = 4.0
"""Seconds that the machine may add to what is promised: two cores, shared."""


class Harness(Running):
    """One running Redraft that a test may strike. Everything random in it comes from `seed`."""

    def __init__(self, processes: Processes, database_url: str, redis_url: str, seed: int, **environment: str) -> None:
        # At debug level workers say which message they received, and received again.
        super().__init__(processes, database_url, redis_url, **({"REDRAFT_LOG_LEVEL": "DEBUG"} | environment))
        self.seed = seed
        self.first: dict[str, PostRow] = {}
        self.loads: list[Load] = []
        self.others: list[Exchange] = []
        self.diary: list[str] = []
        self.address = ""

    def populate(self, count: int = 20, **columns: Any) -> list[str]:
        """Posts for the load, remembered as they are now."""
        with self.engine.begin() as tx:
            ids = [factories.post(tx, **columns) for _ in range(count)]
        self.remember(ids)
        return ids

    def remember(self, post_ids: Sequence[str]) -> None:
        """These posts are judged too, from how they stand now."""
        self.first |= snapshot(self.engine, post_ids)

    def start_api(self) -> "Harness":
        """Start an API, or the next one; clients turn to it once it answers."""
        super().start_api()
        assert self.api is not None
        self.address = self.api.url
        return self

    def start_ops(self) -> "Harness":
        """Rescue and dispatch, rung by beat."""
        self.start_worker("ops")
        self.start_beat()
        return self

    def crashing_worker(self, *arguments: str) -> Process:
        """A worker for edits with the crash points of tests/faults/crashes.py planted."""
        return self.start_worker("edits", "--include=tests.faults.crashes", *arguments)

    @contextmanager
    def load(self, posts: Sequence[str], **options: Any) -> Iterator[Load]:
        """Load while the block runs, from this harness's seed; what its clients were told counts at the end."""
        load = Load(lambda: self.address, posts, self.seed + len(self.loads), **options)
        self.loads.append(load)
        with load:
            eventually(lambda: load.accepted > 5, within=30, because="the load is under way")
            self.note("the load is under way")
            yield load
            self.note(f"the load ends, {load.accepted} accepted")
        self.note("the load has its last answer")

    def send(self, post_id: str, body: dict[str, Any], name: str, **headers: str) -> Exchange:
        """One edit of the test's own, in the clients' log like all others."""
        sent, key = time.time(), headers.get("Idempotency-Key")
        answer = self.patch(post_id, body, **({"X-Request-Id": name} | headers))
        told = {header.lower(): value for header, value in answer.headers.items()}
        exchange = Exchange(
            name, post_id, body, sent, time.time(), answer.status_code, told, answer.json(), key
        )  # fmt: skip
        self.others.append(exchange)
        return exchange

    def note(self, words: str) -> None:
        """Write into the diary what struck, or what was seen."""
        self.diary.append(f"{clock(time.time())} {words}")
        print(self.diary[-1])

    def queued(self) -> int:
        return int(self.scalar("SELECT count(*) FROM edits WHERE status = 'queued'"))

    def drained(self, *, within: float) -> float:
        """Wait until no edit is queued; how many seconds it took. `within`: what is promised, without the slack."""
        started = time.monotonic()
        eventually(lambda: self.queued() == 0, within=within + SLACK, every=0.05, because="the queue of edits is empty")
        took = time.monotonic() - started
        self.note(f"drained in {took:.1f} s")
        return took

    def judge(self, journal: Sequence[Call] | None = None) -> int:
        """Hold the oracle; how many edits it judged."""
        exchanges = [*self.others, *(exchange for load in self.loads for exchange in load.exchanges)]
        evidence = gather(self.engine, self.first, exchanges, journal)
        violations = judge(evidence)
        assert not violations, verdict(evidence, violations)
        return len(evidence.edits)

    def locks_left(self) -> list[Any]:
        """Sessions of ours that sit in an open transaction and do nothing."""
        with self.engine.connect() as tx:
            found = tx.execute(
                text("""SELECT pid, state, application_name, query FROM pg_stat_activity
                        WHERE datname = current_database() AND state LIKE 'idle in transaction%'""")
            )
            return list(found)

    def report(self) -> str:
        """Seed and history, for a failed test."""
        exchanges = sorted(
            [*self.others, *(one for load in self.loads for one in load.exchanges)], key=lambda one: one.sent
        )
        told: dict[str, int] = {}
        for one in exchanges:
            told[str(one.status)] = told.get(str(one.status), 0) + 1
        lines = [f"seed {self.seed} (repeat it with FAULTS_SEED={self.seed})", f"answers: {told}", *self.diary]
        return "\n".join([*lines, *(one.line() for one in exchanges[-200:])])
