"""Holds and resumes at random while the load runs, of posts, an account and the workspace; and what must hold of them:
no post went out while it was held, and none in a burst when the hold ended.
"""

import asyncio
import random
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

import httpx
import psycopg
from sqlalchemy import Engine, text
from sqlalchemy.exc import OperationalError

from tests import factories
from tests.faults.oracle import Violation
from tests.loopback import LOOPBACK
from tests.soak.connection import Answer, Connection, UnansweredError
from tests.soak.posts import Posts
from tests.soak.stack import Stack

AGAIN = 0.3
"""Seconds until a client asks again that was not answered."""
LEVELS = {
    "post": ((1.0, 6.0), (0.2, 2.0)),
    "account": ((2.0, 6.0), (3.0, 10.0)),
    "workspace": ((1.0, 5.0), (10.0, 30.0)),
}
"""How long a hold lasts, and the gap before the next one."""
ACCOUNT = f"/v1/accounts/{factories.TIKTOK}/hold"


@dataclass(frozen=True)
class Period:
    """One hold as its client saw it, by the database's clock. `began`: no later than its answer; `ended`: before the
    resume was sent. `named`: posts that were going out already. `published`: the resume let the missed ones go.
    """

    level: str
    subject: str
    began: datetime
    ended: datetime
    named: frozenset[str] = field(repr=False)
    published: bool


class Release(NamedTuple):
    """A resume that let missed posts go, or may have: its answer was lost. `since`: no later than when it was sent.
    None: that is not known.
    """

    subject: str
    since: datetime | None


@dataclass
class Holds:
    """`periods`: the holds of which both ends are known. `releases`: also those of other holds."""

    port: int
    dsn: str
    posts: Posts
    rng: random.Random
    over: asyncio.Event
    periods: list[Period] = field(default_factory=list)
    releases: list[Release] = field(default_factory=list)

    async def run(self) -> None:
        await asyncio.gather(*(self._strike(level) for level in LEVELS))

    async def _strike(self, level: str) -> None:
        connection = Connection(self.port, factories.SECRET)
        lasts, gap = LEVELS[level]
        try:
            while not self.over.is_set():
                await self._wait(*gap)
                if level == "post" and not self.posts.due:
                    continue
                subject = {"account": factories.TIKTOK, "workspace": factories.WORKSPACE}.get(level)
                subject = subject or self.rng.choice(self.posts.due[-60:])
                await self._hold(connection, level, subject, lasts)
        finally:
            connection.close()

    async def _hold(self, connection: Connection, level: str, subject: str, lasts: tuple[float, float]) -> None:
        path = {"account": ACCOUNT, "workspace": "/v1/hold"}.get(level, f"/v1/posts/{subject}/hold")
        taken, _ = await self._asked(connection, "PUT", path, {"reason": "soak"})
        if taken.status != 200:
            return  # it does not wait to go out any more
        began = await self._clock("SELECT max(at) FROM acts WHERE subject_id = %s AND action = 'hold'", subject)
        await self._wait(*lasts)
        ended = await self._clock("SELECT clock_timestamp() WHERE %s <> ''", subject)
        publish = self.rng.random() < 0.5
        if publish:
            answer, tries = await self._asked(connection, "DELETE", f"{path}?missed=publish", None)
            publish = answer.status == 200
            # Refused, it let none go: what lies above it is held. But a try before may have done it without an answer.
            if publish or tries > 1:
                self.releases.append(Release(subject, ended or began))
        if not publish:
            await self._asked(connection, "DELETE", path, None)
        if began is not None and ended is not None:
            named = frozenset(taken.json()["goingOut"])
            self.periods.append(Period(level, subject, began, ended, named, publish))

    async def _asked(self, connection: Connection, method: str, path: str, body: Any) -> tuple[Answer, int]:
        """Sent until it is answered, and how often: a repeat does no harm."""
        tries = 1
        while True:
            with suppress(UnansweredError):
                answer = await connection.ask(method, path, body)
                if answer.status < 500 and answer.status != 429:
                    return answer, tries
            tries += 1
            await asyncio.sleep(AGAIN)  # as a client waits before it asks again

    async def _clock(self, query: str, subject: str) -> datetime | None:
        """A time of the database; None while it is away, and then the period is not judged."""
        with suppress(psycopg.Error):
            async with await psycopg.AsyncConnection.connect(self.dsn, connect_timeout=2) as connection:
                found = await (await connection.execute(query, [subject])).fetchone()
                return found[0] if found else None
        return None

    async def _wait(self, least: float, most: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self.over.wait(), self.rng.uniform(least, most))


def release(running: Stack) -> None:
    """Resume all that is held, and let go what missed its time. With a part of the stack away nothing happens."""
    try:
        with running.engine.connect() as tx:
            own = list(
                tx.execute(text("SELECT id FROM posts WHERE held_at IS NOT NULL AND status <> 'posted'")).scalars()
            )
    except OperationalError:
        return
    headers = {"Authorization": f"Bearer {factories.SECRET}"}
    api_url = f"http://127.0.0.1:{running.api_port}"
    with suppress(httpx.HTTPError), httpx.Client(base_url=api_url, headers=headers, **LOOPBACK) as api:
        for path in ("/v1/hold", ACCOUNT, *(f"/v1/posts/{post_id}/hold" for post_id in own)):
            api.delete(path, params={"missed": "publish"})


# A try under a claim that the hold's answer named is no new one.
_WHILE_HELD = text("""
    SELECT a.post_id, a.started_at FROM publish_attempts a JOIN posts p ON p.id = a.post_id
    WHERE a.started_at > :began AND a.started_at < :ended AND :subject IN (p.id, p.account_id, p.workspace_id)
        AND a.post_id <> ALL(:named)""")
# First tries for a time that had gone by when the hold ended. A later edit of the post may have given it that time.
_BURST = text("""
    SELECT a.post_id, a.started_at, ARRAY[p.id, p.account_id, p.workspace_id]
    FROM publish_attempts a JOIN posts p ON p.id = a.post_id
    WHERE a.started_at > :ended AND a.try_number = 1 AND :subject IN (p.id, p.account_id, p.workspace_id)
        AND CAST(CAST(a.body AS jsonb) -> 'post' ->> 'scheduledTime' AS timestamptz) <= :ended
        AND a.post_id <> ALL(:named) AND NOT EXISTS (
            SELECT FROM edits e WHERE e.post_id = p.id AND e.status = 'applied' AND e.finalized_at >= :ended)""")


def judge(
    engine: Engine, periods: Sequence[Period], releases: Sequence[Release], calmed: datetime | None
) -> list[Violation]:
    """What went out while it was held, or after a resume although it was missed. `calmed`: when all was released."""
    found = []
    with engine.connect() as tx:
        for period in periods:
            given = {"subject": period.subject, "named": list(period.named), "ended": period.ended}
            for post_id, at in tx.execute(_WHILE_HELD, given | {"began": period.began}):
                found.append(Violation("held", post_id, f"tried at {at} under the hold of {period}"))
            if period.published:
                continue
            for post_id, at, ids in tx.execute(_BURST, given):
                # One that was sent before this hold ended may have been at work after it.
                let_go = any(
                    one.subject in ids and (one.since is None or period.began <= one.since <= at) for one in releases
                )
                if not let_go and (calmed is None or at < calmed):
                    found.append(Violation("burst", post_id, f"tried at {at} after the resume of {period}"))
    return found
