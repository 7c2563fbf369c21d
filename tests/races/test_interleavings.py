"""Random interleavings of edits, applies, claims, finishes and doorbells, against the real database and the oracle.

Every worker is a thread of this process that really holds its locks: one of them may be stopped anywhere between lock
and commit while the others go on, any number of calls may be out, claims expire under their holders, a person holds a
row, and messages are lost, doubled, late and made up. The oracle of FAULTS.md holds after each step, and once all is
quiet every edit has ended and every due post has gone out.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sqlalchemy import Connection, Engine, text

from shared import db
from shared.local.postgres import PostgreSQL
from shared.services import Reply
from shared.store import StaleWriteError
from tests import rows
from tests.conftest import TEMPLATE
from tests.faults.actors import POINTS, Actor, InOneThread, stopping_points
from tests.faults.evidence import Exchange, PostRow, gather, snapshot
from tests.faults.oracle import judge, verdict
from worker.apply import Applied, apply_edits
from worker.publish import publish
from worker.render import render

Message = tuple[Any, ...]

# An edit is taken to have been accepted two hours ago, so that times which have come since can be asked for.
ACCEPTED = timedelta(hours=2)
CDN = "https://cdn.example.com"
KINDS = ("done", "done", "done", "refused", "never_started", "never_started", "server_error", "unknown")


def local(minutes: int) -> str:
    return (datetime.now(UTC) + timedelta(minutes=minutes)).strftime("%Y-%m-%dT%H:%M")


captions = st.sampled_from(["a", "b", "first"]).map(lambda caption: {"caption": caption})
times = st.sampled_from([-60, -30, 60, 90]).map(lambda minutes: {"scheduledTime": minutes, "timezone": "Europe/London"})
sounds = st.sampled_from([None, "7001"]).map(lambda sound: {"soundId": sound})
contents = st.sampled_from(
    [
        {"contentType": "video", "contentUrl": f"{CDN}/a.mp4"},
        {"contentType": "video", "contentUrl": f"{CDN}/b.mp4"},
        {"contentType": "slides", "contentUrl": [f"{CDN}/1.jpg", f"{CDN}/2.jpg"]},
        {"contentType": "slides", "contentUrl": [f"{CDN}/3.jpg"]},
    ]
)
patches = st.one_of(captions, times, sounds, contents, st.tuples(captions, times).map(lambda two: two[0] | two[1]))
which = st.integers(0, 2)
picks = st.integers(0, 10**6)


class Interleavings(RuleBasedStateMachine):
    """Three posts: a video that is due, a video for later, and slides that are due once they are rendered."""

    engine: ClassVar[Engine]

    def __init__(self) -> None:
        super().__init__()
        self.posts: list[str] = []
        self.first: dict[str, PostRow] = {}
        self.exchanges: list[Exchange] = []
        self.messages: list[Message] = []
        self.actors: list[Actor] = []
        self.flying: list[Actor] = []
        self.paused: tuple[Actor, Message] | None = None
        self.person: tuple[Connection, str] | None = None

    @initialize()
    def create(self) -> None:
        with self.engine.begin() as tx:
            due, later = rows.post(tx, scheduled_time=rows.soon(-5)), rows.post(tx)
            self.posts = [due, later, rows.slides(tx, scheduled_time=rows.soon(-5))]
        self.first = snapshot(self.engine, self.posts)

    # What clients, the clock and people do.

    @rule(post=which, patch=patches, tag=st.sampled_from([None, None, None, None, 1, 2, 3]))
    def accept(self, post: int, patch: dict[str, Any], tag: int | None) -> None:
        body = patch | ({"scheduledTime": local(patch["scheduledTime"])} if "scheduledTime" in patch else {})
        number, post_id = len(self.exchanges), self.posts[post]
        request = f"r{next(rows.numbers)}"
        with self.engine.begin() as tx:
            edit = rows.edit(tx, post_id, body, if_match=None if tag is None else (f'"{tag}"',))
            tx.execute(
                text("UPDATE edits SET request_id = :request, created_at = created_at - :age WHERE id = :id"),
                {"request": request, "id": edit, "age": ACCEPTED},
            )
        self.exchanges.append(Exchange(request, post_id, body, number, number + 0.5, 202, {"edit-id": edit}))
        self.messages.append(("edits", post_id))

    @rule(post=which)
    def let_a_claim_expire(self, post: int) -> None:
        self._plainly("UPDATE posts SET claim_expires_at = now() WHERE id = :id AND claim_kind IS NOT NULL", post)

    @rule(post=which)
    def let_the_wait_for_the_next_try_end(self, post: int) -> None:
        self._plainly("UPDATE posts SET retry_at = now() WHERE id = :id AND retry_at IS NOT NULL", post)

    def _plainly(self, statement: str, post: int) -> None:
        """Time passes, unless somebody holds the row: then it passes another time."""
        with self.engine.connect() as tx:
            tx.execute(text("SET lock_timeout = 50"))
            try:
                tx.execute(text(statement), {"id": self.posts[post]})
            except Exception as error:
                if not db.lock_timed_out(error):
                    raise
                tx.rollback()
            else:
                tx.commit()

    @precondition(lambda self: self.person is None and self.paused is None)
    @rule(post=which)
    def a_person_holds_a_post(self, post: int) -> None:
        session = self.engine.connect()
        session.execute(text("SELECT 1 FROM posts WHERE id = :id FOR UPDATE"), {"id": self.posts[post]})
        self.person = session, self.posts[post]

    @precondition(lambda self: self.person is not None)
    @rule()
    def the_person_lets_go(self) -> None:
        assert self.person is not None
        self.person[0].rollback()
        self.person[0].close()
        self.person = None

    # What the broker does.

    @rule()
    def rescue(self) -> None:
        """What is queued, due or unrendered is rung for again."""
        asked = {"ids": self.posts}
        with self.engine.connect() as tx:
            queued = tx.execute(
                text("SELECT DISTINCT post_id FROM edits WHERE post_id = ANY(:ids) AND status = 'queued'"), asked
            )
            self.messages += [("edits", row.post_id) for row in queued]
            for post in tx.execute(text("SELECT * FROM posts WHERE id = ANY(:ids) ORDER BY id"), asked):
                if post.status == "pending_render":
                    self.messages.append(("render", post.id, post.content_revision))
                elif post.status == "generated" and post.scheduled_time <= datetime.now(UTC):
                    self.messages.append(("publish", post.id, post.schedule_revision))

    @precondition(lambda self: bool(self.messages))
    @rule(pick=picks)
    def lose_a_message(self, pick: int) -> None:
        self.messages.pop(pick % len(self.messages))

    @rule(post=which, kind=st.sampled_from(["publish", "render"]), revision=st.integers(0, 4))
    def make_up_a_message(self, post: int, kind: str, revision: int) -> None:
        self.messages.append((kind, self.posts[post], revision))

    # What workers do.

    @precondition(lambda self: bool(self.messages))
    @rule(pick=picks, doubled=st.booleans(), stop_at=st.sampled_from([None, None, *POINTS]))
    def deliver(self, pick: int, doubled: bool, stop_at: str | None) -> None:
        message = self.messages[pick % len(self.messages)]
        if not doubled:
            self.messages.remove(message)
        self._work(message, stop_at if self.paused is None else None)

    def _work(self, message: Message, stop_at: str | None = None, answer: Reply | None = None) -> None:
        kind, post_id, *revision = message
        work = {
            "edits": lambda: self._follow(apply_edits([post_id])),
            "publish": lambda: publish([(post_id, *revision)], InOneThread(), self._ring_published),  # type: ignore[arg-type,list-item]
            "render": lambda: render(post_id, *revision, self._ring_rendered),  # type: ignore[call-arg]
        }
        actor = Actor(work[kind], stop_at=stop_at, answer=answer)
        self.actors.append(actor)
        self._see(actor, message, actor.start())

    def _see(self, actor: Actor, message: Message, point: str | None) -> None:
        """Where a worker has come to."""
        if point == "call":
            self.flying.append(actor)
        elif point is not None:
            self.paused = actor, message
        else:
            try:
                actor.result()
            except Exception as error:
                # As worker/app.py: what passes by itself is rung again.
                if not (db.passing(error) or isinstance(error, StaleWriteError)):
                    raise
                self.messages.append(message)

    @precondition(lambda self: self.paused is not None)
    @rule()
    def let_the_stopped_one_on(self) -> None:
        assert self.paused is not None
        (actor, message), self.paused = self.paused, None
        self._see(actor, message, actor.go_on())

    @precondition(lambda self: bool(self.flying) and self.paused is None and self.person is None)
    @rule(pick=picks, kind=st.sampled_from(KINDS), stop_at=st.sampled_from([None, None, "locked", "decided"]))
    def answer_a_call(self, pick: int, kind: Any, stop_at: str | None) -> None:
        actor = self.flying.pop(pick % len(self.flying))
        actor.stop_at = stop_at
        self._see(actor, ("edits", self.posts[0]), actor.go_on(_reply(actor, kind)))

    def _follow(self, applied: Applied) -> None:
        self.messages += [("publish", post_id, revision) for post_id, revision, _ in applied.publishes]
        self.messages += [("render", post_id, revision) for post_id, revision in applied.renders]
        self.messages += [("edits", post_id) for post_id in [*applied.more, *applied.held]]

    def _ring_published(self, done: Any) -> None:
        self._follow(done.applied)
        self.messages += [("edits", post_id) for post_id in done.edits]
        self.messages += [("publish", one[0], one[1]) for one in [*done.again, *done.later, *done.early]]

    def _ring_rendered(self, done: Any) -> None:
        self._follow(done.applied)
        self.messages += [("edits", post_id) for post_id in done.edits]
        self.messages += [("render", one[0], one[1]) for one in [*done.again, *done.later]]
        self.messages += [("publish", one[0], one[1]) for one in done.publish]

    # What must hold.

    @invariant()
    def the_oracle_holds(self) -> None:
        self._judge(settled=False)

    def _judge(self, *, settled: bool) -> None:
        journal = [call for actor in self.actors for call in actor.calls]
        evidence = gather(self.engine, self.first, self.exchanges, journal)
        violations = judge(evidence, settled=settled)
        assert not violations, verdict(evidence, violations)

    def teardown(self) -> None:
        """Everything is let go and delivered; then all edits have ended, and all that is due has gone out."""
        if self.person is not None:
            self.the_person_lets_go()
        if self.paused is not None:
            self.let_the_stopped_one_on()
        while self.flying:
            actor = self.flying.pop()
            self._see(actor, ("edits", self.posts[0]), actor.go_on(Reply("done")))
        for _ in range(40):
            self.rescue()
            if not self.messages:
                break
            for post in range(len(self.posts)):
                self.let_a_claim_expire(post)
                self.let_the_wait_for_the_next_try_end(post)
            waiting, self.messages = list(dict.fromkeys(self.messages)), []
            for message in waiting:
                self._work(message, answer=Reply("done"))
        assert not self.messages, f"never quiet: {self.messages}"
        assert all(actor.over for actor in self.actors)
        self._judge(settled=True)


def _reply(actor: Actor, kind: Any) -> Reply:
    if kind == "done" and actor.kind == "render":
        return Reply("done", {"renderedUrl": f"{CDN}/r.mp4", "thumbnailUrl": f"{CDN}/t.jpg"})
    return Reply(kind, message=None if kind == "done" else kind)


class MoreInterleavings(Interleavings):
    """The same, at length and anew each time."""


FIXED = settings(
    max_examples=40,
    stateful_step_count=40,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate, Phase.shrink],
)
TestInterleavings = Interleavings.TestCase
TestInterleavings.settings = FIXED
TestMoreInterleavings = pytest.mark.faults(MoreInterleavings.TestCase)
TestMoreInterleavings.settings = settings(FIXED, max_examples=1000, stateful_step_count=80, derandomize=False)


@pytest.fixture(scope="module", autouse=True)
def _stage(postgres: PostgreSQL) -> Iterator[None]:
    url = postgres.create_database("interleavings", template=TEMPLATE)
    with pytest.MonkeyPatch.context() as patch, rows.set_up(patch, url) as engine, stopping_points():
        Interleavings.engine = engine
        yield
